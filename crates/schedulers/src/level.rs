//! What a noise level means for latents: how much of a picture is in them, and how predictions are read there.

use candle_core::{Result, Tensor};

/// What a network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prediction {
    /// The noise.
    Epsilon,
    /// Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, appendix D.
    Velocity,
    /// The picture.
    Sample,
    /// The velocity along the straight line from the picture to noise.
    Flow,
}

impl Prediction {
    /// As configurations call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
            Self::Sample => "sample",
            Self::Flow => "flow_prediction",
        }
    }
}

/// How latents are made of a picture and noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NoiseLevel {
    /// The picture with `sigma` times noise added; the network wants it scaled back to unit variance.
    Exploding {
        /// Standard deviation of the noise.
        sigma: f32,
    },
    /// `signal` times the picture and `noise` times noise, the squares of which add up to 1.
    Preserving {
        /// Share of the picture.
        signal: f32,
        /// Share of the noise.
        noise: f32,
    },
    /// On the straight line from the picture (0) to noise (1).
    Flow {
        /// Place on the line.
        sigma: f32,
    },
    /// The picture with `sigma` times noise added, for a network that is preconditioned as Karras et al., "Elucidating the
    /// Design Space of Diffusion-Based Generative Models", 2022, table 1, have it.
    Edm {
        /// Standard deviation of the noise.
        sigma: f32,
        /// Standard deviation of the pictures that the network was trained with.
        data: f32,
    },
}

impl NoiseLevel {
    /// The level at which `alpha_cumprod` of a picture's variance is left.
    pub(crate) fn of_alpha(alpha_cumprod: f32) -> Self {
        Self::Preserving {
            signal: alpha_cumprod.sqrt(),
            noise: (1.0 - alpha_cumprod).sqrt(),
        }
    }

    /// The variance-preserving level with the signal-to-noise ratio of `sigma` added noise.
    pub(crate) fn of_sigma(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self::Preserving {
            signal,
            noise: sigma * signal,
        }
    }

    /// Shares of the picture and of the noise.
    pub(crate) fn shares(self) -> (f32, f32) {
        match self {
            Self::Exploding { sigma } | Self::Edm { sigma, .. } => (1.0, sigma),
            Self::Preserving { signal, noise } => (signal, noise),
            Self::Flow { sigma } => (1.0 - sigma, sigma),
        }
    }

    /// A picture's latents at this level.
    pub(crate) fn add_noise(self, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let (of_picture, of_noise) = self.shares();
        weighted(&[(of_picture, latents), (of_noise, noise)])
    }

    /// Latents as the network takes them.
    pub(crate) fn scale_input(self, latents: &Tensor) -> Result<Tensor> {
        match self {
            Self::Exploding { sigma } => latents / f64::from((sigma * sigma + 1.0).sqrt()),
            Self::Edm { sigma, data } => latents / f64::from((sigma * sigma + data * data).sqrt()),
            Self::Preserving { .. } | Self::Flow { .. } => Ok(latents.clone()),
        }
    }

    /// The picture that `output`, the network's prediction for `latents`, points to.
    pub(crate) fn original(
        self,
        prediction: Prediction,
        latents: &Tensor,
        output: &Tensor,
    ) -> Result<Tensor> {
        match (self, prediction) {
            (_, Prediction::Sample) => Ok(output.clone()),
            (Self::Edm { sigma, data }, _) => {
                let variance = sigma * sigma + data * data;
                let of_output = sigma * data / variance.sqrt();
                let of_output = if prediction == Prediction::Velocity {
                    -of_output
                } else {
                    of_output
                };
                weighted(&[(data * data / variance, latents), (of_output, output)])
            }
            (_, Prediction::Flow) => {
                let (signal, noise) = self.shares();
                let sigma = if let Self::Flow { sigma } = self {
                    sigma
                } else {
                    noise / signal
                };
                weighted(&[(1.0, latents), (-sigma, output)])
            }
            (Self::Exploding { sigma }, Prediction::Epsilon) => weighted(&[(1.0, latents), (-sigma, output)]),
            (Self::Exploding { sigma }, Prediction::Velocity) => {
                let variance = sigma * sigma + 1.0;
                weighted(&[(-sigma / variance.sqrt(), output), (1.0 / variance, latents)])
            }
            (Self::Preserving { .. } | Self::Flow { .. }, Prediction::Epsilon) => {
                let (signal, noise) = self.shares();
                weighted(&[(1.0, latents), (-noise, output)])? / f64::from(signal)
            }
            (Self::Preserving { .. } | Self::Flow { .. }, Prediction::Velocity) => {
                let (signal, noise) = self.shares();
                weighted(&[(signal, latents), (-noise, output)])
            }
        }
    }

