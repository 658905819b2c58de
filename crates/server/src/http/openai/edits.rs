//! `/v1/images/edits`: a form with an image, a mask and the fields of generations.
//!
//! A mask of OpenAI's is transparent where the image is drawn anew; one without transparency is taken as this program
//! takes masks, white where it is.

use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::{Multipart, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, body::Bytes};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::super::Shared;
use super::super::body::{blocking, unread};
use super::super::error::{Answer, ApiError};
use super::fields::Task;
use super::{answer, fields, shaped};
use crate::access::User;

pub(super) async fn edits(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Response {
    let answer = async {
        let fields = fields_of(form).await?;
        answer(server, user, &headers, Task::Edit, fields).await
    };
    shaped(answer.await)
}

async fn fields_of(form: Result<Multipart, MultipartRejection>) -> Answer<Map<String, Value>> {
    let mut form = form.map_err(|rejection| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", rejection.body_text())
    })?;
    let mut fields = Map::new();
    while let Some(field) = form.next_field().await.map_err(unreadable)? {
        let name = field.name().unwrap_or_default().trim_end_matches("[]").to_owned();
        let bytes = field.bytes().await.map_err(unreadable)?;
        match name.as_str() {
            "image" if fields.contains_key("init_image") => {
                return Err(ApiError::invalid("image", "edits take one image here"));
            }
            "image" => drop(fields.insert("init_image".to_owned(), Value::from(STANDARD.encode(&bytes)))),
            "mask" => {
                let mask = blocking(move || Ok::<_, ApiError>(STANDARD.encode(mask(&bytes)))).await?;
                fields.insert("mask".to_owned(), Value::from(mask));
            }
            "init_image" => return Err(ApiError::invalid(name, "the image is sent as `image`")),
            "" => {}
            _ => {
                let text = String::from_utf8(bytes.to_vec())
                    .map_err(|_| ApiError::invalid(name.clone(), format!("{name}: it is no text")))?;
                let value = fields::of_form(&name, text);
                fields.insert(name, value);
            }
        }
    }
    if !fields.contains_key("init_image") {
        return Err(ApiError::invalid("image", "there is no image to edit"));
    }
    Ok(fields)
}

fn unreadable(error: MultipartError) -> ApiError {
    match error.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(status, "too_large", error.body_text()),
        _ => unread(&error),
    }
}

/// The mask with white in place of what is transparent, and black in place of what is opaque. A file without
/// transparency stays as it is.
fn mask(bytes: &Bytes) -> Vec<u8> {
    opaque(bytes).unwrap_or_else(|| bytes.to_vec())
}

/// The most bytes of a decoded mask.
const MOST: usize = 256 << 20;

fn opaque(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(bytes), png::Limits { bytes: MOST });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let mut pixels = vec![0; reader.output_buffer_size().filter(|size| *size <= MOST)?];
    let frame = reader.next_frame(&mut pixels).ok()?;
    let channels = match frame.color_type {
        png::ColorType::Rgba => 4,
        png::ColorType::GrayscaleAlpha => 2,
        _ => return None,
    };
    let white: Vec<u8> = pixels[..frame.buffer_size()]
        .chunks_exact(channels)
        .map(|pixel| if pixel[channels - 1] < 128 { 255 } else { 0 })
        .collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, frame.width, frame.height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&white).ok()?;
    writer.finish().ok()?;
    Some(file)
}
