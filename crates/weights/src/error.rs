//! The ways in which a file of weights can be wrong, each with the facts that name it.

use std::path::PathBuf;

use crate::{ElementType, ModelFamily};

/// The result of every call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with a model's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that the model needs is not there.
    #[error("`{}` is missing", file.display())]
    MissingFile {
        /// The file that was looked for.
        file: PathBuf,
    },
    /// None of the names under which a network's weights are saved is there.
    #[error("no weights in `{}` (looked for {}{})", folder.display(), tried.join(", "), instead(others))]
    MissingWeights {
        /// The network's folder.
        folder: PathBuf,
        /// The file names that were looked for.
        tried: Vec<String>,
        /// Files that look like weights under a name, or of a format, that none is read from.
        others: Vec<String>,
    },
    /// What git leaves in a file's place where git-lfs did not fetch it.
    #[error(
        "`{}` is not the file itself but a pointer of git-lfs{}",
        file.display(),
        bytes.map(|bytes| format!(": the file has {bytes} bytes and was not fetched")).unwrap_or_default()
    )]
    GitLfsPointer {
        /// The file.
        file: PathBuf,
        /// Bytes of the file that it stands for, as the pointer says.
        bytes: Option<u64>,
    },
    /// A page for browsers lies where a file should be: what a server answers where it does not give the file.
    #[error("`{}` is a web page, not the file that its name says", file.display())]
    WebPage {
        /// The file.
        file: PathBuf,
    },
    /// A network was saved in a quantised form that is not read.
    #[error("the weights that `{}` describes are quantised with {method}, which cannot be read", file.display())]
    Quantized {
        /// The network's configuration.
        file: PathBuf,
        /// The method as its `quantization_config` names it, with its bits where it tells them.
        method: String,
    },
    /// What a model calls a file of its own is a file somewhere else.
    #[error("`{}` is no file of the model's own: it leads to `{}`", file.display(), target.display())]
    OutsideFolder {
        /// The file, as the model names it.
        file: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The system refused to read a file, or it is not what can be read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file ends before its header says it does.
    #[error("`{}` is truncated: its header promises {promised} bytes, the file has {found}", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// Bytes that the header accounts for.
        promised: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// The file does not begin with a safetensors header.
    #[error("`{}` is not a safetensors file: {reason}", file.display())]
    BadHeader {
        /// The file.
        file: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// A file that PyTorch wrote cannot be understood.
    #[error("`{}` is no usable PyTorch file: {reason}", file.display())]
    BadTorchFile {
        /// The file.
        file: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// A file that PyTorch wrote would have Python make more than tensors, which may be anything.
    #[error("`{}` holds more than tensors: its pickle refers to `{global}`, which is not followed", file.display())]
    ForbiddenGlobal {
        /// The file.
        file: PathBuf,
        /// The name that it refers to.
        global: String,
    },
    /// A text file of the model (JSON, vocabulary) cannot be understood.
    #[error("`{}` cannot be understood: {reason}", file.display())]
    BadText {
        /// The file.
        file: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// The shard index names a file that does not hold the tensor.
    #[error("`{}` should hold tensor `{tensor}` and does not", file.display())]
    MissingFromShard {
        /// The shard.
        file: PathBuf,
        /// The tensor's full name.
        tensor: String,
    },
    /// The network asks for a tensor that no file holds.
    #[error(
        "`{}` has no tensor `{tensor}`{}",
        file.display(),
        similar.as_ref().map(|similar| format!(" (but `{similar}`)")).unwrap_or_default()
    )]
    MissingTensor {
        /// The file, or the folder when there are several.
        file: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// A tensor that is there under a similar name.
        similar: Option<String>,
    },
    /// Several tensors of a network are missing, have another shape, or a type that cannot be computed with.
    #[error("{first}; {others} other tensor{} of this network {} not fit either", plural(*others, "s"), if *others == 1 { "does" } else { "do" })]
    Unfit {
        /// What is wrong with the first.
        first: Box<Error>,
        /// How many others there are.
        others: usize,
    },
    /// A tensor has another shape than the network's configuration says.
    #[error("tensor `{tensor}` in `{}` has shape {found:?}, the configuration wants {wanted:?}", file.display())]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// The shape that the configuration asks for.
        wanted: Box<[usize]>,
        /// The shape in the file.
        found: Box<[usize]>,
    },
    /// A tensor is stored in a type that cannot be computed with.
    #[error("tensor `{tensor}` in `{}` is stored as {found}, which cannot be computed with", file.display())]
    UnsupportedType {
        /// The file.
        file: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// The type in the file.
        found: ElementType,
    },
    /// A row was asked for that the tensor does not have.
    #[error("row {row} of tensor `{tensor}` in `{}` does not exist: it has {rows} rows", file.display())]
    RowOutOfRange {
        /// The file.
        file: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// The row that was asked for.
        row: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// A file that was to be a LoRA has no layer of one.
    #[error("`{}` is not a LoRA: none of its {tensors} tensors is named like a LoRA's", file.display())]
    NotLora {
        /// The file.
        file: PathBuf,
        /// How many tensors it has.
        tensors: usize,
    },
    /// A file changes weights by another method than LoRA.
    #[error("`{}` cannot be applied: it changes weights by {method} (tensor `{tensor}`), only LoRA is supported", file.display())]
    UnsupportedLora {
        /// The file.
        file: PathBuf,
        /// The tensor, or the entry of the header, that shows it.
        tensor: String,
        /// The method's name.
        method: &'static str,
    },
    /// The settings of a LoRA ask for something else than its tensors show.
    #[error("`{}` cannot be applied: `{setting}` is {value} in {place}, and only plain LoRA is supported", file.display())]
    UnsupportedLoraSetting {
        /// The file.
        file: PathBuf,
        /// Where the setting stands: a file beside it, or its header.
        place: String,
        /// The setting's name.
        setting: Box<str>,
        /// Its value, as JSON.
        value: Box<str>,
    },
    /// The matrices of a LoRA's layer do not go together.
    #[error("layer `{layer}` of the LoRA `{}` is damaged: {reason}", file.display())]
    BadLora {
        /// The file.
        file: PathBuf,
        /// The layer's name in the file.
        layer: String,
        /// What is wrong.
        reason: String,
    },
    /// A LoRA was made for another model.
    #[error(
        "`{}` does not fit the model: {matched} of its {layers} layers do{}",
        file.display(),
        families(*.family, *.model)
    )]
    LoraDoesNotFit {
        /// The file.
        file: PathBuf,
        /// How many of its layers fit the model.
        matched: usize,
        /// How many layers it has.
        layers: usize,
        /// The family that it was made for, as far as its layers tell.
        family: Option<ModelFamily>,
        /// The family of the model, as far as its layers tell.
        model: Option<ModelFamily>,
    },
    /// A file was written to while it was in use.
    #[error("`{}` has changed since it was opened", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// The thread that reads blocks ahead could not be started, or ended before its time.
    #[error("the reading of weights ahead of their turn failed: {reason}")]
    Reader {
        /// What happened.
        reason: String,
    },
    /// The tensor library failed, for instance because the device has no memory left.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// What is wrong with the first tensor, where several are; else the error itself.
    pub fn first(&self) -> &Self {
        match self {
            Self::Unfit { first, .. } => first.first(),
            other => other,
        }
    }
}

/// What lies in a folder instead of what was looked for.
fn instead(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!("; there is {}", others.join(", ")),
    }
}

fn plural(count: usize, ending: &str) -> &str {
    if count == 1 { "" } else { ending }
}

/// What is known of the families of a LoRA and of a model that it does not fit.
fn families(family: Option<ModelFamily>, model: Option<ModelFamily>) -> String {
    match (family, model) {
        (Some(family), Some(model)) => format!("; it was made for {family}, the model is {model}"),
        (Some(family), None) => format!("; it was made for {family}"),
        (None, _) => String::new(),
    }
}
