//! Prompts of any length as token rows, with the tokenizers of the fixtures.

use crate::tokenized::{Case, Text, cases, open};
use sd_pipeline::prompt::{Prompt, WeightedTokens, chunks, pad_together, sequence};
use sd_pipeline::tokenizer::Tokenizer;

const LENGTH: usize = 77;

/// The tokenizer of the first CLIP in the fixtures.
fn clip() -> Tokenizer {
    let mut tokenizers = cases().into_iter().map(|case| open(&case.folder));
    tokenizers
        .find(|tokenizer| tokenizer.comma().unwrap().is_some())
        .unwrap()
}

/// The tokens without special tokens.
fn words(tokenizer: &Tokenizer, row: &WeightedTokens) -> Vec<u32> {
    let (before, after) = tokenizer.frame();
    assert_eq!(row.ids.len(), LENGTH);
    assert_eq!(row.weights.len(), LENGTH);
    assert!(row.ids.starts_with(before));
    let end = row.ids[1..].iter().position(|id| after.contains(id)).unwrap() + 1;
    assert!(row.ids[end + 1..].iter().all(|&id| id == tokenizer.padding()));
    row.ids[1..end].to_vec()
}

#[test]
fn a_plain_text_has_the_ids_that_it_always_had() {
    let mut compared = 0;
    for Case {
        folder,
        length,
        texts,
    } in cases()
    {
        let tokenizer = open(&folder);
        for Text { text, tokens, ids } in texts {
            let prompt = Prompt::literal(&text);
            let row = sequence(&tokenizer, &prompt, length).unwrap();
            assert_eq!(
                (row.ids, row.truncated),
                (ids.clone(), tokens.saturating_sub(length)),
                "{folder}: {text:?}"
            );
            if tokens <= length {
                let rows = chunks(&tokenizer, &prompt, length).unwrap();
                assert_eq!(rows.len(), 1);
                assert_eq!(rows[0].ids, ids, "{folder}: {text:?}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 50, "only {compared} texts");
}

#[test]
fn a_long_text_loses_no_word() {
    let tokenizer = clip();
    let text = "a red fox, in deep snow, ".repeat(40);
    let all = tokenizer.words(&text).unwrap();
    let rows = chunks(&tokenizer, &Prompt::parse(&text), LENGTH).unwrap();
    assert!(rows.len() >= all.len() / 75);
    let found: Vec<u32> = rows.iter().flat_map(|row| words(&tokenizer, row)).collect();
    assert_eq!(found, all);
    for row in &rows[..rows.len() - 1] {
        assert_eq!(words(&tokenizer, row).last().copied(), tokenizer.comma().unwrap());
    }
}

#[test]
fn words_carry_their_weights() {
    let tokenizer = clip();
    let row = &chunks(&tokenizer, &Prompt::parse("a (red:1.5) [fox]"), LENGTH).unwrap()[0];
    let mut expected = vec![1.0];
    for (text, weight) in [("a ", 1.0), ("red", 1.5), ("fox", (1.0 / 1.1_f64) as f32)] {
        let tokens = tokenizer.words(text).unwrap().len();
        expected.extend(vec![weight; tokens]);
    }
    expected.resize(LENGTH, 1.0);
    assert_eq!(row.weights, expected);
}

#[test]
fn prompts_that_guide_each_other_have_as_many_chunks() {
    let tokenizer = clip();
    let rows = |text: &str| chunks(&tokenizer, &Prompt::parse(text), LENGTH).unwrap();
    let mut prompts = [
        rows("a fox BREAK in snow BREAK at night"),
        rows("blurry"),
        rows(""),
    ];
    assert_eq!(prompts.each_ref().map(Vec::len), [3, 1, 1]);
    pad_together(&tokenizer, &mut prompts, LENGTH);
    assert_eq!(prompts.each_ref().map(Vec::len), [3, 3, 3]);
    assert_eq!(prompts[1][1], prompts[2][0]);
    assert!(words(&tokenizer, &prompts[1][2]).is_empty());
}

#[test]
fn a_sequence_is_truncated_before_its_end() {
    for case in cases() {
        let tokenizer = open(&case.folder);
        let (_, after) = tokenizer.frame();
        let prompt = Prompt::parse("a (red:2) fox BREAK in deep snow");
        let whole = sequence(&tokenizer, &prompt, 64).unwrap();
        assert_eq!(whole.truncated, 0);
        let short = sequence(&tokenizer, &prompt, 4).unwrap();
        assert_eq!(short.ids.last(), after.last(), "{}", case.folder);
        assert!(short.truncated > 0 && short.weights.contains(&2.0));
    }
}
