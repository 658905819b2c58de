//! Which files of a repository are used, chosen by their paths: what to download, and whether it is complete.

use std::path::Path;

use sd_weights::{WeightFiles, adapter_settings, weight_files};

use super::kind::Kind;
use crate::components::ModelIndex;
use crate::family::{NETWORKS, TEXT_ENCODERS};

/// The outcome of a choice of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    /// These files.
    Files(Vec<&'a str>),
    /// One of these files; nothing says which.
    OneOf(Vec<&'a str>),
    /// The repository cannot be used: this file is missing.
    Missing(String),
}

impl Kind {
    /// What a repository with files at `paths` is used for, if its paths show it.
    pub fn of(paths: &[&str]) -> Option<Self> {
        let has = |path: &str| paths.contains(&path);
        let ends = |ending: &str| in_folder(paths, "").any(|(_, name)| name.ends_with(ending));
        if has(ModelIndex::FILE) || NETWORKS.iter().any(|part| has(&format!("{part}/config.json"))) {
            Some(Self::Model)
        } else if has("config.json") && weights(paths, "", false).is_some() {
            Some(Self::ControlNet)
        } else if ends(".safetensors") {
            Some(Self::Lora)
        } else if ends(".pth") {
            Some(Self::Upscaler)
        } else {
            None
        }
    }

    /// The files at `paths` to download. Where there is a choice these are the 16-bit weights, which give the
    /// same images as 32-bit ones and take half the space. `index` is the text of `model_index.json`, if
    /// there is one.
    pub fn wanted<'a>(self, paths: &[&'a str], index: Option<&[u8]>) -> Choice<'a> {
        self.choose(paths, index, true)
    }

    /// The files at `paths` that are used.
    pub fn used<'a>(self, paths: &[&'a str], index: Option<&[u8]>) -> Choice<'a> {
        self.choose(paths, index, false)
    }

    fn choose<'a>(self, paths: &[&'a str], index: Option<&[u8]>, halves: bool) -> Choice<'a> {
        let mut files = Files {
            paths,
            halves,
            chosen: Vec::new(),
            missing: None,
        };
        match self {
            Self::Model => files.model(index),
            Self::ControlNet => files.network(""),
            Self::Lora => return lora(paths, halves),
            Self::Upscaler => return one(paths, &[".pth", ".safetensors"], &[]),
        }
        match files.missing {
            Some(missing) => Choice::Missing(missing),
            None => Choice::Files(files.chosen),
        }
    }
}

/// The choice of files in progress.
struct Files<'a, 'b> {
    paths: &'b [&'a str],
    halves: bool,
    chosen: Vec<&'a str>,
    /// The first required file that is missing.
    missing: Option<String>,
}

impl Files<'_, '_> {
    /// Chooses the files that [`Bundle::open`](super::Bundle::open) opens, and the weights of each network.
    fn model(&mut self, index: Option<&[u8]>) {
        self.may_have(ModelIndex::FILE);
        let index = match index.map(serde_json::from_slice::<ModelIndex>) {
            Some(Ok(index)) => index,
            None => ModelIndex::default(),
            Some(Err(_)) => {
                self.missing = Some(format!("an {} that can be read", ModelIndex::FILE));
                return;
            }
        };
        let has_config = |component: &str| self.paths.contains(&inside(component, "config.json").as_str());
        let denoiser = NETWORKS.into_iter().find(|component| has_config(component));
        let encoders: Vec<_> = TEXT_ENCODERS
            .into_iter()
            .filter(|(encoder, _)| index.has(encoder, has_config))
            .collect();
        self.must_have("scheduler/scheduler_config.json");
        match denoiser {
            Some(denoiser) => self.network(denoiser),
            None => self.lacks(format!("{}/config.json", NETWORKS.join("/config.json or "))),
        }
        self.network("vae");
        for (encoder, tokenizer) in encoders {
            self.network(encoder);
            self.tokenizer(tokenizer);
        }
    }

