//! HTTP requests: which host receives the token, how redirects are followed, and what a response means.

use std::io;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::retry::Failure;
use crate::settings::Token;
use crate::stoppable::unless_stopped;
use crate::{Error, RepositoryId};

/// An HTTP client for the hub and the hosts that the hub redirects to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    limits: Limits,
    endpoint: String,
    token: Option<Token>,
}

/// Time limits of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The limit from the first byte of the request to the response headers.
    pub(crate) headers: Duration,
    /// The limit for the body of a response that is read whole.
    pub(crate) text: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(30),
            text: Duration::from_secs(60),
        }
    }
}

/// The resource of a request, as errors name it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a RepositoryId,
    pub(crate) revision: &'a str,
    pub(crate) file: Option<&'a str>,
}

/// The part of a resource that is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The whole body, as text.
    Text,
    /// The body from this byte on.
    From(u64),
    /// This many bytes from the beginning of the body on.
    First(u64),
    /// The headers. A redirect to another host counts as the response.
    Headers,
}

impl Client {
    const LONGEST_CONNECT: Duration = Duration::from_secs(10);
    /// The longest pause between two reads of a body.
    const LONGEST_SILENCE: Duration = Duration::from_secs(15);
    const MOST_REDIRECTS: usize = 10;
    /// The maximum length of a text response. The listing of thousands of files is shorter.
    const LONGEST_TEXT: u64 = 16 << 20;

    pub(crate) fn new(endpoint: &str, token: Option<Token>, limits: Limits) -> Self {
        let agent = Agent::config_builder()
            // What a status means, and who is shown the token after a redirect, is decided here.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Self::LONGEST_CONNECT))
            .timeout_recv_response(Some(limits.headers))
            .timeout_per_read(Some(Self::LONGEST_SILENCE))
            .timeout_per_write(Some(Self::LONGEST_SILENCE))
            .user_agent(concat!("sd-generate/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self {
            agent,
            limits,
            endpoint: endpoint.to_owned(),
            token,
        }
    }

    /// The URL of the hub.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether requests to the hub carry a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The same client with another token.
    pub(crate) fn of(&self, token: &Token) -> Self {
        Self {
            token: Some(token.clone()),
            ..self.clone()
        }
    }

    /// The URL of `path` on the hub, percent-encoded.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}/{}", self.endpoint, percent_encoded(path))
    }

