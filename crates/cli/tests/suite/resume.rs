//! Resumed runs: after a kill, an interruption or a refusal, the images are those of an undisturbed run.
//!
//! `SD_TEST_CRASH_STRIDE=1 cargo test --workspace --test suite resume::` ends runs at every point where they can end.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::background::Running;
use crate::command::{Fresh, Image, Run, model_with_large_transformer, tensor_offset};
use serde_json::Value;

/// Of so many points where a run can end the test takes one, if nothing else is said.
#[cfg(debug_assertions)]
const STRIDE: usize = 9;

/// Input files of the user.
const PHOTO: &str = "pipeline/tests/fixtures/families/init.png";
const MASK: &str = "pipeline/tests/fixtures/families/mask.png";
const UPSCALER: &str = "models/tests/fixtures/upscaler/x4/model.pth";

/// The absolute path of `file` below the crates.
fn fixture(file: &str) -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    crates
        .canonicalize()
        .unwrap()
        .join(file)
        .to_str()
        .unwrap()
        .to_owned()
}

/// The results in an output folder by seed and prompt: the image file, and its metadata without names and times.
fn results(folder: &Path) -> Vec<(Vec<u8>, Value)> {
    let mut results: Vec<(Vec<u8>, Value)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .map(|path| {
            assert!(!Image::read(&path).pixels.is_empty());
            let metadata = fs::read(path.with_extension("json")).unwrap();
            let mut metadata: Value = serde_json::from_slice(&metadata).unwrap();
            for changing in ["filename", "started", "generation_time", "memory"] {
                assert!(metadata.as_object_mut().unwrap().remove(changing).is_some());
            }
            for warning in metadata["warnings"].as_array_mut().unwrap() {
                warning.as_object_mut().unwrap().remove("at").unwrap();
            }
            (fs::read(path).unwrap(), metadata)
        })
        .collect();
    results.sort_by_key(|(_, metadata)| (metadata["seed"].as_u64(), metadata["prompt"].to_string()));
    results
}

/// The id of the one interrupted run.
fn only_run(fresh: &Fresh) -> String {
    let run = fresh.run(&["resume", "--json"]).succeeds();
    let events = run.events();
    let runs = events[0]["runs"].as_array().unwrap();
    assert_eq!((events.len(), runs.len()), (1, 1), "{}", run.stdout);
    runs[0]["id"].as_str().unwrap().to_owned()
}

fn assert_nothing_is_left(fresh: &Fresh, images: usize) {
    assert_eq!(fs::read_dir(fresh.runs()).unwrap().count(), 0);
    let files = fresh.files("outputs");
    assert_eq!(files.len(), 2 * images, "{files:?}");
    assert!(files.iter().all(|name| name.starts_with("output_")), "{files:?}");
}

/// Whether an entry of the folder of states is a state, and no lock.
#[cfg(debug_assertions)]
fn is_state(entry: std::io::Result<fs::DirEntry>) -> bool {
    let path = entry.unwrap().path();
    path.extension()
        .is_some_and(|extension| extension == "safetensors")
}

/// Ends runs at every point of `STRIDE`: between two changes of the disk and after each step, which
/// `SD_TEST_CRASH_AT` counts in builds with debug assertions.
#[cfg(debug_assertions)]
#[test]
fn a_run_that_ends_at_any_point_resumes_to_the_same_images() {
    let stride: usize = env::var("SD_TEST_CRASH_STRIDE").map_or(STRIDE, |stride| stride.parse().unwrap());
    let (photo, mask, network) = (fixture(PHOTO), fixture(MASK), fixture(UPSCALER));
    // Many steps; many images; and everything that a user can name.
    let shapes: [&[&str]; 3] = [
        &["a red circle", "--steps", "12", "--n", "2", "--size", "64x64"],
        &["two green squares", "--steps", "1", "--n", "4", "--size", "64x64"],
        &[
            "a red circle",
            "--steps",
            "4",
            "--n",
            "2",
            "--init-image",
            &photo,
            "--mask",
            &mask,
            "--upscale",
            "2",
            "--upscaler",
            &network,
        ],
    ];
    let mut points = 0;
    for (shape, arguments) in shapes.into_iter().enumerate() {
        let undisturbed = Fresh::new();
        undisturbed.run(arguments).succeeds();
        let expected = results(&undisturbed.path().join("outputs"));
        for point in (1 + shape % stride..).step_by(stride) {
            let fresh = Fresh::new();
            let run = |arguments: &[&str], point: usize| {
                let mut command = fresh.command();
                command.args(arguments).env("SD_TEST_CRASH_AT", point.to_string());
                Run::of(command.output().unwrap())
            };
            let whole = run(arguments, point).code.is_some();
            let has_state = || fs::read_dir(fresh.runs()).is_ok_and(|mut files| files.any(is_state));
            if !whole && !has_state() && fresh.files("outputs").is_empty() {
                // It ended before it had a state.
                continue;
            }
            if !whole {
                points += 1;
                // Every third run ends a second time, soon after it was resumed.
                if points % 3 == 0 {
                    run(&["resume", "--last"], 2);
                }
                fresh.run(&["resume", "--last", "--quiet"]).succeeds();
            }
            assert!(
                results(&fresh.path().join("outputs")) == expected,
                "ended at point {point} of {arguments:?}, it gave other images: {:?}",
                fresh.files("outputs")
            );
            assert_nothing_is_left(&fresh, expected.len());
            if whole {
                break;
            }
        }
    }
    assert!(points >= 50 / stride, "{points} points");
    eprintln!("{points} runs were ended and resumed");
}

