//! The networks that a file holds, recognised by their tensors.

use super::prefixes::{ALONE, TENSOR_PREFIXES, is_left_over};
use super::{Settings, clip, mmdit, other_families, t5, unet, vae};
use crate::{Checkpoint, ModelFamily, Naming, NetworkKind, Result};

/// A network in a file.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// What it is.
    pub(crate) kind: NetworkKind,
    /// Its tensors under the names of diffusers.
    pub(crate) checkpoint: Checkpoint,
    /// Its configuration.
    pub(crate) config: Settings,
}

/// The kinds of networks, as far as names alone tell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    UNet,
    Mmdit,
    Vae,
    Clip,
    T5,
}

/// The networks in the file of `all`.
///
/// # Errors
/// It holds a model of another family, or no network but something that is known; or a tensor has a wrong
/// shape.
pub(super) fn networks(all: &Checkpoint) -> Result<Vec<Network>> {
    let mut networks = Vec::new();
    for known in TENSOR_PREFIXES {
        let below = all.selected(|name| {
            let name = name.strip_prefix(known.prefix)?;
            (!is_left_over(name)).then(|| name.to_owned())
        });
        networks.extend(network(&below, known.encoder)?);
    }
    let is_taken =
        |name: &str| TENSOR_PREFIXES.iter().any(|known| name.starts_with(known.prefix)) || is_left_over(name);
    for prefix in ALONE {
        let alone = all.selected(|name| {
            let bare = name.strip_prefix(prefix).filter(|_| !is_taken(name))?;
            Some(bare.to_owned())
        });
        networks.extend(network(&alone, None)?);
    }
    if networks.iter().all(|network| !network.kind.is_denoiser()) {
        other_families::refuse(all, networks.is_empty())?;
    }
    let kinds: Vec<NetworkKind> = networks.iter().map(|network| network.kind).collect();
    for network in &mut networks {
        network.kind = network.kind.among(&kinds, &network.checkpoint);
    }
    Ok(networks)
}

impl NetworkKind {
    /// The component that it is in a folder.
    pub(crate) fn component(self) -> &'static str {
        match self {
            Self::UNet(_) => "unet",
            Self::Mmdit => "transformer",
            Self::Vae => "vae",
            Self::ClipL | Self::ClipH => "text_encoder",
            Self::ClipG => "text_encoder_2",
            Self::T5 => "text_encoder_3",
        }
    }

    /// What it is in a model with networks of `kinds`: a UNet of SDXL with the larger text encoder alone is
    /// that of the refiner, if its width is that of neither.
    pub(crate) fn among(self, kinds: &[Self], tensors: &Checkpoint) -> Self {
        let is_alone = kinds.contains(&Self::ClipG) && !kinds.contains(&Self::ClipL);
        match self {
            Self::UNet(ModelFamily::StableDiffusionXl) if is_alone && !unet::has_width_of_xl(tensors) => {
                Self::UNet(ModelFamily::StableDiffusionXlRefiner)
            }
            other => other,
        }
    }

    /// Whether it is the network that predicts noise.
    pub(crate) fn is_denoiser(self) -> bool {
        matches!(self, Self::UNet(_) | Self::Mmdit)
    }
}

/// What the network `component` of a folder is, with its tensors under the names of diffusers. A single text
/// encoder may also be OpenCLIP-H.
///
/// # Errors
/// It is that of a model that is not supported.
pub(crate) fn network_kind(component: &str, tensors: &Checkpoint) -> Result<NetworkKind> {
    Ok(match component {
        "unet" => NetworkKind::UNet(unet::family(tensors)?),
        "transformer" => NetworkKind::Mmdit,
        "vae" => NetworkKind::Vae,
        "text_encoder_3" => NetworkKind::T5,
        "text_encoder_2" => NetworkKind::ClipG,
        _ => NetworkKind::ClipL,
    })
}

/// The network of `tensors`, if they are those of a network. `encoder` is the text encoder that their prefix
/// in the file says.
fn network(tensors: &Checkpoint, encoder: Option<NetworkKind>) -> Result<Option<Network>> {
    let Some(names) = Names::of(tensors) else {
        return Ok(None);
    };
    let network = match names {
        Names::UNet => {
            let checkpoint = tensors.translated(Naming::UNET)?;
            let family = unet::family(&checkpoint)?;
            Network {
                kind: NetworkKind::UNet(family),
                config: unet::config(&checkpoint, family),
                checkpoint,
            }
        }
        Names::Mmdit => {
            let checkpoint = mmdit::with_whole_names(tensors).translated(Naming::MMDIT)?;
            Network {
                kind: NetworkKind::Mmdit,
                config: mmdit::config(&checkpoint),
                checkpoint,
            }
        }
        Names::Vae => {
            let checkpoint = tensors.translated(Naming::VAE)?;
            let checkpoint = checkpoint.with_matrices(|name| name.contains(".attentions.0.to_"));
            vae::refuse_others(&checkpoint)?;
            Network {
                kind: NetworkKind::Vae,
                config: vae::config(&checkpoint),
                checkpoint,
            }
        }
        Names::Clip => {
            let checkpoint = tensors
                .translated(Naming::OPEN_CLIP)?
                .translated(Naming::BARE_CLIP)?;
            let kind = encoder.unwrap_or_else(|| clip::kind(&checkpoint));
            Network {
                kind,
                config: clip::config(&checkpoint, kind),
                checkpoint,
            }
        }
        Names::T5 => {
            let checkpoint = t5::with_shared_embeddings(tensors.translated(Naming::T5_GGUF)?);
            Network {
                kind: NetworkKind::T5,
                config: t5::config(&checkpoint),
                checkpoint,
            }
        }
    };
    Ok(Some(network))
}

impl Names {
    /// Whose names `tensors` have. All tensors of one of these lists are in every file of such a network.
    fn of(tensors: &Checkpoint) -> Option<Self> {
        const SIGNS: [(&[&str], Names); 11] = [
            (&["joint_blocks.0.context_block.attn.qkv.weight"], Names::Mmdit),
            (
                &[
                    "transformer_blocks.0.attn.add_q_proj.weight",
                    "pos_embed.proj.weight",
                ],
                Names::Mmdit,
            ),
            (&["input_blocks.0.0.weight", "out.2.weight"], Names::UNet),
            (
                &["down_blocks.0.resnets.0.conv1.weight", "conv_out.weight"],
                Names::UNet,
            ),
            (&["decoder.conv_in.weight", "decoder.conv_out.weight"], Names::Vae),
            (&["text_model.embeddings.token_embedding.weight"], Names::Clip),
            (&["embeddings.token_embedding.weight"], Names::Clip),
            (&["token_embedding.weight", "positional_embedding"], Names::Clip),
            (
                &["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"],
                Names::T5,
            ),
            (
                &[
                    "encoder.block.0.layer.0.SelfAttention.q.weight",
                    "encoder.embed_tokens.weight",
                ],
                Names::T5,
            ),
            (&["enc.blk.0.attn_q.weight", "token_embd.weight"], Names::T5),
        ];
        let has_all =
            |(signs, _): &&(&[&str], Names)| signs.iter().all(|tensor| tensors.header(tensor).is_some());
        SIGNS.iter().find(has_all).map(|(_, names)| *names)
    }
}