    /// The noise that `output`, the network's prediction, says is in `latents`.
    pub(crate) fn noise(self, prediction: Prediction, latents: &Tensor, output: &Tensor) -> Result<Tensor> {
        let (signal, noise) = self.shares();
        match prediction {
            Prediction::Epsilon if !matches!(self, Self::Edm { .. }) => Ok(output.clone()),
            Prediction::Velocity if matches!(self, Self::Preserving { .. }) => {
                weighted(&[(signal, output), (noise, latents)])
            }
            _ => {
                let original = self.original(prediction, latents, output)?;
                weighted(&[(1.0, latents), (-signal, &original)])? / f64::from(noise)
            }
        }
    }
}

/// A sum of tensors of one shape, each with its weight. What has no weight is left out, whatever it holds.
pub(crate) fn weighted(terms: &[(f32, &Tensor)]) -> Result<Tensor> {
    let mut present = terms.iter().filter(|(weight, _)| *weight != 0.0);
    let scaled = |(weight, tensor): &(f32, &Tensor)| tensor.affine(f64::from(*weight), 0.0);
    match present.next() {
        Some(first) => present.try_fold(scaled(first)?, |sum, term| sum + scaled(term)?),
        None => terms[0].1.zeros_like(),
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
    fn right_predictions_point_to_the_picture() {
        let picture = Tensor::new(&[0.5_f32, -1.0, 2.0], &Device::Cpu).unwrap();
        let noise = Tensor::new(&[1.0_f32, 0.3, -0.7], &Device::Cpu).unwrap();
        let (signal, share) = (0.6, 0.8);
        let velocity = weighted(&[(signal, &noise), (-share, &picture)]).unwrap();
        let levels = [
            NoiseLevel::Exploding {
                sigma: share / signal,
            },
            NoiseLevel::Preserving { signal, noise: share },
        ];
        for level in levels {
            let latents = level.add_noise(&picture, &noise).unwrap();
            for (prediction, output) in [
                (Prediction::Epsilon, &noise),
                (Prediction::Velocity, &velocity),
                (Prediction::Sample, &picture),
            ] {
                near(&level.original(prediction, &latents, output).unwrap(), &picture);
            }
        }
        let level = NoiseLevel::Flow { sigma: 0.3 };
        let latents = level.add_noise(&picture, &noise).unwrap();
        let velocity = (&noise - &picture).unwrap();
        near(
            &level.original(Prediction::Flow, &latents, &velocity).unwrap(),
            &picture,
        );
        near(
            &level.noise(Prediction::Flow, &latents, &velocity).unwrap(),
            &noise,
        );

        // The network of Karras et al. gives what is left of the picture when the latents' own share is taken away.
        let (sigma, data) = (0.7_f32, 0.5_f32);
        let level = NoiseLevel::Edm { sigma, data };
        let latents = level.add_noise(&picture, &noise).unwrap();
        let variance = sigma * sigma + data * data;
        let rest = weighted(&[(1.0, &picture), (-data * data / variance, &latents)]).unwrap();
        let output = (rest * f64::from(variance.sqrt() / (sigma * data))).unwrap();
        near(
            &level.original(Prediction::Epsilon, &latents, &output).unwrap(),
            &picture,
        );
        let turned = output.neg().unwrap();
        near(
            &level.original(Prediction::Velocity, &latents, &turned).unwrap(),
            &picture,
        );
    }

    #[test]
    fn a_term_without_weight_cannot_spoil_a_sum() {
        let one = Tensor::new(&[1.0_f32], &Device::Cpu).unwrap();
        let lost = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
        let sum = weighted(&[(0.0, &lost), (2.0, &one)]).unwrap();
        assert_eq!(sum.to_vec1::<f32>().unwrap(), [2.0]);
    }
}
