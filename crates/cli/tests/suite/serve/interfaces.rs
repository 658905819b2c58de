//! The interfaces of other programs: OpenAI's, and that of stable-diffusion-webui.

use serde_json::{Value, json};

use super::client::{Server, image_of, small};
use super::{of_command, png};
use crate::command::Fresh;

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
    let mut img2img = request.clone();
    img2img["init_images"] = json!([encoded]);
    img2img["denoising_strength"] = json!(0.5);
    let answer = server.post("/sdapi/v1/img2img", &img2img).is(200);
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

/// The bytes of base64.
#[track_caller]
fn base64_of(text: &Value) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text.as_str().unwrap())
        .unwrap()
}
