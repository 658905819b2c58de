//! How long a run takes, as `generate plan` predicts it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::command::Fresh;

/// One thread, which other programs disturb least.
const RUN: [&str; 6] = ["a red circle", "--steps", "6", "--threads", "1", "--json"];

fn planned(fresh: &Fresh) -> Value {
    let run = fresh.run(&[&["plan"], &RUN[..]].concat()).succeeds();
    run.events()[0].clone()
}

/// Seconds by stage.
fn seconds(plan: &Value) -> BTreeMap<String, f64> {
    let stages = plan["stages"].as_array().unwrap().iter();
    let of = |stage: &Value| {
        (
            stage["name"].as_str().unwrap().to_owned(),
            stage["seconds"].as_f64().unwrap(),
        )
    };
    stages.map(of).collect()
}

fn rates(fresh: &Fresh) -> Vec<PathBuf> {
    let Ok(folder) = fs::read_dir(fresh.prompts().with_file_name("rates")) else {
        return Vec::new();
    };
    folder.map(|entry| entry.unwrap().path()).collect()
}

/// Seconds by stage of a run.
fn measured(fresh: &Fresh) -> BTreeMap<String, f64> {
    let run = fresh.run(&RUN).succeeds();
    let events = run.events();
    let saved = events.iter().find(|event| event["event"] == "saved").unwrap();
    let metadata = fresh.path().join(saved["metadata"].as_str().unwrap());
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let stages = metadata["memory"]["stages"].as_array().unwrap().iter();
    let of = |stage: &Value| {
        let duration = stage["end"].as_f64().unwrap() - stage["start"].as_f64().unwrap();
        (stage["name"].as_str().unwrap().to_owned(), duration)
    };
    stages.map(of).collect()
}

/// The bounds are wide, because other programs slow the measurement or the run down; so the shortest of three
/// counts. Heads of the built-in model have 32 features, for which attention is slower than other products, so that
/// its denoising takes longer than predicted.
#[test]
fn stages_take_about_as_long_as_predicted() {
    let mut predicted: BTreeMap<String, f64> = BTreeMap::new();
    let mut taken: BTreeMap<String, f64> = BTreeMap::new();
    let least = |of: &mut BTreeMap<String, f64>, found: BTreeMap<String, f64>| {
        for (stage, seconds) in found {
            let least = of.entry(stage).or_insert(seconds);
            *least = least.min(seconds);
        }
    };
    for _ in 0..3 {
        // Each has its own cache, so that the rates are measured again.
        let fresh = Fresh::new();
        least(&mut predicted, seconds(&planned(&fresh)));
        least(&mut taken, measured(&fresh));
    }
    for stage in ["denoise", "decode"] {
        let ratio = predicted[stage] / taken[stage];
        assert!(
            (0.25..4.0).contains(&ratio),
            "{stage}: {ratio}, {predicted:?}, {taken:?}"
        );
    }
}

#[test]
fn the_rates_of_a_machine_are_measured_once() {
    let fresh = Fresh::new();
    let first = planned(&fresh);
    let of_stages: f64 = seconds(&first).values().sum();
    let total = first["seconds"].as_f64().unwrap();
    assert!(total > 0.0 && (total - of_stages).abs() < 1e-6 * total, "{first}");
    assert_eq!(planned(&fresh)["seconds"], first["seconds"]);
    let [entry] = &rates(&fresh)[..] else {
        panic!("{:?}", rates(&fresh));
    };
    // A damaged entry is replaced.
    let whole = fs::read(entry).unwrap();
    fs::write(entry, &whole[..whole.len() / 2]).unwrap();
    assert!(planned(&fresh)["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(rates(&fresh), std::slice::from_ref(entry));
    assert!(fs::read(entry).unwrap().len() > whole.len() / 2);
    // A run neither measures nor predicts.
    let other = Fresh::new();
    let events = other.run(&["a red circle", "--steps", "1", "--size", "64x64", "--json"]);
    let events = events.succeeds().events();
    let plan = events.iter().find(|event| event["event"] == "planned").unwrap();
    assert_eq!(plan["plan"]["seconds"], Value::Null);
    assert!(rates(&other).is_empty());
}

#[test]
fn the_time_is_in_the_table() {
    let fresh = Fresh::new();
    let run = fresh.run(&["plan", "a red circle"]).succeeds();
    let last = run.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("about ") && last.contains(" (estimated from this machine's rate)"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.lines().next().unwrap().ends_with("time"),
        "{}",
        run.stdout
    );
}

/// The entry at `path`, as if it had been measured while the machine was busy.
fn slow_down(path: &std::path::Path, factor: f64) {
    let bytes = fs::read(path).unwrap();
    let mut header: Value = serde_json::from_slice(&bytes[8..]).unwrap();
    let texts = &mut header["__metadata__"];
    let mut description: Value = serde_json::from_str(texts["description"].as_str().unwrap()).unwrap();
    for rate in ["multiply_adds_per_second", "bytes_per_second"] {
        description[rate] = (description[rate].as_f64().unwrap() / factor).into();
    }
    let description = description.to_string();
    let digest = Sha256::digest(&description);
    texts["checksum"] = digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into();
    texts["description"] = description.into();
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_run_corrects_rates_that_were_measured_on_a_busy_machine() {
    let fresh = Fresh::new();
    let seconds = || planned(&fresh)["seconds"].as_f64().unwrap();
    let first = seconds();
    let [entry] = &rates(&fresh)[..] else {
        panic!("{:?}", rates(&fresh));
    };
    slow_down(entry, 10_000.0);
    assert!(seconds() > 1000.0 * first, "{first}");
    fresh.run(&RUN).succeeds();
    let corrected = seconds();
    assert!(
        (0.05..20.0).contains(&(corrected / first)),
        "{corrected}, {first}"
    );
}
