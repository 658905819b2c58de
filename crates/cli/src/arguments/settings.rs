//! The flags of the settings that presets and the configuration can set too.

use std::path::PathBuf;

use clap::Args;
use sd_catalog::styles::Style;
use sd_catalog::{Devices, SeedChoice, Settings, parse};
use sd_pipeline::seed::NoiseSource;
use sd_pipeline::{Bytes, Prediction, SizeChoice, TypeChoice};

/// The flags of the settings that presets and the configuration can set too.
#[derive(Debug, Clone, Args)]
pub(crate) struct SettingFlags {
    /// What the image should not show
    #[arg(long, value_name = "TEXT", help_heading = "Image")]
    negative_prompt: Option<String>,

    /// anime, fantasy, scifi or realism: extends the prompt, and sets the negative prompt if there is none
    #[arg(long, value_name = "NAME", help_heading = "Image", value_parser = parse::style)]
    style: Option<&'static Style>,

    /// Width and height in pixels, multiples of 16, or their ratio: 16:9, portrait, landscape, square [default: the
    /// model's own]
    #[arg(long, value_name = "WxH", help_heading = "Image", value_parser = parse::size)]
    size: Option<SizeChoice>,

    /// Upscale the image by 2 or 4
    #[arg(long, value_name = "N", help_heading = "Image", value_parser = parse::upscale)]
    upscale: Option<usize>,

    /// Real-ESRGAN model for --upscale: a .pth or .safetensors file, or a hub id; or `lanczos`, which resamples [default:
    /// ai-forever/Real-ESRGAN if it is cached, else lanczos]
    #[arg(long, value_name = "REF", help_heading = "Image")]
    pub(super) upscaler: Option<String>,

