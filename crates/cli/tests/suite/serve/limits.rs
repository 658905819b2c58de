//! What a server takes at most, and what it says about itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Server, small};
use super::png;
use crate::command::Fresh;

#[test]
fn so_many_connections_are_open_at_a_time() {
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &["--most-connections", "3"]);
    // One that follows events, and two that have sent a part of a request.
    let events = server.follow("/api/events");
    let mut open: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    let answer = loop {
        // The server may not have accepted the others yet.
        let answer = server.get("/api/jobs");
        if answer.status == 503 || start.elapsed() > Duration::from_secs(20) {
            break answer;
        }
    };
    let error = answer.is(503);
    assert_eq!(error["error"]["code"], "too_many_connections", "{error}");
    assert!(
        answer.headers.to_lowercase().contains("retry-after"),
        "{}",
        answer.headers
    );
    let of_openai = server.get("/v1/models").is(503);
    assert_eq!(of_openai["error"]["type"], "server_error", "{of_openai}");
    // Those beyond the ones that are told so are closed, and keep nobody out for long.
    let surplus: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&server.address).unwrap())
        .collect();
    // The others are served to their end.
    let mut first = open.remove(0);
    let rest = format!("Host: {}\r\nConnection: close\r\n\r\n", server.address);
    first.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
    drop((surplus, open));
    let start = Instant::now();
    while server.get("/health").status != 200 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(server.stop().code, Some(0));
    events.join().unwrap();
}

#[test]
fn uploads_take_so_much_disk_together() {
    let fresh = Fresh::new();
    // An image with noise, which is not compressed to less.
    let mut noise = 1_u32;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_be_bytes()
    };
    let pixels: Vec<[u8; 4]> = (0..256 * 256).map(|_| next()).collect();
    let image = png(256, |x, y| pixels[(y * 256 + x) as usize]);
    assert!(image.len() > 150_000, "{}", image.len());
    let server = Server::start(&fresh, &["--keep-uploads", "1MB"]);
    let upload = |bytes: &[u8]| server.send("POST", "/api/uploads", &[], bytes);
    let mut kept = 0;
    let refused = loop {
        let answer = upload(&image);
        match answer.status {
            201 => kept += image.len(),
            _ => break answer,
        }
        assert!(kept <= 1 << 20, "{kept}");
    };
    let error = refused.is(413);
    assert_eq!(error["error"]["code"], "too_large", "{error}");
    assert!(kept + image.len() > 1 << 20, "{kept}");
    // A small one still fits, and the settings of one that does not can be read if it comes at once.
    assert!(upload(&png(8, |_, _| [255; 4])).status == 201 || kept + 200 > 1 << 20);
    let folder = fresh.runs().parent().unwrap().join("server/uploads");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert!(names().iter().all(|name| !name.contains('.')), "{:?}", names());

    // Those that come at the same time count, also before they are whole.
    for name in names() {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let half = 700_000;
    let head = format!(
        "POST /api/uploads HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        server.address,
        half + 1
    );
    let mut slow = TcpStream::connect(&server.address).unwrap();
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(&vec![0; half]).unwrap();
    let start = Instant::now();
    while bytes_of(&folder) < half as u64 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    upload(&vec![0; half]).is(413);
    drop(slow);
    let start = Instant::now();
    while !names().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", names());
    }
    upload(&image).is(201);
}

/// Beside the pages of its own file, which the system can drop at any time.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_server_takes_little_memory() {
    const MB: u64 = 1 << 20;
    let fresh = Fresh::new();
    let server = Server::start(&fresh, &["--idle-after", "1s"]);
    server.get("/health").is(200);
    let started = server.anonymous_memory();
    assert!(started < 8 * MB, "{started}");
    for seed in 0..3 {
        server.done(&server.submit(&small("a red circle", seed)));
    }
    // Without a job afterwards.
    let request = json!({ "prompt": "a", "size": "64x64", "steps": 2 });
    let start = Instant::now();
    loop {
        let loaded = server.get("/api/memory").is(200)["loaded"].as_u64().unwrap();
        if loaded == 0 && server.anonymous_memory() < started + 8 * MB {
            break;
        }
        let now = server.anonymous_memory();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{loaded} loaded, {started} {now}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // A plan without a job loads tokenizers, which are given back too.
    server.post("/api/plan", &request).is(200);
    let start = Instant::now();
    while server.anonymous_memory() > started + 8 * MB {
        let now = server.anonymous_memory();
        assert!(start.elapsed() < Duration::from_secs(20), "{started} {now}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn bytes_of(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn answers_have_the_fields_of_the_description() {
    let fresh = Fresh::new();
    fresh.install("models/tiny-large", "me/mine");
    let server = Server::start(&fresh, &[]);
    let description = server.get("/api/openapi.json").is(200);
    let described = |name: &str| -> Vec<String> {
        let properties = &description["components"]["schemas"][name]["properties"];
        keys(properties)
    };
    server.done(&server.submit(&small("a red circle", 1)));
    let models = server.get("/api/models").is(200);
    assert_eq!(keys(&models), described("Models"));
    assert_eq!(keys(&server.get("/api/memory").is(200)), described("Memory"));
    let plan = server.post("/api/plan", &small("a red circle", 1)).is(200);
    assert_eq!(keys(&plan), described("Plan"));

    let of = |name: &str| {
        let models = models["models"].as_array().unwrap();
        models.iter().find(|model| model["name"] == name).unwrap().clone()
    };
    let demo = of("demo");
    assert_eq!(demo["family"], "Stable Diffusion 3", "{demo}");
    assert!(demo["bytes"].as_u64() > Some(10 << 20), "{demo}");
    assert!(of("me/mine")["bytes"].as_u64() > Some(0), "{models}");

    let error = server
        .post("/api/plan", &json!({ "prompt": "a", "model": "dmeo" }))
        .is(404);
    let hint = error["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("/api/models"), "{error}");
    let request = json!({ "prompt": "a", "preset": "fast" });
    let error = server.post("/api/plan", &request).is(404);
    let hint = error["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("`generate models pull "), "{error}");
    let error = server.post("/v1/images/generations", &request).is(404);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("generate models pull"), "{error}");
}

/// The names of the fields of an object, in their order in the alphabet.
fn keys(object: &Value) -> Vec<String> {
    let mut keys: Vec<String> = object.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}
