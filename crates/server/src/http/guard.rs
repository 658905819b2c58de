//! What every request passes first: the names of this machine, the pages of other hosts, keys, and how often. And what
//! every response carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::ApiError;
use super::{body, page};
use crate::access::{Rates, User, is_known_host, is_same_origin};

/// What the page may do: everything with this server, nothing with any other.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What requests are checked with.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) server: Shared,
    pub(crate) rates: Arc<Rates>,
}

/// Refuses a request, or passes it on with its [`User`].
pub(crate) async fn check(
    State(guard): State<Guard>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let origin = text(request.headers(), header::ORIGIN).map(str::to_owned);
    let mut response = match guard.user(&request, &path, address) {
        Err(error) => {
            guard.server.totals.refused.fetch_add(1, Ordering::Relaxed);
            error.at(&path)
        }
        // What a browser asks before it sends a request of a page of another host.
        Ok(_) if request.method() == Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        Ok(user) => {
            request.extensions_mut().insert(user);
            next.run(request.map(body::in_time)).await
        }
    };
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if let Some(origin) = origin.filter(|origin| guard.server.options.origins.contains(origin))
        && let Ok(origin) = HeaderValue::from_str(&origin)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let allowed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type",
            ),
        ];
        for (name, value) in allowed {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

impl Guard {
    fn user(&self, request: &Request, path: &str, address: SocketAddr) -> Result<User, ApiError> {
        let options = &self.server.options;
        let forbidden = |message: String| ApiError::new(StatusCode::FORBIDDEN, "forbidden", message);
        let headers = request.headers();
        let host = text(headers, header::HOST)
            .or_else(|| request.uri().host())
            .unwrap_or_default();
        if !is_known_host(host, &options.host_names) {
            return Err(forbidden(
                "this server does not know the name that it is asked for by: --host-name sets one".to_owned(),
            ));
        }
        let origin = headers.get(header::ORIGIN);
        if let Some(origin) = origin
            && !origin
                .to_str()
                .is_ok_and(|origin| is_same_origin(origin, host, &options.origins))
        {
            return Err(forbidden(
                "pages of this origin may not use the server: --origin allows one".to_owned(),
            ));
        }
        // Also those with a wrong key, so that keys cannot be tried out.
        if let Some(most) = options.limits.per_minute
            && let Err(wait) = self.rates.count(address.ip(), most, Instant::now())
        {
            return Err(ApiError {
                retry_after: Some(wait.as_secs() + 1),
                ..ApiError::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too_many_requests",
                    "too many requests in a minute",
                )
            });
        }
        let is_public = page::is_public(path) || request.method() == Method::OPTIONS;
        let user = match options.keys.user(text(headers, header::AUTHORIZATION)) {
            Some(user) => user,
            None if options.keys.are_none() || is_public => User("local".to_owned()),
            None => {
                return Err(ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "unauthorized",
                    "this server needs a key: as a bearer token, or as the password of basic authentication",
                ));
            }
        };
        Ok(user)
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
