//! Many images in one run: each group is saved before the next is begun, and memory does not grow with their
//! number.

use std::fs;

use crate::command::{Fresh, Image, Run, model_with_large_transformer};
use serde_json::Value;

/// The bytes of state that a run has written, from its log.
fn state_bytes(run: &Run) -> u64 {
    let commits = run.stderr.lines().filter(|line| line.contains("was committed"));
    commits
        .filter_map(|line| {
            let plain: String = strip_colours(line);
            let (_, bytes) = plain.split_once("bytes=")?;
            bytes.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

fn sidecars(fresh: &Fresh) -> Vec<(u64, Value)> {
    let names = fresh.files("outputs").into_iter();
    names
        .filter(|name| name.ends_with(".json"))
        .map(|name| {
            let bytes = fs::read(fresh.path().join("outputs").join(name)).unwrap();
            (bytes.len() as u64, serde_json::from_slice(&bytes).unwrap())
        })
        .collect()
}

/// Generates `images` images with the built-in model.
fn generated(fresh: &Fresh, images: &str, more: &[&str]) -> Run {
    let arguments = [
        &["a red circle", "--steps", "1", "--json", "--n", images][..],
        more,
    ]
    .concat();
    let output = fresh
        .command()
        .args(arguments)
        .env("RUST_LOG", "sd_pipeline=debug")
        .output();
    Run::of(output.unwrap()).succeeds()
}

#[test]
fn many_images_take_no_more_memory_state_or_metadata_each_than_a_few() {
    const FEW: u64 = 10;
    const MANY: u64 = 40;
    let (few, many) = (Fresh::new(), Fresh::new());
    let of_few = generated(&few, "10", &[]);
    let of_many = generated(&many, "40", &[]);

    // The first is saved before the third is begun.
    let events = of_many.events();
    let at = |wanted: &dyn Fn(&Value) -> bool| events.iter().position(wanted).unwrap();
    let saved = at(&|event| event["event"] == "saved");
    let third = at(&|event| event["event"] == "step" && event["image"] == 2);
    assert!(saved < third, "{saved} {third}");

    // 15 KB for each image: 3 MB for 200.
    let written = state_bytes(&of_many);
    assert!(written > 0 && written <= MANY * 15_000, "{written} bytes");
    assert!(
        written <= MANY / FEW * state_bytes(&of_few) + 1_000_000,
        "{written} bytes"
    );

    let (few, many) = (sidecars(&few), sidecars(&many));
    assert_eq!((few.len() as u64, many.len() as u64), (FEW, MANY));
    let largest = |sidecars: &[(u64, Value)]| sidecars.iter().map(|(bytes, _)| *bytes).max().unwrap();
    assert!(
        largest(&many) <= largest(&few) + 500,
        "{} {}",
        largest(&few),
        largest(&many)
    );
    let names = |sidecar: &Value| {
        let stages = sidecar["memory"]["stages"].as_array().unwrap();
        let names = stages
            .iter()
            .map(|stage| stage["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let last = &many.last().unwrap().1;
    assert_eq!(names(last), ["open", "denoise", "decode"], "{last}");

    let peak = |sidecar: &Value| sidecar["memory"]["measured_peak"].as_u64().unwrap();
    let (peak_of_few, peak_of_many) = (peak(&few.last().unwrap().1), peak(last));
    assert!(
        peak_of_many <= peak_of_few + (2 << 20),
        "{peak_of_few} {peak_of_many}"
    );
    assert!(peak_of_many <= last["memory"]["predicted_peak"].as_u64().unwrap());
}

#[test]
fn a_small_budget_suffices_for_any_number_of_images() {
    let fresh = Fresh::new();
    let plan = |images: &str| {
        let run = fresh.run(&["plan", "a tree", "--memory", "200MB", "--n", images, "--json"]);
        run.succeeds().events().remove(0)
    };
    let (ten, thousand) = (plan("10"), plan("1000"));
    for figure in ["predicted_peak", "smallest_budget"] {
        assert_eq!(ten[figure], thousand[figure], "{figure}");
    }
    assert_eq!(thousand["groups"]["images"], 1000);
    assert_eq!(
        thousand["groups"]["first_image_after_steps"],
        thousand["groups"]["steps_an_image"]
    );
    let smallest = thousand["smallest_budget"].to_string();
    let within = ["--memory", &smallest, "--size", "64x64"];
    let run = generated(&fresh, "30", &within);
    let saved = run.events().into_iter().filter(|event| event["event"] == "saved");
    assert_eq!(saved.count(), 30);
    let sidecars = sidecars(&fresh);
    let report = &sidecars.last().unwrap().1["memory"];
    let bytes = |name: &str| report[name].as_u64().unwrap();
    assert!(bytes("measured_peak") <= bytes("predicted_peak"), "{report}");
}

#[test]
fn a_plan_says_when_the_first_image_comes() {
    let fresh = Fresh::new();
    model_with_large_transformer(&fresh, 6);
    let arguments = |images: &'static str, memory: &str| {
        let memory = format!("--memory={memory}");
        let arguments = [
            "a cat", "--model", "model", "--size", "128x128", "--steps", "20", "--n", images,
        ];
        let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        arguments.push(memory);
        arguments
    };
    let run = |command: &[&str], arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fresh.run(&[command, &arguments[..]].concat()).succeeds()
    };
    let plan = |images: &'static str, memory: &str| {
        let run = run(&["plan", "--json"], &arguments(images, memory));
        run.events().remove(0)
    };
    // If everything fits, images are finished one by one.
    let one_by_one = plan("4", "4GB");
    let groups = &one_by_one["groups"];
    assert_eq!(
        (&groups["images_a_group"], &groups["networks_stay"]),
        (&1.into(), &true.into())
    );
    assert_eq!(groups["first_image_after_steps"], 20);
    let text = run(&["plan"], &arguments("4", "4GB")).stdout;
    assert!(
        text.contains("4 images one by one: the first is saved after 20 of 80 steps"),
        "{text}"
    );
    // If blocks are streamed, a group has as many images as activations fit.
    let smallest = plan("1", "4GB")["smallest_budget"].as_u64().unwrap();
    let memory = (smallest + (12 << 20)).to_string();
    let text = run(&["plan"], &arguments("4", &memory)).stdout;
    assert!(
        text.contains(
            "4 images in one group that share passes over streamed weights: the first is saved after 80 of 80"
        ),
        "{text}"
    );

    // The images are the same for all groups, and the prediction holds.
    let image = |run: &Run, index: usize| Image::read(&fresh.path().join(&run.images()[index])).pixels;
    let short = |memory: &str| {
        let mut arguments = arguments("3", memory);
        arguments[6] = "2".to_owned();
        run(&["--quiet"], &arguments)
    };
    let apart = short("4GB");
    for memory in [smallest + (1 << 20), smallest + (30 << 20)] {
        let together = short(&memory.to_string());
        for index in 0..3 {
            assert!(image(&apart, index) == image(&together, index), "{memory}");
        }
    }
    for (_, sidecar) in sidecars(&fresh) {
        let bytes = |name: &str| sidecar["memory"][name].as_u64().unwrap();
        assert!(bytes("measured_peak") <= bytes("predicted_peak"), "{sidecar}");
    }
}
