//! A layer of a LoRA file: how it updates the weights of one layer of a network.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::ModelPart;
use super::alphas::Alphas;
use super::key::{Role, flat};
use super::matrices::{
    Checked, MatrixTensors, ProductNames, ProductTensors, count, element_type, has_shape, shape,
};
use super::peft_settings::Factor;
use crate::stored::converting_takes;
use crate::weight_update::{Magnitudes, RowMove};
use crate::{Checkpoint, ElementType, Error, Result};

/// The update of one layer: a difference in factors, and magnitudes where the file is a DoRA.
#[derive(Debug)]
pub(super) struct Layer {
    /// The network, where the names of the tensors have it.
    pub(super) part: Option<ModelPart>,
    /// The name of the layer, with underscores for dots.
    pub(super) module: String,
    pub(super) rows: usize,
    /// The inputs of the layer times the area of its kernel.
    pub(super) columns: usize,
    pub(super) difference: DifferenceTensors,
    pub(super) magnitudes: Option<MagnitudeTensor>,
    alpha: AlphaPlace,
}

/// The tensors of a difference.
#[derive(Debug)]
pub(super) enum DifferenceTensors {
    /// LoRA and LoCon.
    LowRank(ProductTensors),
    /// LoHa.
    Hadamard([ProductTensors; 2]),
    /// LoKr.
    Kronecker([MatrixTensors; 2]),
}

/// The tensor of the magnitudes of a DoRA.
#[derive(Debug)]
pub(super) struct MagnitudeTensor {
    pub(super) name: String,
    /// Whether there is one for each input, not one for each row.
    pub(super) of_inputs: bool,
    pub(super) count: usize,
    element_type: ElementType,
}

/// The location of the alpha of a layer.
#[derive(Debug)]
enum AlphaPlace {
    /// A tensor.
    Tensor(String),
    /// The settings. Without settings the alpha is the rank.
    Known(Factor),
}

/// The names of the tensors of a layer.
pub(super) type Found = BTreeMap<Role, String>;

impl Layer {
    pub(super) fn new(
        checkpoint: &Checkpoint,
        alphas: &Alphas,
        part: Option<ModelPart>,
        module: &str,
        mut found: Found,
    ) -> Result<Self> {
        let bad = |reason: String| Error::BadLora {
            file: checkpoint.place().to_owned(),
            layer: module.to_owned(),
            reason,
        };
        for (role, name) in &found {
            if *role != Role::Alpha {
                checkpoint.check_floats(name)?;
            }
        }
        let alpha = found.remove(&Role::Alpha);
        let magnitudes = [Role::DoraScale, Role::MagnitudeVector].map(|role| (role, found.remove(&role)));
        let difference = DifferenceTensors::new(checkpoint, found).map_err(bad)?;
        let (rows, columns) = difference
            .size()
            .ok_or_else(|| bad("its matrices have too many values".to_owned()))?;
        let magnitudes = magnitudes
            .into_iter()
            .find_map(|(role, name)| Some((role, name?)))
            .map(|(role, name)| MagnitudeTensor::new(checkpoint, role, name, rows, columns))
            .transpose()
            .map_err(bad)?;
        if magnitudes.is_none() && alphas.is_dora(part) {
            return Err(bad("its settings say DoRA, but it has no magnitudes".to_owned()));
        }
        let alpha = match alpha {
            Some(name) if count(shape(checkpoint, &name)) == Some(1) => AlphaPlace::Tensor(name),
            Some(name) => return Err(bad(has_shape(&name, shape(checkpoint, &name)))),
            None => AlphaPlace::Known(alphas.factor(part, module).unwrap_or(Factor {
                alpha: difference.rank().unwrap_or(1) as f32,
                root: false,
            })),
        };
        Ok(Self {
            part,
            module: flat(module),
            rows,
            columns,
            difference,
            magnitudes,
            alpha,
        })
    }

