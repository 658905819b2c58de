//! DPM-Solver++ over the predictions of the last steps, for the ordinary and for the stochastic equation.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022,
//! algorithm 2 and appendix B; the noise levels and the lower orders at the end are those of diffusers'
//! `DPMSolverMultistepScheduler`.

use candle_core::Tensor;

use super::error::{Refusal, StepError};
use super::kind::SamplerKind;
use super::level::{NoiseLevel, weighted};
use super::method::{Method, Step};
use super::preserving::{Moment, Preserving};
use super::setup::Setup;

/// Below this many steps the last ones are taken in lower orders.
const FEW_STEPS: usize = 15;

/// Steps along a polynomial through the pictures that the last predictions point to.
#[derive(Debug)]
pub(super) struct Multistep {
    levels: Preserving,
    /// How many predictions a step builds on: 1, 2 or 3.
    order: usize,
    /// Whether noise is drawn at each step.
    stochastic: bool,
    /// Whether second-order steps take the derivative as Heun's method does, instead of at the middle.
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    ends_at_least_noise: bool,
}

impl Multistep {
    pub(super) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
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
            levels: Preserving::new(setup)?,
            order: super::preserving::order(config)?,
            stochastic: setup.kind == SamplerKind::DpmPlusPlus2MSde,
            heun,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            euler_at_final: config.euler_at_final.unwrap_or(false),
            ends_at_least_noise: setup.ends_at_least_noise()?,
        })
    }

    /// How many predictions the step of `evaluation` builds on, for a picture with `done` of them behind it.
    fn order_of(&self, evaluation: usize, done: usize) -> usize {
        let steps = self.levels.steps();
        let few = self.lower_order_final && steps < FEW_STEPS;
        let highest = if evaluation + 1 == steps && (self.euler_at_final || few || !self.ends_at_least_noise)
        {
            1
        } else if evaluation + 2 == steps && few {
            2
        } else {
            3
        };
        self.order.min(done + 1).min(highest)
    }

    /// Weights of the latents, of the newest picture and its first and second differences, and of the noise,
    /// in a step from `from` to `to`.
    fn weights(&self, from: Moment, to: Moment, order: usize) -> Weights {
        // In half the logarithm of the signal-to-noise ratio, the equation's own time.
        let length = to.time - from.time;
        let ratio = to.noise / from.noise;
        if self.stochastic {
            let gone = 1.0 - (-2.0 * length).exp();
            Weights {
                latents: ratio * (-length).exp(),
                picture: to.signal * gone,
                slope: if order == 2 && !self.heun {
                    0.5 * (to.signal * gone)
                } else {
                    to.signal * (gone / (-2.0 * length) + 1.0)
                },
                curvature: to.signal * ((gone - 2.0 * length) / (2.0 * length).powi(2) - 0.5),
                noise: to.noise * gone.sqrt(),
            }
        } else {
            let left = (-length).exp() - 1.0;
            Weights {
                latents: ratio,
                picture: -to.signal * left,
                slope: if order == 2 && !self.heun {
                    -0.5 * (to.signal * left)
                } else {
                    to.signal * (left / length + 1.0)
                },
                curvature: -to.signal * ((left + length) / (length * length) - 0.5),
                noise: 0.0,
            }
        }
    }
}

struct Weights {
    latents: f32,
    picture: f32,
    slope: f32,
    curvature: f32,
    noise: f32,
}

impl Method for Multistep {
    fn timesteps(&self) -> Vec<f32> {
        self.levels.timesteps.clone()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(evaluation)
    }

    fn noises(&self, _evaluation: usize) -> usize {
        usize::from(self.stochastic)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.levels.original(evaluation, latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let order = self.order_of(step.evaluation, step.done);
        let moment = |evaluation: usize| self.levels.moment(evaluation);
        let (from, to) = (moment(step.evaluation), moment(step.evaluation + 1));
        let weights = self.weights(from, to, order);
        let picture = self
            .levels
            .original(step.evaluation, &step.trajectory.latents, step.output)?;

        let mut moved = weighted(&[
            (weights.latents, &step.trajectory.latents),
            (weights.picture, &picture),
        ])?;
        if order > 1 {
            // Differences over the steps before, in lengths of this one.
            let length = to.time - from.time;
            let spacing = |age: usize| {
                let later = moment(step.evaluation - age);
                (later.time - moment(step.evaluation - age - 1).time) / length
            };
            let before = step.earlier(0)?;
            let nearest = spacing(0);
            let slope = weighted(&[(1.0 / nearest, &picture), (-1.0 / nearest, &before)])?;
            if order == 2 {
                moved = weighted(&[(1.0, &moved), (weights.slope, &slope)])?;
            } else {
                let next = spacing(1);
                let older = weighted(&[(1.0 / next, &before), (-1.0 / next, &step.earlier(1)?)])?;
                let change = weighted(&[(1.0, &slope), (-1.0, &older)])?;
                let both = nearest + next;
                let slope = weighted(&[(1.0, &slope), (nearest / both, &change)])?;
                let curvature = weights.curvature / both;
                moved = weighted(&[(1.0, &moved), (weights.slope, &slope), (curvature, &change)])?;
            }
        }
        if self.stochastic {
            moved = weighted(&[(1.0, &moved), (weights.noise, &step.draw()?)])?;
        }
        step.trajectory.latents = moved;
        step.trajectory.remember(picture, self.order - 1);
        Ok(())
    }
}
