//! `generate again` and `generate show`: images of this program, of stable-diffusion-webui and of ComfyUI.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{Fresh, Image, Run};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures");

/// The only image of a run.
fn only(fresh: &Fresh, run: &Run) -> PathBuf {
    let images = run.images();
    assert_eq!(images.len(), 1, "{}", run.stdout);
    fresh.path().join(&images[0])
}

fn drawn(fresh: &Fresh, words: &[&str]) -> PathBuf {
    only(fresh, &fresh.run(&[words, &["--quiet"]].concat()).succeeds())
}

/// A PNG file of one pixel with a text chunk.
fn picture(path: &Path, keyword: &str, text: &str) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .add_itxt_chunk(keyword.to_owned(), text.to_owned())
        .unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[1, 2, 3]).unwrap();
}

/// Keeps the tiny model of Stable Diffusion 1.5 as another program does, under this name.
fn keep_model(fresh: &Fresh, name: &str) {
    let target = fresh.path().join("kept/diffusers").join(name);
    crate::command::copy_folder(&Path::new(FIXTURES).join("families/sd15"), &target);
    let kept = fresh.path().join("kept");
    fs::write(
        fresh.configuration(),
        format!("models_path = {:?}\n", kept.to_str().unwrap()),
    )
    .unwrap();
}

#[test]
fn an_image_is_generated_again_to_the_same_file() {
    let fresh = Fresh::new();
    let words = [
        "a red circle",
        "--size",
        "64x48",
        "--steps",
        "2",
        "--negative-prompt",
        "blue",
    ];
    let run = fresh
        .run(&[&words[..], &["--n", "2", "--seed", "5", "--quiet"]].concat())
        .succeeds();
    let second = fresh.path().join(&run.images()[1]);
    let bytes = fs::read(&second).unwrap();
    let sidecar = second.with_extension("json");
    for source in [&second, &sidecar] {
        let again = drawn(&fresh, &["again", source.to_str().unwrap()]);
        assert_ne!(&again, source);
        assert!(fs::read(&again).unwrap() == bytes, "{}", source.display());
    }
    // Without its sidecar the text in the image says the same.
    let alone = fresh.path().join("alone.png");
    fs::copy(&second, &alone).unwrap();
    let again = drawn(&fresh, &["again", "alone.png"]);
    assert!(fs::read(&again).unwrap() == bytes);
    // Options win.
    let other = drawn(
        &fresh,
        &["again", "alone.png", "--seed", "9", "--prompt", "a blue square"],
    );
    let text = &Image::read(&other).texts[0].1;
    assert!(
        text.starts_with("a blue square\n") && text.contains("Seed: 9,"),
        "{text}"
    );
    assert!(text.contains("Size: 64x48"), "{text}");
}

#[test]
fn every_setting_of_an_image_is_taken_over() {
    let fresh = Fresh::new();
    let model = format!("{FIXTURES}/families/sd15");
    let init = format!("{FIXTURES}/families/init.png");
    let lora = format!("{FIXTURES}/conditioned/loras/kohya.safetensors:0.5");
    let words = [
        "a (cat:1.2)",
        "--model",
        &model,
        "--size",
        "64x64",
        "--steps",
        "4",
        "--cfg",
        "3.5",
        "--sampler",
        "DPM++ 2M",
        "--scheduler",
        "karras",
        "--clip-skip",
        "2",
        "--guidance-rescale",
        "0.3",
        "--rng",
        "philox",
        "--init-image",
        &init,
        "--strength",
        "0.8",
        "--lora",
        &lora,
        "--dtype",
        "f32",
        "--style",
        "anime",
        "--upscale",
        "2",
    ];
    let image = drawn(&fresh, &words);
    // Settings of the configuration that change images do not hold for one that is complete.
    fs::write(
        fresh.configuration(),
        "[defaults]\nsteps = 1\nnegative-prompt = \"x\"\nclip-skip = 3\nn = 2\n",
    )
    .unwrap();
    let again = drawn(&fresh, &["again", image.to_str().unwrap()]);
    assert!(fs::read(again).unwrap() == fs::read(&image).unwrap());
    let other = drawn(&fresh, &["again", image.to_str().unwrap(), "--strength", "0.5"]);
    assert!(Image::read(&other).texts[0].1.contains("Denoising strength: 0.5"));
}

