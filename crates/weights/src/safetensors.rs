//! The header of a safetensors file: which tensors it holds, their types, shapes and byte ranges.
//!
//! Layout (<https://github.com/huggingface/safetensors>): eight bytes of header length, little endian, the
//! header as JSON, then the tensors' bytes; offsets in the header count from the end of the header.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::header::{MAXIMUM_DIMENSIONS, MAXIMUM_TENSORS};
use crate::source::Source;
use crate::{ElementType, Error, Result, TensorHeader};

/// The maximum length of a header. Those of the largest models have 1 MB, and training metadata of a LoRA a
/// few. The reference implementation allows 100 MB.
pub(crate) const MAXIMUM_HEADER_BYTES: u64 = 16 << 20;
/// The key of the metadata entry.
const METADATA: &str = "__metadata__";

#[derive(Deserialize)]
struct Entry {
    dtype: ElementType,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// Reads the header of `source` and checks that every tensor lies inside the file and has the length of its
/// shape.
pub(crate) fn read(source: &Source) -> Result<BTreeMap<String, TensorHeader>> {
    let Text { json, data_start } = Text::of(source)?;
    let mut refusal = None;
    let tensors = Tensors {
        file: source.path(),
        data_start,
        refusal: &mut refusal,
    };
    let (tensors, promised) = parsed(source, &json, |json| Object(tensors).deserialize(json))
        .map_err(|error| refusal.unwrap_or(error))?;
    if promised > source.length() {
        return Err(Error::Truncated {
            file: source.path().to_owned(),
            promised,
            found: source.length(),
        });
    }
    Ok(tensors)
}

/// The metadata of the header of `source`. Values that are not strings are left out.
pub(crate) fn metadata(source: &Source) -> Result<BTreeMap<String, String>> {
    let Text { json, .. } = Text::of(source)?;
    parsed(source, &json, |json| Object(Metadata).deserialize(json))
}

/// The offset of the tensor data of a safetensors file, whose header was read before.
pub(crate) fn data_start(source: &Source) -> Result<u64> {
    let mut prefix = [0; 8];
    source.read_at(0, &mut prefix)?;
    Ok(u64::from_le_bytes(prefix).saturating_add(8))
}

/// Parses the whole of `json`.
fn parsed<'a, T>(
    source: &Source,
    json: &'a [u8],
    parse: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::SliceRead<'a>>) -> serde_json::Result<T>,
) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    parse(&mut deserializer)
        .and_then(|parsed| deserializer.end().map(|()| parsed))
        .map_err(|error| Error::BadHeader {
            file: source.path().to_owned(),
            reason: format!("its header is not JSON ({error})"),
        })
}

/// The header as text.
struct Text {
    json: Vec<u8>,
    /// The offset of the tensor data.
    data_start: u64,
}

impl Text {
    fn of(source: &Source) -> Result<Self> {
        let file = source.path();
        let length = source.length();
        let truncated = |promised| Error::Truncated {
            file: file.to_owned(),
            promised,
            found: length,
        };
        if length < 8 {
            return Err(truncated(8));
        }
        let mut prefix = [0; 8];
        source.read_at(0, &mut prefix)?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > MAXIMUM_HEADER_BYTES {
            return Err(Error::BadHeader {
                file: file.to_owned(),
                reason: format!(
                    "its header would be {header_bytes} bytes long, and at most {MAXIMUM_HEADER_BYTES} are read"
                ),
            });
        }
        let data_start = 8 + header_bytes;
        if data_start > length {
            return Err(truncated(data_start));
        }
        let mut json = vec![0; header_bytes as usize];
        source.read_at(8, &mut json)?;
        Ok(Self { json, data_start })
    }
}

/// A JSON object that is parsed entry by entry, so that only the result is in memory.
trait Table<'de>: Sized {
    /// The result.
    type Value;
    /// The name of the object in messages.
    const EXPECTED: &'static str;

    /// Parses the entries.
    fn read<A: MapAccess<'de>>(self, entries: A) -> std::result::Result<Self::Value, A::Error>;
}

/// Parses a [`Table`].
struct Object<T>(T);

impl<'de, T: Table<'de>> DeserializeSeed<'de> for Object<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<T::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Table<'de>> Visitor<'de> for Object<T> {
    type Value = T::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> std::result::Result<T::Value, A::Error> {
        self.0.read(entries)
    }
}

