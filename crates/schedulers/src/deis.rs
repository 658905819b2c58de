//! The diffusion exponential integrator: the direction of a step is a polynomial through the predicted noises of the last.
//!
//! Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2023, in the logarithm of the noise level
//! (ρAB-DEIS), as diffusers' `DEISMultistepScheduler` carries it out.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::preserving::{Preserving, order};
use crate::setup::Setup;

/// Below this many steps the last ones are taken in lower orders.
const FEW_STEPS: usize = 15;

/// Steps along a polynomial through the noises that the last predictions point to.
#[derive(Debug)]
pub(crate) struct Deis {
    levels: Preserving,
    /// How many predictions a step builds on: 1, 2 or 3.
    order: usize,
    lower_order_final: bool,
}

impl Deis {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
        let is_own = config.class_name.as_deref() == Some(setup.kind.diffusers_class());
        let refused = |name, value: &str| Refusal::Setting {
            name,
            value: value.to_owned(),
        };
        match config.algorithm_type.as_deref() {
            // The last two are other schedulers' settings, for which diffusers takes the first.
            None | Some("deis" | "dpmsolver" | "dpmsolver++") => {}
            Some(other) if is_own => return Err(refused("algorithm_type", other)),
            Some(_) => {}
        }
        match config.solver_type.as_deref() {
            // All but the first are other schedulers' settings, for which diffusers takes the first.
            None | Some("logrho" | "midpoint" | "heun" | "bh1" | "bh2") => {}
            Some(other) => return Err(refused("solver_type", other)),
        }
        Ok(Self {
            levels: Preserving::new(setup)?,
            order: order(config)?,
            lower_order_final: config.lower_order_final.unwrap_or(true),
        })
    }

    /// How many predictions the step of `evaluation` builds on, for a picture with `done` of them behind it.
    fn order_of(&self, evaluation: usize, done: usize) -> usize {
        let left = self.levels.steps() - evaluation;
        let few = self.lower_order_final && self.levels.steps() < FEW_STEPS;
        let highest = if few { left } else { self.order };
        self.order.min(done + 1).min(highest)
    }

    /// The noise that is added for each part of the picture at a level.
    fn ratio(&self, evaluation: usize) -> f64 {
        let moment = self.levels.moment(evaluation);
        f64::from(moment.noise / moment.signal)
    }
}

/// How much each of the noises at the levels `at` counts on the way from `from` to `to`: the integrals of the polynomials in
/// the logarithm of the level that are 1 at one of them and 0 at the others.
fn shares(at: &[f64], from: f64, to: f64) -> Vec<f64> {
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

impl Method for Deis {
    fn timesteps(&self) -> Vec<f32> {
        self.levels.timesteps.clone()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(evaluation)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.levels.original(evaluation, latents, output)
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let latents = &step.trajectory.latents;
        let newest = self.levels.noise(step.evaluation, latents, step.output)?;
        let order = self.order_of(step.evaluation, step.done);
        let at: Vec<f64> = (0..order).map(|age| self.ratio(step.evaluation - age)).collect();
        let shares = shares(&at, at[0], self.ratio(step.evaluation + 1));
        let (from, to) = (
            self.levels.moment(step.evaluation),
            self.levels.moment(step.evaluation + 1),
        );
        let of = |share: f64| (f64::from(to.signal) * share) as f32;
        let mut moved = weighted(&[(to.signal / from.signal, latents), (of(shares[0]), &newest)])?;
        for (age, &share) in shares[1..].iter().enumerate() {
            moved = weighted(&[(1.0, &moved), (of(share), &step.earlier(age)?)])?;
        }
        step.trajectory.latents = moved;
        step.trajectory.remember(newest, self.order - 1);
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
            let shares = shares(&at[..order], from, to);
            // Of 1, of the logarithm, and of its square, as far as the order goes.
            let exact = [
                to - from,
                to * (to.ln() - 1.0) - from * (from.ln() - 1.0),
                to * (to.ln().powi(2) - 2.0 * to.ln() + 2.0)
                    - from * (from.ln().powi(2) - 2.0 * from.ln() + 2.0),
            ];
            for (power, exact) in exact.iter().enumerate().take(order) {
                let found: f64 = shares
                    .iter()
                    .zip(at)
                    .map(|(share, level)| share * level.ln().powi(power as i32))
                    .sum();
                assert!((found - exact).abs() < 1e-9, "{order} {power}: {found} {exact}");
            }
        }
    }
}