    /// Requests `url` and follows redirects. The response may be an HTTP error, see [`Self::refusal`].
    pub(crate) fn request(
        &self,
        url: &str,
        want: Want,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Response<Body>, Failure> {
        let (client, url) = (self.clone(), url.to_owned());
        unless_stopped(is_stopped, move || client.ask_and_wait(&url, want))?
    }

    fn ask_and_wait(&self, url: &str, want: Want) -> Result<Response<Body>, Failure> {
        let mut at: Uri = url.parse().map_err(|_| bad_reply(url, "it is no address"))?;
        for _ in 0..=Self::MOST_REDIRECTS {
            let response = self.ask_once(&at, want)?;
            let status = response.status();
            if let Some(failure) = passing(&at, status, response.headers()) {
                return Err(failure);
            }
            let to = response
                .headers()
                .get("location")
                .filter(|_| status.is_redirection());
            let Some(to) = to else {
                return Ok(response);
            };
            let to = to.to_str().ok().and_then(|to| redirected(&at, to));
            let to = to.ok_or_else(|| bad_reply(url, "its redirect leads nowhere"))?;
            if want == Want::Headers && !is_same_place(&at, &to) {
                return Ok(response);
            }
            at = to;
        }
        Err(bad_reply(url, "it redirects without end").into())
    }

    fn ask_once(&self, at: &Uri, want: Want) -> Result<Response<Body>, Failure> {
        let mut request = match want {
            Want::Headers => self.agent.head(at),
            Want::From(_) | Want::First(_) => self.agent.get(at),
            Want::Text => {
                let request = self.agent.get(at).config();
                request.timeout_recv_body(Some(self.limits.text)).build()
            }
        };
        if let Want::From(first @ 1..) = want {
            request = request.header("range", format!("bytes={first}-"));
        }
        if let Want::First(bytes @ 1..) = want {
            request = request.header("range", format!("bytes=0-{}", bytes - 1));
        }
        let hub: Option<Uri> = self.endpoint.parse().ok();
        // The host of the hub's large files must not learn the token.
        if let Some(token) = self
            .token
            .as_ref()
            .filter(|_| hub.is_some_and(|hub| is_same_place(&hub, at)))
        {
            request = request.header("authorization", format!("Bearer {}", token.as_str()));
        }
        request.call().map_err(|error| failure(at, &error))
    }

    /// The error for an unsuccessful response to the request of `subject` at `url`, by status and headers.
    pub(crate) fn refusal(&self, url: &str, response: &Response<Body>, subject: Subject<'_>) -> Error {
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let id = subject.id.clone();
        let refused = message.as_deref() == Some("Invalid credentials in Authorization header");
        match (response.status(), code.as_deref(), subject.file) {
            (StatusCode::UNAUTHORIZED, None, _) if refused => Error::TokenRefused {
                endpoint: self.endpoint.clone(),
            },
            (_, Some("GatedRepo"), _) => Error::Gated {
                page: format!("{}/{id}", self.endpoint),
                id,
                has_token: self.has_token(),
            },
            (_, Some("RevisionNotFound"), _) => Error::NoRevision {
                id,
                revision: subject.revision.to_owned(),
            },
            (StatusCode::NOT_FOUND, None | Some("EntryNotFound"), Some(file)) => Error::NoFile {
                id,
                file: file.to_owned(),
            },
            // The hub does not tell what is missing from what one may not know of.
            (_, Some("RepoNotFound"), _) | (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND, _, _) => {
                Error::NoRepository {
                    id,
                    endpoint: self.endpoint.clone(),
                    has_token: self.has_token(),
                }
            }
            (StatusCode::FORBIDDEN, _, _) => Error::Forbidden {
                what: id.to_string(),
                reason: message,
            },
            (status, _, _) => bad_reply(url, &format!("its status is {status}")),
        }
    }

    /// Reads the body of a response from `url`.
    pub(crate) fn text(
        url: &str,
        response: Response<Body>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Failure> {
        let mut body = response.into_body();
        let text = unless_stopped(is_stopped, move || {
            body.with_config().limit(Self::LONGEST_TEXT).read_to_vec()
        })?;
        text.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => bad_reply(url, "it is too long").into(),
            other => interrupted(url, &other.to_string()),
        })
    }
}

