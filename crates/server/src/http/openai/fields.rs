//! From the fields of OpenAI's interface to a request of this program.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::body::from_slice;
use super::super::error::{Answer, ApiError};
use crate::job::JobRequest;

/// Models of OpenAI's service, which clients name unless someone tells them better. They stand for the default here.
const THEIR_MODELS: [&str; 3] = ["dall-e", "gpt-image", "chatgpt-image"];
/// The most partial images of a stream.
const MOST_PARTIAL: u64 = 3;

/// What is done, which names the events of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Generation,
    Edit,
}

/// What a client wants: images, and how they are sent.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) request: JobRequest,
    pub(super) reply: ReplyForm,
}

/// How images are sent.
#[derive(Debug, Clone)]
pub(super) struct ReplyForm {
    /// Whether addresses are sent instead of images.
    pub(super) as_addresses: bool,
    pub(super) streams: bool,
    /// Images of a stream that are not finished.
    pub(super) partial_images: u64,
    pub(super) user: Option<String>,
    /// `png`, `jpeg` or `webp`.
    pub(super) format: String,
    pub(super) task: Task,
    /// The address of this server, which those of images begin with.
    pub(super) address: String,
}

/// What `fields` ask for, where the models `here` can be named.
///
/// # Errors
/// A field is wrong, or asks for what this program cannot do.
pub(super) fn wanted(mut fields: Map<String, Value>, task: Task, here: &[String]) -> Answer<Wanted> {
    if let Some(background) = take::<String>(&mut fields, "background")?
        && background == "transparent"
    {
        return Err(ApiError::invalid(
            "background",
            "images have no transparent background here",
        ));
    }
    let format = take::<String>(&mut fields, "output_format")?.unwrap_or_else(|| "png".to_owned());
    let reply = ReplyForm {
        as_addresses: match take::<String>(&mut fields, "response_format")?.as_deref() {
            None | Some("b64_json") => false,
            Some("url") => true,
            Some(other) => {
                let message = format!("`{other}` is neither url nor b64_json");
                return Err(ApiError::invalid("response_format", message));
            }
        },
        streams: take(&mut fields, "stream")?.unwrap_or(false),
        partial_images: take(&mut fields, "partial_images")?
            .unwrap_or(0)
            .min(MOST_PARTIAL),
        user: take(&mut fields, "user")?,
        format: format.clone(),
        task,
        address: String::new(),
    };
    fields.insert("format".to_owned(), Value::from(format));
    if let Some(compression) = take::<u64>(&mut fields, "output_compression")? {
        fields.insert("jpeg_quality".to_owned(), Value::from(compression.clamp(1, 100)));
    }
    if let Some(size) = fields.get("size").and_then(Value::as_str)
        && size == "auto"
    {
        fields.remove("size");
    }
    let is_theirs = |model: &str| THEIR_MODELS.iter().any(|theirs| model.starts_with(theirs));
    if let Some(model) = fields.get("model").and_then(Value::as_str)
        && is_theirs(model)
        && !here.iter().any(|own| own == model)
    {
        fields.remove("model");
    }
    // OpenAI's styles are others than those of this program.
    if let Some(style) = fields.get("style").and_then(Value::as_str)
        && ["vivid", "natural"].contains(&style)
    {
        fields.remove("style");
    }
    // What this program does not know changes no image: clients send more with each version.
    fields.retain(|name, value| !value.is_null() && JobRequest::FIELDS.contains(&name.as_str()));
    let request = from_slice(Value::from(fields).to_string().as_bytes())?;
    Ok(Wanted { request, reply })
}

/// Removes a field, which may be a text where a form has sent it.
fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Answer<Option<T>> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(&value)
            .map(Some)
            .map_err(|error| ApiError::invalid(name, format!("{name}: {error}"))),
    }
}

/// The value of a field of a form: a number, a truth value, a list or an object where it looks like one, else a text.
pub(super) fn of_form(name: &str, text: String) -> Value {
    let is_text = matches!(
        name,
        "prompt" | "negative_prompt" | "size" | "user" | "model" | "style" | "init_image" | "mask"
    );
    match is_text {
        true => Value::from(text),
        false => serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Answer<Wanted> {
        let Value::Object(fields) = value else {
            panic!("no fields");
        };
        wanted(fields, Task::Generation, &["demo".to_owned()])
    }

    #[test]
    fn what_libraries_send_is_taken() {
        let wanted = of(json!({
            "prompt": "a cat", "model": "gpt-image-1", "n": 2, "size": "auto", "quality": "high", "style": "vivid",
            "moderation": "low", "safety_identifier": "x", "output_format": "jpeg", "output_compression": 80,
            "stream": true, "partial_images": 2, "user": "ann", "background": "opaque", "input_fidelity": null,
            "steps": 4, "lora": ["film:0.5"], "a_field_of_next_year": {},
        }))
        .unwrap();
        let request = wanted.request;
        assert_eq!(
            (request.n, request.steps, request.jpeg_quality),
            (Some(2), Some(4), Some(80))
        );
        assert_eq!((request.model, request.size, request.style), (None, None, None));
        assert_eq!(request.lora, ["film:0.5"]);
        assert!(wanted.reply.streams && wanted.reply.partial_images == 2);
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (fields, field) in [
            (
                json!({ "prompt": "a", "background": "transparent" }),
                "background",
            ),
            (
                json!({ "prompt": "a", "response_format": "gif" }),
                "response_format",
            ),
            (json!({ "prompt": "a", "n": "two" }), "n"),
            (json!({ "prompt": "a", "stream": 1 }), "stream"),
        ] {
            assert_eq!(of(fields).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
