//! The readings of the memory: which are taken, which are shown, and what hints name.

use std::fs;

use serde_json::Value;

use crate::command::{Fresh, Run, model_with_large_transformer};

const SMALL: [&str; 5] = ["a red circle", "--size", "64x64", "--steps", "2"];

/// The labels of the readings beside the image at `index`.
fn timeline(fresh: &Fresh, run: &Run, index: usize) -> Vec<String> {
    let path = fresh.path().join(&run.images()[index]).with_extension("json");
    let sidecar: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let readings = sidecar["memory"]["timeline"].as_array().unwrap().iter();
    readings
        .map(|reading| reading["label"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn all_points_are_beside_the_image() {
    let fresh = Fresh::new();
    let run = fresh
        .run(&[&SMALL[..], &["--refiner", "demo", "--upscale", "2"]].concat())
        .succeeds();
    assert_eq!(
        timeline(&fresh, &run, 0),
        [
            "Startup",
            "After text encoding",
            "Before model load",
            "Before generation",
            // The weights are read in the first step.
            "After model load",
            "After generation",
            "After decoding",
            "After text encoding",
            "After image encoding",
            "Before refiner load",
            "Before refining",
            "After refiner load",
            "After refining",
            "After decoding",
            "Before upscaling",
            "After upscaling",
            "Complete",
        ]
    );
}

#[test]
fn a_network_that_upscales_has_its_points_too() {
    let fresh = Fresh::new();
    let network = format!(
        "{}/../models/tests/fixtures/upscaler/x4/model.pth",
        env!("CARGO_MANIFEST_DIR")
    );
    let run = fresh
        .run(&[&SMALL[..], &["--upscale", "4", "--upscaler", &network]].concat())
        .succeeds();
    let labels = timeline(&fresh, &run, 0);
    let end = &labels[labels.len() - 4..];
    assert_eq!(
        end,
        [
            "After decoding",
            "Before upscaling",
            "After upscaling",
            "Complete"
        ]
    );
}

#[test]
fn a_part_that_fails_is_cleaned_up_after() {
    let fresh = Fresh::new();
    let broken = broken_upscaler(&fresh);
    let run = fresh
        .run(&[&SMALL[..], &["--upscale", "2", "--upscaler", &broken]].concat())
        .succeeds();
    let labels = timeline(&fresh, &run, 0);
    assert!(
        labels.contains(&"After upscaling failed".to_owned()),
        "{labels:?}"
    );
    assert_eq!(labels.last().unwrap(), "Complete");
}

/// An upscaler whose values are not finite.
fn broken_upscaler(fresh: &Fresh) -> String {
    let source = format!(
        "{}/../models/tests/fixtures/upscaler/compact-x3/model.safetensors",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut bytes = fs::read(source).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].fill(0xff);
    fs::write(fresh.path().join("broken.safetensors"), bytes).unwrap();
    "broken.safetensors".to_owned()
}

#[test]
fn an_error_is_cleaned_up_after() {
    let fresh = Fresh::new();
    let broken = broken_upscaler(&fresh);
    let run = fresh.run(
        &[
            &SMALL[..],
            &["--upscale", "2", "--upscaler", &broken, "--strict", "--json"],
        ]
        .concat(),
    );
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let events = run.events();
    let labels: Vec<&str> = events
        .iter()
        .filter_map(|event| event["reading"]["label"].as_str())
        .collect();
    assert_eq!(labels.last(), Some(&"After an error"), "{labels:?}");
}

#[test]
fn lines_say_something_new_or_all_with_verbose() {
    let fresh = Fresh::new();
    let shown = |run: &Run| {
        let lines = run
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("💾 Memory ["));
        let labels = lines.map(|line| line.split(']').next().unwrap().to_owned());
        labels.collect::<Vec<_>>()
    };
    let usual = fresh.run(&SMALL).succeeds();
    assert_eq!(shown(&usual)[0], "Startup");
    let first = usual
        .stderr
        .lines()
        .find(|line| line.contains("[Startup]"))
        .unwrap();
    assert!(first.contains("MB, System="), "{first}");
    for option in ["-v", "--verbose"] {
        let run = fresh.run(&[&SMALL[..], &[option]].concat()).succeeds();
        let all = timeline(&fresh, &run, 0);
        assert_eq!(shown(&run), all);
        assert!(shown(&usual).len() < all.len());
    }
    // What takes much memory is shown.
    let fresh = Fresh::new();
    model_with_large_transformer(&fresh, 12);
    let large = fresh
        .run(&["a cat", "--model", "model", "--size", "64x64", "--steps", "1"])
        .succeeds();
    let labels = shown(&large);
    assert!(labels.contains(&"After model load".to_owned()), "{labels:?}");
}

#[test]
fn a_budget_without_a_unit_is_a_question() {
    let fresh = Fresh::new();
    for words in [
        &["x", "--memory", "8"][..],
        &["x", "--host-memory", "8"],
        &["resume", "--last", "--memory", "8"],
    ] {
        fresh.run(words).fails(2, "8GB?");
    }
    fresh.run(&["plan", "x", "--memory", "4000000000"]).succeeds();
}

#[test]
fn a_hint_names_the_smallest_budget_that_is_enough() {
    let fresh = Fresh::new();
    model_with_large_transformer(&fresh, 6);
    let small = ["a red circle", "--size", "64x64", "--steps", "1"];
    // The refiner needs more than the model, which is looked at first.
    for more in [["--model", "model"], ["--refiner", "model"]] {
        let arguments = [&small[..], &more].concat();
        let run = |memory: &str| fresh.run(&[&arguments[..], &["--memory", memory]].concat());
        let refused = run("20MB").fails(3, "too little");
        let hint = refused.stderr.lines().last().unwrap();
        let budget = hint.split(' ').find(|word| word.ends_with("MB")).unwrap();
        run(budget).succeeds();
        let below: u64 = budget.trim_end_matches("MB").parse::<u64>().unwrap() - 1;
        run(&format!("{below}MB")).fails(3, "too little");
    }
}

#[test]
fn quiet_drops_no_warning() {
    let fresh = Fresh::new();
    let long = "a red circle ".repeat(60);
    let run = fresh.run(&[&long, "--steps", "1", "--quiet"]).succeeds();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(
        run.stderr.starts_with("warning: the prompt is too long"),
        "{}",
        run.stderr
    );
}
