//! The two streams: results go to stdout, everything else to stderr.
//!
//! Text from files, prompts and the hub could move the cursor, change colours or turn the reading direction.
//! Lines for people are escaped here and nowhere else ([`escaped`]). Output for programs is written as it is:
//! JSON, and paths where stdout is no terminal.
//!
//! An error of stdout does not stop the work. It is kept, and decides the exit code in the end
//! ([`failure_of_stdout`]).

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

/// The first error of stdout.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// The first error of stdout, if there was one.
pub(crate) fn failure_of_stdout() -> Option<&'static io::Error> {
    FAILURE.get()
}

/// Writes a list, a plan or a help text to stdout, for people.
pub(crate) fn print(text: &str) {
    let mut shown = String::with_capacity(text.len() + 1);
    for line in text.lines() {
        shown.push_str(&escaped(line));
        shown.push('\n');
    }
    write(shown.as_bytes());
}

/// Writes a line to stdout, for people.
pub(crate) fn print_line(line: &str) {
    write(format!("{}\n", escaped(line)).as_bytes());
}

/// Writes a path to stdout. Where stdout is no terminal its bytes are not changed.
pub(crate) fn print_path(path: &Path) {
    if io::stdout().is_terminal() {
        print_line(&path.display().to_string());
    } else {
        let mut line = path.as_os_str().as_encoded_bytes().to_vec();
        line.push(b'\n');
        write(&line);
    }
}

/// Writes a line of JSON to stdout. JSON escapes control characters itself.
pub(crate) fn print_json(value: &Value) {
    write(format!("{value}\n").as_bytes());
}

/// Writes a line to stderr.
pub(crate) fn note(line: &str) {
    let mut stderr = io::stderr().lock();
    // An error of stderr has nowhere to be reported.
    let _ = writeln!(stderr, "{}", escaped(line));
}

fn write(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // Only the first error is reported.
        let _ = FAILURE.set(error);
    }
}

/// `text` in one line that shows what it holds and does nothing else to a terminal: control characters (with
/// the end of a line among them) and those that turn the reading direction are written as in Rust, `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_acting) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_acting(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal does something where it should show `letter`.
fn is_acting(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Marks, embeddings, overrides and isolates of the reading direction.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Ends of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // Tags, which are not seen.
            | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
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
