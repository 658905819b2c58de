//! The diffusion exponential integrator, multistep: each step follows a polynomial through the last predicted
//! noises.
//!
//! Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2023, in the logarithm of
//! the noise level (ρAB-DEIS), as diffusers' `DEISMultistepScheduler` computes it.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::setup::Setup;
use crate::levels::variance_preserving::{VariancePreserving, solver_order};
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// With fewer steps than this the last ones have lower orders, as in diffusers.
const FEW_STEPS: usize = 15;

/// Steps along a polynomial through the last predicted noises.
#[derive(Debug)]
pub(crate) struct Deis {
    levels: VariancePreserving,
    /// The number of predictions that a step uses: 1, 2 or 3.
    order: usize,
    lower_order_final: bool,
}

impl Deis {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
        let is_own = config.class_name.as_deref() == Some(setup.kind.diffusers_class());
        match config.algorithm_type.as_deref() {
            // The last two are values of other schedulers; diffusers reads them as the first.
            None | Some("deis" | "dpmsolver" | "dpmsolver++") => {}
            Some(other) if is_own => return Err(Refusal::setting("algorithm_type", other)),
            Some(_) => {}
        }
        match config.solver_type.as_deref() {
            // All but the first are values of other schedulers; diffusers reads them as the first.
            None | Some("logrho" | "midpoint" | "heun" | "bh1" | "bh2") => {}
            Some(other) => return Err(Refusal::setting("solver_type", other)),
        }
        Ok(Self {
            levels: VariancePreserving::new(setup)?,
            order: solver_order(config)?,
            lower_order_final: config.lower_order_final.unwrap_or(true),
        })
    }

    /// The order of the step of `evaluation`, for an image that has had `done` evaluations.
    fn order_of(&self, evaluation: usize, done: usize) -> usize {
        let left = self.levels.steps() - evaluation;
        let few = self.lower_order_final && self.levels.steps() < FEW_STEPS;
        let highest = if few { left } else { self.order };
        self.order.min(done + 1).min(highest)
    }

    /// Noise factor over sample factor at a level.
    fn ratio(&self, evaluation: usize) -> f64 {
        let level = self.levels.log_snr(evaluation);
        f64::from(level.sigma / level.alpha)
    }
}

/// The coefficients of the noises at the levels `at` for a step from `from` to `to`: the integrals of the
/// polynomials in the logarithm of the level that are 1 at one of them and 0 at the others.
fn coefficients(at: &[f64], from: f64, to: f64) -> Vec<f64> {
    let integral = |own: usize| {
        let others: Vec<f64> = (0..at.len())
            .filter(|&other| other != own)
            .map(|other| at[other].ln())
            .collect();
        let antiderivative = |level: f64| {
            let logarithm = level.ln();
            match others[..] {
                [] => level,
                [one] => level * (logarithm - one - 1.0),
                [one, two, ..] => {
                    level * ((logarithm - one) * (logarithm - two) - 2.0 * logarithm + one + two + 2.0)
                }
            }
        };
        let scale: f64 = others.iter().map(|other| at[own].ln() - other).product();
        (antiderivative(to) - antiderivative(from)) / scale
    };
    (0..at.len()).map(integral).collect()
}

impl Solver for Deis {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.levels
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let latents = &step.state.latents;
        let newest = self
            .levels
            .predicted_noise(step.evaluation, latents, step.model_output)?;
        let order = self.order_of(step.evaluation, step.done);
        let at: Vec<f64> = (0..order).map(|age| self.ratio(step.evaluation - age)).collect();
        let coefficients = coefficients(&at, at[0], self.ratio(step.evaluation + 1));
        let (from, to) = (
            self.levels.log_snr(step.evaluation),
            self.levels.log_snr(step.evaluation + 1),
        );
        let scaled = |coefficient: f64| (f64::from(to.alpha) * coefficient) as f32;
        let mut moved = weighted_sum(&[
            (to.alpha / from.alpha, latents),
            (scaled(coefficients[0]), &newest),
        ])?;
        for (age, &coefficient) in coefficients[1..].iter().enumerate() {
            moved = weighted_sum(&[(1.0, &moved), (scaled(coefficient), &step.earlier_output(age)?)])?;
        }
        step.state.latents = moved;
        step.state.push_output(newest, self.order - 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        let at = [5.0_f64, 7.0, 11.0];
        let (from, to) = (5.0, 3.0);
        for order in 1..=3 {
            let coefficients = coefficients(&at[..order], from, to);
            // The integrals of 1, of the logarithm, and of its square; an order is exact for as many.
            let exact = [
                to - from,
                to * (to.ln() - 1.0) - from * (from.ln() - 1.0),
                to * (to.ln().powi(2) - 2.0 * to.ln() + 2.0)
                    - from * (from.ln().powi(2) - 2.0 * from.ln() + 2.0),
            ];
            for (power, exact) in exact.iter().enumerate().take(order) {
                let found: f64 = coefficients
                    .iter()
                    .zip(at)
                    .map(|(coefficient, level)| coefficient * level.ln().powi(power as i32))
                    .sum();
                assert!((found - exact).abs() < 1e-9, "{order} {power}: {found} {exact}");
            }
        }
    }
}
