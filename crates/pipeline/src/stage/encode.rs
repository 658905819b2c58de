//! From prompts to what the denoising network is conditioned on.

use candle_core::{DType, Device, Tensor};
use sd_models::{clip, t5};
use sd_weights::WeightOptions;

use super::finite;
use crate::Result;
use crate::bundle::{Bundle, Family, TextPart};
use crate::event::Interrupt;
use crate::family::EncodedPrompt;
use crate::prompt::{self, Prompt, WeightedTokens};
use crate::tokenizer::Tokenizer;

/// Prompts as one of the CLIPs reads them.
struct EncodedByClip {
    hidden: Tensor,
    pooled: Option<Tensor>,
}

/// Encodes `prompts` with every text encoder of `bundle`, one after the other, each dropped before the next
/// is read. Words may be emphasised as in stable-diffusion-webui ([`prompt`]), and what is longer than CLIP reads at once is
/// read in chunks, but for Stable Diffusion 3, where T5 reads on. `skip` more of the CLIPs' last layers are left out. The vectors are 32-bit numbers in the processor's memory.
///
/// The order and the padding are those of diffusers' pipelines; for Stable Diffusion 3 see also Esser et al. 2024, section 4
/// and appendix B.3. Without T5 its tokens are zeros.
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
    let chunks = chunks(bundle, prompts)?;
    let prompts: Vec<Prompt> = prompts.iter().map(|prompt| Prompt::parse(prompt)).collect();
    let mut by_clips = Vec::with_capacity(bundle.text.clips.len());
    let mut cut = 0;
    for part in &bundle.text.clips {
        let (encoded, cut_here) = run_clip(bundle, part, &prompts, chunks, skip, &weight_options)?;
        cut = cut_here;
        by_clips.push(encoded);
        interrupt.check()?;
    }
    let hidden: Vec<&Tensor> = by_clips.iter().map(|encoded| &encoded.hidden).collect();
    let context = Tensor::cat(&hidden, 2)?;
    let pooled: Vec<&Tensor> = by_clips
        .iter()
        .filter_map(|encoded| encoded.pooled.as_ref())
        .collect();
    let pooled = match pooled.as_slice() {
        [] => None,
        pooled => Some(Tensor::cat(pooled, 1)?),
    };
    if bundle.family != Family::StableDiffusion3 {
        return Ok(EncodedPrompt { context, pooled, cut });
    }
    let features = bundle.denoiser.context_features();
    let missing = features - context.dim(2)?;
    let context = context.pad_with_zeros(2, 0, missing)?;
    let (of_t5, cut_by_t5) = match &bundle.text.t5 {
        Some(part) => run_t5(bundle, part, &prompts, &weight_options)?,
        None => {
            let shape = (prompts.len(), bundle.text.t5_length(), features);
            (Tensor::zeros(shape, DType::F32, &Device::Cpu)?, cut)
        }
    };
    interrupt.check()?;
    Ok(EncodedPrompt {
        context: Tensor::cat(&[context, of_t5], 1)?,
        pooled,
        cut: cut.min(cut_by_t5),
    })
}

/// What the family of `bundle` wants to know of its encoder `part`.
pub(crate) fn wanted_of(bundle: &Bundle, part: &TextPart<clip::Config>, skip: usize) -> clip::Wanted {
    let is_last = bundle
        .text
        .clips
        .last()
        .is_some_and(|last| last.component == part.component);
    clip::Wanted {
        hidden: match bundle.family {
            Family::StableDiffusion => clip::Hidden::Normed,
            _ => clip::Hidden::Penultimate,
        },
        skip,
        pooled: match bundle.family {
            Family::StableDiffusion => false,
            Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => is_last,
            Family::StableDiffusion3 => true,
        },
    }
}

