//! Names of UNet layers in the original code of Stable Diffusion and SDXL, which numbers residual blocks,
//! attentions and resamplers consecutively.

use std::collections::BTreeSet;

use super::KeyMap;

/// Layers outside of the levels, and their original names.
const OUTSIDE: [(&str, &str); 6] = [
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_out", "out.2"),
];

/// Layers of a residual block, and their original names.
const RESIDUAL: [(&str, &str); 4] = [
    ("conv1", "in_layers.2"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
];

pub(super) fn add(key_map: &mut KeyMap, names: &[&str]) {
    let levels = Levels::of(names);
    for (name, original) in OUTSIDE {
        key_map.also(name, original);
    }
    for name in names {
        if let Some(original) = levels.original(name) {
            key_map.also(name, &original);
        }
    }
}

/// The number of residual blocks of each level, and the levels with attention, derived from layer names.
#[derive(Debug, Default)]
struct Levels {
    /// The number of residual blocks of each down level.
    down: Vec<usize>,
    up: Vec<usize>,
    /// The up levels with attention.
    attentive: BTreeSet<usize>,
}

impl Levels {
    fn of(names: &[&str]) -> Self {
        let mut levels = Self::default();
        for name in names {
            let mut words = name.split('.');
            let (direction, level) = (words.next(), number(words.next()));
            let (kind, place) = (words.next(), number(words.next()));
            let (Some(level), Some(place)) = (level, place) else {
                continue;
            };
            let counts = match direction {
                Some("down_blocks") => &mut levels.down,
                Some("up_blocks") => &mut levels.up,
                _ => continue,
            };
            match kind {
                Some("resnets") => {
                    if counts.len() <= level {
                        counts.resize(level + 1, 0);
                    }
                    counts[level] = counts[level].max(place + 1);
                }
                Some("attentions") if direction == Some("up_blocks") => {
                    levels.attentive.insert(level);
                }
                _ => {}
            }
        }
        levels
    }

    /// The original name of a layer of a level.
    fn original(&self, name: &str) -> Option<String> {
        let (direction, rest) = name.split_once('.')?;
        if direction == "mid_block" {
            let (kind, rest) = rest.split_once('.')?;
            let (place, inner) = rest.split_once('.')?;
            return match (kind, place) {
                ("resnets", "0") => Some(format!("middle_block.0.{}", residual(inner)?)),
                ("resnets", "1") => Some(format!("middle_block.2.{}", residual(inner)?)),
                ("attentions", "0") => Some(format!("middle_block.1.{inner}")),
                _ => None,
            };
        }
        let (level, rest) = rest.split_once('.')?;
        let (kind, rest) = rest.split_once('.')?;
        let (place, inner) = rest.split_once('.')?;
        let (level, place) = (number(Some(level))?, number(Some(place))?);
        let (counts, blocks, first) = match direction {
            // Before a level come the first convolution and, for each level, its blocks and its downsampler.
            "down_blocks" => (&self.down, "input_blocks", 1 + level),
            "up_blocks" => (&self.up, "output_blocks", 0),
            _ => return None,
        };
        let first = first + counts.get(..level)?.iter().sum::<usize>();
        let count = *counts.get(level)?;
        match kind {
            "resnets" => Some(format!("{blocks}.{}.0.{}", first + place, residual(inner)?)),
            "attentions" => Some(format!("{blocks}.{}.1.{inner}", first + place)),
            "downsamplers" if inner == "conv" => Some(format!("{blocks}.{}.0.op", first + count)),
            "upsamplers" if inner == "conv" => {
                let place = if self.attentive.contains(&level) { 2 } else { 1 };
                Some(format!(
                    "{blocks}.{}.{place}.conv",
                    (first + count).checked_sub(1)?
                ))
            }
            _ => None,
        }
    }
}

fn number(word: Option<&str>) -> Option<usize> {
    // No network has more levels or blocks. The limit keeps names in a file from allocating memory.
    word?.parse().ok().filter(|&number| number < 1000)
}

fn residual(inner: &str) -> Option<&'static str> {
    RESIDUAL
        .iter()
        .find_map(|(name, original)| (*name == inner).then_some(*original))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers that stand for those of SDXL: 2, 2 and 2 residual blocks down, 3, 3 and 3 up.
    fn sdxl() -> Vec<String> {
        let mut names = Vec::new();
        for level in 0..3 {
            for place in 0..3 {
                if place < 2 {
                    names.push(format!("down_blocks.{level}.resnets.{place}.conv1"));
                }
                names.push(format!("up_blocks.{level}.resnets.{place}.conv1"));
                if level < 2 {
                    names.push(format!("up_blocks.{level}.attentions.{place}.proj_in"));
                }
            }
        }
        names
    }

    #[test]
    fn blocks_are_numbered_through() {
        let names = sdxl();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let levels = Levels::of(&names);
        for (name, original) in [
            ("down_blocks.0.resnets.1.conv2", "input_blocks.2.0.out_layers.3"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            (
                "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q",
                "input_blocks.4.1.transformer_blocks.1.attn1.to_q",
            ),
            ("down_blocks.2.attentions.1.proj_out", "input_blocks.8.1.proj_out"),
            ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
            ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
            ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
            ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
            ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
            (
                "up_blocks.2.resnets.0.conv_shortcut",
                "output_blocks.6.0.skip_connection",
            ),
        ] {
            assert_eq!(levels.original(name).as_deref(), Some(original));
        }
        assert_eq!(levels.original("up_blocks.7.resnets.0.conv1"), None);
        // Stable Diffusion 1 has no attention in its first level on the way up.
        assert_eq!(
            Levels::of(&["up_blocks.0.resnets.2.conv1"])
                .original("up_blocks.0.upsamplers.0.conv")
                .as_deref(),
            Some("output_blocks.2.1.conv")
        );
    }
}
