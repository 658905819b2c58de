//! [`Failure`]: an error for the user, with a one-line message, a hint that says what to do, and an exit code.

mod catalog;
mod hub;
mod server;

use std::io;
use std::path::{MAIN_SEPARATOR, Path};
use std::process::ExitCode;

use sd_pipeline::bundle::Kind;
use sd_pipeline::resume::ResumeError;
use sd_pipeline::scheduler::Refusal;
use sd_pipeline::{Culprit, Error, FileContent, MetalUnavailable, ModelError, WeightsError};

use crate::terminal;

/// Exit code: the run failed.
const FAILED: u8 = 1;
/// Exit code: the command line is invalid.
const USAGE: u8 = 2;
/// Exit code: the memory budget cannot be met.
const BUDGET: u8 = 3;
/// Exit code: a model, or a part of one, is missing.
const NO_MODEL: u8 = 4;
/// Exit code: the user interrupted the run.
pub(crate) const INTERRUPTED: u8 = 130;

/// Exit code: the reader of stdout closed the pipe. Shells report SIGPIPE with this code.
const UNREAD: u8 = 141;

/// Writes an error as JSON: its message, its hint and its exit code.
type Tell = dyn Fn(&str, Option<&str>, u8);

/// The exit code of a finished run whose results could not be written to stdout because of `error`. A closed pipe is not
/// reported: its reader has what it wanted.
pub(crate) fn unread(error: &io::Error) -> ExitCode {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ExitCode::from(UNREAD);
    }
    Failure {
        message: format!("cannot write to stdout: {error}"),
        hint: Some(
            "free space where stdout leads to, or redirect it; images that are saved already are kept"
                .to_owned(),
        ),
        code: FAILED,
    }
    .report(None)
}

