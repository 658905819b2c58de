//! Pixel shuffling and unshuffling. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an
//! Efficient Sub-Pixel Convolutional Neural Network", 2016.

use candle_core::{Result, Tensor};
use sd_ops::concatenate;

/// Pixel unshuffling of `x`, `[1, channels, height, width]`:
/// `[1, channels * factor², height / factor, width / factor]`. Sides that are not multiples of `factor` are
/// padded by reflection, below and to the right.
pub(super) fn unshuffled(x: &Tensor, factor: usize) -> Result<Tensor> {
    if factor == 1 {
        return Ok(x.clone());
    }
    let x = continued(&continued(x, 2, factor)?, 3, factor)?;
    let (_, channels, height, width) = x.dims4()?;
    x.reshape(vec![channels, height / factor, factor, width / factor, factor])?
        .permute([0, 2, 4, 1, 3].as_slice())?
        .reshape((1, channels * factor * factor, height / factor, width / factor))
}

/// Pixel shuffling: `[1, channels, height, width]` to
/// `[1, channels / factor², factor * height, factor * width]`.
pub(super) fn shuffled(x: &Tensor, factor: usize) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    let channels = channels / (factor * factor);
    x.reshape(vec![channels, factor, factor, height, width])?
        .permute([0, 3, 1, 4, 2].as_slice())?
        .reshape((1, channels, factor * height, factor * width))
}

/// `x` padded by reflection in a dimension, up to a multiple of `factor`.
fn continued(x: &Tensor, dimension: usize, factor: usize) -> Result<Tensor> {
    let size = x.dim(dimension)?;
    let missing = size.next_multiple_of(factor) - size;
    let mut parts = vec![x.clone()];
    for step in 0..missing {
        // An image of one row has nothing before it.
        let row = (size - 1).saturating_sub(step + 1);
        parts.push(x.narrow(dimension, row, 1)?);
    }
    concatenate(&parts, dimension)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn pixels_become_channels_and_pixels_again() {
        let image = Tensor::arange(0_f32, 2.0 * 4.0 * 6.0, &Device::Cpu)
            .unwrap()
            .reshape((1, 2, 4, 6))
            .unwrap();
        let small = unshuffled(&image, 2).unwrap();
        assert_eq!(small.dims(), [1, 8, 2, 3]);
        // The square in the corner: 0, 1, 6, 7, each the first pixel of its channel.
        let firsts: Vec<f32> = values(&small).into_iter().step_by(6).take(4).collect();
        assert_eq!(firsts, [0.0, 1.0, 6.0, 7.0]);
        assert_eq!(values(&shuffled(&small, 2).unwrap()), values(&image));
    }

    #[test]
    fn odd_images_are_padded_by_reflection() {
        let image = Tensor::new(&[[[[1_f32, 2.0, 3.0]]]], &Device::Cpu).unwrap();
        let whole = continued(&continued(&image, 2, 2).unwrap(), 3, 4).unwrap();
        assert_eq!(values(&whole), [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    }
}
