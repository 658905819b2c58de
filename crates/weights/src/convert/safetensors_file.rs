//! A single safetensors file (<https://github.com/huggingface/safetensors>).

use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::input::Input;
use super::names::{self, OutputTensor};
use super::{Conversion, ConversionReport, Progress, output, unwritable, whole};
use crate::{Encoding, Error, Result};

/// Writes the single file of `conversion`.
pub(super) fn write(
    input: &Input,
    conversion: &Conversion,
    report: &mut ConversionReport,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let tensors = names::of_single_file(input)?;
    let texts = input.saved_texts();
    let texts = texts
        .into_iter()
        .map(|(key, text)| (key, Value::String(text)))
        .collect();
    report.bytes = write_file(
        &conversion.to,
        input,
        &tensors,
        conversion.encoding,
        texts,
        report,
        progress,
    )?;
    Ok(())
}

/// Writes `tensors` and `texts` to the file at `path`, whole or not at all. The result are the bytes of the
/// file.
pub(super) fn write_file(
    path: &Path,
    input: &Input,
    tensors: &[OutputTensor],
    wanted: Option<Encoding>,
    texts: Map<String, Value>,
    report: &mut ConversionReport,
    progress: &mut Progress<'_>,
) -> Result<u64> {
    let mut header = Map::new();
    if !texts.is_empty() {
        header.insert("__metadata__".to_owned(), Value::Object(texts));
    }
    let mut offset = 0;
    for tensor in tensors {
        let encoding = output::encoding(tensor, input, wanted);
        let Some(name) = encoding.safetensors_type() else {
            return Err(Error::UnfitEncoding {
                encoding: encoding.name(),
            });
        };
        let bytes = encoding.bytes(tensor.shape.iter().product());
        let entry = json!({"dtype": name, "shape": tensor.shape, "data_offsets": [offset, offset + bytes]});
        header.insert(tensor.name.clone(), entry);
        offset += bytes;
    }
    let mut header = serde_json::to_vec(&header).unwrap_or_default();
    // Tensors begin at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    let temporary = whole::file_for(path).map_err(unwritable(path))?;
    let mut target = BufWriter::with_capacity(1 << 20, temporary.as_file());
    let failed = unwritable(path);
    target
        .write_all(&(header.len() as u64).to_le_bytes())
        .map_err(&failed)?;
    target.write_all(&header).map_err(&failed)?;
    let mut written = 8 + header.len() as u64;
    for tensor in tensors {
        let encoding = output::encoding(tensor, input, wanted);
        let bytes = output::write(tensor, input, encoding, &mut target, path, progress)?;
        report.count(encoding.name(), bytes);
        written += bytes;
    }
    target.flush().map_err(&failed)?;
    drop(target);
    whole::keep_file(temporary, path).map_err(&failed)?;
    Ok(written)
}
