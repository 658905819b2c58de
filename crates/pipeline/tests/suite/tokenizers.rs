//! Token ids against transformers. `tools/reference/make_tokenizers.py` writes the data.

use crate::tokenized::{Case, Text, cases, open};

#[test]
fn every_text_gives_the_ids_of_transformers() {
    let mut compared = 0;
    for Case {
        folder,
        length,
        texts,
    } in cases()
    {
        let tokenizer = open(&folder);
        for Text { text, tokens, ids } in texts {
            let found = tokenizer.encode(&text, length).unwrap();
            assert_eq!(found.ids, ids, "{folder}: {text:?}");
            assert_eq!(
                found.truncated,
                tokens.saturating_sub(length),
                "{folder}: {text:?}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 50, "only {compared} texts");
}
