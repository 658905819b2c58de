//! An opened model: its configurations, tokenizers and headers. No weight is read.

mod control;
mod files;
mod kind;

use sd_models::vae;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use sd_weights::{
    Checkpoint, EmbeddingFile, HeaderCache, LoraFile, ModelFiles, ModelPart, ModelSource, Residency,
    WeightOptions, WeightType, Weights,
};

pub use control::Control;
pub(crate) use control::EDGES;
pub use files::Choice;
pub use kind::{FileKind, Kind};

use crate::components::{self, AdaptedNetwork, Components, ModelIndex};
use crate::family::{self, ControlWeights, Defaults, Denoiser, Family, LatentLayout};
use crate::image_size::ImageSize;
use crate::request::{ControlChoice, EmbeddingChoice, GuidanceScale, LoraChoice};
use crate::scheduler::{ConfigError, SchedulerConfig};
use crate::tokenizer::Tokenizers;
use crate::{Error, Result, finite};

/// Channels of an image.
const COLOURS: usize = 3;

/// The default settings of an image: those of its family and of its own configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FamilyDefaults {
    /// Denoising steps.
    pub steps: usize,
    /// The guidance scale.
    pub guidance_scale: GuidanceScale,
    /// The size that the model was trained for.
    pub size: ImageSize,
}

/// A model.
#[derive(Debug)]
pub struct Bundle {
    components: Components,
    /// The family, with the configurations of the denoising network and the text encoders.
    pub family: Box<dyn Family>,
    /// The autoencoder's configuration.
    pub vae: vae::Config,
    /// The scheduler's configuration.
    pub scheduler: SchedulerConfig,
    /// Whether an omitted negative prompt is encoded as zeros.
    pub zeros_without_negative_prompt: bool,
    /// Whether the model's pipeline class is one of diffusers' pipelines for latent consistency models.
    pub is_latent_consistency: bool,
    controls: Vec<Control>,
    /// Files of textual inversion.
    embeddings: Vec<(Arc<EmbeddingFile>, EmbeddingChoice)>,
}

impl Bundle {
    /// Opens the model of `files`.
    ///
    /// # Errors
    /// As [`Bundle::from_source`], or a network is in none of the files.
    pub fn open(files: &ModelFiles) -> Result<Self> {
        Self::open_with(files, &Tokenizers::default())
    }

