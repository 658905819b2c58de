//! The weight of a projection in memory.

use candle_core::Tensor;
use sd_ops::Quantization;

/// The weight of a projection, `[outputs, inputs]`, as [`Weights::projection`](crate::Weights::projection) holds
/// it.
#[derive(Debug, Clone)]
pub enum ProjectionWeight {
    /// Its values, `[outputs, inputs]`.
    Values(Tensor),
    /// Its rows in a quantised form, for `sd_ops::Linear::quantized`.
    Quantized {
        /// The bytes, `[outputs, bytes of a row]`.
        rows: Tensor,
        /// How they are decoded.
        quantization: Quantization,
    },
}
