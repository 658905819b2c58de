//! Stable Diffusion 1.5, 2.1 and XL, the refiner of XL, and a ControlNet: UNets with one or two text
//! encoders.

use serde_json::{Value, json};

use super::{Architecture, diffuser, text, text_encoder, tokenizer};
use crate::networks::text::Clip;
use crate::networks::unet::UNet;
use crate::networks::vae::Vae;

/// Channels of what a ControlNet's image passes.
const CONTROLNET_CHANNELS: [usize; 4] = [16, 32, 96, 256];

/// A text encoder with its folder and that of its tokenizer, and the demo model's tokenizer that stands in
/// for it.
struct Reader {
    clip: Clip,
    folder: &'static str,
    tokenizer: &'static str,
    stand_in: &'static str,
}

impl Reader {
    fn first(clip: Clip, stand_in: &'static str) -> Self {
        Self {
            clip,
            folder: "text_encoder",
            tokenizer: "tokenizer",
            stand_in,
        }
    }

    fn second(clip: Clip) -> Self {
        Self {
            clip,
            folder: "text_encoder_2",
            tokenizer: "tokenizer_2",
            stand_in: "tokenizer_2",
        }
    }
}

pub(super) fn stable_diffusion_1() -> Architecture {
    let scheduler = json!({
        "_class_name": "PNDMScheduler",
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
    });
    let readers = [Reader::first(Clip::LARGE, "tokenizer")];
    model(
        &UNet::SD15,
        &readers,
        &Vae::SD,
        scheduler,
        without_safety_checker(),
    )
}

pub(super) fn stable_diffusion_2() -> Architecture {
    let scheduler = json!({
        "_class_name": "DDIMScheduler",
        "prediction_type": "v_prediction",
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
    });
    // Like the second of XL, its tokenizer fills a text up with exclamation marks.
    let readers = [Reader::first(Clip::HUGE, "tokenizer_2")];
    model(
        &UNet::SD21,
        &readers,
        &Vae::SD,
        scheduler,
        without_safety_checker(),
    )
}

/// The index of a model of the first two generations.
fn without_safety_checker() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [null, null],
        "safety_checker": [null, null],
        "requires_safety_checker": false,
    })
}

pub(super) fn stable_diffusion_xl() -> Architecture {
    let index = json!({
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": true,
    });
    let readers = [Reader::first(Clip::LARGE, "tokenizer"), Reader::second(Clip::BIG)];
    model(&UNet::SDXL, &readers, &Vae::SDXL, euler(), index)
}

pub(super) fn refiner() -> Architecture {
    let index = json!({
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "force_zeros_for_empty_prompt": false,
        "requires_aesthetics_score": true,
        "text_encoder": [null, null],
        "tokenizer": [null, null],
    });
    model(
        &UNet::SDXL_REFINER,
        &[Reader::second(Clip::BIG)],
        &Vae::SDXL,
        euler(),
        index,
    )
}

pub(super) fn controlnet(unet: &UNet) -> Architecture {
    Architecture {
        components: vec![diffuser("", unet.controlnet_tensors(&CONTROLNET_CHANNELS))],
        texts: vec![text("config.json", &unet.controlnet_config(&CONTROLNET_CHANNELS))],
        index: None,
    }
}

fn euler() -> Value {
    json!({
        "_class_name": "EulerDiscreteScheduler",
        "interpolation_type": "linear",
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "use_karras_sigmas": false,
    })
}

/// A model of these parts. What all schedulers and all indices of the kind say is added to what is given.
fn model(unet: &UNet, readers: &[Reader], vae: &Vae, mut scheduler: Value, mut index: Value) -> Architecture {
    for (name, value) in [
        ("beta_start", json!(0.00085)),
        ("beta_end", json!(0.012)),
        ("beta_schedule", json!("scaled_linear")),
        ("clip_sample", json!(false)),
        ("num_train_timesteps", json!(1000)),
        ("steps_offset", json!(1)),
        ("trained_betas", json!(null)),
    ] {
        scheduler[name] = value;
    }
    if scheduler["prediction_type"].is_null() {
        scheduler["prediction_type"] = json!("epsilon");
    }
    let mut components = vec![diffuser("unet", unet.tensors()), diffuser("vae", vae.tensors())];
    let mut texts = vec![
        text("unet/config.json", &unet.config()),
        text("vae/config.json", &vae.config()),
        text("scheduler/scheduler_config.json", &scheduler),
    ];
    index["scheduler"] = json!(["diffusers", scheduler["_class_name"]]);
    index["unet"] = json!(["diffusers", "UNet2DConditionModel"]);
    index["vae"] = json!(["diffusers", "AutoencoderKL"]);
    for Reader {
        clip,
        folder,
        tokenizer: tokenizer_folder,
        stand_in,
    } in readers
    {
        let config = clip.config();
        index[*folder] = json!(["transformers", config["architectures"][0]]);
        index[*tokenizer_folder] = json!(["transformers", "CLIPTokenizer"]);
        texts.push(text(&format!("{folder}/config.json"), &config));
        texts.extend(tokenizer(stand_in, tokenizer_folder, Clip::POSITIONS));
        components.push(text_encoder(folder, clip.tensors()));
    }
    Architecture {
        components,
        texts,
        index: Some(format!("{index:#}\n")),
    }
}
