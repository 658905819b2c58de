//! The errors of settings, names and downloads.

use std::path::PathBuf;

use sd_hub::Reference;
use sd_pipeline::ControlKind;
use sd_pipeline::bundle::{FileKind, Kind};

/// The result of a look-up in the catalog.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong, with the user's names. Hints are left to the program that prints it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user's configuration file cannot be read or parsed.
    #[error("the configuration {}: {reason}", file.display())]
    Configuration {
        /// The file.
        file: PathBuf,
        /// What is wrong, with its line or its setting.
        reason: String,
    },
    /// No preset has the name.
    #[error("there is no preset `{name}`")]
    NoPreset {
        /// The name.
        name: String,
        /// The preset that was probably meant.
        similar: Option<String>,
    },
    /// A file does not say how an image was generated.
    #[error("`{}` does not say how it was generated: {reason}", file.display())]
    NoParameters {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The user's presets extend each other in a circle.
    #[error("the preset `{name}` extends itself: {} -> {name}", through.join(" -> "))]
    PresetCircle {
        /// The preset that occurs a second time.
        name: String,
        /// The presets that lead to it.
        through: Vec<String>,
    },
    /// The headers of a model that is not on this machine cannot be stored for a plan.
    #[error("cannot store headers for the plan in `{}`", path.display())]
    Outline {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The output cannot be a folder or a file of images.
    #[error("`{}` is no output: {reason}", path.display())]
    Output {
        /// What the user named.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Two images of one run would have the same name, and the second replaces the first.
    #[error("two images have the seed {seed}, so that with --overwrite the second would replace the first")]
    SameName {
        /// Their seed.
        seed: u64,
    },
    /// A number of images contradicts a list of seeds.
    #[error("{seeds} seeds make {seeds} images, not {images}")]
    SeedsAndImages {
        /// How many seeds there are.
        seeds: usize,
        /// The number of images that was set.
        images: u64,
    },
    /// A LoRA tag of the prompt is malformed.
    #[error("`{tag}` in the prompt cannot be read")]
    UnreadTag {
        /// The tag.
        tag: String,
    },
    /// A sampler or a schedule has an unknown name.
    #[error("{reason}")]
    Sampler {
        /// What is wrong, with the known names.
        reason: String,
        /// What was probably meant.
        meant: Option<MeantSampler>,
    },
    /// A local path does not exist.
    #[error("there is no {} at `{name}`", kind.title())]
    NothingAt {
        /// The kind of thing.
        kind: Kind,
        /// The name.
        name: String,
        /// The name of something on this machine that was probably meant.
        similar: Option<String>,
    },
    /// Others name a network or an embedding that is not among the files of this machine that they may use.
    #[error("there is no {} `{name}`", kind.title())]
    NoNetwork {
        /// The kind of thing.
        kind: FileKind,
        /// The name.
        name: String,
    },
    /// A repository of the hub is not cached and was not downloaded.
    #[error("the {} `{reference}` is not on this machine", kind.title())]
    NotInstalled {
        /// What it is used as.
        kind: Kind,
        /// The repository.
        reference: Reference,
    },
    /// A repository of the hub is only partly cached.
    #[error("of the {} `{reference}` only a part is on this machine: it lacks {lacking}", kind.title())]
    PartlyInstalled {
        /// What it is used as.
        kind: Kind,
        /// The repository.
        reference: Reference,
        /// The first file that is missing.
        lacking: String,
    },
    /// A repository of the hub lacks required files.
    #[error("`{reference}` cannot be used: it does not hold {what}")]
    Unusable {
        /// The repository.
        reference: Reference,
        /// What it lacks.
        what: String,
    },
    /// A folder or repository holds several files, of which one is needed.
    #[error("`{name}` holds several such files: {}", files.join(", "))]
    Several {
        /// The folder or the repository.
        name: String,
        /// The files.
        files: Vec<String>,
    },
    /// Several files below the user's `models_path` have the name.
    #[error("`{name}` is the name of several files: {}", files.join(", "))]
    SeveralKept {
        /// The name.
        name: String,
        /// A name for each file that no other has.
        files: Vec<String>,
    },
    /// A path in `models_path` of the user's configuration is no folder.
    #[error("the configuration has `{}` in models_path, which is no folder", folder.display())]
    NoModelsFolder {
        /// The path.
        folder: PathBuf,
    },
    /// The number of values of a setting is neither one nor that of control images.
    #[error("`{setting}` is given {values} times, and there are {images} control images")]
    Unpaired {
        /// The setting, as the configuration writes it.
        setting: &'static str,
        /// The number of values.
        values: usize,
        /// The number of images.
        images: usize,
    },
    /// The family of the model has no default ControlNet.
    #[error("with a model of {family} a control image needs a ControlNet: that family has no default one")]
    NoDefaultControlNet {
        /// The image.
        image: ControlKind,
        /// The model's family.
        family: &'static str,
    },
    /// A control image of another kind has no default ControlNet.
    #[error("a control image that is used as it is needs a ControlNet")]
    NoControlNet {
        /// The image.
        image: ControlKind,
    },
    /// The hub or its cache failed.
    #[error(transparent)]
    Hub(#[from] sd_hub::Error),
    /// A file of a model or an image is invalid.
    #[error(transparent)]
    Pipeline(Box<sd_pipeline::Error>),
}

/// What was probably meant with an unknown name of a sampler or a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeantSampler {
    /// This sampler or schedule.
    Similar(String),
    /// The name is that of a noise schedule, and not of a sampler.
    Schedule,
    /// The name is that of a sampler, and not of a noise schedule.
    Sampler,
}

impl From<sd_pipeline::Error> for Error {
    fn from(error: sd_pipeline::Error) -> Self {
        Self::Pipeline(Box::new(error))
    }
}
