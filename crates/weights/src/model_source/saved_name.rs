//! File names of weights, as diffusers and transformers write them.
//!
//! `STEM.EXTENSION`, or `STEM.VARIANT.EXTENSION` for another precision (`fp16`, `bf16`, `fp32`) or other
//! weights (`non_ema`) of the same network; or shards of such a file and their index. Where a folder has
//! several, one is taken: safetensors before PyTorch's files, the plain one before variants, of these fp16,
//! bf16 and fp32 in this order before others by name, and `non_ema`, the weights that were not averaged, only
//! where there is nothing else.

use std::cmp::Ordering;

/// The variant of weights that are not the exponential moving average.
const NOT_AVERAGED: &str = "non_ema";
/// File extensions of weights, supported or not.
const ENDINGS: [&str; 9] = [
    "safetensors",
    "bin",
    "ckpt",
    "pt",
    "pth",
    "gguf",
    "onnx",
    "msgpack",
    "h5",
];

/// A file format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    Safetensors,
    /// The format of PyTorch.
    Torch,
}

impl Format {
    const ALL: [Self; 2] = [Self::Safetensors, Self::Torch];

    fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "bin",
        }
    }

    /// The stems of file names: that of diffusers, then that of transformers.
    fn stems(self) -> [&'static str; 2] {
        match self {
            Self::Safetensors => ["diffusion_pytorch_model", "model"],
            Self::Torch => ["diffusion_pytorch_model", "pytorch_model"],
        }
    }
}

/// The name of the weights of a network, in one file or in shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SavedName<'a> {
    format: Format,
    /// The index of the stem among those of the format.
    stem: usize,
    variant: Option<&'a str>,
}

/// The role of a file among the weights of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All weights.
    Whole,
    /// The index of shards.
    Index,
    /// One of `count` shards.
    Shard { count: usize },
}

/// The files of a folder that hold the weights of its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFiles<'a> {
    /// The names: one file, or an index and its shards.
    pub names: Vec<&'a str>,
    /// Whether no shard is missing.
    pub whole: bool,
}

/// The file through which the weights of a folder are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin<'a> {
    /// A file that holds all weights.
    File(&'a str),
    /// An index of shards.
    Index(&'a str),
}

/// The preferred precision, where a folder has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference {
    /// The precision without a variant, as published.
    Plain,
    /// 16 bits.
    Halves,
}

impl<'a> SavedName<'a> {
    /// Parses the name of a weights file.
    fn parse(name: &'a str) -> Option<(Self, Part)> {
        Format::ALL.into_iter().find_map(|format| {
            let stems = format.stems().into_iter().enumerate();
            stems
                .filter_map(|(stem, text)| Some((stem, name.strip_prefix(text)?)))
                .find_map(|(stem, rest)| {
                    let (variant, part) = part_of(rest, format.extension())?;
                    Some((
                        Self {
                            format,
                            stem,
                            variant,
                        },
                        part,
                    ))
                })
        })
    }

    /// The order of preference of two names.
    fn compare(self, other: Self, preference: Preference) -> Ordering {
        let rank = |name: Self| {
            let is_not_averaged = name.variant == Some(NOT_AVERAGED);
            (
                is_not_averaged,
                name.format,
                preference.rank(name.variant),
                name.stem,
                name.variant,
            )
        };
        rank(self).cmp(&rank(other))
    }
}

impl Preference {
    /// The rank of a variant.
    fn rank(self, variant: Option<&str>) -> usize {
        let order = match self {
            Self::Plain => [None, Some("fp16"), Some("bf16"), Some("fp32")],
            Self::Halves => [Some("fp16"), Some("bf16"), None, Some("fp32")],
        };
        let place = order.iter().position(|known| *known == variant);
        place.unwrap_or(order.len())
    }
}