/// An error, ready to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A usage error.
    pub(crate) fn usage(message: String) -> Self {
        Self {
            message,
            hint: Some("`generate --help` lists the options".to_owned()),
            code: USAGE,
        }
    }

    /// The error of a command line without a prompt.
    pub(crate) fn no_prompt() -> Self {
        Self::usage("there is no PROMPT, which says what the image shows".to_owned()).advising(
            "`generate \"a red circle\"` generates one; `generate --help` lists all options".to_owned(),
        )
    }

    /// The error of a prompt without a word.
    pub(crate) fn empty_prompt() -> Self {
        Self::usage("the prompt is empty".to_owned())
            .advising("say what the image shows: `generate \"a red circle\"`".to_owned())
    }

    /// The error of a `flag` that has no effect without `others`.
    pub(crate) fn together(flag: &str, others: &str) -> Self {
        Self::usage(format!("{flag} needs {others}"))
    }

    /// The error of a `word` after the prompt.
    pub(crate) fn after_prompt(word: &str) -> Self {
        Self::usage(format!("`{word}` comes after the prompt")).advising(
            "quote a prompt of several words: `generate \"a red circle\"`; a command comes first".to_owned(),
        )
    }

    /// Replaces the hint.
    pub(crate) fn advising(self, hint: String) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }

    /// An error without a hint.
    pub(crate) fn other(message: String) -> Self {
        Self {
            message,
            hint: None,
            code: FAILED,
        }
    }

    /// `generate resume --discard` without a run.
    pub(crate) fn nothing_to_discard() -> Self {
        Self {
            message: "--discard needs the ID of a run, or --last".to_owned(),
            hint: Some("`generate resume` lists the interrupted runs".to_owned()),
            code: USAGE,
        }
    }

    /// The error that ended the run of `device`, one of several, as its process has told it.
    pub(crate) fn of_device(device: &str, message: &str, hint: Option<&str>, code: Option<u8>) -> Self {
        let code = code.unwrap_or(FAILED);
        Self {
            message: match code {
                INTERRUPTED => message.to_owned(),
                _ if message.starts_with(device) => message.to_owned(),
                _ => format!("{device}: {message}"),
            },
            hint: hint.map(str::to_owned),
            code,
        }
    }

    /// Names the runs of several devices that can be resumed. Of one run the hint tells already.
    pub(crate) fn resuming(self, runs: &[String]) -> Self {
        if runs.len() < 2 {
            return self;
        }
        let commands: Vec<String> = runs
            .iter()
            .map(|run| format!("`generate resume {run}`"))
            .collect();
        self.advising(format!(
            "each device has a run of its own: resume them by {}",
            commands.join(" and ")
        ))
    }

    /// The error that ended a run. `kept` is the id of the run if it can be resumed.
    pub(crate) fn of_run(error: Error, kept: Option<&str>) -> Self {
        let mut failure = Self::from(error);
        if let Some(run) = kept {
            let resume = format!("`generate resume {run}` resumes it");
            failure.hint = Some(match failure.hint {
                Some(hint) => format!("{hint}; then {resume}"),
                None => resume,
            });
        }
        failure
    }

    /// Names files of the hub, whose headers were stored for a plan in numbered folders of `folder`, as they are called
    /// there.
    pub(crate) fn naming_hub_files(mut self, folder: Option<&Path>) -> Self {
        let Some(folder) = folder else {
            return self;
        };
        let stored = format!("{}{MAIN_SEPARATOR}", folder.display());
        let mut rest = self.message.as_str();
        let mut named = String::new();
        while let Some((before, after)) = rest.split_once(&stored) {
            named.push_str(before);
            // The number of the folder.
            let digits = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
            rest = digits.strip_prefix(MAIN_SEPARATOR).unwrap_or(digits);
        }
        named.push_str(rest);
        self.message = named;
        self
    }

    /// The message in one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The error of `wrong` of `all` files that are damaged, missing or cannot be read. `id` is the repository of
    /// the first, if that is in the cache.
    pub(crate) fn of_files(wrong: &[String], all: usize, id: Option<&str>) -> Self {
        let pull = id
            .map(|id| format!("remove what is damaged; `generate models pull {id}` then downloads it again"));
        const MOST_LISTED: usize = 10;
        let listed: Vec<&str> = wrong.iter().take(MOST_LISTED).map(String::as_str).collect();
        let more = match wrong.len() - listed.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let again = "the file has changed since its hash was written: get it again from where it came from";
        Self {
            message: format!(
                "{} of {all} files failed the check: {}{more}",
                wrong.len(),
                listed.join(", ")
            ),
            hint: Some(pull.unwrap_or_else(|| again.to_owned())),
            code: FAILED,
        }
    }

    /// Writes the error to stderr, and through `tell` for a program.
    pub(crate) fn report(self, tell: Option<&Tell>) -> ExitCode {
        terminal::note(&format!("error: {}", self.message));
        if let Some(hint) = &self.hint {
            terminal::note(&format!("hint: {hint}"));
        }
        if let Some(tell) = tell {
            tell(&self.message, self.hint.as_deref(), self.code);
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            message: chain(&error),
            hint: budget_hint(&error).or_else(|| hint(&error).map(str::to_owned)),
            code: code(&error),
        }
    }
}

/// How a user names something of a `kind`.
fn what_names(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => {
            "a model is `demo`, a local file or folder in the diffusers layout, a name below models_path, or a hub id"
        }
        Kind::ControlNet => {
            "--controlnet takes a local folder with config.json and weights, a file, a name below models_path, or a hub id"
        }
        Kind::Lora => {
            "a LoRA is a .safetensors file, a folder that holds one (FOLDER:FILE where it holds several), a name below \
             models_path, or a hub id, with or without :SCALE"
        }
        Kind::Upscaler => {
            "--upscaler takes a .pth or .safetensors file, a folder that holds one, a name below models_path, or a hub id"
        }
    }
}

/// The error and its causes in one line. Line breaks inside values are escaped where the message is printed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = without_backtrace(error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = without_backtrace(error.to_string());
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// Removes the backtrace that candle's errors carry where `RUST_BACKTRACE` is set. It starts at frame 0.
fn without_backtrace(mut text: String) -> String {
    if let Some(length) = text.match_indices('\n').map(|(index, _)| index).find(|&index| {
        let line = text[index..].trim_start();
        line.starts_with("0: ")
    }) {
        text.truncate(length);
    }
    text
}

