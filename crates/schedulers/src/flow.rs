//! Euler's and Heun's method along the paths of rectified flow, and the steps of its consistency models.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, as diffusers'
//! `FlowMatchEulerDiscreteScheduler`, `FlowMatchHeunDiscreteScheduler` and `FlowMatchLCMScheduler` carry it out.

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::error::{Refusal, StepError};
use crate::flow_match_euler::FlowMatchEuler;
use crate::kind::SamplerKind;
use crate::level::{NoiseLevel, Prediction, weighted};
use crate::method::{Method, Step};
use crate::schedule_kind::ScheduleKind;

/// Steps along the predicted velocities.
#[derive(Debug)]
pub(crate) struct Flow {
    levels: FlowMatchEuler,
    /// Whether each step but the last is taken twice, the second time along the mean of the velocities at its
    /// ends.
    heun: bool,
    /// Whether each step goes straight to the picture, which is given fresh noise of the next level.
    renoises: bool,
}

impl Flow {
    /// `steps` for a picture of `patches` patches.
    pub(crate) fn new(
        config: &SchedulerConfig,
        kind: SamplerKind,
        schedule: ScheduleKind,
        steps: usize,
        patches: usize,
    ) -> Result<Self, Refusal> {
        let most = config.train_timesteps();
        let least = 1;
        if steps < least || steps > most {
            return Err(Refusal::Steps {
                kind,
                steps,
                least,
                most,
            });
        }
        if let Some(prediction) = config.prediction_type.as_deref()
            && !config.is_flow_match()
            && prediction != Prediction::Flow.name()
        {
            return Err(Refusal::Setting {
                name: "prediction_type",
                value: prediction.to_owned(),
            });
        }
        let stochastic = kind == SamplerKind::FlowEuler && config.stochastic_sampling == Some(true);
        Ok(Self {
            levels: FlowMatchEuler::along(&config.flow()?, schedule, steps, patches),
            heun: kind == SamplerKind::FlowHeun,
            renoises: kind == SamplerKind::FlowLcm || stochastic,
        })
    }

    /// The step of an evaluation, and whether it is taken the second time.
    fn place(&self, evaluation: usize) -> (usize, bool) {
        if self.heun {
            (evaluation / 2, !evaluation.is_multiple_of(2))
        } else {
            (evaluation, false)
        }
    }

    fn sigma(&self, evaluation: usize) -> f32 {
        let (step, again) = self.place(evaluation);
        self.levels.sigmas()[step + usize::from(again)]
    }
}

impl Method for Flow {
    fn timesteps(&self) -> Vec<f32> {
        let timesteps = self.levels.timesteps();
        if self.heun {
            let again = timesteps[1..].iter().flat_map(|&timestep| [timestep, timestep]);
            timesteps.iter().take(1).copied().chain(again).collect()
        } else {
            timesteps.to_vec()
        }
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::Flow {
            sigma: self.sigma(evaluation),
        }
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.level(evaluation).original(Prediction::Flow, latents, output)
    }

    fn noises(&self, _evaluation: usize) -> usize {
        // After the last step too, where it has no weight, so that what is drawn later is what diffusers draws.
        usize::from(self.renoises)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (number, again) = self.place(step.evaluation);
        if self.renoises {
            let original = self.original(step.evaluation, &step.trajectory.latents, step.output)?;
            let sigma = self.levels.sigmas()[number + 1];
            let noise = step.draw()?;
            step.trajectory.latents = NoiseLevel::Flow { sigma }.add_noise(&original, &noise)?;
            return Ok(());
        }
        if again {
            let half = 0.5 * (self.levels.sigmas()[number + 1] - self.levels.sigmas()[number]);
            let (origin, first) = (step.origin()?, step.earlier(0)?);
            step.trajectory.latents = weighted(&[(1.0, &origin), (half, &first), (half, step.output)])?;
            step.trajectory.origin = None;
            step.trajectory.outputs.clear();
            return Ok(());
        }
        let moved = self.levels.step(number, &step.trajectory.latents, step.output)?;
        let begun = std::mem::replace(&mut step.trajectory.latents, moved);
        if self.heun {
            step.trajectory.origin = Some(begun);
            step.trajectory.remember(step.output.clone(), 1);
        }
        Ok(())
    }
}
