//! Token ids of the tokenizers in the binary against transformers. `tools/reference/make_builtin_token_ids.py`
//! writes the data.

use std::path::Path;

use sd_pipeline::tokenizer::Tokenizer;
use sd_weights::{
    BuiltInTokenizer, Checkpoint, ClipPadding, FileIdentity, ModelFile, ModelSource, SourcePart,
    TokenizerFiles,
};
use serde::Deserialize;

const DATA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/builtin_tokenizers.json"
);

#[derive(Deserialize)]
struct Data {
    tokenizers: Of<Settings>,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Of<T> {
    clip: T,
    clip_exclamation: T,
    t5: T,
}

#[derive(Deserialize)]
struct Settings {
    limit: usize,
    padding: u32,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    /// All ids, special tokens included.
    #[serde(flatten)]
    ids: Of<Vec<u32>>,
}

/// A model that has nothing but a tokenizer of the binary.
#[derive(Debug)]
struct OnlyTokenizer(BuiltInTokenizer);

impl OnlyTokenizer {
    fn missing<T>(&self) -> sd_weights::Result<T> {
        Err(sd_weights::Error::MissingFile {
            file: self.path().to_owned(),
        })
    }
}

impl ModelSource for OnlyTokenizer {
    fn path(&self) -> &Path {
        Path::new("nowhere")
    }

    fn is_embedded(&self) -> bool {
        true
    }

    fn exists(&self) -> bool {
        true
    }

    fn has_config(&self, _: &str) -> bool {
        false
    }

    fn config(&self, _: &str) -> sd_weights::Result<ModelFile> {
        self.missing()
    }

    fn checkpoint(&self, _: &str) -> sd_weights::Result<Checkpoint> {
        self.missing()
    }

    fn tokenizer(&self, _: &str) -> sd_weights::Result<TokenizerFiles> {
        Ok(TokenizerFiles::builtin(self.0))
    }

    fn vocabulary_bytes(&self, _: &str) -> u64 {
        self.0.vocabulary_bytes()
    }

    fn identity(&self, _: SourcePart<'_>) -> sd_weights::Result<Vec<FileIdentity>> {
        Ok(vec![self.0.identity()])
    }

    fn known_sha256(&self, _: &str) -> Option<String> {
        None
    }
}

fn open(tokenizer: BuiltInTokenizer) -> Tokenizer {
    Tokenizer::open(&OnlyTokenizer(tokenizer), "tokenizer").unwrap()
}

#[test]
fn every_prompt_gives_the_ids_of_transformers() {
    let Data { tokenizers, prompts } = serde_json::from_slice(&std::fs::read(DATA).unwrap()).unwrap();
    assert!(prompts.len() >= 300, "only {} prompts", prompts.len());
    type Ids = fn(&Of<Vec<u32>>) -> &Vec<u32>;
    let cases: [(BuiltInTokenizer, Settings, Ids); 3] = [
        (
            BuiltInTokenizer::Clip(ClipPadding::EndOfText),
            tokenizers.clip,
            |ids| &ids.clip,
        ),
        (
            BuiltInTokenizer::Clip(ClipPadding::Exclamation),
            tokenizers.clip_exclamation,
            |ids| &ids.clip_exclamation,
        ),
        (BuiltInTokenizer::T5, tokenizers.t5, |ids| &ids.t5),
    ];
    for (tokenizer, Settings { limit, padding }, ids) in cases {
        let opened = open(tokenizer);
        assert_eq!(opened.limit(), Some(limit));
        for prompt in &prompts {
            let (text, ids) = (&prompt.text, ids(&prompt.ids));
            let whole = opened.encode(text, ids.len()).unwrap();
            assert_eq!(&whole.ids, ids, "{tokenizer:?}: {text:?}");
            // Padded, or truncated before the end token.
            let mut row = ids.clone();
            if row.len() > limit {
                row.drain(limit - 1..ids.len() - 1);
            }
            row.resize(limit, padding);
            let encoded = opened.encode(text, limit).unwrap();
            assert_eq!(encoded.ids, row, "{tokenizer:?}: {text:?}");
            assert_eq!(encoded.truncated, ids.len().saturating_sub(limit));
        }
    }
}

#[test]
fn what_is_known_before_decompressing_is_what_the_vocabulary_has() {
    for tokenizer in [
        BuiltInTokenizer::Clip(ClipPadding::EndOfText),
        BuiltInTokenizer::Clip(ClipPadding::Exclamation),
        BuiltInTokenizer::T5,
    ] {
        let opened = open(tokenizer);
        let (before, after) = opened.frame();
        let framed = [before, after].concat();
        let padding = opened.padding();
        let encoded = opened.encode("", framed.len() + 1).unwrap();
        assert_eq!(encoded.ids, [&framed[..], &[padding]].concat(), "{tokenizer:?}");
        assert_eq!(opened.words("").unwrap(), [0_u32; 0]);
    }
    assert_eq!(open(BuiltInTokenizer::T5).vocabulary_size(), 32_100);
    assert_eq!(open(BuiltInTokenizer::T5).comma().unwrap(), None);
    let clip = open(BuiltInTokenizer::Clip(ClipPadding::EndOfText));
    assert_eq!(clip.vocabulary_size(), 49_408);
    assert_eq!(clip.comma().unwrap(), Some(267));
}
