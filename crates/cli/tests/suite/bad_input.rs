//! Bad input: one line of error, one line of hint, the right exit code, and no half-written file.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{Fresh, Run, copy_folder, tensor_offset};
use serde_json::{Value, json};

/// Generates with the model in the folder `model` after `damage`; nothing may be written.
#[track_caller]
fn with_damaged(damage: impl Fn(&Path), code: i32, cause: &str) -> Run {
    let fresh = Fresh::new();
    let model = fresh.tiny_model();
    let arguments = ["a cat", "--model", "model", "--size", "64x64", "--steps", "2"];
    fresh.run(&arguments).succeeds();
    fs::remove_dir_all(fresh.path().join("outputs")).unwrap();
    damage(&model);
    let run = fresh.run(&arguments).fails(code, cause);
    assert_eq!(fresh.files("outputs"), [""; 0]);
    run
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn a_command_line_that_cannot_be_understood() {
    let fresh = Fresh::new();
    for (arguments, cause) in [
        (&["a cat", "--colour", "red"][..], "--colour"),
        (&[], "PROMPT"),
        (&["a cat", "--size", "100x100"], "multiples of 16"),
        (&["a cat", "--size", "big"], "1024x768"),
        (&["a cat", "--width", "128", "--height", "100"], "multiples of 16"),
        (&["a cat", "--steps", "0"], "--steps"),
        (&["a cat", "--n", "0"], "--n"),
        (&["a cat", "--cfg", "inf"], "0 to 100"),
        (&["a cat", "--seed", "one"], "--seed"),
        (&["a cat", "--device", "abacus"], "auto, cpu"),
        (&["a cat", "a dog"], "`a dog` comes after the prompt"),
        (
            &["a", "red", "circle", "--n", "2"],
            "`red` comes after the prompt",
        ),
        (&["--steps", "3"], "there is no PROMPT"),
        (
            &["a cat", "--stepps", "3"],
            "'--stepps' found; did you mean `--steps`?",
        ),
        (
            &["a cat", "--seed", "-5"],
            "a seed is a whole number from 0, `random`",
        ),
        (&["a cat", "--n", "many"], "a whole number from 1 to 10000"),
        (&["a cat", "--cfg", "-1"], "0 to 100"),
        (&["a cat", "--pose", "p.png", "--control-scale", "nan"], "0 to 10"),
        (&["a cat", "--sampler", "magic"], "`magic` is no sampler"),
        (&["a cat", "--controlnet", "me/net"], "--controlnet needs --pose"),
        (&["a cat", "--control-scale", "2"], "--control-scale needs --pose"),
        (&["a cat", "--size", "1024x64"], "longest side"),
    ] {
        let run = fresh.run(arguments).fails(2, cause);
        assert!(!run.stderr.contains("For more information"), "{}", run.stderr);
        let is_generating = cause != "longest side" && run.stderr.contains("Generating");
        assert!(!is_generating, "{}", run.stderr);
    }
    let run = fresh
        .run(&["a cat", "--steps", "0", "--json"])
        .fails(2, "--steps");
    assert_eq!(run.events().pop().unwrap()["code"], 2);
    assert_eq!(fresh.files("."), [""; 0]);
}

#[test]
fn each_error_comes_with_what_helps_against_it() {
    let fresh = Fresh::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures");
    let file = |name: &str| fixtures.join(name).to_str().unwrap().to_owned();
    let (model, inpainting) = (file("families/sd15"), file("families/inpainting"));
    let (image, text) = (file("families/init.png"), file("cases.json"));
    let (lora, other_size) = (
        file("conditioned/loras/kohya.safetensors"),
        file("cases/medium-wide.png"),
    );
    for (words, code, cause, hint) in [
        (
            &["--init-image", "nowhere.png"][..],
            1,
            "`nowhere.png` cannot be used as an image",
            "PNG, JPEG or WebP",
        ),
        (&["--init-image", &text], 1, "as an image", "PNG, JPEG or WebP"),
        (
            &["--init-image", &image, "--mask", &other_size],
            1,
            "the mask",
            "of the size of the --init-image",
        ),
        (
            &["--model", &inpainting],
            1,
            "9-channel inpainting model",
            "--init-image and --mask",
        ),
        (
            &["--lora", &lora],
            1,
            "does not fit the model",
            "of the model's family",
        ),
        (
            &["--pose", "nowhere.png", "--controlnet", "me/unknown"],
            1,
            "`nowhere.png` cannot be used as an image",
            "PNG, JPEG or WebP",
        ),
        (
            &["--init-image", &image, "--strength", "0"],
            1,
            "none is left",
            "--strength",
        ),
        (
            &["--lora", "nowhere:0.5"],
            4,
            "there is no LoRA at `nowhere`",
            ".safetensors",
        ),
        (
            &["--upscale", "2", "--upscaler", &lora],
            1,
            "cannot be used as an upscaler",
            "--upscaler takes",
        ),
        (
            &["--refiner", &model, "--refiner-switch", "0.5"],
            1,
            "cannot take over during the denoising",
            "omit --refiner-switch",
        ),
        (
            &["--refiner", "nowhere"],
            4,
            "there is no model at `nowhere`",
            "a hub id",
        ),
        (&["--sampler", "magic"], 2, "no sampler", "--sampler help"),
        (&["--quality", "best"], 2, "no preset `best`", "--quality help"),
    ] {
        let run = fresh.run(&[&["plan", "x"], words].concat()).fails(code, cause);
        let last = run.stderr.lines().last().unwrap();
        assert!(last.contains(hint), "{last}");
    }
    for command in ["models", "resume", "login"] {
        let run = fresh.run(&[command, "--colour"]).fails(2, "--colour");
        let hint = format!("`generate {command} --help` lists");
        assert!(run.stderr.contains(&hint), "{}", run.stderr);
    }
}

#[test]
fn a_model_that_is_not_there() {
    let fresh = Fresh::new();
    fresh
        .run(&["a cat", "--model", "stabilityai/stable-diffusion-3.5-large"])
        .fails(4, "the model `stabilityai/");
    fs::write(fresh.path().join("model.safetensors"), "").unwrap();
    fresh
        .run(&["a cat", "--model", "model.safetensors"])
        .fails(1, "`model.safetensors` is truncated");
    fs::create_dir(fresh.path().join("empty")).unwrap();
    fresh
        .run(&["a cat", "--model", "empty"])
        .fails(1, "`empty` is not a model of Stable Diffusion: it has neither");
    assert_eq!(fresh.files("outputs"), [""; 0]);
}

#[test]
fn a_model_with_a_missing_file() {
    let remove = |path: &'static str| move |model: &Path| fs::remove_file(model.join(path)).unwrap();
    with_damaged(
        remove("vae/diffusion_pytorch_model.safetensors"),
        4,
        "no weights in `model/vae`",
    );
    with_damaged(
        remove("text_encoder_2/config.json"),
        4,
        "`model/text_encoder_2/config.json` is missing",
    );
    with_damaged(
        remove("tokenizer/merges.txt"),
        4,
        "`model/tokenizer/merges.txt` is missing",
    );
    with_damaged(
        remove("scheduler/scheduler_config.json"),
        4,
        "scheduler_config.json` is missing",
    );
}

#[test]
fn a_model_with_a_truncated_file() {
    for component in [
        "transformer/diffusion_pytorch_model",
        "text_encoder/model",
        "vae/diffusion_pytorch_model",
    ] {
        let truncate = |model: &Path| {
            let path = model.join(format!("{component}.safetensors"));
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        };
        let run = with_damaged(truncate, 1, "is truncated");
        assert!(run.stderr.contains(component), "{}", run.stderr);
    }
    let truncate =
        |model: &Path| fs::write(model.join("vae/config.json"), "{\"latent_channels\": 16").unwrap();
    with_damaged(truncate, 1, "`model/vae/config.json` cannot be understood");
}

#[test]
fn a_tensor_of_the_wrong_shape() {
    let damage = |model: &Path| {
        let path = model.join("transformer/diffusion_pytorch_model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let (_, header) = tensor_offset(&bytes, "proj_out.weight");
        let shape = header["proj_out.weight"]["shape"].to_string();
        let turned = json!([
            header["proj_out.weight"]["shape"][1],
            header["proj_out.weight"]["shape"][0]
        ])
        .to_string();
        let text = header["proj_out.weight"].to_string();
        let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let written = String::from_utf8(bytes[8..8 + header_bytes].to_vec()).unwrap();
        let entry = written
            .find("\"proj_out.weight\"")
            .unwrap_or_else(|| panic!("{text}"));
        let offset = entry + written[entry..].find(&shape).unwrap();
        assert_eq!(shape.len(), turned.len());
        bytes[8 + offset..8 + offset + turned.len()].copy_from_slice(turned.as_bytes());
        fs::write(&path, bytes).unwrap();
    };
    let run = with_damaged(damage, 1, "tensor `proj_out.weight` in `model/transformer/");
    assert!(run.stderr.contains("the configuration wants"), "{}", run.stderr);
    let quant = |model: &Path| {
        edit_json(&model.join("vae/config.json"), |config| {
            config["use_post_quant_conv"] = true.into()
        })
    };
    with_damaged(quant, 1, "has no tensor `post_quant_conv.weight`");
}

#[test]
fn a_tokenizer_that_does_not_fit() {
    let longer = |model: &Path| {
        let path = model.join("tokenizer/tokenizer_config.json");
        edit_json(&path, |config| config["model_max_length"] = 300.into());
    };
    with_damaged(longer, 1, "the tokenizer in `model/tokenizer` does not fit");
    let richer = |model: &Path| {
        edit_json(&model.join("tokenizer_2/vocab.json"), |vocabulary| {
            vocabulary["zebra</w>"] = 60_000.into()
        });
    };
    with_damaged(richer, 1, "the tokenizer in `model/tokenizer_2` does not fit");
    let broken = |model: &Path| fs::write(model.join("tokenizer_3/tokenizer.json"), "{}").unwrap();
    with_damaged(broken, 1, "the tokenizer in `model/tokenizer_3` cannot be used");
}

#[test]
fn a_setting_that_is_not_obeyed_is_refused_by_name() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures");
    let scheduler = "scheduler/scheduler_config.json";
    let tokenizer = "tokenizer/tokenizer_config.json";
    let unet = "unet/config.json";
    for (family, file, settings, cause) in [
        (
            "families/sd15",
            scheduler,
            r#""beta_start": NaN"#,
            "it sets `beta_start` to NaN",
        ),
        (
            "families/sd15",
            scheduler,
            r#""beta_end": Infinity"#,
            "it sets `beta_end` to Infinity",
        ),
        (
            "families/sd15",
            scheduler,
            r#""prediction_type": null"#,
            "it sets `prediction_type` to null",
        ),
        (
            "families/sdxl",
            scheduler,
            r#""timestep_spacing": null"#,
            "it sets `timestep_spacing` to null",
        ),
        (
            "families/sd15",
            scheduler,
            r#""steps_offset": "1""#,
            "`steps_offset`: invalid type: string",
        ),
        (
            "families/sd15",
            scheduler,
            r#""beta_schedule": "a\r\nb""#,
            r"it sets `beta_schedule` to `a\r\nb`",
        ),
        (
            "families/sd15",
            "vae/config.json",
            r#""scaling_factor": null"#,
            "`scaling_factor`: invalid type: null",
        ),
        (
            "families/sd15",
            tokenizer,
            r#""padding_side": "left""#,
            "it sets `padding_side` to `left`",
        ),
        (
            "families/sd15",
            tokenizer,
            r#""eos_token": "!""#,
            "it sets `eos_token` to `!`, only `<|endoftext|>` is known",
        ),
        (
            "families/sd15",
            tokenizer,
            r#""bos_token": {"content": "!"}"#,
            "it sets `bos_token` to `!`, only `<|startoftext|>` is known",
        ),
        (
            "models/tiny-large",
            tokenizer,
            r#""bos_token": "!""#,
            "it sets `bos_token` to `!`",
        ),
        (
            "models/tiny-large",
            "tokenizer_3/tokenizer_config.json",
            r#""eos_token": "<pad>""#,
            "it sets `eos_token` to `<pad>`, only `</s>` is known",
        ),
        (
            "families/sd15",
            unet,
            r#""attention_head_dim": [2, 2, 2]"#,
            "attention_head_dim has 3 levels",
        ),
    ] {
        let fresh = Fresh::new();
        copy_folder(&fixtures.join(family), &fresh.path().join("model"));
        let path = fresh.path().join("model").join(file);
        let text = fs::read_to_string(&path).unwrap();
        let mut known: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        known.remove(settings.split('"').nth(1).unwrap());
        let text = Value::from(known).to_string();
        fs::write(
            &path,
            format!("{}, {settings}}}", text.strip_suffix('}').unwrap()),
        )
        .unwrap();
        let run = fresh
            .run(&["a cat", "--model", "model", "--size", "64x64"])
            .fails(1, cause);
        assert!(!run.stderr.contains("damaged"), "{}", run.stderr);
    }
}

#[test]
fn parts_of_different_models() {
    let damage = |model: &Path| {
        let path = model.join("transformer/config.json");
        edit_json(&path, |config| config["pooled_projection_dim"] = 999.into());
    };
    with_damaged(damage, 1, "the parts of `model` do not fit together");
    let damage = |model: &Path| {
        let path = model.join("scheduler/scheduler_config.json");
        edit_json(&path, |config| config["_class_name"] = "DDIMScheduler".into());
        // The index declares the class of a component.
        edit_json(&model.join("model_index.json"), |index| {
            index["scheduler"][1] = "DDIMScheduler".into()
        });
    };
    with_damaged(damage, 1, "its scheduler is DDIMScheduler");
    let damage = |model: &Path| {
        edit_json(&model.join("transformer/config.json"), |config| {
            config["qk_norm"] = "soft".into()
        })
    };
    with_damaged(damage, 1, "qk_norm is `soft`");
}

#[test]
fn weights_that_are_not_numbers_are_found_before_an_image_is_saved() {
    for (component, file, tensor) in [
        (
            "transformer",
            "diffusion_pytorch_model",
            "transformer_blocks.0.ff.net.2.bias",
        ),
        ("vae", "diffusion_pytorch_model", "decoder.conv_out.bias"),
        ("text_encoder_3", "model", "encoder.final_layer_norm.weight"),
    ] {
        let damage = |model: &Path| {
            let path = model.join(format!("{component}/{file}.safetensors"));
            let mut bytes = fs::read(&path).unwrap();
            let (offset, _) = tensor_offset(&bytes, tensor);
            bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            fs::write(&path, bytes).unwrap();
        };
        with_damaged(
            damage,
            1,
            &format!("tensor `{tensor}` in `model/{component}/{file}.safetensors`"),
        );
    }
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let fresh = Fresh::new();
    fs::write(fresh.path().join("file"), "mine").unwrap();
    let started = Instant::now();
    fresh
        .run(&["a cat", "--output", "file/below"])
        .fails(2, "`file/below` is no output: `file` is a file, not a folder");
    #[cfg(unix)]
    fresh
        .run(&["a cat", "--output", "/dev/null"])
        .fails(2, "`/dev/null` is no output: it is not a folder");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "it was found before anything was generated"
    );
    assert_eq!(fs::read_to_string(fresh.path().join("file")).unwrap(), "mine");
}

