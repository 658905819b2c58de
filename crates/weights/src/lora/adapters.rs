//! The LoRA updates of one network by several files.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::{Layer, LoraFile};
use super::{Fit, ModelPart};
use crate::low_rank_update::{LowRankUpdate, STRETCH, TensorUpdates};
use crate::stored::converting_takes;
use crate::{ElementType, Result};

/// The LoRA files of one network, each with its scale. Their updates are added to tensors while these are
/// read.
#[derive(Debug, Default)]
pub struct Adapters {
    files: Vec<Arc<LoraFile>>,
    tensors: HashMap<String, Changed>,
}

/// A tensor with updates, as a matrix of `rows` by `columns`.
#[derive(Debug)]
struct Changed {
    rows: usize,
    columns: usize,
    element_type: ElementType,
    updates: Vec<Update>,
}

/// The update of a tensor by a layer of a file.
#[derive(Debug)]
struct Update {
    file: Arc<LoraFile>,
    layer: usize,
    scale: f32,
    /// The rows of the layer, and the rows of the tensor that they are added to.
    moves: Vec<RowMove>,
}

#[derive(Debug, Clone, Copy)]
struct RowMove {
    from: usize,
    to: usize,
    rows: usize,
}

impl Adapters {
    /// The updates of the network `part` by the files of `fits`, each with its scale. Files with a scale of 0
    /// are left out.
    pub fn new(part: ModelPart, fits: &[(&Fit, f32)]) -> Self {
        let mut adapters = Self::default();
        for &(fit, scale) in fits.iter().filter(|(_, scale)| *scale != 0.0) {
            let changes = fit.changes.get(&part).map_or(&[][..], Vec::as_slice);
            if !changes.is_empty() {
                adapters.files.push(fit.file.clone());
            }
            for change in changes {
                for (index, piece) in change.pieces.iter().enumerate() {
                    let moved = RowMove {
                        from: piece.from,
                        to: piece.to,
                        rows: piece.rows,
                    };
                    let changed = adapters
                        .tensors
                        .entry(piece.tensor.clone())
                        .or_insert_with(|| Changed {
                            rows: piece.of,
                            columns: piece.columns,
                            element_type: piece.element_type,
                            updates: Vec::new(),
                        });
                    let same_layer = change.pieces[..index]
                        .iter()
                        .any(|earlier| earlier.tensor == piece.tensor);
                    match changed.updates.last_mut().filter(|_| same_layer) {
                        Some(update) => update.moves.push(moved),
                        None => changed.updates.push(Update {
                            file: fit.file.clone(),
                            layer: change.layer,
                            scale,
                            moves: vec![moved],
                        }),
                    }
                }
            }
        }
        adapters
    }

    /// Whether no tensor has an update.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The number of tensors with updates.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The maximum scratch bytes of reading one tensor: the matrices of its update, and the stretch of the
    /// tensor that is updated at a time. The workspace of each GEMM thread is not included; every forward
    /// pass needs it too.
    pub fn scratch_bytes(&self) -> u64 {
        let most = self.tensors.values().map(Changed::scratch_bytes).max();
        most.unwrap_or(0) as u64
    }
}

impl TensorUpdates for Adapters {
    fn updates(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn update(&self, name: &str) -> Result<Option<LowRankUpdate>> {
        self.tensors.get(name).map(Changed::read_update).transpose()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.files
            .iter()
            .try_for_each(|file| file.checkpoint().check_unchanged())
    }
}

impl Changed {
    /// Reads the matrices of all files into one update.
    fn read_update(&self) -> Result<LowRankUpdate> {
        let &Self { rows, columns, .. } = self;
        let rank = self.rank();
        let (mut up, mut down) = (vec![0.0; rows * rank], vec![0.0; rank * columns]);
        let mut first = 0;
        for update in &self.updates {
            let (file, layer) = (&update.file, update.layer());
            let factor = update.scale * layer.factor(file)?;
            layer.read_down(file, &mut down[first * columns..(first + layer.rank) * columns])?;
            let mut values = vec![0.0; layer.rows * layer.rank];
            layer.read_up(file, &mut values)?;
            for moved in &update.moves {
                let from = values.chunks_exact(layer.rank).skip(moved.from).take(moved.rows);
                let to = up.chunks_exact_mut(rank).skip(moved.to);
                for (to, from) in to.zip(from) {
                    for (to, from) in to[first..first + layer.rank].iter_mut().zip(from) {
                        *to = factor * from;
                    }
                }
            }
            first += layer.rank;
        }
        Ok(LowRankUpdate {
            up,
            down,
            rows,
            rank,
            columns,
        })
    }

    fn rank(&self) -> usize {
        self.updates.iter().map(|update| update.layer().rank).sum()
    }

    fn scratch_bytes(&self) -> usize {
        let matrices = 4 * self.rank() * (self.rows + self.columns);
        let stretch = (self.rows * self.columns).min((STRETCH / self.columns).max(1) * self.columns);
        let adding = 4 * stretch + converting_takes(stretch, self.element_type);
        let reading = self
            .updates
            .iter()
            .map(|update| update.layer().reading_takes())
            .max();
        matrices + adding.max(reading.unwrap_or(0))
    }
}

impl Update {
    fn layer(&self) -> &Layer {
        &self.file.layers()[self.layer]
    }
}
