//! The list of tensors.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::metadata::GgufMetadata;
use super::{bad, tensor_types};
use crate::header::{MAXIMUM_DIMENSIONS, MAXIMUM_TENSORS};
use crate::source::Source;
use crate::{Error, Result, TensorHeader};

/// The alignment of tensor data, where the file does not say.
const ALIGNMENT: i64 = 32;
/// The largest alignment.
const MAXIMUM_ALIGNMENT: i64 = 1 << 20;
/// The maximum length of a name. Those of ggml end at 63 bytes, those of ComfyUI-GGUF at 127.
const MAXIMUM_NAME: u64 = 1 << 10;
/// The maximum bytes of all names together.
const MAXIMUM_NAMES: usize = 8 << 20;

/// Reads the list of `count` tensors, with which the header ends.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    count: u64,
    metadata: &GgufMetadata,
) -> Result<BTreeMap<String, TensorHeader>> {
    let source = cursor.source();
    if count > MAXIMUM_TENSORS as u64 {
        let reason = format!("it would hold {count} tensors, and at most {MAXIMUM_TENSORS} are read");
        return Err(bad(source, reason));
    }
    let (mut tensors, mut names) = (BTreeMap::new(), 0);
    for _ in 0..count {
        let (name, header) = entry(cursor, metadata)?;
        names += name.len();
        if names > MAXIMUM_NAMES {
            return Err(bad(source, "the names of its tensors are too long"));
        }
        if let Some(twice) = tensors.insert(name.clone(), header) {
            let _: TensorHeader = twice;
            return Err(bad(source, format!("it has two tensors `{name}`")));
        }
    }
    place(&mut tensors, cursor.offset(), metadata, source)?;
    Ok(tensors)
}

/// The name of a tensor, and its header with an offset from the beginning of the data.
fn entry(cursor: &mut Cursor<'_>, metadata: &GgufMetadata) -> Result<(String, TensorHeader)> {
    let source = cursor.source();
    let name = cursor.text(MAXIMUM_NAME, "a tensor's name")?;
    let dimensions = cursor.u32()? as usize;
    if dimensions > MAXIMUM_DIMENSIONS {
        let reason =
            format!("tensor `{name}` has {dimensions} dimensions, and at most {MAXIMUM_DIMENSIONS} are read");
        return Err(bad(source, reason));
    }
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        shape.push(cursor.u64()?);
    }
    let row = shape.first().copied().unwrap_or(1);
    // The file has the innermost dimension first.
    shape.reverse();
    let element_type =
        tensor_types::element_type(cursor.u32()?).map_err(|method| Error::QuantizedTensor {
            file: source.path().to_owned(),
            tensor: name.clone(),
            method,
        })?;
    let offset = cursor.u64()?;
    let impossible = || {
        bad(
            source,
            format!("tensor `{name}` has the impossible shape {shape:?}"),
        )
    };
    // Empty dimensions count as 1, because other programs multiply sizes in another order.
    let product = |product: u64, &size: &u64| product.checked_mul(size.max(1));
    let count = shape.iter().try_fold(1, product).ok_or_else(impossible)?;
    if !row.is_multiple_of(element_type.block().elements) {
        let reason =
            format!("the rows of tensor `{name}` have {row} values, which are no blocks of {element_type}");
        return Err(bad(source, reason));
    }
    let bytes = match shape.contains(&0) {
        true => 0,
        false => element_type.bytes_of(count).ok_or_else(impossible)?,
    };
    let sizes = shape.iter().map(|&size| usize::try_from(size).ok());
    let shape = sizes.collect::<Option<Vec<usize>>>().ok_or_else(impossible)?;
    let shape = match metadata.original_shape(&name)? {
        Some(original) if product_of(&original) == product_of(&shape) => original,
        Some(original) => {
            let reason = format!("tensor `{name}` of shape {shape:?} would have had the shape {original:?}");
            return Err(bad(source, reason));
        }
        None => shape,
    };
    let header = TensorHeader {
        element_type,
        shape,
        offset,
        bytes,
    };
    Ok((name, header))
}

fn product_of(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
}

/// Counts the offsets from the beginning of the file, where the header ends at `header_end`, and checks them.
fn place(
    tensors: &mut BTreeMap<String, TensorHeader>,
    header_end: u64,
    metadata: &GgufMetadata,
    source: &Source,
) -> Result<()> {
    let alignment = metadata.integer("general.alignment").unwrap_or(ALIGNMENT);
    if !(1..=MAXIMUM_ALIGNMENT).contains(&alignment) || alignment.count_ones() != 1 {
        let reason = format!("its alignment is {alignment}, which is no power of two");
        return Err(bad(source, reason));
    }
    let alignment = alignment as u64;
    let data_start = header_end.next_multiple_of(alignment);
    let mut ranges = Vec::with_capacity(tensors.len());
    for (name, header) in tensors.iter_mut() {
        if !header.offset.is_multiple_of(alignment) {
            let reason = format!("tensor `{name}` does not begin at a multiple of {alignment}");
            return Err(bad(source, reason));
        }
        let start = header.offset.checked_add(data_start);
        let end = start.and_then(|start| start.checked_add(header.bytes));
        let (Some(start), Some(end)) = (start, end) else {
            let reason = format!(
                "tensor `{name}` begins at the impossible offset {}",
                header.offset
            );
            return Err(bad(source, reason));
        };
        if header.bytes == 0 {
            // It may begin behind the end of a file without padding.
            header.offset = start.min(source.length());
            continue;
        }
        if end > source.length() {
            return Err(Error::Truncated {
                file: source.path().to_owned(),
                promised: end,
                found: source.length(),
            });
        }
        header.offset = start;
        ranges.push((start, end, name.as_str()));
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(_, end, first), (start, _, second)] = pair
            && start < end
        {
            let reason = format!("its tensors `{first}` and `{second}` overlap");
            return Err(bad(source, reason));
        }
    }
    Ok(())
}