#[cfg(unix)]
#[test]
fn a_stopped_run_says_how_to_resume_it() {
    let arguments = ["a house", "--steps", "30", "--n", "2", "--seed", "3"];
    let undisturbed = Fresh::new();
    undisturbed.run(&arguments).succeeds();

    let fresh = Fresh::new();
    let mut running = Running::start(&fresh, &arguments);
    assert!(running.wait_for("step"));
    let run = running.interrupt();
    assert_eq!(run.code, Some(130));
    let id = only_run(&fresh);
    let hint = format!("hint: `generate resume {id}` resumes it");
    assert_eq!(run.stderr.lines().last(), Some(hint.as_str()));
    let kinds: Vec<Value> = run
        .events()
        .into_iter()
        .map(|event| event["event"].clone())
        .collect();
    assert!(kinds.ends_with(&["kept".into(), "error".into()]), "{kinds:?}");

    let table = fresh.run(&["resume"]).succeeds().stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert!(
        rows.len() == 2 && rows[1].starts_with(&id) && rows[1].ends_with("a house"),
        "{table}"
    );
    assert!(rows[1].contains(" of 60"), "{table}");

    // From another current folder.
    let elsewhere = fresh.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let output = fresh
        .command()
        .current_dir(&elsewhere)
        .args(["resume", &id, "--json"])
        .output();
    let events = Run::of(output.unwrap()).succeeds().events();
    let steps = events.iter().filter(|event| event["event"] == "step").count();
    let resumed = events.iter().find(|event| event["event"] == "resumed").unwrap();
    assert_eq!(resumed["run"], id.as_str());
    assert_eq!(resumed["steps_done"].as_u64().unwrap() as usize + steps, 60);
    assert!(steps < 60, "nothing was lost");
    assert!(
        results(&fresh.path().join("outputs")) == results(&undisturbed.path().join("outputs")),
        "other images"
    );
    assert_nothing_is_left(&fresh, 2);
}

/// Started with a large budget and resumed with the smallest possible, and the other way round.
#[cfg(unix)]
#[test]
fn a_run_resumes_with_another_budget_to_the_same_images() {
    let undisturbed = Fresh::new();
    model_with_large_transformer(&undisturbed, 4);
    let arguments = [
        "a cat", "--model", "model", "--size", "64x64", "--steps", "6", "--n", "2",
    ];
    undisturbed.run(&arguments).succeeds();
    let expected = results(&undisturbed.path().join("outputs"));
    let plan = undisturbed.run(&[&["plan"], &arguments[..], &["--json"]].concat());
    let smallest = plan.succeeds().events()[0]["smallest_budget"].to_string();
    let plenty = (smallest.parse::<u64>().unwrap() + (200 << 20)).to_string();
    for (first, second) in [(&plenty, &smallest), (&smallest, &plenty)] {
        let fresh = Fresh::new();
        // Move the files: a copy has other modification times.
        fs::rename(undisturbed.path().join("model"), fresh.path().join("model")).unwrap();
        let mut running = Running::start(&fresh, &[&arguments[..], &["--memory", first]].concat());
        for _ in 0..3 {
            assert!(running.wait_for("step"));
        }
        assert_eq!(running.interrupt().code, Some(130));
        let run = fresh
            .run(&["resume", "--last", "--json", "--memory", second])
            .succeeds();
        let events = run.events();
        let planned = events.iter().find(|event| event["event"] == "planned").unwrap();
        assert_eq!(planned["plan"]["budget"].to_string(), *second);
        let found = results(&fresh.path().join("outputs"));
        assert_eq!(found.len(), expected.len());
        for ((image, _), (wanted, _)) in found.iter().zip(&expected) {
            assert!(image == wanted, "the budget changed an image");
        }
        assert_nothing_is_left(&fresh, 2);
        fs::rename(fresh.path().join("model"), undisturbed.path().join("model")).unwrap();
    }
}

