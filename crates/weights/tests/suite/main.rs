//! Weights files: reading, naming, merging, streaming.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod blocks;
mod checkpoint;
mod embeddings;
mod gguf;
mod inspection;
mod lora;
#[path = "../lora_files/mod.rs"]
mod lora_files;
mod lora_names;
mod lycoris;
mod model_folders;
mod page_cache;
mod projections;
mod quantized;
mod torch_files;
