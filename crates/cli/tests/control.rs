//! ControlNets, and what becomes of a picture where one cannot be had.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod command;

use std::fs;
use std::path::Path;

use command::{Fresh, Picture};
use serde_json::Value;

const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures/families");

fn draw(fresh: &Fresh, output: &str, more: &[&str]) -> (Picture, Value, String) {
    let model = format!("{FAMILIES}/sd15");
    let usual = [
        "a cat", "--model", &model, "--size", "64x64", "--steps", "3", "--output", output,
    ];
    let run = fresh.run(&[&usual[..], more].concat()).succeeds();
    let path = fresh.path().join(&run.pictures()[0]);
    let metadata = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    (Picture::read(&path), metadata, run.stderr)
}

#[test]
fn a_picture_follows_another_by_the_scale() {
    let fresh = Fresh::new();
    let (network, photo) = (format!("{FAMILIES}/control-1"), format!("{FAMILIES}/init.png"));
    let (plain, metadata, _) = draw(&fresh, "plain", &[]);
    assert_eq!(metadata["controlnet"], Value::Null);
    let with = |output: &str, kind: &str, scale: &str| {
        draw(
            &fresh,
            output,
            &[kind, &photo, "--controlnet", &network, "--control-scale", scale],
        )
    };
    let (depth, metadata, _) = with("depth", "--depth", "1");
    assert_eq!(metadata["controlnet"][0]["kind"], "depth");
    let (edges, _, _) = with("edges", "--canny", "1");
    let (none, _, _) = with("none", "--depth", "0");
    assert!(plain.pixels != depth.pixels && plain.pixels != edges.pixels && depth.pixels != edges.pixels);
    assert!(plain.pixels == none.pixels);
}

#[test]
fn what_cannot_be_followed_is_left_out_or_with_strict_an_error() {
    let fresh = Fresh::new();
    let photo = format!("{FAMILIES}/init.png");
    fs::write(fresh.path().join("text.png"), "no picture").unwrap();
    let (plain, _, _) = draw(&fresh, "plain", &[]);
    let good = format!("{FAMILIES}/control-1");
    // No picture, and a network that is no ControlNet for this model.
    let other = format!("{FAMILIES}/sdxl/unet");
    for (image, network) in [("text.png", &good), (photo.as_str(), &other)] {
        let control = ["--pose", image, "--controlnet", network];
        let output = Path::new(network).file_name().unwrap().to_str().unwrap();
        let (picture, metadata, stderr) = draw(&fresh, output, &control);
        assert!(picture.pixels == plain.pixels);
        assert!(stderr.contains("the ControlNet `"), "{stderr}");
        assert!(metadata["failures"].as_array().unwrap().len() == 1, "{metadata}");
        let model = format!("{FAMILIES}/sd15");
        let strict = [&["a cat", "--model", &model, "--strict"][..], &control].concat();
        fresh.run(&strict).fails(1, "error: ");
    }
    fresh.tiny_model();
    let run = fresh
        .run(&[
            "a cat",
            "--model",
            "model",
            "--size",
            "64x64",
            "--steps",
            "1",
            "--pose",
            &photo,
            "--controlnet",
            &good,
        ])
        .succeeds();
    assert!(
        run.stderr.contains("the model's network is a transformer"),
        "{}",
        run.stderr
    );
    fresh.run(&["x", "--pose", &photo]).fails(
        4,
        "`lllyasviel/control_v11p_sd15_openpose` is not on this machine",
    );
}
