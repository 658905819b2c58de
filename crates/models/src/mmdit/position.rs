//! The position embedding of image patches.

use candle_core::{DType, Device, Tensor};
use sd_ops::compact;
use sd_weights::{Table, Weights};

use super::Config;

const TABLE: &str = "pos_embed.pos_embed";

/// The position embedding: a table in the file, or one that is computed.
#[derive(Debug)]
pub(super) enum Positions {
    Stored(Table),
    Computed(Device),
}

impl Positions {
    /// The position embedding of the network that `config` describes.
    ///
    /// # Errors
    /// The table in the file has another shape or an unsupported type.
    pub(super) fn new(weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        if !weights.contains(TABLE) {
            return Ok(Self::Computed(weights.options().device.clone()));
        }
        let side = config.pos_embed_max_size;
        Ok(Self::Stored(
            weights.table(TABLE, &[1, side.saturating_mul(side), config.width()])?,
        ))
    }

    /// The embedding of the patches of latents with the given rows and columns, `[patches, width]` in 32
    /// bits: the centre crop of the square table. Only these rows are read from the file.
    pub(super) fn of(&self, config: &Config, (height, width): (usize, usize)) -> sd_weights::Result<Tensor> {
        let (rows, columns) = (height / config.patch_size, width / config.patch_size);
        let side = config.pos_embed_max_size;
        let (top, left) = ((side - rows) / 2, (side - columns) / 2);
        let table = match self {
            Self::Stored(table) => table,
            Self::Computed(device) => return Ok(sinusoids(config, (top, left), (rows, columns), device)?),
        };
        let wanted: Vec<usize> = (top..top + rows)
            .flat_map(|row| (left..left + columns).map(move |column| row * side + column))
            .collect();
        Ok(compact(table.rows(&wanted)?.to_dtype(DType::F32)?)?)
    }
}

/// Computes the table: sines and cosines of the column in the first half of the features, of the row in the
/// second, as diffusers' `get_2d_sincos_pos_embed` does.
fn sinusoids(
    config: &Config,
    (top, left): (usize, usize),
    (rows, columns): (usize, usize),
    device: &Device,
) -> candle_core::Result<Tensor> {
    const LONGEST_PERIOD: f64 = 10_000.0;
    let base = (config.sample_size / config.patch_size).max(1);
    let step = base as f64 / config.pos_embed_max_size as f64;
    let frequencies = config.width() / 4;
    let mut values = Vec::with_capacity(rows * columns * config.width());
    let mut push = |position: usize| {
        let angles = (0..frequencies)
            .map(|index| position as f64 * step / LONGEST_PERIOD.powf(index as f64 / frequencies as f64));
        values.extend(angles.clone().map(|angle| angle.sin() as f32));
        values.extend(angles.map(|angle| angle.cos() as f32));
    };
    for row in top..top + rows {
        for column in left..left + columns {
            push(column);
            push(row);
        }
    }
    Tensor::from_vec(values, (rows * columns, config.width()), device)
}
