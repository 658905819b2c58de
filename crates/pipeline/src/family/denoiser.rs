//! The contract of a denoising network: conditioning, forward passes and their bytes.

use std::fmt::Debug;

use candle_core::{Device, Tensor};
use sd_models::{Conditioned, Load};

use super::EncodedPrompt;
use crate::Result;

/// A denoising network with the ControlNets that run beside it.
///
/// A caller creates one, which reads no weight, and may ask for its bytes. It then calls [`condition`](Self::condition) once,
/// and [`forward`](Self::forward) for every evaluation.
pub trait Denoiser: Debug {
    /// The bytes of the network's weights and of its conditioning.
    fn conditioned(&self) -> &dyn Conditioned;

    /// The same of each ControlNet.
    fn controls(&self) -> Vec<&dyn Conditioned>;

    /// The bytes of a forward pass beside the weights and the conditioning, ControlNets included: activations while each
    /// block is computed, and the scratch memory of operations.
    fn footprint(&self, load: Load) -> (Vec<u64>, u64);

    /// Computes what is the same for all images and evaluations of a run, in one pass over weights that are not needed
    /// again. `control_image` gives the tensor that the ControlNet at an index takes.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    fn condition(
        &mut self,
        inputs: &ConditioningInputs<'_>,
        control_image: &dyn Fn(usize) -> Result<Tensor>,
    ) -> Result<()>;

    /// Reads every block that stays in memory.
    ///
    /// # Errors
    /// A file is wrong, or the device has no room.
    fn load(&self) -> Result<()>;

    /// The prediction for each of `inputs` at an evaluation, counted from 0: `[prompts, channels, rows, columns]` each. A
    /// block is used for all inputs before the next one is.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    ///
    /// # Panics
    /// [`condition`](Self::condition) was not called before.
    fn forward(&self, inputs: &[DenoiserInput], evaluation: usize) -> Result<Vec<Tensor>>;
}

/// What a network is conditioned on, for all evaluations of a run.
#[derive(Debug, Clone)]
pub struct ConditioningInputs<'a> {
    /// The encoded prompts: the negative prompt first, where there is classifier-free guidance.
    pub prompts: &'a EncodedPrompt,
    /// The timestep of each evaluation.
    pub timesteps: &'a [f32],
    /// For each prompt the numbers of Stable Diffusion XL's size conditioning; empty for other families.
    pub add_time_ids: Vec<Vec<f32>>,
    /// The guidance scale, for a guidance-distilled network.
    pub guidance: Option<f64>,
    /// Rows and columns of the latents.
    pub latents: (usize, usize),
    /// The device that computes.
    pub device: &'a Device,
}

/// One input of a forward pass.
#[derive(Debug, Clone)]
pub struct DenoiserInput {
    /// The latents, repeated for every prompt, `[prompts, channels, rows, columns]`; for a 9-channel inpainting model with
    /// the mask and the masked image's latents behind them.
    pub latents: Tensor,
    /// The latents without those of inpainting, as ControlNets take them.
    pub plain: Tensor,
    /// The only prompt that this input is conditioned on; all of them where there is none.
    pub prompt: Option<usize>,
}

/// The message of a forward pass without conditioning.
pub(super) const UNCONDITIONED: &str =
    "a network is conditioned before its first forward pass. This is a bug.";
