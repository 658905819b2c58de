//! The control images in the form that each ControlNet takes: pixels, or latents of the VAE.

use candle_core::Tensor;
use sd_models::vae::{Encoder, Scaling};
use sd_weights::{Residency, WeightOptions};

use crate::bundle::{Bundle, Control};
use crate::{Result, device};

/// The control images of a model's ControlNets.
#[derive(Debug)]
pub(super) struct ControlImages<'a> {
    controls: &'a [Control],
    /// For each ControlNet that takes latents, those of its control image, `[1, channels, rows, columns]`, on
    /// the CPU.
    latents: Vec<Option<Tensor>>,
}

impl<'a> ControlImages<'a> {
    /// Encodes the control images of ControlNets that take latents. The VAE encoder is read once and dropped
    /// at the end.
    ///
    /// # Errors
    /// A file is wrong, a value is not finite, or the device fails.
    pub(super) fn encode(bundle: &'a Bundle, weight_options: &WeightOptions) -> Result<Self> {
        Ok(Self {
            controls: bundle.controls(),
            latents: latents(bundle, weight_options)?,
        })
    }

    /// The control image of the ControlNet at `index`, on the CPU.
    ///
    /// # Errors
    /// The device is out of memory.
    pub(super) fn get(&self, index: usize) -> Result<Tensor> {
        match &self.latents[index] {
            Some(latents) => Ok(latents.clone()),
            None => self.controls[index].shown(),
        }
    }
}

/// The latents of each control image, for the ControlNets that take latents.
///
/// They are the mean of the VAE's distribution. diffusers samples it with noise that no seed determines.
fn latents(bundle: &Bundle, weight_options: &WeightOptions) -> Result<Vec<Option<Tensor>>> {
    const COMPONENT: &str = "vae";
    let mut encoder = None;
    let mut encode = |control: &Control, scaling: Scaling| -> Result<Tensor> {
        let encoder = match &mut encoder {
            Some(encoder) => encoder,
            none => {
                let weights =
                    bundle.weights(COMPONENT, &weight_options.with_residency(Residency::Resident))?;
                none.insert(Encoder::new(weights, &bundle.vae)?)
            }
        };
        let encoded = encoder.encode(&control.shown()?.to_device(&weight_options.device)?)?;
        let mean = device::to_host(&encoded.mean)?;
        bundle
            .components()
            .check_finite(&mean, "the VAE encoding of a control image", COMPONENT)?;
        Ok(bundle.vae.scale(&mean, scaling)?)
    };
    let of = |control: &Control| match control.input().latents {
        Some(scaling) => encode(control, scaling).map(Some),
        None => Ok(None),
    };
    bundle.controls().iter().map(of).collect()
}
