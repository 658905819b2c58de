//! The families of models: for each how it is recognised, its defaults, its text encoders and its denoising
//! network.
//!
//! A family is one folder here and one line in `FAMILIES`, and its kind of ControlNets one line in
//! `CONTROLNETS`. The rest of the pipeline uses only the contracts: [`Family`] with its [`TextEncoders`],
//! [`Denoiser`], and [`ControlModel`].

mod contract;
mod control;
mod control_units;
mod denoiser;
mod encoded_prompt;
mod layout;
mod refiner;
mod sd;
mod sd3;
mod sdxl;
mod text;
mod titles;
#[cfg(test)]
mod toy;
mod unet;

pub use contract::{
    Defaults, EncoderStage, EncoderWeights, Family, LatentLayout, Task, TextComponent, TextEncoders,
};
pub use control::{ControlInput, ControlModel, ControlWeights};
pub use denoiser::{ConditioningInputs, Denoiser, DenoiserInput};
pub use encoded_prompt::EncodedPrompt;
pub use layout::{Description, described};
pub(crate) use layout::{NETWORKS, TEXT_ENCODERS};

use sd_weights::ModelSource;

use crate::components::ModelIndex;
use crate::tokenizer::Tokenizers;
use crate::{Error, Result};
use control::ControlRecognition;

/// Recognises a model of one family by its configurations and tensors, never by a name. None if the model is
/// of another family.
type Recognise = fn(&dyn ModelSource, &ModelIndex, &Tokenizers) -> Result<Option<Box<dyn Family>>>;

/// The families, in the order in which they are tried.
const FAMILIES: &[Recognise] = &[
    sd3::recognise,
    unet::recognise::<sdxl::StableDiffusionXl>,
    unet::recognise::<refiner::Refiner>,
    unet::recognise::<sd::StableDiffusion>,
    #[cfg(test)]
    toy::recognise,
];

/// The kinds of ControlNets, in the order in which they are tried.
const CONTROLNETS: &[&ControlRecognition] = &[&unet::CONTROLNETS, &sd3::CONTROLNETS];

/// The family of a model, whose tokenizers are taken from `tokenizers`.
///
/// # Errors
/// The model is of no known family, or its files are wrong.
pub(crate) fn recognise(
    source: &dyn ModelSource,
    index: &ModelIndex,
    tokenizers: &Tokenizers,
) -> Result<Box<dyn Family>> {
    for recognise in FAMILIES {
        if let Some(family) = recognise(source, index, tokenizers)? {
            return Ok(family);
        }
    }
    Err(layout::unrecognised(source, index))
}

/// The ControlNet in `component`, recognised by its tensors, never by a name.
///
/// # Errors
/// It is of an unknown kind, or a file is wrong.
pub(crate) fn recognise_control(source: &dyn ModelSource, component: &str) -> Result<Box<dyn ControlModel>> {
    control::recognise(source, component, CONTROLNETS)
}

/// The error of a model of no known family.
fn unknown(source: &dyn ModelSource, reason: String) -> Error {
    Error::UnknownArchitecture {
        folder: source.path().to_owned(),
        reason,
    }
}
