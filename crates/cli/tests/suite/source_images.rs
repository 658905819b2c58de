//! Input images as cameras and programs write them: orientation, formats, and the memory of decoding.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use crate::command::{Fresh, Image};
use serde_json::Value;

const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures/families");
const SOURCE_IMAGES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../pipeline/tests/fixtures/source_images"
);
/// A TIFF directory with only an orientation: rotated to the left.
const TURNED: &[u8] = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";

fn model() -> String {
    format!("{FAMILIES}/sd15")
}

/// A PNG file of `pixels` in rows of `width`, with `exif` if there is any.
fn write_png(path: &Path, width: usize, pixels: &[[u8; 3]], exif: &[u8]) {
    let height = pixels.len() / width;
    let file = BufWriter::new(File::create(path).unwrap());
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    if !exif.is_empty() {
        writer.write_chunk(png::chunk::eXIf, exif).unwrap();
    }
    writer.write_image_data(pixels.as_flattened()).unwrap();
}

/// An image of 64x48 pixels, and its rows as stored when it is rotated.
fn upright_and_stored(pixel: impl Fn(usize, usize) -> [u8; 3]) -> (Vec<[u8; 3]>, Vec<[u8; 3]>) {
    let upright = (0..64 * 48).map(|at| pixel(at % 64, at / 64)).collect();
    let stored = (0..64 * 48).map(|at| pixel(63 - at / 48, at % 48)).collect();
    (upright, stored)
}