/// The error of sd-weights inside `error`, if there is one.
fn weights_error(error: &Error) -> Option<&WeightsError> {
    match error {
        Error::Weights(error) | Error::Model(ModelError::Weights(error)) => Some(error.first()),
        _ => None,
    }
}

fn code(error: &Error) -> u8 {
    match (error, weights_error(error)) {
        (Error::Interrupted, _) | (_, Some(WeightsError::Interrupted)) => INTERRUPTED,
        (Error::BudgetTooSmall { .. } | Error::TooLittleLeft { .. }, _) => BUDGET,
        (Error::TooLarge { .. } | Error::Schedule(_) | Error::Resume(ResumeError::NoSuchRun { .. }), _) => {
            USAGE
        }
        (Error::NoModel { .. } | Error::NotThere { .. } | Error::NoEmbedding { .. }, _) => NO_MODEL,
        (
            _,
            Some(
                WeightsError::MissingFile { .. }
                | WeightsError::MissingWeights { .. }
                | WeightsError::MissingNetworks { .. },
            ),
        ) => NO_MODEL,
        _ => FAILED,
    }
}

/// What the user can do about a budget that is too small: the smallest one that is enough.
fn budget_hint(error: &Error) -> Option<String> {
    Some(match error {
        Error::BudgetTooSmall {
            smallest,
            stage: "source images",
            ..
        } => format!(
            "use --memory {} or more, or smaller input images: a JPEG or WebP file is decoded as a whole, a PNG file row by row",
            smallest.as_budget()
        ),
        Error::BudgetTooSmall { smallest, .. } => format!(
            "use --memory {} or more, or a smaller --size; `generate plan` shows what each stage needs",
            smallest.as_budget()
        ),
        Error::TooLittleLeft { smallest, .. } => format!(
            "close other programs, raise that limit, or use a smaller --size; --memory {} is enough, and may exceed what is left",
            smallest.as_budget()
        ),
        _ => return None,
    })
}

