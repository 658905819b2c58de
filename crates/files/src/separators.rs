//! The separators of paths: people and model files write `/` on every system, and messages show the system's own.

use std::path::{MAIN_SEPARATOR, Path, PathBuf};

/// `path` with the separators of this system, so that no message mixes `/` and `\`. On Windows, where both separate, each `/`
/// becomes `\`; elsewhere `\` is a letter of a name, and nothing changes.
pub fn native(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    match path.to_str() {
        Some(text) => PathBuf::from(with_separator(text, MAIN_SEPARATOR)),
        // Such a name is not one that a person or a model file wrote.
        None => path.to_owned(),
    }
}

/// The path of `relative`, which model files and repositories write with `/`, in `folder`.
pub fn below(folder: &Path, relative: &str) -> PathBuf {
    folder.join(native(relative))
}

/// The name that a user typed for something below a folder, with `/` as such names are kept.
pub fn portable(name: &str) -> String {
    with_portable_separator(name, MAIN_SEPARATOR)
}

fn with_separator(path: &str, separator: char) -> String {
    // Windows takes a path that begins so literally.
    let is_literal = path.starts_with(r"\\?\");
    match separator {
        '/' => path.to_owned(),
        _ if is_literal => path.to_owned(),
        separator => path.replace('/', &separator.to_string()),
    }
}

fn with_portable_separator(name: &str, separator: char) -> String {
    match separator {
        '/' => name.to_owned(),
        separator => name.replace(separator, "/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shows_one_kind_of_separator() {
        for (path, shown) in [
            ("./outputs", r".\outputs"),
            (r"C:/models\sdxl/unet", r"C:\models\sdxl\unet"),
            ("//server/share/model", r"\\server\share\model"),
            (r"\\?\C:\a/b", r"\\?\C:\a/b"),
            ("demo", "demo"),
        ] {
            assert_eq!(with_separator(path, '\\'), shown);
        }
        assert_eq!(with_portable_separator(r"xl\juggernaut", '\\'), "xl/juggernaut");
    }

    #[test]
    fn elsewhere_nothing_changes() {
        for path in ["./outputs", r"a\b/c", "/a//b/./c/", ""] {
            assert_eq!(with_separator(path, '/'), path);
            assert_eq!(with_portable_separator(path, '/'), path);
        }
    }

    #[test]
    fn a_path_in_a_folder_has_the_separators_of_the_system() {
        let path = below(Path::new("model"), "unet/config.json");
        assert_eq!(path, Path::new("model").join("unet").join("config.json"));
        let text = path.to_str().unwrap();
        assert_eq!(text.matches(MAIN_SEPARATOR).count(), 2, "{text}");
    }
}
