//! The `parameters` text, read by the rules of stable-diffusion-webui (`modules/infotext_utils.py`).

use std::sync::LazyLock;

use regex::Regex;

/// A pair of the last line: a key, and a value that may be a JSON string.
static PAIR: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)"#).ok());
/// What precedes the JSON that stable-diffusion.cpp appends. It repeats the line.
const JSON_OF_SD_CPP: &str = ", SDCPP: {";
/// The fewest pairs of a last line.
const FEWEST_PAIRS: usize = 3;

/// A text in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Infotext {
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    /// The pairs of the last line, in its order.
    pub(super) pairs: Vec<(String, String)>,
}

impl Infotext {
    /// The value of `key`.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }
}

/// Splits `text`.
///
/// # Errors
/// It has no line of settings.
pub(super) fn parse(text: &str) -> Result<Infotext, String> {
    let text = text.trim_matches(['\0', '\n', '\r']);
    let text = text.replace("\r\n", "\n");
    let (before, last) = text.rsplit_once('\n').unwrap_or(("", &text));
    let last = last.split(JSON_OF_SD_CPP).next().unwrap_or(last);
    let pairs = pairs(last);
    if pairs.len() < FEWEST_PAIRS {
        return Err("its parameters text has no line of settings".to_owned());
    }
    let (mut prompt, mut negative) = (Vec::new(), Vec::new());
    let mut is_negative = false;
    for line in before.split('\n') {
        match line.trim_start().strip_prefix("Negative prompt:") {
            Some(rest) => {
                is_negative = true;
                negative.push(rest.strip_prefix(' ').unwrap_or(rest));
            }
            None if is_negative => negative.push(line),
            None => prompt.push(line),
        }
    }
    Ok(Infotext {
        prompt: prompt.join("\n"),
        negative_prompt: negative.join("\n"),
        pairs,
    })
}

/// The pairs of `line`.
pub(super) fn pairs(line: &str) -> Vec<(String, String)> {
    let Some(pattern) = PAIR.as_ref() else {
        return Vec::new();
    };
    let found = pattern.captures_iter(line).filter_map(|found| {
        let (key, value) = (found.get(1)?.as_str(), found.get(2)?.as_str());
        Some((key.trim().to_owned(), unquoted(value.trim())))
    });
    found.collect()
}

/// A value without the quotation marks of a JSON string.
fn unquoted(value: &str) -> String {
    match serde_json::from_str::<String>(value) {
        Ok(text) if value.starts_with('"') => text,
        _ => value.to_owned(),
    }
}
