//! The `parameters` text of an image.

use axum::http::StatusCode;
use axum::response::Response;
use sd_catalog::parameters_text;
use serde::Deserialize;
use serde_json::json;

use super::super::body::{self, Body, blocking};
use super::super::error::{ApiError, json_response};
use super::shaped;
use crate::job::decoded;

/// An image, in base64.
#[derive(Deserialize)]
struct PngInfo {
    image: String,
}

pub(super) async fn png_info(body: Body) -> Response {
    let answer = async {
        let sent: PngInfo = body::json(body).await?;
        let text = blocking(move || {
            let bytes = decoded(&sent.image).ok_or_else(|| ApiError::invalid("image", "it is no base64"))?;
            Ok::<_, ApiError>(parameters_text(&bytes).unwrap_or_default())
        })
        .await?;
        let body = json!({ "info": text, "items": { "parameters": text }, "parameters": {} });
        Ok(json_response(StatusCode::OK, &body))
    };
    shaped(answer.await)
}
