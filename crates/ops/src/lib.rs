//! The tensor operations that networks are written in.
//!
//! Each has one plain definition on candle tensors that every device can run. On a processor a kernel of our
//! own stands behind the same name, held to the plain definition by tests. There activations are 32-bit
//! numbers, and weights of 16 bits stay so in memory: they are widened a panel at a time, inside the product, or where
//! the processor multiplies pairs of bf16, activations are rounded to such there. Elsewhere activations and weights share
//! a type.
//!
//! How work is cut into pieces depends on shapes alone, never on threads or on free memory: the same inputs
//! give the same bits.

mod activation;
mod attention;
mod bands;
mod convolution;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod linear;
mod moments;
mod norm;
mod rectifier;
mod resample;
mod scratch;
mod sum;
mod timestep;
mod transpose;

/// The result of an operation. It fails where shapes do not fit or a device does.
pub type Result<T> = candle_core::Result<T>;

pub use activation::{gated_gelu_tanh, geglu, gelu, gelu_tanh, quick_gelu, silu};
pub use attention::{Heads, Precision, attention, joint_attention, scratch_of_plain_attention};
pub use bands::{Band, BandedConv2d};
pub use convolution::{Conv2d, conv2d, conv2d_onto, conv2d_shifted};
pub use cpu::scratch::release_scratch;
pub use cpu::threads::{leave_threads_to_rayon, parallel_map};
pub use linear::{
    Linear, Quantization, linear, linear_gated_gelu_tanh, linear_gated_residual, linear_geglu, linear_gelu,
    linear_gelu_tanh, linear_quick_gelu, linear_residual, linear_silu,
};
pub use moments::ChannelMoments;
pub use norm::{
    GroupNorm, LayerNorm, RmsNorm, gated_residual, group_norm, group_norm_silu, layer_norm,
    modulated_layer_norm, rms_norm,
};
pub use rectifier::{leaky_relu, prelu, scaled_residual};
pub use resample::upsample_nearest;
pub use scratch::Scratch;
pub use sum::sum;
pub use timestep::timestep_embedding;
pub use transpose::transpose;