/// Parses the part of a name after the stem: the variant and the role of the file.
fn part_of<'a>(rest: &'a str, extension: &str) -> Option<(Option<&'a str>, Part)> {
    if let Some(rest) = rest.strip_suffix(".json") {
        // `.safetensors.index`, or with the variant behind it or, as once, before it.
        let index = format!(".{extension}.index");
        let variant = match rest.strip_suffix(&index) {
            Some(before) => before,
            None => rest.strip_prefix(&index)?,
        };
        return Some((variant_of(variant)?, Part::Index));
    }
    let rest = rest.strip_suffix(extension)?.strip_suffix('.')?;
    match rest.split_once("-of-") {
        None => Some((variant_of(rest)?, Part::Whole)),
        Some((before, after)) => {
            let (variant, number) = before.rsplit_once('-')?;
            // The variant stood at the end once.
            let (count, at_end) = after.split_once('.').unwrap_or((after, ""));
            let variant = if at_end.is_empty() {
                variant_of(variant)?
            } else {
                variant.is_empty().then_some(Some(at_end))?
            };
            number.parse::<usize>().ok()?;
            Some((
                variant,
                Part::Shard {
                    count: count.parse().ok()?,
                },
            ))
        }
    }
}

/// The variant in `.VARIANT`, or none in nothing; nothing where neither stands there.
fn variant_of(text: &str) -> Option<Option<&str>> {
    if text.is_empty() {
        return Some(None);
    }
    let variant = text.strip_prefix('.')?;
    (!variant.is_empty() && !variant.contains('.')).then_some(Some(variant))
}

/// Which of `names`, the files of one folder, the weights begin in.
fn begin<'a>(names: &[&'a str], preference: Preference) -> Option<(SavedName<'a>, Begin<'a>)> {
    let begins = names
        .iter()
        .copied()
        .filter_map(|name| match SavedName::parse(name)? {
            (saved, Part::Whole) => Some((saved, Begin::File(name))),
            (saved, Part::Index) => Some((saved, Begin::Index(name))),
            (_, Part::Shard { .. }) => None,
        });
    begins.min_by(|(one, of_one), (other, of_other)| {
        let is_index = |begin: &Begin<'_>| matches!(begin, Begin::Index(_));
        one.compare(*other, preference)
            .then(is_index(of_one).cmp(&is_index(of_other)))
    })
}

/// Which of `names`, the files of one folder, the weights begin in that are opened.
pub(crate) fn weights_begin<'a>(names: &[&'a str]) -> Option<Begin<'a>> {
    begin(names, Preference::Plain).map(|(_, begin)| begin)
}

/// Which of `names`, the files of one folder, are its network's weights, in one precision: with `halves` in
/// 16 bits where there is a choice, else what [`ModelFolder::checkpoint`](crate::ModelFolder::checkpoint)
/// opens.
pub fn weight_files<'a>(names: &[&'a str], halves: bool) -> Option<WeightFiles<'a>> {
    let preference = if halves {
        Preference::Halves
    } else {
        Preference::Plain
    };
    let (saved, begin) = begin(names, preference)?;
    let index = match begin {
        Begin::File(file) => {
            return Some(WeightFiles {
                names: vec![file],
                whole: true,
            });
        }
        Begin::Index(index) => index,
    };
    let shards = names
        .iter()
        .copied()
        .filter_map(|name| match SavedName::parse(name)? {
            (of, Part::Shard { count }) if of == saved => Some((name, count)),
            _ => None,
        });
    let shards: Vec<(&str, usize)> = shards.collect();
    let count = shards.first().map_or(0, |(_, count)| *count);
    Some(WeightFiles {
        whole: count > 0 && shards.len() == count,
        names: std::iter::once(index)
            .chain(shards.into_iter().map(|(name, _)| name))
            .collect(),
    })
}

/// The names that are looked for, for a person: each may have a variant before its extension.
pub(crate) fn looked_for() -> Vec<String> {
    let names = Format::ALL.into_iter().flat_map(|format| {
        format
            .stems()
            .map(|stem| format!("{stem}.{}", format.extension()))
    });
    names.collect()
}

