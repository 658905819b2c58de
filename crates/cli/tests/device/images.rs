//! Images of the built-in model.

use crate::command::{Fresh, Image};

/// A stand-in computes slowly: a first step, one between two others, and a last one.
const STEPS: &str = if cfg!(target_os = "macos") { "6" } else { "3" };
const PROMPT: [&str; 7] = [
    "a red circle",
    "--size",
    "128x128",
    "--seed",
    "7",
    "--steps",
    STEPS,
];
/// Where an image shows no more than a smaller one would.
const SMALL: [&str; 7] = ["a red circle", "--size", "64x64", "--seed", "7", "--steps", "2"];

fn pixels(fresh: &Fresh, arguments: &[&str]) -> Vec<[u8; 3]> {
    pixels_of(fresh, &PROMPT, arguments)
}

fn pixels_of(fresh: &Fresh, prompt: &[&str], arguments: &[&str]) -> Vec<[u8; 3]> {
    let run = fresh.run(&[prompt, arguments].concat()).succeeds();
    Image::read(&fresh.path().join(&run.images()[0])).pixels
}

/// The largest difference of a value.
fn difference(one: &[[u8; 3]], other: &[[u8; 3]]) -> u8 {
    let values = one.as_flattened().iter().zip(other.as_flattened());
    values.map(|(one, other)| one.abs_diff(*other)).max().unwrap()
}

#[test]
fn no_budget_changes_a_pixel() {
    let fresh = Fresh::new();
    for weights in ["bf16", "f32"] {
        let at = |budget| {
            pixels(
                &fresh,
                &["--device", "metal", "--dtype", weights, "--memory", budget],
            )
        };
        assert!(at("4GB") == at("68MB"), "images of {weights} differ");
    }
}

#[test]
fn an_image_of_quantised_weights_is_that_of_their_values() {
    let fresh = Fresh::new();
    for (model, output, held_type) in [
        ("demo", "demo.gguf", "q8_0"),
        ("demo.gguf", "values.safetensors", "f32"),
    ] {
        fresh
            .run(&["convert", model, "-o", output, "--to", held_type, "--quiet"])
            .succeeds();
    }
    let of = |model, budget| {
        let options = [
            "--device", "metal", "--dtype", "f32", "--memory", budget, "--model", model,
        ];
        pixels_of(&fresh, &SMALL, &options)
    };
    let quantised = of("./demo.gguf", "4GB");
    assert!(quantised == of("./demo.gguf", "80MB"), "budgets differ");
    assert!(quantised == of("./values.safetensors", "4GB"), "values differ");
}

#[test]
fn an_image_is_that_of_a_cpu() {
    let fresh = Fresh::new();
    let on = |device| pixels(&fresh, &["--device", device, "--dtype", "f32"]);
    let difference = difference(&on("cpu"), &on("metal"));
    assert!(difference <= 2, "values differ by {difference} of 255");
}