/// In how many chunks the CLIPs of `bundle` read `prompts`, of which the longest decides.
///
/// # Errors
/// A tokenizer cannot take a text.
pub(crate) fn chunks(bundle: &Bundle, prompts: &[&str]) -> Result<usize> {
    // What T5 has room for CLIP need not read a second time.
    if bundle.family == Family::StableDiffusion3 {
        return Ok(1);
    }
    let prompts: Vec<Prompt> = prompts.iter().map(|prompt| Prompt::parse(prompt)).collect();
    let length = bundle.text.clip_length();
    let mut most = 1;
    for part in &bundle.text.clips {
        for prompt in &prompts {
            most = most.max(prompt::chunks(&part.tokenizer, prompt, length)?.len());
        }
    }
    Ok(most)
}

/// The rows of tokens in which one of the CLIPs reads `prompts`, `chunks` for each, and how many tokens of the longest have
/// no place.
fn rows(
    bundle: &Bundle,
    part: &TextPart<clip::Config>,
    prompts: &[Prompt],
    chunks: usize,
) -> Result<(Vec<WeightedTokens>, usize)> {
    let length = bundle.text.clip_length();
    if bundle.family == Family::StableDiffusion3 {
        return sequences(&part.tokenizer, prompts, length);
    }
    let of_prompt = |prompt| prompt::chunks(&part.tokenizer, prompt, length);
    let mut all = prompts.iter().map(of_prompt).collect::<Result<Vec<_>>>()?;
    // The other CLIP may need more of them.
    all.push(vec![
        WeightedTokens {
            ids: Vec::new(),
            weights: Vec::new(),
            cut: 0
        };
        chunks
    ]);
    prompt::pad_together(&part.tokenizer, &mut all, length);
    all.pop();
    Ok((all.into_iter().flatten().collect(), 0))
}

/// One row of `length` tokens for each of `prompts`, and how many tokens of the longest have no place.
fn sequences(
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    length: usize,
) -> Result<(Vec<WeightedTokens>, usize)> {
    let rows = prompts
        .iter()
        .map(|prompt| prompt::sequence(tokenizer, prompt, length));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let cut = rows.iter().map(|row| row.cut).max().unwrap_or(0);
    Ok((rows, cut))
}

fn run_clip(
    bundle: &Bundle,
    part: &TextPart<clip::Config>,
    prompts: &[Prompt],
    chunks: usize,
    skip: usize,
    weight_options: &WeightOptions,
) -> Result<(EncodedByClip, usize)> {
    let (rows, cut) = rows(bundle, part, prompts, chunks)?;
    let (ids, weights): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.ids, row.weights)).unzip();
    let wanted = wanted_of(bundle, part, skip);
    let encoder = clip::TextEncoder::new(bundle.weights(part.component, weight_options)?, &part.config)?;
    let encoded = encoder.encode(&ids, wanted)?;
    let hidden = prompt::emphasise(&to_host(&encoded.hidden)?, &weights)?;
    let (_, length, features) = hidden.dims3()?;
    let pooled = match &encoded.pooled {
        // That of the first chunk stands for the whole.
        Some(pooled) => {
            let first = Tensor::from_iter(
                (0..prompts.len()).map(|prompt| (prompt * chunks) as u32),
                &Device::Cpu,
            )?;
            Some(to_host(pooled)?.index_select(&first, 0)?)
        }
        None => None,
    };
    let encoded = EncodedByClip {
        hidden: hidden.reshape((prompts.len(), chunks * length, features))?,
        pooled,
    };
    for tensor in std::iter::once(&encoded.hidden).chain(&encoded.pooled) {
        finite::check(tensor, part.component, bundle, part.component)?;
    }
    Ok((encoded, cut))
}

fn run_t5(
    bundle: &Bundle,
    part: &TextPart<t5::Config>,
    prompts: &[Prompt],
    weight_options: &WeightOptions,
) -> Result<(Tensor, usize)> {
    let (rows, cut) = sequences(&part.tokenizer, prompts, bundle.text.t5_length())?;
    let (ids, weights): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.ids, row.weights)).unzip();
    let weights_of_network = bundle.weights(part.component, weight_options)?;
    let encoded = t5::TextEncoder::new(weights_of_network, &part.config)?.encode(&ids)?;
    let context = prompt::emphasise(&to_host(&encoded)?, &weights)?;
    finite::check(&context, part.component, bundle, part.component)?;
    Ok((context, cut))
}

fn to_host(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
}