    /// Number of images; each has the seed after that of the image before [default: 1]
    #[arg(long, value_name = "N", help_heading = "Image",
          allow_negative_numbers = true, value_parser = parse::images)]
    n: Option<u64>,

    /// Seed; the same seed gives the same image. Also `random`, or several: 1,2,3 or 10..20 [default: 42]
    #[arg(long, value_name = "N", help_heading = "Image",
          allow_negative_numbers = true, value_parser = parse::seed)]
    seed: Option<SeedChoice>,

    /// Generator of the noise: torch (as diffusers on a CPU) or philox (as stable-diffusion-webui on NVIDIA GPUs, and
    /// its setting NV) [default: torch]
    #[arg(long, value_name = "NAME", help_heading = "Image", value_parser = parse::rng)]
    rng: Option<NoiseSource>,

    /// Preset, `help` lists them; other options override it [default: auto, the best on this machine that
    /// fits into its memory]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) quality: Option<String>,

    /// `demo`, a checkpoint (.safetensors, .ckpt), a folder in the diffusers layout, or the id of a model on the hub, which is
    /// downloaded
    #[arg(long, value_name = "REF", help_heading = "Model")]
    model: Option<String>,

    /// File or folder of an autoencoder, in place of the model's
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    vae: Option<PathBuf>,

    /// File of the text encoder CLIP-L, in place of the model's
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    clip_l: Option<PathBuf>,

    /// File of the text encoder OpenCLIP (bigG, in Stable Diffusion 2 H), in place of the model's
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    clip_g: Option<PathBuf>,

    /// File of the text encoder T5, in place of the model's
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    t5xxl: Option<PathBuf>,

    /// What the model predicts: epsilon, v or flow [default: as its files say]
    #[arg(long, value_name = "NAME", help_heading = "Model", value_parser = parse::prediction)]
    prediction: Option<Prediction>,

    /// Denoising steps [default: the model's own]
    #[arg(long, value_name = "N", help_heading = "Model",
          allow_negative_numbers = true, value_parser = parse::steps)]
    steps: Option<u64>,

    /// Scale of classifier-free guidance, 1 for none [default: the model's own]
    #[arg(long, value_name = "SCALE", help_heading = "Model", allow_negative_numbers = true, value_parser = parse::guidance_scale)]
    cfg: Option<f64>,

    /// Guidance rescale, 0 to 1; 0.7 for models trained with zero terminal SNR [default: 0]
    #[arg(long, value_name = "X", help_heading = "Model", allow_negative_numbers = true, value_parser = parse::guidance_rescale)]
    guidance_rescale: Option<f64>,

    /// LoRA with its scale, or as REF:TE:UNET with one scale for the text encoders and one for the denoising
    /// network; may be given several times
    #[arg(long, value_name = "REF[:SCALE]", help_heading = "Model")]
    lora: Vec<String>,

    /// File of textual inversion: in the prompts the file's name, without its ending, stands for its vectors; may be given
    /// several times [default: the files in the folder `embeddings` beside the model that the prompts name]
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    embedding: Vec<PathBuf>,

    /// Conditioning scale of the ControlNets: one for all, or one for each in their order [default: 1]
    #[arg(long, value_name = "S", help_heading = "Control", allow_negative_numbers = true, value_parser = parse::control_scale)]
    control_scale: Vec<f64>,

    /// ControlNet, a folder or a hub id: one for all control images, or one for each in their order
    /// [default: for Stable Diffusion 1.5 lllyasviel's]
    #[arg(long, value_name = "REF", help_heading = "Control")]
    controlnet: Vec<String>,

    /// Refiner: a second model, of any family, for an image-to-image pass over the image
    #[arg(long, value_name = "REF", help_heading = "Model")]
    refiner: Option<String>,

    /// Part of the denoising after which the refiner takes over the latents, 0 to 1, for a refiner that shares
    /// the model's latents [default: it refines the finished image]
    #[arg(long, value_name = "S", help_heading = "Model", value_parser = parse::strength)]
    pub(super) refiner_switch: Option<f64>,

    /// Sampler, `help` lists them [default: the model's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) sampler: Option<String>,

    /// Noise schedule, `help` lists them [default: the sampler's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) scheduler: Option<String>,

    /// CLIP skip as stable-diffusion-webui counts it; 2 for many anime models [default: 1]
    #[arg(long, value_name = "N", help_heading = "Model",
          allow_negative_numbers = true, value_parser = parse::clip_skip)]
    clip_skip: Option<u64>,

    /// Memory budget, such as 8GB; with a GPU of the GPU's memory [default: what is available, less a margin]
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = parse::memory)]
    memory: Option<Bytes>,

    /// Budget of host memory beside a GPU; streamed weights are cached in it where they fit
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = parse::memory)]
    host_memory: Option<Bytes>,

    /// auto, cpu, cuda, cuda:N or metal; cuda:all, or a list such as cuda:0,cuda:2, shares the images out among several
    /// GPUs [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine", value_parser = parse::devices)]
    device: Option<Devices>,

    /// Data type of the weights in memory: auto (as stored; f32 for the built-in model), f32, f16 or bf16; f16 leaves the
    /// autoencoder, T5 and the upscaler as stored, whose values exceed its range [default: auto]
    #[arg(long, value_name = "TYPE", help_heading = "Machine", value_parser = parse::weight_type)]
    dtype: Option<TypeChoice>,

    /// Output folder, created if missing, or a file that ends in .png, .jpg or .webp; names of files may have {date},
    /// {time}, {seed}, {model} and %03d; `-` writes the image to stdout [default: ./outputs]
    #[arg(short, long, value_name = "PATH", help_heading = "Output")]
    pub(super) output: Option<PathBuf>,

    /// Replace existing files, instead of saving under another name
    #[arg(long, help_heading = "Output")]
    overwrite: bool,

    /// Quality of .jpg files, 1 to 100; .png and .webp files are lossless [default: 95]
    #[arg(long, value_name = "Q", help_heading = "Output", value_parser = parse::jpeg_quality)]
    pub(super) jpeg_quality: Option<u8>,

    /// Fail if a LoRA, ControlNet, refiner or upscaler fails, instead of continuing without it
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
            rng: flags.rng,
            quality: flags.quality,
            model: flags.model,
            vae: flags.vae,
            clip_l: flags.clip_l,
            clip_g: flags.clip_g,
            t5xxl: flags.t5xxl,
            prediction: flags.prediction,
            steps: flags.steps,
            cfg: flags.cfg,
            guidance_rescale: flags.guidance_rescale,
            lora: flags.lora,
            embedding: flags.embedding,
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
            overwrite: flags.overwrite,
            jpeg_quality: flags.jpeg_quality,
            strict: flags.strict,
        }
    }
}
