//! The matrices of a layer in a LoRA file: their shapes from the header, and their values.

use crate::stored::converting_takes;
use crate::weight_update::{Matrix, Product};
use crate::{Checkpoint, ElementType, Result};

/// What the tensors of a layer give, or why they do not go together.
pub(super) type Checked<T> = std::result::Result<T, String>;

/// The tensors of a low-rank product `up @ down`.
#[derive(Debug)]
pub(super) struct ProductTensors {
    pub(super) rows: usize,
    pub(super) rank: usize,
    /// The inputs of the layer times the area of its kernel.
    pub(super) columns: usize,
    up: String,
    /// Whether `up` is stored as `[rank, rows]`.
    is_up_transposed: bool,
    down: String,
    core: Option<Core>,
    /// The form of the elements of the matrices.
    element_type: ElementType,
}

/// The core of a Tucker decomposition of a convolution: `[rank, inner, kernel height, kernel width]` in the
/// file. `down` is then `[inner, inputs]`.
#[derive(Debug)]
struct Core {
    name: String,
    inner: usize,
    area: usize,
}

/// The tensors of a factor of a Kronecker product.
#[derive(Debug)]
pub(super) enum MatrixTensors {
    /// A tensor of its own, which may have the shape of a convolution.
    Whole {
        name: String,
        rows: usize,
        columns: usize,
        element_type: ElementType,
    },
    /// A low-rank product.
    Product(ProductTensors),
}

/// The tensors of a product by their names, and the order of the dimensions of `up`.
pub(super) struct ProductNames {
    pub(super) up: String,
    pub(super) is_up_transposed: bool,
    pub(super) down: String,
    pub(super) core: Option<String>,
}

impl ProductTensors {
    /// The product of the tensors of `names`, or why they do not go together.
    pub(super) fn new(checkpoint: &Checkpoint, names: ProductNames) -> Checked<Self> {
        let ProductNames {
            up,
            is_up_transposed,
            down,
            core,
        } = names;
        let [up_shape, down_shape] = [&up, &down].map(|name| shape(checkpoint, name));
        let (rows, rank) = match (is_up_transposed, up_shape) {
            (false, &[rows, rank] | &[rows, rank, 1, 1]) | (true, &[rank, rows]) if rows > 0 && rank > 0 => {
                (rows, rank)
            }
            _ => return Err(has_shape(&up, up_shape)),
        };
        let (inner, inputs) = match down_shape {
            [inner, rest @ ..] if matches!(rest.len(), 1 | 3) && *inner > 0 => (*inner, count(rest)),
            _ => return Err(has_shape(&down, down_shape)),
        };
        let core = match core {
            None if inner == rank => None,
            None => {
                return Err(format!(
                    "`{}` is of rank {rank} and `{}` of rank {inner}",
                    role(&up),
                    role(&down)
                ));
            }
            Some(name) => match shape(checkpoint, &name) {
                &[of_up, of_down, height, width] if (of_up, of_down) == (rank, inner) => Some(Core {
                    name,
                    inner,
                    area: height.saturating_mul(width),
                }),
                other => {
                    return Err(format!(
                        "{} between ranks {rank} and {inner}",
                        has_shape(&name, other)
                    ));
                }
            },
        };
        let area = core.as_ref().map_or(1, |core| core.area);
        let columns = inputs.and_then(|inputs| inputs.checked_mul(area));
        let Some(columns) = columns.filter(|&columns| columns > 0) else {
            return Err(format!("`{}` is empty", role(&down)));
        };
        Ok(Self {
            rows,
            rank,
            columns,
            element_type: element_type(checkpoint, &up),
            up,
            is_up_transposed,
            down,
            core,
        })
    }