    /// The names of the matrices and of the magnitudes.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &str> {
        let magnitudes = self.magnitudes.as_ref().map(|tensor| tensor.name.as_str());
        self.difference.names().chain(magnitudes)
    }

    /// The factor of the difference: alpha divided by the rank. A Kronecker product of two whole matrices has
    /// no rank, and its alpha means nothing.
    pub(super) fn factor(&self, checkpoint: &Checkpoint) -> Result<f32> {
        let Some(rank) = self.difference.rank() else {
            return Ok(1.0);
        };
        let factor = match &self.alpha {
            AlphaPlace::Known(factor) => *factor,
            AlphaPlace::Tensor(name) => Factor {
                alpha: checkpoint.read_number(name)?,
                root: false,
            },
        };
        Ok(factor.of(rank))
    }
}

impl DifferenceTensors {
    /// The difference of the matrices of `found`, or why they are none.
    fn new(checkpoint: &Checkpoint, mut found: Found) -> Checked<Self> {
        let mut product = |up: Role, down: Role, core: Option<Role>, is_transposed_with_core: bool| {
            let core = core.and_then(|core| found.remove(&core));
            let (up, down) = (found.remove(&up), found.remove(&down));
            match (up, down) {
                (Some(up), Some(down)) => {
                    let names = ProductNames {
                        up,
                        is_up_transposed: is_transposed_with_core && core.is_some(),
                        down,
                        core,
                    };
                    ProductTensors::new(checkpoint, names).map(Some)
                }
                (None, None) if core.is_none() => Ok(None),
                _ => Err("a matrix of its products is missing".to_owned()),
            }
        };
        let low_rank = product(Role::Up, Role::Down, Some(Role::Middle), false)?;
        let hadamard = [
            product(Role::HadaW1A, Role::HadaW1B, Some(Role::HadaT1), true)?,
            product(Role::HadaW2A, Role::HadaW2B, Some(Role::HadaT2), true)?,
        ];
        let left = product(Role::LokrW1A, Role::LokrW1B, None, false)?;
        let right = product(Role::LokrW2A, Role::LokrW2B, Some(Role::LokrT2), true)?;
        let mut matrix = |product: Option<ProductTensors>, whole: Role| match (product, found.remove(&whole))
        {
            (Some(product), None) => Ok(Some(MatrixTensors::Product(product))),
            (None, Some(name)) => MatrixTensors::whole(checkpoint, name).map(Some),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err("it has a matrix as a whole and in factors".to_owned()),
        };
        let kronecker = [matrix(left, Role::LokrW1)?, matrix(right, Role::LokrW2)?];
        match (low_rank, hadamard, kronecker) {
            (Some(product), [None, None], [None, None]) => Ok(Self::LowRank(product)),
            (None, [Some(one), Some(other)], [None, None]) => {
                if (one.rows, one.columns) != (other.rows, other.columns) {
                    return Err(format!(
                        "its products are of {} x {} and of {} x {} values",
                        one.rows, one.columns, other.rows, other.columns
                    ));
                }
                Ok(Self::Hadamard([one, other]))
            }
            (None, [None, None], [Some(left), Some(right)]) => Ok(Self::Kronecker([left, right])),
            (None, [Some(_), None] | [None, Some(_)], [None, None])
            | (None, [None, None], [Some(_), None] | [None, Some(_)]) => {
                Err("one of its two factors is missing".to_owned())
            }
            (None, [None, None], [None, None]) => Err("it has no matrices".to_owned()),
            _ => Err("it has the matrices of several methods".to_owned()),
        }
    }

    /// The rows and columns. `None` for a number that is too large.
    fn size(&self) -> Option<(usize, usize)> {
        match self {
            Self::LowRank(product) | Self::Hadamard([product, _]) => Some((product.rows, product.columns)),
            Self::Kronecker([left, right]) => {
                let (left, right) = (left.size(), right.size());
                Some((left.0.checked_mul(right.0)?, left.1.checked_mul(right.1)?))
            }
        }
    }