#[test]
fn what_was_saved_before_the_state_said_so_is_not_saved_again() {
    let arguments = ["a tree", "--steps", "4", "--n", "3"];
    let fresh = Fresh::new();
    let mut running = Running::start(&fresh, &[&arguments[..], &["--size", "64x64"]].concat());
    assert!(running.wait_for("started"));
    running.kill();
    let id = only_run(&fresh);
    let state = fresh.runs().join(&id).with_extension("safetensors");
    let before = fs::read(&state).unwrap();
    fresh.run(&["resume", &id]).succeeds();
    let expected = results(&fresh.path().join("outputs"));
    assert_eq!(expected.len(), 3);

    // As if the process had been killed after all was saved, and before that was recorded.
    fs::write(&state, &before).unwrap();
    fs::write(state.with_extension("part"), &before[..before.len() / 2]).unwrap();
    let files = fresh.files("outputs");
    let run = fresh.run(&["resume", "--last"]).succeeds();
    assert_eq!(run.images().len(), 3);
    assert_eq!(fresh.files("outputs"), files);
    assert_nothing_is_left(&fresh, 3);

    // As if it had been killed while the second image was renamed.
    fs::write(&state, &before).unwrap();
    let second = fresh.path().join("outputs").join(files[3].replace("json", "png"));
    fs::remove_file(&second).unwrap();
    let theirs = fresh.path().join("outputs/.generate-another1-x.part");
    let ours = fresh.path().join(format!("outputs/.generate-{id}-x.part"));
    for stray in [&theirs, &ours] {
        fs::write(stray, "half an image").unwrap();
    }
    fresh.run(&["resume", "--last"]).succeeds();
    assert!(theirs.exists() && !ours.exists());
    fs::remove_file(theirs).unwrap();
    assert!(results(&fresh.path().join("outputs")) == expected, "other images");
    assert_nothing_is_left(&fresh, 3);
}

#[test]
fn a_run_at_work_is_left_alone() {
    let fresh = Fresh::new();
    let mut running = Running::start(&fresh, &["a house", "--steps", "1000"]);
    assert!(running.wait_for("step"));
    let files: Vec<PathBuf> = fs::read_dir(fresh.runs())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let state = files
        .iter()
        .find(|path| path.extension().unwrap() == "safetensors");
    let id = state.unwrap().file_stem().unwrap().to_str().unwrap().to_owned();
    fresh
        .run(&["resume", &id])
        .fails(1, &format!("run {id} is still at work in another process"));
    fresh.run(&["resume", &id, "--discard"]).fails(1, "still at work");
    let run = fresh.run(&["resume", "--last"]).succeeds();
    assert!(run.stdout.is_empty() && run.stderr.contains("There is no interrupted run"));
    // Another run starts and ends in the meantime.
    fresh.run(&["a tree", "--steps", "1"]).succeeds();
    assert!(running.wait_for("step"));
    running.kill();
    assert_eq!(only_run(&fresh), id);
    fresh.run(&["resume", &id, "--discard"]).succeeds();
    assert_nothing_is_left(&fresh, 1);
}

