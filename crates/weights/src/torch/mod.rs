//! PyTorch files (`.pth`, `.pt`, `.ckpt`, `.bin`): the tensors that they hold and their offsets.
//!
//! Such a file is a zip archive. Its entry `data.pkl` is a pickle that describes the saved objects. The other
//! entries hold the bytes of tensors, uncompressed, so that a tensor is a range of the file. A pickle is a
//! program that can call anything. None of it runs here: `pickle.rs` interprets only the opcodes and globals
//! of a state dict, and refuses all others by name.

mod archive;
mod pickle;
mod tensors;
mod value;

use std::collections::BTreeMap;

use crate::source::Source;
use crate::{Error, Result, TensorHeader};

/// The magic bytes of a zip archive.
const ARCHIVE: [u8; 4] = *b"PK\x03\x04";
/// The first bytes of a file of PyTorch before 1.6, which is a sequence of pickles.
const PICKLE: [u8; 4] = [0x80, 0x02, 0x8a, 0x0a];

/// Whether `source` has the magic bytes of a PyTorch file.
pub(crate) fn wrote(source: &Source) -> Result<bool> {
    let mut start = [0; 4];
    if source.length() < 4 {
        return Ok(false);
    }
    source.read_at(0, &mut start)?;
    Ok(start == ARCHIVE || start == PICKLE)
}

/// The tensor headers of `source`, checked against its length. Nested dicts are flattened, with names joined
/// by dots. A wrapper such as `state_dict` is removed.
pub(crate) fn read(source: &Source) -> Result<BTreeMap<String, TensorHeader>> {
    let mut start = [0; 4];
    source.read_at(0, &mut start)?;
    if start == PICKLE {
        return Err(bad(
            source,
            "a PyTorch before 1.6 wrote it; save it again with a newer one",
        ));
    }
    let archive = archive::Archive::open(source)?;
    let saved = pickle::run(&archive.pickle(source)?).map_err(|error| match error {
        pickle::Refusal::Global(global) => Error::ForbiddenGlobal {
            file: source.path().to_owned(),
            global,
        },
        pickle::Refusal::Damage(reason) => bad(source, reason),
    })?;
    tensors::locate(&saved, &archive, source)
}

/// The pickle of the archive, which describes the tensors. An archive that cannot be parsed is refused when
/// it is opened.
pub(crate) fn table_of_contents(source: &Source) -> Result<Vec<u8>> {
    let archive = archive::Archive::open(source);
    Ok(archive
        .and_then(|archive| archive.pickle(source))
        .unwrap_or_default())
}

fn bad(source: &Source, reason: impl Into<String>) -> Error {
    Error::BadTorchFile {
        file: source.path().to_owned(),
        reason: reason.into(),
    }
}
