//! `generate doctor`: what this machine can do.

use serde_json::{Value, json};

use crate::command::Fresh;

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
}

#[test]
fn it_prints_one_fact_a_line() {
    let fresh = Fresh::new();
    let names: Vec<String> = facts(&fresh).into_iter().map(|(name, _)| name).collect();
    let run = fresh.run(&["doctor"]).succeeds();
    assert_eq!(run.stderr, "");
    let lines: Vec<&str> = run.stdout.lines().collect();
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