/// What the user can do about `error`.
fn hint(error: &Error) -> Option<&'static str> {
    if let Some(error) = weights_error(error) {
        if matches!(error, WeightsError::Interrupted) {
            return None;
        }
        return Some(match error {
            WeightsError::MissingWeights { others, .. } if !others.is_empty() => {
                "weights must be .safetensors or PyTorch .bin files with the names that diffusers and transformers use"
            }
            WeightsError::MissingFile { .. } | WeightsError::MissingWeights { .. } => {
                "the model's folder is incomplete: download or copy it again"
            }
            WeightsError::OutsideFolder { .. } => {
                "put the file itself into the model's folder, or download the model from its publisher"
            }
            WeightsError::BadLora { .. } | WeightsError::Truncated { .. } => {
                "the file is incomplete: download or copy it again"
            }
            WeightsError::BadHeader { .. }
            | WeightsError::BadTorchFile { .. }
            | WeightsError::BadGguf { .. }
            | WeightsError::BadQuantization { .. }
            | WeightsError::BadText { .. }
            | WeightsError::MissingFromShard { .. } => {
                "the file is damaged or of another format: download or copy it again"
            }
            WeightsError::WrongSetting { .. } => {
                "the file was edited, or another program wrote it: download it from the model's publisher"
            }
            WeightsError::MissingTensor { .. }
            | WeightsError::WrongShape { .. }
            | WeightsError::RowOutOfRange { .. } => {
                "config.json and the weights belong to different models: take both from the same download"
            }
            WeightsError::UnsupportedType { .. } => {
                "use a version of the model in bf16, f16, f32 or a quantised form that docs/model-files.md lists"
            }
            WeightsError::GitLfsPointer { .. } => {
                "it was cloned without git-lfs: install git-lfs and run `git lfs pull` in the folder, or download the model \
                 with `generate models pull`"
            }
            WeightsError::WebPage { .. } => {
                "the server answered with a web page, perhaps because a login is needed: log in (`generate login` for the \
                 hub) and download it again"
            }
            WeightsError::Quantized { .. } | WeightsError::QuantizedTensor { .. } => {
                "use the model's files in 16 bits or as GGUF; blocks that do not fit into memory are streamed, so these run \
                 with a small --memory too"
            }
            WeightsError::ForbiddenGlobal { .. } => "use a .safetensors file, which cannot hold code",
            WeightsError::OtherFamily { .. } => {
                "Stable Diffusion 1, 2, XL with its refiner, 3 and 3.5 are supported"
            }
            WeightsError::NoModel {
                what: FileContent::Lora,
                ..
            } => "name it with --lora, beside a model with --model",
            WeightsError::NoModel {
                what: FileContent::ControlNet,
                ..
            } => "name it with --controlnet, beside a model with --model",
            WeightsError::NoModel {
                what: FileContent::Upscaler,
                ..
            } => "name it with --upscaler, beside --upscale",
            WeightsError::NoModel {
                what: FileContent::Network(_),
                ..
            } => "name it with --vae, --clip-l, --clip-g or --t5xxl, beside a model with --model",
            WeightsError::NoModel { .. } => "--model takes a checkpoint, or a folder with a model_index.json",
            WeightsError::MissingNetworks { .. } => {
                "put their files beside the model or below models_path, or name them with --vae, --clip-l, --clip-g or --t5xxl"
            }
            WeightsError::SeveralNetworks { .. } => "name one of them with --vae",
            WeightsError::OtherNetwork { .. } => "name a file that holds this network, or a folder of it",
            WeightsError::TargetExists { .. } => "write to another place, or replace it with --force",
            WeightsError::UnfitEncoding { .. } => "write a .gguf file, or choose bf16, f16 or f32",
            WeightsError::Write { .. } => "check the permissions and the free space of the disk",
            WeightsError::UnfitForm { .. } => "the file is damaged or of another model: download it again",
            WeightsError::LoraDoesNotFit { .. } => {
                "use a LoRA of the model's family, or the model that it was trained for"
            }
            WeightsError::NotLora { .. }
            | WeightsError::UnsupportedLora { .. }
            | WeightsError::UnsupportedLoraSetting { .. } => {
                "use a LoRA or LoCon file in the naming of kohya, diffusers or PEFT"
            }
            WeightsError::EmbeddingDoesNotFit { .. } => {
                "use an embedding of the model's family, or the model that it was trained for"
            }
            WeightsError::NotEmbedding { .. } | WeightsError::BadEmbedding { .. } => {
                "--embedding takes the vectors of one word, as stable-diffusion-webui, kohya or diffusers write them"
            }
            WeightsError::Changed { .. } => "the file was changed while it was in use: restore it",
            WeightsError::Read { .. } => "check the file's permissions and its disk",
            _ => "see the error above; smaller images (--size) need less memory",
        });
    }
    Some(match error {
        Error::NoModel { .. } => what_names(Kind::Model),
        Error::NoEmbedding { .. } => "--embedding takes a file: .safetensors, .pt or .bin",
        Error::NotThere { kind, .. } => what_names(*kind),
        Error::UnknownArchitecture { .. } => {
            "Stable Diffusion 1, 2, XL, 3 and 3.5 are supported, as single files or as folders with unet/ or transformer/, \
             vae/, scheduler/, text encoders and tokenizers"
        }
        Error::OtherClass { .. } => "use a component of the class named above, or another model",
        Error::Model(ModelError::Config { .. }) => {
            "the model's config.json has a setting that is not supported"
        }
        Error::Model(ModelError::Upscaler { .. }) => what_names(Kind::Upscaler),
        Error::Tokenizer { .. } => "the tokenizer files are damaged: download or copy them again",
        Error::TokenizerSetting { .. } => {
            "the setting is in tokenizer_config.json or special_tokens_map.json: set the supported value, or download the files \
             from the model's publisher"
        }
        Error::TokenizerDoesNotFit { .. } => {
            "tokenizer and text encoder belong to different models: take both from the same download"
        }
        Error::PartsDoNotFit { .. } => {
            "the folder's components belong to different models: take all from the same download"
        }
        Error::ForeignControl { .. } => "name a ControlNet of the model's family with --controlnet",
        Error::Schedule(_) => {
            "omit --scheduler, which then is automatic; with this model the samplers Flow Euler and Flow Heun follow karras, \
             exponential and beta, and UniPC follows karras"
        }
        Error::Scheduler {
            reason: Refusal::NothingLeft { .. },
            ..
        } => "use a greater --strength, or more --steps",
        Error::Scheduler {
            reason: Refusal::Steps { .. },
            ..
        } => "use other --steps, or another --sampler",
        Error::Scheduler {
            reason: Refusal::UnknownSetting { .. },
            ..
        } => "if the setting has no effect, remove it from the model's scheduler/scheduler_config.json",
        Error::Scheduler { .. } => "`--sampler help` lists the samplers; another may support this model",
        Error::TooLarge { .. } => "use a smaller --size",
        Error::BadImage { .. } => "images must be local PNG, JPEG or WebP files",
        Error::MaskSize { .. } => "use a mask of the size of the --init-image",
        Error::NeedsMask { .. } => "add --init-image and --mask, or use another model",
        Error::OtherLatents { .. } => {
            "omit --refiner-switch: the refiner then starts from the finished image"
        }
        Error::NothingBeforeSwitch { .. } => "use a greater --refiner-switch, or more --steps",
        Error::NotFinite {
            culprit: Some(Culprit::Tensor { .. }),
            ..
        } => "the weights are damaged: download or copy them again",
        Error::NotFinite {
            culprit: Some(Culprit::Loras(_)),
            ..
        } => "use a smaller scale for the LoRA (--lora REF:SCALE), or omit it",
        Error::NotFinite { culprit: None, .. } => "try --dtype f32, or a lower --cfg",
        Error::Device { device, .. } if device == "cpu" => {
            "use fewer --threads, close other programs, or raise the limit of threads (ulimit -u)"
        }
        Error::Metal(reason) => metal_hint(reason),
        Error::Device { .. } => "--device cpu works everywhere; a GPU needs a build with its Cargo feature",
        Error::Output { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "free disk space, or choose another folder with --output"
            }
            _ => "choose a writable folder with --output",
        },
        Error::Resume(error) => resume_hint(error),
        Error::Profile { .. } => {
            "--profile needs a writable path, or an earlier profile, in a folder that exists"
        }
        Error::Interrupted => return None,
        _ => "smaller images (--size) need less memory",
    })
}

