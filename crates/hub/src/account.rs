//! The access token of the user: checked with the hub and saved where the Python tools look for it.

use std::fs;
use std::io::Write;

use serde::Deserialize;
use ureq::http::StatusCode;

use crate::client::{Client, Want, bad_reply};
use crate::retry::with_retries;
use crate::{Error, Hub, Result, Token};

/// The fields of the hub's reply that are used.
#[derive(Deserialize)]
struct Account {
    name: String,
}

impl Hub {
    /// The name of the account that `token` belongs to.
    ///
    /// # Errors
    /// The program is offline, the hub cannot be reached, or the hub rejects the token.
    pub fn account_of(&self, token: &Token, is_stopped: &dyn Fn() -> bool) -> Result<String> {
        self.check_online("the account of the token")?;
        let client = self.client.of(token);
        let url = client.address("api/whoami-v2");
        with_retries(is_stopped, || {
            let response = client.request(&url, Want::Text, is_stopped)?;
            match response.status() {
                status if status.is_success() => {}
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let endpoint = client.endpoint().to_owned();
                    return Err(Error::TokenRefused { endpoint }.into());
                }
                status => return Err(bad_reply(&url, &format!("its status is {status}")).into()),
            }
            let account: Account = serde_json::from_slice(&Client::text(&url, response, is_stopped)?)
                .map_err(|error| bad_reply(&url, &error.to_string()))?;
            Ok(account.name)
        })
    }

    /// Saves `token` for later runs in a file that only the user can read. It replaces a saved one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_token(&self, token: &Token) -> Result<()> {
        let file = &self.settings.token_file;
        let folder = file.parent().unwrap_or(file);
        fs::create_dir_all(folder).map_err(Error::cache(folder))?;
        let failed = || Error::cache(file);
        // A temporary file has the permissions of a private file from its creation.
        let mut written = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
        written.write_all(token.as_str().as_bytes()).map_err(failed())?;
        written.as_file().sync_all().map_err(failed())?;
        written.persist(file).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}
