//! Configurations and vocabularies inside of a single file: this program writes them beside the tensors, so that
//! a model whose tensors do not show everything opens as its folder does.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{ModelFile, TokenizerFiles, Vocabulary};

/// The prefix of the entries.
const PREFIX: &str = "diffusers.";
/// The sizes of the vocabularies that are built into the program: that of CLIP, and that of T5 with the rows
/// that its embeddings have more.
const USUAL_VOCABULARIES: [u64; 2] = [49_408, 32_128];

/// The texts in a file, by their keys: `diffusers.vae` is a configuration, `diffusers.tokenizer/vocab.json` a
/// file of a tokenizer.
#[derive(Debug, Clone, Default)]
pub(crate) struct SavedTexts(BTreeMap<String, String>);

impl SavedTexts {
    /// Those among the `entries` of a file.
    pub(super) fn of(entries: BTreeMap<String, String>) -> Self {
        let own = entries.into_iter().filter(|(key, _)| key.starts_with(PREFIX));
        Self(own.collect())
    }

    /// The entries of a file.
    pub(crate) fn into_entries(self) -> BTreeMap<String, String> {
        self.0
    }

    /// Adds the configuration of `component`.
    pub(crate) fn add_config(&mut self, component: &str, bytes: &[u8]) {
        self.add(component.to_owned(), bytes);
    }

    /// Adds the file `name` of the tokenizer `component`.
    pub(crate) fn add_tokenizer(&mut self, component: &str, name: &str, bytes: &[u8]) {
        self.add(format!("{component}/{name}"), bytes);
    }

    fn add(&mut self, key: String, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.insert(format!("{PREFIX}{key}"), text);
    }

    /// The configuration of `component`.
    pub(super) fn config(&self, component: &str) -> Option<&str> {
        self.0.get(&format!("{PREFIX}{component}")).map(String::as_str)
    }

    /// Whether the text encoder `component` has as many tokens as a vocabulary that is built in.
    pub(crate) fn has_usual_vocabulary(&self, component: &str) -> bool {
        let config: Option<Value> = self
            .config(component)
            .and_then(|text| serde_json::from_str(text).ok());
        let size = config
            .as_ref()
            .and_then(|config| config.get("vocab_size"))
            .and_then(Value::as_u64);
        size.is_none_or(|size| USUAL_VOCABULARIES.contains(&size))
    }

    /// The files of the tokenizer `component` in the file at `path`, if they are there.
    pub(super) fn tokenizer(&self, path: &Path, component: &str) -> Option<TokenizerFiles> {
        let folder = path.join(component);
        let file = |name: &str| {
            let text = self.0.get(&format!("{PREFIX}{component}/{name}"))?;
            Some(ModelFile {
                path: folder.join(name),
                bytes: text.clone().into_bytes(),
            })
        };
        let vocabulary = match file("tokenizer.json") {
            Some(tokenizer) => Vocabulary::Tokenizer(tokenizer),
            None => Vocabulary::BytePairs {
                vocab: file("vocab.json")?,
                merges: file("merges.txt")?,
            },
        };
        Some(TokenizerFiles {
            config: file("tokenizer_config.json"),
            special_tokens: file("special_tokens_map.json"),
            vocabulary,
            folder,
        })
    }

    /// The length of the vocabulary of the tokenizer `component` in bytes.
    pub(super) fn vocabulary_bytes(&self, component: &str) -> Option<u64> {
        let names = ["vocab.json", "merges.txt", "tokenizer.json"];
        let texts = names
            .iter()
            .filter_map(|name| self.0.get(&format!("{PREFIX}{component}/{name}")));
        let bytes: u64 = texts.map(|text| text.len() as u64).sum();
        (bytes > 0).then_some(bytes)
    }
}