    fn network(&mut self, folder: &str) {
        self.must_have(&inside(folder, "config.json"));
        match weights(self.paths, folder, self.halves) {
            Some((paths, true)) => self.chosen.extend(paths),
            Some((_, false)) => self.lacks(inside(folder, "one of the parts that its weights are in")),
            None => self.lacks(inside(folder, "weights (.safetensors or .bin)")),
        }
    }

    fn tokenizer(&mut self, folder: &str) {
        const WHOLE: &str = "tokenizer.json";
        const PARTS: [&str; 2] = ["vocab.json", "merges.txt"];
        const SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
        let is_whole = self.may_have(&inside(folder, WHOLE));
        for part in PARTS.map(|part| inside(folder, part)) {
            // Other programs that share the cache may use them.
            if !self.may_have(&part) && !is_whole {
                self.lacks(part);
            }
        }
        for settings in SETTINGS {
            self.may_have(&inside(folder, settings));
        }
    }

    fn must_have(&mut self, path: &str) {
        if !self.may_have(path) {
            self.lacks(path.to_owned());
        }
    }

    fn may_have(&mut self, path: &str) -> bool {
        let found = self.paths.iter().find(|found| **found == path);
        self.chosen.extend(found);
        found.is_some()
    }

    fn lacks(&mut self, what: String) {
        self.missing.get_or_insert(what);
    }
}

/// The paths of the weights in `folder`, and whether they are complete.
fn weights<'a>(paths: &[&'a str], folder: &str, halves: bool) -> Option<(Vec<&'a str>, bool)> {
    let (paths, names): (Vec<&str>, Vec<&str>) = in_folder(paths, folder).unzip();
    let WeightFiles { names, whole } = weight_files(&names, halves)?;
    let chosen = paths.into_iter().filter(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        names.contains(&name)
    });
    Some((chosen.collect(), whole))
}

/// A LoRA file, under the default names of diffusers or PEFT or as the only one, and its adapter settings.
/// Without the settings the file is still `wanted`, but the repository is incomplete.
fn lora<'a>(paths: &[&'a str], wanted: bool) -> Choice<'a> {
    const DEFAULT_NAMES: [&str; 2] = ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"];
    let mut choice = one(paths, &[".safetensors"], &DEFAULT_NAMES);
    if let Choice::Files(files) = &mut choice
        && let Some(settings) = files.first().and_then(|file| adapter_settings(Path::new(file)))
    {
        match paths.iter().find(|path| Path::new(path) == settings) {
            Some(path) => files.push(path),
            None if wanted => {}
            None => return Choice::Missing(settings.to_string_lossy().into_owned()),
        }
    }
    choice
}

/// The only file of the repository's root with one of `endings`, or else the first with a name of `default_names`.
fn one<'a>(paths: &[&'a str], endings: &[&str], default_names: &[&str]) -> Choice<'a> {
    let files = in_folder(paths, "").map(|(path, _)| path);
    let mut files: Vec<&str> = files
        .filter(|path| endings.iter().any(|ending| path.ends_with(ending)))
        .collect();
    if let Some(found) = default_names
        .iter()
        .find_map(|name| files.iter().find(|path| *path == name))
    {
        files = vec![found];
    }
    match files.len() {
        0 => Choice::Missing(format!("a {} file", endings.join(" or "))),
        1 => Choice::Files(files),
        _ => Choice::OneOf(files),
    }
}

/// The paths of the files directly in `folder`, with their names.
fn in_folder<'a>(paths: &[&'a str], folder: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    paths.iter().filter_map(move |path| {
        let name = match folder {
            "" => *path,
            folder => path.strip_prefix(folder)?.strip_prefix('/')?,
        };
        (!name.contains('/')).then_some((*path, name))
    })
}

