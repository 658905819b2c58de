//! `generate serve`: the queue, the interfaces, who may connect, and what becomes of a server that is killed.

mod client;
mod limits;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::{Fresh, Image, Run};
use client::{Server, command, image_of, small};

const KEY: &str = "a-key-of-the-tests";

/// The pixels of the image that the command makes.
fn of_command(fresh: &Fresh, request: &Value) -> Image {
    let text = |name: &str| match &request[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let path = fresh.path().join("expected.png");
    let arguments = [
        "--size",
        &text("size"),
        "--steps",
        &text("steps"),
        "--seed",
        &text("seed"),
    ];
    let mut command = fresh.command();
    command.arg(text("prompt")).args(arguments);
    command.args(["--overwrite", "--output", path.to_str().unwrap()]);
    Run::of(command.output().unwrap()).succeeds();
    Image::read(&path)
}

#[test]
fn a_job_has_the_image_of_the_command() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &[]);
    assert_eq!(server.get("/health").is(200)["status"], "ok");
    assert_eq!(server.get("/ready").is(200)["waiting"], 0);
    let request = small("a red circle", 7);
    let plan = server.post("/api/plan", &request).is(200);
    assert!(
        plan["predicted_peak"].as_u64() > Some(0) && plan["model"] == "demo",
        "{plan}"
    );
    let id = server.submit(&request);
    let job = server.done(&id);
    assert_eq!(job["images"][0]["seed"], 7);
    assert_eq!(
        (&job["images"][0]["width"], &job["images"][0]["height"]),
        (&json!(64), &json!(64))
    );
    let expected = of_command(&fresh, &request);
    assert_eq!(server.image(&fresh, &id, 0).pixels, expected.pixels);
    let metadata = server.get(&format!("/api/jobs/{id}/images/0/metadata")).is(200);
    assert_eq!(
        (&metadata["seed"], &metadata["prompt"]),
        (&json!(7), &json!("a red circle"))
    );
    let file = server.get(&format!("/api/jobs/{id}/images/0")).body;
    let read = server.send("POST", "/api/read-image", &[], &file).is(200);
    assert_eq!(
        (&read["request"]["seed"], &read["request"]["steps"]),
        (&json!(7), &json!(2))
    );
    assert_eq!(server.get("/api/jobs").is(200)["jobs"][0]["id"], id.as_str());
    let run = fresh.run(&["ps", "--all"]).succeeds();
    assert!(
        run.stdout.contains("a red circle") && run.stdout.contains("done"),
        "{}",
        run.stdout
    );
    // One line for each job, without its prompt.
    let run = server.stop();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains(": 1 image in "), "{}", run.stderr);
    assert!(!run.stderr.contains("a red circle"), "{}", run.stderr);
    let server = Server::start(&fresh, &["--log-prompts"]);
    assert_eq!(server.job(&id)["state"], "done");
    server.done(&server.submit(&small("a blue square", 1)));
    let run = server.stop();
    assert!(run.stderr.contains("a blue square"), "{}", run.stderr);
}

#[test]
fn jobs_are_followed_cancelled_and_removed() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &[]);
    let all = server.follow("/api/events");
    let long = json!({ "prompt": "a", "size": "64x64", "steps": 150, "n": 16, "seed": 1 });
    let first = server.submit(&long);
    let second = server.submit(&small("b", 2));
    let third = server.submit(&small("c", 3));
    assert_eq!(
        server.job(&third)["position"].as_u64().unwrap(),
        if server.job(&first)["state"] == "running" {
            2
        } else {
            3
        }
    );
    let events = server.follow(&format!("/api/jobs/{first}/events"));
    server.wait(&first, |job| job["progress"]["step"].as_u64() > Some(1));
    server
        .send("DELETE", &format!("/api/jobs/{first}"), &[], &[])
        .is(409);
    server
        .post(&format!("/api/jobs/{second}/cancel"), &json!({}))
        .is(200);
    assert_eq!(server.job(&second)["state"], "cancelled");
    server
        .post(&format!("/api/jobs/{first}/cancel"), &json!({}))
        .is(200);
    let job = server.wait(&first, |_| false);
    assert_eq!(
        (&job["state"], &job["error"]),
        (&json!("cancelled"), &Value::Null)
    );
    server.done(&third);
    server
        .post(&format!("/api/jobs/{third}/cancel"), &json!({}))
        .is(409);
    // The stream of a job ends with it.
    let events = events.join().unwrap();
    let (kind, last) = events.last().unwrap();
    assert_eq!((kind.as_str(), &last["state"]), ("job", &json!("cancelled")));
    for kind in ["progress", "preview", "memory"] {
        assert!(events.iter().any(|(own, _)| own == kind), "no {kind}");
    }
    let ended = server
        .follow(&format!("/api/jobs/{third}/events"))
        .join()
        .unwrap();
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(
        server
            .send("DELETE", &format!("/api/jobs/{third}"), &[], &[])
            .status,
        204
    );
    for path in ["", "/events", "/images/0", "/images/0/metadata"] {
        server.get(&format!("/api/jobs/{third}{path}")).is(404);
    }
    server
        .post(&format!("/api/jobs/{third}/cancel"), &json!({}))
        .is(404);
    server
        .send("DELETE", &format!("/api/jobs/{third}"), &[], &[])
        .is(404);
    assert_eq!(server.stop().code, Some(0));
    let states: Vec<Value> = all
        .join()
        .unwrap()
        .into_iter()
        .filter(|(kind, data)| kind == "job" && data["id"] == third.as_str())
        .map(|(_, data)| data["state"].clone())
        .collect();
    assert_eq!(states.first(), Some(&json!("queued")));
    assert_eq!(states.last(), Some(&json!("done")));
}

