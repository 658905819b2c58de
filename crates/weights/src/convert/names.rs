//! The tensors of a single file: under the names of the original programs, made of those of diffusers.

use std::collections::BTreeMap;

use super::input::{Input, InputNetwork};
use crate::model_source::NetworkKind;
use crate::naming::{Layout, Naming};
use crate::{Checkpoint, ModelFamily, Result};

/// A tensor that is written.
#[derive(Debug)]
pub(super) struct OutputTensor {
    /// The name.
    pub(super) name: String,
    /// The shape.
    pub(super) shape: Vec<usize>,
    /// The tensors that it consists of, one after the other in the order of its rows.
    pub(super) pieces: Vec<Piece>,
    /// Whether it may be quantised: a large matrix of a network that is not sensitive to it.
    pub(super) is_large: bool,
}

/// A tensor of the source, or rows of it.
#[derive(Debug)]
pub(super) struct Piece {
    /// The network.
    pub(super) network: usize,
    /// The name in diffusers.
    pub(super) tensor: String,
    /// The order of its values in the target.
    pub(super) layout: Layout,
}

/// The prefix of a network in a single file of a model with `denoiser`, and the naming of its tensors there.
fn place(kind: NetworkKind, denoiser: Option<NetworkKind>) -> (&'static str, Option<Naming>) {
    use ModelFamily::{StableDiffusionXl, StableDiffusionXlRefiner};
    let Some(denoiser) = denoiser else {
        // A network alone.
        return ("", own_naming(kind));
    };
    let is_third = denoiser == NetworkKind::Mmdit;
    let is_xl = denoiser == NetworkKind::UNet(StableDiffusionXl);
    let is_refiner = denoiser == NetworkKind::UNet(StableDiffusionXlRefiner);
    match kind {
        NetworkKind::UNet(_) | NetworkKind::Mmdit => ("model.diffusion_model.", own_naming(kind)),
        NetworkKind::Vae => ("first_stage_model.", own_naming(kind)),
        NetworkKind::ClipL if is_third => ("text_encoders.clip_l.transformer.", None),
        NetworkKind::ClipL if is_xl => ("conditioner.embedders.0.transformer.", None),
        NetworkKind::ClipL => ("cond_stage_model.transformer.", None),
        NetworkKind::ClipG if is_third => ("text_encoders.clip_g.transformer.", None),
        NetworkKind::ClipG if is_refiner => ("conditioner.embedders.0.model.", Some(Naming::OPEN_CLIP)),
        NetworkKind::ClipG => ("conditioner.embedders.1.model.", Some(Naming::OPEN_CLIP)),
        NetworkKind::ClipH => ("cond_stage_model.model.", Some(Naming::OPEN_CLIP)),
        NetworkKind::T5 => ("text_encoders.t5xxl.transformer.", None),
    }
}

/// The naming of a denoising network or an autoencoder in the original programs. Text encoders alone keep the
/// names of transformers.
fn own_naming(kind: NetworkKind) -> Option<Naming> {
    match kind {
        NetworkKind::UNet(_) => Some(Naming::UNET),
        NetworkKind::Mmdit => Some(Naming::MMDIT),
        NetworkKind::Vae => Some(Naming::VAE),
        _ => None,
    }
}

/// The tensors of the single file of `input`, in the order of its networks and of their names.
pub(super) fn of_single_file(input: &Input) -> Result<Vec<OutputTensor>> {
    let is_alone = input.networks.len() == 1;
    let denoiser = input.denoiser().filter(|_| !is_alone);
    let mut tensors = Vec::new();
    for (index, network) in input.networks.iter().enumerate() {
        let (prefix, naming) = place(network.kind, denoiser);
        tensors.extend(of_network(network, index, prefix, naming));
    }
    Ok(tensors)
}

/// The tensors of a network in a folder of diffusers, under their own names.
pub(super) fn of_folder(input: &Input, network: usize) -> Vec<OutputTensor> {
    of_network(&input.networks[network], network, "", None)
}

