//! Requests that are refused: those that do not fit into the memory, and malformed ones.

use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Server;
use crate::command::Fresh;

#[test]
fn what_does_not_fit_is_refused() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &["--memory", "40MB", "--most-per-minute", "8"]);
    for path in ["/api/plan", "/api/jobs"] {
        let error = server
            .post(path, &json!({ "prompt": "a", "size": "512x512" }))
            .is(413);
        assert_eq!(error["error"]["code"], "does_not_fit");
        assert!(
            error["error"]["smallest_budget"].as_u64() > Some(40_000_000),
            "{error}"
        );
    }
    let error = server
        .post(
            "/v1/images/generations",
            &json!({ "prompt": "a", "size": "512x512" }),
        )
        .is(413);
    assert_eq!(error["error"]["code"], "does_not_fit");
    for _ in 0..5 {
        server.get("/health").is(200);
    }
    let answer = server.get("/health");
    assert_eq!(answer.status, 429);
    assert!(
        answer.headers.to_lowercase().contains("retry-after"),
        "{}",
        answer.headers
    );
}

#[test]
fn malformed_requests_are_refused() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &[]);
    let json_kind = ("Content-Type", "application/json");
    let nested = format!("{{\"prompt\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{\"prompt\":\"a\",\"steps\":1e400}",
        b"{\"prompt\":\"a\",\"steps\":NaN}",
        b"{\"prompt\":\"a\",\"seed\":99999999999999999999999}",
        b"{\"prompt\":\"\xff\xfe\"}",
        b"{\"prompt\":\"a\",\"unknown\":1}",
        b"{\"prompt\":{\"prompt\":1}} trailing",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n",
        nested.as_bytes(),
    ];
    let paths = [
        "/api/jobs",
        "/api/plan",
        "/api/uploads",
        "/api/read-image",
        "/v1/images/generations",
        "/v1/images/edits",
        "/sdapi/v1/txt2img",
        "/sdapi/v1/img2img",
        "/sdapi/v1/png-info",
        "/sdapi/v1/options",
    ];
    for path in paths {
        for body in bodies {
            for headers in [
                &[json_kind][..],
                &[("Content-Type", "multipart/form-data; boundary=x")],
            ] {
                if !path.starts_with("/api/") && body.ends_with(b"\"unknown\":1}") {
                    // Clients of other interfaces send more with each version.
                    continue;
                }
                let answer = server.send("POST", path, headers, body);
                assert!(
                    (400..500).contains(&answer.status),
                    "{path} {:?} {}",
                    String::from_utf8_lossy(body),
                    answer.start()
                );
                assert!(answer.json().is_object(), "{path}: {}", answer.start());
            }
        }
        for method in ["PUT", "PATCH", "DELETE", "BREW"] {
            assert_eq!(server.send(method, path, &[], &[]).status, 405, "{method} {path}");
        }
    }
    for path in [
        "/nothing",
        "/api/jobs/%ff",
        "/api/jobs/x",
        "/v1/nothing",
        "/sdapi/v1/nothing",
        "/api/jobs?limit=x",
        "/v1/models/%ff",
    ] {
        let answer = server.get(path);
        assert!(
            matches!(answer.status, 400 | 404) && answer.json().is_object(),
            "{path}: {}",
            answer.text()
        );
    }
    for bytes in [
        &b"GET / HTTP/9.9\r\n\r\n"[..],
        b"\x00\x01\x02\r\n\r\n",
        b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let answer = String::from_utf8_lossy(&server.exchange(bytes)).into_owned();
        assert!(
            answer.is_empty() || answer.contains(" 400 ") || answer.contains(" 505 "),
            "{answer}"
        );
    }
    assert_eq!(server.get("/api/jobs").is(200)["jobs"], json!([]));
    let start = Instant::now();
    let run = server.stop();
    assert_eq!(run.code, Some(0));
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert!(start.elapsed() < Duration::from_secs(10));
}
