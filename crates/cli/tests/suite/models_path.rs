//! Models of other programs: found by name below `models_path`, and listed.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::command::{Fresh, Image, Run, copy_folder};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures");
const UPSCALERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/fixtures/upscaler");
const COMFY: &str = "ComfyUI/models";
const WEBUI: &str = "stable-diffusion-webui/models";
/// An embedding, which stable-diffusion-webui keeps beside its models.
const EASY: &str = "../embeddings/easy.safetensors";

/// A folder with the models of ComfyUI and of stable-diffusion-webui, and a configuration that names both.
fn with_trees() -> Fresh {
    let fresh = Fresh::new();
    let at = |path: &str| fresh.path().join(path);
    copy_folder(&fixture("families/sd15"), &at("source"));
    for folder in [
        "checkpoints/xl",
        "loras/style",
        "vae",
        "controlnet",
        "upscale_models",
    ] {
        fs::create_dir_all(at(COMFY).join(folder)).unwrap();
    }
    for folder in ["Stable-diffusion", "Lora/other", "ESRGAN", "../embeddings"] {
        fs::create_dir_all(at(WEBUI).join(folder)).unwrap();
    }
    let convert = |from: &str, to: &str| {
        fresh.run(&["convert", from, "-o", to]).succeeds();
    };
    convert("source", &format!("{COMFY}/checkpoints/small.safetensors"));
    convert("demo", &format!("{COMFY}/checkpoints/xl/shapes.gguf"));
    let copy = |from: PathBuf, to: String| {
        fs::copy(from, at(&to)).unwrap();
    };
    copy(
        at(COMFY).join("checkpoints/small.safetensors"),
        format!("{WEBUI}/Stable-diffusion/twin.safetensors"),
    );
    copy(
        at("source/vae/diffusion_pytorch_model.safetensors"),
        format!("{COMFY}/vae/smooth.safetensors"),
    );
    copy(
        fixture("conditioned/loras/kohya.safetensors"),
        format!("{COMFY}/loras/style/film.safetensors"),
    );
    copy(
        fixture("conditioned/loras/diffusers.safetensors"),
        format!("{WEBUI}/Lora/other/film.safetensors"),
    );
    copy(
        Path::new(UPSCALERS).join("x2/model.pth"),
        format!("{COMFY}/upscale_models/twice.pth"),
    );
    copy_folder(
        &fixture("families/control-1"),
        &at(COMFY).join("controlnet/poses"),
    );
    fs::remove_dir_all(at("source")).unwrap();
    // Two vectors of the width of its text encoder.
    let values: Vec<u8> = (0..32)
        .flat_map(|index| (index as f32 * 0.7).sin().to_le_bytes())
        .collect();
    let vectors = TensorView::new(Dtype::F32, vec![2, 16], &values).unwrap();
    let path = at(WEBUI).join(EASY);
    safetensors::serialize_to_file([("emb_params", vectors)], None, &path).unwrap();
    configure(&fresh, &[COMFY, WEBUI]);
    fresh
}

fn fixture(path: &str) -> PathBuf {
    Path::new(FIXTURES).join(path)
}

/// Writes a configuration with these `folders`.
fn configure(fresh: &Fresh, folders: &[&str]) {
    let folders: Vec<PathBuf> = folders.iter().map(|folder| fresh.path().join(folder)).collect();
    fs::write(fresh.configuration(), format!("models_path = {folders:?}\n")).unwrap();
}

fn generate(fresh: &Fresh, model: &str, more: &[&str]) -> Run {
    let words = [
        "a red circle",
        "--size",
        "64x64",
        "--steps",
        "1",
        "--model",
        model,
    ];
    fresh.run(&[&words[..], more].concat())
}

fn pixels(fresh: &Fresh, run: &Run) -> Vec<[u8; 3]> {
    Image::read(&fresh.path().join(&run.images()[0])).pixels
}