#[test]
fn a_model_that_has_changed_is_refused() {
    let fresh = Fresh::new();
    let model = fresh.tiny_model();
    let arguments = ["a cat", "--model", "model", "--size", "64x64", "--steps", "1000"];
    let mut running = Running::start(&fresh, &arguments);
    assert!(running.wait_for("step"));
    running.kill();
    let id = only_run(&fresh);
    let refused = |file: &Path| {
        let cause = format!("`{}` has changed since run {id} began", file.display());
        fresh.run(&["resume", &id]).fails(1, &cause);
        assert_eq!(only_run(&fresh), id, "it is still there");
    };

    let weights = model.join("vae/diffusion_pytorch_model.safetensors");
    let file = fs::File::options().append(true).open(&weights).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + Duration::from_nanos(1000)).unwrap();
    refused(&weights);
    file.set_modified(modified).unwrap();

    let config = model.join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.clone() + "\n").unwrap();
    refused(&config);
    fs::write(&config, text).unwrap();

    let added = model.join("tokenizer_3/special_tokens_map.json");
    fs::write(&added, "{}").unwrap();
    refused(&added);
    fs::remove_file(&added).unwrap();

    let elsewhere = fresh.path().join("elsewhere");
    fs::rename(&model, &elsewhere).unwrap();
    fresh.run(&["resume", &id]).fails(4, "there is no model at");
    fs::rename(&elsewhere, &model).unwrap();

    // The restored file is accepted: the run continues.
    let mut running = Running::start(&fresh, &["resume", &id]);
    assert!(running.wait_for("step"));
    running.kill();
}

/// The initial image, its mask, the upscaler, and the control image: a change is refused before anything is
/// generated.
#[test]
fn a_file_of_the_user_s_that_has_changed_is_refused() {
    let fresh = Fresh::new();
    let files = [("photo.png", PHOTO), ("mask.png", MASK), ("net.pth", UPSCALER)];
    for (name, source) in files {
        fs::copy(fixture(source), fresh.path().join(name)).unwrap();
    }
    let arguments = [
        "a cat",
        "--steps",
        "1000",
        "--init-image",
        "photo.png",
        "--mask",
        "mask.png",
        "--upscale",
        "2",
        "--upscaler",
        "net.pth",
    ];
    let mut running = Running::start(&fresh, &arguments);
    assert!(running.wait_for("step"));
    running.kill();
    let id = only_run(&fresh);
    for (name, _) in files {
        let path = fresh.path().join(name);
        let whole = fs::read(&path).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let other = match name {
            "photo.png" => fs::read(fixture(MASK)).unwrap(),
            "mask.png" => fs::read(fixture(PHOTO)).unwrap(),
            _ => {
                let mut other = whole.clone();
                other[whole.len() / 2] ^= 1;
                other
            }
        };
        fs::write(&path, other).unwrap();
        // Its modification time stays the same.
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        let cause = format!("{name}` has changed since run {id} began");
        fresh.run(&["resume", &id]).fails(1, &cause);
        assert_eq!(only_run(&fresh), id, "it is still there");
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(fresh.files("outputs"), [""; 0]);
    // Unchanged files are accepted.
    let mut running = Running::start(&fresh, &["resume", &id]);
    assert!(running.wait_for("step"));
    running.kill();
}

#[test]
fn a_damaged_state_is_reported_and_can_be_discarded() {
    let fresh = Fresh::new();
    let mut running = Running::start(&fresh, &["a house", "--steps", "1000"]);
    assert!(running.wait_for("step"));
    running.kill();
    let id = only_run(&fresh);
    let state = fresh.runs().join(&id).with_extension("safetensors");
    let whole = fs::read(&state).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 100], &whole[..20], b""] {
        fs::write(&state, damaged).unwrap();
        assert_eq!(only_run(&fresh), id, "the list can be shown");
        fresh.run(&["resume"]).succeeds();
        fresh.run(&["resume", &id]).fails(1, "is damaged");
    }
    fresh.run(&["resume", "--discard"]).fails(2, "--discard needs");
    fresh.run(&["resume", &id, "--discard"]).succeeds();
    assert_nothing_is_left(&fresh, 0);
}

#[test]
fn nothing_to_resume() {
    let fresh = Fresh::new();
    for arguments in [&["resume"][..], &["resume", "--last"]] {
        let run = fresh.run(arguments).succeeds();
        assert_eq!(run.stdout, "");
        assert!(
            run.stderr.contains("There is no interrupted run"),
            "{}",
            run.stderr
        );
    }
    let events = fresh.run(&["resume", "--json"]).succeeds().events();
    assert_eq!(events[0]["runs"], Value::Array(Vec::new()));
    fresh
        .run(&["resume", "../../etc"])
        .fails(2, "no interrupted run `../../etc`");
    assert!(!fresh.runs().exists());
}

