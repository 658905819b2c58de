//! Texts with their ids in transformers, for the tokenizers of the fixtures.
//! `tools/reference/make_tokenizers.py` writes the data.

#![allow(unreachable_pub)] // It is a part of test binaries.

use sd_pipeline::ModelFolder;
use sd_pipeline::tokenizer::Tokenizer;
use serde::Deserialize;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// A tokenizer, the length of its rows, and its texts.
#[derive(Deserialize)]
pub struct Case {
    pub folder: String,
    pub length: usize,
    pub texts: Vec<Text>,
}

/// A text with its number of tokens, and a row of ids.
#[derive(Deserialize)]
pub struct Text {
    pub text: String,
    pub tokens: usize,
    pub ids: Vec<u32>,
}

pub fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(format!("{FIXTURES}/tokenizers.json")).unwrap()).unwrap()
}

/// The tokenizer in the folder at `path`.
pub fn open(path: &str) -> Tokenizer {
    let (model, component) = path.rsplit_once('/').unwrap();
    Tokenizer::open(&ModelFolder::on_disk(format!("{FIXTURES}/{model}")), component).unwrap()
}
