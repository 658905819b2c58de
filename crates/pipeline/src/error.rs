//! Why a run failed.

use std::path::PathBuf;

use sd_memory::{Bytes, Limit};

use crate::culprit::Culprit;

/// The result of every call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run failed before its images were saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's folder does not exist.
    #[error("there is no model at `{}`", folder.display())]
    NoModel {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A file or folder that the request names does not exist.
    #[error("there is no {} at `{}`", kind.title(), path.display())]
    NotThere {
        /// The kind of thing that it should be.
        kind: crate::bundle::Kind,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is no file of textual inversion at the path that the user named.
    #[error("there is no embedding at `{}`", path.display())]
    NoEmbedding {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The folder holds a model of an unknown family.
    #[error("`{}` is not a model of Stable Diffusion: {reason}", folder.display())]
    UnknownArchitecture {
        /// The model's folder.
        folder: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A component is of a class that is not supported.
    #[error(
        "`{component}` is of the class {class}, as `{}` says, and only {} {} known",
        file.display(),
        known.join(" and "),
        if known.len() == 1 { "is" } else { "are" }
    )]
    OtherClass {
        /// The file that declares the class.
        file: PathBuf,
        /// The component.
        component: String,
        /// Its class.
        class: String,
        /// The supported classes of this component.
        known: &'static [&'static str],
    },
    /// The model's files are wrong.
    #[error(transparent)]
    Weights(#[from] sd_weights::Error),
    /// A network's configuration is not supported, or the network failed.
    #[error(transparent)]
    Model(#[from] sd_models::Error),
    /// The tokenizer's files are wrong.
    #[error("the tokenizer in `{}` cannot be used: {reason}", folder.display())]
    Tokenizer {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A setting of the tokenizer has a value that is not supported.
    #[error("the tokenizer in `{}` cannot be used: it sets `{name}` to `{value}`, only `{known}` is known", folder.display())]
    TokenizerSetting {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// The only supported value.
        known: String,
    },
    /// A tokenizer produces more ids, or more tokens, than its text encoder supports.
    #[error(
        "the tokenizer in `{}` does not fit its text encoder: it {gives} and the encoder takes {takes}",
        folder.display()
    )]
    TokenizerDoesNotFit {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// What the tokenizer produces.
        gives: String,
        /// What the text encoder supports.
        takes: String,
    },
    /// Two components of a model do not fit together.
    #[error("the parts of `{}` do not fit together: {reason}", folder.display())]
    PartsDoNotFit {
        /// The model's folder.
        folder: PathBuf,
        /// Which components, and why.
        reason: String,
    },
    /// A model cannot continue from the latents of another.
    #[error(
        "`{}` cannot take over during the denoising: its latents are not those of `{}`",
        folder.display(),
        other.display()
    )]
    OtherLatents {
        /// The folder of the model that should continue.
        folder: PathBuf,
        /// The folder of the model whose latents they are.
        other: PathBuf,
    },
    /// The refiner takes over before the base model has taken a step.
    #[error("the base model takes none of its {steps} steps before the refiner takes over at {switch}")]
    NothingBeforeSwitch {
        /// The fraction of the denoising at which the refiner takes over.
        switch: f64,
        /// The steps that the base model would take without a refiner.
        steps: usize,
    },
    /// The ControlNet is for another network, or is not one.
    #[error("`{}` is no ControlNet for this model: {reason}", folder.display())]
    ForeignControl {
        /// The ControlNet's folder.
        folder: PathBuf,
        /// The models that it is for, or what is missing.
        reason: String,
    },
    /// The scheduler's configuration is not supported.
    #[error("the scheduler of `{}` cannot be followed: {reason}", folder.display())]
    Scheduler {
        /// The model's folder.
        folder: PathBuf,
        /// What is not supported.
        reason: crate::scheduler::Refusal,
    },
    /// The noise schedule of the request does not work with its sampler and the model.
    #[error("{0}")]
    Schedule(crate::scheduler::Refusal),
    /// A sampler lacks its state of earlier steps.
    #[error(transparent)]
    Step(#[from] crate::scheduler::StepError),
    /// The image is larger than the model's position table.
    #[error("{wanted} is larger than this model supports: its longest side is {longest} pixels")]
    TooLarge {
        /// The requested size.
        wanted: crate::ImageSize,
        /// The longest side that the model has positions for, in pixels.
        longest: usize,
    },
    /// A stage produced values that are infinite or not a number.
    #[error(
        "{stage} gave values that are not finite{}",
        culprit.as_ref().map(|culprit| format!(" ({culprit})")).unwrap_or_default()
    )]
    NotFinite {
        /// The stage.
        stage: String,
        /// The cause, if it was found.
        culprit: Option<Culprit>,
    },
    /// An interrupted run cannot be resumed.
    #[error(transparent)]
    Resume(#[from] crate::resume::ResumeError),
    /// The requested device cannot be used.
    #[error("{device} cannot be used: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// The GPU of this Mac cannot be used.
    #[error("metal cannot be used: {0}")]
    Metal(#[from] sd_weights::MetalUnavailable),
    /// The run needs more memory than its budget.
    #[error("{budget} of memory are too little: {stage} needs {smallest} at the least")]
    BudgetTooSmall {
        /// The budget.
        budget: Bytes,
        /// The smallest budget that the run fits into.
        smallest: Bytes,
        /// The stage that needs most.
        stage: &'static str,
    },
    /// The run needs more memory than is available, and the user set no budget.
    #[error("{limit} leaves {budget} to plan with, too little: {stage} needs {smallest} at the least")]
    TooLittleLeft {
        /// The limit that leaves so little.
        limit: Limit,
        /// What is left.
        budget: Bytes,
        /// The smallest budget that the run fits into.
        smallest: Bytes,
        /// The stage that needs most.
        stage: &'static str,
    },
    /// An image of the user cannot be read.
    #[error("`{}` cannot be used as an image: {reason}", path.display())]
    BadImage {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The mask has another size than its image.
    #[error("the mask `{}` is {}x{} pixels, the image {}x{}", path.display(), found.0, found.1, wanted.0, wanted.1)]
    MaskSize {
        /// The mask's file.
        path: PathBuf,
        /// Its width and height.
        found: (usize, usize),
        /// The width and height of the image.
        wanted: (usize, usize),
    },
    /// A 9-channel inpainting model was given no mask.
    #[error("the model in `{}` is a 9-channel inpainting model: it needs an initial image and a mask", folder.display())]
    NeedsMask {
        /// The model's folder.
        folder: PathBuf,
    },
    /// The output folder cannot be created or written.
    #[error("cannot write to `{}`", path.display())]
    Output {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The page of the run's profile cannot be written.
    #[error("cannot write the profile to `{}`", path.display())]
    Profile {
        /// The page.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An image cannot be encoded.
    #[error("cannot encode `{}`", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tensor operation failed, for example because the device is out of memory.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The user interrupted the run.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether the device ran out of memory.
    pub(crate) fn is_out_of_device_memory(&self) -> bool {
        match self {
            Self::Tensor(error)
            | Self::Weights(sd_weights::Error::Tensor(error))
            | Self::Model(
                sd_models::Error::Tensor(error) | sd_models::Error::Weights(sd_weights::Error::Tensor(error)),
            ) => sd_weights::is_out_of_device_memory(error),
            _ => false,
        }
    }

    /// Whether the same run would fail in the same way again, so that it is not worth resuming.
    pub fn is_permanent(&self) -> bool {
        use sd_weights::Error as Weights;
        match self {
            Self::Weights(error) | Self::Model(sd_models::Error::Weights(error)) => matches!(
                error.first(),
                Weights::BadHeader { .. }
                    | Weights::BadText { .. }
                    | Weights::WrongSetting { .. }
                    | Weights::GitLfsPointer { .. }
                    | Weights::WebPage { .. }
                    | Weights::Quantized { .. }
                    | Weights::QuantizedTensor { .. }
                    | Weights::BadGguf { .. }
                    | Weights::BadQuantization { .. }
                    | Weights::MissingFromShard { .. }
                    | Weights::MissingTensor { .. }
                    | Weights::WrongShape { .. }
                    | Weights::UnsupportedType { .. }
                    | Weights::RowOutOfRange { .. }
            ),
            Self::Model(error) => matches!(error, sd_models::Error::Config { .. }),
            Self::NotFinite { .. } | Self::Encoding { .. } => true,
            _ => false,
        }
    }
}
