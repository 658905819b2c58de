//! A model's files opened: configurations, tokenizers and headers. No weight is read.

use sd_models::{clip, mmdit, t5, vae};
use sd_weights::{Checkpoint, Holding, ModelFolder, Weights};
use serde::Deserialize;

use crate::recipe::FamilyDefaults;
use crate::request::{GuidanceScale, ImageSize};
use crate::scheduler::FlowMatchEulerConfig;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// diffusers gives T5 no more tokens than this unless told otherwise.
const LONGEST_T5_PROMPT: usize = 256;
/// CLIP's own limit, where a tokenizer's configuration gives none.
const CLIP_LIMIT: usize = 77;

/// A text encoder with its tokenizer.
#[derive(Debug)]
pub struct TextPart<C> {
    /// The component's folder: `text_encoder_2`, say.
    pub component: &'static str,
    /// From text to ids.
    pub tokenizer: Tokenizer,
    /// The encoder's configuration.
    pub config: C,
}

/// A Stable Diffusion 3 model in the layout of diffusers.
#[derive(Debug)]
pub struct Bundle {
    folder: ModelFolder,
    /// The smaller CLIP.
    pub clip_large: TextPart<clip::Config>,
    /// The larger CLIP.
    pub clip_big: TextPart<clip::Config>,
    /// T5, which a model can do without.
    pub t5: Option<TextPart<t5::Config>>,
    /// The transformer's configuration.
    pub transformer: mmdit::Config,
    /// The autoencoder's configuration.
    pub vae: vae::Config,
    /// The scheduler's configuration.
    pub scheduler: FlowMatchEulerConfig,
}

impl Bundle {
    /// Opens the model in `folder`.
    ///
    /// # Errors
    /// It is not there, is of another family, lacks a file, or its parts do not fit together.
    pub fn open(folder: &ModelFolder) -> Result<Self> {
        if !folder.contains("model_index.json") && !folder.contains("transformer/config.json") {
            return Err(if folder.root().is_dir() {
                let reason = "it has neither model_index.json nor transformer/config.json".to_owned();
                Error::UnknownArchitecture {
                    folder: folder.root().to_owned(),
                    reason,
                }
            } else {
                Error::NoModel {
                    folder: folder.root().to_owned(),
                }
            });
        }
        recognise(folder)?;
        let bundle = Self {
            clip_large: TextPart::open(folder, "text_encoder", "tokenizer")?,
            clip_big: TextPart::open(folder, "text_encoder_2", "tokenizer_2")?,
            t5: if has_component(folder, "text_encoder_3")? {
                Some(TextPart::open(folder, "text_encoder_3", "tokenizer_3")?)
            } else {
                None
            },
            transformer: folder.json("transformer/config.json")?,
            vae: folder.json("vae/config.json")?,
            scheduler: folder.json("scheduler/scheduler_config.json")?,
            folder: folder.clone(),
        };
        bundle.check()?;
        Ok(bundle)
    }

    /// The model's folder.
    pub fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    /// What a picture of this family is drawn with when the user does not say.
    pub fn defaults(&self) -> FamilyDefaults {
        let side = self.transformer.sample_size * self.vae.downsampling();
        FamilyDefaults {
            steps: 28,
            guidance_scale: GuidanceScale(4.5),
            // A configuration can hold any number; one that is no size gives way to the family's.
            size: ImageSize::new(side, side)
                .or(ImageSize::new(1024, 1024))
                .expect("1024 is a size. This is a bug."),
        }
    }

    /// Tokens that CLIP reads of a prompt.
    pub fn clip_length(&self) -> usize {
        self.clip_large.tokenizer.limit().unwrap_or(CLIP_LIMIT)
    }

    /// Tokens that T5 reads of a prompt, or that are left empty where there is none.
    pub fn t5_length(&self) -> usize {
        let limit = self.t5.as_ref().and_then(|part| part.tokenizer.limit());
        limit.map_or(LONGEST_T5_PROMPT, |limit| limit.min(LONGEST_T5_PROMPT))
    }

    /// Bytes of the tokenizers' files.
    pub fn tokenizer_bytes(&self) -> u64 {
        const FILES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer.json"];
        ["tokenizer", "tokenizer_2", "tokenizer_3"]
            .iter()
            .flat_map(|folder| FILES.map(|file| self.folder.length(&format!("{folder}/{file}"))))
            .sum()
    }

