//! The ControlNets of a denoising network, each with its scale and its conditions.

use std::fmt::Debug;

use candle_core::{Device, Tensor};
use sd_models::Conditioned;

use super::DenoiserInput;
use super::denoiser::conditions_of;
use crate::{Result, device};

/// A ControlNet of one kind.
pub(super) trait ControlNetwork: Conditioned + Debug {
    /// The conditioning that all images and evaluations share, for every prompt.
    type Conditions: Clone + Debug;

    /// The conditions of the prompt at an index alone.
    fn only(conditions: &Self::Conditions, prompt: usize) -> Self::Conditions;

    /// Reads the resident blocks.
    ///
    /// # Errors
    /// A file is wrong, or the device is out of memory.
    fn load(&self) -> sd_models::Result<()>;
}

/// The ControlNets of a denoising network.
#[derive(Debug)]
pub(super) struct ControlUnits<N: ControlNetwork>(Vec<ControlUnit<N>>);

/// A ControlNet with its scale.
#[derive(Debug)]
pub(super) struct ControlUnit<N: ControlNetwork> {
    /// The network.
    pub(super) network: Box<N>,
    /// The conditioning scale.
    pub(super) scale: f64,
    conditions: Option<N::Conditions>,
}

impl<N: ControlNetwork> ControlUnits<N> {
    /// The ControlNets `networks`, each with its scale.
    pub(super) fn new(networks: Vec<(N, f64)>) -> Self {
        let unit = |(network, scale)| ControlUnit {
            network: Box::new(network),
            scale,
            conditions: None,
        };
        Self(networks.into_iter().map(unit).collect())
    }

    /// The ControlNets, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ControlUnit<N>> {
        self.0.iter()
    }

    /// The memory of each ControlNet's weights and conditioning.
    pub(super) fn conditioned(&self) -> Vec<&dyn Conditioned> {
        self.0
            .iter()
            .map(|unit| &*unit.network as &dyn Conditioned)
            .collect()
    }

    /// Computes the conditioning of each ControlNet with `condition` from its control image.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub(super) fn condition(
        &mut self,
        device: &Device,
        control_image: &dyn Fn(usize) -> Result<Tensor>,
        condition: impl Fn(&N, &Tensor) -> sd_models::Result<N::Conditions>,
    ) -> Result<()> {
        for (index, unit) in self.0.iter_mut().enumerate() {
            let image = control_image(index)?.to_device(device)?;
            unit.conditions = Some(condition(&unit.network, &image)?);
            if device::reads_before_passes(device) {
                unit.network.load()?;
            }
        }
        Ok(())
    }
}

impl<N: ControlNetwork> ControlUnit<N> {
    /// The conditions for each of `inputs`.
    ///
    /// # Panics
    /// [`ControlUnits::condition`] was not called before.
    pub(super) fn conditions_of(&self, inputs: &[DenoiserInput]) -> Vec<N::Conditions> {
        conditions_of(self.conditions.as_ref(), inputs, N::only)
    }
}
