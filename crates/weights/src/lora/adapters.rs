//! The LoRA updates of one network by several files.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::LoraFile;
use super::layer::{DifferenceTensors, Layer, MagnitudeTensor};
use super::matrices::ProductTensors;
use super::{Fit, ModelPart};
use crate::stored::converting_takes;
use crate::weight_update::{
    Decomposition, Difference, Product, RowMove, Step, TensorUpdates, WeightUpdate, stretch, task_rows,
};
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

    /// The maximum scratch bytes of reading one tensor: the matrices of its update, the stretch of the tensor
    /// that is updated at a time, and the rows of the differences that threads compute. The workspace of each GEMM thread is not included; every forward
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

    fn update(&self, name: &str) -> Result<Option<WeightUpdate>> {
        self.tensors.get(name).map(Changed::read_update).transpose()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.files
            .iter()
            .try_for_each(|file| file.checkpoint().check_unchanged())
    }
}

impl Changed {
    /// Reads the matrices of all files. Products that are added one after the other become one, of the sum of
    /// their ranks.
    fn read_update(&self) -> Result<WeightUpdate> {
        let runs = self
            .updates
            .chunk_by(|one, next| one.adds_product() && next.adds_product());
        let steps = runs.map(|run| match run {
            [update] if !update.adds_product() => self.read_step(update),
            products => Ok(Step::Add(Difference::LowRank(self.read_products(products)?))),
        });
        Ok(WeightUpdate {
            rows: self.rows,
            columns: self.columns,
            steps: steps.collect::<Result<_>>()?,
        })
    }

    fn read_step(&self, update: &Update) -> Result<Step> {
        let (checkpoint, layer) = (update.file.checkpoint(), update.layer());
        let moves = || update.moves.clone();
        let difference = match &layer.difference {
            DifferenceTensors::LowRank(_) => {
                Difference::LowRank(self.read_products(std::slice::from_ref(update))?)
            }
            DifferenceTensors::Hadamard([one, other]) => Difference::Hadamard {
                products: [
                    one.read(checkpoint, update.factor()?)?,
                    other.read(checkpoint, 1.0)?,
                ],
                moves: moves(),
            },
            DifferenceTensors::Kronecker([left, right]) => Difference::Kronecker {
                left: left.read(checkpoint, update.factor()?)?,
                right: right.read(checkpoint, 1.0)?,
                moves: moves(),
            },
        };
        Ok(match &layer.magnitudes {
            None => Step::Add(difference),
            Some(magnitudes) => Step::Decompose(Decomposition {
                difference,
                magnitudes: magnitudes.read(checkpoint, moves())?,
                scale: update.scale,
            }),
        })
    }

    /// Reads the low-rank products of `updates` into one, whose rows are those of the tensor.
    fn read_products(&self, updates: &[Update]) -> Result<Product> {
        let columns = self.columns;
        let rank = updates
            .iter()
            .filter_map(Update::product)
            .map(|product| product.rank);
        let rank: usize = rank.sum();
        let (mut up, mut down) = (vec![0.0; self.rows * rank], vec![0.0; rank * columns]);
        let mut first = 0;
        for update in updates {
            let Some(product) = update.product() else { continue };
            let (checkpoint, factor) = (update.file.checkpoint(), update.factor()?);
            let own = first..first + product.rank;
            product.read_down(checkpoint, &mut down[own.start * columns..own.end * columns])?;
            let mut values = vec![0.0; product.rows * product.rank];
            product.read_up(checkpoint, &mut values)?;
            for moved in &update.moves {
                let from = values
                    .chunks_exact(product.rank)
                    .skip(moved.from)
                    .take(moved.rows);
                let to = up.chunks_exact_mut(rank).skip(moved.to);
                for (to, from) in to.zip(from) {
                    for (to, from) in to[own.clone()].iter_mut().zip(from) {
                        *to = factor * from;
                    }
                }
            }
            first = own.end;
        }
        Ok(Product {
            up,
            down,
            rank,
            columns,
        })
    }

    fn scratch_bytes(&self) -> usize {
        let held = self.updates.iter().map(|update| update.held_bytes(self));
        let stretch = stretch(self.rows, self.columns);
        let rows = task_rows(self.columns).min(self.rows);
        let tasks = stretch.div_ceil(rows * self.columns);
        let task = self
            .updates
            .iter()
            .map(|update| update.task_bytes(rows, self.columns));
        let tasks = tasks.min(rayon::current_num_threads()) * task.max().unwrap_or(0);
        let adding = 4 * stretch + tasks.max(converting_takes(stretch, self.element_type));
        let reading = self.updates.iter().map(Update::reading_takes).max();
        held.sum::<usize>() + adding.max(reading.unwrap_or(0))
    }
}

impl Update {
    fn layer(&self) -> &Layer {
        &self.file.layers()[self.layer]
    }

    /// Whether the update only adds a low-rank product.
    fn adds_product(&self) -> bool {
        self.layer().magnitudes.is_none() && self.product().is_some()
    }

    /// The low-rank product, if that is the difference.
    fn product(&self) -> Option<&ProductTensors> {
        match &self.layer().difference {
            DifferenceTensors::LowRank(product) => Some(product),
            _ => None,
        }
    }

    /// The factor of the difference. The scale of a DoRA is applied after its magnitudes.
    fn factor(&self) -> Result<f32> {
        let factor = self.layer().factor(self.file.checkpoint())?;
        Ok(match self.layer().magnitudes {
            None => self.scale * factor,
            Some(_) => factor,
        })
    }

    /// The bytes that are held while `tensor` is updated.
    fn held_bytes(&self, tensor: &Changed) -> usize {
        let values = match &self.layer().difference {
            DifferenceTensors::LowRank(product) => product.rank * (tensor.rows + tensor.columns),
            other => other.values(),
        };
        let magnitudes = self.layer().magnitudes.as_ref();
        4 * values + magnitudes.map_or(0, MagnitudeTensor::bytes)
    }

    /// The bytes that a thread holds beside the `rows` rows of `columns` values that it updates.
    fn task_bytes(&self, rows: usize, columns: usize) -> usize {
        let interpolates = self.layer().magnitudes.is_some() && self.scale != 1.0;
        let before = if interpolates { rows * columns } else { 0 };
        4 * (before + self.layer().difference.task_takes(rows, columns))
    }

    /// The scratch bytes of reading the matrices.
    fn reading_takes(&self) -> usize {
        let magnitudes = self.layer().magnitudes.as_ref();
        let magnitudes = magnitudes.map_or(0, MagnitudeTensor::reading_takes);
        self.layer().difference.reading_takes().max(magnitudes)
    }
}
