//! Settings of a configuration of which only some values are known: any other is refused by its name.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// A setting, and the values of it that a network here can have. The first is its class's default.
pub(crate) type Known = (&'static str, Value);

/// Refuses the settings among `found` that are not as `known` has them. What is left out has the value that
/// is known.
///
/// # Errors
/// A setting of the `network` has another value.
pub(crate) fn refuse_others(
    network: &'static str,
    found: &Map<String, Value>,
    known: &[Known],
) -> Result<()> {
    for (name, wanted) in known {
        if let Some(value) = found.get(*name)
            && !is_same(value, wanted)
        {
            return Err(Error::Config {
                network,
                reason: format!("{name} is {value}, only {wanted} is known"),
            });
        }
    }
    Ok(())
}

/// Whether two values mean the same to Python, as far as settings go: numbers are equal however they are
/// written, null is no more than false, a list of the same for all levels is that, and swish is another name
/// of silu.
fn is_same(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Array(values), _) if !wanted.is_array() => values.iter().all(|value| is_same(value, wanted)),
        (Value::Null, Value::Bool(false)) => true,
        (Value::String(name), Value::String(wanted)) if wanted == "silu" => name == "silu" || name == "swish",
        _ => match (value.as_f64(), wanted.as_f64()) {
            (Some(value), Some(wanted)) => value == wanted,
            _ => value == wanted,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_means_the_same_is_the_same() {
        for (value, wanted) in [
            (json!(1), json!(1.0)),
            (json!(null), json!(false)),
            (json!(null), json!(null)),
            (json!([false, false]), json!(false)),
            (json!("swish"), json!("silu")),
        ] {
            assert!(is_same(&value, &wanted), "{value} {wanted}");
        }
        for (value, wanted) in [
            (json!(null), json!(true)),
            (json!(null), json!(1)),
            (json!([true, false]), json!(false)),
            (json!("gelu"), json!("silu")),
            (json!(0), json!(null)),
        ] {
            assert!(!is_same(&value, &wanted), "{value} {wanted}");
        }
    }
}
