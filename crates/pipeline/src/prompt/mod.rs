//! The prompt syntax of stable-diffusion-webui: emphasis, prompts of any length, and LoRA tags.
//!
//! A text is parsed into a [`Prompt`]: weighted words, breaks between chunks, and the LoRAs that it names. A
//! tokenizer turns it into [`WeightedTokens`], as [`chunks`] for CLIP or as one [`sequence`] for T5.
//! [`emphasise`] applies the weights to the output of the text encoder.

mod chunks;
mod emphasis;
mod lora_tags;
mod tokens;
mod weights;

pub use emphasis::{Part, Prompt};
pub use lora_tags::LoraTag;
pub(crate) use lora_tags::replace as replace_lora_tags;
pub use tokens::{WeightedTokens, chunks, pad_together, sequence};
pub use weights::emphasise;
