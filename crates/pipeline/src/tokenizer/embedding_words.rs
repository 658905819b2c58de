//! Words of a text that stand for vectors of textual inversion.

use std::ops::Range;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'text> {
    /// Words of the vocabulary.
    Text(&'text str),
    /// A word that stands for these ids, which follow those of the vocabulary.
    Embedding(Range<u32>),
}

/// The words with their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct EmbeddingWords(Vec<(Vec<char>, Range<u32>)>);

impl EmbeddingWords {
    /// Adds `word` for `ids`. An empty one is never found.
    pub(super) fn add(&mut self, word: &str, ids: Range<u32>) {
        let word: Vec<char> = word.trim().chars().flat_map(char::to_lowercase).collect();
        if !word.is_empty() {
            self.0.push((word, ids));
            // The longest first, so that one that begins with another is found.
            self.0.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        }
    }

    /// `text` in pieces, none of which is empty.
    pub(super) fn pieces<'text>(&self, text: &'text str) -> Vec<Piece<'text>> {
        let mut pieces = Vec::new();
        let mut begun = 0;
        let mut before = None;
        let mut at = 0;
        while let Some(letter) = text[at..].chars().next() {
            match self.found(before, &text[at..]) {
                Some((length, ids)) => {
                    if begun < at {
                        pieces.push(Piece::Text(&text[begun..at]));
                    }
                    pieces.push(Piece::Embedding(ids));
                    at += length;
                    begun = at;
                    before = text[..at].chars().next_back();
                }
                None => {
                    before = Some(letter);
                    at += letter.len_utf8();
                }
            }
        }
        if begun < text.len() {
            pieces.push(Piece::Text(&text[begun..]));
        }
        pieces
    }

    /// The length in bytes of the word at the beginning of `text`, and its ids. `before` is the letter before it.
    fn found(&self, before: Option<char>, text: &str) -> Option<(usize, Range<u32>)> {
        self.0
            .iter()
            .find_map(|(word, ids)| Some((length_of(word, before, text)?, ids.clone())))
    }
}

/// Whether `text` has `word` as a whole word, in any case.
pub fn has_word(text: &str, word: &str) -> bool {
    let mut words = EmbeddingWords::default();
    words.add(word, 0..1);
    words
        .pieces(text)
        .iter()
        .any(|piece| matches!(piece, Piece::Embedding(_)))
}

/// The length in bytes of `word`, in lower case, at the beginning of `text`, if it is there as a whole word.
fn length_of(word: &[char], before: Option<char>, text: &str) -> Option<usize> {
    let joins = |letter: &char| letter.is_alphanumeric() || *letter == '_';
    let mut left = word;
    let mut rest = text.chars();
    while !left.is_empty() {
        for lower in rest.next()?.to_lowercase() {
            let (first, others) = left.split_first()?;
            left = (*first == lower).then_some(others)?;
        }
    }
    let after = rest.clone().next();
    let runs_on =
        |edge: Option<&char>, next: Option<char>| edge.is_some_and(joins) && next.as_ref().is_some_and(joins);
    let is_whole = !runs_on(word.first(), before) && !runs_on(word.last(), after);
    is_whole.then(|| text.len() - rest.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[&str]) -> EmbeddingWords {
        let mut all = EmbeddingWords::default();
        for (index, word) in words.iter().enumerate() {
            let first = 100 + 10 * index as u32;
            all.add(word, first..first + 2);
        }
        all
    }

    #[track_caller]
    fn reads(known: &EmbeddingWords, text: &str, expected: &[Piece<'_>]) {
        assert_eq!(known.pieces(text), expected, "{text}");
    }

    #[test]
    fn whole_words_are_found_in_any_case() {
        use Piece::{Embedding, Text};
        let known = words(&["easynegative", "<cat-toy>", "easynegativeV2", "Ärger"]);
        reads(&known, "", &[]);
        reads(&known, "a cat", &[Text("a cat")]);
        reads(&known, "easynegative", &[Embedding(100..102)]);
        reads(&known, "EasyNegative, bad", &[Embedding(100..102), Text(", bad")]);
        reads(&known, "a EasyNegativev2", &[Text("a "), Embedding(120..122)]);
        reads(
            &known,
            "easynegative2 uneasynegative easynegative_x",
            &[Text("easynegative2 uneasynegative easynegative_x")],
        );
        reads(
            &known,
            "a<cat-toy>b",
            &[Text("a"), Embedding(110..112), Text("b")],
        );
        reads(
            &known,
            "ÄRGER ärger",
            &[Embedding(130..132), Text(" "), Embedding(130..132)],
        );
        reads(
            &known,
            "<CAT-TOY><cat-toy>",
            &[Embedding(110..112), Embedding(110..112)],
        );
        reads(&words(&["", " "]), "a b", &[Text("a b")]);
    }

    proptest! {
        #[test]
        fn no_text_is_lost(text in "(easy|EASY|<t>| |é|İ|_|ß|,){0,12}") {
            let known = words(&["easy", "<t>", "é"]);
            let mut rest = text.as_str();
            for piece in known.pieces(&text) {
                match piece {
                    Piece::Text(words) => rest = rest.strip_prefix(words).unwrap(),
                    Piece::Embedding(ids) => {
                        let word = ["easy", "<t>", "é"][(ids.start as usize - 100) / 10];
                        let (found, after) = rest.split_at(word.len());
                        prop_assert_eq!(found.to_lowercase(), word);
                        rest = after;
                    }
                }
            }
            prop_assert_eq!(rest, "");
        }
    }
}
