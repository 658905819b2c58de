//! The `parameters` text of a PNG.

use std::io::Cursor;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::super::body::{self, Body, blocking};
use super::super::error::{ApiError, json_response};
use super::shaped;
use crate::job::decoded;

/// The most bytes that the text of a PNG may take.
const MOST: usize = 4 << 20;

/// A PNG, in base64.
#[derive(Deserialize)]
struct PngInfo {
    image: String,
}

pub(super) async fn png_info(body: Body) -> Response {
    let answer = async {
        let sent: PngInfo = body::json(body).await?;
        let text = blocking(move || {
            let bytes = decoded(&sent.image).ok_or_else(|| ApiError::invalid("image", "it is no base64"))?;
            Ok::<_, ApiError>(text_of(&bytes).unwrap_or_default())
        })
        .await?;
        let body = json!({ "info": text, "items": { "parameters": text }, "parameters": {} });
        Ok(json_response(StatusCode::OK, &body))
    };
    shaped(answer.await)
}

/// The `parameters` text of a PNG, if it has one before its pixels.
pub(super) fn text_of(bytes: &[u8]) -> Option<String> {
    let decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: MOST });
    let reader = decoder.read_info().ok()?;
    let info = reader.info();
    let international = info
        .utf8_text
        .iter()
        .filter(|chunk| chunk.keyword == "parameters");
    let plain = info.uncompressed_latin1_text.iter();
    let plain = plain
        .filter(|chunk| chunk.keyword == "parameters")
        .map(|chunk| chunk.text.clone());
    international
        .filter_map(|chunk| chunk.get_text().ok())
        .chain(plain)
        .next()
}
