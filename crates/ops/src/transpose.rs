//! Transposing between channels-first and channels-last, and between images and tokens.

use candle_core::Tensor;

use crate::Result;
use crate::capabilities::Backend;
use crate::contiguous::contiguous;
use crate::cpu::kernel::on_one;
use crate::cpu::simd::InstructionSet;
use crate::cpu::transpose::transpose as kernel;
#[cfg(gpu)]
use crate::gpu::{has_kernels, on_gpu};

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
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, contiguous(&x.transpose(1, 2)?)),
        _ => x.transpose(1, 2)?.contiguous(),
    }
}

/// The pixels of `image`, `[batch, channels, height, width]`, row by row as tokens: `[batch, height * width, channels]`.
///
/// # Errors
/// `image` has other than four dimensions, or the device fails.
pub fn tokens_of_image(image: &Tensor) -> Result<Tensor> {
    image.dims4()?;
    match Backend::of(image.device()) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => crate::cuda::tokens_of_image(image),
        _ => transpose(&contiguous(image)?.flatten_from(2)?),
    }
}

/// The image of `height` rows of tokens, `[batch, height * width, channels]`: `[batch, channels, height, width]`.
///
/// # Errors
/// The tokens are not so many, or the device fails.
pub fn image_of_tokens(tokens: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (batch, _, channels) = tokens.dims3()?;
    match Backend::of(tokens.device()) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => crate::cuda::image_of_tokens(tokens, height, width),
        _ => transpose(tokens)?.reshape((batch, channels, height, width)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernel::tests::{equal, random};

    #[test]
    fn images_become_tokens_and_images_again() {
        let image = random(&[2, 3, 4, 5], 1);
        let tokens = tokens_of_image(&image).unwrap();
        equal(&tokens, &image.flatten_from(2).unwrap().transpose(1, 2).unwrap());
        equal(&image_of_tokens(&tokens, 4, 5).unwrap(), &image);
        assert!(image_of_tokens(&tokens, 5, 5).is_err());
    }

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
