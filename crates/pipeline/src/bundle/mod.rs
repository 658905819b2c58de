//! A model's files opened: configurations, tokenizers and headers. No weight is read.

mod adaptation;
mod classes;
mod control;
mod family;
mod files;
mod index;
mod kind;
mod text;

use sd_models::vae;

use candle_core::Device;
use sd_weights::{
    Checkpoint, LoraFile, ModelFolder, ModelPart, Residency, WeightOptions, WeightType, Weights,
};

pub(crate) use control::EDGES;
pub use control::{Control, ControlConfig};
pub use family::{Denoiser, Family, FamilyDefaults};
pub use files::Choice;
pub use kind::Kind;
pub use text::{TextEncoders, TextPart};

use crate::family::{self as families, Sd3Denoiser, UNetDenoiser};
use crate::request::{ControlChoice, ImageSize, LoraChoice};
use crate::scheduler::SchedulerConfig;
use crate::{Error, Result};
use adaptation::Adaptation;
use index::Index;

/// Channels of a picture.
const COLOURS: usize = 3;
/// Numbers that a UNet of Stable Diffusion XL is told beside the text: three sizes, each of two numbers.
const NUMBERS_OF_XL: usize = 6;
/// What its refiner is told: two sizes and an aesthetic score.
const NUMBERS_OF_REFINER: usize = 5;

/// A model in the layout of diffusers.
#[derive(Debug)]
pub struct Bundle {
    folder: ModelFolder,
    /// What the model is one of.
    pub family: Family,
    /// The text encoders.
    pub text: TextEncoders,
    /// The denoising network's configuration.
    pub denoiser: Denoiser,
    /// The autoencoder's configuration.
    pub vae: vae::Config,
    /// The scheduler's configuration.
    pub scheduler: SchedulerConfig,
    /// Whether the vectors of a negative prompt that was left out are zeros.
    pub zeros_without_negative_prompt: bool,
    /// Whether the model says that it is drawn by one of diffusers' pipelines for latent consistency models.
    pub is_latent_consistency: bool,
    adaptation: Adaptation,
    controls: Vec<Control>,
}

impl Bundle {
    const SCHEDULER: &str = "scheduler/scheduler_config.json";

    /// Opens the model in `folder`.
    ///
    /// # Errors
    /// It is not there, is of another family, lacks a file, or its parts do not fit together.
    pub fn open(folder: &ModelFolder) -> Result<Self> {
        if !folder.is_embedded() && !folder.root().is_dir() {
            return Err(Error::NoModel {
                folder: folder.root().to_owned(),
            });
        }
        let index = Index::open(folder)?;
        let denoiser = Denoiser::open(folder, &index)?;
        let text = TextEncoders::open(folder, &index)?;
        classes::check(folder, Some(&index), "vae", classes::AUTOENCODERS)?;
        let family = family(folder, &denoiser, &text)?;
        let vae: vae::Config = folder.json("vae/config.json")?;
        vae.check()?;
        let scheduler = String::from_utf8_lossy(&folder.bytes(Self::SCHEDULER)?).into_owned();
        let mut scheduler =
            SchedulerConfig::parse(&scheduler).map_err(|error| sd_weights::Error::BadText {
                file: folder.root().join(Self::SCHEDULER),
                reason: error.to_string(),
            })?;
        // The index has the last word, as it has in diffusers.
        if let Some(class) = index.class_of("scheduler") {
            scheduler.class_name = Some(class.to_owned());
        }
        let bundle = Self {
            family,
            text,
            denoiser,
            vae,
            scheduler,
            zeros_without_negative_prompt: family.knows_zeros_for_empty_prompt()
                && index.zeros_for_empty_prompt(),
            is_latent_consistency: index.is_latent_consistency(),
            adaptation: Adaptation::default(),
            controls: Vec::new(),
            folder: folder.clone(),
        };
        bundle.check()?;
        Ok(bundle)
    }

    /// The model's folder.
    pub fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    /// What a picture of this model is drawn with when the user does not say.
    pub fn defaults(&self) -> FamilyDefaults {
        let latents = match self.family {
            Family::StableDiffusion if !self.is_latent_consistency => self.denoiser.corrected_size(),
            _ => self.denoiser.trained_size(),
        };
        let pixels = |side: usize| side.saturating_mul(self.vae.downsampling());
        self.family
            .defaults(latents.map(|(rows, columns)| (pixels(rows), pixels(columns))))
    }

    /// Tokens that steer the denoising network, for a text that CLIP reads in so many `chunks`.
    pub fn tokens(&self, chunks: usize) -> usize {
        let clip = chunks * self.text.clip_length();
        match self.family {
            Family::StableDiffusion3 => clip + self.text.t5_length(),
            _ => clip,
        }
    }

    /// Features of a text's pooled vector, if the denoising network takes one.
    pub fn pooled_features(&self) -> Option<usize> {
        match &self.denoiser {
            Denoiser::Transformer(config) => Some(config.pooled_projection_dim),
            Denoiser::UNet(config) => config.pooled_features(self.numbers()),
        }
    }

