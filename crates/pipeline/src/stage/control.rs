//! ControlNets at work beside a UNet.

use candle_core::Tensor;
use sd_models::controlnet::{self, ControlNet};
use sd_models::unet::{Added, Residuals, Steering};
use sd_weights::{Holding, Residency};

use super::encode::EncodedPrompt;
use super::network::Told;
use crate::Result;
use crate::bundle::{Bundle, Control};

/// The ControlNets of a run, with what steers them.
#[derive(Debug)]
pub(super) struct Controls(Vec<AtWork>);

#[derive(Debug)]
struct AtWork {
    network: ControlNet,
    conditions: controlnet::Conditions,
    scale: f64,
}

/// The ControlNet of `control`, of which nothing is read yet.
///
/// # Errors
/// Its files are missing, or its configuration cannot be used.
pub(crate) fn network(control: &Control, holding: &Holding) -> Result<ControlNet> {
    Ok(ControlNet::new(control.weights(holding)?, &control.config)?)
}

impl Controls {
    /// Computes what steers the ControlNets of `bundle` in all evaluations. Their blocks stay in memory where `stay` says
    /// so, and are streamed otherwise.
    ///
    /// # Errors
    /// Something does not fit a network, a file is wrong, or the device fails.
    pub(super) fn load(
        bundle: &Bundle,
        prompts: &EncodedPrompt,
        told: &Told<'_>,
        stay: bool,
        holding: &Holding,
    ) -> Result<Self> {
        let residency = if stay {
            Residency::Resident
        } else {
            Residency::Streamed
        };
        let holding = holding.with_residency(residency);
        let device = &holding.device;
        let context = prompts.context.to_device(device)?;
        let pooled = prompts
            .pooled
            .as_ref()
            .map(|pooled| pooled.to_device(device))
            .transpose()?;
        let steering = Steering {
            timesteps: told.timesteps,
            context: &context,
            added: pooled.as_ref().map(|pooled| Added {
                pooled,
                numbers: &told.numbers,
            }),
            guidance: None,
            latents: told.latents,
        };
        let at_work = bundle.controls().iter().map(|control| {
            let network = network(control, &holding)?;
            let picture = control.picture.to_tensor()?.affine(0.5, 0.5)?.to_device(device)?;
            let conditions = network.condition(&steering, &picture)?;
            network.load()?;
            Ok(AtWork {
                network,
                conditions,
                scale: control.choice.scale,
            })
        });
        Ok(Self(at_work.collect::<Result<_>>()?))
    }

    /// What is added in the UNet for each of `asked`, latents and the text that they are asked about alone, or nothing for
    /// all of them, at an evaluation. Nothing where there are no ControlNets.
    ///
    /// # Errors
    /// A file is wrong, or the device fails.
    pub(super) fn residuals(
        &self,
        asked: &[(&Tensor, Option<usize>)],
        evaluation: usize,
    ) -> Result<Vec<Option<Residuals>>> {
        let mut sums: Vec<Option<Residuals>> = vec![None; asked.len()];
        for AtWork {
            network,
            conditions,
            scale,
        } in &self.0
        {
            let of_text =
                |text: Option<usize>| text.map_or_else(|| conditions.clone(), |text| conditions.only(text));
            let conditions: Vec<controlnet::Conditions> =
                asked.iter().map(|(_, text)| of_text(*text)).collect();
            let inputs = asked
                .iter()
                .zip(&conditions)
                .map(|((latents, _), conditions)| controlnet::Input {
                    latents,
                    conditions,
                    scale: *scale,
                });
            let added = network.forward(&inputs.collect::<Vec<_>>(), evaluation)?;
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
