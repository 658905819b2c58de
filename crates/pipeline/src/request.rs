//! A request: the user's settings as typed values.

use std::fmt;
use std::path::PathBuf;

use sd_memory::Bytes;
use sd_weights::ModelFiles;
use serde::{Deserialize, Serialize};

use crate::image_size::SizeChoice;
use crate::resume::RunName;
use crate::save::FileNames;
use crate::scheduler::{SamplerKind, ScheduleKind};
use crate::seed::{NoiseSource, Seeds};
use crate::user_dirs::UserDirs;

/// The scale of classifier-free guidance. At 1 and below there is no guidance, and the negative prompt has no
/// effect.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuidanceScale(pub f64);

impl GuidanceScale {
    /// Whether the network is also evaluated for the negative prompt.
    pub fn guides(self) -> bool {
        self.0 > 1.0
    }
}

/// The device of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum DeviceChoice {
    /// The fastest device that this build supports on this machine.
    #[default]
    Automatic,
    /// The CPU.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
}

impl fmt::Display for DeviceChoice {
    /// The name of `--device`: `auto`, `cpu`, `cuda:N` or `metal`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Automatic => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
            Self::Metal => formatter.write_str("metal"),
        }
    }
}

/// The data type that weights are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TypeChoice {
    /// The stored type, if the device supports it.
    #[default]
    Automatic,
    /// `f32`.
    F32,
    /// `bf16`.
    Bf16,
    /// `f16`, except for the autoencoder, T5 and the upscaler, whose activations exceed its range: they have the
    /// stored type.
    F16,
}

/// Which model generates the images.
#[derive(Debug, Clone)]
pub struct ModelChoice {
    /// The name that the user gave it, for the metadata.
    pub name: String,
    /// Its files.
    pub files: ModelFiles,
    /// Recommendations of the model's maker that are not in its files.
    pub recommended: Recommended,
}

/// Recommended settings of a model; the defaults of its family apply to the others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recommended {
    /// Denoising steps.
    pub steps: Option<usize>,
    /// The guidance scale.
    pub guidance_scale: Option<GuidanceScale>,
    /// The sampler.
    pub sampler: Option<SamplerKind>,
}

/// The strength of image-to-image, from 0, which keeps the initial image, to 1, which replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Strength(pub f64);

impl Strength {
    /// Replaces the initial image entirely.
    pub const ALL: Self = Self(1.0);
    /// The default strength of image-to-image.
    pub const IMG2IMG: Self = Self(0.75);
}

/// A refiner: a second model for an image-to-image pass over the images of the first.
#[derive(Debug, Clone)]
pub struct RefinerChoice {
    /// The model, of any family.
    pub model: ModelChoice,
    /// The strength of its image-to-image pass.
    pub strength: Strength,
    /// Its denoising steps, of which the strength leaves a part.
    pub steps: usize,
    /// If given, the fraction of the denoising, from 0 to 1, at which the refiner takes over the latents
    /// (`denoising_end` and `denoising_start` in diffusers). Strength and steps then have no effect.
    pub switch: Option<f64>,
}

impl RefinerChoice {
    /// A refiner with the default strength and steps.
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
    /// The scale factor of both sides.
    pub factor: usize,
    /// The file of the upscaling network; without one the images are resampled.
    pub network: Option<PathBuf>,
    /// Whether the images are resampled if the network fails, because the user did not name it.
    #[serde(default)]
    pub or_resampled: bool,
}

/// The kind of a control image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlKind {
    /// An OpenPose skeleton.
    Pose,
    /// A depth map.
    Depth,
    /// A photo, of which the Canny edges are computed.
    Canny,
    /// Any other control image, which is used as it is.
    Image,
}

/// A ControlNet and its control image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlChoice {
    /// The name that the user gave it.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it is shown.
    pub kind: ControlKind,
    /// The file of the control image.
    pub image: PathBuf,
    /// The conditioning scale; 1 is the scale of training.
    pub scale: f64,
}

/// The user's names of styles and presets, for the metadata only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Names {
    /// The style, whose words are in the prompt already.
    pub style: Option<String>,
    /// The preset.
    pub quality_preset: Option<String>,
}

/// A LoRA file that is added to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraChoice {
    /// The name that the user gave it.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Its scale in the denoising network.
    pub scale: f64,
    /// Its scale in the text encoders.
    pub text_scale: f64,
}