/// A limit of one block on the size of files, which has the effect of a full disk.
#[cfg(unix)]
#[test]
fn a_disk_without_room() {
    let fresh = Fresh::new();
    let script = format!(
        "trap '' XFSZ; ulimit -f 1; exec {:?} 'a house by the sea' --steps 1 --output images",
        env!("CARGO_BIN_EXE_generate")
    );
    let output = fresh.shell(&script).output().unwrap();
    Run::of(output).fails(1, "cannot write to `images/output_");
    assert_eq!(fresh.files("images"), [""; 0]);
}

/// Interrupts a long run after its first step, which must leave nothing.
#[cfg(unix)]
fn stopped_by(signal: &str) {
    let fresh = Fresh::new();
    let mut child = fresh
        .command()
        .args(["a house", "--steps", "1000", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains("\"step\"") {
        let count = stdout.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended by itself: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let started = Instant::now();
    let killed = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let drained = std::thread::spawn(move || stdout.read_to_string(&mut seen).map(|_| seen));
    let output = child.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("error: interrupted"), "{stderr}");
    let lines = drained.join().unwrap().unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["code"]), (&json!("error"), &json!(130)));
    assert_eq!(fresh.files("outputs"), [""; 0]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_in_the_middle() {
    stopped_by("-INT");
}

#[cfg(unix)]
#[test]
fn a_request_to_terminate_in_the_middle() {
    stopped_by("-TERM");
}

#[test]
fn an_error_is_an_event_too() {
    let fresh = Fresh::new();
    let run = fresh
        .run(&["a cat", "--model", "nowhere", "--json"])
        .fails(4, "no model at `nowhere`");
    let last = run.events().pop().unwrap();
    assert_eq!(last["event"], "error");
    assert_eq!(last["code"], 4);
    assert!(last["message"].as_str().unwrap().contains("nowhere") && last["hint"].is_string());
}
