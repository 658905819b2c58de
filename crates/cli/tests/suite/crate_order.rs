//! The rooms of ARCHITECTURE.md: which crate may use which, and which crates may not be used at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// From the ground up: a crate may use those before it.
const ROOMS: [&str; 9] = [
    "sd-files",
    "sd-hub",
    "sd-memory",
    "sd-ops",
    "sd-weights",
    "sd-models",
    "sd-schedulers",
    "sd-pipeline",
    "sd-generate",
];

/// Neighbours that know nothing of each other, though one stands before the other.
const STRANGERS: [(&str, &str); 17] = [
    ("sd-memory", "sd-hub"),
    ("sd-ops", "sd-hub"),
    ("sd-weights", "sd-hub"),
    ("sd-models", "sd-hub"),
    ("sd-pipeline", "sd-hub"),
    ("sd-ops", "sd-memory"),
    ("sd-weights", "sd-memory"),
    ("sd-weights", "sd-ops"),
    ("sd-models", "sd-memory"),
    ("sd-schedulers", "sd-files"),
    ("sd-schedulers", "sd-hub"),
    ("sd-schedulers", "sd-memory"),
    ("sd-schedulers", "sd-weights"),
    ("sd-schedulers", "sd-models"),
    ("sd-generate", "sd-ops"),
    ("sd-generate", "sd-models"),
    ("sd-generate", "sd-schedulers"),
];

/// Crates below the named one may not depend on these.
const UNKNOWN: [(&str, &str); 7] = [
    ("sd-files", "candle-core"),
    ("sd-hub", "candle-core"),
    ("sd-memory", "candle-core"),
    ("sd-generate", "candle-core"),
    ("sd-weights", "tokenizers"),
    ("sd-models", "tokenizers"),
    ("sd-schedulers", "tokenizers"),
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every crate of the workspace with what it depends on, tests aside.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let used = dependencies.filter(|dependency| dependency["kind"].is_null());
            let names = used.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

#[test]
fn no_room_reaches_up() {
    let dependencies = dependencies();
    let names: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ROOMS.into(),
        "a new crate needs its place in this table and in ARCHITECTURE.md"
    );
    for (height, room) in ROOMS.iter().enumerate() {
        let used: Vec<&String> = dependencies[*room]
            .iter()
            .filter(|name| names.contains(name.as_str()))
            .collect();
        for name in used {
            assert!(
                ROOMS[..height].contains(&name.as_str()),
                "{room} may not use {name}"
            );
            assert!(
                !STRANGERS.contains(&(room, name.as_str())),
                "{room} need not know {name}"
            );
        }
    }
    for (room, stranger) in UNKNOWN {
        assert!(
            !dependencies[room].contains(stranger),
            "{room} may not know {stranger}"
        );
    }
}

#[test]
fn nothing_needs_a_system_library() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for refused in ["openssl-sys", "native-tls", "onig_sys", "mkl-sys", "bindgen"] {
        assert!(!lock.contains(&format!("name = \"{refused}\"")), "{refused}");
    }
}
