//! [`Failure`]: an error as people see it, with one line that says what is wrong and where, a hint that says
//! what to do, and an exit code.

mod catalog;
mod hub;

use std::io;
use std::process::ExitCode;

use sd_pipeline::bundle::Kind;
use sd_pipeline::resume::ResumeError;
use sd_pipeline::scheduler::Refusal;
use sd_pipeline::{Culprit, Error, ModelError, WeightsError};

use crate::terminal;

/// Something failed.
const FAILED: u8 = 1;
/// The command line cannot be understood.
const USAGE: u8 = 2;
/// The budget cannot be met.
const BUDGET: u8 = 3;
/// A model, or a part of one, is not there.
const NO_MODEL: u8 = 4;
/// The user stopped the run.
pub(crate) const INTERRUPTED: u8 = 130;

/// The reader of stdout has closed the pipe: the code that shells give a process that SIGPIPE has ended.
const UNREAD: u8 = 141;

/// Writes an error as JSON: its message, its hint and its exit code.
type Tell = dyn Fn(&str, Option<&str>, u8);

/// The exit code of a run that is done and whose results could not be written to stdout because of `error`. A
/// closed pipe is not reported: its reader has what it wanted.
pub(crate) fn unread(error: &io::Error) -> ExitCode {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ExitCode::from(UNREAD);
    }
    Failure {
        message: format!("cannot write to stdout: {error}"),
        hint: Some(
            "make room where it leads to, or send it somewhere else; images that are saved already are kept"
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
    /// The command line cannot be understood.
    pub(crate) fn usage(message: String) -> Self {
        Self {
            message,
            hint: Some("`generate --help` lists what can be asked for".to_owned()),
            code: USAGE,
        }
    }

    /// There is no prompt.
    pub(crate) fn no_prompt() -> Self {
        Self::usage("there is no PROMPT, which says what the image shows".to_owned()).advising(
            "`generate \"a red circle\"` generates one; `generate --help` lists all options".to_owned(),
        )
    }

    /// `flag` has no effect without `others`.
    pub(crate) fn together(flag: &str, others: &str) -> Self {
        Self::usage(format!("{flag} goes together with {others}"))
    }

    /// `word` comes after the prompt.
    pub(crate) fn after_prompt(word: &str) -> Self {
        Self::usage(format!("`{word}` comes after the prompt")).advising(
            "a prompt of several words goes into quotes: `generate \"a red circle\"`; a command comes first"
                .to_owned(),
        )
    }

    /// This error with another hint.
    pub(crate) fn advising(self, hint: String) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }

    /// An error with nothing to advise.
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

    /// The error that ended a run. `kept` is the run's id where one can go on with it.
    pub(crate) fn of_run(error: Error, kept: Option<&str>) -> Self {
        let mut failure = Self::from(error);
        if let Some(run) = kept {
            let resume = format!("`generate resume {run}` goes on where it stopped");
            failure.hint = Some(match failure.hint {
                Some(hint) => format!("{hint}; then {resume}"),
                None => resume,
            });
        }
        failure
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
            hint: hint(&error).map(str::to_owned),
            code: code(&error),
        }
    }
}

/// How something of a `kind` is named.
fn what_names(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => {
            "a model is `demo`, a folder on this machine in the layout of diffusers, or the id of one on the hub"
        }
        Kind::ControlNet => {
            "--controlnet takes a folder on this machine with config.json and weights, or the id of one on the hub"
        }
        Kind::Lora => {
            "a LoRA is a .safetensors file, a folder that holds one (FOLDER:FILE where it holds several), or the id of one on the hub, \
             with :SCALE or without"
        }
        Kind::Upscaler => {
            "--upscaler takes a .pth or .safetensors file, a folder that holds one, or the id of one on the hub"
        }
    }
}

/// The error and its causes. An end of a line that a value holds is escaped where the message is shown.
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

/// `text` without the backtrace that errors of the tensor library carry where `RUST_BACKTRACE` is set: its first line is the
/// frame 0.
fn without_backtrace(mut text: String) -> String {
    if let Some(length) = text.match_indices('\n').map(|(place, _)| place).find(|&place| {
        let line = text[place..].trim_start();
        line.starts_with("0: ")
    }) {
        text.truncate(length);
    }
    text
}