#[test]
fn clients_of_openai_are_answered() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &[]);
    let expected = of_command(&fresh, &small("a red circle", 7)).pixels;
    let request = |more: Value| {
        let mut request = small("a red circle", 7);
        request["model"] = json!("gpt-image-1");
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        request
    };
    let path = "/v1/images/generations";
    let answer = server.post(path, &request(json!({ "quality": "high" }))).is(200);
    let bytes = base64_of(&answer["data"][0]["b64_json"]);
    assert_eq!(image_of(&fresh, &bytes).pixels, expected);
    let answer = server
        .post(path, &request(json!({ "response_format": "url" })))
        .is(200);
    let url = answer["data"][0]["url"].as_str().unwrap();
    let address = url.strip_prefix(&format!("http://{}", server.address)).unwrap();
    assert_eq!(image_of(&fresh, &server.get(address).body).pixels, expected);

    let streamed = json!({ "stream": true, "partial_images": 2, "steps": 40 });
    let answer = server.post(path, &request(streamed));
    let events = answer.events();
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds.last(), Some(&"image_generation.completed"), "{kinds:?}");
    assert!(kinds.contains(&"image_generation.partial_image"), "{kinds:?}");
    assert!(base64_of(&events.last().unwrap().1["b64_json"]).starts_with(b"\x89PNG"));

    assert_eq!(server.get("/v1/models").is(200)["data"][0]["id"], "demo");
    assert_eq!(server.get("/v1/models/demo").is(200)["id"], "demo");
    server.get("/v1/models/other").is(404);
    let error = server.post(path, &request(json!({ "n": "two" }))).is(400);
    assert_eq!(
        (&error["error"]["param"], &error["error"]["type"]),
        (&json!("n"), &json!("invalid_request_error"))
    );
    let error = server
        .post(path, &request(json!({ "model": "none-such" })))
        .is(404);
    assert_eq!(error["error"]["code"], "not_found");

    // Where the mask is transparent, the image is drawn anew.
    let form = |name: &str, file: &str, bytes: &[u8]| {
        let head = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        [head.as_bytes(), bytes, b"\r\n"].concat()
    };
    let file = "; filename=\"a.png\"";
    let mask = png(64, |x, _| [0, 0, 0, if x < 32 { 0 } else { 255 }]);
    let body = [
        form("image", file, &bytes),
        form("mask", file, &mask),
        form("prompt", "", b"a blue square"),
        form("steps", "", b"4"),
        form("seed", "", b"3"),
        form("strength", "", b"1"),
        b"--x--\r\n".to_vec(),
    ];
    let kind = [("Content-Type", "multipart/form-data; boundary=x")];
    let answer = server
        .send("POST", "/v1/images/edits", &kind, &body.concat())
        .is(200);
    let edited = image_of(&fresh, &base64_of(&answer["data"][0]["b64_json"]));
    let original = image_of(&fresh, &bytes);
    let difference = |columns: std::ops::Range<usize>| -> u64 {
        let pixels = (0..64).flat_map(|y| columns.clone().map(move |x| (x, y)));
        let channels = pixels.flat_map(|(x, y)| edited.pixel(x, y).into_iter().zip(original.pixel(x, y)));
        channels.map(|(one, other)| u64::from(one.abs_diff(other))).sum()
    };
    assert!(
        difference(0..16) > 4 * difference(48..64),
        "{} {}",
        difference(0..16),
        difference(48..64)
    );
}

