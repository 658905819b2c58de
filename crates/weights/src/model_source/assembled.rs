//! A model whose networks lie in several files, or in a single one: the same components as of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::model_files::ModelFiles;
use super::single_file::{Network, Settings, SingleFile, controlnet, set_scale, with_projection};
use super::{
    BuiltInTokenizer, ClipPadding, MODEL_INDEX, ModelFile, ModelFolder, ModelSource, SavedTexts, SourcePart,
    TokenizerFiles, beside,
};
use super::{FileContent, NetworkKind};
use crate::{Checkpoint, Error, FileIdentity, ModelFamily, Result};

/// A model whose networks lie in several files, or in a single one.
#[derive(Debug)]
pub(super) struct AssembledModel {
    path: PathBuf,
    /// The folder that has whatever is not here.
    folder: Option<ModelFolder>,
    networks: BTreeMap<&'static str, Part>,
    /// The configurations of the model as a whole.
    configs: BTreeMap<&'static str, Vec<u8>>,
    tokenizers: BTreeMap<&'static str, BuiltInTokenizer>,
    /// What the file holds beside its tensors.
    texts: SavedTexts,
}

/// A network with its configuration.
#[derive(Debug)]
struct Part {
    checkpoint: Checkpoint,
    config: Vec<u8>,
}

/// What a family consists of.
struct Family {
    title: &'static str,
    /// The class of the pipeline in diffusers.
    pipeline: &'static str,
    denoiser: (&'static str, &'static str),
    encoders: &'static [Encoder],
}

/// A text encoder of a family.
struct Encoder {
    component: &'static str,
    tokenizer: &'static str,
    kind: NetworkKind,
    class: &'static str,
    vocabulary: BuiltInTokenizer,
    /// Whether there are models without it.
    is_optional: bool,
}

const UNET: (&str, &str) = ("unet", "UNet2DConditionModel");

const CLIP_L: Encoder = Encoder {
    component: "text_encoder",
    tokenizer: "tokenizer",
    kind: NetworkKind::ClipL,
    class: "CLIPTextModel",
    vocabulary: BuiltInTokenizer::Clip(ClipPadding::EndOfText),
    is_optional: false,
};
const CLIP_G: Encoder = Encoder {
    component: "text_encoder_2",
    tokenizer: "tokenizer_2",
    kind: NetworkKind::ClipG,
    class: "CLIPTextModelWithProjection",
    vocabulary: BuiltInTokenizer::Clip(ClipPadding::Exclamation),
    is_optional: false,
};

const STABLE_DIFFUSION_1: Family = Family {
    title: "Stable Diffusion 1",
    pipeline: "StableDiffusionPipeline",
    denoiser: UNET,
    encoders: &[CLIP_L],
};
const STABLE_DIFFUSION_2: Family = Family {
    title: "Stable Diffusion 2",
    pipeline: "StableDiffusionPipeline",
    denoiser: UNET,
    encoders: &[Encoder {
        kind: NetworkKind::ClipH,
        vocabulary: BuiltInTokenizer::Clip(ClipPadding::Exclamation),
        ..CLIP_L
    }],
};
const STABLE_DIFFUSION_XL: Family = Family {
    title: "Stable Diffusion XL",
    pipeline: "StableDiffusionXLPipeline",
    denoiser: UNET,
    encoders: &[CLIP_L, CLIP_G],
};
const REFINER: Family = Family {
    title: "the refiner of Stable Diffusion XL",
    pipeline: "StableDiffusionXLImg2ImgPipeline",
    denoiser: UNET,
    encoders: &[CLIP_G],
};
const STABLE_DIFFUSION_3: Family = Family {
    title: "Stable Diffusion 3",
    pipeline: "StableDiffusion3Pipeline",
    denoiser: ("transformer", "SD3Transformer2DModel"),
    encoders: &[
        Encoder {
            class: "CLIPTextModelWithProjection",
            ..CLIP_L
        },
        CLIP_G,
        Encoder {
            component: "text_encoder_3",
            tokenizer: "tokenizer_3",
            kind: NetworkKind::T5,
            class: "T5EncoderModel",
            vocabulary: BuiltInTokenizer::T5,
            // Zeros stand for it.
            is_optional: true,
        },
    ],
};