    /// The names of the tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let core = self.core.as_ref().map(|core| core.name.as_str());
        [self.down.as_str(), self.up.as_str()].into_iter().chain(core)
    }

    /// The number of values of `up` and `down`, the core multiplied into `down`.
    pub(super) fn values(&self) -> usize {
        self.rank * (self.rows + self.columns)
    }

    /// The scratch bytes of reading `up`.
    pub(super) fn reading_up_takes(&self) -> usize {
        let up = self.rows * self.rank;
        let transposing = if self.is_up_transposed { 4 * up } else { 0 };
        transposing + converting_takes(up, self.element_type)
    }

    /// The scratch bytes of reading `down`.
    pub(super) fn reading_down_takes(&self) -> usize {
        match &self.core {
            None => converting_takes(self.rank * self.columns, self.element_type),
            Some(Core { inner, area, .. }) => {
                let (outer, core) = (inner * self.columns / area, self.rank * inner * area);
                4 * (outer + core) + converting_takes(outer.max(core), self.element_type)
            }
        }
    }

    /// The scratch bytes of reading the matrices into memory that holds them.
    pub(super) fn reading_takes(&self) -> usize {
        self.reading_up_takes().max(self.reading_down_takes())
    }

    /// Reads the matrices, with `factor` multiplied into `up`.
    pub(super) fn read(&self, checkpoint: &Checkpoint, factor: f32) -> Result<Product> {
        let mut down = vec![0.0; self.rank * self.columns];
        self.read_down(checkpoint, &mut down)?;
        let mut up = vec![0.0; self.rows * self.rank];
        self.read_up(checkpoint, &mut up)?;
        up.iter_mut().for_each(|value| *value *= factor);
        Ok(Product {
            up,
            down,
            rank: self.rank,
            columns: self.columns,
        })
    }

    /// Reads `up`, `[rows, rank]`.
    pub(super) fn read_up(&self, checkpoint: &Checkpoint, values: &mut [f32]) -> Result<()> {
        if !self.is_up_transposed {
            return checkpoint.read_floats(&self.up, values);
        }
        let mut transposed = vec![0.0; values.len()];
        checkpoint.read_floats(&self.up, &mut transposed)?;
        for (column, transposed) in transposed.chunks_exact(self.rows).enumerate() {
            let places = values.iter_mut().skip(column).step_by(self.rank);
            for (value, &transposed) in places.zip(transposed) {
                *value = transposed;
            }
        }
        Ok(())
    }

    /// Reads `down`, `[rank, columns]`, multiplied by the core of a decomposed convolution.
    pub(super) fn read_down(&self, checkpoint: &Checkpoint, values: &mut [f32]) -> Result<()> {
        let Some(Core { name, inner, area }) = &self.core else {
            return checkpoint.read_floats(&self.down, values);
        };
        let inputs = self.columns / area;
        let mut down = vec![0.0; inner * inputs];
        checkpoint.read_floats(&self.down, &mut down)?;
        let mut core = vec![0.0; self.rank * inner * area];
        checkpoint.read_floats(name, &mut core)?;
        values.fill(0.0);
        for (row, core) in values
            .chunks_exact_mut(self.columns)
            .zip(core.chunks_exact(inner * area))
        {
            for (down, core) in down.chunks_exact(inputs).zip(core.chunks_exact(*area)) {
                for (to, &down) in row.chunks_exact_mut(*area).zip(down) {
                    for (to, &core) in to.iter_mut().zip(core) {
                        *to += core * down;
                    }
                }
            }
        }
        Ok(())
    }
}

impl MatrixTensors {
    /// The tensor `name` with all dimensions after the first as columns, or why it is no matrix.
    pub(super) fn whole(checkpoint: &Checkpoint, name: String) -> Checked<Self> {
        let shape = shape(checkpoint, &name);
        let (rows, columns) = match shape {
            [rows, rest @ ..] if matches!(rest.len(), 1 | 3) => (*rows, count(rest).unwrap_or(0)),
            _ => (0, 0),
        };
        if rows == 0 || columns == 0 {
            return Err(has_shape(&name, shape));
        }
        Ok(Self::Whole {
            element_type: element_type(checkpoint, &name),
            name,
            rows,
            columns,
        })
    }

    /// The rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            &Self::Whole { rows, columns, .. } => (rows, columns),
            Self::Product(product) => (product.rows, product.columns),
        }
    }

    /// The rank of a product.
    pub(super) fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole { .. } => None,
            Self::Product(product) => Some(product.rank),
        }
    }

    /// The names of the tensors.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Whole { name, .. } => Box::new(std::iter::once(name.as_str())),
            Self::Product(product) => Box::new(product.names()),
        }
    }

    /// The number of values that are held.
    pub(super) fn values(&self) -> usize {
        match self {
            Self::Whole { rows, columns, .. } => rows * columns,
            Self::Product(product) => product.values(),
        }
    }

    /// The number of values in memory while `rows` rows are used.
    pub(super) fn using_takes(&self, rows: usize) -> usize {
        match self {
            Self::Whole { .. } => 0,
            Self::Product(product) => rows.min(product.rows) * product.columns,
        }
    }

    /// The scratch bytes of reading the tensors.
    pub(super) fn reading_takes(&self) -> usize {
        match self {
            Self::Whole { element_type, .. } => converting_takes(self.values(), *element_type),
            Self::Product(product) => product.reading_takes(),
        }
    }

    /// Reads the matrix, multiplied by `factor`.
    pub(super) fn read(&self, checkpoint: &Checkpoint, factor: f32) -> Result<Matrix> {
        match self {
            Self::Whole { name, columns, .. } => {
                let mut values = vec![0.0; self.values()];
                checkpoint.read_floats(name, &mut values)?;
                values.iter_mut().for_each(|value| *value *= factor);
                Ok(Matrix::Whole {
                    values,
                    columns: *columns,
                })
            }
            Self::Product(product) => product.read(checkpoint, factor).map(Matrix::Product),
        }
    }
}

/// The shape of the tensor `name`.
pub(super) fn shape<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a [usize] {
    checkpoint
        .header(name)
        .map_or(&[][..], |header| header.shape.as_slice())
}

/// The number of values of `shape`. `None` for a number that is too large.
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |count, &length| count.checked_mul(length))
}

pub(super) fn element_type(checkpoint: &Checkpoint, name: &str) -> ElementType {
    checkpoint
        .header(name)
        .map_or(ElementType::F32, |header| header.element_type)
}

/// The part of a message for a tensor with a wrong shape.
pub(super) fn has_shape(name: &str, shape: &[usize]) -> String {
    format!("`{}` has the shape {shape:?}", role(name))
}

/// The end of the name of a tensor, which says what it is in its layer.
fn role(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    name.rsplit_once('.').map_or(name, |(_, role)| role)
}