/// The weights' error inside of `error`, if that is what it is.
fn weights_error(error: &Error) -> Option<&WeightsError> {
    match error {
        Error::Weights(error) | Error::Model(ModelError::Weights(error)) => Some(error.first()),
        _ => None,
    }
}

fn code(error: &Error) -> u8 {
    match (error, weights_error(error)) {
        (Error::Interrupted, _) => INTERRUPTED,
        (Error::BudgetTooSmall { .. } | Error::TooLittleLeft { .. }, _) => BUDGET,
        (Error::TooLarge { .. } | Error::Resume(ResumeError::NoSuchRun { .. }), _) => USAGE,
        (Error::NoModel { .. } | Error::NotThere { .. }, _) => NO_MODEL,
        (_, Some(WeightsError::MissingFile { .. } | WeightsError::MissingWeights { .. })) => NO_MODEL,
        _ => FAILED,
    }
}

/// The way out, one line a kind of error.
fn hint(error: &Error) -> Option<&'static str> {
    if let Some(error) = weights_error(error) {
        return Some(match error {
            WeightsError::MissingWeights { others, .. } if !others.is_empty() => {
                "weights are read from .safetensors and from PyTorch's .bin files under the names that diffusers and \
                 transformers give them"
            }
            WeightsError::MissingFile { .. } | WeightsError::MissingWeights { .. } => {
                "the model's folder is not complete, where the file is a model's: download or copy it again"
            }
            WeightsError::OutsideFolder { .. } => {
                "put the file itself into the model's folder, or take the model from where it was published"
            }
            WeightsError::BadLora { .. } | WeightsError::Truncated { .. } => {
                "the file did not arrive whole: download or copy it again"
            }
            WeightsError::BadHeader { .. }
            | WeightsError::BadTorchFile { .. }
            | WeightsError::BadText { .. }
            | WeightsError::MissingFromShard { .. } => {
                "the file is damaged or not what its name says: download or copy it again"
            }
            WeightsError::WrongSetting { .. } => {
                "the file was changed or is of another program: take it from where the model was published"
            }
            WeightsError::MissingTensor { .. }
            | WeightsError::WrongShape { .. }
            | WeightsError::RowOutOfRange { .. } => {
                "config.json and weights are not of one model: take both from the same download"
            }
            WeightsError::UnsupportedType { .. } => "take the model in bf16, f16, f32 or f64",
            WeightsError::GitLfsPointer { .. } => {
                "it was cloned without git-lfs: install that and run `git lfs pull` in the folder, or fetch the model with \
                 `generate models pull`"
            }
            WeightsError::WebPage { .. } => {
                "the server answered the download with a page, for want of a login perhaps: log in (`generate login` for the \
                 hub) and download it again"
            }
            WeightsError::Quantized { .. } => {
                "take the model's files in 16 or 32 bits; blocks that have no room in memory are streamed, so these run in \
                 a small --memory too"
            }
            WeightsError::ForbiddenGlobal { .. } => {
                "take it as a .safetensors file, which can hold nothing else"
            }
            WeightsError::LoraDoesNotFit { .. } => {
                "take a LoRA of the model's family, or the model that it was made for"
            }
            WeightsError::NotLora { .. }
            | WeightsError::UnsupportedLora { .. }
            | WeightsError::UnsupportedLoraSetting { .. } => {
                "take a file that kohya's trainer, diffusers or PEFT wrote for LoRA or LoCon"
            }
            WeightsError::Changed { .. } => {
                "the model was written to while it was in use: put the file back as it was"
            }
            WeightsError::Read { .. } => "make sure that the file can be read and that its disk is well",
            _ => "see the error above; smaller images (--size) need less memory",
        });
    }
    Some(match error {
        Error::NoModel { .. } => what_names(Kind::Model),
        Error::NotThere { kind, .. } => what_names(*kind),
        Error::UnknownArchitecture { .. } => {
            "Stable Diffusion 1, 2, XL, 3 and 3.5 are supported, in folders with unet/ or transformer/, vae/, \
             scheduler/, text encoders and tokenizers"
        }
        Error::OtherClass { .. } => {
            "that part is of another kind: take one of the class named above, or another model"
        }
        Error::Model(ModelError::Config { .. }) => "the model's config.json asks for what is not known here",
        Error::Model(ModelError::Upscaler { .. }) => what_names(Kind::Upscaler),
        Error::Tokenizer { .. } => "the tokenizer's files are damaged: download or copy them again",
        Error::TokenizerSetting { .. } => {
            "the setting is in tokenizer_config.json or special_tokens_map.json: give it the value that is known, or take the \
             files from where the model was published"
        }
        Error::TokenizerDoesNotFit { .. } => {
            "tokenizer and text encoder are not of one model: take both from the same download"
        }
        Error::PartsDoNotFit { .. } => {
            "the parts of the folder are not of one model: take all from the same download"
        }
        Error::ForeignControl { .. } => "name another, made for the model's family, with --controlnet",
        Error::Scheduler {
            reason: Refusal::NothingLeft { .. },
            ..
        } => "ask for a greater --strength, or for more --steps",
        Error::Scheduler {
            reason: Refusal::Steps { .. },
            ..
        } => "ask for other --steps, or for another --sampler",
        Error::Scheduler {
            reason: Refusal::UnknownSetting { .. },
            ..
        } => {
            "if the setting is known to change nothing, take it out of the model's scheduler/scheduler_config.json"
        }
        Error::Scheduler { .. } => {
            "`--sampler help` lists what there is; one of them may go together with this model"
        }
        Error::BudgetTooSmall {
            stage: "source images",
            ..
        } => {
            "give it more with --memory, 8GB say, or make the images that it reads smaller: of a JPEG or WebP file the whole \
             must be there at once, of a PNG file rows are"
        }
        Error::BudgetTooSmall { .. } => {
            "give it more with --memory, 8GB say, or ask for a smaller --size; `generate plan` shows what needs what"
        }
        Error::TooLittleLeft { .. } => {
            "have other programs leave more, raise that limit, or ask for a smaller --size; --memory may take more than is left"
        }
        Error::TooLarge { .. } => "ask for a smaller --size",
        Error::BadImage { .. } => "images are PNG, JPEG or WebP files on this machine",
        Error::MaskSize { .. } => "make the mask as large as the image of --init-image",
        Error::NeedsMask { .. } => "give it both with --init-image and --mask, or name another model",
        Error::OtherLatents { .. } => "leave --refiner-switch out: it then goes over the finished image",
        Error::NothingBeforeSwitch { .. } => "ask for a greater --refiner-switch, or for more --steps",
        Error::NotFinite {
            culprit: Some(Culprit::Tensor { .. }),
            ..
        } => "the weights are damaged: download or copy them again",
        Error::NotFinite {
            culprit: Some(Culprit::Loras(_)),
            ..
        } => "add the LoRA with a smaller scale (--lora REF:SCALE), or leave it out",
        Error::NotFinite { culprit: None, .. } => "try --dtype f32, or a lower --cfg",
        Error::Device { device, .. } if device == "cpu" => {
            "name fewer with --threads, end other programs, or raise the limit of threads (ulimit -u)"
        }
        Error::Device { .. } => "--device cpu works everywhere; a GPU needs a build with its feature",
        Error::Output { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "make room on the disk, or name another folder with --output"
            }
            _ => "name a folder that can be written with --output",
        },
        Error::Resume(error) => resume_hint(error),
        Error::Profile { .. } => {
            "name a file that can be written, or an earlier profile, with --profile; its folder must be there"
        }
        Error::Interrupted => return None,
        _ => "smaller images (--size) need less memory",
    })
}

/// The way out of an error of `generate resume`.
fn resume_hint(error: &ResumeError) -> &'static str {
    match error {
        ResumeError::NoSuchRun { .. } => "`generate resume` lists the interrupted runs",
        ResumeError::AtWork { .. } => "wait for it, or stop that process first",
        ResumeError::Damaged { .. } => {
            "`generate resume ID --discard` forgets the run; start it again from the beginning"
        }
        ResumeError::State { .. } => "make sure that the folder of states can be read and written",
        ResumeError::OtherVersion { .. } | ResumeError::OtherFormat { .. } => {
            "go on with the version that began it, or forget it with `generate resume ID --discard`"
        }
        ResumeError::OtherDevice { .. } => {
            "go on where it was begun, or forget it with `generate resume ID --discard`"
        }
        ResumeError::ModelChanged { .. } => {
            "put the file back as it was, or forget the run with `generate resume ID --discard`"
        }
        _ => "`generate resume` lists the interrupted runs",
    }
}
