//! DPM-Solver and DPM-Solver++ in blocks of one, two or three steps, each block from where it began.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, algorithm 1; the noise
//! levels and the order of the blocks are those of diffusers' `DPMSolverSinglestepScheduler`.

use candle_core::Tensor;

use crate::dpm_solver::DpmSolver;
use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::preserving::Preserving;
use crate::setup::Setup;

/// The first step of a block is of the first order; each later one goes again from the block's beginning, in an order more.
#[derive(Debug)]
pub(crate) struct Singlestep {
    levels: Preserving,
    solver: DpmSolver,
    /// The highest order.
    order: usize,
    /// The order of each step.
    orders: Vec<usize>,
}

impl Singlestep {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let order = crate::preserving::order(setup.config)?;
        let levels = Preserving::new(setup)?;
        let ends_at_picture = !setup.ends_at_least_noise()?;
        let steps = levels.steps();
        // As diffusers changes it where blocks do not come out even, or the last step would be infinitely long.
        let lower_order_final = setup.config.lower_order_final.unwrap_or(false)
            || !steps.is_multiple_of(order)
            || ends_at_picture;
        let mut orders = orders(steps, order, lower_order_final);
        if let Some(last) = orders.last_mut().filter(|_| ends_at_picture) {
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

/// The orders of `steps` steps in blocks of `order`, the last ones lower where `lower_order_final` is set.
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

impl Method for Singlestep {
    fn timesteps(&self) -> Vec<f32> {
        self.levels.timesteps.clone()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(evaluation)
    }

    fn noises(&self, _evaluation: usize) -> usize {
        usize::from(self.solver.stochastic)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.levels.original(evaluation, latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        // A picture that begins in the middle of a block begins a block there.
        let order = self.orders[step.evaluation].min(step.done + 1);
        let latents = &step.trajectory.latents;
        let newest = if self.solver.of_pictures {
            self.levels.original(step.evaluation, latents, step.output)?
        } else {
            self.levels.noise(step.evaluation, latents, step.output)?
        };
        let origin = if order == 1 {
            latents.clone()
        } else {
            step.origin()?
        };
        let first = step.evaluation + 1 - order;
        let (from, to) = (self.levels.moment(first), self.levels.moment(step.evaluation + 1));
        let weights = self.solver.weights(from, to, order);
        // Where the predictions lie in the block, of which the last ends at 1.
        let length = to.time - from.time;
        let place = |age: usize| (self.levels.moment(step.evaluation - age).time - from.time) / length;
        let slope_to = |prediction: &Tensor, begun: &Tensor, place: f32| {
            weighted(&[(1.0 / place, prediction), (-1.0 / place, begun)])
        };

        let mut moved = match order {
            1 => weighted(&[(weights.latents, &origin), (weights.prediction, &newest)])?,
            2 => {
                let begun = step.earlier(0)?;
                let slope = slope_to(&newest, &begun, place(0))?;
                weighted(&[
                    (weights.latents, &origin),
                    (weights.prediction, &begun),
                    (weights.slope, &slope),
                ])?
            }
            _ => {
                let (middle, begun) = (step.earlier(0)?, step.earlier(1)?);
                let (far, near) = (place(0), place(1));
                let to_newest = slope_to(&newest, &begun, far)?;
                let line = [(weights.latents, &origin), (weights.prediction, &begun)];
                if self.solver.heun {
                    let to_middle = slope_to(&middle, &begun, near)?;
                    let apart = far - near;
                    let slope = weighted(&[(far / apart, &to_middle), (-near / apart, &to_newest)])?;
                    let curvature = weighted(&[(2.0 / apart, &to_newest), (-2.0 / apart, &to_middle)])?;
                    weighted(&[
                        line[0],
                        line[1],
                        (weights.slope, &slope),
                        (weights.curvature, &curvature),
                    ])?
                } else {
                    weighted(&[line[0], line[1], (weights.slope, &to_newest)])?
                }
            }
        };
        if self.solver.stochastic {
            moved = weighted(&[(1.0, &moved), (weights.noise, &step.draw()?)])?;
        }
        step.trajectory.latents = moved;
        step.trajectory.origin = Some(origin);
        step.trajectory.remember(newest, self.order - 1);
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
