//! Tests of the text with a reader that follows webui's rules (`modules/infotext_utils.py`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use regex::Regex;

use super::super::metadata::example;
use super::super::{EmbeddingRecord, RefinerSettings};
use super::*;
use crate::Img2Img;
use crate::image_size::ImageSize;
use crate::prompt::Prompt;
use crate::request::{GuidanceScale, Strength};
use crate::scheduler::ScheduleKind;

/// The result of a reader: two prompts and the values of the last line.
struct Read {
    prompt: String,
    negative_prompt: String,
    values: BTreeMap<String, String>,
}

fn pairs_of(line: &str) -> Vec<(String, String)> {
    let pattern = Regex::new(r#"\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)"#).unwrap();
    let found = pattern.captures_iter(line);
    found
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect()
}

fn read(text: &str) -> Read {
    let mut lines: Vec<&str> = text.trim().split('\n').collect();
    let last = lines.pop().unwrap();
    assert!(
        pairs_of(last).len() >= 3,
        "no reader finds the last line of {text:?}"
    );
    let (mut prompt, mut negative_prompt) = (Vec::new(), Vec::new());
    let mut is_negative = false;
    for line in lines {
        let mut line = line.trim();
        if let Some(rest) = line.strip_prefix("Negative prompt:") {
            is_negative = true;
            line = rest.trim();
        }
        if is_negative {
            &mut negative_prompt
        } else {
            &mut prompt
        }
        .push(line);
    }
    let unquoted = |value: &str| match serde_json::from_str::<String>(value) {
        Ok(text) if value.starts_with('"') => text,
        _ => value.to_owned(),
    };
    Read {
        prompt: prompt.join("\n"),
        negative_prompt: negative_prompt.join("\n"),
        values: pairs_of(last)
            .into_iter()
            .map(|(key, value)| (key, unquoted(&value)))
            .collect(),
    }
}

fn lora(name: &str, text_scale: f64, scale: f64) -> LoraRecord {
    LoraRecord {
        name: name.to_owned(),
        file: PathBuf::from(format!("/home/me/loras/{name}.safetensors")),
        scale,
        text_scale,
        hash: Some("0123456789ab".to_owned()),
    }
}

#[test]
fn reads_as_the_field_writes_it() {
    let mut metadata = example();
    metadata.prompt = "a lovely cat,\nsleeping".into();
    metadata.negative_prompt = "blurry".into();
    metadata.model = "models/tiny: one, two".into();
    assert_eq!(
        parameters_text(&metadata),
        "a lovely cat,\nsleeping\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Schedule type: Normal, CFG scale: 4.5, Seed: 42, \
         Size: 256x128, Model: tiny one two, RNG: CPU, Version: sd-generate 0.0.0"
    );
}

#[test]
fn an_empty_negative_prompt_has_no_line() {
    assert!(!parameters_text(&example()).contains("Negative"));
}

#[test]
fn everything_that_changes_the_image_is_in_the_text_and_no_path() {
    let mut metadata = example();
    metadata.prompt = "a cat <lora:/home/me/loras/fur:0.8> asleep <lora:gone:1>".into();
    metadata.model = "/home/me/models/dream".into();
    metadata.model_sha256 = Some("f123456789abcdef".repeat(4));
    metadata.clip_skip = 1;
    metadata.rng = crate::seed::NoiseSource::Philox;
    metadata.guidance_rescale = 0.7;
    metadata.img2img = Some(Img2Img {
        image: Some("/home/me/photo.png".into()),
        mask: Some("/home/me/mask.png".into()),
        strength: Strength(0.6),
    });
    metadata.loras = vec![
        lora("/home/me/loras/detail.safetensors", 0.2, 1.0),
        lora("/home/me/loras/fur", 0.8, 0.8),
    ];
    metadata.embeddings = vec![EmbeddingRecord {
        name: "easynegative".to_owned(),
        file: "/home/me/embeddings/easynegative.safetensors".into(),
        hash: Some("ba9876543210".to_owned()),
    }];
    let control = |name: &str, kind, scale| ControlChoice {
        name: name.to_owned(),
        folder: "/home/me/nets".into(),
        kind,
        image: "/home/me/pose.png".into(),
        scale,
    };
    metadata.controlnet = Some(vec![
        control("lllyasviel/control_v11p_sd15_openpose", ControlKind::Pose, 0.7),
        control("/home/me/nets/edges", ControlKind::Canny, 1.0),
    ]);
    metadata.refiner = Some("/home/me/models/refiner".into());
    metadata.refiner_settings = Some(RefinerSettings {
        switch: Some(0.8),
        steps: 20,
        strength: Strength(0.3),
    });
    metadata.upscale = Some(4);
    metadata.upscale_method = Some("x4plus".into());
    let text = parameters_text(&metadata);
    assert!(!text.contains("/home") && !text.contains("me/"), "{text}");
    let read = read(&text);
    assert_eq!(read.prompt, "a cat <lora:fur:0.8> asleep  <lora:detail:0.2:1>");
    for (key, value) in [
        ("Model", "dream"),
        ("Model hash", "f123456789"),
        ("Clip skip", "2"),
        ("Denoising strength", "0.6"),
        ("RNG", "NV"),
        ("Mask blur", "0"),
        ("CFG Rescale", "0.7"),
        ("Lora hashes", "detail: 0123456789ab, fur: 0123456789ab"),
        ("TI hashes", "easynegative: ba9876543210"),
        ("Refiner", "refiner"),
        ("Refiner switch at", "0.8"),
        ("Postprocess upscale by", "4"),
        ("Postprocess upscaler", "x4plus"),
    ] {
        assert_eq!(
            read.values.get(key).map(String::as_str),
            Some(value),
            "{key} in {text}"
        );
    }
    let unit = |index: usize| -> BTreeMap<String, String> {
        let unit = &read.values[&format!("ControlNet {index}")];
        let fields = unit.split(", ").map(|field| field.split_once(": ").unwrap());
        fields
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let (pose, edges) = (unit(0), unit(1));
    assert_eq!(
        (&*pose["Module"], &*pose["Model"], &*pose["Weight"]),
        ("none", "control_v11p_sd15_openpose", "0.7")
    );
    assert_eq!(
        (&*edges["Module"], &*edges["Threshold A"], &*edges["Threshold B"]),
        ("canny", "100", "200")
    );

    metadata.refiner_settings.as_mut().unwrap().switch = None;
    let over_the_finished = super::tests::read(&parameters_text(&metadata)).values;
    assert_eq!(over_the_finished["Refiner steps"], "20");
    assert_eq!(over_the_finished["Refiner denoising strength"], "0.3");
}

/// Texts as users write them, with everything that readers may misparse.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-zA-Zäöü0-9 ()\\[\\]\\\\,.:;\"'<>=-]{0,12}",
        Just("Steps: 3, Sampler: x, Seed: 1".to_owned()),
        Just("\n".to_owned()),
        Just("Size: 1x1".to_owned()),
        Just("猫".to_owned()),
    ];
    proptest::collection::vec(word, 0..5).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        prompt in words(), negative_prompt in words(), model in "[a-zA-Z0-9 ._,:\"-]{1,12}", steps in 1_usize..1000,
        seed in any::<u64>(), scale in 0.0..100.0_f64, sides in (1_usize..100, 1_usize..100), clip_skip in 0_usize..12,
        strength in proptest::option::of(0.0..=1.0_f64), rescale in 0.0..=1.0_f64, schedule in 0_usize..2,
        scales in proptest::option::of((-2.0..2.0_f64, -2.0..2.0_f64)),
    ) {
        let size = ImageSize::new(16 * sides.0, 16 * sides.1).unwrap();
        let metadata = Metadata {
            // A line or a tag of the prompt itself could not be told from those of the format.
            prompt: prompt.replace("Negative", "").replace("<lora", ""),
            negative_prompt: negative_prompt.replace("Negative", "").replace("<lora", ""),
            model: model.clone(), steps, seed, size, clip_skip, guidance_rescale: rescale,
            guidance_scale: GuidanceScale(scale),
            schedule: [ScheduleKind::Karras, ScheduleKind::Normal][schedule],
            img2img: strength.map(|strength| Img2Img { image: None, mask: None, strength: Strength(strength) }),
            loras: scales.iter().map(|&(text_scale, scale)| lora("fur", text_scale, scale)).collect(),
            ..example()
        };
        let read = read(&parameters_text(&metadata));
        // Readers trim the ends of lines.
        let lines = |text: &str| text.trim().split('\n').map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n");
        let prompt = Prompt::parse(&read.prompt);
        let tags: Vec<(f64, f64)> = prompt.loras.iter().map(|tag| (tag.text_scale, tag.scale)).collect();
        prop_assert_eq!(tags, scales.into_iter().collect::<Vec<_>>());
        let without_tags = crate::prompt::replace_lora_tags(&read.prompt, |_, _| String::new());
        prop_assert_eq!(lines(&without_tags), lines(&metadata.prompt));
        prop_assert_eq!(lines(&read.negative_prompt), lines(&metadata.negative_prompt));
        let number = |key: &str| read.values[key].parse::<f64>().unwrap();
        prop_assert_eq!(number("Steps"), steps as f64);
        prop_assert_eq!(read.values["Seed"].parse::<u64>().unwrap(), seed);
        prop_assert_eq!(number("CFG scale"), scale);
        prop_assert_eq!(&read.values["Size"], &size.to_string());
        prop_assert_eq!(&read.values["Schedule type"], metadata.schedule.label());
        prop_assert_eq!(read.values.get("Clip skip").map_or(1, |value| value.parse().unwrap()), clip_skip + 1);
        prop_assert_eq!(read.values.get("Denoising strength").map(|value| value.parse::<f64>().unwrap()), strength);
        prop_assert_eq!(read.values.get("CFG Rescale").map_or(0.0, |value| value.parse().unwrap()), rescale);
        prop_assert_eq!(read.values.get("Model").cloned(), bare_name(&model));
    }

    #[test]
    fn any_value_is_read_as_it_was_written(value in "[ -~äöü猫\n]{1,20}") {
        let line = format!("Aa: 1, Bb: 2, Key: {}, Cc: 3", quoted(&value));
        let read = read(&line);
        prop_assert_eq!(&read.values["Key"], &value);
    }
}
