//! Nearest-neighbour upsampling.

use candle_core::Tensor;

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::kernel::on_one;
use crate::cpu::resample as kernel;
#[cfg(gpu)]
use crate::gpu::{has_kernels, on_gpu};

/// Nearest-neighbour upsampling of `x`, `[batch, channels, height, width]`, by 2:
/// `[batch, channels, 2 height, 2 width]`.
///
/// # Errors
/// `x` has other than four dimensions, or the device fails.
pub fn upsample_nearest(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let shape = (batch, channels, 2 * height, 2 * width);
            on_one("upsample_nearest", shape, x, |x| {
                Ok(kernel::upsample_nearest(x.floats()?, width))
            })
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, upsample_nearest(x)),
        _ => x.contiguous()?.upsample_nearest2d(2 * height, 2 * width),
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::kernel::tests::{equal, random};

    use super::*;

    #[test]
    fn equals_the_plain_definition() {
        for (height, width) in [(1, 1), (3, 5), (17, 64)] {
            let x = random(&[2, 3, height, width], 1);
            let expected = x.upsample_nearest2d(2 * height, 2 * width).unwrap();
            equal(&upsample_nearest(&x).unwrap(), &expected);
            let turned = x.transpose(2, 3).unwrap();
            let expected = expected.transpose(2, 3).unwrap();
            equal(&upsample_nearest(&turned).unwrap(), &expected);
        }
    }
}
