//! GGUF files of ggml, llama.cpp, stable-diffusion.cpp and ComfyUI-GGUF: the tensors that they hold and their
//! offsets, and metadata.
//!
//! Layout (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), all little endian: magic bytes,
//! version, numbers of tensors and of metadata entries, the entries, the tensors' names, dimensions, types and
//! offsets, and after padding their data.

mod cursor;
mod metadata;
mod tensor_types;
mod tensors;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use metadata::GgufMetadata;

use crate::source::Source;
use crate::{Error, Result, TensorHeader};
use cursor::Cursor;

/// The magic bytes.
const MAGIC: [u8; 4] = *b"GGUF";

/// What the header of a file describes.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) tensors: BTreeMap<String, TensorHeader>,
    pub(crate) metadata: GgufMetadata,
}

/// Whether `source` has the magic bytes of a GGUF file.
pub(crate) fn wrote(source: &Source) -> Result<bool> {
    let mut start = [0; 4];
    if source.length() < 4 {
        return Ok(false);
    }
    source.read_at(0, &mut start)?;
    Ok(start == MAGIC)
}

/// Reads the header of `source` and checks that every tensor lies inside the file and overlaps no other. The
/// metadata's arrays are not held, so that a header takes memory for its names and short texts alone.
pub(crate) fn read(source: &Arc<Source>) -> Result<Contents> {
    let mut cursor = Cursor::new(source, 4);
    let version = cursor.u32()?;
    match version {
        2 | 3 => {}
        0x0100_0000.. if version.swap_bytes() <= 3 => {
            return Err(bad(source, "it was written for big-endian machines"));
        }
        _ => {
            return Err(bad(
                source,
                format!("its version is {version}, and only versions 2 and 3 are read"),
            ));
        }
    }
    let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
    let metadata = GgufMetadata::read(source, &mut cursor, entries)?;
    let tensors = tensors::read(&mut cursor, tensors, &metadata)?;
    Ok(Contents { tensors, metadata })
}

fn bad(source: &Source, reason: impl Into<String>) -> Error {
    Error::BadGguf {
        file: source.path().to_owned(),
        reason: reason.into(),
    }
}
