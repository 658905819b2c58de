//! One function per fuzz target: each passes bytes to a parser. Any result is accepted except a panic, an
//! abort, and excessive time or memory.
//!
//! `cargo +nightly fuzz run TARGET --features libfuzzer` searches for such bytes with libFuzzer; `cargo test`
//! replays those of `corpus/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use sd_catalog::GenerationParameters;
use sd_models::{clip, controlnet, mmdit, t5, unet, vae};
use sd_pipeline::bundle::Bundle;
use sd_pipeline::prompt::Prompt;
use sd_pipeline::resume::interrupted_runs;
use sd_pipeline::source_image::SourceImage;
use sd_pipeline::tokenizer::Tokenizer;
use sd_pipeline::{ImageSize, ModelFiles, ModelFolder, UserDirs};
use sd_schedulers::SchedulerConfig;
use sd_weights::{Checkpoint, FileIdentity, LoraFile};
use serde_json::json;
use tempfile::TempDir;

/// Images of more pixels are opened and not read.
const MOST_PIXELS: usize = 1 << 18;

thread_local! {
    /// Where bytes become files, each under a name that no other function takes.
    static FOLDER: TempDir = tempfile::tempdir().expect("a folder for files");
}

/// Reads bytes that others wrote, and panics where it finds a fault.
pub type Target = fn(&[u8]);

/// The functions by the names of their targets.
pub const TARGETS: &[(&str, Target)] = &[
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("quantized", quantized),
    ("single_file", single_file),
    ("torch", torch),
    ("index", index),
    ("configurations", configurations),
    ("tokenizer", tokenizer),
    ("clip_tokenizer", clip_tokenizer),
    ("lora", lora),
    ("prompt", prompt),
    ("resume", resume),
    ("scheduler", scheduler),
    ("reference", reference),
    ("hub_listing", hub_listing),
    ("image", image),
    ("parameters", parameters),
];

/// The longest file that names and shapes are made to.
const LONGEST_MODEL: u64 = 1 << 30;

/// A model in a single file with the tensors that `bytes` name: a JSON object of shapes by name. All values
/// are zero, and take no room on most disks.
pub fn single_file(bytes: &[u8]) {
    let Ok(tensors) = serde_json::from_slice::<BTreeMap<String, Vec<u64>>>(bytes) else {
        return;
    };
    let (mut header, mut end) = (serde_json::Map::new(), 0_u64);
    for (name, shape) in tensors {
        let values = shape
            .iter()
            .try_fold(2_u64, |values, &size| values.checked_mul(size));
        let Some(next) = values
            .and_then(|bytes| end.checked_add(bytes))
            .filter(|&next| next <= LONGEST_MODEL)
        else {
            return;
        };
        header.insert(
            name,
            json!({"dtype": "F16", "shape": shape, "data_offsets": [end, next]}),
        );
        end = next;
    }
    let header = serde_json::Value::Object(header).to_string();
    let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let path = file("single/x.safetensors", &start);
    let opened = fs::OpenOptions::new().write(true).open(&path).expect("a file");
    opened.set_len(start.len() as u64 + end).expect("room for a file");
    if let Ok(model) = Bundle::open(&ModelFiles::at(&path)) {
        let _ = model.defaults();
        let _ = model.tokenizer_bytes();
    }
}

/// The place of a file of `bytes` called `name`.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.with(|folder| folder.path().join(name));
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a folder");
    fs::write(&path, bytes).expect("a file");
    path
}

/// A file of safetensors, by its header.
pub fn safetensors(bytes: &[u8]) {
    let path = file("header/x.safetensors", bytes);
    if let Ok(checkpoint) = Checkpoint::open_file(&path) {
        let within = |(_, header): (&str, &sd_weights::TensorHeader)| header.offset + header.bytes;
        let end = checkpoint.tensors().map(within).max().unwrap_or(0);
        assert!(end <= bytes.len() as u64, "a tensor lies outside of its file");
    }
    let _ = FileIdentity::of_file(&path);
}

/// A GGUF file, with the values of its tensors and the vocabulary in its metadata.
pub fn gguf(bytes: &[u8]) {
    let Ok(checkpoint) = Checkpoint::open_file(file("gguf/x.gguf", bytes)) else {
        return;
    };
    read_all(&checkpoint, bytes);
    if let Some(metadata) = checkpoint.gguf_metadata() {
        let _ = metadata.architecture();
        let _ = metadata.texts("tokenizer.ggml.tokens");
        let _ = metadata.floats("tokenizer.ggml.scores");
        let _ = metadata.integers("tokenizer.ggml.token_type");
    }
}

/// A safetensors file of quantised tensors with their scales, and all values.
pub fn quantized(bytes: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::open_file(file("quantized/x.safetensors", bytes)) {
        read_all(&checkpoint, bytes);
    }
}

/// Decodes all values of a file.
fn read_all(checkpoint: &Checkpoint, bytes: &[u8]) {
    let within = |(_, header): (&str, &sd_weights::TensorHeader)| header.offset + header.bytes;
    let end = checkpoint.tensors().map(within).max().unwrap_or(0);
    assert!(end <= bytes.len() as u64, "a tensor lies outside of its file");
    let _ = checkpoint.first_non_finite();
}

