//! The metadata of a file: numbers and short texts are held, arrays are read on demand.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bad;
use super::cursor::Cursor;
use crate::Result;
use crate::header::{MAXIMUM_DIMENSIONS, MAXIMUM_TENSORS};
use crate::source::Source;

/// The maximum number of entries: ComfyUI-GGUF writes one for each tensor.
const MAXIMUM_ENTRIES: u64 = 2 * MAXIMUM_TENSORS as u64;
/// The maximum length of a key, as the format has it.
const MAXIMUM_KEY: u64 = (1 << 16) - 1;
/// The maximum length of a text that is held, such as a vocabulary in JSON. Longer ones are skipped.
const LONGEST_TEXT: u64 = 4 << 20;
/// The maximum length of a text in an array, such as a token.
const LONGEST_ELEMENT: u64 = 4 << 10;
/// The maximum bytes of all keys and texts that are held.
const MAXIMUM_HELD: usize = 16 << 20;
/// The maximum number of elements of an array that is read. The largest vocabularies have a quarter.
const MAXIMUM_ELEMENTS: u64 = 1 << 20;
/// The maximum bytes of all texts of an array that is read.
const MAXIMUM_TEXTS: usize = 32 << 20;
/// The maximum depth of arrays of arrays.
const MAXIMUM_DEPTH: usize = 4;

/// The metadata of a GGUF file.
#[derive(Debug, Clone)]
pub struct GgufMetadata {
    source: Arc<Source>,
    entries: BTreeMap<String, Value>,
}

#[derive(Debug, Clone)]
enum Value {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    Array(Array),
    /// A text that is not held.
    Long,
}

/// An array in the file.
#[derive(Debug, Clone, Copy)]
struct Array {
    kind: Kind,
    count: u64,
    /// The offset of the first element.
    offset: u64,
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        const KINDS: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::Text,
            Kind::Array,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        let id = cursor.u32()?;
        let kind = KINDS.get(id as usize).copied();
        kind.ok_or_else(|| {
            bad(
                cursor.source(),
                format!("its metadata has a value of the unknown type {id}"),
            )
        })
    }

    /// The bytes of a value, where all have the same.
    fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

