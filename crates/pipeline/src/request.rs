//! What the user typed, as typed values.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sd_memory::Bytes;
use sd_weights::ModelFolder;
use serde::{Deserialize, Serialize};

use crate::scheduler::{SamplerKind, ScheduleKind};
use crate::user_dirs::UserDirs;

/// An image's width and height in pixels, both positive multiples of [`ImageSize::STEP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Sides")]
pub struct ImageSize {
    width: usize,
    height: usize,
}

/// Two numbers that may be a size.
#[derive(Deserialize)]
struct Sides {
    width: usize,
    height: usize,
}

impl TryFrom<Sides> for ImageSize {
    type Error = BadSize;

    fn try_from(Sides { width, height }: Sides) -> Result<Self, BadSize> {
        Self::new(width, height)
    }
}

impl ImageSize {
    /// Both sides are multiples of this: eight pixels a latent, two latents a patch.
    pub const STEP: usize = 16;
    /// The longest side that is accepted.
    pub const MAXIMUM: usize = 16_384;

    /// A size of `width` by `height` pixels.
    ///
    /// # Errors
    /// A side is zero, too long, or not a multiple of [`ImageSize::STEP`].
    pub fn new(width: usize, height: usize) -> Result<Self, BadSize> {
        let fits = |side: usize| side > 0 && side <= Self::MAXIMUM && side.is_multiple_of(Self::STEP);
        if fits(width) && fits(height) {
            Ok(Self { width, height })
        } else {
            Err(BadSize::Sides { width, height })
        }
    }

    /// Pixels from left to right.
    pub fn width(self) -> usize {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(self) -> usize {
        self.height
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.width, self.height)
    }
}

impl FromStr for ImageSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sides = text.split_once(['x', 'X', '×']);
        let sides =
            sides.and_then(|(width, height)| Some((width.trim().parse().ok()?, height.trim().parse().ok()?)));
        let (width, height) = sides.ok_or_else(|| BadSize::Text(text.to_owned()))?;
        Self::new(width, height)
    }
}

/// Why an image cannot have a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// It is not written as a size.
    #[error("`{0}` is not a size: write it like 1024x768")]
    Text(String),
    /// A side is not possible. The message names the nearest size that is.
    #[error("{width}x{height} is not possible: both sides must be multiples of 16, at most 16384; {} is the nearest", nearest(*.width, *.height))]
    Sides {
        /// The width that was asked for.
        width: usize,
        /// The height that was asked for.
        height: usize,
    },
}

fn nearest(width: usize, height: usize) -> ImageSize {
    let step = ImageSize::STEP;
    let round = |side: usize| {
        (side.min(ImageSize::MAXIMUM) + step / 2)
            .div_euclid(step)
            .clamp(1, ImageSize::MAXIMUM / step)
            * step
    };
    ImageSize {
        width: round(width),
        height: round(height),
    }
}

/// How strongly the prompt is followed: the factor of classifier-free guidance. At 1 and below there is no
/// guidance and the negative prompt has no effect.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuidanceScale(pub f64);

impl GuidanceScale {
    /// Whether the network is asked about the negative prompt as well.
    pub fn guides(self) -> bool {
        self.0 > 1.0
    }
}

/// Where a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum DeviceChoice {
    /// The fastest device that this build can use here.
    #[default]
    Automatic,
    /// The processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
}

/// In which type weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TypeChoice {
    /// As the files store them, where the device can compute with that.
    #[default]
    Automatic,
    /// 32 bits.
    F32,
    /// The sixteen bits of `bfloat16`.
    Bf16,
}

/// Which model generates the images.
#[derive(Debug, Clone)]
pub struct ModelChoice {
    /// What the user calls it; it goes into the metadata.
    pub name: String,
    /// Its files.
    pub folder: ModelFolder,
    /// What the model's maker recommends, where it is known apart from the files.
    pub recommended: Recommended,
}

/// Settings that a model is best used with; what is not said comes from its family.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recommended {
    /// Denoising steps.
    pub steps: Option<usize>,
    /// Guidance.
    pub guidance_scale: Option<GuidanceScale>,
    /// The sampler.
    pub sampler: Option<SamplerKind>,
}

/// The strength of image-to-image, from 0, which keeps the initial image, to 1, which replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Strength(pub f64);

impl Strength {
    /// Nothing is left of the image.
    pub const ALL: Self = Self(1.0);
    /// The default strength of image-to-image.
    pub const OVER_IMAGE: Self = Self(0.75);
}

/// A second model that goes over the images of the first.
#[derive(Debug, Clone)]
pub struct RefinerChoice {
    /// The model, of any family.
    pub model: ModelChoice,
    /// How much of the images it changes.
    pub strength: Strength,
    /// Its denoising steps, of which it takes those that the strength leaves.
    pub steps: usize,
    /// Where given, from 0 to 1, the refiner takes the latents over when so much of the noise's way is gone, with the same
    /// steps; strength and steps then mean nothing.
    pub switch: Option<f64>,
}

impl RefinerChoice {
    /// `model` with the usual strength and steps.
    pub fn new(model: ModelChoice) -> Self {
        Self {
            model,
            strength: Strength(0.3),
            steps: 20,
            switch: None,
        }
    }
}

