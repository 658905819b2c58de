//! Checks of the token ids that text encoders get, a row for each text.

use crate::{Error, Result};

/// The common length of all `texts`. A `network` takes at most `longest` tokens, if it has a table of
/// positions, and token ids below `vocabulary`.
///
/// # Errors
/// The lengths differ, or a length or a token id is out of range.
pub(crate) fn common_length(
    texts: &[Vec<u32>],
    network: &'static str,
    longest: Option<usize>,
    vocabulary: usize,
) -> Result<usize> {
    let refuse = |found: String, wanted: String| {
        Err(Error::Input {
            network,
            found,
            wanted,
        })
    };
    let tokens = texts.first().map_or(0, Vec::len);
    let is_too_long = longest.is_some_and(|longest| tokens > longest);
    if tokens == 0 || is_too_long || texts.iter().any(|text| text.len() != tokens) {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let range = longest.map_or(String::new(), |longest| format!(" from 1 to {longest}"));
        return refuse(
            format!("texts of {lengths:?} tokens"),
            format!("texts of one length{range}"),
        );
    }
    match texts.iter().flatten().find(|&&id| id as usize >= vocabulary) {
        Some(id) => refuse(format!("token {id}"), format!("tokens below {vocabulary}")),
        None => Ok(tokens),
    }
}
