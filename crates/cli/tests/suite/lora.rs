//! LoRA files, and files that are refused.

use std::fs;
use std::path::Path;

use crate::command;
use command::{Fresh, Image, tensor_offset};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures");

/// Writes a rank-1 LoRA for the attention queries in the first block of the tiny model, 16 by 16, under names
/// with the prefix `layer`.
fn write_lora(path: &Path, layer: &str, width: usize) {
    let values = |count: usize| -> Vec<u8> {
        let number = |index: usize| ((index * 7 % 13) as f32 - 6.0) / 4.0;
        (0..count).flat_map(|index| number(index).to_le_bytes()).collect()
    };
    let bytes = values(width);
    let tensors = [
        ("lora_A.weight", vec![1, width]),
        ("lora_B.weight", vec![width, 1]),
    ];
    let views = tensors.map(|(name, shape)| {
        let view = TensorView::new(Dtype::F32, shape, &bytes).unwrap();
        (format!("{layer}.{name}"), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn generate(fresh: &Fresh, output: &str, prompt: &str, more: &[&str]) -> (Vec<u8>, command::Run) {
    let model = [
        "--model", "model", "--size", "64x64", "--steps", "3", "--output", output,
    ];
    let run = fresh.run(&[&[prompt][..], &model, more].concat()).succeeds();
    (std::fs::read(fresh.path().join(&run.images()[0])).unwrap(), run)
}

#[test]
fn a_lora_changes_the_image_by_its_scale_and_wherever_blocks_are() {
    let fresh = Fresh::new();
    fresh.tiny_model();
    let file = fresh.path().join("my.safetensors");
    write_lora(&file, "transformer.transformer_blocks.0.attn.to_q", 16);
    let generate = |output: &str, prompt: &str, more: &[&str]| generate(&fresh, output, prompt, more).0;
    let plain = generate("plain", "a cat", &[]);
    let full = generate("full", "a cat", &["--lora", "my.safetensors"]);
    let half = generate("half", "a cat", &["--lora", "my:0.5"]);
    assert!(plain != full && plain != half && full != half);
    // The tag is not part of the prompt. Pixels precede the metadata in the file.
    let pixels = |png: &[u8]| {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png.to_vec()))
            .read_info()
            .unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        bytes
    };
    assert!(pixels(&half) == pixels(&generate("tag", "a cat <lora:my:0.5>", &[])));
    assert!(pixels(&plain) == pixels(&generate("none", "a cat", &["--lora", "my:0"])));
    let twice = generate("twice", "a cat", &["--lora", "my:0.25", "--lora", "my:0.25"]);
    assert!(pixels(&twice) != pixels(&plain));
    let streamed = generate(
        "streamed",
        "a cat",
        &["--lora", "my.safetensors", "--memory", "60MB"],
    );
    assert!(pixels(&streamed) == pixels(&full));
}

#[test]
fn a_lora_for_another_model_is_left_out_and_said_so() {
    let fresh = Fresh::new();
    fresh.tiny_model();
    let (plain, _) = generate(&fresh, "plain", "a cat", &[]);
    write_lora(
        &fresh.path().join("other.safetensors"),
        "unet.mid_block.attentions.0.proj_in",
        32,
    );
    std::fs::write(fresh.path().join("text.safetensors"), "no tensors").unwrap();
    for file in ["other.safetensors", "text.safetensors"] {
        let (image, run) = generate(&fresh, &format!("with-{file}"), "a cat", &["--lora", file]);
        assert!(image == plain, "{file}");
        let warning = format!("the LoRA `{file}` is left out: ");
        assert!(run.stderr.contains(&warning), "{}", run.stderr);
    }
    fresh
        .run(&["a cat", "--model", "model", "--lora", "missing"])
        .fails(4, "`missing`");
}

/// An image of Stable Diffusion 1.5 with LoRAs for text encoder and network, and its metadata.
fn generate_sd15(fresh: &Fresh, output: &str, prompt: &str, more: &[&str]) -> (Image, Value, command::Run) {
    let model = format!("{FIXTURES}/families/sd15");
    let usual = [
        prompt, "--model", &model, "--size", "64x64", "--steps", "2", "--output", output,
    ];
    let run = fresh.run(&[&usual[..], more].concat()).succeeds();
    let path = fresh.path().join(&run.images()[0]);
    let metadata = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    (Image::read(&path), metadata, run)
}

#[test]
fn text_encoders_and_network_have_scales_of_their_own() {
    let fresh = Fresh::new();
    let file = format!("{FIXTURES}/conditioned/loras/kohya.safetensors");
    fs::copy(&file, fresh.path().join("both.safetensors")).unwrap();
    let generate = |output: &str, prompt: &str, more: &[&str]| generate_sd15(&fresh, output, prompt, more);
    let (of_both, _, _) = generate("both", "a cat <lora:both:1:1>", &[]);
    let (of_network, metadata, _) = generate("network", "a cat <lora:both:te=0:unet=1>", &[]);
    let (of_text, _, _) = generate("text", "a cat <lora:both:1:0>", &[]);
    assert!(of_both.pixels != of_network.pixels && of_both.pixels != of_text.pixels);
    assert!(of_network.pixels != of_text.pixels);
    assert!(
        metadata["lora"][0]
            .as_str()
            .unwrap()
            .ends_with("both.safetensors:0:1")
    );
    let (by_option, _, _) = generate("option", "a cat", &["--lora", "both:0:1"]);
    assert!(by_option.pixels == of_network.pixels);
}

#[test]
fn unsupported_arguments_of_a_tag_cause_a_warning() {
    let fresh = Fresh::new();
    let file = format!("{FIXTURES}/conditioned/loras/kohya.safetensors");
    fs::copy(&file, fresh.path().join("both.safetensors")).unwrap();
    let negative = ["--negative-prompt", "dark <lora:both:1>"];
    let (_, metadata, run) = generate_sd15(&fresh, "out", "a cat <lora:both:0.5:lbw=MIDD>", &negative);
    for expected in [
        "`lbw=MIDD` of the LoRA `both`",
        "the LoRA `both` in the negative prompt",
    ] {
        assert!(
            run.stderr.contains(&format!("warning: {expected}")),
            "{}",
            run.stderr
        );
        assert!(metadata["warnings"].to_string().contains(expected), "{metadata}");
    }
    let model = format!("{FIXTURES}/families/sd15");
    fresh
        .run(&["a cat <lora:both:0,5>", "--model", &model])
        .fails(2, "`<lora:both:0,5>` in the prompt cannot be read");
}

#[test]
fn one_of_several_files_is_named_by_its_folder() {
    let fresh = Fresh::new();
    let folder = fresh.path().join("loras");
    fs::create_dir(&folder).unwrap();
    for (file, name) in [("kohya", "epoch1"), ("peft", "epoch2")] {
        let file = format!("{FIXTURES}/conditioned/loras/{file}.safetensors");
        fs::copy(file, folder.join(format!("{name}.safetensors"))).unwrap();
    }
    let model = format!("{FIXTURES}/families/sd15");
    let run = fresh
        .run(&["a cat", "--model", &model, "--lora", "loras"])
        .fails(2, "several such files: epoch1.safetensors, epoch2.safetensors");
    assert!(
        run.stderr
            .contains("hint: choose one: `loras:epoch1.safetensors`"),
        "{}",
        run.stderr
    );
    let lora = |output: &str, name: &str| generate_sd15(&fresh, output, "a cat", &["--lora", name]).0;
    let first = lora("first", "loras:epoch1.safetensors");
    let second = lora("second", "loras:epoch2.safetensors");
    assert!(first.pixels != second.pixels);
    assert!(lora("path", "loras/epoch2.safetensors").pixels == second.pixels);
    assert!(lora("short", "loras:epoch2:0.5").pixels != second.pixels);
    for missing in ["loras:epoch3.safetensors", "loras/epoch3.safetensors"] {
        fresh
            .run(&["a cat", "--model", &model, "--lora", missing])
            .fails(4, &format!("there is no LoRA at `{missing}`"));
    }
    // The default name is preferred, as in a repository of the hub.
    fs::rename(
        folder.join("epoch2.safetensors"),
        folder.join("pytorch_lora_weights.safetensors"),
    )
    .unwrap();
    assert!(lora("usual", "loras").pixels == second.pixels);
}

#[test]
fn a_lora_that_cannot_be_computed_with_is_left_out_and_the_run_is_not_lost() {
    let fresh = Fresh::new();
    let whole = fs::read(format!("{FIXTURES}/conditioned/loras/kohya.safetensors")).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    let mut names = header.as_object().unwrap().keys();
    let name = names.find(|name| name.ends_with("lora_up.weight")).unwrap();
    let mut bytes = whole.clone();
    let (offset, _) = tensor_offset(&whole, name);
    bytes[offset..offset + 2].copy_from_slice(&0x7e00_u16.to_le_bytes());
    fs::write(fresh.path().join("nan.safetensors"), bytes).unwrap();
    let (plain, _, _) = generate_sd15(&fresh, "plain", "a cat", &[]);
    let (without, metadata, run) = generate_sd15(&fresh, "nan", "a cat", &["--lora", "nan", "--quiet"]);
    assert!(plain.pixels == without.pixels);
    // Also with `--quiet`.
    assert!(
        run.stderr.starts_with("warning: the LoRA `nan` is left out: "),
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert_eq!(metadata["failures"][0]["what"], "the LoRA `nan`");
    assert_eq!(metadata["lora"], Value::Array(Vec::new()));
    let model = format!("{FIXTURES}/families/sd15");
    fresh
        .run(&["a cat", "--model", &model, "--lora", "nan", "--strict"])
        .fails(1, "holds values that are not finite");
}

#[test]
fn a_lora_that_makes_weights_too_large_is_named_with_its_scale() {
    let fresh = Fresh::new();
    let kohya = format!("{FIXTURES}/conditioned/loras/kohya.safetensors");
    fs::copy(kohya, fresh.path().join("strong.safetensors")).unwrap();
    let model = format!("{FIXTURES}/families/sd15");
    let arguments = [
        "a cat",
        "--model",
        &model,
        "--size",
        "64x64",
        "--steps",
        "2",
        "--lora",
        "strong:1e30",
    ];
    let run = fresh
        .run(&arguments)
        .fails(1, "the LoRA `strong` at a scale of 1e30 is added to them");
    assert!(run.stderr.contains("smaller scale"), "{}", run.stderr);
    assert!(!run.stderr.contains("--dtype"), "{}", run.stderr);
}
