//! Encoded prompts, the results of the text encoders.

use candle_core::Tensor;

use crate::Result;

/// Encoded prompts.
#[doc(alias = "prompt_embeds")]
#[derive(Debug, Clone)]
pub struct EncodedPrompt {
    /// One vector for each token, `[prompts, tokens, features]`, on the CPU.
    pub context: Tensor,
    /// One vector for each prompt, `[prompts, features]`, for networks that take pooled vectors.
    pub pooled: Option<Tensor>,
    /// How many tokens of the longest prompt were truncated: no encoder had a position for them.
    pub truncated: usize,
}

impl EncodedPrompt {
    /// Bytes of its vectors.
    pub(crate) fn bytes(&self) -> u64 {
        let tensors = std::iter::once(&self.context).chain(&self.pooled);
        tensors
            .map(|tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64)
            .sum()
    }

    /// Prompt `index` alone.
    ///
    /// # Errors
    /// There is no such prompt.
    pub(crate) fn of(&self, index: usize) -> Result<Self> {
        let of = |tensor: &Tensor| tensor.narrow(0, index, 1);
        Ok(Self {
            context: of(&self.context)?,
            pooled: self.pooled.as_ref().map(of).transpose()?,
            truncated: self.truncated,
        })
    }

    /// All of `parts`, which have contexts of the same length.
    ///
    /// # Errors
    /// The device is out of memory.
    pub(crate) fn joined(parts: &[Self]) -> Result<Self> {
        let contexts: Vec<&Tensor> = parts.iter().map(|part| &part.context).collect();
        let pooled: Option<Vec<&Tensor>> = parts.iter().map(|part| part.pooled.as_ref()).collect();
        // A single part may be a view, which would keep the memory of all prompts that it was encoded with.
        let joined = |tensors: &[&Tensor]| match tensors {
            [one] => one.force_contiguous(),
            several => Tensor::cat(several, 0),
        };
        Ok(Self {
            context: joined(&contexts)?,
            pooled: pooled.as_deref().map(joined).transpose()?,
            truncated: parts.iter().map(|part| part.truncated).max().unwrap_or(0),
        })
    }

    /// Replaces the vectors of prompt `index` by zeros.
    ///
    /// # Errors
    /// The device is out of memory.
    ///
    /// # Panics
    /// There is no such prompt.
    pub fn without(&self, index: usize) -> Result<Self> {
        let without = |tensor: &Tensor| -> Result<Tensor> {
            let prompts = tensor.dim(0)?;
            assert!(index < prompts, "there is no prompt {index}");
            let rows = (0..prompts).map(|row| {
                let of_row = tensor.narrow(0, row, 1)?;
                if row == index {
                    of_row.zeros_like()
                } else {
                    Ok(of_row)
                }
            });
            Ok(Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
        };
        Ok(Self {
            context: without(&self.context)?,
            pooled: self.pooled.as_ref().map(without).transpose()?,
            truncated: self.truncated,
        })
    }
}
