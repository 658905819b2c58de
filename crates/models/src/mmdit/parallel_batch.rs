//! Batch entries that run through a block in parallel, each on its own thread.
//!
//! With few tokens the operations of a block are dominated by thread synchronisation. One thread for each
//! entry of the batch has nothing to wait for inside a block, and its tensors stay in its cache. Peak memory
//! and results are those of the whole batch at once.

use candle_core::Tensor;
use sd_ops::{Capabilities, concatenate};

use super::{Conditions, Input};
use crate::Result;
use crate::feed_forward::FeedForward;

/// The largest token tensor, in values of one batch entry, that runs in parallel. Beyond it threads that
/// share an operation are as busy and pack its weight only once.
const MOST_VALUES: usize = 1 << 17;

/// Inputs of several texts, split into inputs of one text each.
pub(super) struct ParallelBatch {
    texts: usize,
    parts: Vec<(Tensor, Conditions)>,
}

impl ParallelBatch {
    /// Splits `inputs`, if running their texts in parallel is faster. Inputs that do not fit are left to be
    /// refused later.
    pub(super) fn of(inputs: &[Input<'_>]) -> Result<Option<Self>> {
        let Some(first) = inputs.first() else {
            return Ok(None);
        };
        let texts = first.conditions.texts();
        let capabilities = Capabilities::of(first.latents.device());
        let fits = |Input { latents, conditions }: &Input<'_>| {
            let positions = conditions.positions.dims();
            let longest = conditions.conditioning.text_tokens().max(positions[0]);
            conditions.texts() == texts
                && latents.dims().first() == Some(&texts)
                && positions.iter().product::<usize>() <= MOST_VALUES
                // A feed-forward layer that runs in chunks needs less memory than parallel entries.
                && FeedForward::takes_at_once(texts, longest, capabilities)
        };
        if texts < 2 || !capabilities.computes_on_threads || !inputs.iter().all(fits) {
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

    /// Texts of each input.
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

    /// Concatenates results of single texts to one result for each of the original inputs.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn joined(&self, of_texts: &[Tensor]) -> Result<Vec<Tensor>> {
        let joined = of_texts
            .chunks(self.texts)
            .map(|of_input| concatenate(of_input, 0));
        Ok(joined.collect::<candle_core::Result<_>>()?)
    }
}