#[test]
fn clients_of_webui_are_answered() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &[]);
    for list in [
        "samplers",
        "schedulers",
        "sd-models",
        "options",
        "upscalers",
        "loras",
        "prompt-styles",
        "cmd-flags",
    ] {
        server.get(&format!("/sdapi/v1/{list}")).is(200);
    }
    let request = json!({
        "prompt": "a red circle", "seed": 7, "steps": 2, "width": 64, "height": 64, "sampler_name": "Euler", "cfg_scale": 7,
        "enable_hr": false, "override_settings": { "sd_model_checkpoint": "demo" }, "alwayson_scripts": {},
    });
    let answer = server.post("/sdapi/v1/txt2img", &request).is(200);
    let image = base64_of(&answer["images"][0]);
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!((&info["seed"], &info["all_seeds"]), (&json!(7), &json!([7])));
    assert!(
        info["infotexts"][0].as_str().unwrap().contains("Steps: 2"),
        "{info}"
    );
    let encoded = &answer["images"][0];
    let read = server
        .post("/sdapi/v1/png-info", &json!({ "image": encoded }))
        .is(200);
    assert!(
        read["info"].as_str().unwrap().starts_with("a red circle"),
        "{read}"
    );
    let mut over = request.clone();
    over["init_images"] = json!([encoded]);
    over["denoising_strength"] = json!(0.5);
    let answer = server.post("/sdapi/v1/img2img", &over).is(200);
    assert_ne!(base64_of(&answer["images"][0]), image);
    let error = server
        .post("/sdapi/v1/txt2img", &json!({ "prompt": "a", "enable_hr": true }))
        .is(400);
    assert!(error["detail"].as_str().unwrap().contains("enable_hr"), "{error}");
    server
        .post("/sdapi/v1/options", &json!({ "sd_model_checkpoint": "demo" }))
        .is(200);
    server
        .post("/sdapi/v1/options", &json!({ "sd_model_checkpoint": "none" }))
        .is(404);
    assert_eq!(server.get("/sdapi/v1/progress").is(200)["progress"], 0);
    server.post("/sdapi/v1/interrupt", &json!({})).is(200);
}

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
fn uploaded_images_are_used() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &[]);
    let upload = |bytes: &[u8]| server.send("POST", "/api/uploads", &[], bytes);
    let answer = upload(&png(64, |x, _| [x as u8, 0, 0, 255])).is(201);
    assert_eq!((&answer["width"], &answer["height"]), (&json!(64), &json!(64)));
    let name = format!("upload:{}", answer["upload"].as_str().unwrap());
    let mut request = small("a", 1);
    request["init_image"] = json!(name);
    request["strength"] = json!(0.5);
    let job = server.done(&server.submit(&request));
    // Jobs say that there is an image, not which.
    assert_eq!(job["request"]["init_image"], true);
    upload(b"no image").is(400);
    let error = upload(&vec![0; (64 << 20) + 1]).is(413);
    assert_eq!(error["error"]["code"], "too_large");
    request["init_image"] = json!(format!("upload:{}", "0".repeat(32)));
    server.post("/api/jobs", &request).is(400);
    request["init_image"] = json!("data:image/png;base64,bm8gaW1hZ2U=");
    assert!((400..500).contains(&server.post("/api/jobs", &request).status));
    // What was refused leaves nothing.
    let server_folder = fresh.runs().parent().unwrap().join("server");
    let count = |folder: &str| fs::read_dir(server_folder.join(folder)).unwrap().count();
    assert_eq!((count("jobs"), count("uploads")), (1, 1));
}

#[test]
fn a_killed_server_goes_on() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &[]);
    let requests: Vec<Value> = (0..4)
        .map(|seed| json!({ "prompt": "a red circle", "size": "64x64", "steps": 60, "seed": seed }))
        .collect();
    let ids: Vec<String> = requests.iter().map(|request| server.submit(request)).collect();
    server.wait(&ids[0], |job| job["progress"]["step"].as_u64() > Some(5));
    server.kill();
    // What a server that is killed between two writes leaves.
    let orphan = fresh.runs().parent().unwrap().join("server/jobs/orphan");
    fs::create_dir_all(orphan.join("inputs")).unwrap();
    let server = Server::start(&fresh, &[]);
    assert!(!orphan.exists());
    // Another one is refused the folder.
    let run = Run::of(command(&fresh, &[]).output().unwrap());
    run.fails(1, "another server uses");
    server.done(&ids[2]);
    assert_eq!(server.stop().code, Some(0));
    let server = Server::start(&fresh, &[]);
    for (id, request) in ids.iter().zip(&requests) {
        assert_eq!(server.done(id)["images"].as_array().unwrap().len(), 1);
        assert_eq!(
            server.image(&fresh, id, 0).pixels,
            of_command(&fresh, request).pixels
        );
    }
    assert_eq!(
        server.get("/api/jobs").is(200)["jobs"].as_array().unwrap().len(),
        4
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

/// The bytes of base64.
#[track_caller]
fn base64_of(text: &Value) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text.as_str().unwrap())
        .unwrap()
}

/// A PNG with transparency whose sides have `side` pixels.
fn png(side: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Rgba);
    let pixel = &pixel;
    let pixels: Vec<u8> = (0..side)
        .flat_map(|y| (0..side).flat_map(move |x| pixel(x, y)))
        .collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

/// A small image, in base64.
fn pixel() -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(png(64, |_, _| [255; 4]))
}