/// The error for a response from `url` that cannot be used.
pub(crate) fn bad_reply(url: &str, reason: &str) -> Error {
    Error::BadReply {
        url: url.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The transient failure of a response from `url` that ended early.
pub(crate) fn interrupted(url: &str, reason: &str) -> Failure {
    Failure::Transient {
        url: url.to_owned(),
        reason: reason.to_owned(),
        after: None,
    }
}

/// The transient failure that a response with `status` stands for, if it stands for one.
fn passing(at: &Uri, status: StatusCode, headers: &HeaderMap) -> Option<Failure> {
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
    let after = headers.get("retry-after").and_then(|after| after.to_str().ok());
    passes.then(|| Failure::Transient {
        url: shown(at),
        reason: format!("its status is {status}"),
        after: after
            .and_then(|seconds| seconds.trim().parse().ok())
            .map(Duration::from_secs),
    })
}

/// The failure of a request that got no response.
fn failure(at: &Uri, error: &ureq::Error) -> Failure {
    let nowhere = |reason: String| {
        Failure::Permanent(Error::NoNetwork {
            host: at.host().unwrap_or_default().to_owned(),
            reason,
        })
    };
    match error {
        ureq::Error::HostNotFound => nowhere("its name is not known here".to_owned()),
        ureq::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
            ) =>
        {
            nowhere(source.to_string())
        }
        // Some systems say of a network that is down only that there is no such name.
        ureq::Error::Io(source) if source.to_string().contains("lookup address") => {
            nowhere(source.to_string())
        }
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => {
            interrupted(&shown(at), &error.to_string())
        }
        other => nowhere(other.to_string()),
    }
}

/// A URL as messages show it, without its query, which may hold a signature.
fn shown(at: &Uri) -> String {
    let (scheme, authority) = origin(at);
    format!("{scheme}://{authority}{}", at.path())
}

/// The scheme and the host with its port.
fn origin(at: &Uri) -> (String, String) {
    let scheme = at.scheme_str().unwrap_or("https").to_ascii_lowercase();
    let host = at.host().unwrap_or_default().to_ascii_lowercase();
    let authority = match (at.port_u16(), scheme.as_str()) {
        (None, _) | (Some(443), "https") | (Some(80), "http") => host,
        (Some(port), _) => format!("{host}:{port}"),
    };
    (scheme, authority)
}

/// Whether `one` and `other` have the same origin.
fn is_same_place(one: &Uri, other: &Uri) -> bool {
    origin(one) == origin(other)
}

/// The URL that the redirect `to` leads to from `at`. A redirect from HTTPS to another scheme is refused.
fn redirected(at: &Uri, to: &str) -> Option<Uri> {
    let (scheme, authority) = origin(at);
    let full = if to.contains("://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let (folder, _) = at.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{folder}/{to}")
    };
    let to: Uri = full.parse().ok()?;
    let allowed: &[&str] = match scheme.as_str() {
        "https" => &["https"],
        _ => &["http", "https"],
    };
    (to.host().is_some() && allowed.contains(&to.scheme_str()?)).then_some(to)
}

/// `path` with its special characters percent-encoded.
fn percent_encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_and_never_from_https_to_http() {
        let to = |at: &str, to: &str| redirected(&at.parse().unwrap(), to).map(|to| to.to_string());
        let at = "https://hub.co/a/b?x=1";
        assert_eq!(to(at, "/c/d?e"), Some("https://hub.co/c/d?e".to_owned()));
        assert_eq!(to(at, "c"), Some("https://hub.co/a/c".to_owned()));
        assert_eq!(to(at, "//cdn.co/c"), Some("https://cdn.co/c".to_owned()));
        assert_eq!(to(at, "https://cdn.co/c"), Some("https://cdn.co/c".to_owned()));
        assert_eq!(to(at, "http://hub.co/c"), None);
        assert_eq!(to(at, "file:///etc/passwd"), None);
        assert_eq!(
            to("http://127.0.0.1:81/a", "/c"),
            Some("http://127.0.0.1:81/c".to_owned())
        );
    }

    #[test]
    fn a_response_that_trickles_in_times_out() {
        use std::io::{Read, Write};

        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            // First the headers come in drops, then the text.
            for at_once in [9, HEAD.len()] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1000]);
                let (first, rest) = HEAD.split_at(at_once);
                let _ = stream.write_all(first);
                for byte in rest.iter().chain(&[b' '; 1000]) {
                    std::thread::sleep(Duration::from_millis(100));
                    if stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                }
            }
        });
        let limit = Duration::from_millis(400);
        let client = Client::new(
            &url,
            None,
            Limits {
                headers: limit,
                text: limit,
            },
        );
        let begun = std::time::Instant::now();
        let headers = client.request(&url, Want::Text, &|| false);
        assert!(matches!(headers, Err(Failure::Transient { .. })));
        let answer = client.request(&url, Want::Text, &|| false).unwrap();
        let text = Client::text(&url, answer, &|| false);
        assert!(matches!(text, Err(Failure::Transient { .. })));
        assert!(begun.elapsed() < 10 * limit, "{:?}", begun.elapsed());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| is_same_place(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("https://hub.co/a", "https://HUB.co:443/b"));
        assert!(!same("https://hub.co/a", "https://hub.co:444/a"));
        assert!(!same("https://hub.co/a", "http://hub.co/a"));
        assert!(!same("https://hub.co/a", "https://hub.co.evil/a"));
        assert_eq!(percent_encoded("a b/ü#1.pth"), "a%20b/%C3%BC%231.pth");
    }
}
