//! The flags of settings, which presets and the configuration can set too.

use std::path::PathBuf;

use clap::Args;
use sd_catalog::styles::Style;
use sd_catalog::{Settings, parse};
use sd_pipeline::{Bytes, DeviceChoice, ImageSize, TypeChoice};

/// The flags that set what presets and the configuration can set too.
#[derive(Debug, Clone, Args)]
pub(crate) struct SettingFlags {
    /// What it should not show
    #[arg(long, value_name = "TEXT", help_heading = "Image")]
    negative_prompt: Option<String>,

    /// anime, fantasy, scifi or realism: words for the prompt, and what not to show where nothing is said of
    /// it
    #[arg(long, value_name = "NAME", help_heading = "Image", value_parser = parse::style)]
    style: Option<&'static Style>,

    /// Width and height in pixels, multiples of 16 [default: the model's own]
    #[arg(long, value_name = "WxH", help_heading = "Image")]
    size: Option<ImageSize>,

    /// Make it 2 or 4 times as large in the end
    #[arg(long, value_name = "N", help_heading = "Image", value_parser = parse::upscale)]
    upscale: Option<usize>,

    /// The network of Real-ESRGAN that does, a .pth or .safetensors file or an id [default:
    /// ai-forever/Real-ESRGAN where it is in the cache, else Lanczos resampling]
    #[arg(long, value_name = "REF", help_heading = "Image")]
    pub(super) upscaler: Option<String>,

    /// How many images; image i uses seed + i [default: 1]
    #[arg(long, value_name = "N", help_heading = "Image",
          allow_negative_numbers = true, value_parser = parse::images)]
    n: Option<u64>,

    /// The same seed gives the same image [default: 42]
    #[arg(long, value_name = "N", help_heading = "Image",
          allow_negative_numbers = true, value_parser = parse::seed)]
    seed: Option<u64>,

    /// A preset, `help` lists them; what is said beside it wins [default: auto, the best on this machine that
    /// fits]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) quality: Option<String>,

    /// `demo`, a folder in the layout of diffusers, or the id of a model on the hub, which is fetched
    #[arg(long, value_name = "REF", help_heading = "Model")]
    model: Option<String>,

    /// Denoising steps [default: the model's own]
    #[arg(long, value_name = "N", help_heading = "Model",
          allow_negative_numbers = true, value_parser = parse::steps)]
    steps: Option<u64>,

    /// How strongly the prompt is followed, 1 for no guidance [default: the model's own]
    #[arg(long, value_name = "SCALE", help_heading = "Model", allow_negative_numbers = true, value_parser = parse::guidance_scale)]
    cfg: Option<f64>,

    /// How far guided predictions are scaled back to the spread of the prompt's own, 0 to 1; 0.7 for models
    /// that were trained down to no signal [default: 0]
    #[arg(long, value_name = "X", help_heading = "Model", allow_negative_numbers = true, value_parser = parse::guidance_rescale)]
    guidance_rescale: Option<f64>,

    /// A LoRA file that is added to the model, with how much of it, or with REF:TE:UNET how much to the text
    /// encoders and to the network; may be given several times
    #[arg(long, value_name = "REF[:SCALE]", help_heading = "Model")]
    lora: Vec<String>,

    /// How strongly they are followed: once for all, or once for each in their order [default: 1]
    #[arg(long, value_name = "S", help_heading = "Control", allow_negative_numbers = true, value_parser = parse::control_scale)]
    control_scale: Vec<f64>,

    /// The ControlNet, a folder or an id: one for all, or one for each in their order [default: with Stable
    /// Diffusion 1.5 lllyasviel's for each]
    #[arg(long, value_name = "REF", help_heading = "Control")]
    controlnet: Vec<String>,

    /// A second model that goes over the image, of any family
    #[arg(long, value_name = "REF", help_heading = "Model")]
    refiner: Option<String>,

    /// Where the refiner takes the latents over, 0 to 1, for one that shares them with the model [default: it
    /// goes over the finished image]
    #[arg(long, value_name = "S", help_heading = "Model", value_parser = parse::strength)]
    pub(super) refiner_switch: Option<f64>,

    /// How the image is led from noise, `help` lists them [default: the model's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) sampler: Option<String>,

    /// Through which noise levels, `help` lists them [default: the sampler's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) scheduler: Option<String>,

    /// CLIP's last layers that are left out, 2 for many models of anime [default: 1]
    #[arg(long, value_name = "N", help_heading = "Model",
          allow_negative_numbers = true, value_parser = parse::clip_skip)]
    clip_skip: Option<u64>,

    /// Memory that the run may have, 8GB say; with a GPU the GPU's [default: what is available, less a
    /// margin]
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = parse::memory)]
    memory: Option<Bytes>,

    /// The same of the machine's own memory beside a GPU: streamed weights stay there where they fit
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = parse::memory)]
    host_memory: Option<Bytes>,

    /// auto, cpu, cuda, cuda:N or metal [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine", value_parser = parse::device)]
    device: Option<DeviceChoice>,

    /// Type that weights are held in: auto (as stored), f32 or bf16 [default: auto]
    #[arg(long, value_name = "TYPE", help_heading = "Machine", value_parser = parse::weight_type)]
    dtype: Option<TypeChoice>,

    /// Folder for the images; made if missing [default: ./outputs]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    output: Option<PathBuf>,

    /// Fail where a LoRA, a ControlNet, a refiner or an upscaler is of no use, rather than go on without
    #[arg(long, help_heading = "Output")]
    strict: bool,
}

impl From<SettingFlags> for Settings {
    fn from(flags: SettingFlags) -> Self {
        Self {
            negative_prompt: flags.negative_prompt,
            style: flags.style,
            size: flags.size,
            upscale: flags.upscale,
            upscaler: flags.upscaler,
            n: flags.n,
            seed: flags.seed,
            quality: flags.quality,
            model: flags.model,
            steps: flags.steps,
            cfg: flags.cfg,
            guidance_rescale: flags.guidance_rescale,
            lora: flags.lora,
            control_scale: flags.control_scale,
            controlnet: flags.controlnet,
            refiner: flags.refiner,
            refiner_switch: flags.refiner_switch,
            sampler: flags.sampler,
            scheduler: flags.scheduler,
            clip_skip: flags.clip_skip,
            memory: flags.memory,
            host_memory: flags.host_memory,
            device: flags.device,
            dtype: flags.dtype,
            output: flags.output,
            strict: flags.strict,
        }
    }
}
