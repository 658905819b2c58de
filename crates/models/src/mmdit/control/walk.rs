//! A walk over a ControlNet's blocks beside its transformer's walk over its own.

use candle_core::Tensor;
use sd_ops::linear;
use sd_weights::Pass;

use super::{Conditions, Control, ControlBlock, ControlNet, NETWORK};
use crate::Result;
use crate::mmdit::block::Tokens;
use crate::mmdit::{Input, refuse};

/// A walk over a ControlNet's blocks. It goes only as far as the transformer has come, so that of all that is added only what
/// is added next is in memory.
pub(in crate::mmdit) struct Walk<'a> {
    network: &'a ControlNet,
    conditions: &'a [Conditions],
    scale: f64,
    step: usize,
    blocks: Pass<'a, ControlBlock>,
    streams: Vec<Option<Tokens>>,
    /// Blocks that are behind.
    done: usize,
    /// What the last of them adds for each input.
    added: Vec<Tensor>,
}

impl<'a> Walk<'a> {
    /// Stands before the first block, beside a transformer that has made `tokens` of `inputs` at a step.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub(in crate::mmdit) fn begin(
        &Control {
            network,
            conditions,
            scale,
        }: &Control<'a>,
        inputs: &[Input<'_>],
        tokens: &[Option<Tokens>],
        step: usize,
    ) -> Result<Self> {
        if conditions.len() != inputs.len() {
            let found = format!("conditions for {} inputs", conditions.len());
            return refuse(NETWORK, found, format!("them for {}", inputs.len()));
        }
        let patches = match &network.patches {
            Some(patches) => Some(patches.block(0)?),
            None => None,
        };
        let mut streams = Vec::with_capacity(inputs.len());
        for ((input, tokens), conditions) in inputs.iter().zip(tokens.iter().flatten()).zip(conditions) {
            let steering = &conditions.steering;
            steering.check(input.latents, network.network.in_channels, step, NETWORK)?;
            let image = match &patches {
                Some(patches) => {
                    let latents = input.latents.to_dtype(network.activation_type)?;
                    patches.forward(&latents, conditions.positions.as_ref())?
                }
                None => tokens.image.clone(),
            };
            let (given, own) = (tokens.image.dim(2)?, network.network.width());
            if given != own {
                let found = format!("a transformer of {given} features");
                return refuse(NETWORK, found, format!("one of {own}"));
            }
            streams.push(Some(Tokens {
                image: image.broadcast_add(&conditions.picture)?,
                text: steering.text()?,
            }));
        }
        Ok(Self {
            network,
            conditions,
            scale,
            step,
            blocks: network.blocks.pass()?,
            streams,
            done: 0,
            added: Vec::new(),
        })
    }

    /// What is added to the picture's tokens, `[texts, patches, width]` for each input, after block `index` of a transformer
    /// of so many `layers`.
    ///
    /// # Errors
    /// A file is wrong, or the device fails.
    pub(in crate::mmdit) fn after(&mut self, index: usize, layers: usize) -> Result<&[Tensor]> {
        let wanted = place(index, layers, self.network.kinds.len());
        while self.done <= wanted {
            self.go_on()?;
        }
        Ok(&self.added)
    }

    /// Goes past one more block.
    fn go_on(&mut self) -> Result<()> {
        self.added.clear();
        for block in self.blocks.by_ref() {
            match &*block? {
                ControlBlock::Joint(block) => {
                    for (stream, conditions) in self.streams.iter_mut().zip(self.conditions) {
                        // Taken out, so that the tokens go as soon as the block is through with them.
                        if let Some(tokens) = stream.take() {
                            let modulation = conditions.steering.of_block(self.done, self.step)?;
                            *stream = Some(block.forward(tokens, &modulation)?);
                        }
                    }
                }
                ControlBlock::Adds(projection) => {
                    for tokens in self.streams.iter().flatten() {
                        self.added
                            .push((linear(&tokens.image, projection)? * self.scale)?);
                    }
                    break;
                }
            }
        }
        self.done += 1;
        Ok(())
    }
}

/// Which of a ControlNet's `count` results is added after block `index` of a transformer of so many `layers`, by diffusers'
/// rule: they are spread evenly over the blocks.
fn place(index: usize, layers: usize, count: usize) -> usize {
    (index as f64 / (layers as f64 / count as f64)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_spread_over_the_blocks() {
        let of = |layers: usize, count| -> Vec<usize> {
            (0..layers).map(|index| place(index, layers, count)).collect()
        };
        assert_eq!(of(6, 3), [0, 0, 1, 1, 2, 2]);
        assert_eq!(of(5, 2), [0, 0, 0, 1, 1]);
        assert_eq!(of(2, 3), [0, 1]);
        assert_eq!(of(3, 3), [0, 1, 2]);
        let of_large = of(38, 19);
        assert!((0..38).all(|index| of_large[index] == index / 2));
    }
}
