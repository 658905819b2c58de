//! The budget: it is planned, kept, and changes no image.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::command::{Fresh, Image, Run, control_of_large_transformer, model_with_large_transformer};
use serde_json::{Value, json};

const TINY: [&str; 7] = ["a cat", "--model", "model", "--size", "128x128", "--seed", "7"];

/// The plan of a run with `arguments`.
fn plan(fresh: &Fresh, arguments: &[&str]) -> Value {
    let run = fresh
        .run(&[&["plan"], arguments, &["--json"]].concat())
        .succeeds();
    serde_json::from_str(run.stdout.trim()).unwrap()
}

fn bytes(plan: &Value, name: &str) -> u64 {
    plan[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {plan}"))
}

fn sidecar(run: &Run, fresh: &Fresh, index: usize) -> Value {
    let path = fresh.path().join(run.images()[index].with_extension("json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn image(run: &Run, fresh: &Fresh, index: usize) -> Vec<[u8; 3]> {
    Image::read(&fresh.path().join(&run.images()[index])).pixels
}

#[test]
fn a_plan_is_a_table_and_reads_no_weight() {
    let fresh = Fresh::new();
    let model = fresh.tiny_model();
    // Weights of an unsupported type would be an error if they were read.
    for network in ["transformer", "vae"] {
        let path = model.join(network).join("diffusion_pytorch_model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half..].fill(0xff);
        fs::write(&path, bytes).unwrap();
    }
    // Of what is available the table would say what other programs leave.
    let within = [&TINY[..], &["--memory", "2GB"]].concat();
    let run = fresh.run(&[&["plan"], &within[..]].concat()).succeeds();
    assert_eq!(run.stderr, "model: 128x128, 28 steps, guidance 4.5, seed 7\n");
    let quiet = fresh
        .run(&[&["plan", "--quiet"], &within[..]].concat())
        .succeeds();
    assert_eq!(quiet.stderr, "");
    let table = run.stdout;
    for word in [
        "stage",
        "predicted peak",
        "text_encoder",
        "conditions",
        "denoise",
        "decode",
        "budget",
    ] {
        assert!(table.contains(word), "{word} is not in:\n{table}");
    }
    assert_eq!(
        fresh.run(&[&within[..], &["--plan"]].concat()).succeeds().stdout,
        table
    );
    assert!(!fresh.path().join("outputs").exists());
}

#[test]
fn a_run_keeps_to_its_plan_and_the_budget_changes_no_pixel() {
    let fresh = Fresh::new();
    model_with_large_transformer(&fresh, 6);
    let arguments = [&TINY[..], &["--steps", "3", "--n", "2"]].concat();
    let smallest = bytes(&plan(&fresh, &arguments), "smallest_budget").to_string();
    let streamed = plan(&fresh, &[&arguments[..], &["--memory", &smallest]].concat());
    assert!(
        bytes(&streamed, "resident_blocks") < bytes(&streamed, "blocks"),
        "{streamed}"
    );

    let plenty = fresh.run(&arguments).succeeds();
    let little = fresh
        .run(&[&arguments[..], &["--memory", &smallest]].concat())
        .succeeds();
    assert!(
        little.stderr.contains("--memory"),
        "streaming is warned of: {}",
        little.stderr
    );
    for index in 0..2 {
        assert!(
            image(&plenty, &fresh, index) == image(&little, &fresh, index),
            "the budget changed a pixel"
        );
        let report = &sidecar(&little, &fresh, index)["memory"];
        assert_eq!(report["budget"].to_string(), smallest);
        let (predicted, measured) = (bytes(report, "predicted_peak"), bytes(report, "measured_peak"));
        assert!(measured <= predicted, "{measured} of {predicted} bytes");
    }
}

#[test]
fn controlnets_are_planned_for_and_no_budget_changes_a_pixel() {
    let photo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../pipeline/tests/fixtures/families/init.png"
    );
    for reads_text in [false, true] {
        let fresh = Fresh::new();
        let model = model_with_large_transformer(&fresh, 6);
        let network = control_of_large_transformer(&fresh, &model, 3, reads_text);
        let network = network.to_str().unwrap();
        let controls = ["--pose", photo, "--depth", photo, "--controlnet", network];
        let arguments = [&TINY[..], &["--steps", "2", "--n", "2", "--strict"], &controls].concat();
        let whole = plan(&fresh, &arguments);
        let smallest = bytes(&whole, "smallest_budget");
        let within = |memory: u64| format!("--memory={memory}");
        let streamed = plan(&fresh, &[&arguments[..], &[&within(smallest)]].concat());
        assert_eq!(streamed["controls_stay"], false, "{streamed}");
        assert_eq!(whole["controls_stay"], true, "{whole}");

        let plenty = fresh.run(&arguments).succeeds();
        let middle = smallest.midpoint(bytes(&whole, "predicted_peak"));
        // Between the two some blocks stay, with one network as with the other.
        let memory = if reads_text { middle } else { smallest };
        let little = fresh
            .run(&[&arguments[..], &[&within(memory)]].concat())
            .succeeds();
        for index in 0..2 {
            assert!(
                image(&plenty, &fresh, index) == image(&little, &fresh, index),
                "the budget changed a pixel"
            );
            let report = &sidecar(&little, &fresh, index)["memory"];
            let (predicted, measured) = (bytes(report, "predicted_peak"), bytes(report, "measured_peak"));
            assert!(measured <= predicted, "{measured} of {predicted} bytes");
        }
    }
}

#[test]
fn images_share_a_streamed_pass() {
    let fresh = Fresh::new();
    model_with_large_transformer(&fresh, 6);
    let arguments = |images: &'static str| [&TINY[..], &["--steps", "5", "--n", images]].concat();
    // Enough memory for the activations of four images, and for hardly any resident block.
    let smallest = bytes(&plan(&fresh, &arguments("1")), "smallest_budget");
    let memory = (smallest + (12 << 20)).to_string();
    let read = |images: &'static str| {
        let arguments = [&arguments(images)[..], &["--memory", &memory]].concat();
        let shared = bytes(&plan(&fresh, &arguments), "pictures_a_pass");
        let run = fresh.run(&arguments).succeeds();
        (shared, bytes(&sidecar(&run, &fresh, 0)["memory"], "weights_read"))
    };
    let ((_, one), (shared, four)) = (read("1"), read("4"));
    assert_eq!(shared, 4);
    assert!(
        10 * four < 13 * one,
        "{four} bytes for four images, {one} for one"
    );
}

#[test]
fn a_budget_that_cannot_be_met_or_read() {
    let fresh = Fresh::new();
    let run = fresh.run(&["a cat", "--memory", "1MB"]).fails(3, "at the least");
    assert!(run.stderr.contains("1.0MB"), "{}", run.stderr);
    fresh
        .run(&["plan", "a cat", "--memory", "1MB"])
        .fails(3, "at the least");
    for wrong in ["lots", "-1GB", "", "8XB"] {
        fresh
            .run(&["a cat", &format!("--memory={wrong}")])
            .fails(2, "--memory");
    }
    assert!(!fresh.path().join("outputs").exists());
}

#[test]
fn weights_that_change_while_they_are_streamed_end_the_run() {
    for shrink in [true, false] {
        let fresh = Fresh::new();
        let model = model_with_large_transformer(&fresh, 6);
        let arguments = [&TINY[..], &["--steps", "1000"]].concat();
        let smallest = bytes(&plan(&fresh, &arguments), "smallest_budget").to_string();
        let arguments = [&arguments[..], &["--memory", &smallest, "--json"]].concat();
        let mut child = fresh
            .command()
            .args(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines
            .find(|line| line.as_ref().unwrap().contains("\"step\""))
            .unwrap()
            .unwrap();
        let weights = model.join("transformer/diffusion_pytorch_model.safetensors");
        let file = OpenOptions::new().write(true).open(weights).unwrap();
        if shrink {
            file.set_len(2000).unwrap();
        } else {
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        // Read the rest, so that the run is not blocked by a full pipe.
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        let run = Run::of(child.wait_with_output().unwrap());
        let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(last["event"], "error", "{last}");
        run.fails(1, "has changed since it was opened");
        assert_eq!(fresh.files("outputs"), [""; 0]);
    }
}

#[test]
fn a_budget_says_what_it_comes_from() {
    let fresh = Fresh::new();
    let asked_for = plan(&fresh, &["a cat", "--memory", "1GB"]);
    assert_eq!(asked_for["budget_from"], json!({ "kind": "asked_for" }));
    let found = plan(&fresh, &["a cat"]);
    assert!(found["budget_from"]["kind"].is_string(), "{found}");
    assert_ne!(found["budget_from"], asked_for["budget_from"]);
    let table = fresh.run(&["plan", "a cat"]).succeeds().stdout;
    assert!(table.contains("\nthe budget comes from "), "{table}");
}

/// The limits of a shell are a part of the plan, and suffice to generate.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_addresses_is_kept() {
    const LIMIT: u64 = 700_000 << 10;
    let fresh = Fresh::new();
    let limited = |arguments: &str| {
        let script = format!(
            "ulimit -v {}; exec '{}' {arguments}",
            LIMIT >> 10,
            env!("CARGO_BIN_EXE_generate")
        );
        Run::of(fresh.shell(&script).output().unwrap()).succeeds()
    };
    let plan: Value = serde_json::from_str(limited("plan 'a red circle' --json").stdout.trim()).unwrap();
    assert_eq!(
        plan["budget_from"],
        json!({ "kind": "address_space", "limit": LIMIT })
    );
    assert!(bytes(&plan, "budget") < LIMIT, "{plan}");
    limited("'a red circle' --steps 2 --threads 2");
}
