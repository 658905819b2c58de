//! Several devices: the images of a run are shared out among processes, and are those of one device.

use std::fs;
use std::path::Path;

use crate::command::{Fresh, Image, Run};
use serde_json::Value;

/// Quick images of the built-in model.
const QUICK: [&str; 4] = ["--size", "64x64", "--steps", "4"];

/// The images in a folder in the order of their names: the number of the name, the seed, and the pixels.
fn images(folder: &Path) -> Vec<(String, u64, Vec<[u8; 3]>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            let metadata = fs::read(path.with_extension("json")).unwrap();
            let metadata: Value = serde_json::from_slice(&metadata).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy();
            let number = name.rsplit('_').next().unwrap().to_owned();
            (
                number,
                metadata["seed"].as_u64().unwrap(),
                Image::read(path).pixels,
            )
        })
        .collect()
}

fn images_of(fresh: &Fresh) -> Vec<(String, u64, Vec<[u8; 3]>)> {
    images(&fresh.path().join("outputs"))
}

#[test]
fn several_devices_generate_the_images_of_one() {
    let (one, several) = (Fresh::new(), Fresh::new());
    let arguments = [&["a red circle", "--n", "5", "--seed", "9,3,7,1,8"], &QUICK[..]].concat();
    one.run(&arguments).succeeds();
    let run = several
        .run(&[&arguments[..], &["--device", "cpu,cpu,cpu"]].concat())
        .succeeds();
    assert_eq!(run.images().len(), 5);
    for line in [
        "cpu generates image 1",
        "cpu generates images 2 to 3",
        "cpu generates images 4 to 5",
    ] {
        assert!(run.stderr.lines().any(|found| found == line), "{}", run.stderr);
    }
    let expected = images_of(&one);
    assert_eq!(expected.len(), 5);
    assert!(images_of(&several) == expected, "{:?}", several.files("outputs"));
    assert_eq!(fs::read_dir(several.runs()).unwrap().count(), 0);

    // Beside files that are there already.
    let (one, several) = (Fresh::new(), Fresh::new());
    let arguments = [
        &["a red circle", "--n", "4", "--output", "outputs/%03d.png"],
        &QUICK[..],
    ]
    .concat();
    for fresh in [&one, &several] {
        fs::create_dir(fresh.path().join("outputs")).unwrap();
        fs::write(fresh.path().join("outputs/002.json"), "{}").unwrap();
    }
    one.run(&arguments).succeeds();
    let run = several
        .run(&[&arguments[..], &["--device", "cpu,cpu"]].concat())
        .succeeds();
    assert!(
        run.images().iter().all(|image| image.starts_with("outputs")),
        "{}",
        run.stdout
    );
    assert!(
        images_of(&several) == images_of(&one),
        "{:?}",
        several.files("outputs")
    );

    // The name that the user gives them.
    let named = ["--output", "named/cat.png"];
    let (one, several) = (Fresh::new(), Fresh::new());
    let arguments = [&["a red circle", "--n", "2"], &QUICK[..], &named].concat();
    one.run(&arguments).succeeds();
    several
        .run(&[&arguments[..], &["--device", "cpu,cpu"]].concat())
        .succeeds();
    assert_eq!(several.files("named"), one.files("named"));
}

#[test]
fn prompts_are_shared_out_too() {
    let (one, several) = (Fresh::new(), Fresh::new());
    let prompts = "a red circle\n--prompt \"a blue square\" --n 2\na green star\n";
    for fresh in [&one, &several] {
        fs::write(fresh.path().join("prompts.txt"), prompts).unwrap();
    }
    let arguments = [
        &["--prompt-file", "prompts.txt", "--output", "outputs/%03d.png"],
        &QUICK[..],
    ]
    .concat();
    one.run(&arguments).succeeds();
    let run = several.run(&[&arguments[..], &["--device", "cpu,cpu", "--json"]].concat());
    let events = run.succeeds().events();
    let saved: Vec<&Value> = events.iter().filter(|event| event["event"] == "saved").collect();
    assert_eq!(saved.len(), 4);
    assert!(events.iter().all(|event| event["device"] == "cpu"));
    assert!(
        images_of(&several) == images_of(&one),
        "{:?}",
        several.files("outputs")
    );
}

#[test]
fn what_several_devices_cannot_do_is_refused() {
    let fresh = Fresh::new();
    let run =
        |arguments: &[&str]| fresh.run(&[&["a red circle", "--n", "2"], &QUICK[..], arguments].concat());
    run(&["--device", "cpu,cpu", "--profile", "page.html"]).fails(2, "--profile shows one device");
    run(&["--device", "cpu,cuda"]).fails(2, "several devices are all GPUs, cuda:N, or all cpu");
    run(&["--device", "cuda:1,cuda:1"]).fails(2, "a GPU is named twice");
    // What a device finds out is an error of the command, once.
    run(&["--device", "cpu,cpu", "--memory", "2MB"]).fails(3, "cpu: ");
    assert!(fresh.files(".").iter().all(|name| name == "outputs"));
    // One image needs one device.
    let one = fresh.run(&[&["a red circle", "--device", "cpu,cpu"], &QUICK[..]].concat());
    assert!(!one.succeeds().stderr.contains("cpu generates"));
}

#[cfg(unix)]
#[test]
fn interrupted_devices_resume_to_the_same_images() {
    use crate::background::Running;

    let arguments = ["a house", "--steps", "40", "--n", "2", "--size", "64x64"];
    let undisturbed = Fresh::new();
    undisturbed.run(&arguments).succeeds();
    let shared = [&arguments[..], &["--device", "cpu,cpu"]].concat();

    let fresh = Fresh::new();
    let mut running = Running::start(&fresh, &shared);
    assert!(running.wait_for("step"));
    let run = running.interrupt();
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    resume_all(&fresh, &run);
    assert!(images_of(&fresh) == images_of(&undisturbed), "other images");

    // The processes of a command that is killed do not stay behind.
    let fresh = Fresh::new();
    let mut running = Running::start(&fresh, &shared);
    assert!(running.wait_for("step"));
    running.kill();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while images_of_all(&fresh) < 2 {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            fresh.files("outputs")
        );
        fresh.run(&["resume", "--last", "--quiet"]);
    }
    assert!(images_of(&fresh) == images_of(&undisturbed), "other images");
}

/// How many images are saved.
#[cfg(unix)]
fn images_of_all(fresh: &Fresh) -> usize {
    let files = fresh.files("outputs");
    files.iter().filter(|name| name.ends_with(".png")).count()
}

/// Resumes the runs that `interrupted` names.
#[cfg(unix)]
fn resume_all(fresh: &Fresh, interrupted: &Run) {
    let events = interrupted.events();
    let kept: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "kept")
        .map(|event| event["run"].as_str().unwrap())
        .collect();
    assert!(!kept.is_empty());
    for run in kept {
        assert!(
            interrupted.stderr.contains(&format!("`generate resume {run}`")),
            "{}",
            interrupted.stderr
        );
        fresh.run(&["resume", run]).succeeds();
    }
    assert_eq!(fs::read_dir(fresh.runs()).unwrap().count(), 0);
}
