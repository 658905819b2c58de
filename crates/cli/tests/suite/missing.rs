//! A file that is named and does not exist is an error before any work, whatever else the command line holds.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::command::Fresh;

const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures/families");

#[test]
fn what_was_named_and_is_not_there_is_an_error() {
    let fresh = Fresh::new();
    let (model, photo) = (format!("{FAMILIES}/sd15"), format!("{FAMILIES}/init.png"));
    let network = format!("{FAMILIES}/control-1");
    let usual = ["--model", &model, "--size", "64x64", "--steps", "1"];
    for (prompt, words, code, cause) in [
        (
            "a",
            &["--init-image", "gone.png"][..],
            1,
            "`gone.png` cannot be used as an image",
        ),
        (
            "a",
            &["--init-image", &photo, "--mask", "gone.png"],
            1,
            "`gone.png` cannot be used as an image",
        ),
        ("a", &["--lora", "gone"], 4, "there is no LoRA at `gone`"),
        (
            "a",
            &["--lora", "gone.safetensors:0.5"],
            4,
            "there is no LoRA at `gone.safetensors`",
        ),
        ("a <lora:gone:1>", &[], 4, "there is no LoRA at `gone`"),
        (
            "a",
            &["--lora", "me/gone"],
            4,
            "the LoRA `me/gone` is not on this machine",
        ),
        (
            "a",
            &["--pose", "gone.png", "--controlnet", &network],
            1,
            "`gone.png` cannot be used as an image",
        ),
        (
            "a",
            &["--control", &photo, "--controlnet", "gone"],
            4,
            "there is no ControlNet at `gone`",
        ),
        ("a", &["--refiner", "gone"], 4, "there is no model at `gone`"),
        (
            "a",
            &["--upscale", "2", "--upscaler", "gone.pth"],
            4,
            "there is no upscaler at `gone.pth`",
        ),
        (
            "a",
            &["--upscale", "2", "--upscaler", "gone"],
            4,
            "there is no upscaler at `gone`",
        ),
    ] {
        for first in [&[][..], &["plan"]] {
            let words = [first, &[prompt], &usual, words].concat();
            fresh.run(&words).fails(code, cause);
        }
    }
    // No work has begun.
    assert_eq!(fresh.files("."), [""; 0]);
}

#[test]
fn what_has_gone_since_a_run_was_interrupted_is_an_error_too() {
    let fresh = Fresh::new();
    let network =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/upscaler/x4/model.pth");
    fs::copy(network, fresh.path().join("net.pth")).unwrap();
    let words = [
        "a red circle",
        "--steps",
        "200",
        "--upscale",
        "2",
        "--upscaler",
        "net.pth",
        "--json",
    ];
    let mut child = fresh
        .command()
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let step = lines.map_while(Result::ok).find(|line| line.contains("\"step\""));
    assert!(step.is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(fresh.path().join("net.pth")).unwrap();
    fresh
        .run(&["resume", "--last"])
        .fails(4, "there is no upscaler at `");
}