impl Family {
    fn of(denoiser: NetworkKind) -> &'static Self {
        match denoiser {
            NetworkKind::UNet(ModelFamily::StableDiffusionXl) => &STABLE_DIFFUSION_XL,
            NetworkKind::UNet(ModelFamily::StableDiffusionXlRefiner) => &REFINER,
            NetworkKind::UNet(ModelFamily::StableDiffusion2) => &STABLE_DIFFUSION_2,
            NetworkKind::UNet(_) => &STABLE_DIFFUSION_1,
            _ => &STABLE_DIFFUSION_3,
        }
    }
}

impl AssembledModel {
    /// The model in `file`, with the networks and settings that the user named in `files`.
    ///
    /// # Errors
    /// A file is missing or damaged, holds something else than it should, or a network is nowhere.
    pub(super) fn of_file(file: &Path, files: &ModelFiles) -> Result<Self> {
        let opened = SingleFile::open(file)?;
        let Some(denoiser) = opened.denoiser().map(|denoiser| opened.configured(denoiser)) else {
            return Err(opened.no_model());
        };
        let family = Family::of(denoiser.kind);
        let mut missing = Vec::new();
        let mut find = |kind: NetworkKind, is_optional: bool| -> Result<Option<Network>> {
            let fits = |network: &Network| fits(network, &denoiser);
            let own = opened.network(kind).cloned();
            let own = own.or_else(|| opened.only_clip(kind).filter(|_| family.encoders.len() == 1));
            let found = match (files.networks.of(kind), own) {
                (Some(path), _) => Some(beside::named(path, kind)?),
                (None, Some(own)) => Some(opened.configured(&own)),
                (None, None) => {
                    beside::network(file, &files.search, kind, &fits)?.map(|(_, network)| network)
                }
            };
            if found.is_none() && !is_optional {
                missing.push(kind.title());
            }
            Ok(found)
        };
        let mut encoders = Vec::new();
        for encoder in family.encoders {
            encoders.extend(find(encoder.kind, encoder.is_optional)?.map(|network| (encoder, network)));
        }
        let vae = find(NetworkKind::Vae, false)?;
        let Some(mut vae) = vae.filter(|_| missing.is_empty()) else {
            return Err(Error::MissingNetworks {
                file: file.to_owned(),
                family: family.title,
                networks: missing,
            });
        };
        if !vae.config.contains_key("scaling_factor") {
            set_scale(&mut vae.config, denoiser.kind);
            opened.evidence.complete_vae(&mut vae.config);
        }
        let in_channels = denoiser.config.get("in_channels").and_then(Value::as_u64);
        let fills_masks = in_channels == Some(9);
        let scheduler = opened
            .evidence
            .scheduler(denoiser.kind, fills_masks, files.prediction);
        let mut model = Self {
            path: file.to_owned(),
            folder: None,
            configs: BTreeMap::from([
                (MODEL_INDEX, text(&index(family, &scheduler, &encoders))),
                ("scheduler", text(&scheduler)),
            ]),
            networks: BTreeMap::new(),
            tokenizers: encoders
                .iter()
                .map(|(encoder, _)| (encoder.tokenizer, encoder.vocabulary))
                .collect(),
            texts: opened.texts.clone(),
        };
        let is_third = denoiser.kind == NetworkKind::Mmdit;
        if files.prediction.is_none()
            && let Some(scheduler) = model.texts.config("scheduler")
        {
            model.configs.insert("scheduler", scheduler.as_bytes().to_vec());
        }
        if let Some(index) = model.texts.config(MODEL_INDEX) {
            model.configs.insert(MODEL_INDEX, index.as_bytes().to_vec());
        }
        model.add(family.denoiser.0, denoiser);
        model.add("vae", vae);
        for (encoder, mut network) in encoders {
            if is_third && encoder.kind == NetworkKind::ClipL {
                network.checkpoint = with_projection(network.checkpoint);
            }
            model.add(encoder.component, network);
        }
        Ok(model)
    }

