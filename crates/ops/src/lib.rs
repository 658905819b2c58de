//! The tensor operations that networks are written in.
//!
//! Each operation has one plain definition on candle tensors that every device can run. On a CPU a kernel of
//! this crate stands behind the same name, and tests hold it to the plain definition. An operation checks the
//! shapes, then matches on the [`Backend`] of its input: an arm for each backend with a kernel, and the plain
//! definition for the others. What else depends on the device is in [`Capabilities`].
//!
//! CPU activations are 32-bit floats. 16-bit weights stay 16-bit in memory: kernels widen them a panel at a
//! time. Where the CPU has a matrix unit for bf16 or fast bf16 dot products, they round activations to bf16
//! instead, beside weights in bf16. Weights of linear layers may stay quantised; kernels decode them in the same
//! way. On a GPU activations and weights share a type.
//!
//! How work is split into tasks depends on shapes alone, never on threads or free memory: the same inputs
//! give the same bits.

mod activation;
mod attention;
mod bands;
mod capabilities;
mod concatenate;
mod contiguous;
mod convolution;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod fused_attention;
#[cfg(gpu)]
mod gpu;
mod leaky_relu;
mod linear;
#[cfg(metal)]
mod metal;
mod moments;
mod norm;
mod quantization;
mod rates;
mod resample;
mod results;
mod scratch;
mod sum;
mod timestep;
mod transpose;

/// The result of an operation. Operations fail when shapes do not fit or a device fails.
pub type Result<T> = candle_core::Result<T>;

pub use activation::{gated_gelu_tanh, geglu, gelu, gelu_tanh, quick_gelu, silu};
pub use attention::{Heads, Precision, attention, joint_attention};
pub use bands::{Band, BandedConv2d};
pub use capabilities::{Backend, Capabilities, Memory};
pub use concatenate::{Parts, concatenate};
pub use contiguous::{compact, contiguous, converted, copied};
pub use convolution::{Conv2d, conv2d, conv2d_onto, conv2d_shifted};
pub use cpu::scratch::release_scratch;
pub use cpu::simd::{assume_instruction_set, instruction_set, matrix_unit};
pub use cpu::threads::{leave_threads_to_rayon, parallel_map};
#[cfg(feature = "cuda")]
pub use cuda::assume_capability as assume_cuda_capability;
pub use leaky_relu::{leaky_relu, prelu, scaled_residual};
pub use linear::{
    Linear, linear, linear_gated_gelu_tanh, linear_gated_residual, linear_geglu, linear_gelu,
    linear_gelu_tanh, linear_quick_gelu, linear_residual, linear_silu,
};
pub use moments::ChannelMoments;
pub use norm::{
    GroupNorm, LayerNorm, RmsNorm, gated_residual, group_norm, group_norm_silu, layer_norm,
    modulated_layer_norm, rms_norm,
};
pub use quantization::{E2M1, Quantization, e4m3, e5m2};
pub use rates::Rates;
pub use resample::upsample_nearest;
pub use results::{limit_results, release_results};
pub use scratch::{Scratch, scratch_of_gpu};
pub use sum::{add_positions, broadcast_sum, sum};
pub use timestep::timestep_embedding;
pub use transpose::{image_of_tokens, tokens_of_image, transpose};
