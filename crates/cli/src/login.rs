//! `generate login`: checks a token of the hub and stores it for later runs.

use std::io::{IsTerminal, stdin};

use sd_hub::{Hub, Settings, Token};
use serde_json::json;

use crate::arguments::LoginArguments;
use crate::hint::Failure;
use crate::{signals, terminal};

/// Checks the token with the hub, unless HF_HUB_OFFLINE is set, and stores it.
///
/// # Errors
/// There is no token, the hub refuses it, or it cannot be stored.
pub(crate) fn run(arguments: &LoginArguments) -> Result<(), Failure> {
    let hub = Hub::new(Settings::of_user());
    let settings = hub.settings();
    let text = match &arguments.token {
        Some(token) => token.clone(),
        None => read_token(&settings.endpoint)?,
    };
    let Some(token) = Token::new(&text) else {
        return Err(Failure::no_token(&settings.endpoint));
    };
    let name = if settings.offline {
        None
    } else {
        let interrupt = signals::interrupt()?;
        Some(hub.account_of(&token, &|| interrupt.is_raised())?)
    };
    hub.keep_token(&token)?;
    let file = &settings.token_file;
    let is_overridden = settings
        .token_of_environment
        .as_ref()
        .is_some_and(|other| *other != token);
    if arguments.json {
        let event = json!({ "event": "login", "name": name, "file": file, "overridden": is_overridden });
        terminal::print_json(event);
    } else {
        let printer = arguments.printer();
        let who = match name {
            Some(name) => format!("Logged in as {name}"),
            None => "Not checked, since HF_HUB_OFFLINE is set".to_owned(),
        };
        printer.note(&format!("{who}; the token is in {}.", file.display()));
        if is_overridden {
            printer.warn("HF_TOKEN holds another token and overrides it");
        }
    }
    Ok(())
}

/// Reads a token from the terminal without showing it, or else from stdin.
fn read_token(endpoint: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if stdin().is_terminal() {
        let prompt = format!("Token (from {endpoint}/settings/tokens), not shown: ");
        rpassword::prompt_password(prompt).map(|token| text = token)
    } else {
        stdin().read_line(&mut text).map(|_| ())
    };
    match read {
        Ok(()) => Ok(text),
        Err(error) => Err(Failure::other(format!("cannot read the token: {error}"))),
    }
}