    /// The model in `folder`, with the networks and settings that the user named in `files`.
    ///
    /// # Errors
    /// A file is missing or damaged, or holds something else than it should.
    pub(super) fn of_folder(folder: &ModelFolder, files: &ModelFiles) -> Result<Self> {
        let mut model = Self {
            path: folder.root().to_owned(),
            folder: Some(folder.clone()),
            networks: BTreeMap::new(),
            configs: BTreeMap::new(),
            tokenizers: BTreeMap::new(),
            texts: SavedTexts::default(),
        };
        if let Some(path) = &files.networks.vae {
            let mut network = beside::named(path, NetworkKind::Vae)?;
            // The autoencoder's scale is that of the model for which the user named it.
            let own: Settings = folder.config("vae")?.json()?;
            for name in ["scaling_factor", "shift_factor", "latents_mean", "latents_std"] {
                if let Some(value) = own.get(name).filter(|_| !network.config.contains_key(name)) {
                    network.config.insert(name.to_owned(), value.clone());
                }
            }
            model.add("vae", network);
        }
        for (path, component, kinds) in [
            (
                &files.networks.clip_l,
                "text_encoder",
                [NetworkKind::ClipL].as_slice(),
            ),
            (&files.networks.clip_g, "text_encoder_2", &[NetworkKind::ClipG]),
            (&files.networks.t5xxl, "text_encoder_3", &[NetworkKind::T5]),
        ] {
            let Some(path) = path else { continue };
            for &kind in kinds {
                let mut network = beside::named(path, kind)?;
                if folder.has_config(component) {
                    // The configuration of the folder says more than tensors do.
                    network.config = folder.config(component)?.json()?;
                }
                model.add(component, network);
            }
        }
        if let Some(prediction) = files.prediction {
            let mut scheduler: Settings = folder.config("scheduler")?.json()?;
            scheduler.insert("prediction_type".to_owned(), json!(prediction.setting()));
            model.configs.insert("scheduler", text(&scheduler));
        }
        Ok(model)
    }

    /// The ControlNet in `file`, as the `component` of a model that has nothing else.
    ///
    /// # Errors
    /// The file is missing or damaged, or holds no ControlNet for a UNet.
    pub(super) fn of_controlnet(file: &Path, component: &'static str) -> Result<Self> {
        let opened = Checkpoint::open_file(file)?;
        let Some((checkpoint, config)) = controlnet(&opened)? else {
            return Err(Error::OtherNetwork {
                file: file.to_owned(),
                wanted: "a ControlNet for a UNet",
                found: SingleFile::open(file).map_or(FileContent::Unknown, |other| other.content()),
            });
        };
        let config = text(&config);
        Ok(Self {
            path: file.to_owned(),
            folder: None,
            networks: BTreeMap::from([(component, Part { checkpoint, config })]),
            configs: BTreeMap::new(),
            tokenizers: BTreeMap::new(),
            texts: SavedTexts::default(),
        })
    }

    fn add(&mut self, component: &'static str, network: Network) {
        let Network {
            checkpoint, config, ..
        } = network;
        let config = text(&config);
        self.networks.insert(component, Part { checkpoint, config });
    }

    /// The identities of the files of `component`, with absolute paths.
    fn identity_of(&self, component: &str) -> Result<Vec<FileIdentity>> {
        let Some(part) = self.networks.get(component) else {
            return Ok(Vec::new());
        };
        let mut identities = part.checkpoint.identity()?;
        for identity in &mut identities {
            if let Ok(path) = std::path::absolute(&identity.path) {
                identity.path = path.to_string_lossy().into_owned();
            }
        }
        Ok(identities)
    }

    /// The folder, for a component that is not here.
    fn elsewhere(&self, component: &str) -> Result<&ModelFolder> {
        self.folder.as_ref().ok_or_else(|| Error::MissingFile {
            file: self.path.join(component),
        })
    }
}

/// Whether an encoder or autoencoder, as far as shapes tell, fits `denoiser`.
fn fits(network: &Network, denoiser: &Network) -> bool {
    let number = |network: &Network, name: &str| network.config.get(name).and_then(Value::as_u64);
    match network.kind {
        NetworkKind::Vae => {
            let (latents, inputs) = (
                number(network, "latent_channels"),
                number(denoiser, "in_channels"),
            );
            // A UNet that fills masks has five more.
            latents == inputs || latents.map(|latents| 2 * latents + 1) == inputs
        }
        NetworkKind::T5 => number(network, "d_model") == number(denoiser, "joint_attention_dim"),
        _ => true,
    }
}

