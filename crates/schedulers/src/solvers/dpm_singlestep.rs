//! Singlestep DPM-Solver and DPM-Solver++: blocks of one, two or three steps, each step from the beginning of
//! its block.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022,
//! algorithm 1. The noise levels and the order of the blocks are those of diffusers'
//! `DPMSolverSinglestepScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::setup::Setup;
use crate::levels::variance_preserving::{VariancePreserving, solver_order};
use crate::solvers::dpm_solver::DpmSolver;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::{divided_difference, weighted_sum};

/// The first step of a block has order 1. Each later one starts again at the block's beginning, with an order
/// higher by 1.
#[derive(Debug)]
pub(crate) struct DpmSinglestep {
    levels: VariancePreserving,
    solver: DpmSolver,
    /// The highest order.
    order: usize,
    /// The order of each step.
    orders: Vec<usize>,
}

impl DpmSinglestep {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let order = solver_order(setup.config)?;
        let levels = VariancePreserving::new(setup)?;
        let ends_without_noise = !setup.ends_at_sigma_min()?;
        let steps = levels.steps();
        // diffusers sets it if the steps are no multiple of the order, or if the last step would be
        // infinitely long.
        let lower_order_final = setup.config.lower_order_final.unwrap_or(false)
            || !steps.is_multiple_of(order)
            || ends_without_noise;
        let mut orders = orders(steps, order, lower_order_final);
        if let Some(last) = orders.last_mut().filter(|_| ends_without_noise) {
            *last = 1;
        }
        Ok(Self {
            levels,
            solver: DpmSolver::new(setup.config, setup.kind)?,
            order,
            orders,
        })
    }
}

/// The orders of `steps` steps in blocks of `order`; with `lower_order_final` the last ones are lower.
/// `get_order_list` in diffusers.
fn orders(steps: usize, order: usize, lower_order_final: bool) -> Vec<usize> {
    let blocks = |count: usize| (0..count).flat_map(|_| 1..=order);
    let whole = steps / order;
    if !lower_order_final || order == 1 {
        return blocks(whole).collect();
    }
    let ending: &[usize] = match (order, steps % order) {
        (2, 0) => &[1, 1],
        (3, 0) => &[1, 2, 1],
        (_, 1) => &[1],
        _ => &[1, 2],
    };
    let whole = if steps.is_multiple_of(order) {
        whole - 1
    } else {
        whole
    };
    blocks(whole).chain(ending.iter().copied()).collect()
}

impl Solver for DpmSinglestep {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.levels
    }

    fn noise_draws(&self, _evaluation: usize) -> usize {
        usize::from(self.solver.stochastic)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        // Image-to-image that begins within a block begins a new block there.
        let order = self.orders[step.evaluation].min(step.done + 1);
        let newest = self.solver.prediction(&self.levels, &step)?;
        let origin = if order == 1 {
            step.state.latents.clone()
        } else {
            step.origin()?
        };
        let first = step.evaluation + 1 - order;
        let (from, to) = (
            self.levels.log_snr(first),
            self.levels.log_snr(step.evaluation + 1),
        );
        let coefficients = self.solver.coefficients(from, to, order);
        // The positions of the predictions in the block, which ends at 1.
        let length = to.lambda - from.lambda;
        let position =
            |age: usize| (self.levels.log_snr(step.evaluation - age).lambda - from.lambda) / length;

        let mut moved = match order {
            1 => weighted_sum(&[
                (coefficients.latents, &origin),
                (coefficients.prediction, &newest),
            ])?,
            2 => {
                let begun = step.earlier_output(0)?;
                let slope = divided_difference(&newest, &begun, position(0))?;
                weighted_sum(&[
                    (coefficients.latents, &origin),
                    (coefficients.prediction, &begun),
                    (coefficients.slope, &slope),
                ])?
            }
            _ => {
                let (middle, begun) = (step.earlier_output(0)?, step.earlier_output(1)?);
                let (far, near) = (position(0), position(1));
                let to_newest = divided_difference(&newest, &begun, far)?;
                let line = [(coefficients.latents, &origin), (coefficients.prediction, &begun)];
                if self.solver.heun {
                    let to_middle = divided_difference(&middle, &begun, near)?;
                    let apart = far - near;
                    let slope = weighted_sum(&[(far / apart, &to_middle), (-near / apart, &to_newest)])?;
                    let curvature = weighted_sum(&[(2.0 / apart, &to_newest), (-2.0 / apart, &to_middle)])?;
                    weighted_sum(&[
                        line[0],
                        line[1],
                        (coefficients.slope, &slope),
                        (coefficients.curvature, &curvature),
                    ])?
                } else {
                    weighted_sum(&[line[0], line[1], (coefficients.slope, &to_newest)])?
                }
            }
        };
        if self.solver.stochastic {
            moved = weighted_sum(&[(1.0, &moved), (coefficients.noise, &step.draw_noise()?)])?;
        }
        step.state.latents = moved;
        step.state.origin = Some(origin);
        step.state.push_output(newest, self.order - 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_order_for_every_step() {
        for order in 1..=3 {
            for steps in 1..=50 {
                let found = orders(steps, order, true);
                assert_eq!(found.len(), steps, "{order}");
                assert_eq!(found[0], 1);
                assert!(found.windows(2).all(|pair| pair[1] <= pair[0] + 1));
                if steps.is_multiple_of(order) {
                    assert_eq!(orders(steps, order, false).len(), steps);
                }
            }
        }
    }
}
