//! From prompts to what the transformer is conditioned on.

use candle_core::{DType, Device, Tensor};
use sd_models::{clip, t5};
use sd_weights::Holding;

use super::finite;
use crate::Result;
use crate::bundle::{Bundle, TextPart};
use crate::event::Interrupt;
use crate::tokenizer::Tokenizer;

/// Prompts as the transformer reads them.
#[derive(Debug, Clone)]
pub struct EncodedPrompt {
    /// One vector a token: CLIP's, padded with zeros to T5's width, then T5's. `[prompts, tokens, features]`
    pub context: Tensor,
    /// One vector a prompt, of both CLIPs. `[prompts, features]`
    pub pooled: Tensor,
    /// How many tokens of the longest prompt no encoder had a place for.
    pub cut: usize,
}

/// Prompts as one of the CLIPs reads them.
struct EncodedByClip {
    hidden: Tensor,
    pooled: Tensor,
}

/// Encodes `prompts` with every text encoder of `bundle`, one after the other, each dropped before the next
/// is read. The vectors are 32-bit numbers in the processor's memory.
///
/// Esser et al. 2024, section 4 and appendix B.3; the order and the padding are those of diffusers'
/// `StableDiffusion3Pipeline`. Without T5 its tokens are zeros.
///
/// # Errors
/// A file is wrong, the device fails, a value is not finite, or the run was interrupted.
pub fn encode(
    bundle: &Bundle,
    prompts: &[&str],
    holding: &Holding,
    interrupt: &Interrupt,
) -> Result<EncodedPrompt> {
    // Each weight is needed once.
    let holding = holding.for_one_pass();
    let clip_length = bundle.clip_length();
    let (large, clip_cut) = run_clip(bundle, &bundle.clip_large, prompts, clip_length, &holding)?;
    interrupt.check()?;
    let (big, _) = run_clip(bundle, &bundle.clip_big, prompts, clip_length, &holding)?;
    interrupt.check()?;

    let features = bundle.transformer.joint_attention_dim;
    let clip_context = Tensor::cat(&[&large.hidden, &big.hidden], 2)?;
    let missing = features - clip_context.dim(2)?;
    let clip_context = clip_context.pad_with_zeros(2, 0, missing)?;
    let (t5_context, cut) = match &bundle.t5 {
        Some(part) => run_t5(bundle, part, prompts, &holding)?,
        None => {
            let zeros = Tensor::zeros(
                (prompts.len(), bundle.t5_length(), features),
                DType::F32,
                &Device::Cpu,
            )?;
            (zeros, clip_cut)
        }
    };
    interrupt.check()?;
    Ok(EncodedPrompt {
        context: Tensor::cat(&[clip_context, t5_context], 1)?,
        pooled: Tensor::cat(&[large.pooled, big.pooled], 1)?,
        cut: cut.min(clip_cut),
    })
}

fn run_clip(
    bundle: &Bundle,
    part: &TextPart<clip::Config>,
    prompts: &[&str],
    length: usize,
    holding: &Holding,
) -> Result<(EncodedByClip, usize)> {
    let (ids, cut) = tokenize(&part.tokenizer, prompts, length)?;
    let weights = bundle.weights(part.component, holding)?;
    let wanted = clip::Wanted {
        hidden: clip::Hidden::Penultimate,
        skip: 0,
        pooled: true,
    };
    let encoded = clip::TextEncoder::new(weights, &part.config)?.encode(&ids, wanted)?;
    let Some(pooled) = &encoded.pooled else {
        unreachable!("a pooled text was asked for. This is a bug.")
    };
    let encoded = EncodedByClip {
        hidden: to_host(&encoded.hidden)?,
        pooled: to_host(pooled)?,
    };
    for tensor in [&encoded.hidden, &encoded.pooled] {
        finite::check(tensor, part.component, bundle, part.component)?;
    }
    Ok((encoded, cut))
}

fn run_t5(
    bundle: &Bundle,
    part: &TextPart<t5::Config>,
    prompts: &[&str],
    holding: &Holding,
) -> Result<(Tensor, usize)> {
    let (ids, cut) = tokenize(&part.tokenizer, prompts, bundle.t5_length())?;
    let weights = bundle.weights(part.component, holding)?;
    let context = to_host(&t5::TextEncoder::new(weights, &part.config)?.encode(&ids)?)?;
    finite::check(&context, part.component, bundle, part.component)?;
    Ok((context, cut))
}

fn tokenize(tokenizer: &Tokenizer, prompts: &[&str], length: usize) -> Result<(Vec<Vec<u32>>, usize)> {
    let mut longest_cut = 0;
    let mut rows = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let tokens = tokenizer.encode(prompt, length)?;
        longest_cut = longest_cut.max(tokens.cut);
        rows.push(tokens.ids);
    }
    Ok((rows, longest_cut))
}

fn to_host(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
}
