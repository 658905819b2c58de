//! LoRA files that are added to a model, and those that cannot be.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod command;

use std::path::Path;

use command::Fresh;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Writes a LoRA file of rank 1 for the attention's queries in the first block of the tiny model, which are 16 by 16, under
/// names that begin with `layer`.
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

fn draw(fresh: &Fresh, output: &str, prompt: &str, more: &[&str]) -> (Vec<u8>, command::Run) {
    let model = [
        "--model", "model", "--size", "64x64", "--steps", "3", "--output", output,
    ];
    let run = fresh.run(&[&[prompt][..], &model, more].concat()).succeeds();
    (std::fs::read(fresh.path().join(&run.pictures()[0])).unwrap(), run)
}

#[test]
fn a_lora_changes_the_picture_by_its_scale_and_wherever_blocks_are() {
    let fresh = Fresh::new();
    fresh.tiny_model();
    let file = fresh.path().join("my.safetensors");
    write_lora(&file, "transformer.transformer_blocks.0.attn.to_q", 16);
    let draw = |output: &str, prompt: &str, more: &[&str]| draw(&fresh, output, prompt, more).0;
    let plain = draw("plain", "a cat", &[]);
    let full = draw("full", "a cat", &["--lora", "my.safetensors"]);
    let half = draw("half", "a cat", &["--lora", "my:0.5"]);
    assert!(plain != full && plain != half && full != half);
    // The tag is no part of the prompt, and the pixels lie before what says how they were made.
    let pixels = |png: &[u8]| {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png.to_vec()))
            .read_info()
            .unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        bytes
    };
    assert!(pixels(&half) == pixels(&draw("tag", "a cat <lora:my:0.5>", &[])));
    assert!(pixels(&plain) == pixels(&draw("none", "a cat", &["--lora", "my:0"])));
    let twice = draw("twice", "a cat", &["--lora", "my:0.25", "--lora", "my:0.25"]);
    assert!(pixels(&twice) != pixels(&plain));
    let streamed = draw(
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
    let (plain, _) = draw(&fresh, "plain", "a cat", &[]);
    write_lora(
        &fresh.path().join("other.safetensors"),
        "unet.mid_block.attentions.0.proj_in",
        32,
    );
    std::fs::write(fresh.path().join("text.safetensors"), "no tensors").unwrap();
    for file in ["other.safetensors", "text.safetensors"] {
        let (picture, run) = draw(&fresh, &format!("with-{file}"), "a cat", &["--lora", file]);
        assert!(picture == plain, "{file}");
        let warning = format!("the LoRA `{file}` is left out: ");
        assert!(run.stderr.contains(&warning), "{}", run.stderr);
    }
    fresh
        .run(&["a cat", "--model", "model", "--lora", "missing"])
        .fails(4, "`missing`");
}
