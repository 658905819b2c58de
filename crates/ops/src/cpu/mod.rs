//! Kernels for the processor, over plain slices.

pub(crate) mod activation;
pub(crate) mod kernel;
pub(crate) mod norm;
#[allow(unsafe_code)]
pub(crate) mod product;
