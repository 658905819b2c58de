//! [`escaped`]: text from files, prompts and the hub, made safe for a terminal.

use std::borrow::Cow;

/// Escapes `text` for a terminal: control characters, line breaks among them, and bidirectional controls are written as in
/// Rust, `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_control(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal interprets `letter` rather than showing it.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Bidirectional marks, embeddings, overrides and isolates.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Tags, which are invisible.
            | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            (
                "a cat, größer als 猫 🐈\u{200d}⬛",
                "a cat, größer als 猫 🐈\u{200d}⬛",
            ),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("one\nerror: two\r\t", "one\\nerror: two\\r\\t"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("gnp.\u{202e}exe", "gnp.\\u{202e}exe"),
            ("a\u{2028}b\u{e0041}", "a\\u{2028}b\\u{e0041}"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }
}
