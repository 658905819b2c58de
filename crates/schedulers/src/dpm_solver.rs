//! One step of DPM-Solver and DPM-Solver++: how much of what is known goes into it.
//!
//! Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps", 2022, and
//! "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, both with their stochastic forms, as
//! diffusers' schedulers carry them out.

use crate::config::SchedulerConfig;
use crate::error::Refusal;
use crate::kind::SamplerKind;
use crate::preserving::Moment;

/// Which of the solvers, and how its second order is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DpmSolver {
    /// Whether it builds on predictions of the picture (++) instead of the noise.
    pub(crate) of_pictures: bool,
    /// Whether noise is drawn at each step.
    pub(crate) stochastic: bool,
    /// Whether second-order steps take the derivative as Heun's method does, instead of at the middle.
    pub(crate) heun: bool,
}

/// Weights of the latents, of a prediction and its first and second derivatives, and of the noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    pub(crate) latents: f32,
    pub(crate) prediction: f32,
    pub(crate) slope: f32,
    pub(crate) curvature: f32,
    pub(crate) noise: f32,
}

impl DpmSolver {
    /// The solver that `kind` is, with the settings of `config`.
    pub(crate) fn new(config: &SchedulerConfig, kind: SamplerKind) -> Result<Self, Refusal> {
        use SamplerKind as Kind;
        let heun = match config.solver_type.as_deref() {
            // The last three are other schedulers' settings, for which diffusers takes the first.
            None | Some("midpoint" | "logrho" | "bh1" | "bh2") => false,
            Some("heun") => true,
            Some(other) => {
                return Err(Refusal::Setting {
                    name: "solver_type",
                    value: other.to_owned(),
                });
            }
        };
        if let Some(learned @ ("learned" | "learned_range")) = config.variance_type.as_deref() {
            return Err(Refusal::Setting {
                name: "variance_type",
                value: learned.to_owned(),
            });
        }
        Ok(Self {
            of_pictures: !matches!(kind, Kind::Dpm2M | Kind::Dpm2MSde | Kind::Dpm2S),
            stochastic: matches!(
                kind,
                Kind::Dpm2MSde | Kind::DpmPlusPlus2MSde | Kind::DpmPlusPlus2SSde | Kind::EdmDpmPlusPlus2MSde
            ),
            heun,
        })
    }

    /// The weights of a step of `order` from `from` to `to`.
    pub(crate) fn weights(self, from: Moment, to: Moment, order: usize) -> Weights {
        // In half the logarithm of the signal-to-noise ratio, the equation's own time.
        let length = to.time - from.time;
        let middle = order == 2 && !self.heun;
        match (self.of_pictures, self.stochastic) {
            (true, true) => {
                let gone = 1.0 - (-2.0 * length).exp();
                Weights {
                    latents: to.noise / from.noise * (-length).exp(),
                    prediction: to.signal * gone,
                    slope: if middle {
                        0.5 * (to.signal * gone)
                    } else {
                        to.signal * (gone / (-2.0 * length) + 1.0)
                    },
                    curvature: to.signal * ((gone - 2.0 * length) / (2.0 * length).powi(2) - 0.5),
                    noise: to.noise * gone.sqrt(),
                }
            }
            (true, false) => {
                let left = (-length).exp() - 1.0;
                Weights {
                    latents: to.noise / from.noise,
                    prediction: -to.signal * left,
                    slope: if middle {
                        -0.5 * (to.signal * left)
                    } else {
                        to.signal * (left / length + 1.0)
                    },
                    curvature: -to.signal * ((left + length) / (length * length) - 0.5),
                    noise: 0.0,
                }
            }
            (false, stochastic) => {
                let grown = length.exp() - 1.0;
                // The stochastic equation goes along its predictions twice as far.
                let twice = if stochastic { 2.0 } else { 1.0 };
                Weights {
                    latents: to.signal / from.signal,
                    prediction: -twice * (to.noise * grown),
                    slope: if middle {
                        -0.5 * twice * (to.noise * grown)
                    } else {
                        -twice * (to.noise * (grown / length - 1.0))
                    },
                    curvature: -to.noise * ((grown - length) / (length * length) - 0.5),
                    noise: if stochastic {
                        to.noise * ((2.0 * length).exp() - 1.0).sqrt()
                    } else {
                        0.0
                    },
                }
            }
        }
    }
}