/// A pickle, in an archive as PyTorch writes it, or the whole of a file where it begins like one.
pub fn torch(bytes: &[u8]) {
    if bytes.starts_with(b"PK") {
        let _ = Checkpoint::open_file(file("torch/x.pth", bytes));
        return;
    }
    let name = b"x/data.pkl";
    let length = (bytes.len() as u32).to_le_bytes();
    let common = [
        &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &length[..],
        &length,
        &[name.len() as u8, 0, 0, 0],
    ];
    let common = common.concat();
    let entry = [b"PK\x03\x04", common.as_slice(), name, bytes].concat();
    let list = [b"PK\x01\x02\x14\0", common.as_slice(), &[0; 14], name].concat();
    let sizes = [
        (list.len() as u32).to_le_bytes(),
        (entry.len() as u32).to_le_bytes(),
    ]
    .concat();
    let end = [b"PK\x05\x06\0\0\0\0\x01\0\x01\0".as_slice(), &sizes, &[0, 0]].concat();
    let _ = Checkpoint::open_file(file("torch/x.pth", &[entry, list, end].concat()));
}

/// The index of shards.
pub fn index(bytes: &[u8]) {
    let path = file("index/unet/model.safetensors.index.json", bytes);
    let root = path.parent().and_then(Path::parent).expect("it is in a folder");
    let folder = ModelFolder::on_disk(root);
    let _ = folder.checkpoint("unet");
    let _ = folder.weights_identity("unet");
}

/// The configuration of any network; the first byte says of which.
pub fn configurations(bytes: &[u8]) {
    let Some((first, json)) = bytes.split_first() else {
        return;
    };
    match first % 6 {
        0 => drop(serde_json::from_slice::<clip::Config>(json).map(|config| config.check())),
        1 => drop(serde_json::from_slice::<t5::Config>(json).map(|config| config.check())),
        2 => drop(serde_json::from_slice::<mmdit::Config>(json).map(|config| config.validate())),
        3 => drop(serde_json::from_slice::<unet::Config>(json).map(|config| config.validate())),
        4 => drop(serde_json::from_slice::<vae::Config>(json).map(|config| config.check())),
        _ => drop(serde_json::from_slice::<controlnet::Config>(json).map(|config| config.downsampling())),
    }
}

/// `tokenizer.json`, and what it makes of a few texts.
pub fn tokenizer(bytes: &[u8]) {
    let path = file("whole/tokenizer/tokenizer.json", bytes);
    tokenize(&path);
}

/// `vocab.json` and `merges.txt`, with a zero byte between them.
pub fn clip_tokenizer(bytes: &[u8]) {
    let (vocabulary, merges) = bytes.split_at(bytes.iter().position(|&byte| byte == 0).unwrap_or(0));
    let path = file("parts/tokenizer/vocab.json", vocabulary);
    file("parts/tokenizer/merges.txt", merges);
    tokenize(&path);
}

fn tokenize(path: &Path) {
    let root = path.parent().and_then(Path::parent).expect("it is in a folder");
    let Ok(tokenizer) = Tokenizer::open(&ModelFolder::on_disk(root), "tokenizer") else {
        return;
    };
    let _ = tokenizer.vocabulary_size();
    for text in [
        "",
        "a red circle, größer",
        "ﬁ ｶﾞ \u{1f1e9}\u{1f1ea} a\u{301}\u{301}\0",
        "  a  ",
    ] {
        let _ = tokenizer.words(text);
        let _ = tokenizer.encode(text, 77);
    }
}

/// A LoRA, by the names in its header.
pub fn lora(bytes: &[u8]) {
    let _ = LoraFile::open(file("lora/x.safetensors", bytes));
}

/// A prompt.
pub fn prompt(bytes: &[u8]) {
    let _ = Prompt::parse(&String::from_utf8_lossy(bytes));
}

/// The state of a run.
pub fn resume(bytes: &[u8]) {
    let path = file("state/runs/abcdefgh.safetensors", bytes);
    let state = path.parent().and_then(Path::parent).map(Path::to_owned);
    let _ = interrupted_runs(&UserDirs { state, cache: None });
}

/// `scheduler_config.json`.
pub fn scheduler(bytes: &[u8]) {
    if let Ok(config) = SchedulerConfig::parse(&String::from_utf8_lossy(bytes)) {
        let _ = config.sampler();
    }
}

/// What names a repository on the hub.
pub fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = text.parse::<sd_hub::Reference>() {
        assert_eq!(reference.to_string(), text, "what is read is what was written");
    }
}

/// The hub's reply to what a repository holds.
pub fn hub_listing(bytes: &[u8]) {
    let reference = "me/model".parse().expect("a repository's name");
    if let Ok(listing) = sd_hub::Listing::parse("https://hub/", bytes, &reference) {
        for path in listing.paths() {
            assert!(listing.file(path).is_ok(), "what is listed is found");
            let leaves = Path::new(path)
                .components()
                .any(|part| !matches!(part, Component::Normal(_)));
            assert!(!leaves, "a name leads out of the cache");
        }
    }
}

/// An image that the user names: a PNG, JPEG or WebP file, with what it says of its orientation and its colours.
pub fn image(bytes: &[u8]) {
    let Ok(image) = SourceImage::open(&file("image/file", bytes)) else {
        return;
    };
    let (width, height) = image.sides();
    // A large image of one colour is a small file: each takes its time, and there is nothing else to find in it.
    if width * height <= MOST_PIXELS {
        let size = ImageSize::new(64, 64).expect("a size");
        let _ = image.at(size);
        if let Ok(mask) = image.mask() {
            assert_eq!(mask.len(), width * height, "a mask has all pixels");
        }
    }
}

/// A file that says how an image was generated: an image with text, a sidecar, or a graph of ComfyUI.
pub fn parameters(bytes: &[u8]) {
    if let Ok(parameters) = GenerationParameters::read(&file("parameters/file", bytes)) {
        let _ = parameters.source.to_string();
    }
}
