//! The numbers in names: how two programs count the same blocks of a network.
//!
//! diffusers counts the levels of a UNet, and the blocks inside of each. The original code counts all blocks
//! of the down path in one list, `input_blocks`, and those of the up path in another, `output_blocks`.
//!
//! | variable | number |
//! |---|---|
//! | `{level}`, `{layer}` | of the level, and of the residual block or attention inside of it |
//! | `{input}`, `{output}` | of the same block in `input_blocks` or `output_blocks` |
//! | `{downsampler}` | of the block in `input_blocks` that is the downsampler of `{level}` |
//! | `{upsampler}`, `{slot}` | of the block in `output_blocks` with the upsampler of `{level}`, and its place |
//! | `{coder_level}`, `{from_last}` | of a level of a VAE's decoder, and the same counted from the last |
//! | `{last}` | of the last block of a transformer. It stands for no other block |

use std::collections::{BTreeMap, BTreeSet};

use super::pattern::{Numbers, capture};

/// What relates the numbers of a network in two namings. It is derived from the names in either.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// The number of residual blocks of each down level of a UNet.
    down: Vec<usize>,
    /// The same of each up level.
    up: Vec<usize>,
    /// The up levels with attention.
    attentive: BTreeSet<usize>,
    /// The number of levels of the decoder of a VAE.
    coder_levels: usize,
    /// The last block of a transformer.
    last: Option<usize>,
}

/// The numbers of the blocks of a UNet's down path or up path, as the original code counts them.
#[derive(Debug, Clone, Copy)]
struct Path<'a> {
    /// The number of residual blocks of each level.
    residuals: &'a [usize],
    /// The number of the first residual block.
    first: usize,
    /// Whether the resampler of a level is a block of its own.
    counts_resamplers: bool,
}