#[test]
fn a_run_without_a_state_store_succeeds() {
    let fresh = Fresh::new();
    fs::write(fresh.path().join("file"), "mine").unwrap();
    let output = fresh
        .command()
        .env("SD_GENERATE_STATE", fresh.path().join("file"))
        .args(["a tree", "--steps", "1"])
        .output();
    let run = Run::of(output.unwrap()).succeeds();
    assert_eq!(run.images().len(), 1);
    let warning = "warning: this run cannot be resumed if it is interrupted: cannot use";
    assert!(run.stderr.contains(warning), "{}", run.stderr);
}

#[test]
fn an_error_that_would_come_again_leaves_no_state() {
    let fresh = Fresh::new();
    let model = fresh.tiny_model();
    let path = model.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (offset, _) = tensor_offset(&bytes, "decoder.conv_out.bias");
    bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let arguments = ["a cat", "--model", "model", "--size", "64x64", "--steps", "1"];
    fresh.run(&arguments).fails(1, "not finite");
    assert_nothing_is_left(&fresh, 0);
}

#[test]
fn strays_of_runs_without_a_state_are_swept() {
    let fresh = Fresh::new();
    fs::create_dir_all(fresh.runs()).unwrap();
    let stray = || {
        for stray in ["aaaaaaaa.lock", "aaaaaaaa.part", "bbbbbbbb.lock", "cccccccc.part"] {
            fs::write(fresh.runs().join(stray), "").unwrap();
        }
    };
    stray();
    fresh.run(&["resume"]).succeeds();
    assert_nothing_is_left(&fresh, 0);
    stray();
    fresh.run(&["a tree", "--steps", "1"]).succeeds();
    assert_nothing_is_left(&fresh, 1);
}

#[test]
fn the_last_run_is_the_one_that_was_kept_last() {
    let fresh = Fresh::new();
    let ids: Vec<String> = ["a house", "a tree"]
        .iter()
        .map(|prompt| {
            let mut running = Running::start(&fresh, &[prompt, "--steps", "1000"]);
            assert!(running.wait_for("step"));
            running.kill();
            let run = fresh.run(&["resume", "--json"]).succeeds();
            run.events()[0]["runs"][0]["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let state = |id: &String| {
        let path = fresh.runs().join(id).with_extension("safetensors");
        fs::File::options().append(true).open(path).unwrap()
    };
    state(&ids[0])
        .set_modified(SystemTime::now() + Duration::from_secs(9))
        .unwrap();
    fresh.run(&["resume", "--last", "--discard"]).succeeds();
    assert_eq!(only_run(&fresh), ids[1]);
}

/// A run of several prompts ends in the first, in the second and in the third; who resumes it gets all images.
#[test]
fn the_prompts_of_a_file_are_resumed_together() {
    const FILE: &str = "a red circle\n--prompt 'two green squares' --seed 7 --n 2 --steps 7\na blue star\n";
    let run = [
        "--prompt-file",
        "prompts.txt",
        "--size",
        "64x64",
        "--steps",
        "24",
        "--seed",
        "3",
    ];
    let fresh = || {
        let fresh = Fresh::new();
        fs::write(fresh.path().join("prompts.txt"), FILE).unwrap();
        fresh
    };
    let undisturbed = fresh();
    undisturbed.run(&run).succeeds();
    let wanted = results(&undisturbed.path().join("outputs"));
    assert_eq!(wanted.len(), 4);
    for (ends_in, kills) in [(1, false), (1, true), (2, false), (3, true)] {
        let fresh = fresh();
        let mut running = Running::start(&fresh, &run);
        for _ in 0..ends_in {
            assert!(running.wait_for("request"));
        }
        assert!(running.wait_for("step"));
        match kills {
            true => running.kill(),
            false => {
                let ended = running.interrupt().fails(130, "interrupted");
                let hint = match ends_in {
                    1 => "the 2 prompts after it were not begun: `generate resume` goes on with them too",
                    _ => "the prompt after it was not begun",
                };
                assert!(ended.stdout.contains(hint), "{}", ended.stdout);
            }
        }
        let list = fresh.run(&["resume", "--json"]).succeeds().events();
        assert_eq!(list[0]["runs"][0]["later"], 3 - ends_in, "{list:?}");
        let resumed = fresh.run(&["resume", "--last"]).succeeds();
        assert!(
            ends_in > 1 || resumed.stderr.contains("prompt 2 of 2: a blue star"),
            "{}",
            resumed.stderr
        );
        assert!(
            results(&fresh.path().join("outputs")) == wanted,
            "{ends_in} {kills}"
        );
        assert_nothing_is_left(&fresh, 4);
    }
}
