//! Files of textual inversion: those that the user names, and those beside the model that the prompts name.

use std::path::{Path, PathBuf};

use sd_pipeline::bundle::FileKind;
use sd_pipeline::tokenizer::has_word;
use sd_pipeline::{EmbeddingChoice, ModelFiles};

use crate::models_path::{KeptFile, ModelsPath};

/// The folder beside a model that is searched.
const FOLDER: &str = "embeddings";
/// The endings of files of textual inversion.
const ENDINGS: [&str; 3] = ["safetensors", "pt", "bin"];
/// The most entries of a folder that are looked at.
const MOST_ENTRIES: usize = 1 << 14;

/// The files at `paths`, and then those in the folder [`FOLDER`] beside the model of `files` and those that other
/// programs keep, whose names are words of `texts`. Of two files for one word the first is taken. The built-in model
/// takes only `paths`.
pub(crate) fn named(
    paths: Vec<PathBuf>,
    files: &ModelFiles,
    kept: &ModelsPath,
    texts: [&str; 2],
) -> Vec<EmbeddingChoice> {
    let mut chosen: Vec<_> = paths.into_iter().map(EmbeddingChoice::of_file).collect();
    if files.is_embedded() {
        return chosen;
    }
    let beside = files.path().parent().map(|folder| files_in(&folder.join(FOLDER)));
    let is_embedding = |file: &&KeptFile| file.kind == Some(FileKind::Embedding);
    let kept = kept.files().iter().filter(is_embedding);
    let kept = kept.map(|file| file.path.clone());
    for file in beside.into_iter().flatten().chain(kept) {
        let found = EmbeddingChoice::of_file(file);
        let is_new = chosen
            .iter()
            .all(|chosen| chosen.name.to_lowercase() != found.name.to_lowercase());
        if is_new && texts.iter().any(|text| has_word(text, &found.name)) {
            chosen.push(found);
        }
    }
    chosen
}

/// The files in `folder` with one of the [`ENDINGS`], in the order of their names. None if it cannot be read.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let is_known = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str())) && path.is_file()
    };
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .take(MOST_ENTRIES)
        .map(|entry| entry.path())
        .filter(is_known)
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_the_model_are_taken_if_a_prompt_names_them() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(FOLDER);
        std::fs::create_dir(&folder).unwrap();
        for name in [
            "bad-hands.pt",
            "Easy.safetensors",
            "unused.bin",
            "notes.txt",
            "mine.pt",
        ] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let model = ModelFiles::at(directory.path().join("model.safetensors"));
        let other = directory.path().join("other/models");
        std::fs::create_dir_all(other.join("checkpoints")).unwrap();
        std::fs::create_dir_all(other.join("../embeddings/faces")).unwrap();
        for name in ["easy.pt", "faces/calm.pt"] {
            std::fs::write(other.join("../embeddings").join(name), "").unwrap();
        }
        let kept = ModelsPath::new(vec![other]);
        let names = |paths: &[&str], texts| -> Vec<(String, PathBuf)> {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            let chosen = named(paths, &model, &kept, texts).into_iter();
            chosen.map(|chosen| (chosen.name, chosen.file)).collect()
        };
        assert_eq!(names(&[], ["a cat", "notes"]), []);
        let found = |name: &str, file: &str| (name.to_owned(), folder.join(file));
        assert_eq!(
            names(&[], ["a cat, easy", "(bad-hands:1.2)"]),
            [
                found("Easy", "Easy.safetensors"),
                found("bad-hands", "bad-hands.pt")
            ]
        );
        let calm = directory.path().join("other/embeddings/faces/calm.pt");
        assert_eq!(names(&[], ["calm", ""]), [("calm".to_owned(), calm)]);
        // A named file is taken whatever the prompts say, and in place of another of its name.
        let own = ("MINE".to_owned(), PathBuf::from("/own/MINE.safetensors"));
        assert_eq!(names(&["/own/MINE.safetensors"], ["mine", ""]), [own]);
    }
}
