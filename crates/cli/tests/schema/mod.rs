//! Holds what the program writes as JSON to `docs/json.schema.json`.
//!
//! It knows the keywords that the schema uses, and is stricter than other validators: what the schema does not describe
//! is an error, so that nothing is written that is not documented.

use std::sync::LazyLock;

use serde_json::{Map, Value};

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../docs/json.schema.json")).unwrap());

/// Asserts that `event` is one of the events.
#[track_caller]
pub fn check_event(event: &Value) {
    let name = event["event"]
        .as_str()
        .unwrap_or_else(|| panic!("no event: {event}"));
    check(event, &format!("event_{name}"));
}

/// Asserts that `sidecar` is the content of a file beside an image.
#[track_caller]
pub fn check_sidecar(sidecar: &Value) {
    check(sidecar, "sidecar");
}

/// The names of the events.
pub fn events() -> Vec<String> {
    let of = |reference: &Value| {
        let name = reference["$ref"].as_str().unwrap();
        name.strip_prefix("#/$defs/event_").unwrap().to_owned()
    };
    SCHEMA["oneOf"].as_array().unwrap().iter().map(of).collect()
}

#[track_caller]
fn check(value: &Value, definition: &str) {
    let schema = &SCHEMA["$defs"][definition];
    assert!(
        schema.is_object(),
        "docs/json.schema.json has no {definition} for {value}"
    );
    if let Err(reason) = conforms(value, schema) {
        panic!("{definition}{reason}, in {value}");
    }
}

/// Where `value` is not as `schema` says, and why.
fn conforms(value: &Value, schema: &Value) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "description" | "contentEncoding" | "contentMediaType" | "required" | "additionalProperties" => {}
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                conforms(value, SCHEMA.pointer(pointer).unwrap())?;
            }
            "type" => {
                let types = rule
                    .as_array()
                    .map_or_else(|| std::slice::from_ref(rule), Vec::as_slice);
                if !types.iter().any(|name| is_of(value, name.as_str().unwrap())) {
                    return Err(format!(" is {value} and not {rule}"));
                }
            }
            "const" if value != rule => return Err(format!(" is {value} and not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => {
                return Err(format!(" is {value} and none of {rule}"));
            }
            "const" | "enum" => {}
            "minimum" => {
                if value
                    .as_f64()
                    .is_some_and(|number| number < rule.as_f64().unwrap())
                {
                    return Err(format!(" is {value}, less than {rule}"));
                }
            }
            "anyOf" => {
                let fits = |schema: &Value| conforms(value, schema);
                let outcomes: Vec<_> = rule.as_array().unwrap().iter().map(fits).collect();
                if outcomes.iter().all(Result::is_err) {
                    return Err(format!(": {outcomes:?}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    conforms(item, rule).map_err(|reason| format!("[{index}]{reason}"))?;
                }
            }
            "properties" => {
                if let Some(object) = value.as_object() {
                    has_properties(object, rule.as_object().unwrap(), schema)?;
                }
            }
            other => panic!("the keyword {other} is not known here"),
        }
    }
    Ok(())
}

/// Whether every property of `object` is described and conforms, and none that is required is missing.
fn has_properties(
    object: &Map<String, Value>,
    properties: &Map<String, Value>,
    schema: &Value,
) -> Result<(), String> {
    for (name, value) in object {
        match properties.get(name) {
            Some(rule) => conforms(value, rule).map_err(|reason| format!(".{name}{reason}"))?,
            None => return Err(format!(".{name} is not described")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return Err(format!(" has no {name}"));
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known here"),
    }
}
