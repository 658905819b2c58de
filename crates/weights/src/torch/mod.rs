//! The files that PyTorch writes (`.pth`, `.pt`, `.ckpt`, `.bin`): which tensors they hold and where.
//!
//! Such a file is a zip archive. Its entry `data.pkl` is a pickle, which says how Python is to make the objects that were
//! saved; the others hold the tensors' bytes, uncompressed, so that a tensor is a range of the file. A pickle is a
//! program that may call anything. Here nothing of it runs: `pickle.rs` knows the few operations and the few names that
//! a table of tensors is made of, and refuses every other one by its name.

mod archive;
mod pickle;
mod tensors;
mod value;

use std::collections::BTreeMap;

use crate::source::Source;
use crate::{Error, Result, TensorHeader};

/// How a zip archive begins.
const ARCHIVE: [u8; 4] = *b"PK\x03\x04";
/// How a file begins that a PyTorch before 1.6 wrote: pickles one after another.
const PICKLE: [u8; 4] = [0x80, 0x02, 0x8a, 0x0a];

/// Whether `source` begins like a file that PyTorch wrote.
pub(crate) fn wrote(source: &Source) -> Result<bool> {
    let mut start = [0; 4];
    if source.length() < 4 {
        return Ok(false);
    }
    source.read_at(0, &mut start)?;
    Ok(start == ARCHIVE || start == PICKLE)
}

/// The tensors of `source`, all of which lie inside of it. Tables inside of the table are taken apart, their names
/// joined by dots; where the whole table is one of the usual wrappers around another, that one is taken.
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

/// What says which tensors `source` holds and where: the pickle of the archive. An archive that cannot be understood is told
/// when it is opened.
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