fn metadata(fresh: &Fresh, run: &Run) -> Value {
    let path = fresh.path().join(&run.images()[0]).with_extension("json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn files_of_other_programs_are_found_by_name() {
    let fresh = with_trees();
    let path = format!("{COMFY}/checkpoints/small.safetensors");
    let expected = pixels(&fresh, &generate(&fresh, &path, &[]).succeeds());
    for name in ["small", "small.safetensors", "twin"] {
        let run = generate(&fresh, name, &[]).succeeds();
        assert!(pixels(&fresh, &run) == expected, "{name}");
    }
    for name in ["shapes", "xl/shapes", "xl/shapes.gguf"] {
        generate(&fresh, name, &["--plan"]).succeeds();
    }
    // Everything else that a run uses.
    let photo = fixture("families/init.png");
    let photo = photo.to_str().unwrap();
    let words = [
        "--lora",
        "style/film:0.8",
        "--vae",
        "smooth",
        "--depth",
        photo,
        "--controlnet",
        "poses",
        "--upscale",
        "2",
        "--upscaler",
        "twice",
        "--strict",
    ];
    let run = generate(&fresh, "small", &words).succeeds();
    let found = metadata(&fresh, &run);
    assert_eq!(found["upscale_method"], "twice");
    assert_eq!(found["controlnet"][0]["name"], "poses");
    let tag = [
        "a red circle <lora:style/film:0.8>",
        "--model",
        "small",
        "--size",
        "64x64",
        "--steps",
        "1",
        "--strict",
    ];
    let tagged = fresh.run(&tag).succeeds();
    assert!(pixels(&fresh, &tagged) != expected);
    let easy = |more: &[&str]| {
        let words = ["an easy circle", "--size", "64x64", "--steps", "1", "--strict"];
        let run = fresh.run(&[&words[..], &["--model", "small"], more].concat());
        pixels(&fresh, &run.succeeds())
    };
    let embedded = easy(&[]);
    fs::rename(
        fresh.path().join(WEBUI).join(EASY),
        fresh.path().join(WEBUI).join("../embeddings/other.safetensors"),
    )
    .unwrap();
    assert!(easy(&[]) != embedded);
    easy(&["--embedding", "other"]);
    // Nothing is copied.
    assert!(!fresh.hugging_face().join("hub").exists());
    // A local path precedes.
    fs::write(fresh.path().join("small"), "not a model").unwrap();
    assert_ne!(generate(&fresh, "small", &[]).code, Some(0));
}

#[test]
fn names_that_tell_no_file_are_refused() {
    let fresh = with_trees();
    let run = generate(&fresh, "small", &["--lora", "film"]);
    let several = "`film` is the name of several files: style/film.safetensors, other/film.safetensors";
    let run = run.fails(2, several);
    assert!(
        run.stderr.contains("hint: choose one: `style/film.safetensors`"),
        "{}",
        run.stderr
    );
    // One of two kinds is not the other.
    generate(&fresh, "film", &[]).fails(4, "there is no model at `film`");
    generate(&fresh, "small", &["--upscale", "2", "--upscaler", "small"]).fails(4, "upscaler");
    generate(&fresh, "nothing", &[]).fails(4, "there is no model at `nothing`");

    configure(&fresh, &[COMFY, "unplugged"]);
    let run = generate(&fresh, "small", &[]).fails(2, "unplugged` in models_path");
    assert!(run.stderr.contains("hint: connect the disk"), "{}", run.stderr);
    // It is not used for a path, nor for the built-in model.
    let path = format!("{COMFY}/checkpoints/small.safetensors");
    generate(&fresh, &path, &[]).succeeds();
    generate(&fresh, "demo", &["--plan"]).succeeds();
    let list = fresh.run(&["models"]).succeeds();
    assert!(
        list.stderr.starts_with("warning: ") && list.stderr.contains("unplugged of models_path is no folder"),
        "{}",
        list.stderr
    );
    assert!(list.stdout.contains("small"), "{}", list.stdout);
    let events = fresh.run(&["models", "--json"]).succeeds().events();
    assert_eq!(
        (&events[0]["event"], &events[1]["event"]),
        (&"warning".into(), &"models".into())
    );
}

/// Splits the file of a model into one without its autoencoder and one with that alone.
fn split(whole: &Path, rest: &Path, vae: &Path) {
    const VAE: &str = "first_stage_model.";
    let bytes = fs::read(whole).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let part = |is_vae: bool| {
        let tensors = all.tensors().into_iter();
        let tensors = tensors.filter(move |(name, _)| name.starts_with(VAE) == is_vae);
        tensors.collect::<Vec<_>>()
    };
    assert!(!part(true).is_empty());
    safetensors::serialize_to_file(part(false), header.metadata().clone(), rest).unwrap();
    safetensors::serialize_to_file(part(true), None, vae).unwrap();
}

#[test]
fn what_a_file_lacks_is_found_below_models_path() {
    let fresh = with_trees();
    let at = |path: &str| fresh.path().join(path);
    fs::remove_file(at(COMFY).join("vae/smooth.safetensors")).unwrap();
    fs::create_dir_all(at("elsewhere")).unwrap();
    fs::create_dir_all(at(COMFY).join("vae/kept")).unwrap();
    split(
        &at(COMFY).join("checkpoints/small.safetensors"),
        &at("elsewhere/bare.safetensors"),
        &at(COMFY).join("vae/kept/own.safetensors"),
    );
    generate(&fresh, "elsewhere/bare.safetensors", &[]).succeeds();
    fs::remove_file(fresh.configuration()).unwrap();
    generate(&fresh, "elsewhere/bare.safetensors", &[]).fails(4, "without an autoencoder (VAE)");
}

#[test]
fn every_file_is_listed_with_what_it_is() {
    let fresh = with_trees();
    let at = |path: &str| fresh.path().join(path);
    fs::write(at(COMFY).join("checkpoints/broken.safetensors"), "no header").unwrap();
    fs::copy(
        fixture("conditioned/loras/peft.safetensors"),
        at(COMFY).join("checkpoints/misplaced.safetensors"),
    )
    .unwrap();
    fs::write(at(COMFY).join("checkpoints/put_checkpoints_here"), "").unwrap();
    fresh.install("families/sd15", "me/cached");
    let list = fresh.run(&["models"]).succeeds();
    let line = |name: &str| {
        let start = format!("{name} ");
        let mut lines = list.stdout.lines();
        let line = lines.find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("{name} is not in\n{}", list.stdout))
            .to_owned()
    };
    assert!(list.stdout.starts_with("NAME "), "{}", list.stdout);
    assert_eq!(list.stdout.lines().count(), 13, "{}", list.stdout);
    for (name, parts) in [
        ("me/cached", &["Stable Diffusion", " f16 "][..]),
        ("small", &["Stable Diffusion", " f16 "]),
        ("twin", &["Stable Diffusion"]),
        ("shapes", &["Stable Diffusion 3", " bf16 "]),
        ("style/film", &["LoRA"]),
        ("other/film", &["LoRA"]),
        ("smooth", &["VAE"]),
        ("twice", &["upscaler 2x"]),
        ("easy", &["embedding"]),
        ("poses", &["ControlNet for Stable Diffusion"]),
        ("broken", &["model", "not a safetensors file"]),
        ("misplaced", &["holds a LoRA, and its folder is for models"]),
    ] {
        let line = line(name);
        for part in parts {
            assert!(line.contains(part), "{line}");
        }
    }
    assert!(!list.stdout.contains("put_checkpoints_here"));
    let notes: Vec<&str> = list.stderr.lines().collect();
    assert!(
        notes[0].starts_with("1 in ") && notes[1].starts_with("8 in ") && notes[2].starts_with("3 in "),
        "{}",
        list.stderr
    );

    let event = fresh.run(&["models", "--json"]).succeeds().events().remove(0);
    assert_eq!(event["models"][0]["id"], "me/cached");
    assert_eq!(event["models_path"].as_array().unwrap().len(), 2);
    let files = event["files"].as_array().unwrap();
    let file = |name: &str| files.iter().find(|file| file["name"] == name).unwrap();
    let small = file("small");
    assert_eq!(
        (&small["kind"], &small["problem"], &small["data_type"]),
        (&"model".into(), &Value::Null, &"f16".into())
    );
    let path = at(COMFY).join("checkpoints/small.safetensors");
    assert_eq!(small["path"], path.to_str().unwrap());
    assert_eq!(small["bytes"], fs::metadata(&path).unwrap().len());
    assert_eq!(file("broken")["smallest_budget"], Value::Null);
    assert!(file("broken")["problem"].is_string());
    // The budgets are those of a plan, for the cached model as well.
    let plan = fresh
        .run(&["x", "--model", "small", "--plan", "--json"])
        .succeeds();
    let plan = &plan.events()[0];
    for row in [small, &event["models"][0]] {
        let smallest = row["smallest_budget"].as_u64().unwrap();
        let comfortable = row["comfortable_budget"].as_u64().unwrap();
        assert!(smallest > 30 << 20 && smallest <= comfortable, "{row}");
    }
    assert_eq!(small["smallest_budget"], plan["smallest_budget"]);
    assert_eq!(small["comfortable_budget"], plan["resident_budget"]);
    // Each name is one that options take.
    for file in files
        .iter()
        .filter(|file| file["kind"] == "model" && file["problem"].is_null())
    {
        generate(&fresh, file["name"].as_str().unwrap(), &["--plan"]).succeeds();
    }
}
