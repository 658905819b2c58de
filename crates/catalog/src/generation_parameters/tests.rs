//! Tests of reading: files are made here, byte by byte.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sd_pipeline::seed::NoiseSource;
use sd_pipeline::{InitImage, Strength, TypeChoice};
use serde_json::{Value, json};

use super::*;
use crate::seed_choice::SeedChoice;

const TEXT: &str = "a lovely cat,\nsleeping\nNegative prompt: blurry, bad\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, \
                    CFG scale: 7, Seed: 42, Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, \
                    Clip skip: 2, Version: v1.10.1";

/// A PNG file with these chunks. Nobody here checks the checksums.
fn png(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0];
    let all = [(b"IHDR", header)].into_iter().chain(chunks.iter().copied());
    for (name, data) in all.chain([(b"IEND", &b""[..])]) {
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(name);
        file.extend(data);
        file.extend([0; 4]);
    }
    file
}

fn text_chunk(keyword: &str, text: &str) -> Vec<u8> {
    [keyword.as_bytes(), b"\0", text.as_bytes()].concat()
}

/// EXIF with `text` as the comment of the user, in the byte order of `order`, the text always big endian.
fn exif(order: &[u8; 2], text: &str) -> Vec<u8> {
    let short = |value: u16| match order {
        b"II" => value.to_le_bytes(),
        _ => value.to_be_bytes(),
    };
    let long = |value: u32| match order {
        b"II" => value.to_le_bytes(),
        _ => value.to_be_bytes(),
    };
    let comment: Vec<u8> = [
        b"UNICODE\0".to_vec(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    ]
    .concat();
    let mut file = order.to_vec();
    file.extend(short(42));
    file.extend(long(8));
    // The first directory has one entry: where that of EXIF is.
    file.extend(short(1));
    for (tag, kind, count, value) in [(0x8769, 4, 1, 26), (0x9286, 7, comment.len() as u32, 44)] {
        if tag == 0x9286 {
            file.extend(long(0));
            file.extend(short(1));
        }
        file.extend(short(tag));
        file.extend(short(kind));
        file.extend(long(count));
        file.extend(long(value));
    }
    file.extend(long(0));
    assert_eq!(file.len(), 44);
    file.extend(comment);
    file
}

fn jpeg(exif: &[u8]) -> Vec<u8> {
    let mut file = b"\xff\xd8\xff\xe1".to_vec();
    file.extend((exif.len() as u16 + 8).to_be_bytes());
    file.extend(b"Exif\0\0");
    file.extend(exif);
    file.extend(b"\xff\xda\0\x02pixels\xff\xd9");
    file
}

fn webp(exif: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0".to_vec();
    file.extend([0; 10]);
    file.extend(b"EXIF");
    file.extend((exif.len() as u32).to_le_bytes());
    file.extend(exif);
    file
}

/// Reads `bytes` from a file called `name`.
fn read_as(name: &str, bytes: &[u8]) -> Result<GenerationParameters> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    GenerationParameters::read(&path)
}

fn option<'a>(found: &'a GenerationParameters, name: &str) -> Option<&'a str> {
    let found = found.options.iter().find(|(option, _)| *option == name);
    found.map(|(_, text)| text.as_str())
}

fn refused(result: Result<GenerationParameters>) -> String {
    result.unwrap_err().to_string()
}