    /// As [`open`](Self::open), with the tokenizers that `tokenizers` has of the model already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_with(files: &ModelFiles, tokenizers: &Tokenizers) -> Result<Self> {
        if !files.exists() {
            return Err(Error::NoModel {
                folder: files.path().to_owned(),
            });
        }
        Self::of(files.open()?, tokenizers)
    }

    /// Opens the model of `source`.
    ///
    /// # Errors
    /// There is no model, its family is unknown, a file is missing or wrong, or its components do not fit
    /// together.
    pub fn from_source(source: Arc<dyn ModelSource>) -> Result<Self> {
        Self::of(source, &Tokenizers::default())
    }

    fn of(source: Arc<dyn ModelSource>, tokenizers: &Tokenizers) -> Result<Self> {
        let source: Arc<dyn ModelSource> = Arc::new(HeaderCache::new(source));
        let model = &*source;
        if !model.exists() {
            return Err(Error::NoModel {
                folder: model.path().to_owned(),
            });
        }
        let index = ModelIndex::open(model)?;
        let family = family::recognise(model, &index, tokenizers)?;
        components::check_class(model, Some(&index), "vae", components::AUTOENCODERS)?;
        let vae: vae::Config = model.config("vae")?.json()?;
        vae.check()?;
        let scheduler_file = model.config("scheduler")?;
        let mut scheduler =
            SchedulerConfig::parse(&String::from_utf8_lossy(&scheduler_file.bytes)).map_err(|error| {
                let (file, reason) = (scheduler_file.path, error.to_string());
                match error {
                    ConfigError::Setting { .. } => sd_weights::Error::WrongSetting { file, reason },
                    _ => sd_weights::Error::BadText { file, reason },
                }
            })?;
        // As in diffusers, the index overrides the configuration.
        if let Some(class) = index.class_of("scheduler") {
            scheduler.class_name = Some(class.to_owned());
        }
        let bundle = Self {
            zeros_without_negative_prompt: family.knows_zeros_for_empty_prompt()
                && index.zeros_for_empty_prompt(),
            is_latent_consistency: index.is_latent_consistency(),
            components: Components::new(source),
            controls: Vec::new(),
            embeddings: Vec::new(),
            family,
            vae,
            scheduler,
        };
        bundle.check()?;
        Ok(bundle)
    }

    /// The source of the model's files.
    pub fn source(&self) -> &dyn ModelSource {
        self.components.source()
    }

    /// The components of the model's folder.
    pub fn components(&self) -> &Components {
        &self.components
    }

    /// The default settings of an image.
    pub fn defaults(&self) -> FamilyDefaults {
        let Defaults {
            steps,
            guidance_scale,
            side,
        } = self.family.defaults();
        let pixels = |side: usize| side.saturating_mul(self.vae.downsampling());
        let trained = self.family.trained_size(self.is_latent_consistency);
        let (height, width) = trained.map_or((side, side), |(rows, columns)| (pixels(rows), pixels(columns)));
        FamilyDefaults {
            steps,
            guidance_scale: GuidanceScale(guidance_scale),
            // Fall back to the family's size if the configuration holds no valid one.
            size: ImageSize::new(width, height)
                .or(ImageSize::new(side, side))
                .expect("the families' sides are sizes. This is a bug."),
        }
    }

    /// Whether the denoising network takes an inpainting mask and masked latents, as a 9-channel inpainting model does.
    pub fn takes_mask(&self) -> bool {
        self.family.latents().in_channels > self.vae.latent_channels
    }

    /// Bytes of the tokenizer files.
    pub fn tokenizer_bytes(&self) -> u64 {
        let encoders = self.family.text_encoders().components();
        encoders
            .iter()
            .map(|folders| self.source().vocabulary_bytes(folders.tokenizer))
            .sum()
    }

    /// Bytes of the weights of all networks, as they are stored.
    ///
    /// # Errors
    /// A file is missing or its header is wrong.
    pub fn weight_bytes(&self) -> Result<u64> {
        let encoders = self.family.text_encoders().components();
        let encoders = encoders.into_iter().map(|folders| folders.encoder);
        let mut bytes = 0;
        for component in encoders.chain([self.family.component(), "vae"]) {
            let checkpoint = self.checkpoint(component)?;
            bytes += checkpoint.tensors().map(|(_, header)| header.bytes).sum::<u64>();
        }
        Ok(bytes)
    }

    /// The weights of `component`, held as `weight_options` say.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn weights(&self, component: &str, weight_options: &WeightOptions) -> Result<Weights> {
        self.components.weights(component, weight_options)
    }

    /// The names in the block cache of the denoising network's weights and its ControlNets' weights, held as
    /// `weight_type`.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub(crate) fn denoiser_cache_names(&self, weight_type: WeightType) -> Result<Vec<String>> {
        let network = self.components.cache_name(self.family.component(), weight_type);
        let controls = self.controls.iter();
        let names = std::iter::once(network).chain(controls.map(|control| control.cache_name(weight_type)));
        // Two ControlNets may be of the same file.
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The name of the autoencoder's weights, held as `weight_type`, in the block cache.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub(crate) fn vae_cache_name(&self, weight_type: WeightType) -> Result<String> {
        self.components.cache_name("vae", weight_type)
    }

    /// Refuses the latents of `other` if they do not mean the same image here.
    ///
    /// # Errors
    /// The autoencoders differ.
    pub(crate) fn takes_over_from(&self, other: &Self) -> Result<()> {
        let meaning = |bundle: &Self| {
            let vae = &bundle.vae;
            (
                vae.latent_channels,
                vae.scaling_factor,
                vae.shift_factor,
                vae.latents_mean.clone().zip(vae.latents_std.clone()),
                bundle.scheduler.is_flow(),
            )
        };
        if meaning(self) == meaning(other) {
            return Ok(());
        }
        Err(Error::OtherLatents {
            folder: self.source().path().to_owned(),
            other: other.source().path().to_owned(),
        })
    }

    /// Adds a LoRA file to the weights, which are merged as they are read. With `values` the file is read
    /// once now, and refused if a value is not finite.
    ///
    /// # Errors
    /// The file cannot be read, or is for another model. The bundle then stays as it was.
    pub(crate) fn adapt(&mut self, choice: &LoraChoice, values: bool) -> Result<()> {
        let denoiser = AdaptedNetwork {
            component: self.family.component(),
            part: ModelPart::Denoiser,
            namings: self.family.namings(),
        };
        let encoders = self.family.text_encoders().components();
        let encoders = encoders.into_iter().map(|folders| AdaptedNetwork {
            component: folders.encoder,
            part: folders.part,
            namings: folders.namings,
        });
        self.components
            .adapt(choice, std::iter::once(denoiser).chain(encoders), values)
    }

    /// Makes words of the prompts stand for the vectors of a file of textual inversion. With `values` the vectors are
    /// read once now, and refused if a value is not finite.
    ///
    /// # Errors
    /// The file cannot be read, or is for another model. The bundle then stays as it was.
    #[doc(alias = "textual inversion")]
    pub(crate) fn embed(&mut self, choice: &EmbeddingChoice, values: bool) -> Result<()> {
        let file = Arc::new(EmbeddingFile::open(&choice.file)?);
        let encoders = self.family.text_encoders().components();
        if values {
            for folders in encoders {
                file.read(folders.part)?;
            }
        }
        self.family
            .text_encoders_mut()
            .add_embedding(&choice.name, &file)?;
        self.embeddings.push((file, choice.clone()));
        Ok(())
    }

    /// Adds a ControlNet for images of `size`.
    ///
    /// # Errors
    /// A file is missing or wrong, or the ControlNet is for another model. The bundle then stays as it was.
    pub(crate) fn control(&mut self, choice: &ControlChoice, size: ImageSize) -> Result<()> {
        let control = Control::open(choice, &*self.family, &self.vae, size)?;
        // Find errors of the headers now rather than in the middle of the run.
        let weight_options = WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Streamed);
        control.check(&weight_options)?;
        self.controls.push(control);
        Ok(())
    }

    /// Reads the control images. ControlNets whose images cannot be read are removed, and returned with the
    /// reason.
    pub(crate) fn read_controls(&mut self) -> Vec<(ControlChoice, Error)> {
        let mut failed = Vec::new();
        self.controls.retain_mut(|control| {
            let read = control.read_image();
            read.map_err(|error| failed.push((control.choice.clone(), error)))
                .is_ok()
        });
        failed
    }

    /// The denoising network with its ControlNets. No weight is read yet. The network's weights are held as
    /// `weight_options` say, those of the ControlNets as `control_options` say.
    ///
    /// # Errors
    /// A file is missing, or its configuration is not supported.
    pub(crate) fn denoising_network(
        &self,
        weight_options: &WeightOptions,
        control_options: &WeightOptions,
    ) -> Result<Box<dyn Denoiser>> {
        let weights = self.weights(self.family.component(), weight_options)?;
        let mut controls = Vec::with_capacity(self.controls.len());
        for control in &self.controls {
            controls.push(ControlWeights {
                weights: control.weights(control_options)?,
                config: &*control.config,
                scale: control.choice.scale,
            });
        }
        self.family.denoiser(weights, controls)
    }

    /// Refuses `latents` of `stage` with values that are not finite. The weights of the denoising network and
    /// its ControlNets are then searched for the cause.
    ///
    /// # Errors
    /// A value is not finite, or the device fails.
    pub(crate) fn check_latents(&self, latents: &Tensor, stage: &str) -> Result<()> {
        finite::check(latents, stage, || {
            let network = std::iter::once_with(|| self.checkpoint(self.family.component()));
            let controls = self.controls.iter().map(Control::checkpoint);
            let culprit = finite::damaged_tensor(network.chain(controls))?;
            Ok(culprit.or_else(|| self.components.added_loras()))
        })
    }

    /// The ControlNets of the denoising network.
    pub(crate) fn controls(&self) -> &[Control] {
        &self.controls
    }

    /// The files of textual inversion that are added, with the user's choice of each.
    pub(crate) fn embeddings(&self) -> &[(Arc<EmbeddingFile>, EmbeddingChoice)] {
        &self.embeddings
    }

    /// The LoRA files that are added, with the user's choice of each.
    pub(crate) fn loras(&self) -> impl Iterator<Item = (&LoraFile, &LoraChoice)> {
        self.components.loras()
    }

    /// Bytes of scratch memory for adding LoRA files to the weights of `component`.
    pub(crate) fn adapting_bytes(&self, component: &str) -> u64 {
        self.components.adapting_bytes(component)
    }

    /// The tensors of `component`, from their headers.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        self.components.checkpoint(component)
    }

    /// The SHA-256 of the denoising network's weights in hexadecimal, if it is known without reading them.
    pub(crate) fn known_sha256(&self) -> Option<String> {
        self.source().known_sha256(self.family.component())
    }

    /// Checks from the configurations alone that the components fit together. Otherwise a shape error would
    /// end the run half-way.
    fn check(&self) -> Result<()> {
        let refuse = |reason: String| Error::PartsDoNotFit {
            folder: self.source().path().to_owned(),
            reason,
        };
        self.family.check(&self.scheduler, &refuse)?;
        let component = self.family.component();
        let LatentLayout {
            in_channels: taken,
            out_channels: predicted,
            ..
        } = self.family.latents();
        for (name, channels) in [
            ("in_channels", self.vae.in_channels),
            ("out_channels", self.vae.out_channels),
        ] {
            if channels != COLOURS {
                return Err(refuse(format!(
                    "{name} of the autoencoder are {channels}, and images have {COLOURS}"
                )));
            }
        }
        let latents = self.vae.latent_channels;
        if latents != predicted {
            return Err(refuse(format!(
                "the autoencoder's latents have {latents} channels and the {component} predicts {predicted}"
            )));
        }
        if latents != taken && !self.family.takes_mask(latents) {
            return Err(refuse(format!(
                "the autoencoder's latents have {latents} channels and the {component} takes {taken}"
            )));
        }
        Ok(())
    }
}
