//! One noise level: how latents are composed of an image and noise, and how predictions are read there.

use candle_core::{Result, Tensor};

use crate::levels::prediction_type::PredictionType;
use crate::weighted_sum::weighted_sum;

/// How latents are composed of an original sample and standard normal noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NoiseLevel {
    /// `sample + sigma * noise`; the network gets it scaled to unit variance.
    VarianceExploding {
        /// Standard deviation of the noise.
        sigma: f32,
    },
    /// `signal * sample + noise * noise`, with `signal² + noise² = 1`.
    VariancePreserving {
        /// The factor of the sample: the square root of `alpha_cumprod`.
        signal: f32,
        /// The factor of the noise.
        noise: f32,
    },
    /// `(1 - sigma) * sample + sigma * noise`: rectified flow.
    Flow {
        /// The factor of the noise, from 0 to 1.
        sigma: f32,
    },
    /// `sample + sigma * noise` for an EDM-preconditioned network: Karras et al., "Elucidating the Design
    /// Space of Diffusion-Based Generative Models", 2022, table 1.
    Edm {
        /// Standard deviation of the noise.
        sigma: f32,
        /// Standard deviation of the training data.
        sigma_data: f32,
    },
}

impl NoiseLevel {
    /// The variance-preserving level of `alpha_cumprod`.
    pub(crate) fn from_alpha_cumprod(alpha_cumprod: f32) -> Self {
        Self::VariancePreserving {
            signal: alpha_cumprod.sqrt(),
            noise: (1.0 - alpha_cumprod).sqrt(),
        }
    }

    /// The variance-preserving level with the signal-to-noise ratio of the variance-exploding level `sigma`.
    pub(crate) fn from_sigma(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self::VariancePreserving {
            signal,
            noise: sigma * signal,
        }
    }

    /// The factors of the sample and of the noise.
    pub(crate) fn factors(self) -> (f32, f32) {
        match self {
            Self::VarianceExploding { sigma } | Self::Edm { sigma, .. } => (1.0, sigma),
            Self::VariancePreserving { signal, noise } => (signal, noise),
            Self::Flow { sigma } => (1.0 - sigma, sigma),
        }
    }

    /// `latents`, without noise, with `noise` of this level added.
    pub(crate) fn add_noise(self, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let (signal, noise_factor) = self.factors();
        weighted_sum(&[(signal, latents), (noise_factor, noise)])
    }

    /// Latents scaled as the network takes them: `scale_model_input` in diffusers.
    pub(crate) fn scale_input(self, latents: &Tensor) -> Result<Tensor> {
        match self {
            Self::VarianceExploding { sigma } => latents / f64::from((sigma * sigma + 1.0).sqrt()),
            Self::Edm { sigma, sigma_data } => {
                latents / f64::from((sigma * sigma + sigma_data * sigma_data).sqrt())
            }
            Self::VariancePreserving { .. } | Self::Flow { .. } => Ok(latents.clone()),
        }
    }

    /// The original sample that `output`, the network's for `latents`, predicts.
    #[doc(alias = "pred_original_sample")]
    pub(crate) fn predicted_original_sample(
        self,
        prediction: PredictionType,
        latents: &Tensor,
        output: &Tensor,
    ) -> Result<Tensor> {
        match (self, prediction) {
            (_, PredictionType::Sample) => Ok(output.clone()),
            (Self::Edm { sigma, sigma_data }, _) => {
                let variance = sigma * sigma + sigma_data * sigma_data;
                let output_factor = sigma * sigma_data / variance.sqrt();
                let output_factor = if prediction == PredictionType::VPrediction {
                    -output_factor
                } else {
                    output_factor
                };
                weighted_sum(&[
                    (sigma_data * sigma_data / variance, latents),
                    (output_factor, output),
                ])
            }
            (_, PredictionType::Flow) => {
                let (signal, noise) = self.factors();
                let sigma = if let Self::Flow { sigma } = self {
                    sigma
                } else {
                    noise / signal
                };
                weighted_sum(&[(1.0, latents), (-sigma, output)])
            }
            (Self::VarianceExploding { sigma }, PredictionType::Epsilon) => {
                weighted_sum(&[(1.0, latents), (-sigma, output)])
            }
            (Self::VarianceExploding { sigma }, PredictionType::VPrediction) => {
                let variance = sigma * sigma + 1.0;
                weighted_sum(&[(-sigma / variance.sqrt(), output), (1.0 / variance, latents)])
            }
            (Self::VariancePreserving { .. } | Self::Flow { .. }, PredictionType::Epsilon) => {
                let (signal, noise) = self.factors();
                weighted_sum(&[(1.0, latents), (-noise, output)])? / f64::from(signal)
            }
            (Self::VariancePreserving { .. } | Self::Flow { .. }, PredictionType::VPrediction) => {
                let (signal, noise) = self.factors();
                weighted_sum(&[(signal, latents), (-noise, output)])
            }
        }
    }

