//! Generated images, with the files and the output of the binary.

use std::fs;
use std::path::PathBuf;

use crate::command::{Fresh, Image};
use serde_json::Value;

fn is_red([red, green, blue]: [u8; 3]) -> bool {
    red > 150 && green < 110 && blue < 110
}

fn is_white(pixel: [u8; 3]) -> bool {
    pixel.iter().all(|&part| part > 225)
}

#[test]
fn a_red_circle_is_a_red_circle() {
    let fresh = Fresh::new();
    let run = fresh.run(&["a red circle"]).succeeds();
    let paths = run.images();
    assert_eq!(paths.len(), 1);
    let image = Image::read(&fresh.path().join(&paths[0]));
    assert_eq!((image.width, image.height), (256, 256));

    let positions: Vec<(f64, f64)> = (0..256 * 256)
        .filter(|&index| is_red(image.pixels[index]))
        .map(|index| ((index % 256) as f64, (index / 256) as f64))
        .collect();
    let area = positions.len() as f64;
    assert!((2_000.0..20_000.0).contains(&area), "{area} red pixels");
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / area;
    let (x, y) = (
        mean(&mut positions.iter().map(|position| position.0)),
        mean(&mut positions.iter().map(|position| position.1)),
    );
    assert!(
        (x - 128.0).abs() < 16.0 && (y - 128.0).abs() < 16.0,
        "the circle is at {x}, {y}"
    );
    // All red pixels are inside a slightly larger circle of the same area, and fill a slightly smaller one.
    let radius = (area / std::f64::consts::PI).sqrt();
    let distance = |position: &(f64, f64)| (position.0 - x).hypot(position.1 - y);
    assert!(
        positions
            .iter()
            .all(|position| distance(position) < 1.12 * radius),
        "it is not round"
    );
    let inside = positions
        .iter()
        .filter(|position| distance(position) < 0.9 * radius)
        .count() as f64;
    assert!(
        inside > 0.97 * std::f64::consts::PI * (0.9 * radius).powi(2),
        "it has holes"
    );
    let white = image.pixels.iter().filter(|&&pixel| is_white(pixel)).count() as f64;
    assert!(
        white > 0.97 * (65_536.0 - area) - 6.0 * std::f64::consts::TAU * radius,
        "{white} white pixels"
    );
}

#[test]
fn a_seed_means_one_image_alone_or_in_a_run() {
    let fresh = Fresh::new();
    let generate = |arguments: &[&str]| -> Vec<Vec<[u8; 3]>> {
        let run = fresh
            .run(&[&["two green squares", "--steps", "3"], arguments].concat())
            .succeeds();
        run.images()
            .iter()
            .map(|path| Image::read(&fresh.path().join(path)).pixels)
            .collect()
    };
    let both = generate(&["--n", "2", "--seed", "7"]);
    assert_eq!(both.len(), 2);
    assert!(both[0] != both[1]);
    assert!(generate(&["--seed", "7"])[0] == both[0]);
    assert!(generate(&["--seed", "8"])[0] == both[1]);
    assert_eq!(fresh.files("outputs").len(), 8);
}

#[test]
fn the_number_of_threads_changes_no_image() {
    let fresh = Fresh::new();
    let generate = |arguments: &[&str]| {
        let run = fresh
            .run(&[&["a blue square", "--steps", "2", "--size", "128x192"], arguments].concat())
            .succeeds();
        Image::read(&fresh.path().join(&run.images()[0])).pixels
    };
    let usual = generate(&[]);
    for threads in ["1", "2", "3", "7"] {
        assert!(generate(&["--threads", threads]) == usual, "{threads} threads");
    }
}

#[test]
fn every_setting_reaches_the_image() {
    let fresh = Fresh::new();
    let generate = |arguments: &[&str]| {
        let run = fresh
            .run(&[&["a red circle", "--steps", "2"], arguments].concat())
            .succeeds();
        Image::read(&fresh.path().join(&run.images()[0]))
    };
    let usual = generate(&[]);
    let wide = generate(&["--size", "128x64"]);
    assert_eq!((wide.width, wide.height), (128, 64));
    for changed in [
        &["--cfg", "1"][..],
        &["--cfg", "6"],
        &["--negative-prompt", "a blue square"],
        &["--seed", "1"],
    ] {
        assert!(generate(changed).pixels != usual.pixels, "{changed:?}");
    }
    // The stored bf16 weights give nearly the same image as in 32 bits: a CPU with bf16 products also rounds the
    // activations. Another seed changes bytes by a hundred.
    let as_stored = generate(&["--dtype", "bf16"]).pixels;
    let pairs = as_stored.iter().flatten().zip(usual.pixels.iter().flatten());
    assert!(pairs.map(|(one, other)| one.abs_diff(*other)).max() <= Some(12));
    // The built-in model generates the same image on CPUs with and without bf16 products.
    assert!(generate(&["--dtype", "f32"]).pixels == usual.pixels);
    assert!(generate(&["--dtype", "auto"]).pixels == usual.pixels);
    assert!(generate(&["--device", "cpu"]).pixels == usual.pixels);
}

