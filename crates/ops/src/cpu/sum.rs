//! Additions on the CPU.

use super::lanewise::Lanewise;
use super::simd::wide::Arithmetic;

/// The first plus the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum;

impl Lanewise<2> for Sum {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x, y]: [A::Vector; 2]) -> A::Vector {
        simd.add(x, y)
    }
}
