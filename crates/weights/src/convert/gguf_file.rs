//! A GGUF file, version 3 (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).

use std::io::{BufWriter, Write};

use super::encoding::Encoding;
use super::input::Input;
use super::names;
use super::{Conversion, ConversionReport, Progress, output, unwritable, whole};
use crate::model_source::NetworkKind;
use crate::{ModelFamily, Result};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// The bytes at a multiple of which the data of each tensor begins.
const ALIGNMENT: u64 = 32;
/// The numbers of the types of metadata.
const UINT32: u32 = 4;
const STRING: u32 = 8;

/// Metadata and descriptions of tensors, as bytes.
#[derive(Debug, Default)]
struct Header(Vec<u8>);

impl Header {
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
    }
}

/// Writes the GGUF file of `conversion`.
pub(super) fn write(
    input: &Input,
    conversion: &Conversion,
    report: &mut ConversionReport,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let path = conversion.to.as_path();
    let tensors = names::of_single_file(input)?;
    let mut entries = Header::default();
    let mut count = 0;
    let mut entry = |key: &str, kind: u32, value: &dyn Fn(&mut Header)| {
        entries.text(key);
        entries.u32(kind);
        value(&mut entries);
        count += 1;
    };
    if let Some(architecture) = architecture(input) {
        entry("general.architecture", STRING, &|header| {
            header.text(architecture)
        });
    }
    let whole = conversion.encoding.unwrap_or(Encoding::F16);
    entry("general.quantization_version", UINT32, &|header| header.u32(2));
    entry("general.file_type", UINT32, &|header| {
        header.u32(whole.gguf_file_type())
    });
    for (key, text) in input.saved_texts() {
        entry(&key, STRING, &|header| header.text(&text));
    }
    let mut descriptions = Header::default();
    let mut offset: u64 = 0;
    for tensor in &tensors {
        let encoding = output::encoding(tensor, input, conversion.encoding);
        descriptions.text(&tensor.name);
        descriptions.u32(tensor.shape.len() as u32);
        for &size in tensor.shape.iter().rev() {
            descriptions.u64(size as u64);
        }
        descriptions.u32(encoding.gguf_type());
        descriptions.u64(offset);
        offset += encoding
            .bytes(tensor.shape.iter().product())
            .next_multiple_of(ALIGNMENT);
    }
    let mut header = Header(MAGIC.to_vec());
    header.u32(VERSION);
    header.u64(tensors.len() as u64);
    header.u64(count);
    header.0.extend(entries.0);
    header.0.extend(descriptions.0);
    header
        .0
        .resize(header.0.len().next_multiple_of(ALIGNMENT as usize), 0);

    let temporary = whole::file_for(path).map_err(unwritable(path))?;
    let mut target = BufWriter::with_capacity(1 << 20, temporary.as_file());
    let failed = unwritable(path);
    target.write_all(&header.0).map_err(&failed)?;
    let mut written = header.0.len() as u64;
    for tensor in &tensors {
        let encoding = output::encoding(tensor, input, conversion.encoding);
        let bytes = output::write(tensor, input, encoding, &mut target, path, progress)?;
        report.count(encoding.name(), bytes);
        let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
        target
            .write_all(&[0; ALIGNMENT as usize][..padding as usize])
            .map_err(&failed)?;
        written += bytes + padding;
    }
    target.flush().map_err(&failed)?;
    drop(target);
    whole::keep_file(temporary, path).map_err(&failed)?;
    report.bytes = written;
    Ok(())
}

/// The architecture that programs recognise a denoising network alone by.
fn architecture(input: &Input) -> Option<&'static str> {
    match input.networks.as_slice() {
        [network] => match network.kind {
            NetworkKind::Mmdit => Some("sd3"),
            NetworkKind::UNet(ModelFamily::StableDiffusionXl | ModelFamily::StableDiffusionXlRefiner) => {
                Some("sdxl")
            }
            NetworkKind::UNet(_) => Some("sd1"),
            _ => None,
        },
        _ => None,
    }
}
