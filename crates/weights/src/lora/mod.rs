//! Low-rank adaptation (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021) and methods that
//! are derived from it, merged into weights while they are read.
//!
//! A [`LoraFile`] is opened by its header alone. [`LoraFile::fit`] matches its layers with the tensors of a
//! model, in any of the known namings. [`Adapters`] are the updates of one network by several files, each
//! with a scale. With [`Weights::with_adapters`](crate::Weights::with_adapters) the files update a tensor one
//! after the other. One file makes of `W`
//!
//! `W + scale * difference`, or with magnitudes (DoRA)
//! `W + scale * (magnitude * (W + difference) / norm(W + difference) - W)`,
//!
//! where the difference is `alpha / rank` times
//!
//! - `up @ down` (LoRA, LoCon),
//! - `(up @ down) * (up @ down)`, elementwise (LoHa), or
//! - the Kronecker product of two matrices, each whole or `up @ down` (LoKr).
//!
//! A scale between 0 and 1 interpolates between the two weights, with magnitudes too, as in
//! stable-diffusion-webui and ComfyUI. The names of the tensors and the meaning of alpha are those of LyCORIS.
//!
//! All is computed in 32 bits and rounded once to the held type. The matrices are read with the tensor and
//! dropped after it, so that neither the model nor the file is ever in memory twice. The work is partitioned
//! by shapes alone, so that resident and streamed blocks are equal to the bit.

mod adapters;
mod alphas;
mod file;
mod fit;
mod hash;
mod key;
mod key_map;
mod layer;
mod matrices;
mod model_part;
mod network;
mod peft_settings;

pub use adapters::Adapters;
pub use alphas::adapter_settings;
pub use file::LoraFile;
pub use fit::Fit;
pub use model_part::ModelPart;
pub use network::LoraNetwork;