fn compressed(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_text_of_webui_is_found_wherever_it_is_written() {
    let plain = text_chunk("parameters", TEXT);
    let wide = [b"parameters\0\0\0\0\0", TEXT.as_bytes()].concat();
    let inflated = [&b"parameters\0\x01\0\0\0"[..], &compressed(TEXT)].concat();
    let zipped = [&b"parameters\0\0"[..], &compressed(TEXT)].concat();
    let pixels: (&[u8; 4], &[u8]) = (b"IDAT", b"pixels");
    let files = [
        ("a.png", png(&[(b"tEXt", &plain), pixels])),
        ("a.png", png(&[pixels, (b"iTXt", &wide)])),
        ("a.png", png(&[(b"iTXt", &inflated)])),
        ("a.png", png(&[(b"zTXt", &zipped)])),
        ("a.png", png(&[(b"eXIf", &exif(b"II", TEXT))])),
        ("a.jpg", jpeg(&exif(b"MM", TEXT))),
        ("a.jpg", jpeg(&exif(b"II", TEXT))),
        ("a.webp", webp(&exif(b"MM", TEXT))),
        ("a.webp", webp(&[b"Exif\0\0", &exif(b"II", TEXT)[..]].concat())),
    ];
    for (name, bytes) in files {
        let found = read_as(name, &bytes).unwrap();
        assert_eq!(found.prompt, "a lovely cat,\nsleeping", "{name}");
        let settings = &found.settings;
        assert_eq!(settings.negative_prompt.as_deref(), Some("blurry, bad"));
        assert_eq!((settings.steps, settings.cfg), (Some(20), Some(7.0)));
        assert_eq!(settings.seed, Some(SeedChoice::First(42)));
        assert_eq!(settings.model.as_deref(), Some("v1-5-pruned-emaonly"));
        assert_eq!(
            (settings.clip_skip, settings.rng),
            (Some(2), Some(NoiseSource::Philox))
        );
        assert_eq!(option(&found, "sampler"), Some("DPM++ 2M"));
        assert_eq!(option(&found, "scheduler"), Some("Karras"));
        assert_eq!(option(&found, "size"), Some("512x768"));
        assert_eq!(found.model_hash.as_deref(), Some("6ce0161689"));
        assert_eq!(
            (found.unmet.as_slice(), found.differences.as_slice()),
            (&[][..], &[][..])
        );
        assert_eq!(
            found.source.to_string(),
            "the parameters text of stable-diffusion-webui v1.10.1"
        );
    }
}

#[test]
fn damaged_files_are_errors() {
    let exif_files = [
        jpeg(&exif(b"MM", TEXT)),
        webp(&exif(b"II", TEXT)),
        png(&[
            (b"tEXt", &text_chunk("parameters", TEXT)),
            (b"zTXt", b"parameters\0\0damaged"),
        ]),
    ];
    for bytes in exif_files {
        for end in 0..bytes.len().min(160) {
            // Cut or changed at any byte it may be readable still, and never more than an error.
            let _ = read_as("a.png", &bytes[..end]);
            let mut changed = bytes.clone();
            changed[end] ^= 0xff;
            let _ = read_as("a.png", &changed);
        }
    }
    let nothing = png(&[(b"tEXt", &text_chunk("Software", "paint"))]);
    assert!(refused(read_as("a.png", &nothing)).contains("holds neither a parameters text nor a graph"));
    let other = png(&[(b"tEXt", &text_chunk("invokeai_metadata", "{}"))]);
    assert!(refused(read_as("a.png", &other)).contains("the settings of InvokeAI, which are not read"));
    assert!(refused(read_as("a.txt", b"a cat")).contains("neither a PNG, a JPEG, a WebP nor a .json file"));
    assert!(refused(read_as("a.png", b"")).contains("neither a PNG"));
    assert!(refused(read_as("a.json", b"{\"prompt\": ")).contains("damaged"));
    assert!(refused(read_as("a.json", b"{\"a\": 1}")).contains("nor a graph of ComfyUI"));
    let prompt_alone = png(&[(b"tEXt", &text_chunk("parameters", "a cat"))]);
    assert!(refused(read_as("a.png", &prompt_alone)).contains("no line of settings"));
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(GenerationParameters::read(folder.path())).contains("it is a folder"));
}

#[test]
fn texts_that_grow_are_limited() {
    let large = compressed(&"x".repeat(LONGEST_TEXT as usize + 1));
    let zipped = [&b"parameters\0\0"[..], &large].concat();
    assert!(refused(read_as("a.png", &png(&[(b"zTXt", &zipped)]))).contains("longer than"));
    // The first text of a keyword counts. Others are not even read.
    let first = text_chunk("parameters", TEXT);
    let zipped: Vec<(&[u8; 4], &[u8])> = std::iter::once((b"tEXt", &first[..]))
        .chain(std::iter::repeat_n((b"zTXt", &zipped[..]), 100))
        .collect();
    assert_eq!(
        read_as("a.png", &png(&zipped)).unwrap().prompt,
        read_as("a.png", &png(&[(b"tEXt", &first)])).unwrap().prompt
    );
    let mut claimed = png(&[]);
    let end = claimed.len() - 12;
    claimed.truncate(end);
    claimed.extend(u32::MAX.to_be_bytes());
    claimed.extend(b"tEXtparameters\0");
    assert!(refused(read_as("a.png", &claimed)).contains("truncated"));
    let deep = "[".repeat(100_000);
    let graph = png(&[(b"tEXt", &text_chunk("prompt", &deep))]);
    assert!(refused(read_as("a.png", &graph)).contains("damaged"));
}

