//! Identities of files, by which a change of a model is noticed without reading all weights again.

use std::ops::Range;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::source::Source;
use crate::{Result, safetensors, torch};

/// The maximum length of a file without a header that is hashed whole.
const LONGEST_READ_WHOLE: u64 = 64 << 20;
/// The bytes at the start and at the end of a longer file that are hashed. PyTorch files end with the
/// checksums of their tensors.
const ENDS: u64 = 1 << 20;
/// The bytes in memory at a time while a file is hashed.
const PIECE: u64 = 64 << 10;

/// The identity of a file at one moment.
///
/// The digest of a small file covers all bytes. The identity of a weights file on disk consists of the digest
/// of its header (for other large files, of their start and end), its length and its modification time,
/// because hashing it whole would take as long as loading the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// The path inside the folder of the model, with `/` as separator.
    pub path: String,
    /// The length in bytes.
    pub length: u64,
    /// The modification time in nanoseconds since 1970. `None` where the digest covers all bytes.
    pub modified: Option<i64>,
    /// The SHA-256 of the whole file, or of the header of weights on disk, in hexadecimal digits.
    pub digest: String,
}

impl FileIdentity {
    /// The identity of the file at `path`, which belongs to no model. Its path in the identity is the file
    /// name.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub fn of_file(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Self::of_source(&name, &Source::open(path.to_owned())?)
    }

    /// The identity of `bytes` that are built into the binary, under the name `path`.
    pub(crate) fn of_bytes(path: &str, bytes: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            length: bytes.len() as u64,
            modified: None,
            digest: digest(bytes),
        }
    }

    /// The SHA-256 of all bytes of `source`, in hexadecimal digits.
    pub(crate) fn sha256(source: &Source) -> Result<String> {
        digest_of(source, std::iter::once(0..source.length()))
    }

    pub(crate) fn of_source(path: &str, source: &Source) -> Result<Self> {
        let (modified, digest) = match source {
            Source::Embedded { digest, .. } => (None, (*digest).to_owned()),
            Source::Disk { modified, .. } if path.ends_with(".safetensors") => {
                (modified.map(nanoseconds), digest(&header_bytes(source)?))
            }
            Source::Disk { modified, .. } if path.ends_with(".bin") && torch::wrote(source)? => (
                modified.map(nanoseconds),
                digest(&torch::table_of_contents(source)?),
            ),
            Source::Disk { modified, .. } if source.length() > LONGEST_READ_WHOLE => {
                let ends = [0..ENDS, source.length() - ENDS..source.length()];
                (modified.map(nanoseconds), digest_of(source, ends)?)
            }
            _ => (None, digest_of(source, std::iter::once(0..source.length()))?),
        };
        Ok(Self {
            path: path.to_owned(),
            length: source.length(),
            modified,
            digest,
        })
    }
}

/// The header of a safetensors file: names, types, shapes and offsets. A file that is not safetensors is
/// refused when it is opened, not here.
fn header_bytes(source: &Source) -> Result<Vec<u8>> {
    let length = source.length();
    let mut prefix = vec![0; length.min(8) as usize];
    source.read_at(0, &mut prefix)?;
    let Ok(promised) = <[u8; 8]>::try_from(prefix.as_slice()) else {
        return Ok(prefix);
    };
    let promised = u64::from_le_bytes(promised).min(safetensors::MAXIMUM_HEADER_BYTES);
    let mut bytes = vec![0; promised.saturating_add(8).min(length) as usize];
    source.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// The digest of the bytes in `ranges`, read a piece at a time.
fn digest_of(source: &Source, ranges: impl IntoIterator<Item = Range<u64>>) -> Result<String> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE.min(source.length()) as usize];
    for range in ranges {
        let mut offset = range.start;
        while offset < range.end {
            let bytes = PIECE.min(range.end - offset) as usize;
            source.read_at(offset, &mut piece[..bytes])?;
            digest.update(&piece[..bytes]);
            offset += bytes as u64;
        }
    }
    Ok(hexadecimal(&digest.finalize()))
}

fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn nanoseconds(moment: SystemTime) -> i64 {
    let since = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match moment.duration_since(UNIX_EPOCH) {
        Ok(after) => since(after),
        Err(before) => -since(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::{EmbeddedFile, Error, ModelFolder};

    /// A file with a header of `header` and `data` after it, last changed at `second`.
    fn write_weights(path: &Path, header: &str, data: &[u8], second: u64) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        fs::write(path, bytes).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(second))
            .unwrap();
    }

    /// As the hub's cache keeps them: a link to bytes that are called by their digest.
    #[cfg(unix)]
    #[test]
    fn a_digest_is_known_where_the_hub_s_cache_has_it_for_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let [snapshot, blobs] = ["snapshots/a", "blobs"].map(|name| directory.path().join(name));
        let folder = ModelFolder::on_disk(&snapshot);
        for component in ["large", "small", "own"] {
            fs::create_dir_all(snapshot.join(component)).unwrap();
        }
        fs::create_dir(&blobs).unwrap();
        let [sha256, sha1] = ["0f".repeat(32), "0f".repeat(20)];
        for (component, name) in [("large", &sha256), ("small", &sha1)] {
            write_weights(&blobs.join(name), "{}", b"", 1);
            let link = snapshot.join(component).join("model.safetensors");
            std::os::unix::fs::symlink(format!("../../../blobs/{name}"), link).unwrap();
        }
        write_weights(&snapshot.join("own/model.safetensors"), "{}", b"", 1);
        assert_eq!(folder.known_sha256("large"), Some(sha256));
        for component in ["small", "own", "none"] {
            assert_eq!(folder.known_sha256(component), None, "{component}");
        }
    }

    #[test]
    fn weights_are_known_by_header_length_and_time() {
        let directory = tempfile::tempdir().unwrap();
        let folder = ModelFolder::on_disk(directory.path());
        fs::create_dir(directory.path().join("network")).unwrap();
        let path = directory.path().join("network/model.safetensors");
        let identity = |header: &str, data: &[u8], second| {
            write_weights(&path, header, data, second);
            folder.weights_identity("network").unwrap()
        };
        let first = identity("{}", &[1; 64], 7);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].path, "network/model.safetensors");
        assert_eq!(first[0].modified, Some(7_000_000_000));
        assert!(
            identity("{}", &[2; 64], 7) == first,
            "the weights themselves are not read"
        );
        assert!(identity("{}", &[1; 64], 8) != first);
        assert!(identity("{}", &[1; 65], 7) != first);
        assert!(identity("[]", &[1; 64], 7) != first);
        // Files that are too short for what they promise, or for anything, are still told apart.
        fs::write(&path, [9; 12]).unwrap();
        assert_eq!(folder.weights_identity("network").unwrap()[0].length, 12);
        fs::write(&path, [9; 3]).unwrap();
        assert_eq!(folder.weights_identity("network").unwrap()[0].length, 3);
    }

    #[test]
    fn every_shard_and_the_index_count() {
        let directory = tempfile::tempdir().unwrap();
        let folder = ModelFolder::on_disk(directory.path());
        let place = directory.path().join("network");
        fs::create_dir(&place).unwrap();
        let index =
            r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}"#;
        fs::write(place.join("model.safetensors.index.json"), index).unwrap();
        write_weights(&place.join("one.safetensors"), "{}", &[], 1);
        let error = folder.weights_identity("network").unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. }), "{error:?}");
        write_weights(&place.join("two.safetensors"), "{}", &[], 1);
        let paths: Vec<String> = folder
            .weights_identity("network")
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        let expected = [
            "model.safetensors.index.json",
            "one.safetensors",
            "two.safetensors",
        ];
        assert_eq!(paths, expected.map(|name| format!("network/{name}")));
    }

    #[cfg(unix)]
    #[test]
    fn other_files_are_known_by_their_bytes_and_large_ones_by_their_ends() {
        let directory = tempfile::tempdir().unwrap();
        let folder = ModelFolder::on_disk(directory.path());
        let path = directory.path().join("photo.png");
        let bytes: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let first = folder.file_identity("photo.png").unwrap();
        assert_eq!(
            (first.modified, first.digest.as_str()),
            (None, digest(&bytes).as_str())
        );
        let mut other = bytes.clone();
        other[150_000] ^= 1;
        fs::write(&path, other).unwrap();
        assert!(folder.file_identity("photo.png").unwrap() != first);

        let path = directory.path().join("network.pth");
        let length = LONGEST_READ_WHOLE + 10;
        let file = File::create(&path).unwrap();
        file.set_len(length).unwrap();
        let set = |second| {
            file.set_modified(UNIX_EPOCH + Duration::from_secs(second))
                .unwrap()
        };
        set(7);
        let sparse = folder.file_identity("network.pth").unwrap();
        assert_eq!(sparse.modified, Some(7_000_000_000));
        std::os::unix::fs::FileExt::write_at(&file, &[1], length - 1).unwrap();
        set(7);
        assert!(folder.file_identity("network.pth").unwrap() != sparse);
    }

    #[test]
    fn small_files_and_embedded_ones_are_known_by_their_bytes() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), "{}").unwrap();
        let on_disk = ModelFolder::on_disk(directory.path())
            .file_identity("config.json")
            .unwrap();
        assert_eq!(on_disk.modified, None);
        // `printf '{}' | sha256sum`
        const KNOWN: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(on_disk.digest, KNOWN);

        const FILES: &[EmbeddedFile] = &[EmbeddedFile {
            path: "config.json",
            bytes: b"{}",
            digest: KNOWN,
        }];
        let embedded = ModelFolder::embedded("inside", FILES).file_identity("config.json");
        assert_eq!(embedded.unwrap(), on_disk);
    }
}
