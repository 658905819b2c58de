//! The `parameters` text of an image: every setting, and nothing of the machine.

use std::fs;
use std::path::Path;

use crate::command::{Fresh, Image, copy_folder};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures");

fn text(fresh: &Fresh, words: &[&str]) -> String {
    let run = fresh.run(&[words, &["--quiet"]].concat()).succeeds();
    let image = Image::read(&fresh.path().join(&run.images()[0]));
    let found = image
        .texts
        .into_iter()
        .find(|(keyword, _)| keyword == "parameters");
    found.unwrap().1
}

#[test]
fn settings_that_readers_would_take_for_their_defaults_are_in_the_text() {
    let fresh = Fresh::new();
    let (model, init) = (
        format!("{FIXTURES}/families/sd15"),
        format!("{FIXTURES}/families/init.png"),
    );
    let usual = ["a cat", "--model", &model, "--size", "64x64", "--steps", "4"];
    let with = |words: &[&str]| text(&fresh, &[&usual[..], words].concat());
    let plain = with(&[]);
    for key in [
        "Clip skip",
        "Denoising strength",
        "CFG Rescale",
        "Lora",
        "ControlNet",
        "Refiner",
        "Postprocess",
    ] {
        assert!(!plain.contains(key), "{plain}");
    }
    let skipped = with(&["--clip-skip", "2", "--guidance-rescale", "0.7"]);
    assert!(
        skipped.contains(", Clip skip: 2, RNG: CPU, CFG Rescale: 0.7,"),
        "{skipped}"
    );
    let over = with(&["--init-image", &init, "--strength", "0.6"]);
    assert!(over.contains(", Denoising strength: 0.6, "), "{over}");
    let refined = with(&["--refiner", &model, "--refiner-switch", "0.5"]);
    assert!(
        refined.contains(", Refiner: sd15, Refiner switch at: 0.5, "),
        "{refined}"
    );
}

#[test]
fn no_path_is_in_the_text() {
    let fresh = Fresh::new();
    let private = fresh.path().join("private");
    fs::create_dir(&private).unwrap();
    let at = |name: &str| private.join(name).to_str().unwrap().to_owned();
    for (source, name) in [
        ("families/sd15", "dream"),
        ("families/control-1", "poses"),
        ("families/sd15", "finish"),
    ] {
        copy_folder(&Path::new(FIXTURES).join(source), &private.join(name));
    }
    for (source, name) in [
        ("conditioned/loras/kohya.safetensors", "fur.safetensors"),
        ("conditioned/loras/peft.safetensors", "paint.safetensors"),
        ("families/init.png", "photo.png"),
        (
            "../../../models/tests/fixtures/upscaler/x4/model.pth",
            "larger.pth",
        ),
    ] {
        fs::copy(Path::new(FIXTURES).join(source), private.join(name)).unwrap();
    }
    let prompt = format!("a cat <lora:{}:0.5> asleep", at("paint"));
    let words = [
        &prompt,
        "--model",
        &at("dream"),
        "--size",
        "64x64",
        "--steps",
        "4",
        "--lora",
        &at("fur.safetensors"),
        "--control",
        &at("photo.png"),
        "--controlnet",
        &at("poses"),
        "--control-scale",
        "0.7",
        "--refiner",
        &at("finish"),
        "--upscale",
        "2",
        "--upscaler",
        &at("larger.pth"),
    ];
    let text = text(&fresh, &words);
    assert!(!text.contains("private") && !text.contains('/'), "{text}");
    assert!(
        text.starts_with("a cat <lora:paint:0.5> asleep <lora:fur:1>\n"),
        "{text}"
    );
    for expected in [
        "Model: dream, ",
        "ControlNet 0: \"Module: none, Model: poses, Weight: 0.7, ",
        "Lora hashes: \"fur: ",
        "Refiner: finish, Refiner steps: 20, Refiner denoising strength: 0.3, ",
        "Postprocess upscale by: 2, Postprocess upscaler: larger, ",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}
