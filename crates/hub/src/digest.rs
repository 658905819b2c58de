//! Hashes of files: the SHA-256 that the hub lists for files in LFS storage, and the git object id of small
//! files.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The hash of a file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    /// The SHA-256 of the bytes, in hexadecimal digits.
    Sha256(String),
    /// The git object id: the SHA-1 of `blob`, the length, a zero byte and the bytes.
    GitBlob(String),
    /// The hub lists no hash.
    Nothing,
}

/// A hash that is computed while the bytes are received.
pub(crate) enum Hash {
    Sha256(Sha256),
    GitBlob(Sha1),
    Nothing,
}

impl Listed {
    /// The listed hash of a file whose git object id is `blob`.
    pub(crate) fn of_blob(blob: Option<&str>) -> Self {
        let is_id = |blob: &&str| blob.len() == 40 && blob.bytes().all(|digit| digit.is_ascii_hexdigit());
        match blob.filter(is_id) {
            Some(id) => Self::GitBlob(id.to_ascii_lowercase()),
            None => Self::Nothing,
        }
    }

    /// The hash that a blob of the cache is called by: a SHA-256, or a git object id.
    pub(crate) fn of_blob_name(name: Option<&str>) -> Self {
        let is_sha256 = |name: &&str| name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_hexdigit());
        match name.filter(is_sha256) {
            Some(digits) => Self::Sha256(digits.to_ascii_lowercase()),
            None => Self::of_blob(name),
        }
    }

    /// The name of the hash and its hexadecimal digits.
    fn digits(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Sha256(digits) => Some(("its SHA-256", digits)),
            Self::GitBlob(digits) => Some(("its SHA-1 in git", digits)),
            Self::Nothing => None,
        }
    }

    /// A hasher for a file of `size` bytes.
    pub(crate) fn hash(&self, size: u64) -> Hash {
        match self {
            Self::Sha256(_) => Hash::Sha256(Sha256::new()),
            Self::GitBlob(_) => Hash::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
            Self::Nothing => Hash::Nothing,
        }
    }

    /// The name of the hash, the listed value and the value of `hash`, where these differ.
    pub(crate) fn difference(&self, hash: Hash) -> Option<(&'static str, String, String)> {
        let (what, wanted) = self.digits()?;
        let found = hash.digits();
        (wanted != found).then(|| (what, wanted.to_owned(), found))
    }
}

impl Hash {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::GitBlob(hash) => hash.update(bytes),
            Self::Nothing => {}
        }
    }

    /// The hexadecimal digits.
    pub(crate) fn digits(self) -> String {
        let hexadecimal = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hash) => hexadecimal(&hash.finalize()),
            Self::GitBlob(hash) => hexadecimal(&hash.finalize()),
            Self::Nothing => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_object_ids_are_computed() {
        // `printf 'a red circle\n' | git hash-object --stdin`
        let listed = Listed::of_blob(Some("9f73483948c28aad65138781bf809f965c587847"));
        let difference = |bytes: &[u8]| {
            let mut hash = listed.hash(bytes.len() as u64);
            bytes.chunks(5).for_each(|piece| hash.update(piece));
            listed.difference(hash)
        };
        assert_eq!(difference(b"a red circle\n"), None);
        assert_eq!(difference(b"a red square\n").unwrap().0, "its SHA-1 in git");
        assert_eq!(Listed::of_blob(Some("b1")), Listed::Nothing);
        assert_eq!(Listed::Nothing.difference(Listed::Nothing.hash(3)), None);
    }
}