/// A file of textual inversion: vectors that a word of the prompts stands for.
#[doc(alias = "textual inversion")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingChoice {
    /// The word. A file may name another one, which then stands for the vectors too.
    pub name: String,
    /// The file.
    pub file: PathBuf,
}

impl EmbeddingChoice {
    /// The embedding of `file`, whose name without its ending is the word.
    pub fn of_file(file: PathBuf) -> Self {
        let name = file.file_stem().unwrap_or(file.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            file,
        }
    }
}

/// The initial image of image-to-image, and its mask.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    /// Its file.
    pub image: PathBuf,
    /// The strength; by default 0.75, or 1 with a mask.
    pub strength: Option<Strength>,
    /// Mask for inpainting: white where the initial image is regenerated.
    pub mask: Option<PathBuf>,
}

/// A request. Open settings are `None`.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the image shows.
    pub prompt: String,
    /// The negative prompt.
    pub negative_prompt: Option<String>,
    /// The model.
    pub model: ModelChoice,
    /// ControlNets with their control images.
    pub controls: Vec<ControlChoice>,
    /// LoRA files that are added to the model.
    pub loras: Vec<LoraChoice>,
    /// Files of textual inversion, for the words of the prompts that name them.
    pub embeddings: Vec<EmbeddingChoice>,
    /// A refiner for the generated images.
    pub refiner: Option<RefinerChoice>,
    /// The upscaling of the images.
    pub upscale: Option<UpscaleChoice>,
    /// The user's names of styles and presets.
    pub names: Names,
    /// Whether the run fails if a part of it fails, instead of continuing without that part.
    pub strict: bool,
    /// The number of images.
    pub images: usize,
    /// Denoising steps.
    pub steps: Option<usize>,
    /// The seeds of the images.
    pub seeds: Seeds,
    /// The generator of the noise.
    pub rng: NoiseSource,
    /// The images' size; by default that of the initial image, or the model's own.
    pub size: Option<SizeChoice>,
    /// The initial image of image-to-image.
    pub init: Option<InitImage>,
    /// The guidance scale.
    pub guidance_scale: Option<GuidanceScale>,
    /// The guidance rescale, from 0 for none to 1.
    pub guidance_rescale: f64,
    /// The sampler; by default that of the model's files.
    pub sampler: Option<SamplerKind>,
    /// The noise schedule.
    pub schedule: ScheduleKind,
    /// How many more of CLIP's last layers are skipped.
    pub clip_skip: usize,
    /// The output folder, which is created if missing.
    pub output: PathBuf,
    /// The names and the format of the image files.
    pub file_names: FileNames,
    /// The device.
    pub device: DeviceChoice,
    /// The data type of the weights.
    pub weight_type: TypeChoice,
    /// The memory budget, on a GPU that of the GPU's memory; by default what is available less a margin.
    pub memory: Option<Bytes>,
    /// The budget of host memory beside a GPU; by default what is available less a margin.
    pub host_memory: Option<Bytes>,
    /// The name of the run, if it is known before it begins.
    pub run_name: Option<RunName>,
    /// The directories that the run may write to beside its output.
    pub user_dirs: UserDirs,
}

impl Request {
    /// A request with the defaults for everything but `prompt` and `model`: one image, seed 42, saved in
    /// `outputs`, without a cache or a state to resume.
    pub fn new(prompt: impl Into<String>, model: ModelChoice) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            model,
            controls: Vec::new(),
            loras: Vec::new(),
            embeddings: Vec::new(),
            refiner: None,
            upscale: None,
            names: Names::default(),
            strict: false,
            images: 1,
            steps: None,
            seeds: Seeds::From(42),
            rng: NoiseSource::default(),
            size: None,
            init: None,
            guidance_scale: None,
            guidance_rescale: 0.0,
            sampler: None,
            schedule: ScheduleKind::Automatic,
            clip_skip: 0,
            output: PathBuf::from("outputs"),
            file_names: FileNames::default(),
            device: DeviceChoice::Automatic,
            weight_type: TypeChoice::Automatic,
            memory: None,
            host_memory: None,
            run_name: None,
            user_dirs: UserDirs::default(),
        }
    }
}
