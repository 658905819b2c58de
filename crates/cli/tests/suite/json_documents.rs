//! What `--json` prints and what lies beside images is as `docs/json.schema.json` says. Every test that reads events
//! holds them to the schema too.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::command::schema;
use crate::command::{Fresh, Run};

#[test]
fn every_command_prints_what_the_schema_says() {
    let fresh = Fresh::new();
    let small = ["a red circle", "--size", "64x64", "--steps", "2", "--json"];
    fs::write(fresh.path().join("prompts.txt"), "a red circle\na blue square\n").unwrap();
    let commands: [&[&str]; 9] = [
        &[&["--prompt-file", "prompts.txt"], &small[1..]].concat(),
        &[&small[..], &["--preview", "--upscale", "2", "--n", "2"]].concat(),
        &[&["plan"], &small[..]].concat(),
        &["resume", "--json"],
        &["models", "--json"],
        &["doctor", "--json"],
        &["convert", "demo", "-o", "demo.gguf", "--to", "q8_0", "--json"],
        &["models", "verify", "demo.gguf", "--json"],
        &["login", "--token", "hf_abc", "--json"],
    ];
    let mut seen = BTreeSet::new();
    for words in commands {
        let events = fresh.run(words).succeeds().events();
        assert!(!events.is_empty(), "{words:?}");
        seen.extend(
            events
                .iter()
                .map(|event| event["event"].as_str().unwrap().to_owned()),
        );
    }
    let failed = fresh.run(&["plan", "x", "--model", "nowhere", "--json"]);
    assert_eq!(failed.events().last().unwrap()["event"], "error");
    // The others need a hub, an interruption or a failure, or take more than a second; tests of those check them.
    let elsewhere = [
        "download",
        "downloading",
        "error",
        "kept",
        "parameters",
        "progress",
        "pulled",
        "removed",
        "resumed",
        "warning",
    ];
    seen.extend(elsewhere.map(str::to_owned));
    let described: BTreeSet<String> = schema::events().into_iter().collect();
    assert_eq!(seen, described);
}

#[test]
fn every_line_names_the_version_of_the_schema() {
    let fresh = Fresh::new();
    let run = fresh.run(&["doctor", "--json"]).succeeds();
    assert!(run.events().iter().all(|event| event["schema"] == 1));
}

#[test]
fn what_lies_beside_an_image_is_as_the_schema_says() {
    let fresh = Fresh::new();
    let small = ["a red circle", "--size", "64x64", "--steps", "2"];
    let more: [&[&str]; 2] = [
        &[],
        &[
            "--refiner",
            "demo",
            "--upscale",
            "2",
            "--style",
            "anime",
            "--n",
            "2",
        ],
    ];
    for arguments in more {
        let run = fresh.run(&[&small[..], arguments].concat()).succeeds();
        for sidecar in sidecars(&fresh, &run) {
            schema::check_sidecar(&sidecar);
            assert_eq!(sidecar["schema"], 1);
        }
    }
}

fn sidecars(fresh: &Fresh, run: &Run) -> Vec<Value> {
    let read = |image: std::path::PathBuf| {
        let text = fs::read(fresh.path().join(image).with_extension("json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    run.images().into_iter().map(read).collect()
}
