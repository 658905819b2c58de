//! Sinusoidal timestep embeddings.

use candle_core::{DType, Tensor};

use crate::Result;

/// The sinusoidal embedding of `timesteps`, `[batch]`: `[batch, dimension]` of 32-bit floats on the same
/// device. The first half are cosines, the second half sines; an odd last feature is 0.
///
/// Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020, as diffusers'
/// `get_timestep_embedding` with `flip_sin_to_cos=True` and `downscale_freq_shift=0`.
///
/// # Errors
/// `timesteps` has other than one dimension, or the device fails.
pub fn timestep_embedding(timesteps: &Tensor, dimension: usize) -> Result<Tensor> {
    const LONGEST_PERIOD: f64 = 10_000.0;
    let half = dimension / 2;
    // With the rounding of the reference in 32 bits: a phase is the product of large numbers.
    let frequency = |index: usize| {
        let exponent = -LONGEST_PERIOD.ln() as f32 * index as f32 / half as f32;
        f64::from(exponent).exp() as f32
    };
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let steps = timesteps.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    let mut embedding = Vec::with_capacity(steps.len() * dimension);
    for step in &steps {
        let phases = frequencies.iter().map(|frequency| f64::from(step * frequency));
        embedding.extend(phases.clone().map(|phase| phase.cos() as f32));
        embedding.extend(phases.map(|phase| phase.sin() as f32));
        embedding.resize(embedding.len() + dimension % 2, 0.0);
    }
    Tensor::from_vec(embedding, (steps.len(), dimension), timesteps.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn equals_the_reference() {
        // diffusers.models.embeddings.get_timestep_embedding([0, 500.5], 4, True, 0)
        let steps = Tensor::new(&[0.0_f32, 500.5], &Device::Cpu).unwrap();
        let found = timestep_embedding(&steps, 4).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(found[0], [1.0, 1.0, 0.0, 0.0]);
        let expected = [500.5_f64.cos(), 5.005_f64.cos(), 500.5_f64.sin(), 5.005_f64.sin()];
        for (found, expected) in found[1].iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
        let odd = timestep_embedding(&steps, 5).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(odd[1][..4], found[1][..]);
        assert_eq!(odd[1][4], 0.0);
    }
}
