//! The names that the layers of a network go by in LoRA files, beside those that diffusers and transformers save them
//! under.

mod text;
mod transformer;
mod unet;

use std::collections::HashMap;

use super::ModelPart;
use super::key::flat;
use crate::Checkpoint;

/// Rows of a tensor that rows of a layer in a file stand for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    /// The tensor in the network's checkpoint.
    pub(super) tensor: String,
    /// The first of the layer's rows.
    pub(super) from: usize,
    /// The first of the tensor's rows.
    pub(super) to: usize,
    pub(super) rows: usize,
    /// Values of a row.
    pub(super) columns: usize,
    /// Rows that the whole tensor has.
    pub(super) of: usize,
    /// Bytes of an element in the checkpoint.
    pub(super) element_bytes: usize,
}

/// The layers of a network by every name that a file may give them, underscores for dots.
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
        // diffusers once left the number of the projection out.
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

    /// Gives the layer `module` another name, unless that is some layer's already.
    fn also(&mut self, module: &str, name: &str) {
        self.joined(&[module], name);
    }

    /// Gives the layers `modules` together, in this order from the top, the name `name`, if all are there.
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

    /// Gives the layer `module` another name under which the halves of its rows have changed places.
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

    /// How many rows and columns the layer `module` has.
    fn size(&self, module: &str) -> Option<(usize, usize)> {
        match self.find(&flat(module))? {
            [piece] => Some((piece.rows, piece.columns)),
            _ => None,
        }
    }
}
