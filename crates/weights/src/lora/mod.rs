//! Low-rank adaptations (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021), added to a network's
//! weights while these are read.
//!
//! A [`LoraFile`] is known by its header alone. [`LoraFile::fit`] finds the tensors of a model that it changes, whatever
//! program named its layers; [`Adapters`] are the changes of one network by several files, each at a scale of its own.
//! With [`Weights::with_adapters`](crate::Weights::with_adapters) a tensor is read as
//!
//! `W + sum over files of scale * alpha / rank * up @ down`
//!
//! computed in 32 bits and rounded once to the type that it is held in. The matrices `up` and `down` are read when the
//! tensor is, and dropped after it: no second copy of the model, nor of the file, is ever in memory. How the work is
//! cut depends on shapes alone, so that it does not matter to a single bit whether a block is kept or streamed.

mod adapters;
mod alphas;
mod file;
mod fit;
mod hash;
mod key;
mod key_map;
mod model_part;
mod peft_settings;

pub use adapters::Adapters;
pub use alphas::adapter_settings;
pub use file::LoraFile;
pub use fit::Fit;
pub use model_part::ModelPart;
