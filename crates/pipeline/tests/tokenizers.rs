//! Token ids against transformers. `tools/reference/make_tokenizers.py` makes the data.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use sd_pipeline::ModelFolder;
use sd_pipeline::tokenizer::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    folder: String,
    length: usize,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    tokens: usize,
    ids: Vec<u32>,
}

#[test]
fn every_text_gives_the_ids_of_transformers() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let cases = std::fs::read(format!("{fixtures}/tokenizers.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    let mut compared = 0;
    for Case {
        folder,
        length,
        texts,
    } in cases
    {
        let (model, component) = folder.rsplit_once('/').unwrap();
        let folder = ModelFolder::on_disk(format!("{fixtures}/{model}"));
        let tokenizer = Tokenizer::open(&folder, component).unwrap();
        for Text { text, tokens, ids } in texts {
            let found = tokenizer.encode(&text, length).unwrap();
            assert_eq!(found.ids, ids, "{model}/{component}: {text:?}");
            assert_eq!(
                found.cut,
                tokens.saturating_sub(length),
                "{model}/{component}: {text:?}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 50, "only {compared} texts");
}
