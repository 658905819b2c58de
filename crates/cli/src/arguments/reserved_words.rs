//! Words that are commands, today or later, and so no prompts: a typing error or an old habit must not draw.

use std::ffi::OsString;

use crate::hint::Failure;

/// Commands that exist.
const COMMANDS: [&str; 13] = [
    "again",
    "completions",
    "convert",
    "doctor",
    "help",
    "login",
    "man",
    "models",
    "plan",
    "ps",
    "resume",
    "serve",
    "show",
];
/// Commands that do not exist yet, unless the program has the feature `cluster`.
const LATER: [&str; 1] = ["worker"];
/// What other programs call a command.
const OTHER_NAMES: [(&str, &str); 4] = [
    ("list", "models"),
    ("ls", "models"),
    ("pull", "models pull"),
    ("rm", "models rm"),
];

/// Why the first of `words`, which is no command, is refused.
pub(super) fn refused_command(words: &[OsString]) -> Option<Failure> {
    let word = words.get(1)?.to_str()?;
    match is_command(word) {
        true => None,
        false => refused(word),
    }
}

/// Why `prompt`, one of `words`, is refused. After `--` every word is a prompt.
pub(super) fn refused_prompt(prompt: &str, words: &[OsString]) -> Option<Failure> {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    match words[..end].iter().any(|word| word == prompt) {
        true => refused(prompt),
        false => None,
    }
}

fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word) || cfg!(feature = "cluster") && LATER.contains(&word)
}

fn refused(word: &str) -> Option<Failure> {
    let as_prompt = format!("`generate --prompt {word}` draws the word");
    if is_command(word) {
        let failure = Failure::usage(format!("`{word}` is a command, which comes first"));
        return Some(failure.advising(format!("`generate {word} --help` describes it; {as_prompt}")));
    }
    if LATER.contains(&word) {
        let failure = Failure::usage(format!("there is no command `{word}` yet"));
        return Some(failure.advising(format!("`generate --help` lists the commands; {as_prompt}")));
    }
    let (_, name) = OTHER_NAMES.iter().find(|(other, _)| *other == word)?;
    let failure = Failure::usage(format!("there is no command `{word}`"));
    Some(failure.advising(format!("it is `generate {name}`; {as_prompt}")))
}