    /// The noise in `latents` that `output`, the network's, predicts.
    #[doc(alias = "pred_epsilon")]
    pub(crate) fn predicted_noise(
        self,
        prediction: PredictionType,
        latents: &Tensor,
        output: &Tensor,
    ) -> Result<Tensor> {
        let (signal, noise) = self.factors();
        match prediction {
            PredictionType::Epsilon if !matches!(self, Self::Edm { .. }) => Ok(output.clone()),
            PredictionType::VPrediction if matches!(self, Self::VariancePreserving { .. }) => {
                weighted_sum(&[(signal, output), (noise, latents)])
            }
            _ => {
                let sample = self.predicted_original_sample(prediction, latents, output)?;
                weighted_sum(&[(1.0, latents), (-signal, &sample)])? / f64::from(noise)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn near(found: &Tensor, expected: &Tensor) {
        let difference = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(
            difference.to_scalar::<f32>().unwrap() < 1e-5,
            "{found} {expected}"
        );
    }

    #[test]
    fn exact_predictions_give_the_original_sample() {
        let sample = Tensor::new(&[0.5_f32, -1.0, 2.0], &Device::Cpu).unwrap();
        let noise = Tensor::new(&[1.0_f32, 0.3, -0.7], &Device::Cpu).unwrap();
        let (signal, share) = (0.6, 0.8);
        let velocity = weighted_sum(&[(signal, &noise), (-share, &sample)]).unwrap();
        let levels = [
            NoiseLevel::VarianceExploding {
                sigma: share / signal,
            },
            NoiseLevel::VariancePreserving { signal, noise: share },
        ];
        for level in levels {
            let latents = level.add_noise(&sample, &noise).unwrap();
            for (prediction, output) in [
                (PredictionType::Epsilon, &noise),
                (PredictionType::VPrediction, &velocity),
                (PredictionType::Sample, &sample),
            ] {
                near(
                    &level
                        .predicted_original_sample(prediction, &latents, output)
                        .unwrap(),
                    &sample,
                );
            }
        }
        let level = NoiseLevel::Flow { sigma: 0.3 };
        let latents = level.add_noise(&sample, &noise).unwrap();
        let velocity = (&noise - &sample).unwrap();
        near(
            &level
                .predicted_original_sample(PredictionType::Flow, &latents, &velocity)
                .unwrap(),
            &sample,
        );
        near(
            &level
                .predicted_noise(PredictionType::Flow, &latents, &velocity)
                .unwrap(),
            &noise,
        );

        // An EDM network predicts the rest of the sample after the skip connection, scaled.
        let (sigma, sigma_data) = (0.7_f32, 0.5_f32);
        let level = NoiseLevel::Edm { sigma, sigma_data };
        let latents = level.add_noise(&sample, &noise).unwrap();
        let variance = sigma * sigma + sigma_data * sigma_data;
        let rest = weighted_sum(&[(1.0, &sample), (-sigma_data * sigma_data / variance, &latents)]).unwrap();
        let output = (rest * f64::from(variance.sqrt() / (sigma * sigma_data))).unwrap();
        near(
            &level
                .predicted_original_sample(PredictionType::Epsilon, &latents, &output)
                .unwrap(),
            &sample,
        );
        let turned = output.neg().unwrap();
        near(
            &level
                .predicted_original_sample(PredictionType::VPrediction, &latents, &turned)
                .unwrap(),
            &sample,
        );
    }
}
