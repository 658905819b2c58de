//! The SHA-256 of a file, as a file beside it says.
//!
//! `NAME.sha256` is what `sha256sum` prints. `NAME.civitai.info` and `NAME.json` are written by tools that
//! download from Civitai: the description of a version of a model, with the hashes of its files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The endings of files with a hash.
const ENDINGS: [&str; 3] = ["sha256", "civitai.info", "json"];
/// The longest such file that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// A SHA-256 and the file that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHash {
    /// The hexadecimal digits.
    pub sha256: String,
    /// The file that says it.
    pub source: PathBuf,
}

impl KnownHash {
    /// The SHA-256 that a file beside `file` says of it, if there is one. A file beside it that cannot be read or
    /// says nothing is left out.
    pub fn beside(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?;
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let candidates = ENDINGS
            .iter()
            .flat_map(|ending| [format!("{name}.{ending}"), format!("{stem}.{ending}")]);
        candidates
            .map(|candidate| file.with_file_name(candidate))
            .find_map(|source| {
                let text = sd_files::read_text_at_most(&source, LONGEST).ok()?;
                let sha256 = match source.extension().is_some_and(|ending| ending == "sha256") {
                    true => of_list(&text, name),
                    false => of_description(&serde_json::from_str(&text).ok()?, name),
                };
                Some(Self {
                    sha256: sha256?,
                    source,
                })
            })
    }
}

/// The hash of the file `name` in a list of hashes and names; that of the only line, if there is one.
fn of_list(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.trim_start_matches('\\').splitn(2, char::is_whitespace);
        let hash = digits(words.next()?)?;
        // `sha256sum` marks binary files with an asterisk.
        let path = words.next().unwrap_or_default().trim().trim_start_matches('*');
        Some((
            hash,
            path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
        ))
    });
    one_of(lines, name)
}

/// The hash in a description: of its subject, or of one of its files.
fn of_description(description: &Value, name: &str) -> Option<String> {
    let of = |value: &Value| {
        let places = [Some(value), value.get("hashes")].into_iter().flatten();
        let mut found = places.flat_map(|place| [place.get("SHA256"), place.get("sha256")]);
        found.find_map(|hash| digits(hash?.as_str()?))
    };
    let files = description.get("files").and_then(Value::as_array);
    of(description).or_else(|| {
        let files = files?.iter().filter_map(|file| {
            let name = file.get("name").and_then(Value::as_str).unwrap_or_default();
            Some((of(file)?, name.to_owned()))
        });
        one_of(files, name)
    })
}

/// The hash with the name `name`, or the only one, if the file was renamed.
fn one_of(hashes: impl Iterator<Item = (String, String)>, name: &str) -> Option<String> {
    let hashes: Vec<_> = hashes.collect();
    if let Some((hash, _)) = hashes.iter().find(|(_, of)| of == name) {
        return Some(hash.clone());
    }
    let different: BTreeSet<String> = hashes.into_iter().map(|(hash, _)| hash).collect();
    let mut different = different.into_iter();
    let first = different.next();
    first.filter(|_| different.next().is_none())
}

/// `text` in lower case, if it is a SHA-256.
fn digits(text: &str) -> Option<String> {
    let is_sha256 = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_sha256.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_from_each_form() {
        let (one, other) = ("ab".repeat(32), "cd".repeat(32));
        let upper = one.to_uppercase();
        for (file, text, known) in [
            (
                "film.safetensors.sha256",
                format!("{one}  film.safetensors\n"),
                true,
            ),
            ("film.sha256", one.clone(), true),
            (
                "film.sha256",
                format!("{other}  a\n{one} *sub/film.safetensors\n"),
                true,
            ),
            (
                "film.sha256",
                format!("{one}  before_it_was_renamed.safetensors\n"),
                true,
            ),
            ("film.sha256", format!("{one}  a\n{other}  b\n"), false),
            ("film.sha256", "nothing".to_owned(), false),
            ("film.json", format!(r#"{{"sha256": "{upper}"}}"#), true),
            (
                "film.civitai.info",
                format!(
                    r#"{{"files": [{{"name": "a", "hashes": {{"SHA256": "{other}"}}}},
                        {{"name": "film.safetensors", "hashes": {{"AutoV2": "AB", "SHA256": "{upper}"}}}}]}}"#
                ),
                true,
            ),
            ("film.civitai.info", "{".to_owned(), false),
            ("film.json", "[1]".to_owned(), false),
            ("other.json", format!(r#"{{"sha256": "{one}"}}"#), false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let source = folder.path().join(file);
            std::fs::write(&source, &text).unwrap();
            let found = KnownHash::beside(&folder.path().join("film.safetensors"));
            let expected = known.then(|| KnownHash {
                sha256: one.clone(),
                source,
            });
            assert_eq!(found, expected, "{file}: {text}");
        }
    }
}
