//! Errors of the command line: what is wrong in one line, and what was probably meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use sd_catalog::similar;

use super::foreign_options;
use crate::hint::Failure;

/// The usage error for `words`.
pub(super) fn failure(error: &clap::Error, words: &[OsString], command: &clap::Command) -> Failure {
    // clap takes a second unquoted word of the prompt for a subcommand that comes too late.
    if let (ErrorKind::ArgumentConflict, Some(word)) =
        (error.kind(), text(error, ContextKind::InvalidSubcommand))
    {
        return Failure::after_prompt(word);
    }
    let mut named = command;
    let mut path = Vec::new();
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        let Some(next) = named.find_subcommand(word) else {
            break;
        };
        named = next;
        path.push(word);
    }
    let typed: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let failure = Failure::usage(message(error, named, &typed));
    if error.kind() == ErrorKind::ValueValidation && is_negative_prompt(error, words) {
        return failure.advising(
            "-n is the number of images; in stable-diffusion.cpp it is the negative prompt: write --negative-prompt"
                .to_owned(),
        );
    }
    match path.is_empty() {
        true => failure,
        false => failure.advising(format!("`generate {} --help` lists the options", path.join(" "))),
    }
}

/// The usage error of `generate plan again PICTURE`, whose words are the other way round.
pub(super) fn of_plan(words: &[OsString]) -> Option<Failure> {
    let word = |index: usize| words.get(index).and_then(|word| word.to_str());
    let is_again = word(1) == Some("--plan") && word(2) == Some("again") && words.len() > 3;
    is_again.then(|| {
        Failure::usage("`generate plan` takes a prompt and no command".to_owned())
            .advising("`generate again PICTURE --plan` plans the image of a picture".to_owned())
    })
}

/// Whether a text follows `-n`.
fn is_negative_prompt(error: &clap::Error, words: &[OsString]) -> bool {
    let is_number = text(error, ContextKind::InvalidArg).is_some_and(|option| option.starts_with("--n "));
    let is_text = text(error, ContextKind::InvalidValue).is_some_and(|value| value.parse::<f64>().is_err());
    let is_short = |word: &OsString| {
        let word = word.to_string_lossy();
        word.starts_with("-n") && !word.starts_with("--")
    };
    is_number && is_text && words.iter().any(is_short)
}

/// The message for `error` of the words `typed` for `command`, in one line: clap's without its prefix, its usage and its
/// mention of `--help`. An unknown option gets what was probably meant, and one that is given twice the names under which
/// it was typed.
pub(super) fn message(error: &clap::Error, command: &clap::Command, typed: &[String]) -> String {
    if let Some(names) = given_twice(error, command, typed) {
        return match &names[..] {
            [name] => format!("`{name}` is given more than once"),
            names => format!(
                "{} are one option: give one of them",
                names
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(" and ")
            ),
        };
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(option) = text(error, ContextKind::InvalidArg)
    {
        if let Some(advice) = foreign_options::advice(option) {
            return format!("`{option}` is not an option here: {advice}");
        }
        let near = match option.starts_with("--") {
            true => meant(option, command),
            false => None,
        };
        let near = near
            .map(|near| format!("; did you mean `--{near}`?"))
            .unwrap_or_default();
        return format!("unexpected argument '{option}' found{near}");
    }
    one_line(error)
}

/// The names in `typed` of the option that `error` says is given twice, each once.
fn given_twice(error: &clap::Error, command: &clap::Command, typed: &[String]) -> Option<Vec<String>> {
    let is_twice = error.kind() == ErrorKind::ArgumentConflict
        && error.get(ContextKind::InvalidArg) == error.get(ContextKind::PriorArg);
    let option = text(error, ContextKind::InvalidArg).filter(|_| is_twice)?;
    let long = option.trim_start_matches('-').split([' ', '=']).next()?;
    let argument = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(long))?;
    let plain = |name: &str| name.replace('_', "-");
    let mut longs: Vec<String> = argument
        .get_all_aliases()
        .into_iter()
        .flatten()
        .map(plain)
        .collect();
    longs.push(plain(long));
    let letters: Vec<char> = argument
        .get_short_and_visible_aliases()
        .into_iter()
        .flatten()
        .collect();
    let hidden = argument.get_all_short_aliases().into_iter().flatten();
    let letters: Vec<char> = letters.into_iter().chain(hidden).collect();
    let mut names: Vec<String> = Vec::new();
    for word in typed.iter().skip(1).take_while(|word| *word != "--") {
        let name = word.split('=').next().unwrap_or(word);
        let name = match name.strip_prefix("--") {
            Some(long) if longs.contains(&plain(long)) => name.to_owned(),
            Some(_) => continue,
            None => match name.strip_prefix('-').and_then(|rest| rest.chars().next()) {
                Some(letter) if letters.contains(&letter) => format!("-{letter}"),
                _ => continue,
            },
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then_some(names)
}

/// The option of `command` that was probably meant with `option`.
fn meant<'a>(option: &str, command: &'a clap::Command) -> Option<&'a str> {
    let option = option.split('=').next().unwrap_or(option).trim_start_matches('-');
    let mut names: Vec<(&str, &str)> = Vec::new();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(long) = argument.get_long() else {
            continue;
        };
        names.push((long, long));
        let aliases = argument.get_all_aliases().into_iter().flatten();
        names.extend(aliases.map(|alias| (alias, long)));
    }
    let near = similar(option, names.iter().map(|(name, _)| *name))?;
    names
        .iter()
        .find(|(name, _)| *name == near)
        .map(|(_, long)| *long)
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// clap's message in one line. Tips stay only where they name a similar word.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut message = String::new();
    for line in lines {
        let (between, line) = match line.strip_prefix("tip: ") {
            Some(tip) if tip.contains("similar") => ("; ", tip),
            Some(_) => continue,
            None if message.is_empty() => ("", line),
            None => (" ", line),
        };
        message.push_str(between);
        message.push_str(line);
    }
    message
}
