//! The text-encoding stage: prompts become the conditioning of the denoising network.

use sd_weights::WeightOptions;

use crate::Result;
use crate::bundle::Bundle;
use crate::event::Interrupt;
use crate::family::{EncodedPrompt, EncoderWeights};

/// Encodes `prompts` with every text encoder of `bundle`, one after the other; each is dropped before the
/// next is read. Prompts may use the emphasis of stable-diffusion-webui ([`prompt`](crate::prompt)). `skip`
/// more of CLIP's last layers are skipped. The vectors are f32 on the CPU.
///
/// # Errors
/// A file is wrong, the device fails, a value is not finite, or the run was interrupted.
pub fn encode(
    bundle: &Bundle,
    prompts: &[&str],
    skip: usize,
    weight_options: &WeightOptions,
    interrupt: &Interrupt,
) -> Result<EncodedPrompt> {
    let mut encoded = encode_each(bundle, &[prompts], skip, weight_options, interrupt)?;
    Ok(encoded.pop().expect("one batch has one result. This is a bug."))
}

/// Encodes the prompts of each of `batches` like [`encode`], to the same bits. Each text encoder is read once for all.
///
/// # Errors
/// As [`encode`].
pub fn encode_each(
    bundle: &Bundle,
    batches: &[&[&str]],
    skip: usize,
    weight_options: &WeightOptions,
    interrupt: &Interrupt,
) -> Result<Vec<EncodedPrompt>> {
    encode_with(
        bundle,
        batches,
        skip,
        EncoderWeights::used_once(weight_options),
        interrupt,
    )
}

/// As [`encode_each`], with text encoders that are held as `weights` says.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_with(
    bundle: &Bundle,
    batches: &[&[&str]],
    skip: usize,
    weights: EncoderWeights<'_>,
    interrupt: &Interrupt,
) -> Result<Vec<EncodedPrompt>> {
    let encoders = bundle.family.text_encoders();
    let pause = || interrupt.check();
    encoders.encode(bundle.components(), batches, skip, weights, &pause)
}
