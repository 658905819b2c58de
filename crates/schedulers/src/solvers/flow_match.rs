//! Euler's and Heun's method for rectified flow, and steps for its consistency models.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, as
//! diffusers' `FlowMatchEulerDiscreteScheduler`, `FlowMatchHeunDiscreteScheduler` and `FlowMatchLCMScheduler`
//! compute it.

use crate::config::SchedulerConfig;
use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::flow_match_euler::FlowMatchEuler;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::prediction_type::PredictionType;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Steps along the predicted velocity.
#[derive(Debug)]
pub(crate) struct FlowMatch {
    levels: FlowMatchEuler,
    /// Whether each step but the last is repeated with the mean of the velocities at its ends.
    heun: bool,
    /// Whether each step goes to the predicted original sample and back to the next level with fresh noise:
    /// consistency models, and `stochastic_sampling`.
    renoises: bool,
}

impl FlowMatch {
    /// `steps` steps for an image of `patches` patches.
    pub(crate) fn new(
        config: &SchedulerConfig,
        kind: SamplerKind,
        schedule: ScheduleKind,
        steps: usize,
        patches: usize,
    ) -> Result<Self, Refusal> {
        Refusal::check_steps(kind, steps, 1..=config.train_timesteps())?;
        if let Some(prediction) = config.prediction_type.as_deref()
            && !config.is_flow_match()
            && prediction != PredictionType::Flow.name()
        {
            return Err(Refusal::setting("prediction_type", prediction));
        }
        let stochastic = kind == SamplerKind::FlowEuler && config.stochastic_sampling == Some(true);
        Ok(Self {
            levels: FlowMatchEuler::with_schedule(&config.flow()?, schedule, steps, patches),
            heun: kind == SamplerKind::FlowHeun,
            renoises: kind == SamplerKind::FlowLcm || stochastic,
        })
    }

    /// The step of an evaluation, and whether the evaluation repeats it.
    fn stage(&self, evaluation: usize) -> (usize, bool) {
        if self.heun {
            (evaluation / 2, !evaluation.is_multiple_of(2))
        } else {
            (evaluation, false)
        }
    }
}

impl Solver for FlowMatch {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.levels
    }

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
        let (step, again) = self.stage(evaluation);
        self.levels.level(step + usize::from(again))
    }

    fn noise_draws(&self, _evaluation: usize) -> usize {
        // After the last step too, where its weight is 0, so that later draws are the same as in diffusers.
        usize::from(self.renoises)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (number, again) = self.stage(step.evaluation);
        if self.renoises {
            let latents = &step.state.latents;
            let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
            let noise = step.draw_noise()?;
            step.state.latents = self.levels.level(number + 1).add_noise(&original, &noise)?;
            return Ok(());
        }
        if again {
            let half = 0.5 * (self.levels.sigmas()[number + 1] - self.levels.sigmas()[number]);
            let (origin, first) = (step.origin()?, step.earlier_output(0)?);
            step.state.latents = weighted_sum(&[(1.0, &origin), (half, &first), (half, step.model_output)])?;
            step.state.origin = None;
            step.state.outputs.clear();
            return Ok(());
        }
        let moved = self.levels.step(number, &step.state.latents, step.model_output)?;
        let begun = std::mem::replace(&mut step.state.latents, moved);
        if self.heun {
            step.state.origin = Some(begun);
            step.state.push_output(step.model_output.clone(), 1);
        }
        Ok(())
    }
}
