//! Applies the weights of tokens to their features.

use candle_core::{DType, Result, Tensor};

/// Multiplies each token's vector of `features` by its weight, then scales each row back to its mean, as
/// stable-diffusion-webui does. `features` are `[rows, tokens, features]`, and `weights` has one list of
/// tokens per row. A row with weights of 1 keeps its bits.
///
/// # Errors
/// The number of weights differs from that of tokens, or the device fails.
pub fn emphasise(features: &Tensor, weights: &[Vec<f32>]) -> Result<Tensor> {
    let (rows, tokens, _) = features.dims3()?;
    if weights.len() != rows || weights.iter().any(|weights| weights.len() != tokens) {
        candle_core::bail!(
            "weights of {} rows for features {:?}",
            weights.len(),
            features.shape()
        );
    }
    if weights.iter().flatten().all(|&weight| weight == 1.0) {
        return Ok(features.clone());
    }
    let weighted = weights.iter().enumerate().map(|(row, weights)| {
        let features = features.narrow(0, row, 1)?;
        if weights.iter().all(|&weight| weight == 1.0) {
            return Ok(features);
        }
        let weights = Tensor::from_slice(weights, (1, tokens, 1), features.device())?;
        let changed = features.broadcast_mul(&weights.to_dtype(features.dtype())?)?;
        let scale = mean(&features)? / mean(&changed)?;
        // A mean of 0 cannot be restored.
        if scale.is_finite() {
            changed * scale
        } else {
            Ok(changed)
        }
    });
    Tensor::cat(&weighted.collect::<Result<Vec<_>>>()?, 0)
}

/// The mean in f64: positive and negative values nearly cancel.
fn mean(tensor: &Tensor) -> Result<f64> {
    tensor.to_dtype(DType::F64)?.mean_all()?.to_scalar()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tokens_are_weighted_and_the_mean_restored() {
        let features = Tensor::new(
            &[[[1.0_f32, 2.0], [3.0, -1.0]], [[4.0, 4.0], [1.0, 1.0]]],
            &Device::Cpu,
        )
        .unwrap();
        let result = emphasise(&features, &[vec![2.0, 0.5], vec![1.0, 1.0]]).unwrap();
        // Sums of 5 and 7: 2, 4, 1.5, -0.5 times 5/7.
        let expected = [
            [[10.0 / 7.0, 20.0 / 7.0], [7.5 / 7.0, -2.5 / 7.0]],
            [[4.0, 4.0], [1.0, 1.0]],
        ];
        for (found, expected) in result
            .to_vec3::<f32>()
            .unwrap()
            .iter()
            .flatten()
            .flatten()
            .zip(expected.as_flattened().as_flattened())
        {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn without_weights_nothing_changes() {
        let features = Tensor::randn(0.0_f32, 1.0, (2, 3, 5), &Device::Cpu).unwrap();
        let result = emphasise(&features, &[vec![1.0; 3], vec![1.0; 3]]).unwrap();
        assert_eq!(
            result.to_vec3::<f32>().unwrap(),
            features.to_vec3::<f32>().unwrap()
        );
    }

    #[test]
    fn a_mean_of_nothing_is_left_alone() {
        let features = Tensor::new(&[[[1.0_f32], [1.0]]], &Device::Cpu).unwrap();
        let result = emphasise(&features, &[vec![1.0, -1.0]]).unwrap();
        assert_eq!(result.to_vec3::<f32>().unwrap(), [[[1.0], [-1.0]]]);
        assert!(emphasise(&features, &[vec![1.0]]).is_err());
    }
}
