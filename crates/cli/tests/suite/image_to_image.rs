//! Image-to-image, inpainting and refiners.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use crate::command::{Fresh, Image, tensor_offset};
use serde_json::Value;

/// Generates with `arguments`, among them the output folder.
fn generate(fresh: &Fresh, prompt: &str, arguments: &[&str]) -> Image {
    let arguments = [&[prompt, "--steps", "8", "--quiet"][..], arguments].concat();
    let run = fresh.run(&arguments).succeeds();
    Image::read(&fresh.path().join(&run.images()[0]))
}

/// A gray image with the `brightness` of each pixel.
fn write_gray(path: &Path, side: u32, brightness: impl Fn(u32, u32) -> u8) {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path).unwrap()), side, side);
    encoder.set_color(png::ColorType::Grayscale);
    let bytes: Vec<u8> = (0..side * side)
        .map(|index| brightness(index % side, index / side))
        .collect();
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
}

fn is_red([red, _, blue]: [u8; 3]) -> bool {
    red > 150 && blue < 110
}

fn is_blue([red, _, blue]: [u8; 3]) -> bool {
    blue > 150 && red < 110
}

#[test]
fn image_to_image_and_inpainting() {
    let fresh = Fresh::new();
    let run = fresh
        .run(&["a red circle", "--quiet", "--output", "first"])
        .succeeds();
    let path = run.images()[0].to_str().unwrap().to_owned();
    let img2img = ["--init-image", &path];
    let with = |more: &[&'static str]| [&img2img[..], more].concat();

    let little = generate(
        &fresh,
        "a blue circle",
        &with(&["--strength", "0.1", "--output", "little"]),
    );
    let much = generate(
        &fresh,
        "a blue circle",
        &with(&["--strength", "0.9", "--output", "much"]),
    );
    assert!(is_red(little.pixel(128, 128)), "{:?}", little.pixel(128, 128));
    assert!(is_blue(much.pixel(128, 128)), "{:?}", much.pixel(128, 128));

    // The left half is inpainted.
    write_gray(
        &fresh.path().join("mask.png"),
        256,
        |x, _| if x < 128 { 255 } else { 0 },
    );
    let masked = generate(
        &fresh,
        "a blue square",
        &with(&["--mask", "mask.png", "--output", "masked"]),
    );
    let [inside, outside] = [100, 160].map(|x| masked.pixel(x, 128));
    assert!(is_blue(inside) && is_red(outside), "{inside:?} {outside:?}");

    // An image that is generated at another size has a mask of the initial image's size.
    let smaller = generate(
        &fresh,
        "a blue square",
        &with(&["--mask", "mask.png", "--size", "192x192", "--output", "smaller"]),
    );
    let sidecar = fs::read_dir(fresh.path().join("smaller")).unwrap();
    let sidecar = sidecar
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "json"));
    let sidecar: Value = serde_json::from_slice(&fs::read(sidecar.unwrap()).unwrap()).unwrap();
    assert_eq!(sidecar["failures"], Value::Array(Vec::new()));
    let outside = smaller.pixel(120, 96);
    assert!(is_red(outside), "{outside:?}");
}

#[test]
fn files_that_are_no_images_and_masks_that_do_not_fit() {
    let fresh = Fresh::new();
    let in_folder = |name: &str| fresh.path().join(name);
    write_gray(&in_folder("image.png"), 256, |_, _| 128);
    write_gray(&in_folder("mask.png"), 128, |_, _| 255);
    fs::write(in_folder("text.png"), "no image").unwrap();
    let masked = ["x", "--init-image", "image.png", "--steps", "2", "--mask"];
    for (mask, reason) in [
        ("mask.png", "is 128x128 pixels, the image 256x256"),
        ("text.png", "`text.png` cannot be used as an image"),
    ] {
        let run = fresh.run(&[&masked[..], &[mask]].concat()).succeeds();
        let warning = format!("warning: the mask `{mask}` is left out: ");
        assert!(run.stderr.contains(&warning), "{}", run.stderr);
        let sidecar = fresh.path().join(&run.images()[0]).with_extension("json");
        let sidecar: Value = serde_json::from_slice(&fs::read(sidecar).unwrap()).unwrap();
        assert_eq!(sidecar["failures"][0]["what"], format!("the mask `{mask}`"));
        assert!(
            sidecar["failures"][0]["reason"]
                .as_str()
                .unwrap()
                .contains(reason)
        );
        assert_eq!(sidecar["img2img"]["mask"], Value::Null);
        fresh
            .run(&[&masked[..], &[mask, "--strict"]].concat())
            .fails(1, reason);
    }
    for file in ["text.png", "missing.png"] {
        let cause = format!("`{file}` cannot be used as an image");
        fresh.run(&["x", "--init-image", file]).fails(1, &cause);
    }
    fresh.run(&["x", "--mask", "mask.png"]).fails(2, "--init-image");
    fresh
        .run(&["x", "--init-image", "image.png", "--strength", "2"])
        .fails(2, "a strength is a number from 0 to 1");
}

