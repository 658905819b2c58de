//! Messages and hints for errors of sd-catalog, in terms of the command line's flags.

use sd_catalog::presets::Preset;
use sd_catalog::{Error, MeantSampler, Unmet};
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

/// The flag of a kind of control image.
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
        Error::NothingAt { .. }
        | Error::NoNetwork { .. }
        | Error::NotInstalled { .. }
        | Error::PartlyInstalled { .. } => NO_MODEL,
        Error::Unusable { .. } | Error::NoParameters { .. } => FAILED,
        _ => USAGE,
    }
}

/// The error in one line, with flags in place of the names of settings.
fn message(error: &Error) -> String {
    match error {
        Error::NoDefaultControlNet { image, family } => format!(
            "with a model of {family} {} needs --controlnet: that family has no default ControlNet",
            flag(*image)
        ),
        Error::NoControlNet { image } => {
            format!("{} needs --controlnet: its image is used as it is", flag(*image))
        }
        Error::Unpaired {
            setting,
            values,
            images,
        } => {
            let images = match images {
                1 => "there is 1 control image".to_owned(),
                images => format!("there are {images} control images"),
            };
            format!(
                "--{setting} is given {values} times, and {images}: give it once for all, or once for each in their order"
            )
        }
        other => other.to_string(),
    }
}

/// What the user can do about `error`.
fn hint(error: &Error) -> String {
    match error {
        Error::Configuration { .. } => {
            "docs/generating.md describes the configuration file; without it the built-in defaults apply".to_owned()
        }
        Error::NoPreset { similar, .. } => {
            format!("{}`generate --quality help` lists the presets", meant(similar.as_deref()))
        }
        Error::Output { .. } => {
            "--output takes a folder, or the name of a file that ends in .png, .jpg or .webp".to_owned()
        }
        Error::SameName { .. } => {
            "name each seed once, omit --overwrite, or put {number} into the name".to_owned()
        }
        Error::NoParameters { .. } => {
            "a picture is a PNG, JPEG or WebP file of this program, of stable-diffusion-webui or of ComfyUI, or the .json file \
             beside one; programs that edit images often remove the settings"
                .to_owned()
        }
        Error::UnreadTag { .. } => {
            "a LoRA tag is <lora:NAME>, <lora:NAME:SCALE>, or <lora:NAME:TE:UNET> with one scale for the text encoders and one \
             for the denoising network"
                .to_owned()
        }
        Error::Sampler { meant: what, .. } => {
            let lists = "`--sampler help` and `--scheduler help` describe the choices";
            match what {
                Some(MeantSampler::Schedule) => format!("it is a noise schedule: --scheduler takes it; {lists}"),
                Some(MeantSampler::Sampler) => format!("it is a sampler: --sampler takes it; {lists}"),
                Some(MeantSampler::Similar(name)) => format!("{}{lists}", meant(Some(name))),
                None => lists.to_owned(),
            }
        }
        Error::NothingAt {
            kind: Kind::Model,
            name,
            ..
        } if Preset::find(name).is_some() => format!("it is a preset: --quality {name} takes it"),
        Error::NothingAt { kind, similar, .. } => {
            format!("{}{}", meant(similar.as_deref()), what_names(*kind))
        }
        Error::NotInstalled { kind, reference } => {
            format!("`generate models pull {reference}` downloads it{}", unless(*kind))
        }
        Error::PartlyInstalled { kind, reference, .. } => {
            format!("`generate models pull {reference}` completes it{}", unless(*kind))
        }
        Error::Unusable { .. } => {
            "models must be in the diffusers layout, with .safetensors or .bin weights; name a single file as owner/name:file"
                .to_owned()
        }
        Error::Several { name, files } => {
            let file = files.first().map_or("file", String::as_str);
            format!("choose one: `{name}:{file}`")
        }
        Error::SeveralKept { files, .. } => {
            let file = files.first().map_or("file", String::as_str);
            format!("choose one: `{file}`; `generate models` lists them")
        }
        Error::NoModelsFolder { .. } => {
            "connect the disk that it is on, or correct models_path in the configuration file".to_owned()
        }
        Error::NoDefaultControlNet { .. } => {
            "name a ControlNet of the model's family with --controlnet, a folder or a hub id; models of Stable Diffusion 1.5, such \
             as `--quality fast`, have default ones"
                .to_owned()
        }
        Error::NoControlNet { .. } => {
            "name the ControlNet that was trained with such images with --controlnet, a folder or a hub id".to_owned()
        }
        _ => "`generate --help` lists the options".to_owned(),
    }
}

/// The begin of a hint that says what was probably meant.
fn meant(similar: Option<&str>) -> String {
    similar
        .map(|name| format!("did you mean `{name}`? "))
        .unwrap_or_default()
}

impl Failure {
    /// The error of settings of a picture that no option replaces, if there is one.
    pub(crate) fn of_unmet(unmet: &[&Unmet]) -> Option<Self> {
        let first = unmet.first()?;
        let more = match unmet.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let options: Vec<String> = first.options.iter().map(|option| format!("--{option}")).collect();
        let lists = match first.is_missing {
            true => "; `generate models` lists what is on this machine",
            false => "; `generate show` prints all settings",
        };
        Some(Self {
            message: format!(
                "the picture's `{}` cannot be used: {}{more}",
                first.setting, first.reason
            ),
            hint: Some(format!("{} replaces it{lists}", options.join(" or "))),
            code: if first.is_missing { NO_MODEL } else { USAGE },
        })
    }
}

/// The end of the hint that says how to download something of a `kind`.
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
