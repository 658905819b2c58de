//! Transposing between channels-first and channels-last.

use candle_core::Tensor;

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::kernel::on_one;
use crate::cpu::simd::InstructionSet;
use crate::cpu::transpose::transpose as kernel;

/// `[batch, rows, columns]` to `[batch, columns, rows]`, contiguous.
///
/// # Errors
/// `x` has other than three dimensions, or the device fails.
pub fn transpose(x: &Tensor) -> Result<Tensor> {
    let (batch, rows, columns) = x.dims3()?;
    match Backend::of(x.device()) {
        Backend::Cpu => on_one("transpose", (batch, columns, rows), x, |x| {
            Ok(kernel(InstructionSet::best(), x.floats()?, rows, columns))
        }),
        #[cfg(metal)]
        Backend::Metal => crate::metal::contiguous(&x.transpose(1, 2)?),
        _ => x.transpose(1, 2)?.contiguous(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernel::tests::{equal, random};

    #[test]
    fn values_are_where_the_plain_definition_has_them() {
        for shape in [
            [1, 1, 1],
            [2, 3, 5],
            [2, 320, 256],
            [1, 77, 130],
            [3, 1, 600],
            [2, 65, 17],
        ] {
            let x = random(&shape, 1);
            equal(&transpose(&x).unwrap(), &x.transpose(1, 2).unwrap());
            // Also of a view.
            let view = x.transpose(0, 1).unwrap();
            equal(&transpose(&view).unwrap(), &view.transpose(1, 2).unwrap());
        }
        assert!(transpose(&random(&[2, 3], 1)).is_err());
    }
}
