//! Models in single files draw what the same models draw from folders of diffusers, and files that hold
//! something else are refused by name. `tools/reference/make_single_files.py` writes the data.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod drawn;
mod model;
mod recognised;
#[path = "../reference/mod.rs"]
mod reference;
mod refused;
mod torch_zip;
mod weights;
