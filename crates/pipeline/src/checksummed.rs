//! The program's own files: f32 tensors with a JSON description and a SHA-256 checksum.
//!
//! They are safetensors files, so that other programs can read them. The header's metadata holds the
//! description as JSON, and under the key `checksum` the SHA-256 of the description and of every tensor's name,
//! shape and bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::crash_point::crash_point;

const DESCRIPTION: &str = "description";
const CHECKSUM: &str = "checksum";
/// Its key in files of earlier builds, which computed it in the same way.
const EARLIER_CHECKSUM: &str = "seal";
/// A longer header is treated as damage.
const MAXIMUM_HEADER_BYTES: u64 = 100_000_000;

/// The contents of a file.
#[derive(Debug)]
pub(crate) struct Checksummed<D> {
    pub(crate) description: D,
    /// The tensors by name, in host memory.
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
}

/// What a file must survive once it is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of the process.
    Process,
    /// A power failure.
    Power,
}

/// Writes a file to `temporary` and renames it to `path`. A reader of `path` sees the old file or the new
/// one. After an error the old file is in place, and no temporary file is left.
pub(crate) fn replace(
    path: &Path,
    temporary: &Path,
    durability: Durability,
    description: &impl Serialize,
    tensors: &[(String, &Tensor)],
) -> io::Result<()> {
    let written = File::create(temporary).and_then(|file| {
        let mut buffered = BufWriter::new(&file);
        write(&mut buffered, description, tensors)?;
        buffered.flush()?;
        drop(buffered);
        crash_point();
        if durability == Durability::Power {
            file.sync_data()?;
        }
        Ok(())
    });
    let replaced = written.and_then(|()| {
        crash_point();
        fs::rename(temporary, path)
    });
    crash_point();
    if replaced.is_err() {
        // The file may not exist yet; report the first error.
        let _ = fs::remove_file(temporary);
    }
    replaced
}

fn write(
    file: &mut impl Write,
    description: &impl Serialize,
    tensors: &[(String, &Tensor)],
) -> io::Result<()> {
    let description = serde_json::to_string(description)?;
    let mut checksum = Checksum::of(&description);
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, tensor) in tensors {
        let values = values(tensor)?;
        checksum.add(name, tensor.dims(), bytemuck::cast_slice(&values));
        let end = offset + 4 * values.len();
        let entry = json!({ "dtype": "F32", "shape": tensor.dims(), "data_offsets": [offset, end] });
        header.insert(name.clone(), entry);
        offset = end;
    }
    header.insert(
        "__metadata__".to_owned(),
        json!({ DESCRIPTION: description, CHECKSUM: checksum.finish() }),
    );
    let mut header = serde_json::to_vec(&header)?;
    // Spaces, so that the tensors start aligned.
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, tensor) in tensors {
        // Convert one tensor at a time, so that memory does not grow with the file.
        file.write_all(bytemuck::cast_slice(&values(tensor)?))?;
    }
    Ok(())
}

/// Reads the file and verifies its checksum.
pub(crate) fn read<D: DeserializeOwned>(path: &Path) -> Result<Checksummed<D>, Unreadable> {
    let damaged = |error: safetensors::SafeTensorError| Unreadable::Damaged(error.to_string());
    let mut bytes = Vec::new();
    sd_files::open(path)?.read_to_end(&mut bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let empty = HashMap::new();
    let texts = header.metadata().as_ref().unwrap_or(&empty);
    let description = text(texts, DESCRIPTION)?;
    let mut checksum = Checksum::of(description);
    let mut tensors = BTreeMap::new();
    for name in header.offset_keys() {
        let view = file.tensor(&name).map_err(damaged)?;
        if view.dtype() != Dtype::F32 {
            return Err(Unreadable::Damaged(format!("`{name}` is not f32")));
        }
        checksum.add(&name, view.shape(), view.data());
        let (numbers, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)
            .map_err(|error| Unreadable::Damaged(error.to_string()))?;
        tensors.insert(name, tensor);
    }
    let expected = text(texts, EARLIER_CHECKSUM).or_else(|_| text(texts, CHECKSUM))?;
    if expected != checksum.finish() {
        return Err(Unreadable::Damaged(
            "its contents do not match its checksum".to_owned(),
        ));
    }
    Ok(Checksummed {
        description: parse(description)?,
        tensors,
    })
}

/// Reads only the description, and does not verify the tensors.
pub(crate) fn read_description<D: DeserializeOwned>(path: &Path) -> Result<D, Unreadable> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__", default)]
        texts: HashMap<String, String>,
    }
    let damaged = |reason: &str| Unreadable::Damaged(reason.to_owned());
    let mut file = sd_files::open(path)?;
    let length = file.metadata()?.len();
    let mut prefix = [0; 8];
    if length < 8 {
        return Err(damaged("it is too short to have a header"));
    }
    file.read_exact(&mut prefix)?;
    let promised = u64::from_le_bytes(prefix);
    if promised > (length - 8).min(MAXIMUM_HEADER_BYTES) {
        return Err(damaged("its header would be longer than the file"));
    }
    let mut header = vec![0; promised as usize];
    file.read_exact(&mut header)?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|error| Unreadable::Damaged(error.to_string()))?;
    parse(text(&header.texts, DESCRIPTION)?)
}

