//! The contract of a denoising network: conditioning, forward passes, memory and arithmetic.

use std::fmt::Debug;

use candle_core::{Device, Tensor};
use sd_models::{Conditioned, Load, Work};

use super::EncodedPrompt;
use crate::Result;

/// A denoising network with its ControlNets.
///
/// Creating one reads no weight, and its memory can be computed at once. A caller then calls
/// [`condition`](Self::condition) once, and [`forward`](Self::forward) for every evaluation.
pub trait Denoiser: Debug {
    /// The memory and the arithmetic of the network's weights and conditioning.
    fn conditioned(&self) -> &dyn Conditioned;

    /// The memory and the arithmetic of each ControlNet's weights and conditioning.
    fn controls(&self) -> Vec<&dyn Conditioned>;

    /// Bytes of a forward pass without weights and conditioning, ControlNets included: the activations of
    /// each block, and the scratch memory of operations.
    fn footprint(&self, load: Load) -> (Vec<u64>, u64);

    /// The arithmetic of a forward pass, ControlNets included.
    fn work(&self, load: Load) -> Work;

    /// Computes the conditioning that all images and evaluations share, in one pass over weights that are not
    /// needed again. `control_image` gives the control image of the ControlNet at an index.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    fn condition(
        &mut self,
        inputs: &ConditioningInputs<'_>,
        control_image: &dyn Fn(usize) -> Result<Tensor>,
    ) -> Result<()>;

    /// Reads the resident blocks.
    ///
    /// # Errors
    /// A file is wrong, or the device is out of memory.
    fn load(&self) -> Result<()>;

    /// The prediction for each of `inputs` at an evaluation, counted from 0: `[prompts, channels, rows,
    /// columns]` each. Each block is applied to all inputs before the next block.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    ///
    /// # Panics
    /// [`condition`](Self::condition) was not called before.
    fn forward(&self, inputs: &[DenoiserInput], evaluation: usize) -> Result<Vec<Tensor>>;
}

/// The conditioning inputs of a network for all evaluations of a run.
#[derive(Debug, Clone)]
pub struct ConditioningInputs<'a> {
    /// The encoded prompts: with classifier-free guidance first the negative prompt.
    pub prompts: &'a EncodedPrompt,
    /// The timestep of each evaluation.
    pub timesteps: &'a [f32],
    /// For each prompt the size conditioning of Stable Diffusion XL; empty for other families.
    pub add_time_ids: Vec<Vec<f32>>,
    /// The guidance scale, for a guidance-distilled network.
    pub guidance: Option<f64>,
    /// Rows and columns of the latents.
    pub latents: (usize, usize),
    /// The device of the network.
    pub device: &'a Device,
}

/// One input of a forward pass.
#[derive(Debug, Clone)]
pub struct DenoiserInput {
    /// The latents, repeated for every prompt, `[prompts, channels, rows, columns]`. For a 9-channel
    /// inpainting model the mask and the masked image's latents are appended.
    pub latents: Tensor,
    /// The latents without inpainting channels, as ControlNets take them.
    pub plain: Tensor,
    /// The only prompt of this input; None for all prompts.
    pub prompt: Option<usize>,
}

/// The conditions for each of `inputs`: those of all prompts, or what `only` takes of them for the input's
/// only prompt.
///
/// # Panics
/// The network was not conditioned before.
pub(super) fn conditions_of<C: Clone>(
    all: Option<&C>,
    inputs: &[DenoiserInput],
    only: fn(&C, usize) -> C,
) -> Vec<C> {
    let all = all.expect("a network is conditioned before its first forward pass. This is a bug.");
    let of = |input: &DenoiserInput| match input.prompt {
        Some(prompt) => only(all, prompt),
        None => all.clone(),
    };
    inputs.iter().map(of).collect()
}
