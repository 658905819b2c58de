//! Runs the real binary in a fresh folder.

#![allow(dead_code, unreachable_pub, unused_imports)] // Each test binary uses a part.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

// The networks that full-size models are synthesized from.
#[path = "../../../models/examples/synthesize/networks/mod.rs"]
mod networks;

use networks::Values;
use networks::sd3::{Sd3, Sd3Control};

#[path = "../schema/mod.rs"]
pub mod schema;

/// A fresh folder with the binary to run in it.
pub struct Fresh {
    folder: TempDir,
    /// The user's home, for state, cache and configuration.
    user: TempDir,
}

/// The output and the exit status of a run.
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Fresh {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            user: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of run states.
    pub fn runs(&self) -> PathBuf {
        self.user.path().join("state/runs")
    }

    /// The folder of the prompt cache.
    pub fn prompts(&self) -> PathBuf {
        self.user.path().join("cache/prompts")
    }

    /// The path of the user's configuration.
    pub fn configuration(&self) -> PathBuf {
        self.user.path().join("config.toml")
    }

    /// The binary in this folder, without settings from the environment.
    pub fn command(&self) -> Command {
        self.settled(Command::new(env!("CARGO_BIN_EXE_generate")))
    }

    /// A shell that runs `script` in this folder, without settings from the environment.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = self.settled(Command::new("sh"));
        command.args(["-c", script]);
        command
    }

    fn settled(&self, mut command: Command) -> Command {
        command
            .current_dir(self.path())
            .env("SD_GENERATE_STATE", self.user.path().join("state"))
            .env("SD_GENERATE_CACHE", self.user.path().join("cache"))
            .env("SD_GENERATE_CONFIG", self.configuration())
            .env("HF_HOME", self.user.path())
            // No test may reach the real hub.
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_TOKEN")
            .env_remove("HF_TOKEN_PATH")
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE")
            // The width of the help.
            .env_remove("COLUMNS");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command().args(arguments).output().unwrap())
    }

    /// The binary, with the hub at `endpoint`.
    pub fn command_at(&self, endpoint: &str) -> Command {
        let mut command = self.command();
        command.env("HF_ENDPOINT", endpoint).env_remove("HF_HUB_OFFLINE");
        command
    }

    /// The folder of the Hugging Face cache.
    pub fn hugging_face(&self) -> &Path {
        self.user.path()
    }

    /// Names of the files in `folder` below this one.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path().join(folder)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Installs a tiny random model of `family` in the model cache as `id`.
    pub fn install(&self, family: &str, id: &str) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures");
        let folder = self
            .user
            .path()
            .join("hub")
            .join(format!("models--{}", id.replace('/', "--")));
        copy_folder(&fixtures.join(family), &folder.join("snapshots/abc"));
        fs::create_dir_all(folder.join("refs")).unwrap();
        fs::write(folder.join("refs/main"), "abc").unwrap();
    }

    /// A copy of a tiny random model, which may be damaged.
    pub fn tiny_model(&self) -> PathBuf {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/fixtures/models/tiny-large");
        let target = self.path().join("model");
        copy_folder(&source, &target);
        target
    }
}

/// Attention heads of a transformer that is much larger than the other components of a tiny model.
const HEADS: usize = 6;

/// A tiny random model with a transformer of `layers` blocks of 9 MB, much larger than its other components,
/// so that small budgets must stream it.
pub fn model_with_large_transformer(fresh: &Fresh, layers: usize) -> PathBuf {
    let model = fresh.tiny_model();
    let folder = model.join("transformer");
    let mut config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let size = |name: &str| config[name].as_u64().unwrap() as usize;
    let shape = Sd3 {
        layers,
        heads: HEADS,
        table_side: size("pos_embed_max_size"),
        dual_attention_layers: 0,
        context: size("joint_attention_dim"),
        pooled: size("pooled_projection_dim"),
    };
    config["num_layers"] = json!(shape.layers);
    config["num_attention_heads"] = json!(shape.heads);
    config["attention_head_dim"] = json!(Sd3::HEAD);
    config["caption_projection_dim"] = json!(shape.width());
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name() != Some("config.json".as_ref()) {
            fs::remove_file(path).unwrap();
        }
    }
    save(
        &folder.join("diffusion_pytorch_model.safetensors"),
        &shape.tensors(),
    );
    model
}

