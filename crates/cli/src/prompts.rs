//! The prompts of a run: of the command line, of stdin, or of a file with one prompt, or options, a line.

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use sd_catalog::Settings;

use crate::arguments::{Arguments, PromptSource};
use crate::hint::Failure;
use crate::stdout_image::StdoutImage;

/// The longest text that prompts are read from, in bytes.
const LONGEST: u64 = 1 << 20;
/// Stdin in place of a prompt or of a file.
const STDIN: &str = "-";
/// The options of webui's script "Prompts from file or textbox" that have other names here.
const WEBUI: [(&str, &str); 4] = [
    ("--sd-model", "--model"),
    ("--sampler-name", "--sampler"),
    ("--cfg-scale", "--cfg"),
    ("--outpath-samples", "--output"),
];

/// A prompt, with the settings of its line over those of the command line.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) text: String,
    pub(crate) settings: Settings,
}

/// The prompts that `arguments` name, at least one.
///
/// # Errors
/// There is none, one is empty, a line cannot be understood, or the file cannot be read.
pub(crate) fn of(arguments: &Arguments) -> Result<Vec<Prompt>, Failure> {
    let settings = arguments.typed()?;
    let text = match arguments.prompt_source() {
        PromptSource::File(path) => return of_file(path, &settings),
        PromptSource::Text(text) => text.to_owned(),
        PromptSource::Stdin => from_stdin()?,
        PromptSource::None if !io::stdin().is_terminal() => match from_stdin()? {
            text if text.trim().is_empty() => return Err(Failure::no_prompt()),
            text => text,
        },
        PromptSource::None => return Err(Failure::no_prompt()),
    };
    if text.trim().is_empty() {
        return Err(Failure::empty_prompt());
    }
    if text.contains('\0') {
        return Err(Failure::usage("the prompt is no text: it holds a NUL".to_owned()));
    }
    Ok(vec![Prompt { text, settings }])
}

/// The text of stdin, without the line breaks at its end.
fn from_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    io::stdin()
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::other(format!("cannot read stdin: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Failure::usage(format!(
            "the text of stdin is longer than {LONGEST} bytes"
        )));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Failure::usage("the text of stdin is not UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// The prompts of the file at `path`: one a line; a line that begins with `--` holds options instead. Empty lines and
/// lines that begin with `#` are passed over.
fn of_file(path: &Path, settings: &Settings) -> Result<Vec<Prompt>, Failure> {
    let text = match path == Path::new(STDIN) {
        true => from_stdin()?,
        false => sd_catalog::read_text(path, LONGEST).map_err(|error| {
            Failure::usage(format!(
                "cannot read the prompts of `{}`: {error}",
                path.display()
            ))
        })?,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place =
            |reason: &str| Failure::usage(format!("`{}` line {}: {reason}", path.display(), number + 1));
        let prompt = match line.starts_with("--") {
            true => with_options(line, settings).map_err(|reason| place(&reason))?,
            false => Prompt {
                text: line.to_owned(),
                settings: settings.clone(),
            },
        };
        if prompt.text.trim().is_empty() {
            return Err(place("there is no prompt"));
        }
        if prompt.text.contains('\0') {
            return Err(place("it is no text: it holds a NUL"));
        }
        prompts.push(prompt);
    }
    match prompts.is_empty() {
        true => Err(Failure::usage(format!("`{}` holds no prompt", path.display()))),
        false => Ok(prompts),
    }
}

/// The prompt of a line of options, as the command line has them. Options may be written with `_`, as in webui.
fn with_options(line: &str, settings: &Settings) -> Result<Prompt, String> {
    let typed = shlex::split(line).ok_or("a quotation mark is not closed")?;
    let words = typed.iter().cloned().map(|word| match word.starts_with("--") {
        true => {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let name = name.replace('_', "-");
            let known = WEBUI.iter().find(|(theirs, _)| *theirs == name);
            let name = known.map_or(name.as_str(), |(_, ours)| ours);
            value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"))
        }
        false => word,
    });
    let line = Arguments::of_line(words, &typed)?;
    if StdoutImage::is_named(line.output()) {
        return Err(
            "stdout takes the image of the whole run, so that `-o -` is for the command line".to_owned(),
        );
    }
    let typed = line.typed().map_err(|failure| failure.message().to_owned())?;
    let text = match line.prompt_source() {
        PromptSource::Text(text) => text.to_owned(),
        PromptSource::None => String::new(),
        PromptSource::Stdin | PromptSource::File(_) => {
            return Err("a line cannot take its prompt from elsewhere".to_owned());
        }
    };
    if line.has_other_than_settings() {
        return Err("this line has an option that holds for the whole run, not for one prompt".to_owned());
    }
    Ok(Prompt {
        text,
        settings: typed.over(settings.clone()),
    })
}