#[test]
fn no_setting_of_webui_is_dropped() {
    let text = format!(
        "{TEXT}, Denoising strength: 0.4, Hires upscale: 2, Hires upscaler: Latent, Variation seed: 7, Face restoration: GFPGAN"
    );
    let found = read_as("a.png", &png(&[(b"tEXt", &text_chunk("parameters", &text))])).unwrap();
    assert_eq!(
        found.differences,
        [
            "Denoising strength: 0.4",
            "Hires upscale: 2",
            "Hires upscaler: Latent",
            "Variation seed: 7",
            "Face restoration: GFPGAN"
        ]
    );
    let text = "x\nSteps: 0, Sampler: Euler, CFG scale: 7, Seed: -5, Size: 100x100, Denoising strength: 0.6, Mask blur: 4, \
                ControlNet 0: \"Module: canny, Model: control_canny [d14c016b], Weight: 0.7, Guidance End: 0.5\", Version: v1.10.1";
    let found = read_as("a.png", &png(&[(b"tEXt", &text_chunk("parameters", text))])).unwrap();
    let options: Vec<_> = found.unmet.iter().map(|unmet| unmet.options.clone()).collect();
    assert_eq!(
        options,
        [
            vec!["steps"],
            vec!["seed"],
            vec!["size"],
            vec!["init-image"],
            vec!["mask"],
            vec!["pose", "depth", "canny", "control"]
        ]
    );
    assert_eq!(
        found.differences,
        ["Mask blur: 4", "ControlNet 0, Guidance End: 0.5"]
    );
    assert_eq!(found.controlnets, [("control_canny".to_owned(), 0.7)]);
    assert_eq!(found.strength(), Some(0.6));
}

#[test]
fn defaults_of_the_writer_are_known() {
    let read = |line: &str| {
        let text = format!("a cat\nSteps: 20, CFG scale: 7, Seed: 1, {line}");
        read_as("a.png", &png(&[(b"tEXt", &text_chunk("parameters", &text))])).unwrap()
    };
    // webui draws noise on the GPU, and some of its samplers have a schedule of their own.
    let found = read("Sampler: DPM++ 2M, Schedule type: Automatic, Version: v1.10.1");
    assert_eq!(
        (option(&found, "rng"), option(&found, "scheduler")),
        (Some("philox"), Some("karras"))
    );
    let found = read("Sampler: Euler a, RNG: CPU, Version: v1.10.1");
    assert_eq!(
        (option(&found, "rng"), option(&found, "scheduler")),
        (Some("torch"), None)
    );
    // stable-diffusion.cpp writes both into one name, and JSON behind.
    let found = read(
        "Guidance: 3.5, Eta: 0.000000, RNG: cuda, Sampler: euler_a karras, Version: stable-diffusion.cpp, SDCPP: {\"Steps: 99, \": 1}",
    );
    assert_eq!(option(&found, "sampler"), Some("euler_a karras"));
    assert_eq!((found.settings.steps, found.differences.len()), (Some(20), 0));
}

fn graph() -> Value {
    json!({
        "3": { "class_type": "KSampler", "inputs": {
            "seed": 156680208700286_u64, "steps": 20, "cfg": 8, "sampler_name": "euler_ancestral", "scheduler": "karras",
            "denoise": 1, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0] } },
        "4": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": "xl\\dream.safetensors" } },
        "5": { "class_type": "EmptyLatentImage", "inputs": { "width": 512, "height": 768, "batch_size": 1 } },
        "6": { "class_type": "CLIPTextEncode", "inputs": { "text": "a bottle embedding:easy", "clip": ["10", 1] } },
        "7": { "class_type": "CLIPTextEncode", "inputs": { "text": "watermark", "clip": ["10", 1] } },
        "8": { "class_type": "VAEDecode", "inputs": { "samples": ["3", 0], "vae": ["11", 0] } },
        "9": { "class_type": "SaveImage", "inputs": { "filename_prefix": "ComfyUI", "images": ["8", 0] } },
        "10": { "class_type": "LoraLoader", "inputs": {
            "lora_name": "fur.safetensors", "strength_model": 0.8, "strength_clip": 0.5,
            "model": ["12", 0], "clip": ["12", 1] } },
        "11": { "class_type": "VAELoader", "inputs": { "vae_name": "good.safetensors" } },
        "12": { "class_type": "LoraLoader", "inputs": {
            "lora_name": "first.safetensors", "strength_model": 1, "strength_clip": 1,
            "model": ["4", 0], "clip": ["4", 1] } },
        "13": { "class_type": "KSamplerAdvanced", "inputs": {} },
    })
}

