//! The errors of this crate.

use std::path::PathBuf;

use crate::naming::Layout;
use crate::{ElementType, FileContent, ModelFamily};

/// The result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error in the files of a model, or in reading them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model is missing.
    #[error("`{}` is missing", file.display())]
    MissingFile {
        /// The missing file.
        file: PathBuf,
    },
    /// The folder of a network has no weights under any supported file name.
    #[error("no weights in `{}` (looked for {}{})", folder.display(), tried.join(", "), instead(others))]
    MissingWeights {
        /// The folder of the network.
        folder: PathBuf,
        /// The supported file names.
        tried: Vec<String>,
        /// Files that look like weights, with an unsupported name or format.
        others: Vec<String>,
    },
    /// The file is a git-lfs pointer, because git-lfs did not download the file.
    #[error(
        "`{}` is not the file itself but a pointer of git-lfs{}",
        file.display(),
        bytes.map(|bytes| format!(": the file has {bytes} bytes and was not fetched")).unwrap_or_default()
    )]
    GitLfsPointer {
        /// The file.
        file: PathBuf,
        /// The size of the real file, from the pointer.
        bytes: Option<u64>,
    },
    /// The file is an HTML or XML page, which a server sends instead of a file that it refuses.
    #[error("`{}` is a web page, not the file that its name says", file.display())]
    WebPage {
        /// The file.
        file: PathBuf,
    },
    /// The weights are quantised by a method that is not supported.
    #[error("the weights that `{}` describes are quantised with {method}, which cannot be read", file.display())]
    Quantized {
        /// The configuration of the network.
        file: PathBuf,
        /// The method and the bits that `quantization_config` names.
        method: String,
    },
    /// A tensor is quantised in a form that is not supported.
    #[error("tensor `{tensor}` in `{}` is quantised with {method}, which cannot be read", file.display())]
    QuantizedTensor {
        /// The file.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
        /// The name of the form or of the method.
        method: String,
    },
    /// The tensors beside a quantised one, such as its scales, do not fit it.
    #[error("tensor `{tensor}` in `{}` cannot be decoded: {reason}", file.display())]
    BadQuantization {
        /// The file.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
        /// The defect.
        reason: String,
    },
    /// A path of the model leads out of its folder.
    #[error("`{}` is no file of the model's own: it leads to `{}`", file.display(), target.display())]
    OutsideFolder {
        /// The path in the model.
        file: PathBuf,
        /// The target of the path.
        target: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is shorter than its header says.
    #[error("`{}` is truncated: its header promises {promised} bytes, the file has {found}", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The length that the header implies.
        promised: u64,
        /// The length of the file.
        found: u64,
    },
    /// The file does not begin with a safetensors header.
    #[error("`{}` is not a safetensors file: {reason}", file.display())]
    BadHeader {
        /// The file.
        file: PathBuf,
        /// The defect.
        reason: String,
    },
    /// A GGUF file cannot be parsed.
    #[error("`{}` is no usable GGUF file: {reason}", file.display())]
    BadGguf {
        /// The file.
        file: PathBuf,
        /// The defect.
        reason: String,
    },
    /// A PyTorch file cannot be parsed.
    #[error("`{}` is no usable PyTorch file: {reason}", file.display())]
    BadTorchFile {
        /// The file.
        file: PathBuf,
        /// The defect.
        reason: String,
    },
    /// The pickle of a PyTorch file refers to something other than tensors, which could run arbitrary code.
    #[error("`{}` holds more than tensors: its pickle refers to `{global}`, which is not followed", file.display())]
    ForbiddenGlobal {
        /// The file.
        file: PathBuf,
        /// The global that the pickle refers to.
        global: String,
    },
    /// A text file of the model (JSON, vocabulary) cannot be parsed.
    #[error("`{}` cannot be understood: {reason}", file.display())]
    BadText {
        /// The file.
        file: PathBuf,
        /// The defect.
        reason: String,
    },
    /// A JSON file of the model lacks a setting, or has one whose value has another type.
    #[error("`{}` cannot be understood: {reason}", file.display())]
    WrongSetting {
        /// The file.
        file: PathBuf,
        /// The setting and what is wrong with it.
        reason: String,
    },
    /// A shard does not hold a tensor that the index assigns to it.
    #[error("`{}` should hold tensor `{tensor}` and does not", file.display())]
    MissingFromShard {
        /// The shard.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
    },
    /// A tensor of the network is missing.
    #[error(
        "`{}` has no tensor `{tensor}`{}",
        file.display(),
        similar.as_ref().map(|similar| format!(" (but `{similar}`)")).unwrap_or_default()
    )]
    MissingTensor {
        /// The file, or the folder of the shards.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
        /// A tensor with a similar name.
        similar: Option<String>,
    },
    /// Several tensors of a network are missing or have a wrong shape or type.
    #[error("{first}; {others} other tensor{} of this network {} not fit either", plural(*others, "s"), if *others == 1 { "does" } else { "do" })]
    Unfit {
        /// The error of the first tensor.
        first: Box<Error>,
        /// The number of further errors.
        others: usize,
    },
    /// The shape of a tensor differs from the configuration of the network.
    #[error("tensor `{tensor}` in `{}` has shape {found:?}, the configuration wants {wanted:?}", file.display())]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
        /// The shape from the configuration.
        wanted: Box<[usize]>,
        /// The shape in the file.
        found: Box<[usize]>,
    },
    /// A tensor does not have the form that its name has in other files.
    #[error("tensor `{tensor}` in `{}` has shape {found:?}, which is not {wanted}", file.display())]
    UnfitForm {
        /// The file.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
        /// The form that the name stands for.
        wanted: Layout,
        /// The shape in the file.
        found: Box<[usize]>,
    },
    /// The file holds no model, but something that belongs to one.
    #[error("`{}` holds {what}, not a model", file.display())]
    NoModel {
        /// The file.
        file: PathBuf,
        /// What it holds.
        what: FileContent,
    },
    /// The file holds a model of a family that is not supported.
    #[error("`{}` holds {family}, which is not supported (tensor `{tensor}`)", file.display())]
    OtherFamily {
        /// The file.
        file: PathBuf,
        /// The name of the family.
        family: &'static str,
        /// The tensor that shows it.
        tensor: String,
    },
    /// A model lacks networks, which are neither in its file nor in files beside it.
    #[error("`{}` holds {family} without {}", file.display(), networks.join(" and "))]
    MissingNetworks {
        /// The file.
        file: PathBuf,
        /// The name of the family.
        family: &'static str,
        /// The names of the networks.
        networks: Vec<&'static str>,
    },
    /// Several files could be a network that a model lacks.
    #[error("`{}` holds no {network}, and several files could be it: {}", file.display(), listed(candidates))]
    SeveralNetworks {
        /// The file.
        file: PathBuf,
        /// The name of the network.
        network: &'static str,
        /// The files.
        candidates: Vec<PathBuf>,
    },
    /// A file that was named for a network holds something else.
    #[error("`{}` holds {found}, not {wanted}", file.display())]
    OtherNetwork {
        /// The file.
        file: PathBuf,
        /// The name of the network that it should hold.
        wanted: &'static str,
        /// What it holds.
        found: FileContent,
    },
    /// A file or folder is where a conversion would write.
    #[error("there is something at `{}`", target.display())]
    TargetExists {
        /// The file or folder.
        target: PathBuf,
    },
    /// A quantised data type that the form of the target does not have.
    #[error("{encoding} is a type of GGUF files")]
    UnfitEncoding {
        /// The name of the type.
        encoding: &'static str,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The caller ended the work.
    #[error("interrupted")]
    Interrupted,
    /// A tensor is stored in an unsupported data type.
    #[error("tensor `{tensor}` in `{}` is stored as {found}, which cannot be computed with", file.display())]
    UnsupportedType {
        /// The file.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
        /// The type in the file.
        found: ElementType,
    },
    /// A requested row is outside of the tensor.
    #[error("row {row} of tensor `{tensor}` in `{}` does not exist: it has {rows} rows", file.display())]
    RowOutOfRange {
        /// The file.
        file: PathBuf,
        /// The full name of the tensor.
        tensor: String,
        /// The requested row.
        row: usize,
        /// The number of rows.
        rows: usize,
    },
    /// The file has no LoRA layers.
    #[error("`{}` is not a LoRA: none of its {tensors} tensors is named like a LoRA's", file.display())]
    NotLora {
        /// The file.
        file: PathBuf,
        /// The number of tensors in the file.
        tensors: usize,
    },
    /// The file adapts weights by a method that is not supported.
    #[error("`{}` cannot be applied: it changes weights by {method} (tensor `{tensor}`); LoRA, LoHa, LoKr and DoRA are supported", file.display())]
    UnsupportedLora {
        /// The file.
        file: PathBuf,
        /// The tensor or the header entry that shows it.
        tensor: String,
        /// The name of the method.
        method: &'static str,
    },
    /// A setting of a LoRA is not supported.
    #[error("`{}` cannot be applied: `{setting}` is {value} in {place}, and only LoRA and DoRA are supported", file.display())]
    UnsupportedLoraSetting {
        /// The file.
        file: PathBuf,
        /// The location of the setting: a file beside the LoRA, or its header.
        place: String,
        /// The name of the setting.
        setting: Box<str>,
        /// The value, as JSON.
        value: Box<str>,
    },
    /// The matrices of a LoRA layer do not match.
    #[error("layer `{layer}` of the LoRA `{}` is damaged: {reason}", file.display())]
    BadLora {
        /// The file.
        file: PathBuf,
        /// The name of the layer in the file.
        layer: String,
        /// The defect.
        reason: String,
    },
    /// A LoRA is for another model.
    #[error(
        "`{}` does not fit the model: {matched} of its {layers} layers do{}",
        file.display(),
        families(*.family, *.model)
    )]
    LoraDoesNotFit {
        /// The file.
        file: PathBuf,
        /// The number of layers that match the model.
        matched: usize,
        /// The number of layers.
        layers: usize,
        /// The model family of the LoRA, where its layers show it.
        family: Option<ModelFamily>,
        /// The family of the model, where its layers show it.
        model: Option<ModelFamily>,
    },
    /// The file has no vectors of textual inversion.
    #[error("`{}` is no embedding: none of its {tensors} tensors is named as those of textual inversion are", file.display())]
    NotEmbedding {
        /// The file.
        file: PathBuf,
        /// The number of tensors in the file.
        tensors: usize,
    },
    /// The vectors of an embedding are wrong.
    #[error("`{}` is no valid embedding: tensor `{tensor}` {reason}", file.display())]
    BadEmbedding {
        /// The file.
        file: PathBuf,
        /// The name of the tensor in the file.
        tensor: String,
        /// The defect.
        reason: String,
    },
    /// An embedding is for another model.
    #[error("the embedding `{}` does not fit the model: it has {found}, the model takes {wanted}", file.display())]
    EmbeddingDoesNotFit {
        /// The file.
        file: PathBuf,
        /// What the file has.
        found: String,
        /// What the model takes.
        wanted: String,
    },
    /// A file was modified while it was in use.
    #[error("`{}` has changed since it was opened", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// The thread that reads blocks ahead could not be started, or ended early.
    #[error("the reading of weights ahead of their turn failed: {reason}")]
    Reader {
        /// The reason.
        reason: String,
    },
    /// The tensor library failed, for example because the device is out of memory.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// The error of the first tensor of [`Error::Unfit`], else the error itself.
    pub fn first(&self) -> &Self {
        match self {
            Self::Unfit { first, .. } => first.first(),
            other => other,
        }
    }
}

/// The part of a message that lists files with unsupported names.
fn instead(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!("; there is {}", others.join(", ")),
    }
}

/// A list of files.
fn listed(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|file| format!("`{}`", file.display())).collect();
    names.join(", ")
}

fn plural(count: usize, ending: &str) -> &str {
    if count == 1 { "" } else { ending }
}

/// The part of a message that names the families of a LoRA and of the model.
fn families(family: Option<ModelFamily>, model: Option<ModelFamily>) -> String {
    match (family, model) {
        (Some(family), Some(model)) => format!("; it was made for {family}, the model is {model}"),
        (Some(family), None) => format!("; it was made for {family}"),
        (None, _) => String::new(),
    }
}
