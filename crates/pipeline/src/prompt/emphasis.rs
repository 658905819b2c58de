//! Emphasis: the weights of the words of a prompt.
//!
//! `(word)` has the weight 1.1, `[word]` 1/1.1, and `(word:1.2)` the weight that is written. Brackets may be
//! nested, are literal after a backslash, and extend to the end if they are not closed. `BREAK` starts a new
//! chunk.

use super::lora_tags::{self, LoraTag};

/// A parsed prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The text and its breaks, in order. Adjacent texts have different weights, and none is empty.
    pub parts: Vec<Part>,
    /// The LoRAs that the prompt names.
    pub loras: Vec<LoraTag>,
    /// LoRA tags that cannot be parsed.
    pub unread: Vec<String>,
}

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Words with the same weight.
    Text {
        /// The words.
        text: String,
        /// Their weight; 1 by default.
        weight: f32,
    },
    /// The end of a chunk.
    Break,
}

/// The factor of a bracket.
const EMPHASIS: f64 = 1.1;

/// Brackets nested deeper than this have no further effect: the weight would be useless.
const DEEPEST: usize = 64;

/// Weights are clamped to this.
const MOST: f64 = 1e6;

const BREAK: &str = "BREAK";

/// The characters with a meaning in the syntax.
const SIGNS: [char; 6] = ['\\', '(', ')', '[', ']', ':'];

impl Prompt {
    /// Parses the emphasis, breaks and LoRA tags of `text`. Every text is valid.
    pub fn parse(text: &str) -> Self {
        let untagged = lora_tags::take_out(text);
        Self {
            parts: Reader::default().read(&untagged.text),
            loras: untagged.loras,
            unread: untagged.unread,
        }
    }

    /// A prompt of `text` as it is, without any syntax.
    pub fn literal(text: &str) -> Self {
        let text = text.to_owned();
        let part = (!text.is_empty()).then_some(Part::Text { text, weight: 1.0 });
        Self {
            parts: part.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The words without their weights, with breaks as spaces.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().map(|part| match part {
            Part::Text { text, .. } => text.as_str(),
            Part::Break => " ",
        });
        texts.collect()
    }

    /// Whether any word has another weight than 1.
    pub fn is_weighted(&self) -> bool {
        let weight = |part: &Part| matches!(part, Part::Text { weight, .. } if *weight != 1.0);
        self.parts.iter().any(weight)
    }
}

/// Text with its weight, or a break.
struct Piece {
    text: Option<String>,
    weight: f64,
}

/// The state of the parser.
#[derive(Default)]
struct Reader {
    pieces: Vec<Piece>,
    /// The pieces at which open brackets start.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Reader {
    fn read(mut self, text: &str) -> Vec<Part> {
        let mut rest = text;
        while !rest.is_empty() {
            let (words, after) = rest.split_at(rest.find(SIGNS).unwrap_or(rest.len()));
            self.words(words);
            rest = self.sign(after);
        }
        self.finish()
    }

    /// Reads the words between two signs, with the breaks among them.
    fn words(&mut self, text: &str) {
        let joins = |letter: char| letter.is_alphanumeric() || letter == '_';
        let mut begun = 0;
        for (at, _) in text.match_indices(BREAK) {
            let (before, after) = (&text[begun..at], &text[at + BREAK.len()..]);
            if text[..at].ends_with(joins) || after.starts_with(joins) {
                continue;
            }
            self.push(before.trim());
            self.pieces.push(Piece {
                text: None,
                weight: 1.0,
            });
            begun = at + BREAK.len();
        }
        let rest = &text[begun..];
        self.push(if begun > 0 { rest.trim_start() } else { rest });
    }