#[test]
fn a_simple_graph_of_comfyui_is_read() {
    let text = graph().to_string();
    let chunk = text_chunk("prompt", &text);
    for (name, bytes) in [
        ("a.png", png(&[(b"tEXt", &chunk)])),
        ("a.json", text.into_bytes()),
    ] {
        let found = read_as(name, &bytes).unwrap();
        assert_eq!(found.prompt, "a bottle easy");
        let settings = &found.settings;
        assert_eq!(settings.negative_prompt.as_deref(), Some("watermark"));
        assert_eq!(settings.model.as_deref(), Some("xl/dream.safetensors"));
        assert_eq!(
            settings.lora,
            ["first.safetensors:1:1", "fur.safetensors:0.5:0.8"]
        );
        assert_eq!(settings.vae.as_deref(), Some(Path::new("good.safetensors")));
        assert_eq!(settings.seed, Some(SeedChoice::First(156_680_208_700_286)));
        assert_eq!(
            (settings.rng, settings.cfg),
            (Some(NoiseSource::Torch), Some(8.0))
        );
        assert_eq!(option(&found, "sampler"), Some("euler_ancestral"));
        assert_eq!(option(&found, "size"), Some("512x768"));
        // The node that leads nowhere is none of the image.
        assert_eq!((found.unmet.len(), found.differences.len()), (0, 0));
    }
}

#[test]
fn other_nodes_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut graph = graph();
        change(&mut graph);
        read_as("a.json", graph.to_string().as_bytes())
    };
    for (refusal, change) in [
        (
            "the node ControlNetApply for `positive` of KSampler",
            &(|graph: &mut Value| graph["6"]["class_type"] = json!("ControlNetApply")) as &dyn Fn(&mut Value),
        ),
        ("the node LatentUpscale for `latent_image`", &|graph| {
            graph["5"]["class_type"] = json!("LatentUpscale");
        }),
        ("`seed` of its KSampler comes from LoraLoader", &|graph| {
            graph["3"]["inputs"]["seed"] = json!(["10", 0]);
        }),
        ("leads in a circle", &|graph| {
            graph["12"]["inputs"]["model"] = json!(["10", 0])
        }),
        ("comes from a node that is missing", &|graph| {
            graph["8"]["inputs"]["samples"] = json!(["99", 0]);
        }),
        ("has no node SaveImage", &|graph| {
            graph["9"]["class_type"] = json!("Nothing")
        }),
        ("are encoded with different LoRAs", &|graph| {
            graph["7"]["inputs"]["clip"] = json!(["4", 1]);
        }),
        ("the form that is read is that of `Export (API)`", &|graph| {
            *graph = json!({ "nodes": [], "links": [] });
        }),
    ] {
        let message = refused(with(change));
        assert!(message.contains(refusal), "{message}");
    }
    let found = with(&|graph| {
        graph["3"]["inputs"]["denoise"] = json!(0.5);
        graph["6"]["inputs"]["text"] = json!("a (cat:1.2) <lora:x:1>");
    });
    let found = found.unwrap();
    assert_eq!(found.differences.len(), 2, "{:?}", found.differences);
    assert_eq!(found.unmet[0].options, ["prompt"]);
}

