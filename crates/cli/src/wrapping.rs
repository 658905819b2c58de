//! Rows of a list, wrapped to the width of the terminal.

use std::io::stdout;

use terminal_size::{Width, terminal_size_of};

/// The most columns, and those where stdout is no terminal.
const MOST: usize = 100;
/// The fewest columns of a text.
const FEWEST: usize = 20;

/// The columns of stdout, as for the help: those of the terminal, or else of the variable `COLUMNS`.
pub(crate) fn columns() -> usize {
    let of_terminal = terminal_size_of(stdout()).map(|(Width(columns), _)| usize::from(columns));
    let of_variable = || std::env::var("COLUMNS").ok()?.parse().ok();
    of_terminal.or_else(of_variable).unwrap_or(MOST).min(MOST)
}

/// The lines of a row: `name`, and in a column after `width` columns `text`, which is wrapped at `columns`.
pub(crate) fn row(name: &str, width: usize, text: &str, columns: usize) -> String {
    let longest = columns.saturating_sub(width + 2).max(FEWEST);
    let mut row = String::new();
    for (index, line) in wrapped(text, longest).iter().enumerate() {
        let name = if index == 0 { name } else { "" };
        row.push_str(format!("{name:width$}  {line}").trim_end());
        row.push('\n');
    }
    row
}

/// `text` in lines of at most `longest` letters, broken between words. A longer word has a line of its own.
fn wrapped(text: &str, longest: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line. This is a bug.");
        let letters = line.chars().count();
        if letters == 0 {
            line.push_str(word);
        } else if letters + 1 + word.chars().count() <= longest {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_below_their_begin() {
        assert_eq!(row("name", 6, "a short text", 40), "name    a short text\n");
        let text = "words and words and a_word_that_is_longer_than_a_line at last";
        assert_eq!(
            row("ab", 3, text, 26),
            "ab   words and words and\n     a_word_that_is_longer_than_a_line\n     at last\n"
        );
        assert_eq!(row("ab", 3, "", 26), "ab\n");
    }
}
