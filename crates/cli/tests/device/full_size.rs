//! The memory of full-size models, whose commands are counted by the stand-in and not computed: what its buffers
//! hold, against the plan.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::architecture;
use crate::command::{Fresh, Run};
use crate::shards::{self, Contents};

const GB: u64 = 1 << 30;

/// What the stand-in counted in a run.
struct Counted {
    /// The most bytes of buffers that were alive at a time.
    peak: u64,
    /// Bytes of buffers at the end.
    left: u64,
    dispatches: u64,
    /// Bytes that kernels were given to read and write.
    moved: u64,
    hazards: u64,
}

impl Counted {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let of = |name: &str| {
            let start = format!("    {name}: ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
            line.trim_end_matches(',').parse().unwrap()
        };
        Self {
            peak: of("peak"),
            left: of("live"),
            dispatches: of("dispatches"),
            moved: of("moved"),
            hazards: of("hazards"),
        }
    }
}

/// A model of zeros, which takes no room. It lies in memory, if there is a folder for that: what was never written is
/// not cached when it is read from there, and most of the time of these tests would pass with such caching.
fn model(name: &str) -> TempDir {
    model_of(name, Contents::Zeros)
}

fn model_of(name: &str, contents: Contents) -> TempDir {
    let model = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let model = model.unwrap();
    let folder = model.path();
    let architecture = architecture::named(name).unwrap();
    for (path, contents) in &architecture.texts {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    for component in &architecture.components {
        shards::write(&folder.join(component.folder), component, contents).unwrap();
    }
    fs::write(folder.join("model_index.json"), architecture.index.unwrap()).unwrap();
    model
}

/// A run of `steps` steps on a device that has no more than `limit` bytes.
fn run(
    fresh: &Fresh,
    model: &TempDir,
    size: &str,
    budget: &str,
    steps: &str,
    limit: Option<u64>,
) -> (u64, Counted) {
    let report = fresh.path().join("report");
    let mut command = fresh.command();
    command
        .env("METAL_STANDIN_DRY", "1")
        .env("METAL_STANDIN_REPORT", &report);
    if let Some(limit) = limit {
        command.env("METAL_STANDIN_LIMIT", limit.to_string());
    }
    command
        .args([
            "a red circle",
            "--device",
            "metal",
            "--seed",
            "1",
            "--json",
            "--model",
        ])
        .arg(model.path());
    command.args(["--size", size, "--memory", budget, "--steps", steps]);
    let run = Run::of(command.output().unwrap()).succeeds();
    let planned = run
        .events()
        .into_iter()
        .find(|event| event["event"] == "planned")
        .unwrap();
    let predicted = planned["plan"]["predicted_peak"].as_u64().unwrap();
    (predicted, Counted::read(&report))
}

/// Runs `steps` steps of a model within `budget` and holds it to its plan, and to `most` bytes.
fn stays_within(fresh: &Fresh, model: &TempDir, size: &str, budget: &str, steps: &str, most: u64) -> Counted {
    let (predicted, counted) = run(fresh, model, size, budget, steps, None);
    let gb = |bytes: u64| bytes as f64 / GB as f64;
    println!(
        "{size} within {budget}: predicted {:.3} GB, at most {:.3} GB of buffers",
        gb(predicted),
        gb(counted.peak)
    );
    assert!(counted.peak <= predicted, "{} of {predicted}", counted.peak);
    assert!(counted.peak <= most, "{} of {most}", counted.peak);
    assert_eq!((counted.left, counted.hazards), (0, 0));
    counted
}

#[test]
fn large_takes_two_gigabytes_and_a_few_thousand_commands_a_step() {
    let fresh = Fresh::new();
    let model = model("sd3.5-large");
    let of = |steps| stays_within(&fresh, &model, "1024x1024", "1.4GB", steps, 2 * GB);
    // The prompt is encoded by the first run alone.
    of("1");
    let (one, two) = (of("1"), of("2"));
    let dispatches = two.dispatches - one.dispatches;
    let moved = two.moved - one.moved;
    println!("a step: {dispatches} dispatches, {:.3} TB", moved as f64 / 1e12);
    assert!(dispatches <= 6000, "{dispatches}");
    assert!(moved <= 300_000_000_000, "{moved}");
    stays_within(&fresh, &model, "512x512", "1.2GB", "1", 3 * GB / 2);
}

#[test]
fn weights_in_8_bits_stay_so() {
    let fresh = Fresh::new();
    let [wide, narrow] = [Contents::Zeros, Contents::ZerosInFp8].map(|contents| {
        let model = model_of("sd3.5-medium", contents);
        let counted = stays_within(&fresh, &model, "512x512", "8GB", "1", 8 * GB);
        stays_within(&fresh, &model, "512x512", "1GB", "1", GB);
        counted.peak
    });
    assert!(narrow < wide * 7 / 10, "{narrow} and {wide}");
}

#[test]
fn medium_takes_two_gigabytes() {
    let fresh = Fresh::new();
    let model = model("sd3.5-medium");
    stays_within(&fresh, &model, "1024x1024", "2GB", "1", 2 * GB);
}

#[test]
fn sdxl_takes_one_and_a_half() {
    let fresh = Fresh::new();
    let model = model("sdxl");
    stays_within(&fresh, &model, "1024x1024", "1.5GB", "2", 3 * GB / 2);
}

#[test]
fn sd15_takes_one() {
    let fresh = Fresh::new();
    let model = model("sd1.5");
    stays_within(&fresh, &model, "512x512", "1GB", "2", GB);
    stays_within(&fresh, &model, "512x512", "8GB", "2", 8 * GB);
}

#[test]
fn a_device_of_the_budget_has_enough() {
    let fresh = Fresh::new();
    let model = model("sdxl");
    let (_, counted) = run(&fresh, &model, "1024x1024", "2GB", "1", Some(2 * GB));
    assert!(counted.peak <= 2 * GB);
}
