//! The ControlNets for the transformer of Stable Diffusion 3.

use std::any::Any;

use sd_models::mmdit::control::{Config, ControlNet};
use sd_models::vae::Scaling;
use sd_weights::Weights;

use crate::Result;
use crate::components;
use crate::family::control::{ControlInput, ControlModel, ControlRecognition, ControlWeights};
use crate::family::titles::STABLE_DIFFUSION_3;
use crate::request::ControlKind;

/// How they are recognised.
pub(in crate::family) const CONTROLNETS: ControlRecognition = ControlRecognition {
    network: STABLE_DIFFUSION_3,
    tensors: ["pos_embed_input.proj.weight", "controlnet_blocks.0.weight"],
    classes: components::CONTROLNETS_OF_TRANSFORMERS,
    open: |source, component| Ok(Box::new(Sd3Control(source.config(component)?.json()?))),
};

/// A ControlNet for a transformer.
#[derive(Debug)]
struct Sd3Control(Config);

impl ControlModel for Sd3Control {
    fn title(&self) -> &'static str {
        STABLE_DIFFUSION_3
    }

    fn check(&self, weights: Weights) -> Result<()> {
        ControlNet::new(weights, &self.0)?;
        Ok(())
    }

    fn input(&self, kind: ControlKind) -> ControlInput {
        // Stability AI's ControlNets for Large were trained with edges from 0.5 to 128.
        let is_for_large = self.0.joint_attention_dim.is_none();
        let edges = is_for_large && kind == ControlKind::Canny;
        ControlInput {
            pixels: edges.then_some((0.25 * 255.0, 0.25 * 255.0 + 0.5)),
            // ControlNets that were trained without pooled prompts were also trained without the shift of
            // latents.
            latents: Some(if self.0.force_zeros_for_pooled_projection {
                Scaling::Factor
            } else {
                Scaling::Shifted
            }),
        }
    }
}

/// The configuration of `control`, if it is for a transformer.
pub(super) fn config(control: &dyn ControlModel) -> Option<&Config> {
    let control: &dyn Any = control;
    Some(&control.downcast_ref::<Sd3Control>()?.0)
}

/// The networks of `controls`, with their scales. No weight is read yet.
///
/// # Errors
/// A configuration is not supported, or a file lacks a tensor of it.
pub(super) fn networks(controls: Vec<ControlWeights<'_>>) -> Result<Vec<(ControlNet, f64)>> {
    let network = |control: ControlWeights<'_>| {
        let config =
            config(control.config).expect("a ControlNet of another kind was refused before. This is a bug.");
        Ok((ControlNet::new(control.weights, config)?, control.scale))
    };
    controls.into_iter().map(network).collect()
}
