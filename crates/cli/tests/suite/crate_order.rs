//! The layers of ARCHITECTURE.md: which crate may use which, and which dependencies it may not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The crates from the lowest up: each may use those before it.
const CRATES: [&str; 12] = [
    "sd-files",
    "sd-hub",
    "sd-memory",
    "sd-ops",
    "sd-weights",
    "sd-models",
    "sd-schedulers",
    "sd-pipeline",
    "sd-catalog",
    "sd-server",
    "sd-generate",
    "sd-fuzz",
];

/// Pairs of which the first may not use the second, although it is in a higher layer.
const STRANGERS: [(&str, &str); 29] = [
    ("sd-memory", "sd-hub"),
    ("sd-ops", "sd-hub"),
    ("sd-weights", "sd-hub"),
    ("sd-models", "sd-hub"),
    ("sd-pipeline", "sd-hub"),
    ("sd-ops", "sd-memory"),
    ("sd-weights", "sd-memory"),
    ("sd-models", "sd-memory"),
    ("sd-schedulers", "sd-files"),
    ("sd-schedulers", "sd-hub"),
    ("sd-schedulers", "sd-memory"),
    ("sd-schedulers", "sd-weights"),
    ("sd-schedulers", "sd-models"),
    ("sd-catalog", "sd-memory"),
    ("sd-catalog", "sd-ops"),
    ("sd-catalog", "sd-weights"),
    ("sd-catalog", "sd-models"),
    ("sd-catalog", "sd-schedulers"),
    ("sd-server", "sd-hub"),
    ("sd-server", "sd-memory"),
    ("sd-server", "sd-ops"),
    ("sd-server", "sd-weights"),
    ("sd-server", "sd-models"),
    ("sd-server", "sd-schedulers"),
    ("sd-generate", "sd-memory"),
    ("sd-generate", "sd-weights"),
    ("sd-generate", "sd-ops"),
    ("sd-generate", "sd-models"),
    ("sd-generate", "sd-schedulers"),
];

/// Pairs of a crate and a dependency that it may not have.
const UNKNOWN: [(&str, &str); 15] = [
    ("sd-files", "candle-core"),
    ("sd-hub", "candle-core"),
    ("sd-memory", "candle-core"),
    ("sd-catalog", "candle-core"),
    ("sd-catalog", "clap"),
    ("sd-catalog", "indicatif"),
    ("sd-pipeline", "clap"),
    ("sd-pipeline", "axum"),
    ("sd-server", "candle-core"),
    ("sd-server", "clap"),
    ("sd-generate", "axum"),
    ("sd-generate", "candle-core"),
    ("sd-weights", "tokenizers"),
    ("sd-models", "tokenizers"),
    ("sd-schedulers", "tokenizers"),
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every crate of the workspace with its dependencies, without those of tests.
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
fn no_crate_reaches_up() {
    let dependencies = dependencies();
    let names: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        CRATES.into(),
        "a new crate needs its place in this table and in ARCHITECTURE.md"
    );
    for (height, user) in CRATES.iter().enumerate() {
        let of_workspace = dependencies[*user]
            .iter()
            .map(String::as_str)
            .filter(|name| names.contains(name));
        for used in of_workspace {
            assert!(CRATES[..height].contains(&used), "{user} may not use {used}");
            assert!(!STRANGERS.contains(&(user, used)), "{user} need not know {used}");
        }
    }
    for (user, unknown) in UNKNOWN {
        assert!(
            !dependencies[user].contains(unknown),
            "{user} may not know {unknown}"
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
