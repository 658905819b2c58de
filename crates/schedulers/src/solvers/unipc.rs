//! UniPC, the unified predictor-corrector: each new prediction first corrects the step before it.
//!
//! Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", 2023,
//! algorithms 5 to 8, in the form for predicted original samples (`predict_x0`). The noise levels are those
//! of diffusers' `UniPCMultistepScheduler`.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::setup::Setup;
use crate::levels::variance_preserving::{VariancePreserving, solver_order};
use crate::solvers::{Solver, Step};
use crate::weighted_sum::{divided_difference, weighted_sum};

/// Predicts with earlier predicted original samples, and corrects with the newest one.
#[derive(Debug)]
pub(crate) struct UniPc {
    levels: VariancePreserving,
    /// The number of predictions that a step uses: 1, 2 or 3.
    order: usize,
    /// Whether B(h) of the paper is B1, the length of a step (`solver_type: bh1`), not B2, an exponential of
    /// it (`bh2`).
    is_bh1: bool,
    lower_order_final: bool,
    /// Steps that are not corrected: `disable_corrector`.
    uncorrected: Vec<usize>,
}

/// One step of the predictor or the corrector, with the predicted original samples at its beginning and
/// before, newest first.
struct Segment<'a> {
    from: usize,
    latents: &'a Tensor,
    predictions: &'a [Tensor],
    order: usize,
}

impl UniPc {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
        let is_bh1 = match config.solver_type.as_deref() {
            // The first three are values of other schedulers; diffusers reads them as the last.
            None | Some("midpoint" | "heun" | "logrho" | "bh2") => false,
            Some("bh1") => true,
            Some(other) => {
                return Err(Refusal::setting("solver_type", other));
            }
        };
        if config.predict_x0 == Some(false) {
            return Err(Refusal::setting("predict_x0", false));
        }
        let lower_order_final = config.lower_order_final.unwrap_or(true);
        let order = solver_order(config)?;
        if !lower_order_final && order > 1 && !setup.ends_at_sigma_min()? {
            // The last step would be infinitely long.
            return Err(Refusal::setting("lower_order_final", false));
        }
        Ok(Self {
            levels: VariancePreserving::new(setup)?,
            order,
            is_bh1,
            lower_order_final,
            uncorrected: config.disable_corrector.clone().unwrap_or_default(),
        })
    }

    /// The order of the step of `evaluation`, for an image that has had `done` evaluations.
    fn order_of(&self, evaluation: usize, done: usize) -> usize {
        let left = self.levels.steps() - evaluation;
        let highest = if self.lower_order_final { left } else { self.order };
        self.order.min(highest).min(done + 1)
    }

    /// The latents at the end of a segment. The corrector also uses `target`, the original sample that is
    /// predicted there.
    fn update(&self, segment: &Segment<'_>, target: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let log_snr = |evaluation: usize| self.levels.log_snr(evaluation);
        let (from, to) = (log_snr(segment.from), log_snr(segment.from + 1));
        let newest = &segment.predictions[0];
        let length = to.lambda - from.lambda;
        let decay = (-length).exp_m1();
        let mut moved = weighted_sum(&[
            (to.sigma / from.sigma, segment.latents),
            (-to.alpha * decay, newest),
        ])?;

        // The positions of the predictions, in lengths of this segment from its beginning.
        let mut positions: Vec<f32> = (1..segment.order)
            .map(|age| (log_snr(segment.from - age).lambda - from.lambda) / length)
            .collect();
        if target.is_some() {
            positions.push(1.0);
        }
        let scale = if self.is_bh1 { -length } else { decay };
        let shares = match positions.len() {
            0 => Vec::new(),
            // With one point only, the paper sets it for either B(h).
            1 => vec![0.5],
            _ => solve(&positions, &integrals(-length, scale, positions.len())),
        };
        let points = segment.predictions[1..]
            .iter()
            .take(segment.order - 1)
            .chain(target);
        for ((point, position), share) in points.zip(&positions).zip(shares) {
            let slope = divided_difference(point, newest, *position)?;
            moved = weighted_sum(&[(1.0, &moved), (-to.alpha * scale * share, &slope)])?;
        }
        Ok(moved)
    }
}

/// The right side of the paper's equation for the coefficients: the sums of the powers of the positions,
/// weighted by them.
fn integrals(length: f32, scale: f32, count: usize) -> Vec<f32> {
    let mut integral = length.exp_m1() / length - 1.0;
    let mut factorial = 1.0;
    (1..=count)
        .map(|power| {
            let value = integral * factorial / scale;
            factorial *= (power + 1) as f32;
            integral = integral / length - 1.0 / factorial;
            value
        })
        .collect()
}

/// The coefficients with which the powers of `positions`, from the zeroth on, add up to `sums`, by Gaussian
/// elimination in 64 bits.
fn solve(positions: &[f32], sums: &[f32]) -> Vec<f32> {
    let count = positions.len();
    let mut rows: Vec<Vec<f64>> = (0..count)
        .map(|power| {
            let powers = positions
                .iter()
                .map(|&position| f64::from(position).powi(power as i32));
            powers.chain([f64::from(sums[power])]).collect()
        })
        .collect();
    for column in 0..count {
        let largest = (column..count)
            .max_by(|&one, &other| rows[one][column].abs().total_cmp(&rows[other][column].abs()));
        rows.swap(column, largest.unwrap_or(column));
        let pivot = rows[column].clone();
        for (index, row) in rows.iter_mut().enumerate() {
            if index != column {
                let share = row[column] / pivot[column];
                row.iter_mut()
                    .zip(&pivot)
                    .for_each(|(number, above)| *number -= share * above);
            }
        }
    }
    let solution = rows.iter().enumerate();
    solution
        .map(|(index, row)| (row[count] / row[index]) as f32)
        .collect()
}

impl Solver for UniPc {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.levels
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let newest =
            self.predicted_original_sample(step.evaluation, &step.state.latents, step.model_output)?;
        let mut predictions = Vec::with_capacity(self.order + 1);
        for age in 0..self.order.min(step.done) {
            predictions.push(step.earlier_output(age)?);
        }
        let mut latents = step.state.latents.clone();
        if step.done > 0 && !self.uncorrected.contains(&(step.evaluation - 1)) {
            let segment = Segment {
                from: step.evaluation - 1,
                latents: &step.origin()?,
                predictions: &predictions,
                order: self.order_of(step.evaluation - 1, step.done - 1),
            };
            latents = self.update(&segment, Some(&newest))?;
        }
        predictions.insert(0, newest.clone());
        let segment = Segment {
            from: step.evaluation,
            latents: &latents,
            predictions: &predictions,
            order: self.order_of(step.evaluation, step.done),
        };
        step.state.latents = self.update(&segment, None)?;
        step.state.origin = Some(latents);
        step.state.push_output(newest, self.order);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_solve_their_equations() {
        let positions = [-0.9_f32, -2.1, 1.0];
        let sums = [0.4_f32, 0.3, 0.2];
        let shares = solve(&positions, &sums);
        for (power, sum) in sums.iter().enumerate() {
            let found: f32 = positions
                .iter()
                .zip(&shares)
                .map(|(position, share)| share * position.powi(power as i32))
                .sum();
            assert!((found - sum).abs() < 1e-6, "{power}: {found} {sum}");
        }
    }
}