    /// Reads the sign at the beginning of `text`, if any, with its arguments, and returns the rest.
    fn sign<'text>(&mut self, text: &'text str) -> &'text str {
        if text.is_empty() {
            return text;
        }
        let (sign, after) = text.split_at(1);
        match sign {
            "\\" => {
                // Before any other character the backslash is dropped.
                let escapes = after.starts_with(['\\', '(', ')', '[', ']']);
                let (literal, after) = after.split_at(usize::from(escapes));
                self.push(literal);
                return after;
            }
            "(" => open(&mut self.round, self.pieces.len()),
            "[" => open(&mut self.square, self.pieces.len()),
            ":" => match weight(after) {
                Some((weight, after)) if !self.round.is_empty() => {
                    let bracket = self.round.pop();
                    self.multiply(bracket, weight);
                    return after;
                }
                _ => self.push(sign),
            },
            ")" => match self.round.pop() {
                None => self.push(sign),
                bracket => self.multiply(bracket, EMPHASIS),
            },
            _ => match self.square.pop() {
                None => self.push(sign),
                bracket => self.multiply(bracket, 1.0 / EMPHASIS),
            },
        }
        after
    }

    fn push(&mut self, text: &str) {
        if !text.is_empty() {
            let text = Some(text.to_owned());
            self.pieces.push(Piece { text, weight: 1.0 });
        }
    }

    /// Multiplies the weights of all pieces since a bracket.
    fn multiply(&mut self, bracket: Option<usize>, weight: f64) {
        let start = bracket.unwrap_or(self.pieces.len());
        for piece in &mut self.pieces[start..] {
            piece.weight = (piece.weight * weight).clamp(-MOST, MOST);
        }
    }

    /// Closes the open brackets, and joins adjacent pieces of the same weight.
    fn finish(mut self) -> Vec<Part> {
        while let Some(bracket) = self.round.pop() {
            self.multiply(Some(bracket), EMPHASIS);
        }
        while let Some(bracket) = self.square.pop() {
            self.multiply(Some(bracket), 1.0 / EMPHASIS);
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut last_weight = None;
        for piece in self.pieces {
            let Some(more) = piece.text else {
                parts.push(Part::Break);
                last_weight = None;
                continue;
            };
            match parts.last_mut() {
                Some(Part::Text { text, .. }) if last_weight == Some(piece.weight) => text.push_str(&more),
                _ => parts.push(Part::Text {
                    text: more,
                    weight: piece.weight as f32,
                }),
            }
            last_weight = Some(piece.weight);
        }
        parts
    }
}

fn open(brackets: &mut Vec<usize>, piece: usize) {
    if brackets.len() < DEEPEST {
        brackets.push(piece);
    }
}

