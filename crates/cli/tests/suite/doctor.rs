//! `generate doctor`: what this machine can do.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command::{Fresh, Run};

/// The facts of a run with `--json`, by their names.
fn facts(fresh: &Fresh) -> Vec<(String, Value)> {
    let events = fresh.run(&["doctor", "--json"]).succeeds().events();
    let fact = |event: &Value| {
        assert_eq!(event["event"], "fact", "{event}");
        assert!(
            event["text"].as_str().is_some_and(|text| !text.is_empty()),
            "{event}"
        );
        (
            event["fact"].as_str().unwrap().to_owned(),
            event["figures"].clone(),
        )
    };
    events.iter().map(fact).collect()
}

fn figures<'a>(facts: &'a [(String, Value)], name: &str) -> &'a Value {
    let found = facts.iter().find(|(fact, _)| fact == name);
    &found.unwrap_or_else(|| panic!("no {name} in {facts:?}")).1
}

#[test]
fn it_says_what_the_machine_has() {
    let fresh = Fresh::new();
    let facts = facts(&fresh);
    assert_eq!(figures(&facts, "system")["architecture"], std::env::consts::ARCH);
    let bytes = |name: &str, figure: &str| figures(&facts, name)[figure].as_u64().unwrap();
    assert!(bytes("cores", "threads") > 0);
    assert!(bytes("memory", "available") <= bytes("memory", "total"));
    assert!(figures(&facts, "default budget")["from"]["kind"].is_string());
    assert_eq!(figures(&facts, "cpu")["usable"], true);
    // The cache is named although it does not exist, and nothing is made.
    let cache = figures(&facts, "cache");
    assert!(
        cache["folder"]
            .as_str()
            .unwrap()
            .starts_with(fresh.hugging_face().to_str().unwrap())
    );
    assert!(cache["free"].as_u64().unwrap() > 0);
    assert_eq!(fresh.files("."), [""; 0]);
    let output = Path::new(figures(&facts, "output")["folder"].as_str().unwrap());
    assert_eq!(output, fresh.path().canonicalize().unwrap());
}

#[test]
fn it_prints_one_fact_a_line() {
    let fresh = Fresh::new();
    let names: Vec<String> = facts(&fresh).into_iter().map(|(name, _)| name).collect();
    let run = fresh.run(&["doctor"]).succeeds();
    assert_eq!(run.stderr, "");
    // A long one is wrapped below its beginning.
    let lines: Vec<&str> = run.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(lines.len(), names.len(), "{}", run.stdout);
    for (line, name) in lines.iter().zip(&names) {
        assert!(line.starts_with(&format!("{name}  ")), "{line}");
    }
    let cpu = lines.iter().find(|line| line.starts_with("cpu ")).unwrap();
    assert!(
        cpu.contains("usable, budget ") && cpu.contains(", from "),
        "{cpu}"
    );
}

#[test]
fn it_says_why_metal_cannot_be_used() {
    let fresh = Fresh::new();
    let facts = facts(&fresh);
    let metal = figures(&facts, "metal");
    if metal["usable"] == true {
        return;
    }
    let reason = metal["reason"].as_str().unwrap();
    let run = fresh.run(&["a red circle", "--device", "metal", "--json"]);
    let last = run.events().pop().unwrap();
    assert_eq!(last["event"], "error", "{last}");
    if cfg!(target_os = "linux") {
        assert_eq!(
            metal,
            &json!({ "usable": false, "reason": "this build has no support for it" })
        );
        assert!(
            run.stderr.contains("hint: builds for macOS have it"),
            "{}",
            run.stderr
        );
    }
    run.fails(1, &format!("metal cannot be used: {reason}"));
}

#[test]
fn it_says_which_presets_run_here_and_what_they_are_read_with() {
    let fresh = Fresh::new();
    fresh.install("families/sd15", "me/tiny");
    fs::write(
        fresh.configuration(),
        "[presets.mine]\nmodel = \"me/tiny\"\nsteps = 3\n",
    )
    .unwrap();
    let facts = facts(&fresh);
    let plan = figures(&facts, "preset demo");
    assert_eq!(plan["fits"], true, "{plan}");
    assert!(plan["seconds"].as_f64().unwrap() > 0.0 && plan["predicted_peak"].as_u64() > Some(0));
    // A machine that is busy may have no time left for the plan of another.
    assert_eq!(figures(&facts, "preset mine")["here"], true);
    let missing = figures(&facts, "presets not here")["presets"].as_array().unwrap();
    assert!(missing.contains(&json!("fast")) && !missing.contains(&json!("demo")));
    assert_eq!(figures(&facts, "cache")["models"], 1);
    assert_eq!(figures(&facts, "configuration")["presets"], 1);
    // There is no large file that could be measured.
    assert_eq!(figures(&facts, "disk")["bytes_per_second"], Value::Null);
    assert!(figures(&facts, "output")["free"].as_u64() > Some(0));
    assert_eq!(figures(&facts, "token")["from"], Value::Null);
    let mut command = fresh.command();
    command.args(["doctor"]).env("HF_TOKEN", "hf_secret");
    let run = Run::of(command.output().unwrap()).succeeds();
    assert!(run.stdout.contains("in the environment") && !run.stdout.contains("hf_secret"));
    // A configuration that cannot be read is a fact, and no end.
    fs::write(fresh.configuration(), "defaults = 3").unwrap();
    let run = fresh.run(&["doctor"]).succeeds();
    assert!(
        run.stdout.contains("configuration") && run.stdout.contains("not used: "),
        "{}",
        run.stdout
    );
}

#[test]
fn it_measures_the_disk_of_a_large_model() {
    let fresh = Fresh::new();
    let kept = fresh.path().join("kept/checkpoints");
    fs::create_dir_all(&kept).unwrap();
    fs::File::create(kept.join("large.safetensors"))
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let kept = fresh.path().join("kept");
    fs::write(
        fresh.configuration(),
        format!("models_path = {:?}\n", kept.to_str().unwrap()),
    )
    .unwrap();
    let facts = facts(&fresh);
    assert!(figures(&facts, "disk")["bytes_per_second"].as_u64() > Some(0));
    assert_eq!(figures(&facts, "models_path")["files"], 1);
}
