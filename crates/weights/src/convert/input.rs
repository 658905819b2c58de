//! The networks and texts of a model that is converted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::model_source::{Network, NetworkKind, SavedTexts, SingleFile, network_kind};
use crate::{
    BuiltInTokenizer, Checkpoint, MODEL_INDEX, ModelFamily, ModelFile, ModelFiles, ModelSource, Result,
    Vocabulary,
};

/// The components that a network can be, with those of its tokenizer.
const COMPONENTS: [(&str, Option<&str>); 6] = [
    ("unet", None),
    ("transformer", None),
    ("vae", None),
    ("text_encoder", Some("tokenizer")),
    ("text_encoder_2", Some("tokenizer_2")),
    ("text_encoder_3", Some("tokenizer_3")),
];

/// The networks and texts of a model that is converted.
#[derive(Debug)]
pub(super) struct Input {
    /// The networks.
    pub(super) networks: Vec<InputNetwork>,
    /// The configurations of the model as a whole, each with its component.
    pub(super) texts: Vec<(&'static str, Vec<u8>)>,
    /// The tensors of the source that are in no network, under their names there.
    pub(super) dropped: Vec<String>,
}

/// A network that is converted.
#[derive(Debug)]
pub(super) struct InputNetwork {
    /// Its component.
    pub(super) component: &'static str,
    /// What it is.
    pub(super) kind: NetworkKind,
    /// Its tensors under the names of diffusers.
    pub(super) checkpoint: Checkpoint,
    /// Its configuration.
    pub(super) config: Vec<u8>,
    /// The files of its tokenizer, each with its name.
    pub(super) tokenizer: Vec<(&'static str, Vec<u8>)>,
}

impl Input {
    /// Opens the model of `files`, or the networks of a file that lacks some of a model.
    ///
    /// # Errors
    /// A file is missing or damaged, or holds nothing that can be converted.
    pub(super) fn open(files: &ModelFiles) -> Result<Self> {
        match files.open() {
            Ok(source) => Self::of_model(&*source),
            // Text encoders and the like alone, which need no model.
            Err(error) if files.path().is_file() => Self::of_file(files).map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    fn of_model(source: &dyn ModelSource) -> Result<Self> {
        let mut networks = Vec::new();
        for (component, tokenizer) in COMPONENTS {
            if !source.has_config(component) {
                continue;
            }
            let checkpoint = source.checkpoint(component)?;
            let config = source.config(component)?;
            let kind = network_kind(component, &checkpoint)?;
            networks.push(InputNetwork {
                component,
                kind,
                checkpoint,
                config: config.bytes,
                tokenizer: tokenizer
                    .map_or(Ok(Vec::new()), |tokenizer| tokenizer_files(source, tokenizer))?,
            });
        }
        let kinds: Vec<NetworkKind> = networks.iter().map(|network| network.kind).collect();
        for network in &mut networks {
            network.kind = network.kind.among(&kinds, &network.checkpoint);
        }
        // Only the model tells CLIP-L from OpenCLIP-H, where they are smaller than in releases.
        let of_second = NetworkKind::UNet(ModelFamily::StableDiffusion2);
        if networks.iter().any(|network| network.kind == of_second) {
            let clips = networks
                .iter_mut()
                .filter(|network| network.component == "text_encoder");
            clips.for_each(|network| network.kind = NetworkKind::ClipH);
        }
        let texts = [MODEL_INDEX, "scheduler"].into_iter();
        let texts = texts
            .filter(|component| source.has_config(component))
            .map(|component| Ok((component, source.config(component)?.bytes)));
        Ok(Self {
            texts: texts.collect::<Result<_>>()?,
            dropped: dropped(source.path(), &networks),
            networks,
        })
    }

    fn of_file(files: &ModelFiles) -> Result<Self> {
        let opened = SingleFile::open(files.path())?;
        let networks: Vec<InputNetwork> = opened.networks.iter().map(InputNetwork::alone).collect();
        if networks.is_empty() {
            return Err(opened.no_model());
        }
        Ok(Self {
            dropped: dropped(files.path(), &networks),
            texts: Vec::new(),
            networks,
        })
    }

    /// The texts that a single file holds beside the tensors.
    pub(super) fn saved_texts(&self) -> BTreeMap<String, String> {
        let mut texts = SavedTexts::default();
        for (component, bytes) in &self.texts {
            texts.add_config(component, bytes);
        }
        for network in &self.networks {
            texts.add_config(network.component, &network.config);
            if !texts.has_usual_vocabulary(network.component) {
                for (name, bytes) in &network.tokenizer {
                    texts.add_tokenizer(
                        &network.component.replace("text_encoder", "tokenizer"),
                        name,
                        bytes,
                    );
                }
            }
        }
        texts.into_entries()
    }

    /// The values of all tensors.
    pub(super) fn values(&self) -> u64 {
        let tensors = self
            .networks
            .iter()
            .flat_map(|network| network.checkpoint.tensors());
        tensors
            .map(|(_, header)| header.shape.iter().product::<usize>() as u64)
            .sum()
    }

    /// The denoising network.
    pub(super) fn denoiser(&self) -> Option<NetworkKind> {
        let mut kinds = self.networks.iter().map(|network| network.kind);
        kinds.find(|kind| kind.is_denoiser())
    }
}

impl InputNetwork {
    fn alone(network: &Network) -> Self {
        let component = network.kind.component();
        Self {
            component,
            kind: network.kind,
            checkpoint: network.checkpoint.clone(),
            config: serde_json::to_vec_pretty(&network.config).unwrap_or_default(),
            tokenizer: Vec::new(),
        }
    }
}

/// The tensors of a single file at `path` that are in none of `networks`. Those of a folder are all read.
fn dropped(path: &std::path::Path, networks: &[InputNetwork]) -> Vec<String> {
    let Some(all) = path.is_file().then(|| Checkpoint::open_file(path).ok()).flatten() else {
        return Vec::new();
    };
    let read: BTreeSet<&str> = networks
        .iter()
        .flat_map(|network| network.checkpoint.saved_names())
        .collect();
    let names = all.tensors().map(|(name, _)| name);
    names
        .filter(|name| !read.contains(name))
        .map(str::to_owned)
        .collect()
}

/// The files of a tokenizer, each with its name.
fn tokenizer_files(source: &dyn ModelSource, component: &str) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let files = source.tokenizer(component)?;
    let bytes = |file: ModelFile| file.bytes;
    let mut all = Vec::new();
    all.extend(files.config.map(|file| ("tokenizer_config.json", bytes(file))));
    all.extend(
        files
            .special_tokens
            .map(|file| ("special_tokens_map.json", bytes(file))),
    );
    match files.vocabulary {
        Vocabulary::Tokenizer(file) => all.push(("tokenizer.json", bytes(file))),
        Vocabulary::BytePairs { vocab, merges } => {
            all.push(("vocab.json", bytes(vocab)));
            all.push(("merges.txt", bytes(merges)));
        }
        Vocabulary::BuiltIn(built_in) => all.extend(built_in_files(built_in)?),
    }
    Ok(all)
}

/// The files of a tokenizer that is built into the program, as transformers reads them.
fn built_in_files(built_in: BuiltInTokenizer) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let config = |class: &str, padding: &str| {
        let config = json!({
            "tokenizer_class": class,
            "model_max_length": built_in.longest(),
            "pad_token": padding,
        });
        ("tokenizer_config.json", config.to_string().into_bytes())
    };
    Ok(match built_in {
        BuiltInTokenizer::T5 => vec![
            config("T5TokenizerFast", "<pad>"),
            ("tokenizer.json", BuiltInTokenizer::t5_json()?.bytes),
        ],
        BuiltInTokenizer::Clip(padding) => {
            let (vocab, merges) = BuiltInTokenizer::clip_byte_pairs()?;
            vec![
                config("CLIPTokenizer", padding.token()),
                ("vocab.json", vocab.bytes),
                ("merges.txt", merges.bytes),
            ]
        }
    })
}
