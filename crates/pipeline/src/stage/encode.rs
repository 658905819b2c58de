//! The text-encoding stage: prompts become the conditioning of the denoising network.

use sd_weights::WeightOptions;

use crate::Result;
use crate::bundle::Bundle;
use crate::event::Interrupt;
use crate::family::EncodedPrompt;

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
    // Each weight is needed once.
    let weight_options = weight_options.for_one_pass();
    bundle
        .family
        .text_encoders()
        .encode(bundle.components(), prompts, skip, &weight_options, &|| {
            interrupt.check()
        })
}