#[test]
fn images_are_taken_as_viewers_show_them() {
    let fresh = Fresh::new();
    let photo = |x: usize, y: usize| [4 * x as u8, 5 * y as u8, ((x * y) % 256) as u8];
    let mask = |x: usize, y: usize| [if x > 40 && y < 30 { 255 } else { 0 }; 3];
    for (name, (upright, stored)) in [
        ("photo", upright_and_stored(photo)),
        ("mask", upright_and_stored(mask)),
    ] {
        let path = |kind: &str| fresh.path().join(format!("{name}-{kind}.png"));
        write_png(&path("upright"), 64, &upright, b"");
        write_png(&path("turned"), 48, &stored, TURNED);
    }
    let network = format!("{FAMILIES}/control-1");
    let generate = |kind: &str, options: &[&str]| {
        let model = model();
        let mut arguments: Vec<String> = [
            "a cat", "--model", &model, "--steps", "2", "--output", kind, "--strict",
        ]
        .map(str::to_owned)
        .into();
        for option in options {
            arguments.push(option.replace("KIND", kind));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = fresh.run(&arguments).succeeds();
        Image::read(&fresh.path().join(&run.images()[0]))
    };
    for options in [
        &["--init-image", "photo-KIND.png"][..],
        &["--init-image", "photo-KIND.png", "--mask", "mask-KIND.png"],
        &[
            "--canny",
            "photo-KIND.png",
            "--controlnet",
            &network,
            "--size",
            "64x48",
        ],
        &[
            "--depth",
            "photo-KIND.png",
            "--controlnet",
            &network,
            "--size",
            "64x48",
        ],
        &[
            "--pose",
            "photo-KIND.png",
            "--controlnet",
            &network,
            "--size",
            "64x48",
        ],
    ] {
        let (upright, turned) = (generate("upright", options), generate("turned", options));
        assert_eq!((turned.width, turned.height), (64, 48));
        assert!(upright.pixels == turned.pixels, "{options:?}");
    }
}

/// A JPEG file of one gray, with subsampled chroma.
fn write_jpeg(path: &Path, width: u16, height: u16) {
    let flat = fs::read(format!("{SOURCE_IMAGES}/flat.jpg")).unwrap();
    let find = |marker: [u8; 2]| flat.windows(2).position(|bytes| bytes == marker).unwrap();
    let (frame, scan) = (find([0xff, 0xc0]), find([0xff, 0xda]));
    let data = scan + 2 + usize::from(flat[scan + 3]);
    let mut bytes = flat[..data].to_vec();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    // Four luma blocks without detail, of the same brightness as the one before, and one block of each chroma
    // component.
    let blocks = usize::from(width.div_ceil(16)) * usize::from(height.div_ceil(16));
    bytes.extend([0x28, 0xa2, 0x8a, 0x00].repeat(blocks));
    bytes.extend([0xff, 0xd9]);
    fs::write(path, bytes).unwrap();
}

fn bytes(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn reading_an_image_is_planned_and_no_budget_changes_a_pixel() {
    let fresh = Fresh::new();
    write_jpeg(&fresh.path().join("large.jpg"), 2400, 1800);
    let rows: Vec<[u8; 3]> = (0..2400 * 1800)
        .map(|at| [(at / 1800) as u8, at as u8, (at / 7) as u8])
        .collect();
    write_png(&fresh.path().join("large.png"), 2400, &rows, b"");
    drop(rows);
    let (model, network) = (model(), format!("{FAMILIES}/control-1"));
    let usual = [
        "a cat", "--model", &model, "--size", "64x64", "--steps", "2", "--strict",
    ];
    let mut smallest_of_all = Vec::new();
    for options in [
        &["--init-image", "large.jpg"][..],
        &["--init-image", "large.png"],
        &["--canny", "large.jpg", "--controlnet", &network],
    ] {
        let arguments = [&usual[..], options].concat();
        let plan = fresh
            .run(&[&["plan"], &arguments[..], &["--json"]].concat())
            .succeeds();
        let plan: Value = serde_json::from_str(plan.stdout.trim()).unwrap();
        let smallest = bytes(&plan, "smallest_budget");
        smallest_of_all.push(smallest);
        let within = |budget: u64| fresh.run(&[&arguments[..], &[&format!("--memory={budget}")]].concat());
        let (plenty, little) = (fresh.run(&arguments).succeeds(), within(smallest).succeeds());
        let [plenty, little] = [plenty, little].map(|run| fresh.path().join(&run.images()[0]));
        assert!(
            Image::read(&plenty).pixels == Image::read(&little).pixels,
            "{options:?}"
        );
        let sidecar: Value =
            serde_json::from_slice(&fs::read(little.with_extension("json")).unwrap()).unwrap();
        let (predicted, measured) = ("predicted_peak", "measured_peak");
        let [predicted, measured] = [predicted, measured].map(|name| bytes(&sidecar["memory"], name));
        assert!(
            measured <= predicted,
            "{options:?}: {measured} of {predicted} bytes"
        );
        within(smallest - 1).fails(3, "at the least");
    }
    // A PNG file is decoded row by row, a JPEG file as a whole: 13 MB.
    let [jpeg, png, edges] = smallest_of_all[..] else {
        unreachable!()
    };
    assert!(
        png + (7 << 20) < jpeg && png + (7 << 20) < edges,
        "{smallest_of_all:?}"
    );
}

#[test]
fn nothing_that_an_image_says_beside_its_pixels_is_inflated() {
    let fresh = Fresh::new();
    let name = format!("{SOURCE_IMAGES}/bad-profile.png");
    let model = model();
    fresh
        .run(&["a cat", "--model", &model, "--steps", "2", "--init-image", &name])
        .succeeds();
    let name = format!("{SOURCE_IMAGES}/bad-palette.png");
    for command in [&["plan", "a cat"][..], &["a cat"]] {
        let arguments = [command, &["--model", &model, "--init-image", &name]].concat();
        let run = fresh.run(&arguments).fails(1, "cannot be used as an image");
        assert!(run.stderr.contains("a palette of 4 bytes"), "{}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    }
}

#[test]
fn a_truncated_image_is_refused_by_name() {
    let fresh = Fresh::new();
    let model = model();
    for name in [
        "colour.jpg",
        "progressive.jpg",
        "lossy.webp",
        "lossless.webp",
        "colour-8.png",
    ] {
        let whole = fs::read(format!("{SOURCE_IMAGES}/{name}")).unwrap();
        fs::write(fresh.path().join(name), &whole[..whole.len() * 2 / 3]).unwrap();
        let run = fresh
            .run(&["a cat", "--model", &model, "--init-image", name])
            .fails(1, &format!("`{name}` cannot be used as an image"));
        assert!(run.stderr.contains("the file is truncated"), "{}", run.stderr);
    }
    assert!(!fresh.path().join("outputs").exists());
}
