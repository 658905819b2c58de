//! Names without paths, which may be shared with an image.

/// File extensions that are not part of a name.
const ENDINGS: [&str; 8] = [
    ".safetensors",
    ".ckpt",
    ".pth",
    ".pt",
    ".bin",
    ".gguf",
    ".onnx",
    ".sft",
];

/// The shared name of the model, LoRA or network that the user calls `name`, a path or a hub id with or
/// without a file: its last component without the extension, and without the separators of the `parameters`
/// text. None if nothing is left.
pub(super) fn bare_name(name: &str) -> Option<String> {
    let last = |text: &str, signs: &[char]| text.rsplit(signs).next().unwrap_or_default().to_owned();
    let name = last(name.trim_end_matches(['/', '\\']), &['/', '\\']);
    // A file in a folder or a repository follows a colon.
    let name = match name.rsplit_once(':') {
        Some((_, file)) if ENDINGS.iter().any(|ending| file.ends_with(ending)) => file.to_owned(),
        _ => name,
    };
    let stem = ENDINGS
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(&name);
    let kept: String = stem
        .chars()
        .filter(|sign| !matches!(sign, ',' | ':' | '<' | '>' | '"') && !sign.is_control())
        .collect();
    let kept = kept.trim();
    (!kept.chars().all(|sign| sign == '.')).then(|| kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_path() {
        for (name, bare) in [
            ("demo", "demo"),
            ("/home/me/models/dream/", "dream"),
            ("C:\\models\\dream.safetensors", "dream"),
            ("Lykon/DreamShaper-8", "DreamShaper-8"),
            ("me/nets:deep/x4.pth", "x4"),
            ("./loras:epoch2.safetensors", "epoch2"),
            ("models/tiny: one, two", "tiny one two"),
            ("v1.5", "v1.5"),
        ] {
            assert_eq!(bare_name(name).as_deref(), Some(bare), "{name}");
        }
        for name in ["", ".", "..", "/", "a/.."] {
            assert_eq!(bare_name(name), None, "{name}");
        }
    }
}
