//! The rows of a naming table.

use std::fmt;

/// A module, or a single tensor, under its two names.
///
/// A name is a pattern: `{layer}` stands for a number. A variable with the same name in both patterns is the
/// same number there; `Numbering` relates the others.
#[derive(Debug)]
pub(super) struct Row {
    /// The name in diffusers or transformers.
    pub(super) diffusers: &'static str,
    /// The name in the other program.
    pub(super) other: &'static str,
    /// Whether these are the names of a tensor. Those of a module are followed by the names of its tensors.
    pub(super) is_tensor: bool,
    /// How the other program lays out the values.
    pub(super) layout: Layout,
    /// The names inside of the module. Without rows they are the same in both programs.
    pub(super) inside: &'static [Row],
}

/// How another program lays out the values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Like diffusers.
    Same,
    /// Fused with others: the tensor is the part at `index` of `of` equal parts of the rows of the other
    /// program's.
    Part {
        /// The index of the part.
        index: usize,
        /// The number of parts.
        of: usize,
    },
    /// With the two halves of its rows swapped.
    HalvesSwapped,
    /// Transposed.
    Transposed,
}

/// The layout as a message names it.
impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => write!(formatter, "a tensor"),
            Self::Part { of, .. } => write!(formatter, "{of} tensors of as many rows"),
            Self::HalvesSwapped => write!(formatter, "two halves of as many rows"),
            Self::Transposed => write!(formatter, "a matrix"),
        }
    }
}

/// A module under its two names.
pub(super) const fn module(diffusers: &'static str, other: &'static str) -> Row {
    Row {
        diffusers,
        other,
        is_tensor: false,
        layout: Layout::Same,
        inside: &[],
    }
}

/// A tensor under its two names.
pub(super) const fn tensor(diffusers: &'static str, other: &'static str) -> Row {
    Row {
        is_tensor: true,
        ..module(diffusers, other)
    }
}

impl Row {
    /// A third of the rows of the other program's tensor: queries, keys or values.
    pub(super) const fn third(self, index: usize) -> Self {
        Self {
            layout: Layout::Part { index, of: 3 },
            ..self
        }
    }

    /// The halves of the rows are swapped: shift and scale of a modulation.
    pub(super) const fn halves_swapped(self) -> Self {
        Self {
            layout: Layout::HalvesSwapped,
            ..self
        }
    }

    /// The matrix is transposed.
    pub(super) const fn transposed(self) -> Self {
        Self {
            layout: Layout::Transposed,
            ..self
        }
    }

    /// The names inside of the module are those of `rows`.
    pub(super) const fn inside(self, rows: &'static [Self]) -> Self {
        Self { inside: rows, ..self }
    }
}