#[test]
fn an_image_says_how_it_was_made() {
    let fresh = Fresh::new();
    let prompt = "a pink heart, „schön“";
    let arguments = [
        prompt,
        "--steps",
        "2",
        "--seed",
        "9",
        "--negative-prompt",
        "blurry",
        "--output",
        "my images",
    ];
    let run = fresh.run(&arguments).succeeds();
    let path = fresh.path().join(&run.images()[0]);
    let stem = path.file_stem().unwrap().to_str().unwrap();
    assert!(
        stem.starts_with("output_20")
            && stem.ends_with("_001")
            && stem.len() == "output_2026-01-01_00-00-00_001".len()
    );

    let texts = Image::read(&path).texts;
    let version = format!("sd-generate {}", env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "{prompt}\nNegative prompt: blurry\nSteps: 2, Sampler: Euler, Schedule type: Normal, CFG scale: 2, Seed: 9, Size: 256x256, \
         Model hash: 96e7101930, Model: demo, RNG: CPU, Version: {version}"
    );
    assert_eq!(texts, [("parameters".to_owned(), expected)]);

    let sidecar: Value = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    for (name, value) in [
        ("prompt", Value::from(prompt)),
        ("negative_prompt", "blurry".into()),
        ("seed", 9.into()),
        ("steps", 2.into()),
        ("width", 256.into()),
        ("height", 256.into()),
        ("model", "demo".into()),
        ("quality_preset", "demo".into()),
        ("num_images", 1.into()),
        ("image_index", 0.into()),
        ("filename", format!("{stem}.png").into()),
        ("device", "cpu".into()),
        ("dtype", "f32".into()),
        ("pipeline_type", "stable-diffusion-3".into()),
        ("version", version.into()),
    ] {
        assert_eq!(sidecar[name], value, "{name}");
    }
    for name in ["style", "controlnet", "upscale", "upscale_method", "refiner"] {
        assert_eq!(sidecar.get(name), Some(&Value::Null), "{name}");
    }
    for name in ["lora", "memory_optimizations", "failures", "warnings"] {
        assert!(sidecar[name].is_array(), "{name}");
    }
    assert!(sidecar["generation_time"].as_f64().unwrap() > 0.0);
    let memory = &sidecar["memory"];
    let bytes = |name: &str| memory[name].as_u64().unwrap();
    assert!(bytes("measured_peak") > 1 << 20 && bytes("budget") >= bytes("predicted_peak"));
    assert!(bytes("weights_read") > 1 << 20);
    let labels: Vec<&str> = memory["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reading| reading["label"].as_str().unwrap())
        .collect();
    let wanted = [
        "Startup",
        "Before model load",
        "After model load",
        "Before generation",
        "After generation",
    ];
    assert!(wanted.iter().all(|label| labels.contains(label)), "{labels:?}");
    let stages = memory["stages"].as_array().unwrap();
    let names: Vec<&str> = stages
        .iter()
        .map(|stage| stage["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["open", "encode", "load", "denoise", "decode"]);
    for stage in stages {
        let number = |name: &str| stage[name].as_f64().unwrap();
        assert!(number("start") <= number("end"), "{stage}");
        assert!(
            number("allocated_peak") > 0.0 && number("resident_peak") > 0.0,
            "{stage}"
        );
        assert!(
            number("resident_peak") <= memory["measured_peak"].as_f64().unwrap(),
            "{stage}"
        );
    }
}

#[test]
fn results_and_reports_go_separate_ways() {
    let fresh = Fresh::new();
    let run = fresh.run(&["a tree", "--steps", "1"]).succeeds();
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    assert!(fresh.path().join(run.stdout.trim_end()).is_file());
    assert!(
        run.stderr.contains("built-in model `demo`") && run.stderr.contains("--model"),
        "{}",
        run.stderr
    );
    let verbose = fresh.run(&["a tree", "--steps", "1", "-v"]).succeeds();
    for label in ["Startup", "After model load", "Complete"] {
        assert!(
            verbose.stderr.contains(&format!("💾 Memory [{label}]: Process=")),
            "{}",
            verbose.stderr
        );
    }

    let run = fresh.run(&["a tree", "--steps", "1", "--quiet"]).succeeds();
    assert_eq!((run.stdout.lines().count(), run.stderr.as_str()), (1, ""));
}

#[test]
fn json_is_one_event_a_line() {
    let fresh = Fresh::new();
    let events = fresh
        .run(&["a tree", "--steps", "2", "--n", "2", "--json"])
        .succeeds()
        .events();
    let of = |kind: &str| {
        events
            .iter()
            .filter(|event| event["event"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (
            of("started").len(),
            of("step").len(),
            of("saved").len(),
            of("finished").len()
        ),
        (1, 4, 2, 1)
    );
    assert_eq!(of("started")[0]["recipe"]["steps"], 2);
    assert!(of("memory").len() >= 6);
    let saved = PathBuf::from(of("saved")[1]["image"].as_str().unwrap());
    assert!(fresh.path().join(saved).is_file());
    assert_eq!(of("saved")[1]["seed"], 43);
    assert_eq!(events.last().unwrap()["event"], "finished");
}

#[test]
fn a_prompt_that_is_too_long_is_truncated_with_a_warning() {
    let fresh = Fresh::new();
    let prompt = "a red circle ".repeat(60);
    let run = fresh.run(&[&prompt, "--steps", "1"]).succeeds();
    assert!(
        run.stderr.contains("warning: the prompt is too long"),
        "{}",
        run.stderr
    );
    let sidecar = fresh.path().join(&run.images()[0]).with_extension("json");
    let sidecar: Value = serde_json::from_slice(&fs::read(sidecar).unwrap()).unwrap();
    let warnings = sidecar["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1);
    let (message, at) = (warnings[0]["message"].as_str(), warnings[0]["at"].as_str());
    assert!(message.unwrap().starts_with("the prompt is too long"));
    assert!(at.unwrap().contains('T'), "{at:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let fresh = Fresh::new();
    let script = format!(
        "{:?} 'a tree' --steps 1 --json | head -n 1",
        env!("CARGO_BIN_EXE_generate")
    );
    let output = fresh.shell(&script).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
}