fn of_network(
    network: &InputNetwork,
    index: usize,
    prefix: &str,
    naming: Option<Naming>,
) -> Vec<OutputTensor> {
    let checkpoint = &network.checkpoint;
    let translation = naming.map(|naming| naming.translation(checkpoint.tensors().map(|(name, _)| name)));
    // The pieces of each tensor of the target, by their index in it.
    let mut groups: BTreeMap<String, BTreeMap<usize, Piece>> = BTreeMap::new();
    for (name, _) in checkpoint.tensors() {
        let translated = translation
            .as_ref()
            .and_then(|translation| translation.other_name(name));
        let (target, layout) = match translated {
            Some(translated) => (translated.name, translated.layout),
            None => (name.to_owned(), Layout::Same),
        };
        let place = match layout {
            Layout::Part { index, .. } => index,
            _ => 0,
        };
        let piece = Piece {
            network: index,
            tensor: name.to_owned(),
            layout,
        };
        groups
            .entry(format!("{prefix}{target}"))
            .or_default()
            .insert(place, piece);
    }
    let kind = network.kind;
    groups
        .into_iter()
        .map(|(name, pieces)| {
            let pieces: Vec<Piece> = pieces.into_values().collect();
            let shape = shape(checkpoint, &pieces, kind, naming.is_some());
            OutputTensor {
                is_large: is_large(kind, &name, &shape),
                name,
                shape,
                pieces,
            }
        })
        .collect()
}

/// The shape of a tensor that consists of `pieces`, in the original programs or in diffusers.
fn shape(checkpoint: &Checkpoint, pieces: &[Piece], kind: NetworkKind, is_original: bool) -> Vec<usize> {
    let shapes = pieces.iter().filter_map(|piece| checkpoint.header(&piece.tensor));
    let mut shapes = shapes.map(|header| header.shape.clone());
    let Some(mut shape) = shapes.next() else {
        return Vec::new();
    };
    for other in shapes {
        if let (Some(rows), Some(more)) = (shape.first_mut(), other.first()) {
            *rows += more;
        }
    }
    match pieces.first() {
        Some(piece) if piece.layout == Layout::Transposed => shape.reverse(),
        // The original autoencoders have convolutions of single pixels here.
        Some(piece)
            if is_original && kind == NetworkKind::Vae && is_attention(&piece.tensor) && shape.len() == 2 =>
        {
            shape.extend([1, 1]);
        }
        _ => {}
    }
    shape
}

/// Whether a tensor of an autoencoder is the weight of a projection of its attention.
fn is_attention(tensor: &str) -> bool {
    tensor.contains(".attentions.0.to_") && tensor.ends_with(".weight")
}

/// Whether a tensor may be quantised. Embeddings, the first and the last layers, modulations of the whole and
/// everything that is no matrix stay as they are; so do CLIP and the autoencoder, which are small.
fn is_large(kind: NetworkKind, name: &str, shape: &[usize]) -> bool {
    const KEPT: [&str; 15] = [
        "time_embed.",
        "label_emb.",
        "time_embedding.",
        "add_embedding.",
        "x_embedder.",
        "t_embedder.",
        "y_embedder.",
        "pos_embed",
        "context_embedder.",
        "final_layer.",
        "time_text_embed.",
        "proj_out.weight",
        "norm_out.",
        "shared.",
        "relative_attention_bias",
    ];
    let is_network = matches!(kind, NetworkKind::UNet(_) | NetworkKind::Mmdit | NetworkKind::T5);
    // `proj_out` is the last layer of a transformer, but one of many in a UNet.
    let is_kept = KEPT.iter().any(|part| {
        name.contains(part) && !(*part == "proj_out.weight" && matches!(kind, NetworkKind::UNet(_)))
    });
    is_network && shape.len() == 2 && !is_kept && name.ends_with(".weight")
}
