//! Kernels of candle's for NVIDIA GPUs that its tensors do not offer by themselves.

mod softmax;

pub(crate) use softmax::softmax;
