//! Images keep their bits: a change of the code that is no change of the arithmetic gives the pixels of before.
//!
//! The last bits depend on the instruction set, so that the checksums are those of one: on another machine the test says so and
//! checks nothing. `SD_TEST_WRITE_CHECKSUMS=1` writes the file anew, where images are meant to change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command::{Fresh, Image};

/// What each case adds to the command line: its name, model or `demo`, and options. `{}` is the folder of the fixtures.
const CASES: &[(&str, &str, &[&str])] = &[
    ("demo", "demo", &[]),
    ("demo-wide", "demo", &["--size", "192x128", "--steps", "6"]),
    ("demo-three", "demo", &["--n", "3"]),
    ("demo-twice-as-large", "demo", &["--upscale", "2"]),
    ("demo-no-guidance", "demo", &["--cfg", "1"]),
    (
        "demo-image-to-image",
        "demo",
        &["--init-image", "{}/families/init.png", "--strength", "0.6"],
    ),
    (
        "demo-inpainting",
        "demo",
        &[
            "--init-image",
            "{}/families/init.png",
            "--mask",
            "{}/families/mask.png",
        ],
    ),
    (
        "demo-style",
        "demo",
        &["--style", "anime", "--negative-prompt", "gray"],
    ),
    ("large", "models/tiny-large", &[]),
    ("large-bf16", "models/tiny-large", &["--dtype", "bf16"]),
    ("medium", "models/tiny-medium", &[]),
    ("medium-bf16", "models/tiny-medium", &["--dtype", "bf16"]),
    ("medium-3.5", "models/tiny-medium35", &["--size", "64x96"]),
    ("medium-3.5-bf16", "models/tiny-medium35", &["--dtype", "bf16"]),
    ("no-t5", "models/tiny-no-t5", &[]),
    ("no-t5-bf16", "models/tiny-no-t5", &["--dtype", "bf16"]),
    ("sd15", "families/sd15", &[]),
    (
        "sd15-bf16",
        "families/sd15",
        &["--dtype", "bf16", "--size", "80x112"],
    ),
    ("sd15-clip-skip", "families/sd15", &["--clip-skip", "2"]),
    ("sd15-rescale", "families/sd15", &["--guidance-rescale", "0.7"]),
    (
        "sd15-image-to-image",
        "families/sd15",
        &["--init-image", "{}/families/init.png", "--strength", "0.8"],
    ),
    (
        "sd15-mask",
        "families/sd15",
        &[
            "--init-image",
            "{}/families/init.png",
            "--mask",
            "{}/families/mask.png",
        ],
    ),
    (
        "sd15-controlnets",
        "families/sd15",
        &[
            "--pose",
            "{}/families/init.png",
            "--controlnet",
            "{}/families/control-1",
            "--depth",
            "{}/families/mask.png",
            "--controlnet",
            "{}/families/control-2",
        ],
    ),
    (
        "sd15-canny",
        "families/sd15",
        &[
            "--canny",
            "{}/families/init.png",
            "--controlnet",
            "{}/families/control-1",
        ],
    ),
    (
        "sd15-lora",
        "families/sd15",
        &["--lora", "{}/conditioned/loras/kohya.safetensors:0.8"],
    ),
    (
        "sd15-refined",
        "families/sd15",
        &["--refiner", "{}/models/tiny-medium"],
    ),
    ("sd21", "families/sd21", &[]),
    ("sd21-bf16", "families/sd21", &["--dtype", "bf16"]),
    (
        "inpainting",
        "families/inpainting",
        &[
            "--init-image",
            "{}/families/init.png",
            "--mask",
            "{}/families/mask.png",
        ],
    ),
    ("sdxl", "families/sdxl", &[]),
    ("sdxl-bf16", "families/sdxl", &["--dtype", "bf16", "--n", "2"]),
    (
        "sdxl-refiner",
        "families/sdxl",
        &[
            "--refiner",
            "{}/families/refiner",
            "--refiner-switch",
            "0.5",
            "--steps",
            "4",
        ],
    ),
    (
        "refiner-alone",
        "families/refiner",
        &["--init-image", "{}/families/init.png"],
    ),
    (
        "refiner-bf16",
        "families/refiner",
        &["--dtype", "bf16", "--init-image", "{}/families/init.png"],
    ),
    (
        "large-controlnet",
        "models/tiny-large",
        &[
            "--depth",
            "{}/families/init.png",
            "--controlnet",
            "{}/conditioned/control-large",
        ],
    ),
    (
        "large-lora",
        "models/tiny-large",
        &["--lora", "{}/conditioned/loras/sd3-peft.safetensors"],
    ),
    ("ddpm", "families/sd15", &["--sampler", "DDPM"]),
    ("ddim", "families/sd15", &["--sampler", "DDIM"]),
    ("deis", "families/sd15", &["--sampler", "DEIS", "--steps", "5"]),
    (
        "dpm-2m-karras",
        "families/sd15",
        &["--sampler", "DPM++ 2M", "--scheduler", "karras", "--steps", "5"],
    ),
    (
        "dpm-sde",
        "families/sd15",
        &["--sampler", "DPM++ 2M SDE", "--steps", "4"],
    ),
    ("dpm2-ancestral", "families/sd15", &["--sampler", "DPM2 a"]),
    ("euler-ancestral", "families/sdxl", &["--sampler", "Euler a"]),
    ("heun", "families/sd15", &["--sampler", "Heun"]),
    ("heun-flow", "models/tiny-large", &["--sampler", "Heun"]),
    ("lms", "families/sd15", &["--sampler", "LMS"]),
    ("lcm", "families/sd15", &["--sampler", "LCM"]),
    ("tcd", "families/sd15", &["--sampler", "TCD"]),
    ("unipc", "families/sdxl", &["--sampler", "UniPC", "--steps", "5"]),
    (
        "unipc-flow",
        "models/tiny-medium",
        &["--sampler", "UniPC", "--steps", "5"],
    ),
];

