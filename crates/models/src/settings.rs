//! Checks of configuration settings of which only some values are supported. Others are refused by name.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// A setting and the only supported value, which is the default of its class.
pub(crate) type Known = (&'static str, Value);

/// Refuses settings of `found` that differ from `known`. Settings that are left out have the known value.
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

/// Whether two values are equivalent for diffusers: numbers are equal in any notation, null equals false, a
/// list with the same value for all levels equals that value, and swish is another name of silu.
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
