//! `generate convert`: models in every form draw the images of the model that they were converted from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{Fresh, Image, copy_folder, model_with_large_transformer};

/// The settings of the images. The built-in model's guidance scale is not in its files.
const SETTINGS: [&str; 6] = ["--steps", "6", "--cfg", "2", "--seed", "3"];

/// The pixels of an image that `model` draws, with `more` settings.
fn drawn(fresh: &Fresh, model: &str, more: &[&str]) -> Vec<[u8; 3]> {
    let words = [&["a red circle", "--model", model], SETTINGS.as_slice(), more].concat();
    let run = fresh.run(&words).succeeds();
    Image::read(&fresh.path().join(&run.images()[0])).pixels
}

/// The peak signal-to-noise ratio of two images in decibels.
fn psnr(one: &[[u8; 3]], other: &[[u8; 3]]) -> f64 {
    let values = one.as_flattened().iter().zip(other.as_flattened());
    let square = |(&one, &other): (&u8, &u8)| (f64::from(one) - f64::from(other)).powi(2);
    let error: f64 = values.map(square).sum::<f64>() / one.as_flattened().len() as f64;
    10.0 * (255.0 * 255.0 / error).log10()
}

/// The tensors of a safetensors file: type, shape and bytes.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let described = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (
            name,
            (
                format!("{:?}", view.dtype()),
                view.shape().to_vec(),
                view.data().to_vec(),
            ),
        )
    };
    file.tensors().into_iter().map(described).collect()
}

/// The weights of each network of a folder.
fn weights(folder: &Path) -> Vec<PathBuf> {
    let networks = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = networks
        .filter(|path| path.is_dir())
        .flat_map(|path| fs::read_dir(path).unwrap());
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    files.sort();
    files
}

#[test]
fn the_built_in_model_draws_the_same_in_every_form() {
    let fresh = Fresh::new();
    // A converted model is a file as any other, whose weights stay as they are stored.
    let expected = drawn(&fresh, "demo", &["--dtype", "bf16"]);
    for form in ["demo.safetensors", "demo.gguf", "folder"] {
        let run = fresh.run(&["convert", "demo", "-o", form]).succeeds();
        assert_eq!(run.stdout.trim(), form);
        assert!(drawn(&fresh, form, &[]) == expected, "{form}");
    }
    // At the smallest budgets, too.
    let small = drawn(&fresh, "demo.gguf", &["--memory", "88MB"]);
    assert!(small == expected);
    // From one form to another and back.
    for (from, to) in [
        ("demo.safetensors", "again"),
        ("demo.gguf", "again.safetensors"),
        ("again.safetensors", "twice"),
    ] {
        fresh.run(&["convert", from, "-o", to]).succeeds();
    }
    let folders = ["folder", "again", "twice"].map(|name| weights(&fresh.path().join(name)));
    assert_eq!(folders[0].len(), 5);
    for others in &folders[1..] {
        for (one, other) in folders[0].iter().zip(others) {
            assert!(
                tensors(one) == tensors(other),
                "{} and {}",
                one.display(),
                other.display()
            );
        }
    }
}

#[test]
fn sixteen_bit_floats_are_equal_in_a_folder_and_in_gguf() {
    let fresh = Fresh::new();
    for form in ["folder", "demo.gguf"] {
        fresh
            .run(&["convert", "demo", "-o", form, "--to", "f16"])
            .succeeds();
    }
    assert!(drawn(&fresh, "folder", &[]) == drawn(&fresh, "demo.gguf", &[]));
}

#[test]
fn quantised_models_draw_nearly_the_same() {
    let fresh = Fresh::new();
    let expected = drawn(&fresh, "demo", &[]);
    for (encoding, least) in [
        ("q8_0", 40.0),
        ("q6_k", 40.0),
        ("q5_k", 25.0),
        ("q4_k", 25.0),
        ("q4_0", 20.0),
    ] {
        let form = format!("{encoding}.gguf");
        fresh
            .run(&["convert", "demo", "-o", &form, "--to", encoding])
            .succeeds();
        let found = drawn(&fresh, &form, &[]);
        let decibels = psnr(&found, &expected);
        assert!(decibels >= least, "{encoding}: {decibels:.1} dB");
        assert!(found != expected, "{encoding}");
        assert!(
            drawn(&fresh, &form, &["--memory", "88MB"]) == found,
            "{encoding} in little memory"
        );
        let again = format!("again-{form}");
        fresh
            .run(&["convert", "demo", "-o", &again, "--to", encoding])
            .succeeds();
        let bytes = |form: &str| fs::read(fresh.path().join(form)).unwrap();
        assert!(bytes(&form) == bytes(&again), "{encoding} is not the same twice");
    }
}