#[test]
fn a_refiner_is_image_to_image_from_the_saved_image() {
    let fresh = Fresh::new();
    let refined = generate(
        &fresh,
        "a red circle",
        &["--refiner", "demo", "--output", "refined"],
    );
    let plain = fresh
        .run(&["a red circle", "--steps", "8", "--quiet", "--output", "plain"])
        .succeeds();
    let path = plain.images()[0].to_str().unwrap().to_owned();
    let img2img = [
        "--init-image",
        &path,
        "--strength",
        "0.3",
        "--steps",
        "20",
        "--quiet",
        "--output",
        "img2img",
    ];
    let img2img = fresh.run(&[&["a red circle"][..], &img2img].concat()).succeeds();
    let img2img = Image::read(&fresh.path().join(&img2img.images()[0]));
    assert!(refined.pixels == img2img.pixels);
    let plain = Image::read(&fresh.path().join(&path));
    assert!(refined.pixels != plain.pixels);
}

#[test]
fn a_model_that_refines_itself_gives_the_same_image() {
    let fresh = Fresh::new();
    let plain = generate(&fresh, "a red circle", &["--output", "plain"]);
    for switch in ["0.3", "0.8"] {
        let shared = [
            "--refiner",
            "demo",
            "--refiner-switch",
            switch,
            "--output",
            switch,
        ];
        let shared = generate(&fresh, "a red circle", &shared);
        let bytes = shared.pixels.iter().flatten().zip(plain.pixels.iter().flatten());
        // The conditioning of a single step has another order of summation than that of several steps.
        let most = bytes.map(|(one, other)| one.abs_diff(*other)).max().unwrap();
        assert!(most <= 1, "{switch}: {most}");
    }
}

#[test]
fn a_refiner_that_fails_is_left_out_and_the_image_so_far_is_saved() {
    let fresh = Fresh::new();
    let small = ["--size", "128x128"];
    let plain = generate(
        &fresh,
        "a red circle",
        &[&small[..], &["--output", "plain"]].concat(),
    );
    let model = fresh.tiny_model();
    // One of its weights is NaN, which only shows when it is used.
    let weights = model.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let (offset, _) = tensor_offset(&bytes, "decoder.conv_out.bias");
    bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    let model = model.to_str().unwrap().to_owned();
    let refined = [&["a red circle", "--steps", "8", "--refiner", &model][..], &small].concat();
    let run = fresh.run(&refined).succeeds();
    let image = fresh.path().join(&run.images()[0]);
    assert!(Image::read(&image).pixels == plain.pixels);
    let sidecar: Value = serde_json::from_slice(&fs::read(image.with_extension("json")).unwrap()).unwrap();
    assert_eq!(sidecar["failures"][0]["what"], format!("the refiner `{model}`"));
    assert_eq!(sidecar["refiner"], Value::Null);
    let strict = fresh.run(&[&refined[..], &["--strict"]].concat());
    strict.fails(1, "not finite");

    // A refiner that cannot be opened takes nothing over, and the base model runs all steps.
    fs::remove_file(fresh.path().join("model/vae/config.json")).unwrap();
    let run = fresh
        .run(&[&refined[..], &["--refiner-switch", "0.5"]].concat())
        .succeeds();
    let image = fresh.path().join(&run.images()[0]);
    assert!(Image::read(&image).pixels == plain.pixels);
}

#[test]
fn a_base_model_hands_over_after_any_of_its_evaluations() {
    let fresh = Fresh::new();
    let families = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures/families");
    let generate = |model: &str, refiner: &str, more: &[&str]| {
        let (model, refiner) = (format!("{families}/{model}"), format!("{families}/{refiner}"));
        let arguments = [
            "a cat",
            "--model",
            &model,
            "--refiner",
            &refiner,
            "--size",
            "64x64",
        ];
        fresh.run(&[&arguments[..], more].concat())
    };
    // Second-order samplers are split in the middle of a step.
    for sampler in ["Heun", "DPM2", "DPM2 a", "DPM++ SDE", "DPM++ 2S a"] {
        for switch in ["0.2", "0.55", "0.8"] {
            let more = ["--steps", "6", "--sampler", sampler, "--refiner-switch", switch];
            generate("sdxl", "refiner", &more).succeeds();
        }
    }
    // The first step of PNDM has two evaluations.
    generate("sd15", "sd15", &["--steps", "3", "--refiner-switch", "0.4"]).succeeds();

    // Before the first evaluation there are no latents to hand over.
    for (steps, switch) in [("10", "0"), ("10", "0.05"), ("3", "0.3")] {
        let more = ["--steps", steps, "--refiner-switch", switch, "--sampler", "Euler"];
        let cause = format!(
            "the base model takes none of its {steps} steps before the refiner takes over at {switch}"
        );
        for more in [&more[..], &[&more[..], &["--plan"]].concat()] {
            let run = generate("sdxl", "refiner", more).fails(1, &cause);
            assert!(run.stderr.contains("--refiner-switch"), "{}", run.stderr);
        }
    }
}

#[test]
fn a_refiner_that_fails_after_it_took_over_names_its_tensor() {
    let fresh = Fresh::new();
    let model = fresh.tiny_model();
    let weights = model.join("transformer/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let (offset, _) = tensor_offset(&bytes, "proj_out.bias");
    bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    let model = model.to_str().unwrap().to_owned();
    let base = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../pipeline/tests/fixtures/models/tiny-large"
    );
    let refined = [
        "a cat",
        "--model",
        base,
        "--steps",
        "4",
        "--size",
        "64x64",
        "--refiner",
        &model,
    ];
    // A finished image is saved without the refiner; half-denoised latents are no image.
    fresh.run(&refined).succeeds();
    let run = fresh.run(&[&refined[..], &["--refiner-switch", "0.5"]].concat());
    run.fails(1, "tensor `proj_out.bias` in `");
}
