//! ControlNets, and runs in which one of them fails.

use std::fs;
use std::path::Path;

use crate::command::{Fresh, Image, copy_folder, tensor_offset};
use serde_json::Value;

const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures/families");
/// The fixtures with ControlNets of Stable Diffusion 3.
const CONDITIONED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../pipeline/tests/fixtures/conditioned"
);

fn generate(fresh: &Fresh, output: &str, more: &[&str]) -> (Image, Value, String) {
    let model = format!("{FAMILIES}/sd15");
    let always = [
        "a cat", "--model", &model, "--size", "64x64", "--steps", "3", "--output", output,
    ];
    let run = fresh.run(&[&always[..], more].concat()).succeeds();
    let path = fresh.path().join(&run.images()[0]);
    let metadata = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    (Image::read(&path), metadata, run.stderr)
}

#[test]
fn the_conditioning_scale_changes_the_image() {
    let fresh = Fresh::new();
    let (network, photo) = (format!("{FAMILIES}/control-1"), format!("{FAMILIES}/init.png"));
    let (plain, metadata, _) = generate(&fresh, "plain", &[]);
    assert_eq!(metadata["controlnet"], Value::Null);
    let with = |output: &str, kind: &str, scale: &str| {
        generate(
            &fresh,
            output,
            &[kind, &photo, "--controlnet", &network, "--control-scale", scale],
        )
    };
    let (depth, metadata, _) = with("depth", "--depth", "1");
    assert_eq!(metadata["controlnet"][0]["kind"], "depth");
    let (edges, _, _) = with("edges", "--canny", "1");
    let (none, _, _) = with("none", "--depth", "0");
    assert!(plain.pixels != depth.pixels && plain.pixels != edges.pixels && depth.pixels != edges.pixels);
    assert!(plain.pixels == none.pixels);
}

#[test]
fn what_cannot_be_followed_is_left_out_or_with_strict_an_error() {
    let fresh = Fresh::new();
    let photo = format!("{FAMILIES}/init.png");
    fs::write(fresh.path().join("text.png"), "no image").unwrap();
    let (plain, _, _) = generate(&fresh, "plain", &[]);
    let good = format!("{FAMILIES}/control-1");
    // No image, a network that is no ControlNet, and a ControlNet of another family.
    let (other, foreign) = (
        format!("{FAMILIES}/sdxl/unet"),
        format!("{CONDITIONED}/control-large"),
    );
    for (image, network, reason) in [
        ("text.png", &good, "text.png"),
        (&photo, &other, "it has neither the tensors of one for a UNet"),
        (
            &photo,
            &foreign,
            "it is for Stable Diffusion 3, and the model is Stable Diffusion 1 or 2",
        ),
    ] {
        let control = ["--pose", image, "--controlnet", network];
        let output = Path::new(network).file_name().unwrap().to_str().unwrap();
        let (image, metadata, stderr) = generate(&fresh, output, &control);
        assert!(image.pixels == plain.pixels);
        assert!(
            stderr.contains("the ControlNet `") && stderr.contains(reason),
            "{stderr}"
        );
        assert!(metadata["failures"].as_array().unwrap().len() == 1, "{metadata}");
        let model = format!("{FAMILIES}/sd15");
        let strict = [&["a cat", "--model", &model, "--strict"][..], &control].concat();
        fresh.run(&strict).fails(1, "error: ");
    }
}

#[test]
fn a_controlnet_is_usual_for_the_family_alone_that_it_was_made_for() {
    let fresh = Fresh::new();
    let photo = format!("{FAMILIES}/init.png");
    let model = |name: &str| format!("{FAMILIES}/{name}");
    for (option, network) in [
        ("--pose", "lllyasviel/control_v11p_sd15_openpose"),
        ("--depth", "lllyasviel/control_v11f1p_sd15_depth"),
        ("--canny", "lllyasviel/control_v11p_sd15_canny"),
    ] {
        let run = fresh
            .run(&["x", "--model", &model("sd15"), option, &photo])
            .fails(4, &format!("the ControlNet `{network}` is not on this machine"));
        let hint = format!("hint: `generate models pull {network}` downloads it, without HF_HUB_OFFLINE\n");
        assert!(run.stderr.ends_with(&hint), "{}", run.stderr);
        for (other, title) in [
            (model("sdxl"), "Stable Diffusion XL"),
            ("demo".to_owned(), "Stable Diffusion 3"),
        ] {
            let cause = format!("with a model of {title} {option} needs --controlnet");
            fresh
                .run(&["x", "--model", &other, option, &photo])
                .fails(2, &cause);
            fresh
                .run(&["plan", "x", "--model", &other, option, &photo])
                .fails(2, &cause);
        }
    }
    fresh
        .run(&["x", "--pose", &photo, "--controlnet", "nowhere"])
        .fails(4, "there is no ControlNet at `nowhere`");
}

