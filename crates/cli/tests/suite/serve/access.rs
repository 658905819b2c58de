//! Who may use a server: keys, hosts, pages of other hosts, and what requests may name.

use std::fs;

use serde_json::json;

use super::client::{Server, small};
use super::pixel;
use crate::command::{Fresh, Run};

const KEY: &str = "a-key-of-the-tests";

#[test]
fn only_clients_with_a_key_and_pages_of_this_host_may_use_it() {
    let fresh = Fresh::new();
    let keys = fresh.path().join("keys");
    fs::write(&keys, format!("ann:{KEY}\nben:another-key-of-the-tests\n")).unwrap();
    let arguments = [
        "--token-file",
        keys.to_str().unwrap(),
        "--origin",
        "https://studio.example",
    ];
    let mut server = Server::start(&fresh, &arguments);
    for path in ["/", "/page.js", "/health", "/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in [
        "/api/jobs",
        "/api/models",
        "/api/events",
        "/metrics",
        "/v1/models",
        "/sdapi/v1/options",
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 401, "{path}");
        // A browser that reads `Basic` would ask for a password in place of the page.
        let scheme = if path.starts_with("/sdapi") {
            "basic"
        } else {
            "bearer"
        };
        let scheme = format!("www-authenticate: {scheme} ");
        assert!(
            answer.headers.to_lowercase().contains(&scheme),
            "{}",
            answer.headers
        );
        for wrong in [
            "Bearer wrong",
            &format!("Bearer {KEY}x"),
            &format!("Digest {KEY}"),
            "Basic !!!",
            "Bearer",
        ] {
            assert_eq!(
                server.send("GET", path, &[("Authorization", wrong)], &[]).status,
                401,
                "{wrong}"
            );
        }
    }
    // "anyone:" and the key, in base64.
    let basic = "Basic YW55b25lOmEta2V5LW9mLXRoZS10ZXN0cw==";
    assert_eq!(
        server
            .send("GET", "/sdapi/v1/options", &[("Authorization", basic)], &[])
            .status,
        200
    );
    server.authorization = Some(format!("Bearer {KEY}"));
    let id = server.submit(&small("a", 1));
    server.done(&id);
    let address = server.address.clone();
    let asks = |headers: &[(&str, &str)]| server.send("GET", "/api/jobs", headers, &[]).status;
    for host in [address.as_str(), "localhost:1", "127.0.0.1", "[::1]:7860"] {
        assert_eq!(asks(&[("Host", host)]), 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example:80",
        "",
        "127.0.0.1.evil.example",
    ] {
        assert_eq!(asks(&[("Host", host)]), 403, "{host}");
    }
    assert_eq!(asks(&[("Origin", &format!("http://{address}"))]), 200);
    assert_eq!(asks(&[("Origin", "https://studio.example")]), 200);
    for origin in [
        "http://evil.example",
        "null",
        "https://studio.example.evil",
        "\u{e9}",
    ] {
        assert_eq!(asks(&[("Origin", origin)]), 403, "{origin}");
    }
    // Each user has jobs of its own. The address of an image is its key.
    server.authorization = Some("Bearer another-key-of-the-tests".to_owned());
    assert_eq!(server.get("/api/jobs").is(200)["jobs"], json!([]));
    for (method, path) in [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/images/0/metadata"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ] {
        server
            .send(method, &format!("/api/jobs/{id}{path}"), &[], &[])
            .is(404);
    }
    server.authorization = None;
    assert_eq!(server.get(&format!("/api/jobs/{id}/images/0")).status, 200);
}

#[test]
fn requests_name_no_paths_and_only_allowed_models() {
    let fresh = Fresh::new();
    let file = fresh.path().join("secret.safetensors");
    fs::write(&file, "nothing to see").unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(&fresh, &["--most-images", "2"]);
    for path in [
        file,
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "secret.safetensors",
        "./secret.safetensors",
    ] {
        for field in ["model", "vae", "refiner", "upscaler", "preset"] {
            let mut request = json!({ "prompt": "a", field: path });
            if field == "upscaler" {
                request["upscale"] = json!(2);
            }
            let answer = server.post("/api/jobs", &request);
            assert_eq!(answer.status, 404, "{field} {path}: {}", answer.text());
        }
        for request in [
            json!({ "prompt": "a", "lora": [path] }),
            json!({ "prompt": "a", "embedding": [path] }),
            json!({ "prompt": format!("a <lora:{path}:1>") }),
            json!({ "prompt": "a", "control": [{ "kind": "canny", "image": pixel(), "controlnet": path }] }),
        ] {
            let answer = server.post("/api/jobs", &request);
            assert_eq!(answer.status, 404, "{request}: {}", answer.text());
        }
        let answer = server.post("/api/jobs", &json!({ "prompt": "a", "init_image": path }));
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    for path in [
        "/api/jobs/../../etc/passwd",
        "/api/jobs/%2e%2e%2f/images/0",
        "/..%2f..%2fetc/passwd",
        "/page.js/../../x",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    let error = server
        .post("/api/jobs", &json!({ "prompt": "a", "n": 3 }))
        .is(400);
    assert_eq!(error["error"]["field"], "n");
    assert_eq!(server.get("/api/jobs").is(200)["jobs"], json!([]));
    drop(server);
    fresh.install("models/tiny-large", "me/mine");
    let server = Server::start(&fresh, &["--allow-model", "me/mine"]);
    server
        .post("/api/plan", &json!({ "prompt": "a", "model": "demo" }))
        .is(404);
    assert_eq!(
        server
            .post("/api/plan", &json!({ "prompt": "a", "model": "me/mine" }))
            .status,
        200
    );
    assert_eq!(
        server.get("/v1/models").is(200)["data"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn a_server_that_cannot_protect_itself_does_not_start() {
    let fresh = Fresh::new();
    let start = |arguments: &[&str]| {
        let mut command = fresh.command();
        Run::of(command.arg("serve").args(arguments).output().unwrap())
    };
    start(&["--listen", "0.0.0.0:0"]).fails(2, "no token is set");
    start(&["--port", "0", "--token", "short"]).fails(2, "fewer than 8");
    start(&["--port", "0", "--token", ""]).fails(2, "fewer than 8");
    start(&["--port", "0", "--token-file", "missing"]).fails(2, "missing");
    fs::write(fresh.path().join("file"), "").unwrap();
    start(&["--port", "0", "--folder", "file"]).fails(1, "file");
}
