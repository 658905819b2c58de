//! `generate serve`: jobs, uploads, and what becomes of a server that is killed.

mod access;
mod client;
mod interfaces;
mod limits;
mod refused;

use std::fs;

use serde_json::{Value, json};

use crate::command::{Fresh, Image, Run};
use client::{Server, command, small};

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
