//! A UNet as a [`Denoiser`]: ControlNets run before it, and their residuals are added to it.

use candle_core::Tensor;
use sd_models::controlnet::{self, ControlNet};
use sd_models::unet::{self, AddedConditions, Residuals, UNet};
use sd_models::{Conditioned, Load};
use sd_weights::Weights;

use crate::family::denoiser::UNCONDITIONED;
use crate::family::{ConditioningInputs, Denoiser, DenoiserInput};
use crate::{Result, device};

/// A UNet with its ControlNets.
#[derive(Debug)]
pub(crate) struct UNetDenoiser {
    network: Box<UNet>,
    conditions: Option<unet::Conditions>,
    controls: Vec<ControlUnit>,
}

/// A ControlNet with its scale.
#[derive(Debug)]
struct ControlUnit {
    network: Box<ControlNet>,
    scale: f64,
    conditions: Option<controlnet::Conditions>,
}

impl UNetDenoiser {
    /// The UNet of `config`. No weight is read yet.
    ///
    /// # Errors
    /// The configuration is not supported, or the file lacks a tensor of it.
    pub(crate) fn new(weights: Weights, config: &unet::Config) -> Result<Self> {
        Ok(Self {
            network: Box::new(UNet::new(weights, config)?),
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
        config: &controlnet::Config,
        scale: f64,
    ) -> Result<()> {
        self.controls.push(ControlUnit {
            network: Box::new(ControlNet::new(weights, config)?),
            scale,
            conditions: None,
        });
        Ok(())
    }

    /// The sum of the ControlNets' residuals for each of `inputs`. None without ControlNets.
    fn residuals(&self, inputs: &[DenoiserInput], evaluation: usize) -> Result<Vec<Option<Residuals>>> {
        let mut sums: Vec<Option<Residuals>> = vec![None; inputs.len()];
        for control in &self.controls {
            let conditions = control.conditions.as_ref().expect(UNCONDITIONED);
            let conditions: Vec<controlnet::Conditions> = inputs
                .iter()
                .map(|input| match input.prompt {
                    Some(prompt) => conditions.only(prompt),
                    None => conditions.clone(),
                })
                .collect();
            let inputs = inputs
                .iter()
                .zip(&conditions)
                .map(|(input, conditions)| controlnet::Input {
                    latents: &input.plain,
                    conditions,
                    scale: control.scale,
                });
            let added = control.network.forward(&inputs.collect::<Vec<_>>(), evaluation)?;
            for (sum, added) in sums.iter_mut().zip(added) {
                *sum = Some(match sum.take() {
                    Some(sum) => sum.plus(&added)?,
                    None => added,
                });
            }
        }
        Ok(sums)
    }
}

impl Denoiser for UNetDenoiser {
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
        let mut scratch = self.network.forward_footprint(load).scratch;
        let mut of_blocks = self.network.block_activations(load);
        let mut all_given = 0;
        for ControlUnit { network, .. } in &self.controls {
            // ControlNets run before the first block, and their residuals are held until the pass ends.
            let given = network.residual_bytes(load);
            let taken = network.forward_footprint(load);
            all_given += given;
            of_blocks.iter_mut().for_each(|activations| *activations += given);
            if let Some(first) = of_blocks.first_mut() {
                *first = (*first).max(all_given + taken.activations);
            }
            scratch = scratch.max(taken.scratch);
        }
        (of_blocks, scratch)
    }

    fn condition(
        &mut self,
        inputs: &ConditioningInputs<'_>,
        control_image: &dyn Fn(usize) -> Result<Tensor>,
    ) -> Result<()> {
        let device = inputs.device;
        let context = inputs.prompts.context.to_device(device)?;
        let pooled = inputs.prompts.pooled.as_ref();
        let pooled = pooled.map(|pooled| pooled.to_device(device)).transpose()?;
        let conditioning = unet::ConditioningInputs {
            timesteps: inputs.timesteps,
            context: &context,
            added: pooled.as_ref().map(|pooled| AddedConditions {
                text_embeds: pooled,
                time_ids: &inputs.add_time_ids,
            }),
            guidance: None,
            latents: inputs.latents,
        };
        for (index, control) in self.controls.iter_mut().enumerate() {
            let image = control_image(index)?.to_device(device)?;
            control.conditions = Some(control.network.condition(&conditioning, &image)?);
            if device::reads_before_passes(device) {
                control.network.load()?;
            }
        }
        self.conditions = Some(self.network.condition(&unet::ConditioningInputs {
            guidance: inputs.guidance,
            ..conditioning
        })?);
        Ok(())
    }

    fn load(&self) -> Result<()> {
        Ok(self.network.load()?)
    }

    fn forward(&self, inputs: &[DenoiserInput], evaluation: usize) -> Result<Vec<Tensor>> {
        let all = self.conditions.as_ref().expect(UNCONDITIONED);
        let conditions: Vec<unet::Conditions> = inputs
            .iter()
            .map(|input| match input.prompt {
                Some(prompt) => all.only(prompt),
                None => all.clone(),
            })
            .collect();
        let residuals = self.residuals(inputs, evaluation)?;
        let inputs: Vec<unet::Input<'_>> = inputs
            .iter()
            .zip(&conditions)
            .zip(&residuals)
            .map(|((input, conditions), residuals)| unet::Input {
                latents: &input.latents,
                conditions,
                control: residuals.as_ref(),
            })
            .collect();
        Ok(self.network.forward(&inputs, evaluation)?)
    }
}
