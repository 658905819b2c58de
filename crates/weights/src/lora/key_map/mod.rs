//! The names of network layers in LoRA files, mapped to the tensors of a checkpoint in the naming of
//! diffusers and transformers.

mod text;
mod transformer;
mod unet;

use std::collections::HashMap;

use super::ModelPart;
use super::key::flat;
use crate::Checkpoint;

/// A range of rows of a LoRA layer, and the rows of a tensor that it updates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    /// The tensor in the checkpoint.
    pub(super) tensor: String,
    /// The first row of the layer.
    pub(super) from: usize,
    /// The first row of the tensor.
    pub(super) to: usize,
    pub(super) rows: usize,
    /// The number of values of a row.
    pub(super) columns: usize,
    /// The number of rows of the whole tensor.
    pub(super) of: usize,
    /// The bytes of an element in the checkpoint.
    pub(super) element_bytes: usize,
}

/// The layers of a network under all names that LoRA files use, with underscores for dots.
#[derive(Debug, Default)]
pub(super) struct KeyMap(HashMap<String, Vec<Piece>>);

impl KeyMap {
    pub(super) fn of(part: ModelPart, checkpoint: &Checkpoint) -> Self {
        let mut key_map = Self::default();
        let mut names = Vec::new();
        for (name, header) in checkpoint.tensors() {
            let (Some(module), [rows, rest @ ..]) = (name.strip_suffix(".weight"), header.shape.as_slice())
            else {
                continue;
            };
            if !matches!(rest.len(), 1 | 3) {
                continue;
            }
            let piece = Piece {
                tensor: name.to_owned(),
                from: 0,
                to: 0,
                rows: *rows,
                columns: rest.iter().product(),
                of: *rows,
                element_bytes: header.element_type.size() as usize,
            };
            key_map.0.insert(flat(module), vec![piece]);
            names.push(module);
        }
        match part {
            ModelPart::Denoiser => {
                unet::add(&mut key_map, &names);
                transformer::add(&mut key_map, &names);
            }
            ModelPart::TextEncoder | ModelPart::TextEncoder2 => text::add(&mut key_map, &names),
            ModelPart::TextEncoder3 => {}
        }
        // Early versions of diffusers omit the index of the projection.
        for module in &names {
            if module.ends_with(".to_out.0") {
                key_map.also(module, &module[..module.len() - 2]);
            }
        }
        key_map
    }

    pub(super) fn find(&self, module: &str) -> Option<&[Piece]> {
        self.0.get(module).map(Vec::as_slice)
    }

    /// Adds a name for the layer `module`, unless another layer has the name.
    fn also(&mut self, module: &str, name: &str) {
        self.joined(&[module], name);
    }

    /// Adds the name of a fused layer, whose rows are those of `modules` in order, if all of these exist.
    fn joined(&mut self, modules: &[&str], name: &str) {
        let name = flat(name);
        if self.0.contains_key(&name) {
            return;
        }
        let (mut pieces, mut from) = (Vec::new(), 0);
        for module in modules {
            let Some([piece]) = self.find(&flat(module)) else {
                return;
            };
            pieces.push(Piece {
                from,
                ..piece.clone()
            });
            from += piece.rows;
        }
        self.0.insert(name, pieces);
    }

    /// Adds a name for the layer `module` under which the two halves of its rows are swapped.
    fn halves_exchanged(&mut self, module: &str, name: &str) {
        let Some([whole]) = self.find(&flat(module)) else {
            return;
        };
        let rows = whole.rows / 2;
        let half = |from, to| Piece {
            from,
            to,
            rows,
            ..whole.clone()
        };
        let pieces = vec![half(0, rows), half(rows, 0)];
        self.0.insert(flat(name), pieces);
    }

    /// The numbers of rows and columns of the layer `module`.
    fn size(&self, module: &str) -> Option<(usize, usize)> {
        match self.find(&flat(module))? {
            [piece] => Some((piece.rows, piece.columns)),
            _ => None,
        }
    }
}
