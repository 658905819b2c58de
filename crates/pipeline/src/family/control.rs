//! The contract of ControlNets, and how they are recognised.

use std::any::Any;
use std::fmt::Debug;

use sd_models::vae::Scaling;
use sd_weights::{ModelSource, Weights};

use crate::components;
use crate::request::ControlKind;
use crate::{Error, Result};

/// A recognised ControlNet, by its configuration. A family knows the type of those for its network.
pub trait ControlModel: Any + Debug + Send + Sync {
    /// The name of the models that it is for, as far as its configuration shows.
    fn title(&self) -> &'static str;

    /// Refuses `weights` that lack a tensor of the configuration.
    ///
    /// # Errors
    /// They do.
    fn check(&self, weights: Weights) -> Result<()>;

    /// The form of a control image of `kind` that the network takes.
    fn input(&self, kind: ControlKind) -> ControlInput;

    /// Why it cannot be used with a model of `wanted`.
    fn made_for(&self, wanted: &str) -> String {
        let family = self.title();
        if family == wanted {
            format!("it is for another UNet of {family}")
        } else {
            format!("it is for {family}, and the model is {wanted}")
        }
    }
}

/// The form of a control image that a ControlNet takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ControlInput {
    /// The factor and the summand of pixel values from -1 to 1. None for unchanged values.
    pub pixels: Option<(f64, f64)>,
    /// The scaling of the VAE's latents, for a network that takes latents. None for one that takes pixels.
    pub latents: Option<Scaling>,
}

/// The weights of a ControlNet, of which none is read yet, with its configuration and scale.
#[derive(Debug)]
pub struct ControlWeights<'a> {
    /// Its weights.
    pub weights: Weights,
    /// Its configuration.
    pub config: &'a dyn ControlModel,
    /// The conditioning scale; 1 is the scale of training.
    pub scale: f64,
}

/// How the ControlNets for a kind of network are recognised.
#[derive(Debug)]
pub(super) struct ControlRecognition {
    /// The network that they are for.
    pub(super) network: &'static str,
    /// Tensors that all of them have, and no other ControlNet.
    pub(super) tensors: [&'static str; 2],
    /// The classes that their configurations name.
    pub(super) classes: &'static [&'static str],
    /// Reads the configuration of a component.
    pub(super) open: fn(&dyn ModelSource, &str) -> Result<Box<dyn ControlModel>>,
}

/// The ControlNet in the `component` of `source`, by the first of the `known` recognitions whose tensors it
/// has.
///
/// # Errors
/// It is of an unknown kind, or a file is wrong.
pub(super) fn recognise(
    source: &dyn ModelSource,
    component: &str,
    known: &[&ControlRecognition],
) -> Result<Box<dyn ControlModel>> {
    let checkpoint = source.checkpoint(component)?;
    let has = |tensor: &&str| checkpoint.header(tensor).is_some();
    if let Some(recognised) = known.iter().find(|kind| kind.tensors.iter().all(has)) {
        components::check_class(source, None, component, recognised.classes)?;
        return (recognised.open)(source, component);
    }
    let kinds = known
        .iter()
        .map(|kind| format!("of one for {} ({})", kind.network, kind.tensors.join(", ")));
    Err(Error::ForeignControl {
        folder: source.path().join(component),
        reason: format!(
            "it has neither the tensors {}",
            kinds.collect::<Vec<_>>().join(" nor ")
        ),
    })
}
