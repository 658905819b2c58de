//! A ControlNet's forward pass, interleaved with that of the transformer.

use candle_core::Tensor;
use sd_ops::{broadcast_sum, converted, linear};
use sd_weights::Pass;

use super::{Conditions, Control, ControlBlock, ControlNet, NETWORK};
use crate::Result;
use crate::mmdit::block::Tokens;
use crate::mmdit::{Input, refuse};

/// A ControlNet's forward pass. It runs interleaved with the transformer, only as far as the transformer has
/// come, so that only the next residuals are in memory.
pub(in crate::mmdit) struct ControlPass<'a> {
    network: &'a ControlNet,
    conditions: &'a [Conditions],
    scale: f64,
    step: usize,
    blocks: Pass<'a, ControlBlock>,
    streams: Vec<Option<Tokens>>,
    /// Blocks that have run.
    done: usize,
    /// The residual of the last of them for each input.
    added: Vec<Tensor>,
}

impl<'a> ControlPass<'a> {
    /// Begins a forward pass at a step, before the first block. `tokens` are the transformer's for `inputs`.
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
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
            let conditioning = &conditions.conditioning;
            conditioning.check(input.latents, network.network.in_channels, step, NETWORK)?;
            let image = match &patches {
                Some(patches) => {
                    let latents = converted(input.latents, network.activation_type)?;
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
                image: broadcast_sum(&image, &conditions.control_image)?,
                text: conditioning.text()?,
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

    /// The residuals of the image tokens after block `index` of a transformer of `layers` layers,
    /// `[texts, patches, width]` for each input.
    ///
    /// # Errors
    /// A file is damaged, or the device fails.
    pub(in crate::mmdit) fn after(&mut self, index: usize, layers: usize) -> Result<&[Tensor]> {
        let wanted = residual_of(index, layers, self.network.kinds.len());
        while self.done <= wanted {
            self.advance()?;
        }
        Ok(&self.added)
    }

    /// Runs one more block and the projection of its residual.
    fn advance(&mut self) -> Result<()> {
        self.added.clear();
        for block in self.blocks.by_ref() {
            match &*block? {
                ControlBlock::Joint(block) => {
                    for (stream, conditions) in self.streams.iter_mut().zip(self.conditions) {
                        // Moved out, so that the block can drop the tokens after their last use.
                        if let Some(tokens) = stream.take() {
                            let modulation = conditions.conditioning.of_block(self.done, self.step)?;
                            *stream = Some(block.forward(tokens, &modulation)?);
                        }
                    }
                }
                ControlBlock::Residual(projection) => {
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

/// Which of a ControlNet's `count` residuals is added after block `index` of a transformer of `layers`
/// layers, by diffusers' rule: they are spread evenly over the blocks.
fn residual_of(index: usize, layers: usize, count: usize) -> usize {
    (index as f64 / (layers as f64 / count as f64)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_spread_over_the_blocks() {
        let of = |layers: usize, count| -> Vec<usize> {
            (0..layers)
                .map(|index| residual_of(index, layers, count))
                .collect()
        };
        assert_eq!(of(6, 3), [0, 0, 1, 1, 2, 2]);
        assert_eq!(of(5, 2), [0, 0, 0, 1, 1]);
        assert_eq!(of(2, 3), [0, 1]);
        assert_eq!(of(3, 3), [0, 1, 2]);
        let of_large = of(38, 19);
        assert!((0..38).all(|index| of_large[index] == index / 2));
    }
}
