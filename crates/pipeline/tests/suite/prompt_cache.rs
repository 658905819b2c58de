//! The prompt cache: hits read no weight, damaged entries change nothing, and failures do not stop a run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::reference::copy_folder;
use sd_pipeline::{
    DeviceChoice, EmbeddedFile, Error, Event, GuidanceScale, ImageSize, Interrupt, ModelChoice, ModelFiles,
    Recommended, Request, TypeChoice, UserDirs,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const ENCODERS: [&str; 3] = ["text_encoder", "text_encoder_2", "text_encoder_3"];

/// A copy of a model, and a folder for everything that is written.
struct Fresh {
    folder: TempDir,
}

impl Fresh {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tiny-large");
        copy_folder(&source, &folder.path().join("model"));
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn request(&self) -> Request {
        let model = ModelChoice {
            name: "tiny".to_owned(),
            files: ModelFiles::at(self.path("model")),
            recommended: Recommended::default(),
        };
        Request {
            negative_prompt: Some("blurry".to_owned()),
            steps: Some(2),
            seeds: 1.into(),
            size: Some(ImageSize::new(64, 64).unwrap().into()),
            guidance_scale: Some(GuidanceScale(4.5)),
            output: self.path("outputs"),
            device: DeviceChoice::Cpu,
            weight_type: TypeChoice::F32,
            user_dirs: UserDirs {
                state: None,
                cache: Some(self.path("cache")),
            },
            ..Request::new("a cat in the rain", model)
        }
    }

    /// Every entry with its bytes.
    fn entries(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let Ok(files) = fs::read_dir(self.path("cache/prompts")) else {
            return Vec::new();
        };
        let paths = files.map(|file| file.unwrap().path());
        let mut entries: Vec<_> = paths
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        entries.sort();
        entries
    }
}

/// The file of the image of `request`.
fn try_to_generate(request: &Request) -> Result<Vec<u8>, Error> {
    let mut observer = |_: &Event<'_>| {};
    let saved = sd_pipeline::Engine::new().run(request, &mut observer, &Interrupt::default())?;
    Ok(fs::read(&saved[0].image).unwrap())
}

fn generate(request: &Request) -> Vec<u8> {
    try_to_generate(request).unwrap()
}

/// Makes every weight of a file NaN without changing its identity.
fn destroy_weights(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let modified = fs::metadata(file).unwrap().modified().unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[data..].fill(0xff);
    fs::write(file, bytes).unwrap();
    let opened = File::options().append(true).open(file).unwrap();
    opened.set_modified(modified).unwrap();
}

#[test]
fn a_prompt_that_was_encoded_before_reads_no_encoder() {
    let fresh = Fresh::new();
    let first = generate(&fresh.request());
    assert_eq!(fresh.entries().len(), 1);
    for encoder in ENCODERS {
        destroy_weights(&fresh.path("model").join(encoder).join("model.safetensors"));
    }
    assert!(generate(&fresh.request()) == first);
    // The entry serves other images and other steps of the same prompt.
    let mut other = fresh.request();
    other.seeds = 2.into();
    other.steps = Some(1);
    assert!(generate(&other) != first);
    assert_eq!(fresh.entries().len(), 1);
    // Without the entry the destroyed encoders are read.
    fs::remove_dir_all(fresh.path("cache")).unwrap();
    let error = try_to_generate(&fresh.request()).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error:?}");
    assert!(fresh.entries().is_empty());
}

#[test]
fn the_cache_never_changes_an_image() {
    let fresh = Fresh::new();
    let mut without = fresh.request();
    without.user_dirs = UserDirs::default();
    let expected = generate(&without);
    assert!(fresh.entries().is_empty());
    assert!(generate(&fresh.request()) == expected, "while it is filled");
    assert!(generate(&fresh.request()) == expected, "when it is used");

    let whole = fresh.entries().pop().unwrap();
    let mut flipped = whole.1.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 0x40;
    for damaged in [&flipped[..], &whole.1[..whole.1.len() / 2], b""] {
        fs::write(&whole.0, damaged).unwrap();
        assert!(generate(&fresh.request()) == expected, "damaged");
        assert!(fresh.entries() == std::slice::from_ref(&whole), "it was replaced");
    }
}

