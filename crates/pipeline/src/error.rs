//! Why a run failed.

use std::path::PathBuf;

use sd_memory::{Bytes, Limit};

use crate::culprit::Culprit;

/// The result of every call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run stopped before its image was saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's folder is not there.
    #[error("there is no model at `{}`", folder.display())]
    NoModel {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Something that the request names beside the model is not there.
    #[error("there is no {} at `{}`", kind.title(), path.display())]
    NotThere {
        /// What it should be.
        kind: crate::bundle::Kind,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The folder is there and holds a model of no family that is known.
    #[error("`{}` is not a model of Stable Diffusion: {reason}", folder.display())]
    UnknownArchitecture {
        /// The model's folder.
        folder: PathBuf,
        /// What was looked for and not found.
        reason: String,
    },
    /// A part is of a class whose forward pass is not known.
    #[error(
        "`{component}` is of the class {class}, as `{}` says, and only {} {} known",
        file.display(),
        known.join(" and "),
        if known.len() == 1 { "is" } else { "are" }
    )]
    OtherClass {
        /// The file that says so.
        file: PathBuf,
        /// The part.
        component: String,
        /// Its class.
        class: String,
        /// The classes that are known in its place.
        known: &'static [&'static str],
    },
    /// The model's files are wrong.
    #[error(transparent)]
    Weights(#[from] sd_weights::Error),
    /// A network cannot be made of its configuration, or failed.
    #[error(transparent)]
    Model(#[from] sd_models::Error),
    /// A tokenizer's files are wrong.
    #[error("the tokenizer in `{}` cannot be used: {reason}", folder.display())]
    Tokenizer {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// A setting of a tokenizer has a value that is not supported.
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
    /// A tokenizer gives ids, or as many of them, as its text encoder has no place for.
    #[error(
        "the tokenizer in `{}` does not fit its text encoder: it {gives} and the encoder takes {takes}",
        folder.display()
    )]
    TokenizerDoesNotFit {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// What the tokenizer gives.
        gives: String,
        /// What the text encoder takes.
        takes: String,
    },
    /// Two parts of a model do not belong together.
    #[error("the parts of `{}` do not fit together: {reason}", folder.display())]
    PartsDoNotFit {
        /// The model's folder.
        folder: PathBuf,
        /// Which parts and how.
        reason: String,
    },
    /// A model cannot go on from the latents of another.
    #[error(
        "`{}` cannot take over on the way from noise: its latents are not those of `{}`",
        folder.display(),
        other.display()
    )]
    OtherLatents {
        /// The folder of the model that should go on.
        folder: PathBuf,
        /// The folder of the model that drew the latents.
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
    /// What should steer the model's network steers another, or none.
    #[error("`{}` is no ControlNet for this model: {reason}", folder.display())]
    ForeignControl {
        /// Its folder.
        folder: PathBuf,
        /// For which models it is, or what was looked for and not found.
        reason: String,
    },
    /// The scheduler's configuration asks for what is not there.
    #[error("the scheduler of `{}` cannot be followed: {reason}", folder.display())]
    Scheduler {
        /// The model's folder.
        folder: PathBuf,
        /// What does not go together.
        reason: crate::scheduler::Refusal,
    },
    /// A sampler lacks what it had remembered.
    #[error(transparent)]
    Step(#[from] crate::scheduler::StepError),
    /// An image is larger than the model's position table.
    #[error("{wanted} is larger than this model supports: its longest side is {longest} pixels")]
    TooLarge {
        /// The size that was asked for.
        wanted: crate::ImageSize,
        /// The longest side that the model has positions for, in pixels.
        longest: usize,
    },
    /// A number became infinite or not a number, and the image with it.
    #[error(
        "{stage} gave values that are not finite{}",
        culprit.as_ref().map(|culprit| format!(" ({culprit})")).unwrap_or_default()
    )]
    NotFinite {
        /// The stage that gave them.
        stage: String,
        /// What is to blame, where that can be told.
        culprit: Option<Culprit>,
    },
    /// An interrupted run cannot go on.
    #[error(transparent)]
    Resume(#[from] crate::resume::ResumeError),
    /// The device that was asked for cannot be used.
    #[error("{device} cannot be used: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// The run needs more memory than it may have.
    #[error("{budget} of memory are too little: {stage} needs {smallest} at the least")]
    BudgetTooSmall {
        /// What the run may have.
        budget: Bytes,
        /// The smallest budget that it could be run in.
        smallest: Bytes,
        /// The stage that needs the most.
        stage: &'static str,
    },
    /// The run needs more memory than is left to it, and nobody said how much it may have.
    #[error("{limit} leaves {budget} to plan with, too little: {stage} needs {smallest} at the least")]
    TooLittleLeft {
        /// What leaves so little.
        limit: Limit,
        /// What it leaves.
        budget: Bytes,
        /// The smallest budget that the run could be done in.
        smallest: Bytes,
        /// The stage that needs the most.
        stage: &'static str,
    },
    /// An image that the user named cannot be used.
    #[error("`{}` cannot be used as an image: {reason}", path.display())]
    BadImage {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A mask is not as large as the image that it is for.
    #[error("the mask `{}` is {}x{} pixels, the image {}x{}", path.display(), found.0, found.1, wanted.0, wanted.1)]
    MaskSize {
        /// The mask's file.
        path: PathBuf,
        /// Its width and height.
        found: (usize, usize),
        /// The image's.
        wanted: (usize, usize),
    },
    /// A model that fills masks was given none.
    #[error("the model in `{}` is a 9-channel inpainting model: it needs an initial image and a mask", folder.display())]
    NeedsMask {
        /// The model's folder.
        folder: PathBuf,
    },
    /// The output folder cannot be made or written.
    #[error("cannot write to `{}`", path.display())]
    Output {
        /// The folder or file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The page of a run's profile cannot be written.
    #[error("cannot write the profile to `{}`", path.display())]
    Profile {
        /// The page's file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The image cannot be encoded.
    #[error("cannot encode `{}`", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The encoder's reason.
        source: png::EncodingError,
    },
    /// A tensor operation failed, for instance because the device has no memory left.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether the device had no memory left for what was asked of it.
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

    /// Whether the same run would end in the same way again, so that there is no use in going on with it.
    pub fn would_come_again(&self) -> bool {
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
