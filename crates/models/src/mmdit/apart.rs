//! Texts that pass through a block side by side, each on a thread of its own.
//!
//! The operations of a small network on a few tokens end sooner than threads find each other: a thread for each text has
//! nothing to wait for inside of a block, and what it works on stays in its own cache. As much is in memory as if the texts
//! passed through it together, and the results are the same.

use candle_core::Tensor;

use super::{Conditions, Input};
use crate::Result;
use crate::feed_forward::FeedForward;

/// The most values of a text's tokens in a stream for which this is worth while: beyond it threads that share an operation are as
/// busy, and lay out its weight once.
const MOST_VALUES: usize = 1 << 17;

/// Inputs of several texts as inputs of one.
pub(super) struct Apart {
    texts: usize,
    parts: Vec<(Tensor, Conditions)>,
}

impl Apart {
    /// The texts of `inputs` apart, where they should be. Inputs that do not fit stay as they are, to be refused.
    pub(super) fn of(inputs: &[Input<'_>]) -> Result<Option<Self>> {
        let Some(first) = inputs.first() else {
            return Ok(None);
        };
        let texts = first.conditions.texts();
        let fits = |Input { latents, conditions }: &Input<'_>| {
            let positions = conditions.positions.dims();
            let longest = conditions.steering.text_tokens().max(positions[0]);
            latents.device().is_cpu()
                && conditions.texts() == texts
                && latents.dims().first() == Some(&texts)
                && positions.iter().product::<usize>() <= MOST_VALUES
                // What would pass in chunks takes less memory than texts side by side.
                && FeedForward::takes_at_once(texts, longest)
        };
        if texts < 2 || !inputs.iter().all(fits) {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(inputs.len() * texts);
        for Input { latents, conditions } in inputs {
            for text in 0..texts {
                parts.push((latents.narrow(0, text, 1)?, conditions.only(text)));
            }
        }
        Ok(Some(Self { texts, parts }))
    }

    /// How many belong to an input.
    pub(super) fn texts(&self) -> usize {
        self.texts
    }

    pub(super) fn inputs(&self) -> Vec<Input<'_>> {
        let inputs = self
            .parts
            .iter()
            .map(|(latents, conditions)| Input { latents, conditions });
        inputs.collect()
    }

    /// What belongs to each of the inputs that there were, of what belongs to a text each.
    ///
    /// # Errors
    /// Memory cannot be had.
    pub(super) fn joined(&self, of_texts: &[Tensor]) -> Result<Vec<Tensor>> {
        let joined = of_texts
            .chunks(self.texts)
            .map(|of_input| Tensor::cat(of_input, 0));
        Ok(joined.collect::<candle_core::Result<_>>()?)
    }
}