    /// The rank that alpha is divided by: `lora_dim` of LyCORIS.
    fn rank(&self) -> Option<usize> {
        match self {
            Self::LowRank(product) | Self::Hadamard([product, _]) => Some(product.rank),
            Self::Kronecker([left, right]) => right.rank().or(left.rank()),
        }
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::LowRank(product) => Box::new(product.names()),
            Self::Hadamard(products) => Box::new(products.iter().flat_map(ProductTensors::names)),
            Self::Kronecker(matrices) => Box::new(matrices.iter().flat_map(MatrixTensors::names)),
        }
    }

    /// The number of values that are held while a tensor is updated.
    pub(super) fn values(&self) -> usize {
        match self {
            Self::LowRank(product) => product.values(),
            Self::Hadamard(products) => products.iter().map(ProductTensors::values).sum(),
            Self::Kronecker(matrices) => matrices.iter().map(MatrixTensors::values).sum(),
        }
    }

    /// The number of values that a thread holds beside the `rows` rows of `columns` values that it updates.
    pub(super) fn task_takes(&self, rows: usize, columns: usize) -> usize {
        match self {
            Self::LowRank(_) => 0,
            Self::Hadamard(_) => 2 * rows * columns,
            Self::Kronecker([left, right]) => left.using_takes(1) + right.using_takes(rows),
        }
    }

    /// The scratch bytes of reading the matrices.
    pub(super) fn reading_takes(&self) -> usize {
        match self {
            // `up` is read by itself, because its rows are put where those of the tensor are.
            Self::LowRank(product) => {
                let up = 4 * product.rows * product.rank + product.reading_up_takes();
                up.max(product.reading_down_takes())
            }
            Self::Hadamard(products) => products
                .iter()
                .map(ProductTensors::reading_takes)
                .fold(0, usize::max),
            Self::Kronecker(matrices) => matrices
                .iter()
                .map(MatrixTensors::reading_takes)
                .fold(0, usize::max),
        }
    }
}

impl MagnitudeTensor {
    /// The magnitudes in the tensor `name` for a layer of `rows` by `columns`, or why they are none.
    fn new(checkpoint: &Checkpoint, role: Role, name: String, rows: usize, columns: usize) -> Checked<Self> {
        let shape = shape(checkpoint, &name);
        let all = count(shape).unwrap_or(0);
        let of_inputs = match (role, shape) {
            // PEFT's convolutions have `[1, rows, 1, 1]`.
            (Role::MagnitudeVector, _) if all == rows => false,
            (Role::DoraScale, [first, ..]) if *first == rows && all == rows => false,
            // `wd_on_out=False` of LyCORIS, which was the only form for long.
            (Role::DoraScale, [1, inputs, ..])
                if *inputs == all && all > 0 && columns.is_multiple_of(all) =>
            {
                true
            }
            _ => return Err(format!("{} for {rows} rows", has_shape(&name, shape))),
        };
        Ok(Self {
            element_type: element_type(checkpoint, &name),
            name,
            of_inputs,
            count: all,
        })
    }

    /// The bytes that are held while a tensor is updated: the magnitudes, with the norms and their squares.
    pub(super) fn bytes(&self) -> usize {
        self.count * if self.of_inputs { 4 + 4 + 8 } else { 4 }
    }

    /// The scratch bytes of reading the magnitudes.
    pub(super) fn reading_takes(&self) -> usize {
        converting_takes(self.count, self.element_type)
    }

    /// Reads the magnitudes. `moves` are the rows of the tensor.
    pub(super) fn read(&self, checkpoint: &Checkpoint, moves: Vec<RowMove>) -> Result<Magnitudes> {
        let mut values = vec![0.0; self.count];
        checkpoint.read_floats(&self.name, &mut values)?;
        Ok(if self.of_inputs {
            Magnitudes::Inputs {
                values,
                over_norms: OnceLock::new(),
            }
        } else {
            Magnitudes::Rows { values, moves }
        })
    }
}
