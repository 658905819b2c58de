//! The transformer of Stable Diffusion 3 as a [`Denoiser`]: ControlNets run interleaved with it, block by
//! block.

use candle_core::Tensor;
use sd_models::mmdit::control::{self, ControlNet};
use sd_models::mmdit::{self, Transformer};
use sd_models::{Conditioned, Footprint, Load, Work};
use sd_weights::Weights;

use crate::Result;
use crate::family::control_units::{ControlNetwork, ControlUnits};
use crate::family::denoiser::conditions_of;
use crate::family::{ConditioningInputs, Denoiser, DenoiserInput};

/// A transformer with its ControlNets.
#[derive(Debug)]
pub(super) struct Sd3Denoiser {
    network: Box<Transformer>,
    conditions: Option<mmdit::Conditions>,
    controls: ControlUnits<ControlNet>,
}

impl ControlNetwork for ControlNet {
    type Conditions = control::Conditions;

    fn only(conditions: &Self::Conditions, prompt: usize) -> Self::Conditions {
        conditions.only(prompt)
    }

    fn load(&self) -> sd_models::Result<()> {
        self.load()
    }
}

impl Sd3Denoiser {
    /// The transformer of `config`, with ControlNets and their scales. No weight is read yet.
    ///
    /// # Errors
    /// The configuration is not supported, or the file lacks a tensor of it.
    pub(super) fn new(
        weights: Weights,
        config: &mmdit::Config,
        controls: Vec<(ControlNet, f64)>,
    ) -> Result<Self> {
        Ok(Self {
            network: Box::new(Transformer::new(weights, config)?),
            conditions: None,
            controls: ControlUnits::new(controls),
        })
    }

    fn control_networks(&self) -> Vec<&ControlNet> {
        self.controls.iter().map(|control| &*control.network).collect()
    }
}

impl Denoiser for Sd3Denoiser {
    fn conditioned(&self) -> &dyn Conditioned {
        &*self.network
    }

    fn controls(&self) -> Vec<&dyn Conditioned> {
        self.controls.conditioned()
    }

    fn footprint(&self, load: Load) -> (Vec<u64>, u64) {
        let controls = self.control_networks();
        let Footprint { activations, scratch } = self.network.forward_footprint(load, &controls);
        // All blocks have the same size.
        let blocks = self.network.weight_bytes().blocks.len();
        (vec![activations; blocks], scratch)
    }

    fn work(&self, load: Load) -> Work {
        self.network.forward_work(load, &self.control_networks())
    }

    fn condition(
        &mut self,
        inputs: &ConditioningInputs<'_>,
        control_image: &dyn Fn(usize) -> Result<Tensor>,
    ) -> Result<()> {
        let device = inputs.device;
        let context = inputs.prompts.context.to_device(device)?;
        let pooled = inputs.prompts.pooled.as_ref();
        let pooled = pooled
            .expect("the prompts of Stable Diffusion 3 are pooled. This is a bug.")
            .to_device(device)?;
        self.controls.condition(device, control_image, |network, image| {
            network.condition(inputs.timesteps, &context, &pooled, image)
        })?;
        let conditions = self
            .network
            .condition(inputs.timesteps, &context, &pooled, inputs.latents)?;
        self.conditions = Some(conditions);
        Ok(())
    }

    fn load(&self) -> Result<()> {
        Ok(self.network.load()?)
    }

    fn forward(&self, inputs: &[DenoiserInput], evaluation: usize) -> Result<Vec<Tensor>> {
        let conditions = conditions_of(self.conditions.as_ref(), inputs, mmdit::Conditions::only);
        let of_controls = self.controls.iter().map(|control| control.conditions_of(inputs));
        let of_controls: Vec<Vec<control::Conditions>> = of_controls.collect();
        let controls: Vec<control::Control<'_>> = self
            .controls
            .iter()
            .zip(&of_controls)
            .map(|(control, conditions)| control::Control {
                network: &control.network,
                conditions,
                scale: control.scale,
            })
            .collect();
        let inputs: Vec<mmdit::Input<'_>> = inputs
            .iter()
            .zip(&conditions)
            .map(|(input, conditions)| mmdit::Input {
                latents: &input.latents,
                conditions,
            })
            .collect();
        Ok(self.network.forward(&inputs, &controls, evaluation)?)
    }
}
