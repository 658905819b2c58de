//! The tokenizers of the models that were opened last, for the next run or plan of the same model.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sd_weights::{FileIdentity, ModelSource, SourcePart};

use super::Tokenizer;
use crate::Result;

/// The most tokenizers that are kept. A model has up to three, and its refiner one.
const MOST: usize = 4;

/// Tokenizers by the identities of their files. Building one takes milliseconds to a tenth of a second: a vocabulary is
/// parsed and regular expressions are compiled. Clones share what is kept. The default keeps nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokenizers(Option<Arc<Mutex<Vec<Kept>>>>);

#[derive(Debug)]
struct Kept {
    files: Vec<FileIdentity>,
    tokenizer: Tokenizer,
}

impl Tokenizers {
    /// Keeps those that were opened last.
    pub(crate) fn keeping() -> Self {
        Self(Some(Arc::default()))
    }

    /// The tokenizer `component` of a model: a kept one, unless one of its files has changed.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub(crate) fn open(&self, source: &dyn ModelSource, component: &str) -> Result<Tokenizer> {
        // Files that cannot be read are an error of the tokenizer.
        let files = source
            .identity(SourcePart::Tokenizer(component))
            .unwrap_or_default();
        let Some(mut kept) = self.kept().filter(|_| !files.is_empty()) else {
            return Tokenizer::open(source, component);
        };
        // Others wait meanwhile rather than build the same.
        let last = match kept.iter().position(|kept| kept.files == files) {
            Some(index) => kept.remove(index),
            None => Kept {
                tokenizer: Tokenizer::open(source, component)?,
                files,
            },
        };
        let tokenizer = last.tokenizer.clone();
        kept.push(last);
        let surplus = kept.len().saturating_sub(MOST);
        kept.drain(..surplus);
        Ok(tokenizer)
    }

    /// Drops those that no open model uses.
    pub(crate) fn drop_unused(&self) {
        if let Some(mut kept) = self.kept() {
            kept.retain(|kept| Arc::strong_count(&kept.tokenizer.files) > 1);
        }
    }

    /// Drops all. Open models keep theirs.
    pub(crate) fn clear(&self) {
        if let Some(mut kept) = self.kept() {
            kept.clear();
        }
    }

    /// Whether any is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept().is_none_or(|kept| kept.is_empty())
    }

    fn kept(&self) -> Option<MutexGuard<'_, Vec<Kept>>> {
        let kept = self.0.as_ref()?;
        Some(kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sd_weights::ModelFolder;

    use super::*;

    const CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");

    fn is_same(one: &Tokenizer, other: &Tokenizer) -> bool {
        Arc::ptr_eq(&one.files, &other.files)
    }

    #[test]
    fn a_tokenizer_is_built_once_and_again_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = folder.path().join("tokenizer");
        fs::create_dir(&tokenizer).unwrap();
        for file in ["merges.txt", "vocab.json", "tokenizer_config.json"] {
            fs::copy(format!("{CLIP}/tokenizer/{file}"), tokenizer.join(file)).unwrap();
        }
        let source = ModelFolder::on_disk(folder.path());
        let tokenizers = Tokenizers::keeping();
        let mut first = tokenizers.open(&source, "tokenizer").unwrap();
        first.add_word("word", 5..6);
        let second = tokenizers.open(&source, "tokenizer").unwrap();
        assert!(is_same(&first, &second));
        // What is added to one is not in another.
        assert_eq!(second.pieces("word").len(), 1);
        assert_ne!(first.pieces("word"), second.pieces("word"));

        let config = r#"{"model_max_length": 13}"#;
        fs::write(tokenizer.join("tokenizer_config.json"), config).unwrap();
        let changed = tokenizers.open(&source, "tokenizer").unwrap();
        assert_eq!(changed.limit(), Some(13));

        fs::remove_file(tokenizer.join("vocab.json")).unwrap();
        tokenizers.open(&source, "tokenizer").unwrap_err();
        let nothing_kept = Tokenizers::default();
        nothing_kept.open(&source, "tokenizer").unwrap_err();
    }

    #[test]
    fn unused_and_surplus_ones_are_dropped() {
        let source = ModelFolder::on_disk(CLIP);
        let tokenizers = Tokenizers::keeping();
        let used = tokenizers.open(&source, "tokenizer").unwrap();
        let unused = Arc::downgrade(&tokenizers.open(&source, "tokenizer_2").unwrap().files);
        assert!(unused.upgrade().is_some());
        tokenizers.drop_unused();
        assert!(unused.upgrade().is_none());
        assert!(is_same(&used, &tokenizers.open(&source, "tokenizer").unwrap()));
        tokenizers.clear();
        assert!(!is_same(&used, &tokenizers.open(&source, "tokenizer").unwrap()));
        for copy in 0..MOST + 1 {
            let folder = tempfile::tempdir().unwrap();
            let tokenizer = folder.path().join("tokenizer");
            fs::create_dir(&tokenizer).unwrap();
            for file in ["merges.txt", "vocab.json"] {
                fs::copy(format!("{CLIP}/tokenizer/{file}"), tokenizer.join(file)).unwrap();
            }
            tokenizers
                .open(&ModelFolder::on_disk(folder.path()), "tokenizer")
                .unwrap();
            assert!(tokenizers.kept().unwrap().len() <= MOST, "{copy}");
        }
    }
}