/// The index of a model.
fn index(family: &Family, scheduler: &Settings, encoders: &[(&Encoder, Network)]) -> Settings {
    let mut index = Settings::new();
    let mut set = |name: &str, value: Value| index.insert(name.to_owned(), value);
    let (component, class) = family.denoiser;
    set("_class_name", json!(family.pipeline));
    set(component, json!(["diffusers", class]));
    set("vae", json!(["diffusers", "AutoencoderKL"]));
    if let Some(class) = scheduler.get("_class_name") {
        set("scheduler", json!(["diffusers", class]));
    }
    for (encoder, _) in encoders {
        set(encoder.component, json!(["transformers", encoder.class]));
    }
    if family.pipeline.starts_with("StableDiffusionXL") {
        // As in the releases of diffusers: that of the refiner encodes an empty prompt.
        set("force_zeros_for_empty_prompt", json!(family.encoders.len() == 2));
    }
    index
}

fn text(settings: &Settings) -> Vec<u8> {
    // Numbers, texts and lists of them are always JSON.
    serde_json::to_vec_pretty(settings).unwrap_or_default()
}

impl ModelSource for AssembledModel {
    fn path(&self) -> &Path {
        &self.path
    }

    fn is_embedded(&self) -> bool {
        self.folder.as_ref().is_some_and(ModelFolder::is_embedded)
    }

    fn exists(&self) -> bool {
        self.folder
            .as_ref()
            .map_or(self.path.exists(), ModelSource::exists)
    }

    fn has_config(&self, component: &str) -> bool {
        let elsewhere = || {
            self.folder
                .as_ref()
                .is_some_and(|folder| folder.has_config(component))
        };
        self.networks.contains_key(component) || self.configs.contains_key(component) || elsewhere()
    }

    fn config(&self, component: &str) -> Result<ModelFile> {
        let part = self.networks.get(component);
        let (bytes, path) = match (self.configs.get(component), part) {
            (Some(bytes), _) => (bytes, self.path.as_path()),
            (None, Some(part)) => (&part.config, part.checkpoint.place()),
            (None, None) => return self.elsewhere(component)?.config(component),
        };
        Ok(ModelFile {
            path: path.to_owned(),
            bytes: bytes.clone(),
        })
    }

    fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        match self.networks.get(component) {
            Some(part) => Ok(part.checkpoint.clone()),
            None => self.elsewhere(component)?.checkpoint(component),
        }
    }

    fn tokenizer(&self, component: &str) -> Result<TokenizerFiles> {
        if let Some(saved) = self.texts.tokenizer(&self.path, component) {
            return Ok(saved);
        }
        match self.tokenizers.get(component) {
            Some(vocabulary) => Ok(TokenizerFiles::builtin(*vocabulary)),
            None => self.elsewhere(component)?.tokenizer(component),
        }
    }

    fn vocabulary_bytes(&self, component: &str) -> u64 {
        if let Some(bytes) = self.texts.vocabulary_bytes(component) {
            return bytes;
        }
        match (self.tokenizers.get(component), &self.folder) {
            (Some(vocabulary), _) => vocabulary.vocabulary_bytes(),
            (None, Some(folder)) => folder.vocabulary_bytes(component),
            (None, None) => 0,
        }
    }

    fn identity(&self, part: SourcePart<'_>) -> Result<Vec<FileIdentity>> {
        let (SourcePart::Config(component)
        | SourcePart::Weights(component)
        | SourcePart::Tokenizer(component)) = part;
        if self.networks.contains_key(component) {
            return self.identity_of(component);
        }
        match (self.tokenizers.get(component), &self.folder) {
            (Some(vocabulary), _) => Ok(vec![vocabulary.identity()]),
            (None, Some(folder)) => folder.identity(part),
            // Settings of the whole follow from the tensors.
            (None, None) => Ok(Vec::new()),
        }
    }

    fn known_sha256(&self, component: &str) -> Option<String> {
        if self.networks.contains_key(component) {
            return None;
        }
        self.folder.as_ref()?.known_sha256(component)
    }
}