/// A ControlNet for the transformer of such a `model`: `layers` blocks of 7 MB, or 16 MB if it reads the
/// text.
pub fn control_of_large_transformer(fresh: &Fresh, model: &Path, layers: usize, reads_text: bool) -> PathBuf {
    let config = fs::read(model.join("transformer/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let size = |name: &str| config[name].as_u64().unwrap() as usize;
    let shape = Sd3Control {
        layers,
        heads: HEADS,
        context: reads_text.then(|| size("joint_attention_dim")),
        pooled: size("pooled_projection_dim"),
    };
    let folder = fresh.path().join(format!("control-{layers}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), shape.config().to_string()).unwrap();
    save(
        &folder.join("diffusion_pytorch_model.safetensors"),
        &shape.tensors(),
    );
    folder
}

/// Writes f32 tensors of these shapes with pseudo-random values.
fn save(path: &Path, tensors: &[networks::Tensor]) {
    // Random values that repeat after a prime number, so that no two rows are equal: tests are not optimised, and a random
    // number for each weight would take them seconds.
    const PERIOD: usize = 4099;
    let mut state = 1_u32;
    let mut random = [0.0_f32; PERIOD];
    for value in &mut random {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32 * 3.4;
    }
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| {
            let period: Vec<u8> = match tensor.values {
                Values::Ones => 1.0_f32.to_le_bytes().to_vec(),
                Values::Around(deviation) => random
                    .iter()
                    .flat_map(|value| (value * deviation).to_le_bytes())
                    .collect(),
            };
            let length = tensor.count() * size_of::<f32>();
            let mut bytes = period.repeat(length.div_ceil(period.len()));
            bytes.truncate(length);
            bytes
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap();
        (tensor.name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

impl Run {
    pub fn of(output: Output) -> Self {
        Self {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code(),
        }
    }

    /// Asserts that the run succeeded.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Asserts that the run failed with `code`, one line of error that contains `cause`, and one line of
    /// hint.
    #[track_caller]
    pub fn fails(self, code: i32, cause: &str) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let starting = |start: &str| {
            self.stderr
                .lines()
                .filter(|line| line.starts_with(start))
                .collect::<Vec<_>>()
        };
        let (errors, hints) = (starting("error: "), starting("hint: "));
        assert!(
            errors.len() == 1 && errors[0].contains(cause),
            "{cause:?} is not in:\n{}",
            self.stderr
        );
        assert!(hints.len() == 1 && hints[0].len() > 20, "{}", self.stderr);
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("hint: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// The printed paths of images.
    pub fn images(&self) -> Vec<PathBuf> {
        self.stdout.lines().map(PathBuf::from).collect()
    }

    /// The printed JSON events, each of which is as docs/json.schema.json says.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let events = self.stdout.lines().map(|line| {
            let event = serde_json::from_str(line).unwrap();
            schema::check_event(&event);
            event
        });
        events.collect()
    }
}

/// A PNG's pixels, size and text chunks.
pub struct Image {
    pub pixels: Vec<[u8; 3]>,
    pub width: usize,
    pub height: usize,
    pub texts: Vec<(String, String)>,
}

impl Image {
    pub fn read(path: &Path) -> Self {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap()))
            .read_info()
            .unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut bytes).unwrap();
        reader.finish().unwrap();
        let info = reader.info();
        let plain = info
            .uncompressed_latin1_text
            .iter()
            .map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
        let wide = info
            .utf8_text
            .iter()
            .map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()));
        Self {
            texts: plain.chain(wide).collect(),
            width: frame.width as usize,
            height: frame.height as usize,
            pixels: bytes.as_chunks::<3>().0.to_vec(),
        }
    }

    /// The pixel in column `x` of row `y`.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        self.pixels[y * self.width + x]
    }
}

/// The offset of the tensor `name` in a safetensors file, and the header.
pub fn tensor_offset(bytes: &[u8], name: &str) -> (usize, Value) {
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let offset = header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    (8 + header_bytes + offset, header)
}

/// Copies the contents of `source` into `target`.
pub fn copy_folder(source: &Path, target: &Path) {
    fs::create_dir_all(target).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let copy = target.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &copy);
        } else {
            fs::copy(entry.path(), copy).unwrap();
        }
    }
}
