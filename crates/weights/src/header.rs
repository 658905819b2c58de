//! The header of a safetensors file: which tensors it holds, their types, shapes and byte ranges.
//!
//! Layout (<https://github.com/huggingface/safetensors>): eight bytes of header length, little endian, the
//! header as JSON, then the tensors' bytes; offsets in the header count from the end of the header.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::source::Source;
use crate::{Error, Result};

/// The largest header that is believed. The reference implementation draws the same line.
pub(crate) const MAXIMUM_HEADER_BYTES: u64 = 100_000_000;
/// The entry that is no tensor's.
const METADATA: &str = "__metadata__";

/// In which type a file stores the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs)]
pub enum ElementType {
    #[serde(rename = "BOOL")]
    Bool,
    U8,
    I8,
    I16,
    U16,
    F16,
    #[serde(rename = "BF16")]
    Bf16,
    #[serde(rename = "F8_E4M3")]
    F8E4M3,
    #[serde(rename = "F8_E5M2")]
    F8E5M2,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What a file's header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorHeader {
    /// The type of its elements.
    pub element_type: ElementType,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Where its bytes begin, from the start of the file.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

#[derive(Deserialize)]
struct Entry {
    dtype: ElementType,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Reads the header of `source` and checks that every tensor lies inside the file and has as many bytes as
/// its shape needs.
pub(crate) fn read(source: &Source) -> Result<BTreeMap<String, TensorHeader>> {
    let file = source.path();
    let bad = |reason: String| Error::BadHeader {
        file: file.to_owned(),
        reason,
    };
    let (entries, data_start) = entries(source)?;
    let mut tensors = BTreeMap::new();
    let mut promised = data_start;
    for (name, value) in entries {
        if name == METADATA {
            continue;
        }
        let entry: Entry = serde_json::from_value(value).map_err(|error| {
            bad(format!(
                "the header's entry for tensor `{name}` is wrong ({error})"
            ))
        })?;
        let header = locate(&name, entry, data_start, file)?;
        promised = promised.max(header.offset + header.bytes);
        tensors.insert(name, header);
    }
    if promised > source.length() {
        return Err(Error::Truncated {
            file: file.to_owned(),
            promised,
            found: source.length(),
        });
    }
    Ok(tensors)
}

/// What the header of `source` says beside its tensors: texts by their names. What is not a text is left out.
pub(crate) fn metadata(source: &Source) -> Result<BTreeMap<String, String>> {
    let (mut entries, _) = entries(source)?;
    let Some(serde_json::Value::Object(metadata)) = entries.remove(METADATA) else {
        return Ok(BTreeMap::new());
    };
    let texts = metadata.into_iter().filter_map(|(name, value)| match value {
        serde_json::Value::String(text) => Some((name, text)),
        _ => None,
    });
    Ok(texts.collect())
}

/// Where the tensors' bytes of a safetensors file begin, whose header was read before.
pub(crate) fn data_start(source: &Source) -> Result<u64> {
    let mut prefix = [0; 8];
    source.read_at(0, &mut prefix)?;
    Ok(u64::from_le_bytes(prefix).saturating_add(8))
}

/// The header's entries, and where the tensors' bytes begin.
fn entries(source: &Source) -> Result<(BTreeMap<String, serde_json::Value>, u64)> {
    let file = source.path();
    let bad = |reason: String| Error::BadHeader {
        file: file.to_owned(),
        reason,
    };
    let length = source.length();
    if length < 8 {
        return Err(Error::Truncated {
            file: file.to_owned(),
            promised: 8,
            found: length,
        });
    }
    let mut prefix = [0; 8];
    source.read_at(0, &mut prefix)?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > MAXIMUM_HEADER_BYTES {
        return Err(bad(format!("its header would be {header_bytes} bytes long")));
    }
    let data_start = 8 + header_bytes;
    if data_start > length {
        return Err(Error::Truncated {
            file: file.to_owned(),
            promised: data_start,
            found: length,
        });
    }
    let mut text = vec![0; header_bytes as usize];
    source.read_at(8, &mut text)?;

    let entries =
        serde_json::from_slice(&text).map_err(|error| bad(format!("its header is not JSON ({error})")))?;
    Ok((entries, data_start))
}

/// Turns an entry's offsets into a place in the file, or says why they cannot be right.
fn locate(name: &str, entry: Entry, data_start: u64, file: &Path) -> Result<TensorHeader> {
    let bad = |reason: String| Error::BadHeader {
        file: file.to_owned(),
        reason,
    };
    let (begin, end) = entry.data_offsets;
    let needed = entry
        .shape
        .iter()
        .try_fold(entry.dtype.size(), |product, &size| {
            product.checked_mul(size as u64)
        })
        .ok_or_else(|| {
            bad(format!(
                "tensor `{name}` has the impossible shape {:?}",
                entry.shape
            ))
        })?;
    if begin.checked_add(needed) != Some(end) {
        return Err(bad(format!(
            "tensor `{name}` needs {needed} bytes and is given the range {begin} to {end}"
        )));
    }
    let offset = data_start
        .checked_add(begin)
        .filter(|offset| offset.checked_add(needed).is_some())
        .ok_or_else(|| bad(format!("tensor `{name}` begins at the impossible offset {begin}")))?;
    Ok(TensorHeader {
        element_type: entry.dtype,
        shape: entry.shape,
        offset,
        bytes: needed,
    })
}
