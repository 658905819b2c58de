//! [`ApiError`]: an error as clients are told, in the shape of the interface that they use.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Error;
use crate::job::Invalid;
use crate::prepare::Unusable;
use crate::submit::Refused;

/// How keys are sent. A browser that reads `Basic` asks for a name and a password itself, in place of the page.
const BEARER: &str = "Bearer realm=\"sd-generate\"";
const BASIC: &str = "Basic realm=\"sd-generate\"";

/// An error as clients are told.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// One word for programs.
    pub(crate) code: &'static str,
    /// A sentence for people.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<Box<str>>,
    /// The field that is wrong.
    pub(crate) field: Option<String>,
    /// The least budget with which the job would run, in bytes.
    pub(crate) smallest_budget: Option<u64>,
    /// After how many seconds to try again.
    pub(crate) retry_after: Option<u64>,
}

/// The result of a handler.
pub(crate) type Answer<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: None,
            field: None,
            smallest_budget: None,
            retry_after: None,
        }
    }

    /// Adds what to do about it.
    pub(crate) fn advising(self, hint: impl Into<Box<str>>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The message with the hint, for interfaces that have no place for hints.
    fn whole_message(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }

    /// A request that cannot be understood.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
        }
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}"),
        )
    }

    /// In the shape of OpenAI's interface.
    pub(crate) fn as_openai(&self) -> Response {
        self.response(json!({ "error": self.openai_object() }), BEARER)
    }

    /// The error itself, in the shape of OpenAI's interface.
    pub(crate) fn openai_object(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 | 403 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "message": self.whole_message(), "type": kind, "param": self.field, "code": self.code })
    }

    /// In the shape of stable-diffusion-webui's interface.
    pub(crate) fn as_webui(&self) -> Response {
        let message = match &self.field {
            Some(field) if !self.message.starts_with(field.as_str()) => {
                format!("{field}: {}", self.whole_message())
            }
            _ => self.whole_message(),
        };
        let body = json!({ "error": self.code, "detail": message, "body": "", "errors": message });
        self.response(body, BASIC)
    }

    /// In the shape of the interface that `path` belongs to.
    pub(crate) fn at(&self, path: &str) -> Response {
        if path.starts_with("/v1/") {
            self.as_openai()
        } else if path.starts_with("/sdapi/") {
            self.as_webui()
        } else {
            self.own()
        }
    }

    fn own(&self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(hint) = &self.hint {
            error["hint"] = json!(hint);
        }
        if let Some(field) = &self.field {
            error["field"] = json!(field);
        }
        if let Some(bytes) = self.smallest_budget {
            error["smallest_budget"] = json!(bytes);
        }
        self.response(json!({ "error": error }), BEARER)
    }

    /// The response. One without a key says that it is sent as `scheme` says.
    fn response(&self, body: Value, scheme: &'static str) -> Response {
        let mut response = json_response(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static(scheme);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// A response with a JSON body.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.own()
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.field, format!("{}: {}", invalid.field, invalid.reason))
    }
}

impl From<Unusable> for ApiError {
    fn from(unusable: Unusable) -> Self {
        if let Unusable::Invalid(invalid) = &unusable {
            return invalid.clone().into();
        }
        let (message, hint) = (unusable.to_string(), unusable.hint().map(Into::into));
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        let error = match unusable {
            Unusable::Pipeline(
                sd_pipeline::Error::BudgetTooSmall { smallest, .. }
                | sd_pipeline::Error::TooLittleLeft { smallest, .. },
            ) => Self {
                smallest_budget: Some(smallest.0),
                ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, "does_not_fit", message)
            },
            Unusable::Catalog(
                sd_catalog::Error::NothingAt { .. }
                | sd_catalog::Error::NoNetwork { .. }
                | sd_catalog::Error::NotInstalled { .. }
                | sd_catalog::Error::PartlyInstalled { .. }
                | sd_catalog::Error::NoPreset { .. },
            ) => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            Unusable::Catalog(_) | Unusable::Invalid(_) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
            }
            Unusable::Pipeline(_) => Self::new(unprocessable, "cannot_be_generated", message),
        };
        Self { hint, ..error }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unusable(unusable) => (*unusable).into(),
            Refused::TooManyWaiting(count) => Self {
                retry_after: Some(10),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "queue_full",
                    format!("{count} jobs of this user wait already"),
                )
                .advising("submit it again once some of them have ended")
            },
            Refused::Storage(error) => error.into(),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let (status, code, hint) = match error.is_of_storage() {
            true => (
                StatusCode::INSUFFICIENT_STORAGE,
                "storage",
                Some("the disk of the server needs space and must be writable".into()),
            ),
            false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", None),
        };
        Self {
            retry_after: Some(10),
            hint,
            ..Self::new(status, code, error.to_string())
        }
    }
}

/// What there is no route for.
pub(crate) async fn not_found(request: Request) -> Response {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this address",
    )
    .at(request.uri().path())
}

/// A route with another method.
pub(crate) async fn wrong_method(request: Request) -> Response {
    let message = format!("this address does not take {}", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message).at(request.uri().path())
}
