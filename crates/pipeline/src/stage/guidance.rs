//! Classifier-free guidance: combines two predictions.

use candle_core::{Result, Tensor};

use crate::request::GuidanceScale;

/// Extrapolates from the prediction `without` the prompt to that `with` it; both are f32 `[1, channels, rows,
/// columns]`. A `rescale` above 0 blends the result with one rescaled to the standard deviation of `with`:
/// large guidance scales increase it, which causes overexposure in models trained with zero terminal SNR.
///
/// Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; Lin et al., "Common Diffusion Noise Schedules
/// and Sample Steps are Flawed", 2023, section 3.4, as in diffusers' `rescale_noise_cfg`.
///
/// # Errors
/// The device is out of memory.
pub(super) fn guided(without: &Tensor, with: &Tensor, scale: GuidanceScale, rescale: f64) -> Result<Tensor> {
    let moved = (without + ((with - without)? * scale.0)?)?;
    if rescale == 0.0 {
        return Ok(moved);
    }
    let (wanted, found) = (deviation(with)?, deviation(&moved)?);
    // Constant values cannot be rescaled.
    let factor = if found > 0.0 { wanted / found } else { 1.0 };
    moved * (rescale * factor + (1.0 - rescale))
}

/// The standard deviation of all values, with f64 sums.
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
