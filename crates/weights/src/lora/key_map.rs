//! The names of network layers in LoRA files, mapped to the tensors of a checkpoint in the naming of
//! diffusers and transformers.

use std::collections::{BTreeMap, HashMap};

use super::key::flat;
use super::{LoraNetwork, ModelPart};
use crate::ElementType;
use crate::naming::{Layout, Naming, Translated};

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
    /// The form of the elements in the checkpoint.
    pub(super) element_type: ElementType,
}

/// The layers of a network under all names that LoRA files use, with underscores for dots.
#[derive(Debug, Default)]
pub(super) struct KeyMap(HashMap<String, Vec<Piece>>);

/// A layer of a network.
struct Module<'a> {
    /// The name in the checkpoint.
    stored: &'a str,
    /// The name in diffusers or transformers, which is another one in some files.
    name: String,
}

impl KeyMap {
    /// The layers of `network`, with their names in all of its namings.
    pub(super) fn of(network: &LoraNetwork<'_>) -> Self {
        let LoraNetwork {
            part,
            checkpoint,
            namings,
        } = *network;
        let mut key_map = Self::default();
        let mut modules = Vec::new();
        let is_clip = matches!(part, ModelPart::TextEncoder | ModelPart::TextEncoder2);
        let bare = Naming::BARE_CLIP.translation([]);
        for (name, header) in checkpoint.tensors() {
            let (Some(stored), [rows, rest @ ..]) = (name.strip_suffix(".weight"), header.shape.as_slice())
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
                element_type: header.element_type,
            };
            key_map.0.insert(flat(stored), vec![piece]);
            let renamed = is_clip.then(|| bare.renamed(stored)).flatten();
            modules.push(Module {
                stored,
                name: renamed.unwrap_or_else(|| stored.to_owned()),
            });
        }
        for module in &modules {
            key_map.also(module.stored, &module.name);
            // Early versions of diffusers omit the index of the projection.
            if let Some(attention) = module.name.strip_suffix(".to_out.0") {
                key_map.also(module.stored, &format!("{attention}.to_out"));
            }
        }
        for naming in namings {
            key_map.add(*naming, &modules);
        }
        key_map
    }

    pub(super) fn find(&self, module: &str) -> Option<&[Piece]> {
        self.0.get(module).map(Vec::as_slice)
    }

    /// Adds the names that `modules` have in another naming.
    fn add(&mut self, naming: Naming, modules: &[Module<'_>]) {
        let translation = naming.translation(modules.iter().map(|module| module.name.as_str()));
        // The layers whose rows are those of several modules in order.
        let mut fused: BTreeMap<String, (usize, BTreeMap<usize, &str>)> = BTreeMap::new();
        for Module { stored, name } in modules {
            let Some(Translated { name, layout }) = translation.other_name(&format!("{name}.weight")) else {
                continue;
            };
            // A fused projection is a parameter of its module: `attn.in_proj_weight`.
            let module = name
                .strip_suffix(".weight")
                .or_else(|| name.strip_suffix("_weight"));
            match (module, layout) {
                (Some(module), Layout::Same) => self.also(stored, module),
                (Some(module), Layout::HalvesSwapped) => self.halves_swapped(stored, module),
                (Some(module), Layout::Part { index, of }) => {
                    let (count, parts) = fused.entry(module.to_owned()).or_default();
                    *count = of;
                    parts.insert(index, stored);
                }
                // No LoRA file has the transposed projection of OpenCLIP, which is no layer there.
                (_, Layout::Transposed) | (None, _) => {}
            }
        }
        for (name, (count, parts)) in fused {
            if parts.len() == count {
                self.joined(&parts.into_values().collect::<Vec<_>>(), &name);
            }
        }
    }

    /// Adds a name for the layer `module`, unless another layer has the name.
    fn also(&mut self, module: &str, name: &str) {
        self.joined(&[module], name);
    }

    /// Adds the name of a fused layer, whose rows are those of `modules` in order, unless another layer has
    /// the name.
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
    fn halves_swapped(&mut self, module: &str, name: &str) {
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
}
