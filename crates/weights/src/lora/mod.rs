//! Low-rank adaptation (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021), merged into
//! weights while they are read.
//!
//! A [`LoraFile`] is opened by its header alone. [`LoraFile::fit`] matches its layers with the tensors of a
//! model, in any of the known namings. [`Adapters`] are the updates of one network by several files, each
//! with a scale. With [`Weights::with_adapters`](crate::Weights::with_adapters) a tensor is read as
//!
//! `W + sum over files of scale * alpha / rank * up @ down`
//!
//! computed in 32 bits and rounded once to the held type. The matrices `up` and `down` are read with the
//! tensor and dropped after it, so that neither the model nor the file is ever in memory twice. The work is
//! partitioned by shapes alone, so that resident and streamed blocks are equal to the bit.

mod adapters;
mod alphas;
mod file;
mod fit;
mod hash;
mod key;
mod key_map;
mod model_part;
mod network;
mod peft_settings;

pub use adapters::Adapters;
pub use alphas::adapter_settings;
pub use file::LoraFile;
pub use fit::Fit;
pub use model_part::ModelPart;
pub use network::LoraNetwork;