#[test]
fn an_image_of_jpeg_and_webp_is_generated_again() {
    let fresh = Fresh::new();
    let words = ["a red circle", "--size", "64x64", "--steps", "1", "--seed", "3"];
    let image = drawn(&fresh, &words);
    for name in ["a.jpg", "a.webp"] {
        drawn(&fresh, &[&words[..], &["-o", name]].concat());
        fs::remove_file(fresh.path().join(name).with_extension("json")).unwrap();
        let again = drawn(&fresh, &["again", name]);
        assert!(fs::read(again).unwrap() == fs::read(&image).unwrap(), "{name}");
    }
}

#[test]
fn an_image_of_webui_is_generated_again() {
    let fresh = Fresh::new();
    keep_model(&fresh, "dream");
    let text = "a cat\nNegative prompt: dog\nSteps: 2, Sampler: Euler a, Schedule type: Karras, CFG scale: 4, Seed: 8, \
                Size: 64x64, Model: dream, Hires upscale: 2, Version: v1.10.1";
    picture(&fresh.path().join("webui.png"), "parameters", text);
    let run = fresh.run(&["again", "webui.png", "--quiet"]).succeeds();
    assert!(
        run.stderr.contains("settings that this program does not have")
            && run.stderr.contains("Hires upscale: 2"),
        "{}",
        run.stderr
    );
    let text = Image::read(&only(&fresh, &run)).texts[0].1.clone();
    for part in [
        "a cat\nNegative prompt: dog\n",
        "Sampler: Euler a, Schedule type: Karras, CFG scale: 4, Seed: 8, Size: 64x64",
        "Model: dream",
        // webui's noise is that of a GPU.
        "RNG: NV",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    fresh
        .run(&["again", "webui.png", "--strict"])
        .fails(2, "Hires upscale: 2");
}

#[test]
fn an_image_of_comfyui_is_generated_again() {
    let fresh = Fresh::new();
    keep_model(&fresh, "dream.safetensors");
    let node = |class: &str, inputs: Value| json!({ "class_type": class, "inputs": inputs });
    let graph = json!({
        "1": node("CheckpointLoaderSimple", json!({ "ckpt_name": "dream.safetensors" })),
        "2": node("CLIPTextEncode", json!({ "text": "a cat", "clip": ["1", 1] })),
        "3": node("CLIPTextEncode", json!({ "text": "dog", "clip": ["1", 1] })),
        "4": node("EmptyLatentImage", json!({ "width": 64, "height": 64, "batch_size": 1 })),
        "5": node("KSampler", json!({
            "seed": 8, "steps": 2, "cfg": 4.0, "sampler_name": "euler_ancestral", "scheduler": "karras", "denoise": 1.0,
            "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0] })),
        "6": node("VAEDecode", json!({ "samples": ["5", 0], "vae": ["1", 2] })),
        "7": node("SaveImage", json!({ "filename_prefix": "x", "images": ["6", 0] })),
    });
    picture(&fresh.path().join("comfy.png"), "prompt", &graph.to_string());
    let again = drawn(&fresh, &["again", "comfy.png"]);
    let typed = drawn(
        &fresh,
        &[
            "a cat",
            "--negative-prompt",
            "dog",
            "--model",
            "dream.safetensors",
            "--size",
            "64x64",
            "--seed",
            "8",
            "--steps",
            "2",
            "--cfg",
            "4",
            "--sampler",
            "Euler a",
            "--scheduler",
            "karras",
        ],
    );
    assert!(Image::read(&again).pixels == Image::read(&typed).pixels);
    let mut other = graph.clone();
    other["4"] = node("LatentUpscale", json!({}));
    picture(&fresh.path().join("other.png"), "prompt", &other.to_string());
    fresh
        .run(&["again", "other.png"])
        .fails(1, "the node LatentUpscale");
}

#[test]
fn what_an_image_names_and_is_not_here_is_an_error() {
    let fresh = Fresh::new();
    keep_model(&fresh, "dreamy");
    let line =
        "Steps: 2, Sampler: Euler, CFG scale: 4, Seed: 8, Size: 64x64, Model hash: 6ce0161689, Model: dreany";
    picture(
        &fresh.path().join("a.png"),
        "parameters",
        &format!("a cat\n{line}"),
    );
    let run = fresh
        .run(&["again", "a.png"])
        .fails(4, "`Model: dreany (hash 6ce0161689)` cannot be used");
    assert!(run.stderr.contains("did you mean `dreamy`?"), "{}", run.stderr);
    assert!(run.stderr.contains("--model"), "{}", run.stderr);
    drawn(&fresh, &["again", "a.png", "--model", "demo"]);
    // Nothing is downloaded because an image names it, and no path is followed.
    for model in ["owner/model", "../../etc/passwd", "kept/diffusers/dreamy"] {
        picture(
            &fresh.path().join("b.png"),
            "parameters",
            &format!("x\nModel: {model}, Steps: 2, Seed: 1, CFG scale: 2"),
        );
        fresh.run(&["again", "b.png"]).fails(4, "cannot be used");
    }
    let tag = format!("a cat <lora:owner/fur:1>\n{line}");
    picture(&fresh.path().join("c.png"), "parameters", &tag);
    fresh
        .run(&["again", "c.png", "--model", "demo"])
        .fails(4, "the LoRA `owner/fur` is not on this machine");
    // An initial image is not in the text.
    let img2img = format!("a cat\n{line}, Denoising strength: 0.5");
    picture(&fresh.path().join("d.png"), "parameters", &img2img);
    let run = fresh
        .run(&["again", "d.png", "--model", "demo"])
        .fails(2, "from an initial image");
    assert!(run.stderr.contains("--init-image replaces it"), "{}", run.stderr);
    let init = format!("{FIXTURES}/families/init.png");
    let again = drawn(
        &fresh,
        &["again", "d.png", "--model", "demo", "--init-image", &init],
    );
    assert!(Image::read(&again).texts[0].1.contains("Denoising strength: 0.5"));
    fresh.run(&["again", "nothing.png"]).fails(1, "nothing.png");
    fresh.run(&["again"]).fails(2, "PICTURE");
}

#[test]
fn show_prints_what_an_image_says() {
    let fresh = Fresh::new();
    let image = drawn(
        &fresh,
        &["a red circle", "--size", "64x64", "--steps", "1", "--seed", "7"],
    );
    let run = fresh.run(&["show", image.to_str().unwrap()]).succeeds();
    assert_eq!(run.stderr, "");
    let lines: Vec<Vec<&str>> = run
        .stdout
        .lines()
        .map(|line| line.splitn(2, "  ").collect())
        .collect();
    for (name, text) in [
        ("prompt", "a red circle"),
        ("model", "demo"),
        ("seed", "7"),
        ("steps", "1"),
        ("size", "64x64"),
        ("sampler", "Flow Euler"),
    ] {
        let is_row = |line: &&Vec<&str>| line[0] == name && line[1].trim_start() == text;
        assert!(lines.iter().any(|line| is_row(&line)), "{name} in {}", run.stdout);
    }
    // The values are in one column.
    let starts = run.stdout.lines().map(|line| line.find("  ").unwrap());
    assert!(starts.min() < Some(8), "{}", run.stdout);
    let event = &fresh
        .run(&["show", image.to_str().unwrap(), "--json"])
        .succeeds()
        .events()[0];
    assert_eq!(
        (&event["event"], &event["prompt"]),
        (&json!("parameters"), &json!("a red circle"))
    );
    assert_eq!(event["source"], "sidecar");
    assert!(
        event["options"]
            .as_array()
            .unwrap()
            .contains(&json!({ "option": "seed", "value": "7" }))
    );
    // What comes from a file is escaped.
    picture(
        &fresh.path().join("evil.png"),
        "parameters",
        "\u{1b}[2J\nSteps: 1, Seed: 2, Model: \u{202e}x, Glow: 3",
    );
    let run = fresh.run(&["show", "evil.png"]).succeeds();
    assert!(!run.stdout.contains(['\u{1b}', '\u{202e}']), "{:?}", run.stdout);
    assert!(
        run.stdout.contains("not supported") && run.stdout.contains("Glow: 3"),
        "{}",
        run.stdout
    );
    fs::write(fresh.path().join("plain.png"), "text").unwrap();
    fresh
        .run(&["show", "plain.png"])
        .fails(1, "does not say how it was generated");
}
