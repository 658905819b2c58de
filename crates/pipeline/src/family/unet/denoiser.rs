//! A UNet as a [`Denoiser`]: ControlNets run before it, and their residuals are added to it.

use candle_core::Tensor;
use sd_models::controlnet::{self, ControlNet};
use sd_models::unet::{self, AddedConditions, Residuals, UNet};
use sd_models::{Conditioned, Load, Work};
use sd_weights::Weights;

use crate::Result;
use crate::family::control_units::{ControlNetwork, ControlUnits};
use crate::family::denoiser::conditions_of;
use crate::family::{ConditioningInputs, Denoiser, DenoiserInput};

/// A UNet with its ControlNets.
#[derive(Debug)]
pub(super) struct UNetDenoiser {
    network: Box<UNet>,
    conditions: Option<unet::Conditions>,
    controls: ControlUnits<ControlNet>,
}

impl ControlNetwork for ControlNet {
    type Conditions = controlnet::Conditions;

    fn only(conditions: &Self::Conditions, prompt: usize) -> Self::Conditions {
        conditions.only(prompt)
    }

    fn load(&self) -> sd_models::Result<()> {
        self.load()
    }
}

impl UNetDenoiser {
    /// The UNet of `config`, with ControlNets and their scales. No weight is read yet.
    ///
    /// # Errors
    /// The configuration is not supported, or the file lacks a tensor of it.
    pub(super) fn new(
        weights: Weights,
        config: &unet::Config,
        controls: Vec<(ControlNet, f64)>,
    ) -> Result<Self> {
        Ok(Self {
            network: Box::new(UNet::new(weights, config)?),
            conditions: None,
            controls: ControlUnits::new(controls),
        })
    }

    /// The sum of the ControlNets' residuals for each of `inputs`. None without ControlNets.
    fn residuals(&self, inputs: &[DenoiserInput], evaluation: usize) -> Result<Vec<Option<Residuals>>> {
        let mut sums: Vec<Option<Residuals>> = vec![None; inputs.len()];
        for control in self.controls.iter() {
            let conditions = control.conditions_of(inputs);
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
        self.controls.conditioned()
    }

    fn footprint(&self, load: Load) -> (Vec<u64>, u64) {
        let mut scratch = self.network.forward_footprint(load).scratch;
        let mut of_blocks = self.network.block_activations(load);
        let mut all_given = 0;
        for control in self.controls.iter() {
            // ControlNets run before the first block, and their residuals are held until the pass ends.
            let given = control.network.residual_bytes(load);
            let taken = control.network.forward_footprint(load);
            all_given += given;
            of_blocks.iter_mut().for_each(|activations| *activations += given);
            if let Some(first) = of_blocks.first_mut() {
                *first = (*first).max(all_given + taken.activations);
            }
            scratch = scratch.max(taken.scratch);
        }
        (of_blocks, scratch)
    }

    fn work(&self, load: Load) -> Work {
        let of_controls = self
            .controls
            .iter()
            .map(|control| control.network.forward_work(load));
        self.network.forward_work(load).and(of_controls.sum())
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
        self.controls.condition(device, control_image, |network, image| {
            network.condition(&conditioning, image)
        })?;
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
        let conditions = conditions_of(self.conditions.as_ref(), inputs, unet::Conditions::only);
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
