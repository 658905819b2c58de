//! Unified predictor and corrector: each new prediction first corrects the step that led to it.
//!
//! Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", 2023,
//! algorithms 5 to 8, for predictions of the picture; the noise levels are those of diffusers'
//! `UniPCMultistepScheduler`.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::preserving::{Preserving, order};
use crate::setup::Setup;

/// Predicts with the pictures that earlier predictions point to, and corrects with the newest.
#[derive(Debug)]
pub(crate) struct UniPc {
    levels: Preserving,
    /// How many predictions a step builds on: 1, 2 or 3.
    order: usize,
    /// The function B of the paper: its first, the length of a step, or its second, which that length's
    /// exponential makes.
    first_function: bool,
    lower_order_final: bool,
    /// Steps that are not corrected.
    uncorrected: Vec<usize>,
}

/// Where a step comes from and goes to, and the pictures at its beginning and before, the newest first.
struct Leg<'a> {
    from: usize,
    latents: &'a Tensor,
    pictures: &'a [Tensor],
    order: usize,
}

impl UniPc {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
        let first_function = match config.solver_type.as_deref() {
            // The first three are other schedulers' settings, for which diffusers takes the last.
            None | Some("midpoint" | "heun" | "logrho" | "bh2") => false,
            Some("bh1") => true,
            Some(other) => {
                return Err(Refusal::Setting {
                    name: "solver_type",
                    value: other.to_owned(),
                });
            }
        };
        if config.predict_x0 == Some(false) {
            return Err(Refusal::Setting {
                name: "predict_x0",
                value: "false".to_owned(),
            });
        }
        let lower_order_final = config.lower_order_final.unwrap_or(true);
        let order = order(config)?;
        if !lower_order_final && order > 1 && !setup.ends_at_least_noise()? {
            // The last step would be infinitely long.
            return Err(Refusal::Setting {
                name: "lower_order_final",
                value: "false".to_owned(),
            });
        }
        Ok(Self {
            levels: Preserving::new(setup)?,
            order,
            first_function,
            lower_order_final,
            uncorrected: config.disable_corrector.clone().unwrap_or_default(),
        })
    }

    fn order_of(&self, evaluation: usize, done: usize) -> usize {
        let left = self.levels.steps() - evaluation;
        let highest = if self.lower_order_final { left } else { self.order };
        self.order.min(highest).min(done + 1)
    }

    /// The latents at the end of a leg. Where `target`, the picture that is predicted there, is known
    /// already, it counts as one point more.
    fn travel(&self, leg: &Leg<'_>, target: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let moment = |evaluation: usize| self.levels.moment(evaluation);
        let (from, to) = (moment(leg.from), moment(leg.from + 1));
        let newest = &leg.pictures[0];
        let length = to.time - from.time;
        let decay = (-length).exp_m1();
        let mut moved = weighted(&[(to.noise / from.noise, leg.latents), (-to.signal * decay, newest)])?;

        // Where the points lie, in lengths of this leg from its beginning.
        let mut places: Vec<f32> = (1..leg.order)
            .map(|age| (moment(leg.from - age).time - from.time) / length)
            .collect();
        if target.is_some() {
            places.push(1.0);
        }
        let scale = if self.first_function { -length } else { decay };
        let shares = match places.len() {
            0 => Vec::new(),
            // As the paper has it where there is one point only, whatever the function.
            1 => vec![0.5],
            _ => solve(&places, &integrals(-length, scale, places.len())),
        };
        let points = leg.pictures[1..].iter().take(leg.order - 1).chain(target);
        for ((point, place), share) in points.zip(&places).zip(shares) {
            let slope = weighted(&[(1.0 / place, point), (-1.0 / place, newest)])?;
            moved = weighted(&[(1.0, &moved), (-to.signal * scale * share, &slope)])?;
        }
        Ok(moved)
    }
}

/// The right side of the paper's equation for the shares: what the points' powers must add up to.
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

/// Shares of two or three points whose powers, from the zeroth on, add up to `sums`: Cramer's rule would do,
/// but elimination in 64 bits is as short.
fn solve(places: &[f32], sums: &[f32]) -> Vec<f32> {
    let count = places.len();
    let mut rows: Vec<Vec<f64>> = (0..count)
        .map(|power| {
            let powers = places.iter().map(|&place| f64::from(place).powi(power as i32));
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

impl Method for UniPc {
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
        let picture = self
            .levels
            .original(step.evaluation, &step.trajectory.latents, step.output)?;
        let mut pictures = Vec::with_capacity(self.order + 1);
        for age in 0..self.order.min(step.done) {
            pictures.push(step.earlier(age)?);
        }
        let mut latents = step.trajectory.latents.clone();
        if step.done > 0 && !self.uncorrected.contains(&(step.evaluation - 1)) {
            let leg = Leg {
                from: step.evaluation - 1,
                latents: &step.origin()?,
                pictures: &pictures,
                order: self.order_of(step.evaluation - 1, step.done - 1),
            };
            latents = self.travel(&leg, Some(&picture))?;
        }
        pictures.insert(0, picture.clone());
        let leg = Leg {
            from: step.evaluation,
            latents: &latents,
            pictures: &pictures,
            order: self.order_of(step.evaluation, step.done),
        };
        step.trajectory.latents = self.travel(&leg, None)?;
        step.trajectory.origin = Some(latents);
        step.trajectory.remember(picture, self.order);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_solve_their_equations() {
        let places = [-0.9_f32, -2.1, 1.0];
        let sums = [0.4_f32, 0.3, 0.2];
        let shares = solve(&places, &sums);
        for (power, sum) in sums.iter().enumerate() {
            let found: f32 = places
                .iter()
                .zip(&shares)
                .map(|(place, share)| share * place.powi(power as i32))
                .sum();
            assert!((found - sum).abs() < 1e-6, "{power}: {found} {sum}");
        }
    }
}
