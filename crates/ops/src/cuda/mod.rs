//! Operations on NVIDIA GPUs, with cuBLAS' matrix products and with kernels of this crate (folder `kernels`, in CUDA
//! C++), which `build.rs` compiles.
//!
//! Kernels compute in 32 bits and round what they store. Images lie in memory with the channels of a pixel side by
//! side (channels last): such a tensor is `[batch, channels, height, width]` for its shape, and its strides say how it
//! lies. Results of operations on images lie so; other images are copied into this order first.

mod attention;
mod attention_hopper;
mod channels_last;
mod concatenate;
mod conversion;
mod convolution;
mod copy;
mod cublas_lt;
mod decode;
mod elementwise;
mod filters;
mod group_norm;
mod images;
mod launch;
mod matmul;
mod row_norm;
mod softmax;
mod stream;
mod tensor_map;
mod tensors;

pub(crate) use attention::{attention, joint_attention};
pub(crate) use concatenate::concatenate;
pub(crate) use conversion::converted;
pub(crate) use convolution::conv2d;
pub(crate) use copy::{contiguous, copied, put};
pub(crate) use decode::decoded;
pub(crate) use elementwise::{activated, add_positions, combined, gated_gelu_tanh, geglu};
pub(crate) use filters::channels_last_in_place;
pub(crate) use group_norm::{channel_moments, group_normalized, group_statistics, grouped_statistics};
pub(crate) use images::{image_of_tokens, tokens_of_image, upsample_nearest};
pub use launch::assume_capability;
pub(crate) use launch::has_tensor_cores;
pub(crate) use matmul::{linear, linear_gated_gelu_tanh, linear_geglu};
pub(crate) use row_norm::row_norm;
pub(crate) use tensors::undefined;