#[test]
fn a_network_that_fills_masks_is_left_out_with_the_reason() {
    let fresh = Fresh::new();
    fresh.tiny_model();
    let network = fresh.path().join("inpainting");
    copy_folder(&Path::new(CONDITIONED).join("control-large"), &network);
    let config = network.join("config.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    changed["extra_conditioning_channels"] = 1.into();
    fs::write(&config, changed.to_string()).unwrap();
    let photo = format!("{FAMILIES}/init.png");
    let words = [
        "plan",
        "x",
        "--model",
        "model",
        "--pose",
        &photo,
        "--controlnet",
        "inpainting",
        "--strict",
    ];
    fresh.run(&words).fails(
        1,
        "inpainting` is no ControlNet for this model: it is an inpainting ControlNet (its extra_conditioning_channels are 1)",
    );
}

#[test]
fn stable_diffusion_3_has_its_own_controlnets() {
    let fresh = Fresh::new();
    fresh.tiny_model();
    let photo = format!("{FAMILIES}/init.png");
    let generate = |output: &str, more: &[&str]| {
        let always = ["a cat", "--model", "model", "--size", "64x64", "--steps", "2"];
        let run = fresh
            .run(&[&always, &["--output", output][..], more].concat())
            .succeeds();
        (Image::read(&fresh.path().join(&run.images()[0])), run.stderr)
    };
    let (plain, _) = generate("plain", &[]);
    let network = format!("{CONDITIONED}/control-large");
    let (both, stderr) = generate(
        "both",
        &[
            "--depth",
            &photo,
            "--canny",
            &photo,
            "--controlnet",
            &network,
            "--n",
            "2",
        ],
    );
    assert!(plain.pixels != both.pixels, "{stderr}");
    let foreign = format!("{FAMILIES}/control-1");
    let (left_out, stderr) = generate("left-out", &["--pose", &photo, "--controlnet", &foreign]);
    assert!(plain.pixels == left_out.pixels);
    let reason = "it is for Stable Diffusion 1 or 2, and the model is Stable Diffusion 3";
    assert!(stderr.contains(reason), "{stderr}");
}

#[test]
fn each_control_image_has_its_own_network_and_scale() {
    let fresh = Fresh::new();
    let photo = format!("{FAMILIES}/init.png");
    let [first, second] = ["control-1", "control-2"].map(|name| format!("{FAMILIES}/{name}"));
    let both = |output: &str, words: &[&str]| generate(&fresh, output, words);
    let in_order = [
        "--depth",
        &photo,
        "--control",
        &photo,
        "--controlnet",
        &first,
        "--controlnet",
        &second,
        "--control-scale",
        "0.3",
        "--control-scale",
        "1",
    ];
    let (image, metadata, _) = both("in-order", &in_order);
    let unit = |index: usize| &metadata["controlnet"][index];
    assert_eq!(
        (&unit(0)["kind"], &unit(0)["scale"]),
        (&"depth".into(), &0.3.into())
    );
    assert_eq!(
        (&unit(1)["kind"], &unit(1)["scale"]),
        (&"image".into(), &1.0.into())
    );
    assert!(unit(0)["name"].as_str().unwrap().ends_with("control-1"));
    assert!(unit(1)["name"].as_str().unwrap().ends_with("control-2"));
    // The order of control images is that of the command line.
    let turned = [
        "--controlnet",
        &second,
        "--control-scale",
        "1",
        "--control",
        &photo,
        "--controlnet",
        &first,
        "--control-scale",
        "0.3",
        "--depth",
        &photo,
    ];
    let (same, _, _) = both("turned", &turned);
    assert!(image.pixels == same.pixels);
    let scaled_alike = [&in_order[..8], &["--control-scale", "1"]].concat();
    assert!(both("alike", &scaled_alike).0.pixels != image.pixels);

    let model = format!("{FAMILIES}/sd15");
    let two = [
        "a cat",
        "--model",
        &model,
        "--controlnet",
        &first,
        "--controlnet",
        &second,
    ];
    fresh
        .run(&[&two[..], &["--pose", &photo]].concat())
        .fails(2, "--controlnet is given 2 times, and there is 1 control image");
    let three = ["--pose", &photo, "--depth", &photo, "--control", &photo];
    fresh
        .run(&[&two[..], &three].concat())
        .fails(2, "--controlnet is given 2 times, and there are 3 control images");
    fresh
        .run(&["a cat", "--model", &model, "--control", &photo])
        .fails(2, "--control needs --controlnet");
}

#[test]
fn a_controlnet_whose_weights_are_not_finite_is_named_with_its_tensor() {
    let fresh = Fresh::new();
    let network = fresh.path().join("control");
    copy_folder(Path::new(&format!("{FAMILIES}/control-1")), &network);
    let file = network.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let (offset, _) = tensor_offset(&bytes, "controlnet_mid_block.bias");
    bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let (model, photo) = (format!("{FAMILIES}/sd15"), format!("{FAMILIES}/init.png"));
    let arguments = [
        "a cat",
        "--model",
        &model,
        "--size",
        "64x64",
        "--steps",
        "2",
        "--control",
        &photo,
        "--controlnet",
        "control",
    ];
    fresh
        .run(&arguments)
        .fails(1, "tensor `controlnet_mid_block.bias` in `")
        .fails(
            1,
            "control/diffusion_pytorch_model.safetensors` holds such values",
        );
}
