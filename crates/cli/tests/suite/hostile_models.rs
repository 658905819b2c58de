//! Hostile models are refused at once with one line of error, before memory is allocated for what they claim.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{Fresh, Run, copy_folder};
use serde_json::{Value, json};

const PLAN: [&str; 7] = ["plan", "a cat", "--model", "model", "--size", "64x64", "--quiet"];
/// The most time of a refusal on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A fresh folder with a tiny model of `family` in the folder `model`.
fn with_model(family: &str) -> (Fresh, PathBuf) {
    let fresh = Fresh::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures");
    let model = fresh.path().join("model");
    copy_folder(&fixtures.join(family), &model);
    (fresh, model)
}

/// Plans with 2 GB of address space, which must fail soon with `code` and `cause`.
#[track_caller]
fn refuses(fresh: &Fresh, code: i32, cause: &str) -> Run {
    let begun = Instant::now();
    let script = format!(
        "ulimit -v 2000000; exec {} \"$@\"",
        env!("CARGO_BIN_EXE_generate")
    );
    let output = fresh.shell(&script).arg("sh").args(PLAN).output().unwrap();
    let run = Run::of(output).fails(code, cause);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    run
}

fn edit(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn counts_that_cannot_be_are_named() {
    let huge = json!(u64::MAX / 2 + 1);
    let large = "models/tiny-large";
    for (family, file, setting, values) in [
        (
            large,
            "text_encoder",
            "num_hidden_layers",
            vec![json!(0), json!(1_000_000_000), huge.clone()],
        ),
        (large, "text_encoder", "hidden_size", vec![huge.clone()]),
        (large, "text_encoder_2", "projection_dim", vec![huge.clone()]),
        (large, "text_encoder", "vocab_size", vec![json!(0), huge.clone()]),
        (
            large,
            "text_encoder_3",
            "num_layers",
            vec![json!(0), json!(65_536), json!(1_u64 << 63)],
        ),
        (large, "text_encoder_3", "d_ff", vec![json!(0), huge.clone()]),
        (
            large,
            "transformer",
            "num_layers",
            vec![json!(0), json!(65_536), huge.clone()],
        ),
        (
            large,
            "transformer",
            "num_attention_heads",
            vec![json!(0), huge.clone()],
        ),
        (large, "transformer", "pooled_projection_dim", vec![huge.clone()]),
        (large, "vae", "latent_channels", vec![json!(0), huge.clone()]),
        (
            large,
            "vae",
            "layers_per_block",
            vec![json!(0), json!(100_000), huge.clone()],
        ),
        (large, "vae", "norm_num_groups", vec![json!(0)]),
        (
            "families/sd15",
            "unet",
            "in_channels",
            vec![json!(0), huge.clone()],
        ),
        (
            "families/sd15",
            "unet",
            "layers_per_block",
            vec![json!(0), json!(100_000), huge.clone()],
        ),
        (
            "families/sd15",
            "unet",
            "norm_num_groups",
            vec![json!(0), huge.clone()],
        ),
        (
            "families/sdxl",
            "unet",
            "transformer_layers_per_block",
            // Null is valid in some small models.
            vec![json!(100_000), huge.clone()],
        ),
    ] {
        let (fresh, model) = with_model(family);
        let config = model.join(file).join("config.json");
        let original = fs::read(&config).unwrap();
        for value in values {
            edit(&config, |config| config[setting] = value.clone());
            let run = refuses(&fresh, 1, "");
            let names_it = run.stderr.contains(setting) || run.stderr.contains("groups");
            assert!(names_it, "{file} {setting} {value}: {}", run.stderr);
            fs::write(&config, &original).unwrap();
        }
    }
    // A fraction, and a negative number.
    let (fresh, model) = with_model(large);
    edit(&model.join("text_encoder/config.json"), |config| {
        config["num_hidden_layers"] = json!(-1)
    });
    refuses(&fresh, 1, "config.json` cannot be understood");
}

#[test]
fn tokenizers_of_other_parts_are_refused() {
    let (fresh, model) = with_model("models/tiny-large");
    let t5 = model.join("tokenizer_3/tokenizer.json");
    let original = fs::read(&t5).unwrap();
    let doubling: Vec<Value> = (0..40)
        .map(|_| json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" }))
        .collect();
    let template = |single: Value| {
        json!({ "type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } } })
    };
    for (part, value, cause) in [
        (
            "normalizer",
            json!({ "type": "Precompiled", "precompiled_charsmap": "AAQA" }),
            "ends too soon",
        ),
        (
            "normalizer",
            json!({ "type": "Precompiled", "precompiled_charsmap": "BAAAAP////8=" }),
            "leads out of itself",
        ),
        (
            "normalizer",
            json!({ "type": "Replace", "pattern": { "String": "" }, "content": "x" }),
            "a pattern has 0 bytes",
        ),
        (
            "normalizer",
            json!({ "type": "Replace", "pattern": { "Regex": "(a*)*b" }, "content": "x" }),
            "not one of the kinds",
        ),
        (
            "normalizer",
            json!({ "type": "Sequence", "normalizers": doubling }),
            "more than a character",
        ),
        (
            "pre_tokenizer",
            json!({ "type": "FixedLength", "length": 0 }),
            "FixedLength",
        ),
        (
            "post_processor",
            template(json!([])),
            "is not a text with a token",
        ),
        (
            "post_processor",
            template(json!([{ "Sequence": { "id": "B", "type_id": 0 } }])),
            "a text `B`",
        ),
        (
            "post_processor",
            template(json!([{ "SpecialToken": { "id": "<x>", "type_id": 0 } }])),
            "a token `<x>`",
        ),
        (
            "model",
            json!({ "type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]] }),
            "unk_id",
        ),
        (
            "model",
            json!({ "type": "Unigram", "unk_id": 0, "vocab": [["", 0.0]] }),
            "a token is empty",
        ),
        (
            "model",
            json!({ "type": "BPE", "vocab": { "a": 0 }, "merges": [], "continuing_subword_prefix": "longer than a" }),
            "continuing_subword_prefix",
        ),
        (
            "model",
            json!({ "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" }),
            "WordLevel",
        ),
    ] {
        edit(&t5, |file| file[part] = value.clone());
        refuses(&fresh, 1, cause);
        fs::write(&t5, &original).unwrap();
    }
    // Settings of truncation and padding are ignored.
    edit(&t5, |file| {
        file["truncation"] =
            json!({ "max_length": 0, "strategy": "LongestFirst", "stride": 9, "direction": "Right" });
        file["padding"] = json!({ "strategy": { "Fixed": 0 }, "pad_to_multiple_of": 0 });
    });
    fresh.run(&PLAN).succeeds();
}

#[test]
fn files_of_a_model_are_files_of_the_model() {
    let (fresh, model) = with_model("models/tiny-large");
    let config = model.join("vae/config.json");
    fs::rename(&config, fresh.path().join("elsewhere.json")).unwrap();
    symlink(fresh.path().join("elsewhere.json"), &config).unwrap();
    refuses(&fresh, 1, "`model/vae/config.json` is no file of the model's own");
    fs::remove_file(&config).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&config)
        .status()
        .unwrap();
    assert!(made.success());
    refuses(&fresh, 1, "it is a pipe and not a file");
    fs::remove_file(&config).unwrap();
    fs::File::create(&config).unwrap().set_len(1 << 40).unwrap();
    refuses(&fresh, 1, "it is longer than");
}

#[test]
fn a_folder_that_holds_itself_is_walked_once() {
    let fresh = Fresh::new();
    fresh.install("families/sd15", "me/loop");
    let snapshot = fresh.hugging_face().join("hub/models--me--loop/snapshots/abc");
    symlink(".", snapshot.join("x")).unwrap();
    symlink("/", snapshot.join("y")).unwrap();
    for arguments in [
        &["plan", "a cat", "--size", "64x64", "--model", "me/loop"][..],
        &["models"],
        &["plan", "a cat"],
    ] {
        let begun = Instant::now();
        let script = format!(
            "ulimit -v 2000000; exec timeout 60 {} \"$@\"",
            env!("CARGO_BIN_EXE_generate")
        );
        Run::of(fresh.shell(&script).arg("sh").args(arguments).output().unwrap()).succeeds();
        assert!(begun.elapsed() < SOON, "{arguments:?}: {:?}", begun.elapsed());
    }
}

#[test]
fn what_is_here_in_part_is_completed_by_a_command() {
    let fresh = Fresh::new();
    fresh.install("families/sd15", "me/tiny");
    let repository = fresh.hugging_face().join("hub/models--me--tiny");
    let update = repository.join("snapshots/def");
    fs::create_dir_all(&update).unwrap();
    fs::copy(
        repository.join("snapshots/abc/model_index.json"),
        update.join("model_index.json"),
    )
    .unwrap();
    fs::write(repository.join("refs/main"), "def").unwrap();
    let arguments = ["a cat", "--model", "me/tiny", "--size", "64x64"];
    let run = fresh.run(&arguments).fails(4, "only a part is on this machine");
    assert!(
        run.stderr.contains("`generate models pull me/tiny` completes it"),
        "{}",
        run.stderr
    );
    // The former commit is still usable under its name.
    fresh
        .run(&["plan", "a cat", "--model", "me/tiny@abc", "--size", "64x64"])
        .succeeds();
}
