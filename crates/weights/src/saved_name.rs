//! The names under which a network's weights are saved, as diffusers and transformers write them.

/// A name under which a network's weights are saved: in one file, or in shards with their index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SavedName {
    stem: &'static str,
    /// What a precision that is kept beside the plain files is called: `fp16`.
    variant: Option<&'static str>,
}

/// Which files of a folder are its network's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFiles<'a> {
    /// Their names: one file, or an index and its shards.
    pub names: Vec<&'a str>,
    /// Whether none is missing.
    pub whole: bool,
}

impl SavedName {
    /// Every name, those first that are taken where there are several.
    pub(crate) const ALL: [Self; 4] = [
        Self::new("diffusion_pytorch_model", None),
        Self::new("diffusion_pytorch_model", Some("fp16")),
        Self::new("model", None),
        Self::new("model", Some("fp16")),
    ];

    const fn new(stem: &'static str, variant: Option<&'static str>) -> Self {
        Self { stem, variant }
    }

    /// The name of the one file.
    pub(crate) fn file(self) -> String {
        match self.variant {
            Some(variant) => format!("{}.{variant}.safetensors", self.stem),
            None => format!("{}.safetensors", self.stem),
        }
    }

    /// The names that the index of shards may have.
    pub(crate) fn indices(self) -> [String; 2] {
        let written = match self.variant {
            Some(variant) => format!("{}.safetensors.index.{variant}.json", self.stem),
            None => format!("{}.safetensors.index.json", self.stem),
        };
        [written, format!("{}.index.json", self.file())]
    }

    /// Of how many shards the file `name` is one, if it is one of these weights.
    fn shards(self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(self.stem)?.strip_suffix(".safetensors")?;
        let numbers = match self.variant {
            // The variant stood at the end once.
            Some(variant) => {
                let variant = format!(".{variant}");
                rest.strip_prefix(variant.as_str())
                    .or_else(|| rest.strip_suffix(variant.as_str()))?
            }
            None => rest,
        };
        let (number, count) = numbers.strip_prefix('-')?.split_once("-of-")?;
        number.parse::<usize>().ok()?;
        count.parse().ok()
    }

    /// Those of `names` that are the weights saved under this one.
    fn files<'a>(self, names: &[&'a str]) -> Option<WeightFiles<'a>> {
        let find = |wanted: &str| names.iter().copied().find(|name| *name == wanted);
        if let Some(file) = find(&self.file()) {
            return Some(WeightFiles {
                names: vec![file],
                whole: true,
            });
        }
        let index = self.indices().iter().find_map(|index| find(index))?;
        let shards: Vec<(&str, usize)> = names
            .iter()
            .filter_map(|name| Some((*name, self.shards(name)?)))
            .collect();
        let count = shards.first().map_or(0, |(_, count)| *count);
        Some(WeightFiles {
            whole: count > 0 && shards.len() == count,
            names: std::iter::once(index)
                .chain(shards.into_iter().map(|(name, _)| name))
                .collect(),
        })
    }
}

/// Which of `names`, the files of one folder, are its network's weights, in one precision: with `halves` in 16 bits where
/// there is a choice, else what [`ModelFolder::checkpoint`](crate::ModelFolder::checkpoint) opens.
pub fn weight_files<'a>(names: &[&'a str], halves: bool) -> Option<WeightFiles<'a>> {
    let mut saved = SavedName::ALL;
    if halves {
        saved.sort_by_key(|name| name.variant.is_none());
    }
    saved.into_iter().find_map(|saved| saved.files(names))
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
        assert_eq!(weight_files(&["config.json", "pytorch_model.bin"], true), None);
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
    }
}