impl Numbering {
    /// The numbering of a network with tensors or modules of these `names`.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut numbering = Self::default();
        // The blocks in the original code, and which of them are or have a resampler.
        let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        for name in names {
            let numbers = |pattern| capture(pattern, name).map(|(numbers, _)| numbers);
            let one = |pattern, variable| numbers(pattern)?.get(variable);
            let place = |pattern| {
                let numbers = numbers(pattern)?;
                numbers.get("level").zip(numbers.get("layer"))
            };
            if let Some((level, layer)) = place("down_blocks.{level}.resnets.{layer}") {
                count(&mut numbering.down, level, layer);
            } else if let Some((level, layer)) = place("up_blocks.{level}.resnets.{layer}") {
                count(&mut numbering.up, level, layer);
            } else if let Some((level, _)) = place("up_blocks.{level}.attentions.{layer}") {
                numbering.attentive.insert(level);
            } else if let Some(block) = one("input_blocks.{input}", "input") {
                let is_downsampler = numbers("input_blocks.{input}.0.op").is_some();
                *inputs.entry(block).or_insert(false) |= is_downsampler;
            } else if let Some(block) = one("output_blocks.{output}", "output") {
                let slot = one("output_blocks.{output}.{slot}.conv", "slot").unwrap_or(0);
                let known: &mut usize = outputs.entry(block).or_default();
                *known = slot.max(*known);
            } else if let Some(level) =
                one("decoder.up_blocks.{level}", "level").or_else(|| one("decoder.up.{level}", "level"))
            {
                numbering.coder_levels = numbering.coder_levels.max(level + 1);
            } else if let Some(block) =
                one("transformer_blocks.{block}", "block").or_else(|| one("joint_blocks.{block}", "block"))
            {
                numbering.last = numbering.last.max(Some(block));
            }
        }
        numbering.take_inputs(&inputs);
        numbering.take_outputs(&outputs);
        numbering
    }

    /// Counts the levels of `input_blocks`: after the first convolution the residual blocks of a level, then
    /// its downsampler.
    fn take_inputs(&mut self, blocks: &BTreeMap<usize, bool>) {
        let mut residuals = 0;
        for (_, is_downsampler) in blocks.iter().filter(|(block, _)| **block > 0) {
            if *is_downsampler {
                self.down.push(std::mem::take(&mut residuals));
            } else {
                residuals += 1;
            }
        }
        self.down.extend((residuals > 0).then_some(residuals));
    }

    /// Counts the levels of `output_blocks`: the last block of a level has its upsampler, after the residual
    /// block or after the attention.
    fn take_outputs(&mut self, blocks: &BTreeMap<usize, usize>) {
        let mut residuals = 0;
        for slot in blocks.values() {
            residuals += 1;
            if *slot > 1 {
                self.attentive.insert(self.up.len());
            }
            if *slot > 0 {
                self.up.push(std::mem::take(&mut residuals));
            }
        }
        self.up.extend((residuals > 0).then_some(residuals));
    }

    /// Whether `numbers`, which a pattern captured, are possible.
    pub(super) fn admits(&self, numbers: &Numbers) -> bool {
        numbers.get("last").is_none_or(|block| Some(block) == self.last)
    }

    /// The number of `variable` in one naming, from the `known` numbers in the other.
    pub(super) fn number(&self, variable: &str, known: &Numbers) -> Option<usize> {
        if let Some(same) = known.get(variable) {
            return Some(same);
        }
        let down = Path {
            residuals: &self.down,
            first: 1,
            counts_resamplers: true,
        };
        let up = Path {
            residuals: &self.up,
            first: 0,
            counts_resamplers: false,
        };
        match variable {
            "input" => down.number(known.get("level")?, known.get("layer")?),
            "output" => up.number(known.get("level")?, known.get("layer")?),
            "downsampler" => down.end(known.get("level")?),
            "upsampler" => up.end(known.get("level")?)?.checked_sub(1),
            "slot" => Some(1 + usize::from(self.attentive.contains(&known.get("level")?))),
            "level" => {
                let input = || Some(down.place(known.get("input")?)?.0);
                let output = || Some(up.place(known.get("output")?)?.0);
                let downsampler = || down.level_that_ends(known.get("downsampler")?);
                let upsampler = || up.level_that_ends(known.get("upsampler")? + 1);
                input().or_else(output).or_else(downsampler).or_else(upsampler)
            }
            "layer" => {
                let input = || Some(down.place(known.get("input")?)?.1);
                let output = || Some(up.place(known.get("output")?)?.1);
                input().or_else(output)
            }
            "from_last" => self.coder_levels.checked_sub(1 + known.get("coder_level")?),
            "coder_level" => self.coder_levels.checked_sub(1 + known.get("from_last")?),
            _ => None,
        }
    }
}

impl Path<'_> {
    /// The number of the first residual block of `level`.
    fn start(self, level: usize) -> usize {
        let before: usize = self.residuals.iter().take(level).sum();
        self.first + before + if self.counts_resamplers { level } else { 0 }
    }

    /// The number of the residual block `layer` of `level`.
    fn number(self, level: usize, layer: usize) -> Option<usize> {
        (layer < *self.residuals.get(level)?).then(|| self.start(level) + layer)
    }

    /// The number after the residual blocks of `level`.
    fn end(self, level: usize) -> Option<usize> {
        Some(self.start(level) + self.residuals.get(level)?)
    }

    /// The level and the layer of the residual block `number`.
    fn place(self, number: usize) -> Option<(usize, usize)> {
        let mut levels = self.residuals.iter().enumerate();
        levels.find_map(|(level, &residuals)| {
            let layer = number.checked_sub(self.start(level))?;
            (layer < residuals).then_some((level, layer))
        })
    }

    /// The level after whose residual blocks comes `number`.
    fn level_that_ends(self, number: usize) -> Option<usize> {
        (0..self.residuals.len()).find(|&level| self.end(level) == Some(number))
    }
}

/// Counts the residual block `layer` of `level`.
fn count(counts: &mut Vec<usize>, level: usize, layer: usize) {
    if counts.len() <= level {
        counts.resize(level + 1, 0);
    }
    counts[level] = counts[level].max(layer + 1);
}