#[test]
fn a_truncated_prompt_causes_a_warning_every_time() {
    let fresh = Fresh::new();
    let mut request = fresh.request();
    request.prompt = "a cat in the rain ".repeat(80);
    let warnings = || {
        let mut warnings = Vec::new();
        let mut observer = |event: &Event<'_>| {
            if let Event::Warning(warning) = event {
                warnings.push((*warning).to_owned());
            }
        };
        sd_pipeline::Engine::new()
            .run(&request, &mut observer, &Interrupt::default())
            .unwrap();
        warnings
    };
    let first = warnings();
    assert!(
        first.len() == 1 && first[0].contains("tokens were truncated"),
        "{first:?}"
    );
    assert_eq!(warnings(), first);
}

#[test]
fn everything_that_the_encoding_depends_on_makes_another_entry() {
    let fresh = Fresh::new();
    type Change = Box<dyn Fn(&mut Request)>;
    let mut changes: Vec<(&str, Change)> = vec![
        ("nothing", Box::new(|_| {})),
        ("prompt", Box::new(|request| request.prompt.push('s'))),
        (
            "negative prompt",
            Box::new(|request| request.negative_prompt = None),
        ),
        (
            "no guidance",
            Box::new(|request| request.guidance_scale = Some(GuidanceScale(1.0))),
        ),
        ("type", Box::new(|request| request.weight_type = TypeChoice::Bf16)),
    ];
    let touch = |path: &'static str| {
        let path = fresh.path("model").join(path);
        move |_: &mut Request| {
            let file = File::options().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
    };
    let append = |path: &'static str| {
        let path = fresh.path("model").join(path);
        move |_: &mut Request| fs::write(&path, fs::read_to_string(&path).unwrap() + "\n").unwrap()
    };
    changes.push(("encoder", Box::new(touch("text_encoder_2/model.safetensors"))));
    changes.push(("configuration", Box::new(append("text_encoder/config.json"))));
    changes.push(("tokenizer", Box::new(append("tokenizer_3/tokenizer.json"))));
    for (count, (name, change)) in changes.iter().enumerate() {
        let mut request = fresh.request();
        change(&mut request);
        let first = generate(&request);
        assert_eq!(fresh.entries().len(), count + 1, "{name}");
        assert!(generate(&request) == first, "{name}");
        assert_eq!(fresh.entries().len(), count + 1, "{name}");
    }
    // Settings that affect only the image add no entry.
    let count = fresh.entries().len();
    touch("vae/diffusion_pytorch_model.safetensors")(&mut fresh.request());
    generate(&fresh.request());
    assert_eq!(fresh.entries().len(), count);
}

#[test]
fn a_use_is_noted() {
    let fresh = Fresh::new();
    generate(&fresh.request());
    let (entry, _) = fresh.entries().pop().unwrap();
    let old = SystemTime::now() - Duration::from_secs(1000);
    let file = File::options().append(true).open(&entry).unwrap();
    file.set_modified(old).unwrap();
    generate(&fresh.request());
    assert!(file.metadata().unwrap().modified().unwrap() > old + Duration::from_secs(900));
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let fresh = Fresh::new();
    fs::write(fresh.path("cache"), "mine").unwrap();
    generate(&fresh.request());
    assert_eq!(fs::read_to_string(fresh.path("cache")).unwrap(), "mine");
}

#[test]
fn several_at_a_time_do_not_disturb_each_other() {
    let fresh = Fresh::new();
    let expected = generate(&fresh.request());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    // The folder is emptied all the time.
                    let _ = fs::remove_dir_all(fresh.path("cache/prompts"));
                    assert!(generate(&fresh.request()) == expected);
                }
            });
        }
    });
    generate(&fresh.request());
    let entries = fresh.entries();
    assert!(
        entries.len() == 1,
        "{:?}",
        entries.iter().map(|entry| &entry.0).collect::<Vec<_>>()
    );
}

#[test]
fn the_built_in_model_has_no_entries() {
    let fresh = Fresh::new();
    let mut files = Vec::new();
    let model = fresh.path("model");
    collect(&model, &model, &mut files);
    let mut request = fresh.request();
    request.model.files = ModelFiles::embedded("inside", files.leak());
    generate(&request);
    assert!(!fresh.path("cache").exists());
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<EmbeddedFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let inside = path.strip_prefix(root).unwrap().to_str().unwrap();
            let bytes = fs::read(&path).unwrap();
            files.push(EmbeddedFile {
                path: String::leak(inside.to_owned()),
                digest: hexadecimal(&Sha256::digest(&bytes)).leak(),
                bytes: bytes.leak(),
            });
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