    /// Whether the denoising network is told of a mask, and of what it leaves, beside the latents.
    pub fn is_told_of_masks(&self) -> bool {
        self.denoiser.in_channels() > self.vae.latent_channels
    }

    /// How many numbers the denoising network is told beside the text.
    pub fn numbers(&self) -> usize {
        match self.family {
            Family::StableDiffusionXl => NUMBERS_OF_XL,
            Family::StableDiffusionXlRefiner => NUMBERS_OF_REFINER,
            Family::StableDiffusion | Family::StableDiffusion3 => 0,
        }
    }

    /// Bytes of the tokenizers' files.
    pub fn tokenizer_bytes(&self) -> u64 {
        const FILES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer.json"];
        TextEncoders::FOLDERS
            .iter()
            .flat_map(|(_, folder)| FILES.map(|file| self.folder.length(&format!("{folder}/{file}"))))
            .sum()
    }

    /// The weights of `component`, to be held as `weight_options` says.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn weights(&self, component: &str, weight_options: &WeightOptions) -> Result<Weights> {
        let weights = Weights::new(self.checkpoint(component)?, weight_options.clone());
        Ok(match self.adaptation.of(component) {
            Some(adapters) => weights.with_adapters(adapters.clone()),
            None => weights,
        })
    }

    /// Refuses to go on from the latents of `other`, where they mean another picture here.
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
            folder: self.folder.root().to_owned(),
            other: other.folder.root().to_owned(),
        })
    }

    /// Has a LoRA file added to the weights while these are read. With `values` it is read once now, and refused if a value
    /// is not finite.
    ///
    /// # Errors
    /// The file cannot be read, or is not for this model, which then stays as it was.
    pub(crate) fn adapt(&mut self, choice: &LoraChoice, values: bool) -> Result<()> {
        let text = [
            ModelPart::TextEncoder,
            ModelPart::TextEncoder2,
            ModelPart::TextEncoder3,
        ];
        let text = text
            .into_iter()
            .zip(TextEncoders::FOLDERS.map(|(encoder, _)| encoder));
        let denoiser = (ModelPart::Denoiser, self.denoiser.component());
        let used = |component: &str| {
            component == denoiser.1 || self.text.components().any(|encoder| encoder == component)
        };
        let networks = std::iter::once(denoiser)
            .chain(text)
            .filter(|(_, component)| used(component))
            .map(|(part, component)| Ok((part, component, self.checkpoint(component)?)));
        let networks = networks.collect::<Result<Vec<_>>>()?;
        self.adaptation.add(choice, &networks, values)
    }

    /// Has a ControlNet steer the denoising network, for pictures of `size`.
    ///
    /// # Errors
    /// A file is missing or wrong, or the ControlNet is not for this model, which then stays as it was.
    pub(crate) fn control(&mut self, choice: &ControlChoice, size: ImageSize) -> Result<()> {
        let control = Control::open(choice, &self.denoiser, &self.vae, size)?;
        // What would otherwise show in the middle of the run.
        let weight_options = WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Streamed);
        control.check(&weight_options)?;
        self.controls.push(control);
        Ok(())
    }

    /// Reads the pictures that the ControlNets follow. Those whose pictures cannot be read steer no longer, and are given back
    /// with the reason.
    pub(crate) fn read_controls(&mut self) -> Vec<(ControlChoice, Error)> {
        let mut failed = Vec::new();
        self.controls.retain_mut(|control| {
            let read = control.read_picture();
            read.map_err(|error| failed.push((control.choice.clone(), error)))
                .is_ok()
        });
        failed
    }

    /// The denoising network with its ControlNets. No weight is read yet. The network's are held as `weight_options` says, the
    /// ControlNets' as `control_options` says.
    ///
    /// # Errors
    /// A file is missing, or its configuration cannot be used.
    pub(crate) fn denoising_network(
        &self,
        weight_options: &WeightOptions,
        control_options: &WeightOptions,
    ) -> Result<Box<dyn families::Denoiser>> {
        const OTHER: &str = "a ControlNet of another kind was refused before. This is a bug.";
        let weights = self.weights(self.denoiser.component(), weight_options)?;
        Ok(match &self.denoiser {
            Denoiser::UNet(config) => {
                let mut network = UNetDenoiser::new(weights, config)?;
                for control in &self.controls {
                    match &control.config {
                        ControlConfig::UNet(config) => network.add_control(
                            control.weights(control_options)?,
                            config,
                            control.choice.scale,
                        )?,
                        ControlConfig::Transformer(_) => unreachable!("{OTHER}"),
                    }
                }
                Box::new(network)
            }
            Denoiser::Transformer(config) => {
                let mut network = Sd3Denoiser::new(weights, config)?;
                for control in &self.controls {
                    match &control.config {
                        ControlConfig::Transformer(config) => network.add_control(
                            control.weights(control_options)?,
                            config,
                            control.choice.scale,
                        )?,
                        ControlConfig::UNet(_) => unreachable!("{OTHER}"),
                    }
                }
                Box::new(network)
            }
        })
    }

    /// The ControlNets that run beside the denoising network.
    pub(crate) fn controls(&self) -> &[Control] {
        &self.controls
    }

    /// The LoRA files that are added, each as it was chosen.
    pub(crate) fn loras(&self) -> impl Iterator<Item = (&LoraFile, &LoraChoice)> {
        self.adaptation.files()
    }

    /// Bytes that adding LoRA files to the weights of `component` takes beside these.
    pub(crate) fn adapting_bytes(&self, component: &str) -> u64 {
        self.adaptation
            .of(component)
            .map_or(0, |adapters| adapters.scratch_bytes())
    }

    /// The tensors of `component`, by their headers.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        Ok(self.folder.checkpoint(component)?)
    }

    /// SHA-256 of the denoising network's weights, in hexadecimal digits, where it is known without reading them.
    pub(crate) fn known_sha256(&self) -> Option<String> {
        self.folder.known_sha256(self.denoiser.component())
    }

    /// Whether the parts can work together, from their configurations alone: what would otherwise show as a
    /// shape error in the middle of a run.
    fn check(&self) -> Result<()> {
        let refuse = |reason: String| Error::PartsDoNotFit {
            folder: self.folder.root().to_owned(),
            reason,
        };
        self.text.check(refuse)?;
        let (clip, context) = (self.text.clip_features(), self.denoiser.context_features());
        let component = self.denoiser.component();
        // Only Stable Diffusion 3 has room for more than the CLIPs give.
        if clip > context || clip < context && self.family != Family::StableDiffusion3 {
            return Err(refuse(format!(
                "CLIP gives {clip} features and the {component} takes {context}"
            )));
        }
        if let Some(t5) = self.text.t5.as_ref().filter(|t5| t5.config.d_model != context) {
            return Err(refuse(format!(
                "T5 gives {} features and the {component} takes {context}",
                t5.config.d_model
            )));
        }
        if let Some(wanted) = self.pooled_features() {
            let pooled = self.pooled_of_clips();
            if pooled != wanted {
                return Err(refuse(format!(
                    "CLIP's summaries have {pooled} features and the {component} takes {wanted}"
                )));
            }
        }
        if self.family == Family::StableDiffusion3 && !self.scheduler.is_flow() {
            let class = self.scheduler.class_name.as_deref().unwrap_or("no class");
            return Err(refuse(format!(
                "its {component} follows rectified flow, and its scheduler is {class}"
            )));
        }
        for (name, channels) in [
            ("in_channels", self.vae.in_channels),
            ("out_channels", self.vae.out_channels),
        ] {
            if channels != COLOURS {
                return Err(refuse(format!(
                    "{name} of the autoencoder are {channels}, and pictures have {COLOURS}"
                )));
            }
        }
        let (latents, taken) = (self.vae.latent_channels, self.denoiser.in_channels());
        let predicted = self.denoiser.out_channels();
        if latents != predicted {
            return Err(refuse(format!(
                "the autoencoder's latents have {latents} channels and the {component} predicts {predicted}"
            )));
        }
        // For inpainting a UNet takes a mask and masked latents too.
        let inpaints = matches!(self.denoiser, Denoiser::UNet(_)) && taken == 2 * latents + 1;
        if latents != taken && !inpaints {
            return Err(refuse(format!(
                "the autoencoder's latents have {latents} channels and the {component} takes {taken}"
            )));
        }
        Ok(())
    }

    /// Features of the pooled vectors that the family puts together.
    fn pooled_of_clips(&self) -> usize {
        let clips = self.text.clips.iter().map(|part| part.config.projection_dim);
        match self.family {
            Family::StableDiffusion3 => clips.sum(),
            _ => clips.last().unwrap_or(0),
        }
    }
}

/// Which family the parts make, if any.
fn family(folder: &ModelFolder, denoiser: &Denoiser, text: &TextEncoders) -> Result<Family> {
    let components = || {
        let clips = text.clips.iter().map(|part| part.component);
        clips
            .chain(text.t5.iter().map(|part| part.component))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let found = match (denoiser, text.clips.as_slice()) {
        (Denoiser::Transformer(_), [_, _]) => Some(Family::StableDiffusion3),
        (Denoiser::UNet(config), [.., last]) => match config.time_id_count(last.config.projection_dim) {
            None if text.clips.len() == 1 && config.addition_embed_type.is_none() => {
                Some(Family::StableDiffusion)
            }
            Some(NUMBERS_OF_XL) if text.clips.len() == 2 => Some(Family::StableDiffusionXl),
            Some(NUMBERS_OF_REFINER) if text.clips.len() == 1 => Some(Family::StableDiffusionXlRefiner),
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| {
        family::unknown(
            folder,
            format!(
                "its {} with the text encoders {} makes no family that is known",
                denoiser.component(),
                components()
            ),
        )
    })
}