/// Upscaling of the generated images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpscaleChoice {
    /// How many times as high and wide they become.
    pub factor: usize,
    /// The file of the network that does it; without one they are resampled.
    pub network: Option<PathBuf>,
    /// Whether they are resampled where the network cannot be used, since nobody asked for it by name.
    #[serde(default)]
    pub or_resampled: bool,
}

/// What a ControlNet is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlKind {
    /// An OpenPose skeleton.
    Pose,
    /// A map of distances.
    Depth,
    /// The edges of a photo, which are looked for here.
    Canny,
    /// Whatever the network was trained with; the image is taken as it is.
    Image,
}

/// A ControlNet, and the image that it has a model follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlChoice {
    /// As the user calls it.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it is shown.
    pub kind: ControlKind,
    /// The image's file.
    pub image: PathBuf,
    /// How strongly the image is followed; 1 is as the network was trained.
    pub scale: f64,
}

/// What the user called things that became settings: for the metadata alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Names {
    /// The style, whose words are in the prompt.
    pub style: Option<String>,
    /// The preset.
    pub quality_preset: Option<String>,
}

/// A LoRA file that is added to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraChoice {
    /// As the user calls it.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// How much of it is added to the denoising network.
    pub scale: f64,
    /// How much of it is added to the text encoders.
    pub text_scale: f64,
}

/// The initial image of image-to-image, and its mask.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    /// Its file.
    pub image: PathBuf,
    /// How much of it is changed; without it three quarters, or all of what a mask marks.
    pub strength: Option<Strength>,
    /// Mask for inpainting: white where the initial image is regenerated.
    pub mask: Option<PathBuf>,
}

/// A request as the user typed it: what was left open is `None`.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the image shows.
    pub prompt: String,
    /// What it should not show.
    pub negative_prompt: Option<String>,
    /// The model.
    pub model: ModelChoice,
    /// Images that the model is made to follow.
    pub controls: Vec<ControlChoice>,
    /// LoRA files that are added to the model.
    pub loras: Vec<LoraChoice>,
    /// A refiner for the generated images.
    pub refiner: Option<RefinerChoice>,
    /// How the images are made larger in the end.
    pub upscale: Option<UpscaleChoice>,
    /// What the user called things that became settings.
    pub names: Names,
    /// Whether the run fails where something of it cannot be had, rather than going on without.
    pub strict: bool,
    /// How many images.
    pub images: usize,
    /// Denoising steps.
    pub steps: Option<usize>,
    /// The first image's seed; image `i` uses `seed + i`.
    pub seed: u64,
    /// The images' size.
    pub size: Option<ImageSize>,
    /// The initial image of image-to-image.
    pub init: Option<InitImage>,
    /// Guidance.
    pub guidance_scale: Option<GuidanceScale>,
    /// How far guided predictions are scaled back to the spread of the prompt's own, from 0, not at all, to 1.
    pub guidance_rescale: f64,
    /// How images are led from noise; without it as the model's own files say.
    pub sampler: Option<SamplerKind>,
    /// Through which noise levels.
    pub schedule: ScheduleKind,
    /// How many more of CLIP's last layers are left out.
    pub clip_skip: usize,
    /// The folder that the images go to; it is made if it is missing.
    pub output: PathBuf,
    /// Where to compute.
    pub device: DeviceChoice,
    /// In which type.
    pub weight_type: TypeChoice,
    /// What the run may have of memory, on a GPU of the GPU's; without it, what is available less a margin.
    pub memory: Option<Bytes>,
    /// What the run may have of the host's memory beside a GPU; without it, what is available less a margin.
    pub host_memory: Option<Bytes>,
    /// Where things may be kept beside the images.
    pub user_dirs: UserDirs,
}

impl Request {
    /// A request that leaves everything open but `prompt` and `model`: one image, seed 42, saved in `outputs`, and nothing
    /// kept beside it.
    pub fn new(prompt: impl Into<String>, model: ModelChoice) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            model,
            controls: Vec::new(),
            loras: Vec::new(),
            refiner: None,
            upscale: None,
            names: Names::default(),
            strict: false,
            images: 1,
            steps: None,
            seed: 42,
            size: None,
            init: None,
            guidance_scale: None,
            guidance_rescale: 0.0,
            sampler: None,
            schedule: ScheduleKind::Automatic,
            clip_skip: 0,
            output: PathBuf::from("outputs"),
            device: DeviceChoice::Automatic,
            weight_type: TypeChoice::Automatic,
            memory: None,
            host_memory: None,
            user_dirs: UserDirs::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_held_to_its_step() {
        assert_eq!("1024x768".parse(), ImageSize::new(1024, 768));
        assert_eq!(" 64 X 64 ".parse(), ImageSize::new(64, 64));
        for text in [
            "100x100",
            "0x64",
            "64",
            "x",
            "64x-64",
            "99999999999999999999x64",
            "32768x64",
        ] {
            assert!(text.parse::<ImageSize>().is_err(), "{text}");
        }
        let message = "1000x250".parse::<ImageSize>().unwrap_err().to_string();
        assert!(message.contains("1008x256 is the nearest"), "{message}");
        assert_eq!(nearest(usize::MAX, 0).to_string(), "16384x16");
    }
}
