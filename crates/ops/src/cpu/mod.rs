//! Kernels for the processor, over plain slices.

pub(crate) mod activation;
#[allow(unsafe_code)]
pub(crate) mod attention;
#[allow(unsafe_code)]
pub(crate) mod convolution;
pub(crate) mod gather;
pub(crate) mod kernel;
pub(crate) mod moments;
pub(crate) mod norm;
#[allow(unsafe_code)]
pub(crate) mod projection;
pub(crate) mod rectifier;
pub(crate) mod resample;
pub(crate) mod scratch;
// Not every kernel has moved to it yet.
#[allow(unsafe_code, dead_code)]
pub(crate) mod simd;
pub(crate) mod sum;
#[allow(unsafe_code)]
pub(crate) mod target;
#[allow(unsafe_code)]
pub(crate) mod threads;
pub(crate) mod transpose;
mod vector;
pub(crate) mod widened;
