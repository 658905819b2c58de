//! Why settings, a name or a download are of no use.

use std::path::PathBuf;

use sd_hub::Reference;
use sd_pipeline::ControlKind;
use sd_pipeline::bundle::Kind;

/// The result of a look-up in the catalog.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong, with the names that the user gave. What to do about it is left to the program that shows
/// it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user's configuration file cannot be read or understood.
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
    },
    /// The user's presets refer to each other in a circle.
    #[error("the preset `{name}` goes on from itself: {} -> {name}", through.join(" -> "))]
    PresetCircle {
        /// The preset that is met a second time.
        name: String,
        /// The presets that lead to it.
        through: Vec<String>,
    },
    /// A tag of the prompt looks like one of a LoRA and cannot be read.
    #[error("`{tag}` in the prompt cannot be read")]
    UnreadTag {
        /// The tag.
        tag: String,
    },
    /// A sampler or a schedule has an unknown name.
    #[error("{reason}")]
    Sampler {
        /// What is wrong, with the names that there are.
        reason: String,
    },
    /// A local name leads nowhere.
    #[error("there is no {} at `{name}`", kind.title())]
    NothingAt {
        /// What was looked for.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// The model is one file instead of a folder.
    #[error("`{name}` is a file, and models in a single file cannot be read yet")]
    SingleFile {
        /// The name.
        name: String,
    },
    /// A repository of the hub is not in the cache and was not fetched.
    #[error("the {} `{reference}` is not on this machine", kind.title())]
    NotInstalled {
        /// What it is used as.
        kind: Kind,
        /// The repository.
        reference: Reference,
    },
    /// A repository of the hub is in the cache in part.
    #[error("of the {} `{reference}` only a part is on this machine: it lacks {lacking}", kind.title())]
    PartlyInstalled {
        /// What it is used as.
        kind: Kind,
        /// The repository.
        reference: Reference,
        /// The first file that is missing.
        lacking: String,
    },
    /// A repository of the hub does not hold what is used.
    #[error("`{reference}` cannot be used: it does not hold {what}")]
    Unusable {
        /// The repository.
        reference: Reference,
        /// What it lacks.
        what: String,
    },
    /// A folder or a repository holds several files, and one is used.
    #[error("`{name}` holds several files that could be meant: {}", files.join(", "))]
    Several {
        /// The folder or the repository.
        name: String,
        /// The files.
        files: Vec<String>,
    },
    /// A setting has several values, and not one for each control image.
    #[error("`{setting}` is given {values} times, and there are {images} control images")]
    Unpaired {
        /// The setting, as the configuration writes it.
        setting: &'static str,
        /// How many values it has.
        values: usize,
        /// How many images there are.
        images: usize,
    },
    /// The family of the model has no default ControlNet.
    #[error("with a model of {family} a control image needs a ControlNet: none is usual there")]
    NoDefaultControlNet {
        /// The image.
        image: ControlKind,
        /// The model's family.
        family: &'static str,
    },
    /// An image of unknown kind has no default ControlNet.
    #[error("a control image that is taken as it is needs a ControlNet")]
    NoControlNet {
        /// The image.
        image: ControlKind,
    },
    /// The hub or its cache failed.
    #[error(transparent)]
    Hub(#[from] sd_hub::Error),
    /// A file of a model or an image is of no use.
    #[error(transparent)]
    Pipeline(Box<sd_pipeline::Error>),
}

impl From<sd_pipeline::Error> for Error {
    fn from(error: sd_pipeline::Error) -> Self {
        Self::Pipeline(Box::new(error))
    }
}
