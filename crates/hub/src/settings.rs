//! The settings of the hub and its cache, read from the environment variables that the Python tools read.

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::{env, fmt};

/// The settings of the hub, its cache and the token.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The URL of the hub, without a trailing slash.
    pub endpoint: String,
    /// The folder of the cache.
    pub cache: PathBuf,
    /// The file that a token is saved in.
    pub token_file: PathBuf,
    /// The token from the environment, which takes precedence over the file.
    pub token_of_environment: Option<Token>,
    /// Whether the program must not send requests to the hub.
    pub offline: bool,
}

/// An access token of the hub. Only the hub receives it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The maximum length of a token file.
const LONGEST_TOKEN: u64 = 64 << 10;

/// Expands `~` at the start of the path `text`, then `$NAME` and `${NAME}`, as Python's `expanduser` and
/// `expandvars` do. Unset variables and the home of another user stay as they are written.
fn expanded(text: OsString, variable: &impl Fn(&str) -> Option<OsString>, home: Option<&Path>) -> PathBuf {
    let path = PathBuf::from(text);
    let path = match (path.strip_prefix("~"), home) {
        (Ok(below), Some(home)) => home.join(below),
        _ => path,
    };
    // Text that is not UTF-8 names no variable that could be looked for.
    let Some(mut rest) = path.to_str() else {
        return path;
    };
    let mut expanded = OsString::new();
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push(before);
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let (name, written) = match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = after.find(|letter| !is_word(letter)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => expanded.push(value),
            None => {
                expanded.push("$");
                expanded.push(&after[..written]);
            }
        }
        rest = &after[written..];
    }
    expanded.push(rest);
    sd_files::native(PathBuf::from(expanded))
}

impl Settings {
    /// The default URL of the hub.
    const ENDPOINT: &str = "https://huggingface.co";

    /// The settings of the current user. No file is read or created.
    pub fn of_user() -> Self {
        Self::read(|name| env::var_os(name), env::home_dir())
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| given(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| Some(expanded(given(name)?, &variable, home.as_deref()));
        let is_true =
            |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
        // A user without a home has the cache where the program runs.
        let default = || home.clone().unwrap_or_default().join(".cache");
        let hugging_face = path("HF_HOME")
            .unwrap_or_else(|| path("XDG_CACHE_HOME").unwrap_or_else(default).join("huggingface"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| Self::ENDPOINT.to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| hugging_face.join("hub")),
            token_file: path("HF_TOKEN_PATH").unwrap_or_else(|| hugging_face.join("token")),
            token_of_environment: text("HF_TOKEN")
                .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
                .and_then(|text| Token::new(&text)),
            offline: text("HF_HUB_OFFLINE")
                .or_else(|| text("TRANSFORMERS_OFFLINE"))
                .is_some_and(is_true),
        }
    }

    /// The token from the environment or the token file.
    pub fn token(&self) -> Option<Token> {
        self.token_of_environment
            .clone()
            .or_else(|| Token::new(&sd_files::read_text_at_most(&self.token_file, LONGEST_TOKEN).ok()?))
    }
}

impl Token {
    /// Parses a token, ignoring white space around it. A token consists of visible ASCII characters, because
    /// an HTTP header carries it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_token = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_graphic());
        is_token.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Settings {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Settings::read(variable, Some("/home/me".into()))
    }

    #[test]
    fn the_cache_is_where_the_python_tools_have_it() {
        type Case = (
            &'static [(&'static str, &'static str)],
            &'static str,
            &'static str,
        );
        let cases: [Case; 8] = [
            (
                &[],
                "/home/me/.cache/huggingface/hub",
                "/home/me/.cache/huggingface/token",
            ),
            (
                &[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "")],
                "/x/huggingface/hub",
                "/x/huggingface/token",
            ),
            (
                &[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")],
                "/h/hub",
                "/h/token",
            ),
            (&[("HF_HOME", "~/h")], "/home/me/h/hub", "/home/me/h/token"),
            // What Python 3.12 makes of them by expandvars(expanduser(…)).
            (
                &[("HF_HOME", "~/$A/${B}x$NONE/${NONE}$"), ("A", "a"), ("B", "/b")],
                "/home/me/a//bx$NONE/${NONE}$/hub",
                "/home/me/a//bx$NONE/${NONE}$/token",
            ),
            (
                &[
                    ("HF_HUB_CACHE", "$A-b"),
                    ("HF_TOKEN_PATH", "$A/~/$1"),
                    ("A", "~/x"),
                ],
                "~/x-b",
                "~/x/~/$1",
            ),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c", "/h/token"),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/c"), ("HF_TOKEN_PATH", "/t")],
                "/c",
                "/t",
            ),
        ];
        for (variables, cache, token) in cases {
            let settings = read(variables);
            assert_eq!(settings.cache, PathBuf::from(cache), "{variables:?}");
            assert_eq!(settings.token_file, PathBuf::from(token), "{variables:?}");
        }
    }

    #[test]
    fn offline_is_said_in_several_words() {
        for (value, offline) in [
            ("1", true),
            ("yes", true),
            ("True", true),
            ("ON", true),
            ("0", false),
        ] {
            assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
            assert_eq!(
                read(&[("TRANSFORMERS_OFFLINE", value)]).offline,
                offline,
                "{value}"
            );
        }
        assert!(!read(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert_eq!(read(&[]).endpoint, "https://huggingface.co");
        assert_eq!(
            read(&[("HF_ENDPOINT", "http://mirror/")]).endpoint,
            "http://mirror"
        );
    }

    #[test]
    fn a_token_is_of_visible_letters_and_not_shown() {
        let settings = read(&[("HF_TOKEN", " hf_secret\n")]);
        assert_eq!(settings.token(), Token::new("hf_secret"));
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!(Token::new(" \n"), None);
        assert_eq!(Token::new("hf_a\r\nX-Evil: 1"), None);
    }
}
