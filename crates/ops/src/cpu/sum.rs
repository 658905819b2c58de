//! Additions on the CPU.

use super::lanewise::Lanewise;
use super::simd::Simd;

/// The first plus the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum;

impl Lanewise<2> for Sum {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, [x, y]: [S::Vector; 2]) -> S::Vector {
        simd.add(x, y)
    }
}