/// Parses the weight between a colon and the closing bracket, and returns the rest.
fn weight(after_colon: &str) -> Option<(f64, &str)> {
    let (number, after) = after_colon.split_once(')')?;
    let number = number.trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let weight: f64 = number.parse().ok().filter(|_| plain)?;
    Some((weight.clamp(-MOST, MOST), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> Vec<(String, f32)> {
        let parts = Prompt::parse(text).parts.into_iter();
        parts
            .map(|part| match part {
                Part::Text { text, weight } => (text, weight),
                Part::Break => (BREAK.to_owned(), -1.0),
            })
            .collect()
    }

    #[track_caller]
    fn reads(text: &str, expected: &[(&str, f32)]) {
        let found = parts(text);
        let texts: Vec<&str> = found.iter().map(|(text, _)| text.as_str()).collect();
        let expected_texts: Vec<&str> = expected.iter().map(|(text, _)| *text).collect();
        assert_eq!(texts, expected_texts, "{text}");
        for ((word, found), (_, expected)) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-6,
                "{text}: {word} {found} {expected}"
            );
        }
    }

    #[test]
    fn brackets_weigh_words() {
        reads("", &[]);
        reads("a red fox", &[("a red fox", 1.0)]);
        reads("a (red) fox", &[("a ", 1.0), ("red", 1.1), (" fox", 1.0)]);
        reads("a [red] fox", &[("a ", 1.0), ("red", 1.0 / 1.1), (" fox", 1.0)]);
        reads("a (red:1.5) fox", &[("a ", 1.0), ("red", 1.5), (" fox", 1.0)]);
        reads(
            "(red: 0.5 )(fox:-2)(tail:.25)(ear:+1.5)",
            &[("red", 0.5), ("fox", -2.0), ("tail", 0.25), ("ear", 1.5)],
        );
        reads("((red) fox)", &[("red", 1.21), (" fox", 1.1)]);
        reads("((red:1.5) fox:2)", &[("red", 3.0), (" fox", 2.0)]);
        reads("([red])", &[("red", 1.0)]);
        reads("(red)(fox)", &[("redfox", 1.1)]);
        reads("()[](:2)fox", &[("fox", 1.0)]);
    }

    #[test]
    fn open_brackets_reach_to_the_end() {
        reads("a (red fox", &[("a ", 1.0), ("red fox", 1.1)]);
        reads(
            "a ((red) [fox",
            &[("a ", 1.0), ("red", 1.1 * 1.1), (" ", 1.1), ("fox", 1.0)],
        );
        reads("red) fox]", &[("red) fox]", 1.0)]);
        reads(
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            &[
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        );
    }

    #[test]
    fn a_backslash_makes_signs_words() {
        reads(r"fox \(animal\)", &[("fox (animal)", 1.0)]);
        reads(r"(fox \(animal\):1.2)", &[("fox (animal)", 1.2)]);
        reads(r"\[red\] \\ fox", &[(r"[red] \ fox", 1.0)]);
        reads(r"C:\fox\", &[("C:fox", 1.0)]);
    }

    #[test]
    fn what_is_no_weight_is_text() {
        reads("ratio 16:9", &[("ratio 16:9", 1.0)]);
        reads("red:1.2) fox", &[("red:1.2) fox", 1.0)]);
        reads("(red:1.2.3)", &[("red:1.2.3", 1.1)]);
        reads("(red:inf)", &[("red:inf", 1.1)]);
        reads("(red:1e3)", &[("red:1e3", 1.1)]);
        reads("(red:)", &[("red:", 1.1)]);
        reads("(at 10:30:1.5)", &[("at 10:30", 1.5)]);
    }

    #[test]
    fn a_break_stands_alone() {
        reads("red BREAK fox", &[("red", 1.0), (BREAK, -1.0), ("fox", 1.0)]);
        reads("BREAK", &[(BREAK, -1.0)]);
        reads(
            "a BREAK BREAK\nb",
            &[("a", 1.0), (BREAK, -1.0), (BREAK, -1.0), ("b", 1.0)],
        );
        reads("(a BREAK b:1.5)", &[("a", 1.5), (BREAK, -1.0), ("b", 1.5)]);
        reads("(a)BREAK(b)", &[("a", 1.1), (BREAK, -1.0), ("b", 1.1)]);
        reads(
            "BREAKFAST, OUTBREAK, break, BREAK_",
            &[("BREAKFAST, OUTBREAK, break, BREAK_", 1.0)],
        );
    }

    #[test]
    fn loras_are_taken_out_first() {
        let prompt = Prompt::parse("a (fox <lora:fur:0.8>:1.2)<lora:>");
        assert_eq!(prompt.loras.len(), 1);
        assert_eq!(prompt.unread, ["<lora:>"]);
        assert_eq!(prompt.text(), "a fox ");
        assert!(prompt.is_weighted());
        assert!(!Prompt::literal("a (fox:1.2)").is_weighted());
        assert_eq!(Prompt::literal("a (fox:1.2)").text(), "a (fox:1.2)");
    }

    #[test]
    fn deep_brackets_end() {
        let deep = "(a[b".repeat(50_000);
        for part in Prompt::parse(&deep).parts {
            assert!(matches!(part, Part::Text { weight, .. } if weight.is_finite()));
        }
        let huge = format!("{}fox{}", "(".repeat(60), ":999999)".repeat(60));
        assert_eq!(parts(&huge), [("fox".to_owned(), MOST as f32)]);
    }

    proptest! {
        #[test]
        fn every_text_means_something(text in r"([()\[\]\\:<>. aé1]|BREAK|<lora:|:1\.5\)){0,40}|.{0,40}") {
            let prompt = Prompt::parse(&text);
            let mut last = None;
            for part in &prompt.parts {
                if let Part::Text { text, weight } = part {
                    prop_assert!(!text.is_empty() && weight.is_finite());
                }
                last = Some(part);
            }
            prop_assert!(last.is_some() || prompt.text().is_empty());
        }

        #[test]
        fn escaped_text_is_read_as_it_stands(text in r"[()\[\] a-zé,]{0,40}") {
            let escaped: String = text
                .chars()
                .flat_map(|letter| "()[]".contains(letter).then_some('\\').into_iter().chain([letter]))
                .collect();
            let prompt = Prompt::parse(&escaped);
            prop_assert_eq!(prompt.text(), text);
            prop_assert!(!prompt.is_weighted());
        }
    }
}