/// SHA-256 of the pixels of all images of a case.
fn checksum(fixtures: &str, model: &str, options: &[&str]) -> String {
    let fresh = Fresh::new();
    let mut arguments = vec![
        "a red circle".to_owned(),
        "--quiet".to_owned(),
        "--seed=7".to_owned(),
    ];
    match model {
        // Its weights as they are stored.
        "demo" => arguments.push("--dtype=bf16".to_owned()),
        model => arguments.extend(["--model".to_owned(), format!("{fixtures}/{model}")]),
    }
    for (usual, value) in [("--steps", "3"), ("--size", "64x64")] {
        if !options.contains(&usual) {
            arguments.extend([usual.to_owned(), value.to_owned()]);
        }
    }
    arguments.extend(options.iter().map(|option| option.replace("{}", fixtures)));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = fresh.run(&arguments).succeeds();
    let mut digest = Sha256::new();
    for path in run.images() {
        digest.update(Image::read(&fresh.path().join(path)).pixels.as_flattened());
    }
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn images_keep_their_bits() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixtures = manifest.join("../pipeline/tests/fixtures");
    let path = manifest.join("tests/fixtures/checksums.json");
    // The mathematical library of the system rounds as it likes.
    let machine = format!("{} on {}", sd_pipeline::cpu_numerics_id(), std::env::consts::OS);
    let writes = std::env::var_os("SD_TEST_WRITE_CHECKSUMS").is_some();
    let known: Option<Value> = (!writes).then(|| serde_json::from_slice(&fs::read(&path).unwrap()).unwrap());
    if let Some(known) = &known
        && known["machine"] != machine
    {
        eprintln!(
            "not checked: the checksums are those of {}, this is {machine}",
            known["machine"]
        );
        return;
    }
    let images: BTreeMap<&str, String> = CASES
        .iter()
        .map(|(name, model, options)| (*name, checksum(fixtures.to_str().unwrap(), model, options)))
        .collect();
    assert_eq!(images.len(), CASES.len(), "a name stands twice");
    if let Some(known) = known {
        let known = known["images"].as_object().unwrap();
        let changed: Vec<&str> = images
            .iter()
            .filter(|(name, sum)| known.get(**name) != Some(&json!(sum)))
            .map(|(name, _)| *name)
            .collect();
        assert!(changed.is_empty(), "other pixels than before: {changed:?}");
        assert_eq!(known.len(), images.len(), "a case has gone");
    } else {
        let text = serde_json::to_string_pretty(&json!({ "machine": machine, "images": images })).unwrap();
        fs::write(path, text + "\n").unwrap();
    }
}
