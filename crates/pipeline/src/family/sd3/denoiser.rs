//! The transformer of Stable Diffusion 3 as a [`Denoiser`]: ControlNets run interleaved with it, block by block.

use candle_core::Tensor;
use sd_models::mmdit::control::{self, ControlNet};
use sd_models::mmdit::{self, Transformer};
use sd_models::{Conditioned, Footprint, Load};
use sd_weights::Weights;

use crate::family::denoiser::UNCONDITIONED;
use crate::family::{ConditioningInputs, Denoiser, DenoiserInput};
use crate::{Result, device};

/// A transformer with its ControlNets.
#[derive(Debug)]
pub(crate) struct Sd3Denoiser {
    network: Box<Transformer>,
    conditions: Option<mmdit::Conditions>,
    controls: Vec<ControlUnit>,
}

/// A ControlNet with its scale.
#[derive(Debug)]
struct ControlUnit {
    network: Box<ControlNet>,
    scale: f64,
    conditions: Option<control::Conditions>,
}

impl Sd3Denoiser {
    /// The transformer of `config`. No weight is read yet.
    ///
    /// # Errors
    /// The configuration is not supported, or the file lacks a tensor of it.
    pub(crate) fn new(weights: Weights, config: &mmdit::Config) -> Result<Self> {
        Ok(Self {
            network: Box::new(Transformer::new(weights, config)?),
            conditions: None,
            controls: Vec::new(),
        })
    }

    /// Adds the ControlNet of `config` with its scale. No weight is read yet.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn add_control(
        &mut self,
        weights: Weights,
        config: &control::Config,
        scale: f64,
    ) -> Result<()> {
        self.controls.push(ControlUnit {
            network: Box::new(ControlNet::new(weights, config)?),
            scale,
            conditions: None,
        });
        Ok(())
    }

    /// The conditioning of each ControlNet for each of `inputs`.
    fn control_conditions(&self, inputs: &[DenoiserInput]) -> Vec<Vec<control::Conditions>> {
        let of = |control: &ControlUnit| {
            let conditions = control.conditions.as_ref().expect(UNCONDITIONED);
            inputs
                .iter()
                .map(|input| match input.prompt {
                    Some(prompt) => conditions.only(prompt),
                    None => conditions.clone(),
                })
                .collect()
        };
        self.controls.iter().map(of).collect()
    }
}

impl Denoiser for Sd3Denoiser {
    fn conditioned(&self) -> &dyn Conditioned {
        &*self.network
    }

    fn controls(&self) -> Vec<&dyn Conditioned> {
        self.controls
            .iter()
            .map(|control| &*control.network as &dyn Conditioned)
            .collect()
    }

    fn footprint(&self, load: Load) -> (Vec<u64>, u64) {
        let controls: Vec<&ControlNet> = self.controls.iter().map(|control| &*control.network).collect();
        let Footprint { activations, scratch } = self.network.forward_footprint(load, &controls);
        // All blocks have the same size.
        let blocks = self.network.weight_bytes().blocks.len();
        (vec![activations; blocks], scratch)
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
        for (index, control) in self.controls.iter_mut().enumerate() {
            let image = control_image(index)?.to_device(device)?;
            let conditions = control
                .network
                .condition(inputs.timesteps, &context, &pooled, &image)?;
            control.conditions = Some(conditions);
            if device::reads_before_passes(device) {
                control.network.load()?;
            }
        }
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
        let all = self.conditions.as_ref().expect(UNCONDITIONED);
        let conditions: Vec<mmdit::Conditions> = inputs
            .iter()
            .map(|input| match input.prompt {
                Some(prompt) => all.only(prompt),
                None => all.clone(),
            })
            .collect();
        let of_controls = self.control_conditions(inputs);
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
