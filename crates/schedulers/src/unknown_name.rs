//! Names of samplers and schedules: how they are compared, parsed and written, and the error for an unknown
//! name.

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

/// Implements the conversions of `$kind` from and to text. The type has `ALL` with its values, `name` for the
/// name that is written, and `is_called` for the names, after [`normalized`], that are parsed. `$what` stands
/// for the type in errors.
macro_rules! named {
    ($kind:ident, $what:literal) => {
        impl std::fmt::Display for $kind {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl std::str::FromStr for $kind {
            type Err = $crate::UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let name = $crate::unknown_name::normalized(text);
                let mut kinds = Self::ALL.into_iter();
                kinds
                    .find(|kind| kind.is_called(&name))
                    .ok_or_else(|| $crate::UnknownName {
                        what: $what,
                        given: text.to_owned(),
                        known: Self::ALL.map(|kind| kind.name().to_owned()).to_vec(),
                    })
            }
        }

        impl From<$kind> for String {
            fn from(kind: $kind) -> Self {
                kind.name().to_owned()
            }
        }

        impl TryFrom<String> for $kind {
            type Error = $crate::UnknownName;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    };
}

pub(crate) use named;
