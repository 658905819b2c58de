//! Patterns of normalizers and pre-tokenizers, limited to those that match in linear time.

use serde::Deserialize;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::pre_tokenizers::split::SplitPattern;

use super::Refusal;

/// The longest pattern.
const LONGEST_PATTERN: usize = 1 << 9;

#[derive(Deserialize)]
pub(super) enum Pattern {
    String(String),
    Regex(String),
}

impl Pattern {
    /// The pattern, if it matches in linear time and never matches an empty string.
    pub(super) fn checked(self) -> Result<Self, Refusal> {
        let (Self::String(text) | Self::Regex(text)) = &self;
        if !(1..=LONGEST_PATTERN).contains(&text.len()) {
            return Err(format!("a pattern has {} bytes", text.len()));
        }
        match &self {
            Self::Regex(text) if !is_simple(text) => Err(format!(
                "the pattern `{text}` is not one of the kinds that are known"
            )),
            _ => Ok(self),
        }
    }
}

impl From<Pattern> for ReplacePattern {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::String(text) => Self::String(text),
            Pattern::Regex(text) => Self::Regex(text),
        }
    }
}

impl From<Pattern> for SplitPattern {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::String(text) => Self::String(text),
            Pattern::Regex(text) => Self::Regex(text),
        }
    }
}

/// Whether a regular expression consists of alternatives of classes and letters, and repeats only those: no
/// groups, no look-around, nothing optional. The patterns of CLIP's and T5's tokenizers are of this kind.
fn is_simple(pattern: &str) -> bool {
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        let known = match letter {
            '(' | ')' | '?' | '*' | '^' | '$' => false,
            '\\' => match letters.next() {
                // A named class: `\p{L}`.
                Some('p' | 'P') => {
                    letters.next() == Some('{') && letters.by_ref().any(|letter| letter == '}')
                }
                Some(letter) => "sSdDwWrntfv".contains(letter) || letter.is_ascii_punctuation(),
                None => false,
            },
            // A repetition: ` {2,}`.
            '{' => {
                let count: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
                let (least, most) = count.split_once(',').unwrap_or((&count, ""));
                let is_small = |text: &str| text.parse().is_ok_and(|count: u8| (1..=16).contains(&count));
                is_small(least) && (most.is_empty() || is_small(most))
            }
            _ => true,
        };
        if !known {
            // Inside a class these characters are literal.
            return false;
        }
        if letter == '[' {
            // A class holds letters and named classes up to its end.
            if letters.peek() == Some(&'^') {
                letters.next();
            }
            let mut is_closed = false;
            while let Some(letter) = letters.next() {
                match letter {
                    ']' => {
                        is_closed = true;
                        break;
                    }
                    '[' | '&' | '~' => return false,
                    '\\' => drop(letters.next()),
                    _ => {}
                }
            }
            if !is_closed {
                return false;
            }
        }
    }
    // An empty alternative would match everywhere.
    !pattern.split('|').any(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_tokenizers_are_simple_and_others_are_not() {
        for pattern in [
            r"\s+",
            " {2,}",
            r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        ] {
            assert!(is_simple(pattern), "{pattern}");
        }
        for pattern in [
            "(a+)+", "a*", "a?", "a|", "|a", "(?=a)", r"\1", "^", "a{1000}", "a{0,}", r"\b", "[a",
            "[[a]&&b]", r"\p{", "\\",
        ] {
            assert!(!is_simple(pattern), "{pattern}");
        }
    }
}