/// Parses the tensors and skips the metadata.
struct Tensors<'a> {
    file: &'a Path,
    data_start: u64,
    /// The error of a refused entry, where it is not a JSON error.
    refusal: &'a mut Option<Error>,
}

impl<'de> Table<'de> for Tensors<'_> {
    /// The tensors and the end of their data.
    type Value = (BTreeMap<String, TensorHeader>, u64);
    const EXPECTED: &'static str = "a table of tensors";

    fn read<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Self::Value, A::Error> {
        let mut tensors = BTreeMap::new();
        let mut end = self.data_start;
        let bad = |reason: String| Error::BadHeader {
            file: self.file.to_owned(),
            reason,
        };
        let mut refuse = |error: Error| {
            *self.refusal = Some(error);
            A::Error::custom("an entry is refused")
        };
        while let Some(name) = entries.next_key::<String>()? {
            if name == METADATA {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            if tensors.len() == MAXIMUM_TENSORS {
                return Err(refuse(bad(format!(
                    "it would hold more than {MAXIMUM_TENSORS} tensors"
                ))));
            }
            let entry: Entry = entries.next_value().map_err(|error| {
                refuse(bad(format!(
                    "the header's entry for tensor `{name}` is wrong ({error})"
                )))
            })?;
            let header = locate(&name, entry, self.data_start, self.file).map_err(&mut refuse)?;
            end = end.max(header.offset + header.bytes);
            tensors.insert(name, header);
        }
        Ok((tensors, end))
    }
}

/// The shape of a tensor, with a limited number of dimensions.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "at most {MAXIMUM_DIMENSIONS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element()? {
                    if shape.len() == MAXIMUM_DIMENSIONS {
                        return Err(A::Error::custom("it has too many dimensions"));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// Parses the metadata and skips the tensors.
struct Metadata;

impl<'de> Table<'de> for Metadata {
    type Value = BTreeMap<String, String>;
    const EXPECTED: &'static str = "a table of tensors";

    fn read<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some(name) = entries.next_key::<Cow<'_, str>>()? {
            if name == METADATA {
                texts = entries.next_value_seed(Object(Texts))?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(texts)
    }
}

/// Parses the strings of an object and skips other values.
struct Texts;

impl<'de> Table<'de> for Texts {
    type Value = BTreeMap<String, String>;
    const EXPECTED: &'static str = "a table of texts";

    fn read<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((name, text)) = entries.next_entry::<String, MaybeText>()? {
            if texts.len() == MAXIMUM_TENSORS {
                return Err(A::Error::custom("it has too many entries"));
            }
            texts.extend(text.0.map(|text| (name, text)));
        }
        Ok(texts)
    }
}

/// A string, or `None` for another value.
struct MaybeText(Option<String>);

impl<'de> Deserialize<'de> for MaybeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = MaybeText;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<MaybeText, E> {
                Ok(MaybeText(Some(text.to_owned())))
            }

            fn visit_bool<E>(self, _: bool) -> std::result::Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_i64<E>(self, _: i64) -> std::result::Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_u64<E>(self, _: u64) -> std::result::Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_f64<E>(self, _: f64) -> std::result::Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_unit<E>(self) -> std::result::Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> std::result::Result<MaybeText, A::Error> {
                IgnoredAny.visit_seq(items).map(|_| MaybeText(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, items: A) -> std::result::Result<MaybeText, A::Error> {
                IgnoredAny.visit_map(items).map(|_| MaybeText(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Checks the offsets of an entry and converts them to a header.
fn locate(name: &str, entry: Entry, data_start: u64, file: &Path) -> Result<TensorHeader> {
    let bad = |reason: String| Error::BadHeader {
        file: file.to_owned(),
        reason,
    };
    let (begin, end) = entry.data_offsets;
    let Shape(shape) = entry.shape;
    let needed = shape
        .iter()
        .try_fold(1_u64, |product, &size| {
            // Empty dimensions count as 1, because other programs multiply sizes in another order.
            product.checked_mul(size.max(1) as u64)
        })
        // Elements of less than a byte have to be whole bytes together.
        .filter(|count| shape.contains(&0) || count.is_multiple_of(entry.dtype.block().elements))
        .and_then(|count| entry.dtype.bytes_of(count))
        .ok_or_else(|| bad(format!("tensor `{name}` has the impossible shape {shape:?}")))?;
    let needed = if shape.contains(&0) { 0 } else { needed };
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
        shape,
        offset,
        bytes: needed,
    })
}
