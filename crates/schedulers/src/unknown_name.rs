//! How names of samplers and schedules are compared, and the error for a name that is not known.

/// A text that names no sampler, or no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}; there are {}", known.join(", "))]
pub struct UnknownName {
    /// What was looked for: a sampler or a schedule.
    pub what: &'static str,
    /// The name that was given.
    pub given: String,
    /// The names that exist.
    pub known: Vec<String>,
}

/// `name` without the differences in spelling: lower case, `+` written as `p`, no spaces, hyphens,
/// underscores and full stops.
pub(crate) fn normalized(name: &str) -> String {
    let letters = name.trim().to_lowercase().replace('+', "p");
    letters
        .chars()
        .filter(|letter| !matches!(letter, ' ' | '_' | '-' | '.'))
        .collect()
}
