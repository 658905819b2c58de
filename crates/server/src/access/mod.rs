//! Who may connect: keys, the names of this machine, the pages of other hosts, and how often.

mod hosts;
mod keys;
mod rate;

pub(crate) use hosts::{is_known_host, is_same_origin};
pub use keys::Keys;
pub(crate) use keys::User;
pub(crate) use rate::Rates;
