//! Hints for errors of the catalog, and their messages where they name flags.

use sd_catalog::Error;
use sd_pipeline::ControlKind;
use sd_pipeline::bundle::Kind;

use super::{FAILED, Failure, NO_MODEL, USAGE, what_names};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Hub(error) => error.into(),
            Error::Pipeline(error) => (*error).into(),
            error => Self {
                message: message(&error),
                hint: Some(hint(&error)),
                code: code(&error),
            },
        }
    }
}

/// The flag that names a control image.
fn flag(image: ControlKind) -> &'static str {
    match image {
        ControlKind::Pose => "--pose",
        ControlKind::Depth => "--depth",
        ControlKind::Canny => "--canny",
        ControlKind::Image => "--control",
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::NothingAt { .. } | Error::NotInstalled { .. } | Error::PartlyInstalled { .. } => NO_MODEL,
        Error::SingleFile { .. } | Error::Unusable { .. } => FAILED,
        _ => USAGE,
    }
}

/// The error in one line, with flags where it is about settings.
fn message(error: &Error) -> String {
    match error {
        Error::NoDefaultControlNet { image, family } => format!(
            "with a model of {family} {} needs --controlnet: none is usual there",
            flag(*image)
        ),
        Error::NoControlNet { image } => {
            format!("{} needs --controlnet: its image is taken as it is", flag(*image))
        }
        Error::Unpaired {
            setting,
            values,
            images,
        } => {
            let images = match images {
                1 => "there is 1 image to follow".to_owned(),
                images => format!("there are {images} images to follow"),
            };
            format!(
                "--{setting} is given {values} times, and {images}: give it once for all, or once for each in their order"
            )
        }
        other => other.to_string(),
    }
}

/// The way out.
fn hint(error: &Error) -> String {
    match error {
        Error::Configuration { .. } => {
            "docs/generating.md says what can stand there; without the file the program's own defaults hold".to_owned()
        }
        Error::NoPreset { .. } => "`generate --quality help` lists those that there are".to_owned(),
        Error::UnreadTag { .. } => {
            "a LoRA is named as <lora:NAME>, <lora:NAME:SCALE>, or <lora:NAME:TE:UNET> with a scale for the text encoders and one \
             for the network"
                .to_owned()
        }
        Error::Sampler { .. } => {
            "`--sampler help` and `--scheduler help` say what each is good for".to_owned()
        }
        Error::NothingAt { kind, .. } => what_names(*kind).to_owned(),
        Error::SingleFile { .. } => {
            "--model takes a folder in the layout of diffusers, with model_index.json in it".to_owned()
        }
        Error::NotInstalled { kind, reference } => {
            format!("`generate models pull {reference}` gets it{}", unless(*kind))
        }
        Error::PartlyInstalled { kind, reference, .. } => {
            format!("`generate models pull {reference}` completes it{}", unless(*kind))
        }
        Error::Unusable { .. } => {
            "models are used in the layout of diffusers with weights in .safetensors or .bin; a single file is named as \
             owner/name:file"
                .to_owned()
        }
        Error::Several { name, files } => {
            let file = files.first().map_or("file", String::as_str);
            format!("name one: `{name}:{file}`")
        }
        Error::NoDefaultControlNet { .. } => {
            "name one that was made for the model with --controlnet, a folder or an id on the hub; with models of Stable Diffusion \
             1.5, as `--quality fast` is, none need be named"
                .to_owned()
        }
        Error::NoControlNet { .. } => {
            "name the network that was trained with such images, with --controlnet, a folder or an id on the hub".to_owned()
        }
        _ => "`generate --help` lists what can be asked for".to_owned(),
    }
}

/// What is said after how to fetch a `kind` of thing.
fn unless(kind: Kind) -> String {
    let offline = match sd_hub::Settings::of_user().offline {
        true => ", without HF_HUB_OFFLINE",
        false => "",
    };
    let instead = match kind {
        Kind::Model => "; `--model demo` needs no download",
        Kind::ControlNet | Kind::Lora | Kind::Upscaler => "",
    };
    format!("{offline}{instead}")
}