fn inside(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a repository of Stable Diffusion 1.5 that are not used among those that are.
    const SD15: [&str; 28] = [
        ".gitattributes",
        "README.md",
        "feature_extractor/preprocessor_config.json",
        "model_index.json",
        "images/sample.png",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/flax_model.msgpack",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/model.onnx",
        "v1-5-pruned-emaonly.safetensors",
        "v1-5-pruned.ckpt",
        "vae/config.json",
        "vae/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    const INDEX: &str = r#"{
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"]}"#;

    #[test]
    fn of_a_model_what_is_generated_with_is_chosen_in_one_precision() {
        assert_eq!(Kind::of(&SD15), Some(Kind::Model));
        let Choice::Files(mut wanted) = Kind::Model.wanted(&SD15, Some(INDEX.as_bytes())) else {
            panic!("nothing is chosen");
        };
        wanted.sort_unstable();
        let expected = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.fp16.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(wanted, expected);
        // The chosen files are complete by themselves.
        assert!(matches!(
            Kind::Model.used(&wanted, Some(INDEX.as_bytes())),
            Choice::Files(_)
        ));
        for lost in expected.into_iter().filter(|path| {
            let optional = [
                "model_index.json",
                "special_tokens_map.json",
                "tokenizer_config.json",
            ];
            !optional.iter().any(|name| path.ends_with(name))
        }) {
            let rest: Vec<&str> = wanted.iter().copied().filter(|path| *path != lost).collect();
            let left = Kind::Model.used(&rest, Some(INDEX.as_bytes()));
            assert!(matches!(left, Choice::Missing(_)), "{lost}: {left:?}");
        }
    }

    #[test]
    fn what_the_index_leaves_out_is_not_wanted() {
        let paths = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder_2/config.json",
            "text_encoder_2/model.safetensors",
            "tokenizer/vocab.json",
            "tokenizer_2/tokenizer.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        let index = br#"{"text_encoder": [null, null], "text_encoder_2": ["transformers", "CLIPTextModel"]}"#;
        let Choice::Files(wanted) = Kind::Model.wanted(&paths, Some(index)) else {
            panic!("nothing is chosen");
        };
        assert_eq!(wanted.len(), paths.len() - 1);
        assert!(!wanted.contains(&"tokenizer/vocab.json"));
        let incomplete: Vec<&str> = paths
            .into_iter()
            .filter(|path| !path.contains("-00002-"))
            .collect();
        assert!(matches!(
            Kind::Model.used(&incomplete, Some(index)),
            Choice::Missing(_)
        ));
        let unread = Kind::Model.wanted(&paths, Some(b"<html>"));
        assert!(matches!(unread, Choice::Missing(_)));
    }

    #[test]
    fn of_other_repositories_it_is_a_file_or_two() {
        let control = [
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.safetensors",
            "images/bird.png",
        ];
        assert_eq!(Kind::of(&control), Some(Kind::ControlNet));
        assert_eq!(
            Kind::ControlNet.wanted(&control, None),
            Choice::Files(vec![control[0], control[2]])
        );
        let lora = [
            "README.md",
            "pytorch_lora_weights.safetensors",
            "second.safetensors",
        ];
        assert_eq!(Kind::of(&lora), Some(Kind::Lora));
        assert_eq!(Kind::Lora.wanted(&lora, None), Choice::Files(vec![lora[1]]));
        let loras = ["a.safetensors", "b.safetensors", "folder/c.safetensors"];
        assert_eq!(
            Kind::Lora.wanted(&loras, None),
            Choice::OneOf(vec![loras[0], loras[1]])
        );
        let adapter = ["README.md", "adapter_config.json", "adapter_model.safetensors"];
        for choice in [Kind::Lora.wanted(&adapter, None), Kind::Lora.used(&adapter, None)] {
            assert_eq!(choice, Choice::Files(vec![adapter[2], adapter[1]]));
        }
        assert_eq!(
            Kind::Lora.wanted(&adapter[2..], None),
            Choice::Files(vec![adapter[2]])
        );
        assert!(matches!(Kind::Lora.used(&adapter[2..], None), Choice::Missing(_)));
        let upscaler = ["RealESRGAN_x2.pth", "README.md"];
        assert_eq!(Kind::of(&upscaler), Some(Kind::Upscaler));
        assert_eq!(
            Kind::Upscaler.wanted(&upscaler, None),
            Choice::Files(vec![upscaler[0]])
        );
        assert_eq!(Kind::of(&["README.md", "config.json"]), None);
        assert!(matches!(
            Kind::Lora.wanted(&["README.md"], None),
            Choice::Missing(_)
        ));
    }
}
