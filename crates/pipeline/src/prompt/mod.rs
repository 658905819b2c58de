//! The syntax of prompts, as stable-diffusion-webui reads it: emphasis, pieces of any length, and LoRAs named
//! in the text.
//!
//! A text is read into a [`Prompt`]: pieces with weights, breaks between chunks, and the LoRAs that were
//! named. Of a prompt and a tokenizer come [`WeightedTokens`], in [`chunks`] for CLIP or in one [`sequence`]
//! for T5; what the text encoder makes of them is weighted with [`emphasise`].

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
