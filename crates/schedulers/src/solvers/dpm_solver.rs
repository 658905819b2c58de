//! The coefficients of one step of DPM-Solver and DPM-Solver++, and the divided differences that they
//! multiply.
//!
//! Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
//! 2022, and "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, both
//! with their SDE variants, as diffusers' `DPMSolverMultistepScheduler` and `DPMSolverSinglestepScheduler`
//! compute them.

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::error::Refusal;
use crate::levels::NoiseLevels;
use crate::levels::variance_preserving::{LogSnr, VariancePreserving};
use crate::sampler_kind::SamplerKind;
use crate::solvers::Step;
use crate::weighted_sum::{divided_difference, weighted_sum};

/// The variant of the solver: `algorithm_type` and `solver_type` of diffusers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DpmSolver {
    /// Whether it uses the predicted original sample (DPM-Solver++), not the predicted noise (DPM-Solver).
    pub(crate) predict_x0: bool,
    /// Whether it solves the SDE, with noise at each step.
    pub(crate) stochastic: bool,
    /// Whether `solver_type` is `heun`, not `midpoint`.
    pub(crate) heun: bool,
}

/// The coefficients of the latents, of a prediction and its first and second derivatives, and of fresh noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coefficients {
    pub(crate) latents: f32,
    pub(crate) prediction: f32,
    pub(crate) slope: f32,
    pub(crate) curvature: f32,
    pub(crate) noise: f32,
}

impl DpmSolver {
    /// The variant that `kind` is, with the settings of `config`.
    pub(crate) fn new(config: &SchedulerConfig, kind: SamplerKind) -> Result<Self, Refusal> {
        use SamplerKind as Kind;
        let heun = match config.solver_type.as_deref() {
            // The last three are values of other schedulers; diffusers reads them as the first.
            None | Some("midpoint" | "logrho" | "bh1" | "bh2") => false,
            Some("heun") => true,
            Some(other) => {
                return Err(Refusal::setting("solver_type", other));
            }
        };
        if let Some(learned @ ("learned" | "learned_range")) = config.variance_type.as_deref() {
            return Err(Refusal::setting("variance_type", learned));
        }
        Ok(Self {
            predict_x0: !matches!(kind, Kind::Dpm2M | Kind::Dpm2MSde | Kind::Dpm2S),
            stochastic: matches!(
                kind,
                Kind::Dpm2MSde | Kind::DpmPlusPlus2MSde | Kind::DpmPlusPlus2SSde | Kind::EdmDpmPlusPlus2MSde
            ),
            heun,
        })
    }

    /// The coefficients of a step of `order` from `from` to `to`.
    pub(crate) fn coefficients(self, from: LogSnr, to: LogSnr, order: usize) -> Coefficients {
        let length = to.lambda - from.lambda;
        let middle = order == 2 && !self.heun;
        match (self.predict_x0, self.stochastic) {
            (true, true) => {
                let gone = 1.0 - (-2.0 * length).exp();
                Coefficients {
                    latents: to.sigma / from.sigma * (-length).exp(),
                    prediction: to.alpha * gone,
                    slope: if middle {
                        0.5 * (to.alpha * gone)
                    } else {
                        to.alpha * (gone / (-2.0 * length) + 1.0)
                    },
                    curvature: to.alpha * ((gone - 2.0 * length) / (2.0 * length).powi(2) - 0.5),
                    noise: to.sigma * gone.sqrt(),
                }
            }
            (true, false) => {
                let left = (-length).exp() - 1.0;
                Coefficients {
                    latents: to.sigma / from.sigma,
                    prediction: -to.alpha * left,
                    slope: if middle {
                        -0.5 * (to.alpha * left)
                    } else {
                        to.alpha * (left / length + 1.0)
                    },
                    curvature: -to.alpha * ((left + length) / (length * length) - 0.5),
                    noise: 0.0,
                }
            }
            (false, stochastic) => {
                let grown = length.exp() - 1.0;
                // The SDE takes twice the drift of the ODE.
                let twice = if stochastic { 2.0 } else { 1.0 };
                Coefficients {
                    latents: to.alpha / from.alpha,
                    prediction: -twice * (to.sigma * grown),
                    slope: if middle {
                        -0.5 * twice * (to.sigma * grown)
                    } else {
                        -twice * (to.sigma * (grown / length - 1.0))
                    },
                    curvature: -to.sigma * ((grown - length) / (length * length) - 0.5),
                    noise: if stochastic {
                        to.sigma * ((2.0 * length).exp() - 1.0).sqrt()
                    } else {
                        0.0
                    },
                }
            }
        }
    }

    /// What the solver steps with: the original sample or the noise that the network's output predicts.
    pub(super) fn prediction(
        self,
        levels: &VariancePreserving,
        step: &Step<'_, '_>,
    ) -> candle_core::Result<Tensor> {
        let latents = &step.state.latents;
        if self.predict_x0 {
            levels.predicted_original_sample(step.evaluation, latents, step.model_output)
        } else {
            levels.predicted_noise(step.evaluation, latents, step.model_output)
        }
    }
}

/// Divided differences of the last three predictions. `slope` is that of the newest prediction and `before`,
/// `nearest` their distance, and `next` the distance of `before` and `oldest`, both in lengths of the step.
/// Returns the slope at the newest prediction, and the difference of the two slopes.
pub(super) fn slope_and_change(
    slope: &Tensor,
    before: &Tensor,
    oldest: &Tensor,
    nearest: f32,
    next: f32,
) -> candle_core::Result<(Tensor, Tensor)> {
    let older_slope = divided_difference(before, oldest, next)?;
    let change = weighted_sum(&[(1.0, slope), (-1.0, &older_slope)])?;
    let slope = weighted_sum(&[(1.0, slope), (nearest / (nearest + next), &change)])?;
    Ok((slope, change))
}
