//! Linear multistep: each step follows a polynomial through the derivatives of the last four.
//!
//! The Adams-Bashforth method for uneven steps, as in k-diffusion's `sample_lms`. The noise levels are those
//! of diffusers' `LMSDiscreteScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::setup::Setup;
use crate::levels::variance_exploding::VarianceExploding;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::{divided_difference, weighted_sum};

const ORDER: usize = 4;

/// Steps that use three earlier derivatives.
#[derive(Debug)]
pub(crate) struct Lms(VarianceExploding);

impl Lms {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self(VarianceExploding::new(setup, false, None)?))
    }

    /// The coefficient of the derivative from `age` steps ago in `step`, of the last `order`: the integral
    /// over the step of the polynomial that is 1 at that level and 0 at the others. `get_lms_coefficient` in
    /// diffusers.
    fn coefficient(&self, step: usize, order: usize, age: usize) -> f64 {
        let sigma = |step: usize| f64::from(self.0.sigmas[step]);
        let basis = |at: f64| {
            let others = (0..order).filter(|&other| other != age);
            let factor =
                |other: usize| (at - sigma(step - other)) / (sigma(step - age) - sigma(step - other));
            others.map(factor).product::<f64>()
        };
        // Gauss-Legendre quadrature with two points is exact for polynomials up to the third degree.
        let (middle, half) = (
            0.5 * (sigma(step) + sigma(step + 1)),
            0.5 * (sigma(step + 1) - sigma(step)),
        );
        let offset = half / 3.0_f64.sqrt();
        half * (basis(middle - offset) + basis(middle + offset))
    }
}

impl Solver for Lms {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.0
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let sigma = self.0.sigmas[step.evaluation];
        let latents = &step.state.latents;
        let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
        let derivative = divided_difference(latents, &original, sigma)?;
        // Counts the derivatives that this image has. diffusers also counts skipped steps, and then computes
        // coefficients for derivatives that do not exist.
        let order = ORDER.min(step.done + 1);
        let mut moved = latents.clone();
        for age in 0..order {
            let coefficient = self.coefficient(step.evaluation, order, age) as f32;
            let of_age = if age == 0 {
                derivative.clone()
            } else {
                step.earlier_output(age - 1)?
            };
            moved = weighted_sum(&[(1.0, &moved), (coefficient, &of_age)])?;
        }
        step.state.latents = moved;
        step.state.push_output(derivative, ORDER - 1);
        Ok(())
    }
}
