//! Pseudo linear multistep (PLMS): DDIM's step along a combination of the last four predictions.
//!
//! Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022, equations 9 and 12. The
//! timesteps are those of diffusers' `PNDMScheduler` with `skip_prk_steps`, as in Stable Diffusion 1.5.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::alphas::Alphas;
use crate::levels::setup::Setup;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// The coefficients of the newest prediction and the three before it: equation 12.
pub(super) const FOURTH_ORDER: [f32; 4] = [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0];

/// Steps that use three earlier predictions. The first step is taken twice, the second time with the mean of
/// the predictions at its two ends.
#[derive(Debug)]
pub(crate) struct Pndm {
    alphas: Alphas,
    /// The distance between timesteps.
    stride: i64,
}

impl Pndm {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let mut timesteps = setup.whole_timesteps();
        if let Some(&second) = timesteps.get(1) {
            timesteps.insert(1, second);
        }
        Ok(Self {
            alphas: Alphas::new(setup, timesteps)?,
            stride: (setup.training.len() / setup.steps) as i64,
        })
    }
}

/// The latents at the timestep `next` along `model_output`: equation 9, `_get_prev_sample` in diffusers.
pub(super) fn transfer(
    alphas: &Alphas,
    latents: &Tensor,
    timestep: i64,
    next: i64,
    model_output: &Tensor,
) -> candle_core::Result<Tensor> {
    let noise = alphas.predicted_noise_at(timestep, latents, model_output)?;
    let (alpha_prod, alpha_prod_prev) = (alphas.alpha_cumprod(timestep), alphas.alpha_cumprod(next));
    let denominator = alpha_prod * (1.0 - alpha_prod_prev).sqrt()
        + (alpha_prod * (1.0 - alpha_prod) * alpha_prod_prev).sqrt();
    let noise_factor = -(alpha_prod_prev - alpha_prod) / denominator;
    weighted_sum(&[
        ((alpha_prod_prev / alpha_prod).sqrt(), latents),
        (noise_factor, &noise),
    ])
}

/// The newest prediction and earlier ones, combined with `coefficients`.
pub(super) fn combined_prediction(step: &Step<'_, '_>, coefficients: &[f32]) -> Result<Tensor, StepError> {
    let mut sum = weighted_sum(&[(coefficients[0], step.model_output)])?;
    for (age, &coefficient) in coefficients[1..].iter().enumerate() {
        sum = weighted_sum(&[(1.0, &sum), (coefficient, &step.earlier_output(age)?)])?;
    }
    Ok(sum)
}

impl Solver for Pndm {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.alphas
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        const REMEMBERED: usize = 3;
        let timestep = self.alphas.timesteps[step.evaluation];
        if step.done == 1 {
            // Repeats the first step. Like diffusers, takes its beginning to be one stride before this
            // timestep, even if image-to-image begins elsewhere.
            let mean = weighted_sum(&[(0.5, step.model_output), (0.5, &step.earlier_output(0)?)])?;
            let begun = timestep + self.stride;
            step.state.latents = transfer(&self.alphas, &step.origin()?, begun, timestep, &mean)?;
            step.state.origin = None;
            return Ok(());
        }
        let coefficients: &[f32] = match step.done {
            0 => &[1.0],
            2 => &[3.0 / 2.0, -1.0 / 2.0],
            3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => &FOURTH_ORDER,
        };
        let prediction = combined_prediction(&step, coefficients)?;
        let latents = step.state.latents.clone();
        let next = timestep - self.stride;
        step.state.latents = transfer(&self.alphas, &latents, timestep, next, &prediction)?;
        step.state.origin = (step.done == 0).then_some(latents);
        step.state.push_output(step.model_output.clone(), REMEMBERED);
        Ok(())
    }
}