/// Whether a file called `name` looks like weights, in whatever format.
pub(crate) fn looks_like_weights(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, ending)| ENDINGS.contains(&ending))
        || name.ends_with(".index.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_precision_is_chosen() {
        let names = [
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.non_ema.safetensors",
            "diffusion_pytorch_model.safetensors",
        ];
        let chosen = |halves| weight_files(&names, halves).unwrap().names;
        assert_eq!(chosen(false), ["diffusion_pytorch_model.safetensors"]);
        assert_eq!(chosen(true), ["diffusion_pytorch_model.fp16.safetensors"]);
        assert_eq!(weight_files(&["config.json"], true), None);
    }

    #[test]
    fn of_several_names_the_best_is_taken() {
        // From the best to the last.
        let plain = [
            "model.safetensors",
            "model.fp16.safetensors",
            "model.bf16.safetensors",
            "model.fp32.safetensors",
            "model.ema-only.safetensors",
            "pytorch_model.bin",
            "pytorch_model.fp16.bin",
            "model.non_ema.safetensors",
            "pytorch_model.non_ema.bin",
        ];
        let halves = [
            plain[1], plain[2], plain[0], plain[3], plain[4], plain[6], plain[5],
        ];
        for (order, prefers_halves) in [(&plain[..], false), (&halves[..], true)] {
            for (first, name) in order.iter().enumerate() {
                let mut names = order[first..].to_vec();
                names.reverse();
                let chosen = weight_files(&names, prefers_halves).unwrap();
                assert_eq!((chosen.names, chosen.whole), (vec![*name], true));
            }
        }
        assert_eq!(
            weights_begin(&["model.bin", "pytorch_model.safetensors", "model.safetensors.bak"]),
            None
        );
    }

    #[test]
    fn shards_are_taken_with_their_index_and_counted() {
        let names = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.fp16-00001-of-00002.safetensors",
            "model.safetensors.index.fp16.json",
            "model.safetensors.index.json",
        ];
        let plain = weight_files(&names, false).unwrap();
        assert_eq!(plain.names, [names[4], names[0], names[1]]);
        assert!(plain.whole);
        let halves = weight_files(&names, true).unwrap();
        assert_eq!(halves.names, [names[3], names[2]]);
        assert!(!halves.whole);
        assert!(!weight_files(&names[4..], false).unwrap().whole);
        let torch = [
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
        ];
        let torch_files = weight_files(&torch, false).unwrap();
        assert_eq!(torch_files.names, [torch[2], torch[0], torch[1]]);
        assert!(torch_files.whole);
    }

    #[test]
    fn every_form_of_a_variant_is_read() {
        let variant = |name| SavedName::parse(name).map(|(saved, part)| (saved.variant, part));
        let shard = Part::Shard { count: 2 };
        for (name, expected) in [
            (
                "diffusion_pytorch_model.bf16.safetensors",
                Some((Some("bf16"), Part::Whole)),
            ),
            (
                "diffusion_pytorch_model.safetensors.index.bf16.json",
                Some((Some("bf16"), Part::Index)),
            ),
            (
                "diffusion_pytorch_model.bf16.safetensors.index.json",
                Some((Some("bf16"), Part::Index)),
            ),
            (
                "diffusion_pytorch_model.bf16-00001-of-00002.safetensors",
                Some((Some("bf16"), shard)),
            ),
            (
                "diffusion_pytorch_model-00001-of-00002.bf16.safetensors",
                Some((Some("bf16"), shard)),
            ),
            (
                "diffusion_pytorch_model-00001-of-00002.safetensors",
                Some((None, shard)),
            ),
            (
                "diffusion_pytorch_model.bin.index.json",
                Some((None, Part::Index)),
            ),
            ("diffusion_pytorch_model2.safetensors", None),
            ("diffusion_pytorch_model-1-of-x.safetensors", None),
            ("config.json", None),
            ("model.json", None),
        ] {
            assert_eq!(variant(name), expected, "{name}");
        }
    }
}
