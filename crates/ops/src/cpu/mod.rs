//! CPU kernels over slices.

#[allow(unsafe_code)]
pub(crate) mod activation;
#[allow(unsafe_code)]
pub(crate) mod attention;
pub(crate) mod buffers;
#[allow(unsafe_code)]
pub(crate) mod convolution;
#[allow(unsafe_code)]
pub(crate) mod elements;
pub(crate) mod gather;
pub(crate) mod kernel;
#[allow(unsafe_code)]
pub(crate) mod lanewise;
pub(crate) mod leaky_relu;
#[allow(unsafe_code)]
pub(crate) mod moments;
#[allow(unsafe_code)]
pub(crate) mod norm;
#[allow(unsafe_code)]
pub(crate) mod parallel_fill;
#[allow(unsafe_code)]
pub(crate) mod projection;
#[allow(unsafe_code)]
pub(crate) mod resample;
pub(crate) mod scratch;
#[allow(unsafe_code)]
pub(crate) mod sections;
// Not every kernel has moved to it yet.
#[allow(unsafe_code, dead_code)]
pub(crate) mod simd;
pub(crate) mod sum;
#[allow(unsafe_code)]
pub(crate) mod target;
#[allow(unsafe_code)]
pub(crate) mod threads;
#[allow(unsafe_code)]
pub(crate) mod transpose;
