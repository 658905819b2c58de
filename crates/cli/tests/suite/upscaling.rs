//! Upscaling, by networks and by resampling.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Fresh, Image, Run, tensor_offset};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

fn generate(fresh: &Fresh, arguments: &[&str]) -> (Image, Value, Run) {
    let run = fresh
        .run(&[&["a red circle", "--steps", "4"][..], arguments].concat())
        .succeeds();
    let path = fresh.path().join(&run.images()[0]);
    let metadata = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    (Image::read(&path), metadata, run)
}

/// A tiny random Real-ESRGAN network of scale 4.
fn network() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/upscaler/x4/model.pth")
}

#[test]
fn images_are_upscaled_with_a_network_and_without() {
    let fresh = Fresh::new();
    fs::copy(network(), fresh.path().join("net.pth")).unwrap();
    let (plain, _, _) = generate(&fresh, &["--output", "plain"]);
    let (resampled, metadata, _) = generate(&fresh, &["--upscale", "2", "--output", "resampled"]);
    assert_eq!((resampled.width, resampled.height), (512, 512));
    assert_eq!(
        (&metadata["upscale"], &metadata["upscale_method"]),
        (&2.into(), &"lanczos".into())
    );
    // A flat area keeps its colour.
    let [before, after] = [plain.pixel(8, 8), resampled.pixel(16, 16)];
    assert!(
        before
            .iter()
            .zip(after)
            .all(|(&before, after)| before.abs_diff(after) < 8),
        "{before:?} {after:?}"
    );

    for (factor, side) in [("4", 1024), ("2", 512)] {
        let (upscaled, metadata, _) = generate(
            &fresh,
            &[
                "--upscale",
                factor,
                "--upscaler",
                "net.pth",
                "--n",
                "2",
                "--output",
                factor,
            ],
        );
        assert_eq!((upscaled.width, upscaled.height), (side, side));
        assert_eq!(metadata["upscale_method"], "net");
        assert_eq!(fresh.files(factor).len(), 4);
    }
}

#[test]
fn an_upscaler_that_cannot_be_used_is_left_out() {
    let fresh = Fresh::new();
    let whole = fs::read(network()).unwrap();
    fs::write(fresh.path().join("truncated.pth"), &whole[..whole.len() / 2]).unwrap();
    let (image, metadata, run) = generate(&fresh, &["--upscale", "2", "--upscaler", "truncated.pth"]);
    assert_eq!((image.width, &metadata["upscale"]), (256, &Value::Null));
    assert!(
        run.stderr.contains("upscaling by 2 is left out: "),
        "{}",
        run.stderr
    );
    let strict = [
        "a red circle",
        "--upscale",
        "2",
        "--upscaler",
        "truncated.pth",
        "--strict",
    ];
    fresh.run(&strict).fails(1, "`truncated.pth`");
    fresh.run(&["x", "--upscale", "3"]).fails(2, "factor is 2 or 4");
}

#[test]
fn an_upscaler_that_gives_values_that_are_not_finite_is_left_out() {
    let fresh = Fresh::new();
    let file = fresh.path().join("nan.safetensors");
    write_wide_network(&file);
    let mut bytes = fs::read(&file).unwrap();
    let (offset, _) = tensor_offset(&bytes, "conv_last.bias");
    bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let upscaled = [
        "--upscale",
        "2",
        "--upscaler",
        "nan.safetensors",
        "--size",
        "64x64",
    ];
    let (image, metadata, run) = generate(&fresh, &upscaled);
    assert_eq!((image.width, &metadata["upscale"]), (64, &Value::Null));
    assert!(image.pixels.iter().any(|pixel| *pixel != [0; 3]));
    let cause = "tensor `conv_last.bias` in `nan.safetensors`";
    assert!(run.stderr.contains(cause), "{}", run.stderr);
    let strict = [&["a red circle", "--steps", "4", "--strict"][..], &upscaled].concat();
    fresh.run(&strict).fails(1, cause);
}

/// A Real-ESRGAN network of scale 4, as wide as the published ones, with one of their 23 blocks, all zeros.
fn write_wide_network(path: &Path) {
    const FEATURES: usize = 64;
    const GROWTH: usize = 32;
    let mut convolutions = vec![("conv_first".to_owned(), [FEATURES, 3])];
    for dense in 1..=3 {
        for conv in 1..=5 {
            let outputs = if conv == 5 { FEATURES } else { GROWTH };
            let inputs = FEATURES + (conv - 1) * GROWTH;
            convolutions.push((format!("body.0.rdb{dense}.conv{conv}"), [outputs, inputs]));
        }
    }
    for name in ["conv_body", "conv_up1", "conv_up2", "conv_hr"] {
        convolutions.push((name.to_owned(), [FEATURES, FEATURES]));
    }
    convolutions.push(("conv_last".to_owned(), [3, FEATURES]));
    let zeros = vec![0; 4 * 9 * FEATURES * (FEATURES + 4 * GROWTH)];
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: Vec<usize>| {
        let count: usize = shape.iter().product();
        let view = TensorView::new(Dtype::F32, shape, &zeros[..4 * count]).unwrap();
        tensors.insert(name, view);
    };
    for (name, [outputs, inputs]) in convolutions {
        add(format!("{name}.weight"), vec![outputs, inputs, 3, 3]);
        add(format!("{name}.bias"), vec![outputs]);
    }
    safetensors::serialize_to_file(&tensors, None, path).unwrap();
}

#[test]
fn the_memory_of_upscaling_is_predicted() {
    const CLOSE: u64 = 24 << 20;
    let fresh = Fresh::new();
    write_wide_network(&fresh.path().join("net.safetensors"));
    let network = ["--upscaler", "net.safetensors"];
    for (factor, network, output) in [
        ("4", &network[..], "network"),
        // The network's image is then downscaled.
        ("2", &network[..], "network-resampled"),
        ("4", &[][..], "resampled"),
    ] {
        let arguments = [
            &[
                "a red circle",
                "--steps",
                "1",
                "--n",
                "2",
                "--upscale",
                factor,
                "--output",
                output,
            ],
            network,
        ]
        .concat();
        let plan = fresh
            .run(&[&["plan", "--json"], &arguments[..]].concat())
            .succeeds();
        let plan: Value = serde_json::from_str(plan.stdout.trim()).unwrap();
        let run = fresh.run(&arguments).succeeds();
        let last = fresh.path().join(&run.images()[1]).with_extension("json");
        let metadata: Value = serde_json::from_slice(&fs::read(last).unwrap()).unwrap();
        let of = |name: &str| metadata["memory"][name].as_u64().unwrap();
        let (predicted, measured) = (of("predicted_peak"), of("measured_peak"));
        println!("{output}: predicted {predicted}, measured {measured}");
        assert_eq!(plan["predicted_peak"], predicted);
        assert_eq!(
            plan["stages"].as_array().unwrap().last().unwrap()["name"],
            "upscale"
        );
        assert!(
            measured <= predicted && predicted <= measured + CLOSE,
            "{output}: {measured} of {predicted} bytes"
        );
    }
}
