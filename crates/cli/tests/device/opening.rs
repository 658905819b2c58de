//! Macs whose GPU cannot be used, and GPUs that fail. Variables of the stand-in make the machine an old Mac, one without
//! a GPU, or one whose memory is full.

use std::fs;

use serde_json::Value;

use crate::command::{Fresh, Image, Run};

/// A run on a Mac with the `variable` of the stand-in.
fn run(fresh: &Fresh, variable: (&str, &str), arguments: &[&str]) -> Run {
    let mut command = fresh.command();
    command.env(format!("METAL_STANDIN_{}", variable.0), variable.1);
    Run::of(command.args(arguments).output().unwrap())
}

/// The variable that changes nothing.
const USUAL: (&str, &str) = ("MACOS14", "");

const SMALL: [&str; 5] = ["a red circle", "--size", "64x64", "--steps", "1"];

fn metadata(fresh: &Fresh, run: &Run) -> Value {
    let path = fresh.path().join(&run.images()[0]).with_extension("json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What is wrong with a Mac, and the reason that is given.
const UNUSABLE: [((&str, &str), &str); 2] = [
    (
        ("MACOS14", "1"),
        "metal cannot be used: it could not be opened: class MTLResidencySetDescriptor could not be found",
    ),
    (
        ("GPUS", "0"),
        "metal cannot be used: Metal finds no GPU on this machine",
    ),
];

#[test]
fn a_mac_without_a_usable_gpu_computes_on_the_cpu_and_says_why() {
    for (variable, reason) in UNUSABLE {
        let fresh = Fresh::new();
        let generated = run(&fresh, variable, &SMALL).succeeds();
        let warning = format!("warning: the CPU computes, not a GPU: {reason}");
        let told = generated.stderr.lines().filter(|line| *line == warning);
        assert_eq!(told.count(), 1, "{}", generated.stderr);
        assert!(!generated.stderr.contains("panicked"), "{}", generated.stderr);
        let metadata = metadata(&fresh, &generated);
        assert_eq!(metadata["device"], "cpu");
        assert!(metadata["warnings"].to_string().contains(reason), "{metadata}");
        let events = run(&fresh, variable, &[&SMALL[..], &["--json"]].concat())
            .succeeds()
            .events();
        let is_told = |event: &Value| {
            event["event"] == "warning"
                && event["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(reason))
        };
        assert!(events.iter().any(is_told), "{events:?}");
    }
}

#[test]
fn a_plan_says_why_no_gpu_computes() {
    let plan = [&["plan"], &SMALL[..]].concat();
    let as_json = [&plan[..], &["--json"]].concat();
    let figures = |fresh: &Fresh, variable| run(fresh, variable, &as_json).succeeds().events()[0].clone();
    for (variable, reason) in UNUSABLE {
        let fresh = Fresh::new();
        let planned = run(&fresh, variable, &plan).succeeds();
        let warning = format!("warning: the CPU computes, not a GPU: {reason}");
        let told = planned.stderr.lines().filter(|line| *line == warning);
        assert_eq!(told.count(), 1, "{}", planned.stderr);
        let fallback = figures(&fresh, variable)["fallback"].clone();
        assert!(
            fallback.as_str().is_some_and(|text| text.contains(reason)),
            "{fallback}"
        );
    }
    assert_eq!(figures(&Fresh::new(), USUAL)["fallback"], Value::Null);
}

#[test]
fn a_gpu_that_is_asked_for_and_cannot_be_used_is_an_error() {
    for (variable, reason) in UNUSABLE {
        let fresh = Fresh::new();
        run(&fresh, variable, &[&SMALL[..], &["--device", "metal"]].concat()).fails(1, reason);
        assert_eq!(fresh.files("."), [""; 0]);
    }
}

#[test]
fn the_doctor_knows_the_gpu() {
    let fresh = Fresh::new();
    let figures = |variable: (&str, &str), fact: &str| {
        let events = run(&fresh, variable, &["doctor", "--json"]).succeeds().events();
        let found = events.iter().find(|event| event["fact"] == fact);
        found.map(|event| event["figures"].clone())
    };
    let metal = figures(("ARCHITECTURE", "applegpu_g15s"), "metal").unwrap();
    assert_eq!(metal["architecture"], "applegpu_g15s", "{metal}");
    for (architecture, native) in [("applegpu_g15s", true), ("applegpu_g14g", false)] {
        let bf16 = figures(("ARCHITECTURE", architecture), "metal bf16").unwrap();
        assert_eq!(bf16["native"], native);
    }
    let working_set = figures(("WORKING_SET", "1000000000"), "metal working set").unwrap();
    assert_eq!(working_set["bytes"], 1_000_000_000);
    let metal = figures(("WORKING_SET", "1000000000"), "metal").unwrap();
    assert_eq!(metal["budget"], 1_000_000_000);
    assert_eq!(metal["budget_from"]["kind"], "working_set");
    assert_eq!(figures(USUAL, "default device").unwrap()["device"], "metal");
    for (variable, reason) in UNUSABLE {
        let metal = figures(variable, "metal").unwrap();
        assert!(reason.ends_with(metal["reason"].as_str().unwrap()), "{metal}");
        assert_eq!(figures(variable, "metal bf16"), None);
        assert_eq!(figures(variable, "default device").unwrap()["device"], "cpu");
    }
}

/// A GPU has another id in the registry after each boot.
#[cfg(debug_assertions)]
#[test]
fn a_run_can_be_resumed_after_a_reboot_but_not_on_another_gpu() {
    let fresh = Fresh::new();
    let command = |variable: (&str, &str), arguments: &[&str]| {
        let mut command = fresh.command();
        command.env(format!("METAL_STANDIN_{}", variable.0), variable.1);
        command.args(arguments);
        command
    };
    let words = [
        "a red circle",
        "--size",
        "64x64",
        "--steps",
        "3",
        "--device",
        "metal",
    ];
    let crashed = command(("REGISTRY_ID", "4294968389"), &words)
        .env("SD_TEST_CRASH_AT", "9")
        .output()
        .unwrap();
    assert_eq!(crashed.status.code(), None, "{crashed:?}");
    let resume = |variable| Run::of(command(variable, &["resume", "--last"]).output().unwrap());
    resume(("ARCHITECTURE", "applegpu_g15s")).fails(1, "applegpu_g13s");
    let resumed = resume(("REGISTRY_ID", "4294969021")).succeeds();
    assert!(resumed.stderr.contains("Resuming the run"), "{}", resumed.stderr);
    assert_eq!(resumed.images().len(), 1);
}

/// No image is made from what a failed command buffer left, whichever fails: the stage runs again.
#[test]
fn the_failure_of_any_command_buffer_is_found() {
    let generate = |fresh: &Fresh, variable| {
        let run = run(fresh, variable, &[&SMALL[..], &["--device", "metal"]].concat()).succeeds();
        let pixels = Image::read(&fresh.path().join(&run.images()[0])).pixels;
        (run.stderr, pixels)
    };
    let (stderr, expected) = generate(&Fresh::new(), USUAL);
    assert!(!stderr.contains("starts again"), "{stderr}");
    for number in ["2", "9", "16", "23"] {
        // Each has its own cache, so that the prompt is encoded too.
        let (stderr, pixels) = generate(&Fresh::new(), ("FAILS", number));
        assert!(
            stderr.contains("starts again"),
            "command buffer {number}: {stderr}"
        );
        assert!(pixels == expected, "command buffer {number}");
    }
}
