//! Errors that headers show are reported before anything is generated: by `plan`, and by a run before its
//! first step.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Fresh, Image, copy_folder};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures")
}

/// A tensor in the making.
#[derive(Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Changes the tensors of the safetensors file at `path`.
fn edit(path: &Path, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = file.tensors().into_iter().map(|(name, view)| {
        let stored = Stored {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        (name, stored)
    });
    let mut tensors: BTreeMap<String, Stored> = stored.collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, stored)| {
        let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Converts all tensors to f64.
fn widen(tensors: &mut BTreeMap<String, Stored>) {
    for stored in tensors.values_mut() {
        let wide = |value: f32| f64::from(value).to_le_bytes();
        stored.bytes = match stored.dtype {
            Dtype::F32 => stored
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .flat_map(|bytes| wide(f32::from_le_bytes(*bytes)))
                .collect(),
            Dtype::F16 => stored
                .bytes
                .as_chunks::<2>()
                .0
                .iter()
                .flat_map(|bytes| wide(half::f16::from_le_bytes(*bytes).to_f32()))
                .collect(),
            _ => continue,
        };
        stored.dtype = Dtype::F64;
    }
}

/// A copy of the tiny Stable Diffusion 1.5.
fn sd15(fresh: &Fresh) -> PathBuf {
    let model = fresh.path().join("model");
    copy_folder(&fixtures().join("families/sd15"), &model);
    model
}

const GENERATE: [&str; 9] = [
    "a cat", "--model", "model", "--size", "64x64", "--steps", "2", "--device", "cpu",
];

/// Generates with `options` and returns the pixels.
#[track_caller]
fn generated(fresh: &Fresh, options: &[&str]) -> Vec<[u8; 3]> {
    let run = fresh.run(&[&GENERATE[..], options].concat()).succeeds();
    Image::read(&fresh.path().join(&run.images()[0])).pixels
}

/// Asserts that both `plan` and a run fail with `cause` before they generate anything.
#[track_caller]
fn is_told_first(fresh: &Fresh, options: &[&str], cause: &str) {
    let arguments = [&GENERATE[..], options].concat();
    fresh.run(&[&["plan"], &arguments[..]].concat()).fails(1, cause);
    let run = fresh.run(&[&arguments[..], &["--strict", "--json"]].concat());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains(cause), "{}", run.stderr);
    let began = run
        .events()
        .iter()
        .any(|event| event["event"] == "started" || event["event"] == "step");
    assert!(!began, "{}", run.stdout);
    assert_eq!(fresh.files("outputs"), [""; 0]);
}

#[test]
fn every_network_is_checked_before_the_first_step() {
    let weights = |component: &str| match component {
        "text_encoder" => "model/text_encoder/model.safetensors".to_owned(),
        other => format!("model/{other}/diffusion_pytorch_model.safetensors"),
    };
    for (component, tensor) in [
        ("text_encoder", "final_layer_norm.weight"),
        ("text_encoder", "embeddings.token_embedding.weight"),
        ("unet", "conv_out.weight"),
        ("unet", "time_embedding.linear_2.bias"),
        ("vae", "decoder.conv_out.weight"),
        ("vae", "decoder.conv_norm_out.bias"),
    ] {
        let change = |change: &dyn Fn(&mut BTreeMap<String, Stored>), cause: &str| {
            let fresh = Fresh::new();
            sd15(&fresh);
            edit(&fresh.path().join(weights(component)), |tensors| change(tensors));
            is_told_first(&fresh, &[], cause);
        };
        change(
            &|tensors| drop(tensors.remove(tensor).unwrap()),
            &format!("has no tensor `{tensor}`"),
        );
        change(
            &|tensors| {
                let shape = &mut tensors.get_mut(tensor).unwrap().shape;
                match shape.as_mut_slice() {
                    [count] => *shape = vec![*count / 2, 2],
                    _ => shape.reverse(),
                }
            },
            &format!("tensor `{tensor}` in "),
        );
    }
}

#[test]
fn what_only_some_runs_use_is_checked_for_those() {
    let fresh = Fresh::new();
    let model = sd15(&fresh);
    edit(
        &model.join("vae/diffusion_pytorch_model.safetensors"),
        |tensors| {
            tensors.remove("encoder.conv_in.weight").unwrap();
        },
    );
    generated(&fresh, &[]);
    fs::remove_dir_all(fresh.path().join("outputs")).unwrap();
    let image = image_of(&fresh);
    is_told_first(
        &fresh,
        &["--init-image", &image],
        "has no tensor `encoder.conv_in.weight`",
    );

    let fresh = Fresh::new();
    sd15(&fresh);
    let upscaler = fresh.path().join("upscaler.safetensors");
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../models/tests/fixtures/upscaler/names/model.safetensors"),
        &upscaler,
    )
    .unwrap();
    edit(&upscaler, |tensors| {
        drop(tensors.remove("conv_last.bias").unwrap())
    });
    is_told_first(
        &fresh,
        &["--upscale", "4", "--upscaler", "upscaler.safetensors"],
        "has no tensor `conv_last.bias`",
    );
}