fn sidecar() -> Value {
    json!({
        "prompt": "a cat <lora:fur:0.5>", "negative_prompt": "", "seed": 43, "rng": "torch", "steps": 4,
        "guidance_scale": 2.0, "guidance_rescale": 0.0, "width": 64, "height": 48, "sampler": "Flow Euler",
        "schedule": "normal", "clip_skip": 1, "img2img": null, "model": "demo", "model_sha256": null,
        "lora": [], "loras": [
            { "name": "fur", "file": "/l/fur.safetensors", "scale": 0.5, "text_scale": 0.5, "hash": null },
            { "name": "/l/other", "file": "/l/other.safetensors", "scale": 1.0, "text_scale": 0.2, "hash": null },
        ],
        "embeddings": [{ "name": "easy", "file": "/e/easy.pt", "hash": null }],
        "upscale": 2, "upscale_method": "lanczos", "refiner": null,
        "choices": { "schedule": "automatic", "dtype": "F32", "prediction": "v", "networks": { "vae": "/v.safetensors" } },
        "device": "cpu", "dtype": "f32", "version": "sd-generate 3.0.0", "memory": { "timeline": [1, 2, 3] },
        "num_images": 2, "image_index": 1,
    })
}

#[test]
fn a_sidecar_is_complete() {
    let found = read_as("a.json", sidecar().to_string().as_bytes()).unwrap();
    let settings = &found.settings;
    assert_eq!(found.prompt, "a cat <lora:fur:0.5>");
    // The tag is in the prompt already.
    assert_eq!(settings.lora, ["/l/other:0.2:1"]);
    assert_eq!(settings.embedding, [Path::new("/e/easy.pt")]);
    assert_eq!((settings.clip_skip, settings.upscale), (Some(2), Some(2)));
    assert_eq!(settings.upscaler.as_deref(), Some("lanczos"));
    // As it was chosen, and not as it was resolved.
    assert_eq!(settings.scheduler.as_deref(), Some("automatic"));
    assert_eq!(settings.dtype, Some(TypeChoice::F32));
    assert_eq!(option(&found, "prediction"), Some("v"));
    assert_eq!(settings.vae.as_deref(), Some(Path::new("/v.safetensors")));
    assert_eq!((found.unmet.len(), found.differences.len()), (0, 0));
    // What a later version adds is not dropped in silence.
    let mut later = sidecar();
    later["glow"] = json!(3);
    let found = read_as("a.json", later.to_string().as_bytes()).unwrap();
    assert_eq!(found.differences, ["glow, which this version does not know"]);
    let mut wrong = sidecar();
    wrong["loras"] = json!([{ "name": 5 }]);
    assert!(refused(read_as("a.json", wrong.to_string().as_bytes())).contains("`loras` of the .json file"));
}

#[test]
fn the_sidecar_of_an_image_precedes_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.png");
    let text = |seed: u64| {
        format!(
            "a cat\nSteps: 4, Sampler: Euler, CFG scale: 2, Seed: {seed}, Model: demo, Version: sd-generate 3.0.0"
        )
    };
    fs::write(folder.path().join("a.json"), sidecar().to_string()).unwrap();
    let read = |seed| {
        fs::write(&image, png(&[(b"tEXt", &text_chunk("parameters", &text(seed)))])).unwrap();
        GenerationParameters::read(&image).unwrap()
    };
    assert_eq!(read(43).source.name(), "sidecar");
    // It is that of another image.
    assert_eq!(read(44).source.name(), "parameters");
    // An image whose text was removed.
    fs::write(&image, png(&[])).unwrap();
    let found = GenerationParameters::read(&image).unwrap();
    assert_eq!(found.source.name(), "sidecar");
}

#[test]
fn an_initial_image_is_read_under_its_earlier_key_too() {
    for key in ["img2img", "over"] {
        let mut sidecar = sidecar();
        sidecar.as_object_mut().unwrap().remove("img2img");
        sidecar[key] = json!({ "image": "/i/init.png", "mask": "/i/mask.png", "strength": 0.4 });
        let found = read_as("a.json", sidecar.to_string().as_bytes()).unwrap();
        let expected = InitImage {
            image: "/i/init.png".into(),
            strength: Some(Strength(0.4)),
            mask: Some("/i/mask.png".into()),
        };
        assert_eq!(found.init, Some(expected), "{key}");
        assert_eq!((found.unmet.len(), found.differences.len()), (0, 0), "{key}");
        // A refiner takes the image of the base model, which no file holds.
        sidecar[key]["image"] = Value::Null;
        let found = read_as("a.json", sidecar.to_string().as_bytes()).unwrap();
        assert_eq!(found.unmet[0].setting, "img2img", "{key}");
    }
}