fn text<'a>(texts: &'a HashMap<String, String>, key: &str) -> Result<&'a str, Unreadable> {
    let text = texts.get(key).map(String::as_str);
    text.ok_or_else(|| Unreadable::Damaged(format!("it has no {key}")))
}

fn parse<D: DeserializeOwned>(description: &str) -> Result<D, Unreadable> {
    serde_json::from_str(description)
        .map_err(|error| Unreadable::Damaged(format!("its description cannot be understood ({error})")))
}

fn values(tensor: &Tensor) -> io::Result<Vec<f32>> {
    let flat = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
    flat.map_err(|error| io::Error::other(error.to_string()))
}

/// Creates `folder` for the user alone: prompts are private.
pub(crate) fn make_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The digest of a file's contents.
struct Checksum(Sha256);

impl Checksum {
    fn of(description: &str) -> Self {
        Self(Sha256::new().chain_update(description))
    }

    fn add(&mut self, name: &str, shape: &[usize], bytes: &[u8]) {
        self.0.update(format!("\n{name} {shape:?}\n"));
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        hexadecimal(&self.0.finalize())
    }
}

/// Two lower-case digits per byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor() -> Tensor {
        let odd = f32::from_bits(0x7fc0_1234);
        Tensor::new(
            &[[1.5f32, -0.0, f32::MIN_POSITIVE / 8.0], [odd, 4.0, 5.0]],
            &Device::Cpu,
        )
        .unwrap()
    }

    /// A file with one tensor, and its path.
    fn written() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let temporary = folder.path().join("part");
        let tensors = [
            ("b".to_owned(), &tensor()),
            ("a".to_owned(), &tensor().t().unwrap()),
        ];
        let description = json!({ "prompt": "a \"cat\"" });
        replace(&path, &temporary, Durability::Power, &description, &tensors).unwrap();
        assert!(!temporary.exists());
        (folder, path)
    }

    #[test]
    fn every_bit_comes_back() {
        let (_folder, path) = written();
        let read: Checksummed<serde_json::Value> = read(&path).unwrap();
        assert_eq!(read.description["prompt"], "a \"cat\"");
        let bits =
            |tensor: &Tensor| -> Vec<u32> { values(tensor).unwrap().into_iter().map(f32::to_bits).collect() };
        assert_eq!(read.tensors["b"].dims(), [2, 3]);
        assert_eq!(bits(&read.tensors["b"]), bits(&tensor()));
        assert_eq!(bits(&read.tensors["a"]), bits(&tensor().t().unwrap()));
        let description: serde_json::Value = read_description(&path).unwrap();
        assert_eq!(description, read.description);
        // Other programs can read it.
        assert_eq!(
            candle_core::safetensors::load(&path, &Device::Cpu).unwrap().len(),
            2
        );
    }

    #[test]
    fn damage_anywhere_is_found() {
        let (_folder, path) = written();
        let whole = fs::read(&path).unwrap();
        let reads = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let _ = read_description::<serde_json::Value>(&path);
            read::<serde_json::Value>(&path).is_ok()
        };
        assert!(reads(&whole));
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 1;
            assert!(!reads(&bytes), "byte {index}");
            assert!(!reads(&whole[..index]), "truncated at {index}");
        }
        assert!(!reads(&[whole.as_slice(), b"more"].concat()));
    }

    #[test]
    fn a_checksum_under_its_earlier_key_is_verified() {
        let (_folder, path) = written();
        let whole = fs::read(&path).unwrap();
        let header = 8..8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&whole[header.clone()]).unwrap();
        let renamed = text.replace("\"checksum\":", "\"seal\":");
        assert_ne!(renamed, text);
        let length = (renamed.len() as u64).to_le_bytes();
        let mut earlier = [&length[..], renamed.as_bytes(), &whole[header.end..]].concat();
        fs::write(&path, &earlier).unwrap();
        read::<serde_json::Value>(&path).unwrap();
        *earlier.last_mut().unwrap() ^= 1;
        fs::write(&path, &earlier).unwrap();
        read::<serde_json::Value>(&path).unwrap_err();
        let without = text.replace("\"checksum\":", "\"checksun\":");
        fs::write(
            &path,
            [&whole[..8], without.as_bytes(), &whole[header.end..]].concat(),
        )
        .unwrap();
        let error = read::<serde_json::Value>(&path).unwrap_err();
        assert_eq!(error.to_string(), "it has no checksum");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_file() {
        let (folder, path) = written();
        let before = fs::read(&path).unwrap();
        let whole_numbers = Tensor::new(&[1u32], &Device::Cpu).unwrap();
        let temporary = folder.path().join("part");
        let tensors = [("a".to_owned(), &whole_numbers)];
        replace(&path, &temporary, Durability::Process, &json!({}), &tensors).unwrap_err();
        assert!(!temporary.exists());
        assert!(fs::read(&path).unwrap() == before);
    }
}
