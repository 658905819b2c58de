//! Operations on Apple GPUs, with candle's matrix products and attention and with kernels of this crate
//! (folder `kernels`, in the Metal Shading Language), which are compiled when they are first used.
//!
//! Results are in buffers of this crate ([`buffers`]), not of candle's pool: that one rounds sizes up to powers
//! of 2 and gives large buffers to small tensors.
//!
//! Kernels compute in 32 bits and round what they store. Every kernel takes tensors whose last dimension is
//! contiguous; what is not is copied before.

mod attention;
pub(crate) mod buffers;
mod concatenate;
mod convolution;
mod copy;
mod decode;
mod elementwise;
mod group_norm;
mod launch;
mod matmul;
mod row_norm;
mod softmax;
mod tensors;
mod upsample;

pub(crate) use attention::{attention, joint_attention};
pub(crate) use concatenate::concatenate;
pub(crate) use convolution::conv2d;
pub(crate) use copy::{contiguous, copied, put};
pub(crate) use decode::decoded;
pub(crate) use elementwise::{activated, add_positions, combined, gated_gelu_tanh, geglu};
pub(crate) use group_norm::{channel_moments, group_normalized, group_statistics, grouped_statistics};
pub(crate) use matmul::{linear, linear_gated_gelu_tanh, linear_geglu};
pub(crate) use row_norm::row_norm;
pub(crate) use tensors::undefined;
pub(crate) use upsample::upsample_nearest;