impl Value {
    /// A value that is neither a text nor an array.
    fn number(cursor: &mut Cursor<'_>, kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::U8 => Self::Unsigned(cursor.array().map(u8::from_le_bytes)?.into()),
            Kind::I8 => Self::Signed(cursor.array().map(i8::from_le_bytes)?.into()),
            Kind::U16 => Self::Unsigned(cursor.array().map(u16::from_le_bytes)?.into()),
            Kind::I16 => Self::Signed(cursor.array().map(i16::from_le_bytes)?.into()),
            Kind::U32 => Self::Unsigned(cursor.u32()?.into()),
            Kind::I32 => Self::Signed(cursor.array().map(i32::from_le_bytes)?.into()),
            Kind::F32 => Self::Float(cursor.array().map(f32::from_le_bytes)?.into()),
            Kind::Bool => Self::Bool(cursor.array::<1>()? != [0]),
            Kind::U64 => Self::Unsigned(cursor.u64()?),
            Kind::I64 => Self::Signed(cursor.array().map(i64::from_le_bytes)?),
            Kind::F64 => Self::Float(cursor.array().map(f64::from_le_bytes)?),
            Kind::Text | Kind::Array => Self::Long,
        })
    }

    fn integer(&self) -> Option<i64> {
        match *self {
            Self::Signed(value) => Some(value),
            Self::Unsigned(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match *self {
            Self::Float(value) => Some(value),
            Self::Signed(value) => Some(value as f64),
            Self::Unsigned(value) => Some(value as f64),
            _ => None,
        }
    }
}

impl GgufMetadata {
    /// Reads `count` entries.
    pub(super) fn read(source: &Arc<Source>, cursor: &mut Cursor<'_>, count: u64) -> Result<Self> {
        if count > MAXIMUM_ENTRIES {
            let reason =
                format!("it would have {count} entries of metadata, and at most {MAXIMUM_ENTRIES} are read");
            return Err(bad(source, reason));
        }
        let (mut entries, mut held) = (BTreeMap::new(), 0);
        for _ in 0..count {
            let key = cursor.text(MAXIMUM_KEY, "a key")?;
            held += key.len();
            let value = match Kind::read(cursor)? {
                Kind::Text => {
                    let length = cursor.u64()?;
                    if length > LONGEST_TEXT {
                        cursor.skip(length)?;
                        Value::Long
                    } else {
                        let text = cursor.text_of(length)?;
                        held += text.len();
                        Value::Text(text)
                    }
                }
                Kind::Array => Value::Array(skip_array(cursor, 0)?),
                number => Value::number(cursor, number)?,
            };
            if held > MAXIMUM_HELD {
                return Err(bad(source, "the texts of its metadata are too long"));
            }
            entries.insert(key, value);
        }
        Ok(Self {
            source: source.clone(),
            entries,
        })
    }

    /// The entries that are texts.
    pub fn all_texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|(key, value)| match value {
            Value::Text(text) => Some((key.as_str(), text.as_str())),
            _ => None,
        })
    }

    /// The architecture of the model, `general.architecture`, such as `sdxl` or `t5encoder`.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    /// The text under `key`, unless it is longer than 4 KB.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.entries.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer under `key`.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.entries.get(key)?.integer()
    }

    /// The number under `key`.
    pub fn float(&self, key: &str) -> Option<f64> {
        self.entries.get(key)?.float()
    }

    /// The boolean under `key`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        match self.entries.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number of elements of the array under `key`.
    pub fn array_length(&self, key: &str) -> Option<u64> {
        self.array(key).map(|array| array.count)
    }

    /// Reads the array of texts under `key`, such as `tokenizer.ggml.tokens`. `None` where there is no such
    /// array.
    ///
    /// # Errors
    /// The file cannot be read, or the array is longer than any vocabulary.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let mut bytes = 0;
        self.elements(
            key,
            |kind| kind == Kind::Text,
            |cursor, _| {
                let text = cursor.text(LONGEST_ELEMENT, "a text in an array")?;
                bytes += text.len();
                match bytes > MAXIMUM_TEXTS {
                    true => Err(bad(cursor.source(), "the texts of an array are too long")),
                    false => Ok(Some(text)),
                }
            },
        )
    }

    /// Reads the array of numbers under `key`, such as `tokenizer.ggml.scores`. `None` where there is no such
    /// array.
    ///
    /// # Errors
    /// As [`GgufMetadata::texts`].
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let is_number = |kind: Kind| kind.size().is_some() && kind != Kind::Bool;
        self.elements(key, is_number, |cursor, kind| {
            Ok(Value::number(cursor, kind)?.float())
        })
    }

    /// Reads the array of integers under `key`, such as `tokenizer.ggml.token_type`. `None` where there is no
    /// such array, or it has a number beyond 63 bits.
    ///
    /// # Errors
    /// As [`GgufMetadata::texts`].
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let is_integer =
            |kind: Kind| kind.size().is_some() && !matches!(kind, Kind::Bool | Kind::F32 | Kind::F64);
        self.elements(key, is_integer, |cursor, kind| {
            Ok(Value::number(cursor, kind)?.integer())
        })
    }

    /// The shape of the tensor `name` before it was stored in rows of whole blocks, outermost dimension first,
    /// which ComfyUI-GGUF writes.
    pub(super) fn original_shape(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let key = format!("comfy.gguf.orig_shape.{name}");
        let Some(dimensions) = self.array_length(&key) else {
            return Ok(None);
        };
        let shape = match dimensions <= MAXIMUM_DIMENSIONS as u64 {
            true => self.integers(&key)?,
            false => None,
        };
        let sizes = shape.map(|shape| shape.into_iter().map(|size| usize::try_from(size).ok()).collect());
        sizes
            .flatten()
            .map(Some)
            .ok_or_else(|| bad(&self.source, format!("`{key}` is no shape")))
    }

    fn array(&self, key: &str) -> Option<Array> {
        match self.entries.get(key)? {
            Value::Array(array) => Some(*array),
            _ => None,
        }
    }

    /// The elements of the array under `key`, if there is one of a kind that `accepts`, each as `read` gives it.
    fn elements<T>(
        &self,
        key: &str,
        accepts: impl Fn(Kind) -> bool,
        mut read: impl FnMut(&mut Cursor<'_>, Kind) -> Result<Option<T>>,
    ) -> Result<Option<Vec<T>>> {
        let Some(array) = self.array(key).filter(|array| accepts(array.kind)) else {
            return Ok(None);
        };
        if array.count > MAXIMUM_ELEMENTS {
            let reason = format!(
                "`{key}` has {} elements, and at most {MAXIMUM_ELEMENTS} are read",
                array.count
            );
            return Err(bad(&self.source, reason));
        }
        let mut cursor = Cursor::new(&self.source, array.offset);
        (0..array.count).map(|_| read(&mut cursor, array.kind)).collect()
    }
}

/// Moves to the end of an array.
fn skip_array(cursor: &mut Cursor<'_>, depth: usize) -> Result<Array> {
    let kind = Kind::read(cursor)?;
    let count = cursor.u64()?;
    let array = Array {
        kind,
        count,
        offset: cursor.offset(),
    };
    match kind.size() {
        Some(size) => cursor.skip(count.saturating_mul(size))?,
        None if kind == Kind::Array && depth == MAXIMUM_DEPTH => {
            return Err(bad(
                cursor.source(),
                "its metadata has arrays in arrays without end",
            ));
        }
        // An element has a length at least, so that the end of the file ends the loop.
        None => {
            for _ in 0..count {
                match kind {
                    Kind::Array => drop(skip_array(cursor, depth + 1)?),
                    _ => {
                        let length = cursor.u64()?;
                        cursor.skip(length)?;
                    }
                }
            }
        }
    }
    Ok(array)
}