/// An image of one colour.
fn image_of(fresh: &Fresh) -> String {
    let path = fresh.path().join("grey.png");
    let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&[128; 3 * 64 * 64])
        .unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn weights_in_64_bits_generate_the_same_image() {
    let fresh = Fresh::new();
    let model = sd15(&fresh);
    let expected = generated(&fresh, &["--dtype", "f32"]);
    for file in [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        edit(&model.join(file), widen);
    }
    assert!(generated(&fresh, &["--dtype", "f32"]) == expected);
}

#[test]
fn folders_of_pytorchs_files_generate_the_same_image() {
    let fresh = Fresh::new();
    let model = sd15(&fresh);
    let expected = generated(&fresh, &[]);
    for component in ["text_encoder", "vae"] {
        for entry in fs::read_dir(model.join(component)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension() == Some("safetensors".as_ref()) {
                fs::remove_file(path).unwrap();
            }
        }
        copy_folder(&fixtures().join("torch").join(component), &model.join(component));
    }
    assert!(generated(&fresh, &[]) == expected);
}

#[test]
fn pointers_and_web_pages_are_named_with_a_hint() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438354725\n";
    let page = "<!DOCTYPE html>\n<html><body>Please log in.</body></html>\n";
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        for (text, cause, hint) in [
            (pointer, "a pointer of git-lfs", "git lfs pull"),
            (page, "is a web page", "log in"),
        ] {
            let fresh = Fresh::new();
            let model = sd15(&fresh);
            fs::write(model.join(file), text).unwrap();
            let run = fresh.run(&[&["plan"], &GENERATE[..]].concat()).fails(1, cause);
            assert!(
                run.stderr.contains(hint) && run.stderr.contains(file),
                "{}",
                run.stderr
            );
        }
    }
    for option in ["--lora", "--upscaler"] {
        for (text, cause) in [(pointer, "a pointer of git-lfs"), (page, "is a web page")] {
            let fresh = Fresh::new();
            sd15(&fresh);
            fs::write(fresh.path().join("own.safetensors"), text).unwrap();
            let run = fresh.run(
                &[
                    &["plan"],
                    &GENERATE[..],
                    &["--upscale", "4", option, "own.safetensors"],
                ]
                .concat(),
            );
            run.fails(1, cause);
        }
    }
}

#[test]
fn a_quantised_model_is_refused_by_its_methods_name() {
    let fresh = Fresh::new();
    let model = sd15(&fresh);
    let path = model.join("unet/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["quantization_config"] = json!({"quant_method": "torchao"});
    fs::write(&path, config.to_string()).unwrap();
    let run = fresh.run(&[&["plan"], &GENERATE[..]].concat());
    let run = run.fails(1, "quantised with torchao");
    assert!(run.stderr.contains("16 bits"), "{}", run.stderr);
}