/// What the user can do where Metal cannot be used.
fn metal_hint(reason: &MetalUnavailable) -> &'static str {
    match reason {
        MetalUnavailable::OldSystem { .. } => "update macOS, or use --device cpu, which works everywhere",
        MetalUnavailable::IntelBuild | MetalUnavailable::NoGpu => "--device cpu works everywhere",
        MetalUnavailable::NotBuilt => {
            "builds for macOS have it; --device cpu works everywhere, and `generate doctor` says what this machine has"
        }
        _ => "`generate doctor` says what this machine can do; --device cpu works everywhere",
    }
}

/// What the user can do about an error of `generate resume`.
fn resume_hint(error: &ResumeError) -> &'static str {
    match error {
        ResumeError::NoSuchRun { .. } => "`generate resume` lists the interrupted runs",
        ResumeError::AtWork { .. } => "wait for that process, or stop it",
        ResumeError::Damaged { .. } => {
            "`generate resume ID --discard` discards the run; start it again from the beginning"
        }
        ResumeError::State { .. } => "check the permissions of the folder of run states",
        ResumeError::OtherVersion { .. } | ResumeError::OtherFormat { .. } => {
            "resume it with the version that began it, or discard it with `generate resume ID --discard`"
        }
        ResumeError::OtherDevice { .. } => {
            "resume it on the device that it was begun on, or discard it with `generate resume ID --discard`"
        }
        ResumeError::ModelChanged { .. } => {
            "restore the file, or discard the run with `generate resume ID --discard`"
        }
        _ => "`generate resume` lists the interrupted runs",
    }
}
