//! Classifier-free guidance: two predictions become one.

use candle_core::{Result, Tensor};

use crate::request::GuidanceScale;

/// The prediction `without` the prompt, moved along the difference to that `with` it; both `[1, channels, rows, columns]` of
/// 32-bit numbers. With a `rescale` above 0 so much of it is scaled to the spread of the values that `with` has: predictions
/// of large guidance scales spread too far, which models trained down to no signal (zero terminal SNR) show as overexposure.
///
/// Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; Lin et al., "Common Diffusion Noise Schedules and Sample Steps
/// are Flawed", 2023, section 3.4, as diffusers' `rescale_noise_cfg`.
///
/// # Errors
/// There is no memory for it.
pub(super) fn guided(without: &Tensor, with: &Tensor, scale: GuidanceScale, rescale: f64) -> Result<Tensor> {
    let moved = (without + ((with - without)? * scale.0)?)?;
    if rescale == 0.0 {
        return Ok(moved);
    }
    let (wanted, found) = (deviation(with)?, deviation(&moved)?);
    // Values that are all alike cannot be spread.
    let factor = if found > 0.0 { wanted / found } else { 1.0 };
    moved * (rescale * factor + (1.0 - rescale))
}

/// The standard deviation of all values, from sums of 64 bits.
fn deviation(values: &Tensor) -> Result<f64> {
    let values = values.flatten_all()?.to_vec1::<f32>()?;
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let squares = values.iter().map(|&value| (f64::from(value) - mean).powi(2));
    Ok((squares.sum::<f64>() / count).sqrt())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_spread_becomes_that_of_the_prompt_s_own_prediction() {
        let tensor = |values: [f32; 4]| Tensor::from_slice(&values, (1, 1, 2, 2), &Device::Cpu).unwrap();
        let (without, with) = (tensor([0.0, 1.0, -1.0, 0.5]), tensor([1.0, 3.0, -2.0, 0.0]));
        let at = |rescale| guided(&without, &with, GuidanceScale(7.5), rescale).unwrap();
        let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        let wanted = deviation(&with).unwrap();
        near(deviation(&at(1.0)).unwrap(), wanted);
        near(
            deviation(&at(0.7)).unwrap(),
            0.7 * wanted + 0.3 * deviation(&at(0.0)).unwrap(),
        );
        let flat = tensor([0.5; 4]);
        let same = guided(&flat, &flat, GuidanceScale(7.5), 0.7).unwrap();
        assert_eq!(same.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.5; 4]);
    }
}