    /// The weights of `component`, to be held as `holding` says.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn weights(&self, component: &str, holding: &Holding) -> Result<Weights> {
        Ok(Weights::new(self.checkpoint(component)?, holding.clone()))
    }

    /// The tensors of `component`, by their headers.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        Ok(self.folder.checkpoint(component)?)
    }

    /// Whether the parts can work together, from their configurations alone: what would otherwise show as a
    /// shape error in the middle of a run.
    fn check(&self) -> Result<()> {
        let refuse = |reason: String| Error::PartsDoNotFit {
            folder: self.folder.root().to_owned(),
            reason,
        };
        self.clip_large.check(
            self.clip_large.config.vocab_size,
            Some(self.clip_large.config.max_position_embeddings),
        )?;
        self.clip_big.check(
            self.clip_big.config.vocab_size,
            Some(self.clip_big.config.max_position_embeddings),
        )?;
        if let Some(t5) = &self.t5 {
            t5.check(t5.config.vocab_size, None)?;
        }
        // Both CLIPs read the first one's length.
        let longest = self.clip_big.config.max_position_embeddings;
        if self.clip_length() > longest {
            return Err(refuse(format!(
                "text_encoder reads {} tokens and text_encoder_2 only {longest}",
                self.clip_length()
            )));
        }
        let joint = self.transformer.joint_attention_dim;
        let clip = self.clip_large.config.hidden_size + self.clip_big.config.hidden_size;
        if clip > joint {
            return Err(refuse(format!(
                "CLIP gives {clip} features and the transformer takes {joint}"
            )));
        }
        if let Some(t5) = self.t5.as_ref().filter(|t5| t5.config.d_model != joint) {
            return Err(refuse(format!(
                "T5 gives {} features and the transformer takes {joint}",
                t5.config.d_model
            )));
        }
        let pooled = self.clip_large.config.projection_dim + self.clip_big.config.projection_dim;
        let wanted = self.transformer.pooled_projection_dim;
        if pooled != wanted {
            return Err(refuse(format!(
                "CLIP's summaries have {pooled} features and the transformer takes {wanted}"
            )));
        }
        if self.vae.latent_channels != self.transformer.in_channels {
            return Err(refuse(format!(
                "the autoencoder's latents have {} channels and the transformer's {}",
                self.vae.latent_channels, self.transformer.in_channels
            )));
        }
        match self.scheduler.unsupported() {
            Some(reason) => Err(Error::Scheduler {
                folder: self.folder.root().to_owned(),
                reason,
            }),
            None => Ok(()),
        }
    }
}

impl<C: serde::de::DeserializeOwned> TextPart<C> {
    fn open(folder: &ModelFolder, component: &'static str, tokenizer: &str) -> Result<Self> {
        Ok(Self {
            component,
            tokenizer: Tokenizer::open(folder, tokenizer)?,
            config: folder.json(&format!("{component}/config.json"))?,
        })
    }

    /// Whether every id, and as many as the tokenizer may give, has a place in the encoder.
    fn check(&self, vocabulary: usize, positions: Option<usize>) -> Result<()> {
        let refuse = |gives: String, takes: String| Error::TokenizerDoesNotFit {
            folder: self.tokenizer.folder().to_owned(),
            gives,
            takes,
        };
        let ids = self.tokenizer.vocabulary_size();
        if ids > vocabulary {
            return Err(refuse(
                format!("gives {ids} different ids"),
                format!("{vocabulary}"),
            ));
        }
        match (self.tokenizer.limit(), positions) {
            (Some(limit), Some(positions)) if limit > positions => Err(refuse(
                format!("gives up to {limit} ids for a prompt"),
                format!("{positions}"),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether the model has `component`: its index may say that it is left out, or its folder may be missing.
fn has_component(folder: &ModelFolder, component: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(flatten)]
        components: std::collections::BTreeMap<String, serde_json::Value>,
    }
    if folder.contains("model_index.json") {
        let index: Index = folder.json("model_index.json")?;
        let listed = index.components.get(component).and_then(|entry| entry.get(1));
        return Ok(listed.is_some_and(|class| !class.is_null()));
    }
    Ok(folder.contains(&format!("{component}/config.json")))
}

/// Recognises the family by the transformer's tensors, never by a name.
fn recognise(folder: &ModelFolder) -> Result<()> {
    let unknown = |reason: String| Error::UnknownArchitecture {
        folder: folder.root().to_owned(),
        reason,
    };
    if !folder.contains("transformer/config.json") {
        return Err(unknown("it has no transformer/config.json".to_owned()));
    }
    let checkpoint = folder.checkpoint("transformer")?;
    for tensor in [
        "pos_embed.proj.weight",
        "context_embedder.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
    ] {
        if checkpoint.header(tensor).is_none() {
            return Err(unknown(format!("its transformer has no tensor `{tensor}`")));
        }
    }
    Ok(())
}