#[test]
fn models_of_every_family_draw_the_same_in_one_file() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures");
    for (model, more) in [
        ("families/sd15", &[][..]),
        ("families/sd21", &[]),
        ("families/sdxl", &[]),
        ("families/refiner", &["--init-image", "init.png"]),
        (
            "families/inpainting",
            &["--init-image", "init.png", "--mask", "mask.png"],
        ),
        ("models/tiny-large", &[]),
    ] {
        let fresh = Fresh::new();
        for image in ["init.png", "mask.png"] {
            fs::copy(fixtures.join("families").join(image), fresh.path().join(image)).unwrap();
        }
        copy_folder(&fixtures.join(model), &fresh.path().join("model"));
        let more = [more, &["--size", "64x64"]].concat();
        let expected = drawn(&fresh, "model", &more);
        for form in ["one.safetensors", "one.gguf"] {
            fresh.run(&["convert", "model", "-o", form]).succeeds();
            assert!(drawn(&fresh, form, &more) == expected, "{model} as {form}");
        }
        fresh
            .run(&["convert", "one.safetensors", "-o", "back"])
            .succeeds();
        let back = weights(&fresh.path().join("back"));
        assert!(back.len() >= 3, "{back:?}");
        for path in back {
            let network = path.parent().unwrap().file_name().unwrap();
            let original = fresh
                .path()
                .join("model")
                .join(network)
                .join(path.file_name().unwrap());
            if !original.is_file() {
                continue;
            }
            // Releases of transformers differ in the prefix of names.
            let bare = |path: &Path| -> BTreeMap<_, _> {
                let named = tensors(path).into_iter();
                named
                    .map(|(name, tensor)| (name.replace("text_model.", ""), tensor))
                    .collect()
            };
            let (mut original, found) = (bare(&original), bare(&path));
            // What no network reads is left out.
            original.retain(|name, _| !name.ends_with("position_ids"));
            assert!(original == found, "{}", path.display());
        }
    }
}

#[test]
fn a_conversion_is_whole_or_not_there() {
    let fresh = Fresh::new();
    fresh
        .run(&["convert", "demo", "-o", "q.safetensors", "--to", "q4_k"])
        .fails(1, "q4_k is a type of GGUF files");
    fresh
        .run(&["convert", "nothing", "-o", "x.gguf"])
        .fails(4, "nothing");
    assert_eq!(fresh.files("."), [""; 0]);
    fs::write(fresh.path().join("there.gguf"), "mine").unwrap();
    fresh
        .run(&["convert", "demo", "-o", "there.gguf"])
        .fails(1, "there is something at `there.gguf`");
    assert_eq!(fs::read(fresh.path().join("there.gguf")).unwrap(), b"mine");
    fresh
        .run(&["convert", "demo", "-o", "there.gguf", "--force"])
        .succeeds();
    assert!(fs::metadata(fresh.path().join("there.gguf")).unwrap().len() > 1 << 20);
    fresh
        .run(&["convert", "demo", "-o", "missing/x.gguf"])
        .fails(1, "cannot write");
    assert_eq!(fresh.files("."), ["there.gguf"]);
    // A damaged source leaves nothing.
    let bytes = fs::read(fresh.path().join("there.gguf")).unwrap();
    fs::write(fresh.path().join("half.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    let run = fresh.run(&["convert", "half.gguf", "-o", "whole"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(fresh.files("."), ["half.gguf", "there.gguf"]);
}

/// A killed conversion leaves no model behind, and the next one what it has left.
#[cfg(unix)]
#[test]
fn a_killed_conversion_leaves_nothing_that_looks_whole() {
    let fresh = Fresh::new();
    model_with_large_transformer(&fresh, 24);
    fs::write(
        fresh.configuration(),
        format!("models_path = [{:?}]\n", fresh.path()),
    )
    .unwrap();
    let models = || fresh.run(&["models"]).succeeds().stdout;
    let before = models();
    for target in ["target.gguf", "target.safetensors", "target"] {
        let mut child = fresh
            .command()
            .args(["convert", "model", "-o", target])
            .spawn()
            .unwrap();
        let unfinished = || {
            let mut files = fresh.files(".");
            files.retain(|name| name.starts_with(".convert-"));
            files
        };
        while unfinished().is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(unfinished().len(), 1, "{target} was too quick");
        assert!(!fresh.path().join(target).exists(), "{target}");
        assert_eq!(models(), before);
        fresh.run(&["convert", "model", "-o", target]).succeeds();
        assert_eq!(unfinished(), [""; 0], "{target}");
        let path = fresh.path().join(target);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

#[test]
fn the_report_counts_types_and_names_what_is_left_out() {
    let fresh = Fresh::new();
    let words = ["convert", "demo", "-o", "q8.gguf", "--to", "q8_0", "--json"];
    let event = fresh.run(&words).succeeds().events().pop().unwrap();
    assert_eq!(event["event"], "converted");
    assert_eq!(event["path"], "q8.gguf");
    let length = fs::metadata(fresh.path().join("q8.gguf")).unwrap().len();
    assert_eq!(event["bytes"], length);
    let types = event["types"].as_object().unwrap();
    let bytes: u64 = types.values().filter_map(Value::as_u64).sum();
    assert!(
        types.contains_key("q8_0") && types.contains_key("bf16"),
        "{event}"
    );
    assert!(bytes > length * 9 / 10 && bytes <= length, "{event}");
    // A tensor that no network reads.
    fresh
        .run(&["convert", "demo", "-o", "one.safetensors"])
        .succeeds();
    let path = fresh.path().join("one.safetensors");
    let mut with_more = tensors(&path);
    with_more.insert(
        "model_ema.decay".to_owned(),
        ("F32".to_owned(), vec![1], vec![0; 4]),
    );
    let views = with_more.iter().map(|(name, (kind, shape, data))| {
        let kind = if kind == "F32" {
            safetensors::Dtype::F32
        } else {
            safetensors::Dtype::BF16
        };
        (
            name.as_str(),
            safetensors::tensor::TensorView::new(kind, shape.clone(), data).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &fresh.path().join("more.safetensors")).unwrap();
    let event = fresh.run(&["convert", "more.safetensors", "-o", "again", "--json"]);
    let event = event.succeeds().events().pop().unwrap();
    assert_eq!(event["dropped"], serde_json::json!(["model_ema.decay"]));
}
