//! From the fields of stable-diffusion-webui's interface to a request of this program.

use serde_json::{Map, Value, json};

use super::super::error::{Answer, ApiError};
use crate::job::{ControlRequest, ImageField, JobRequest, SeedField};
use sd_pipeline::ControlKind;

/// Settings that this program has not, with the values at which they change nothing.
const WITHOUT: [(&str, Value); 16] = [
    ("enable_hr", Value::Bool(false)),
    ("restore_faces", Value::Bool(false)),
    ("tiling", Value::Bool(false)),
    ("subseed_strength", Value::Null),
    ("s_min_uncond", Value::Null),
    ("s_churn", Value::Null),
    ("s_tmin", Value::Null),
    ("eta", Value::Null),
    ("script_name", Value::Null),
    ("image_cfg_scale", Value::Null),
    ("inpainting_mask_invert", Value::Null),
    ("initial_noise_multiplier", Value::Null),
    ("refiner_checkpoint_vae", Value::Null),
    ("token_merging_ratio", Value::Null),
    ("firstphase_width", Value::Null),
    ("firstphase_height", Value::Null),
];
/// Names for what a ControlNet of webui's extension is shown.
const MODULES: [(&str, ControlKind); 4] = [
    ("canny", ControlKind::Canny),
    ("none", ControlKind::Image),
    ("depth", ControlKind::Depth),
    ("openpose", ControlKind::Pose),
];

/// The request for `sent`. `chosen` is the model that the client has set before.
///
/// # Errors
/// A field is wrong, or sets what this program cannot do.
pub(super) fn request(
    sent: &Map<String, Value>,
    over_image: bool,
    chosen: Option<String>,
) -> Answer<JobRequest> {
    for (name, nothing) in WITHOUT {
        if let Some(value) = sent.get(name)
            && !changes_nothing(value, &nothing)
        {
            return Err(ApiError::invalid(name, format!("`{name}` is not supported")));
        }
    }
    let overrides = overrides(sent)?;
    let number = |name: &str| of_number(sent, name);
    let positive = |name: &str| -> Answer<Option<u64>> {
        number(name)?
            .map(|value| match value {
                value if value >= 1.0 && value.fract() == 0.0 && value <= 1e9 => Ok(value as u64),
                _ => Err(ApiError::invalid(
                    name,
                    format!("{value} is no number of this setting"),
                )),
            })
            .transpose()
    };
    let images = positive("batch_size")?
        .unwrap_or(1)
        .saturating_mul(positive("n_iter")?.unwrap_or(1));
    let sampler = of_text(sent, "sampler_name")?.or(of_text(sent, "sampler_index")?);
    let scheduler = of_text(sent, "scheduler")?.filter(|name| !name.eq_ignore_ascii_case("automatic"));
    let size = match (positive("width")?, positive("height")?) {
        (None, None) => None,
        (width, height) => Some(format!("{}x{}", width.unwrap_or(512), height.unwrap_or(512))),
    };
    let refiner = of_text(sent, "refiner_checkpoint")?.filter(|name| name != "None");
    let mut request = JobRequest {
        prompt: of_text(sent, "prompt")?.unwrap_or_default(),
        negative_prompt: of_text(sent, "negative_prompt")?,
        model: overrides.model.or(chosen),
        style: style(sent)?,
        size,
        steps: positive("steps")?,
        cfg: number("cfg_scale")?,
        seed: Some(SeedField::Number(number("seed")?.unwrap_or(-1.0) as i64)),
        n: Some(images),
        sampler,
        scheduler,
        clip_skip: overrides.clip_skip,
        vae: overrides.vae,
        refiner_switch: match refiner {
            Some(_) => number("refiner_switch_at")?,
            None => None,
        },
        refiner,
        control: control(sent)?,
        ..JobRequest::default()
    };
    if over_image {
        let images = sent.get("init_images").and_then(Value::as_array);
        let image = images.and_then(|images| images.first()).and_then(Value::as_str);
        let image = image.ok_or_else(|| ApiError::invalid("init_images", "there is no initial image"))?;
        request.init_image = Some(ImageField::Sent(image.to_owned()));
        request.mask = of_text(sent, "mask")?.map(ImageField::Sent);
        request.strength = Some(number("denoising_strength")?.unwrap_or(0.75));
    }
    Ok(request)
}

/// Whether a setting is at its default, which is `nothing` or any form of zero.
fn changes_nothing(value: &Value, nothing: &Value) -> bool {
    value == nothing
        || value.is_null()
        || value.as_f64() == Some(0.0)
        || value.as_str() == Some("")
        || value == &json!(false)
        // webui's own defaults.
        || value.as_f64() == Some(1.0) && nothing.is_null()
}

fn of_text(sent: &Map<String, Value>, name: &str) -> Answer<Option<String>> {
    match sent.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(ApiError::invalid(name, format!("{name}: it is no text"))),
    }
}

fn of_number(sent: &Map<String, Value>, name: &str) -> Answer<Option<f64>> {
    match sent.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_f64()
            .map(Some)
            .ok_or_else(|| ApiError::invalid(name, format!("{name}: it is no number"))),
    }
}

/// The one style of the request, if it has one.
fn style(sent: &Map<String, Value>) -> Answer<Option<String>> {
    let styles = sent.get("styles").and_then(Value::as_array);
    match styles.map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([Value::String(style)]) => Ok(Some(style.clone())),
        Some(_) => Err(ApiError::invalid("styles", "a request has one style")),
    }
}

/// The settings of webui that requests override.
#[derive(Debug, Default)]
struct Overrides {
    model: Option<String>,
    vae: Option<String>,
    clip_skip: Option<u64>,
}

fn overrides(sent: &Map<String, Value>) -> Answer<Overrides> {
    let mut overrides = Overrides::default();
    let settings = sent.get("override_settings").and_then(Value::as_object);
    for (name, value) in settings.into_iter().flatten() {
        match name.as_str() {
            "sd_model_checkpoint" => overrides.model = value.as_str().map(without_hash),
            "sd_vae" => {
                let vae = value.as_str().filter(|vae| !["Automatic", "None"].contains(vae));
                overrides.vae = vae.map(str::to_owned);
            }
            "CLIP_stop_at_last_layers" => overrides.clip_skip = value.as_u64(),
            // Where webui itself saves images, and how.
            _ if name.starts_with("samples_") || name.starts_with("save_") || name.starts_with("grid_") => {}
            _ => {
                let message = format!("the setting `{name}` is not supported");
                return Err(ApiError::invalid("override_settings", message));
            }
        }
    }
    Ok(overrides)
}

/// A model's title without the hash at its end.
pub(super) fn without_hash(title: &str) -> String {
    match title.rsplit_once(" [") {
        Some((name, rest)) if rest.ends_with(']') => name.to_owned(),
        _ => title.to_owned(),
    }
}

/// The control images of webui's ControlNet extension.
fn control(sent: &Map<String, Value>) -> Answer<Vec<ControlRequest>> {
    let scripts = sent.get("alwayson_scripts").and_then(Value::as_object);
    let mut controls = Vec::new();
    for (script, arguments) in scripts.into_iter().flatten() {
        let units = arguments.get("args").and_then(Value::as_array);
        let units = units.map(Vec::as_slice).unwrap_or_default();
        if !script.eq_ignore_ascii_case("controlnet") {
            if units.is_empty() {
                continue;
            }
            let message = format!("the script `{script}` is not supported");
            return Err(ApiError::invalid("alwayson_scripts", message));
        }
        for unit in units.iter().filter_map(Value::as_object) {
            if unit.get("enabled").and_then(Value::as_bool) != Some(false) {
                controls.extend(control_of(unit)?);
            }
        }
    }
    Ok(controls)
}

fn control_of(unit: &Map<String, Value>) -> Answer<Option<ControlRequest>> {
    let image = ["image", "input_image"].iter().find_map(|name| {
        let image = unit.get(*name)?;
        image.as_str().or_else(|| image.get("image")?.as_str())
    });
    let Some(image) = image else {
        return Ok(None);
    };
    let module = of_text(unit, "module")?.unwrap_or_else(|| "none".to_owned());
    let kind = MODULES
        .iter()
        .find(|(name, _)| module.to_lowercase().starts_with(name));
    let (_, kind) = kind.ok_or_else(|| {
        ApiError::invalid("module", format!("the preprocessor `{module}` is not supported"))
    })?;
    let model = of_text(unit, "model")?.filter(|model| !model.eq_ignore_ascii_case("none"));
    Ok(Some(ControlRequest {
        kind: *kind,
        image: ImageField::Sent(image.to_owned()),
        controlnet: model.map(|model| without_hash(&model)),
        scale: of_number(unit, "weight")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value, over_image: bool) -> Answer<JobRequest> {
        request(value.as_object().unwrap(), over_image, None)
    }

    #[test]
    fn what_clients_send_is_taken() {
        let request = of(
            json!({
                "prompt": "a cat", "negative_prompt": "", "seed": -1, "steps": 20, "cfg_scale": 7, "width": 256,
                "height": 128, "batch_size": 2, "n_iter": 2, "sampler_name": "DPM++ 2M", "scheduler": "Karras",
                "enable_hr": false, "restore_faces": false, "tiling": false, "subseed": -1, "subseed_strength": 0,
                "s_noise": 1.0, "override_settings": { "sd_model_checkpoint": "mine [abc123]" }, "script_args": [],
                "styles": [], "save_images": false, "send_images": true, "alwayson_scripts": {}, "eta": 1.0,
            }),
            false,
        )
        .unwrap();
        assert_eq!(request.size.as_deref(), Some("256x128"));
        assert_eq!((request.n, request.model.as_deref()), (Some(4), Some("mine")));
        assert_eq!(request.seed, Some(SeedField::Number(-1)));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (field, value) in [
            ("enable_hr", json!(true)),
            ("tiling", json!(true)),
            ("script_name", json!("x/y plot")),
            ("subseed_strength", json!(0.5)),
            ("styles", json!(["one", "two"])),
            ("steps", json!("many")),
            ("width", json!(-5)),
            ("override_settings", json!({ "eta_noise_seed_delta": 31337 })),
            ("alwayson_scripts", json!({ "ADetailer": { "args": [true] } })),
        ] {
            let sent = json!({ "prompt": "a", field: value });
            assert_eq!(of(sent, false).unwrap_err().field.as_deref(), Some(field));
        }
        assert_eq!(
            of(json!({ "prompt": "a" }), true).unwrap_err().field.as_deref(),
            Some("init_images")
        );
    }

    #[test]
    fn control_images_are_those_of_the_extension() {
        let request = of(
            json!({ "prompt": "a", "alwayson_scripts": { "ControlNet": { "args": [
                { "image": "aW1hZ2U=", "module": "canny", "model": "control_canny [1234]", "weight": 0.5 },
                { "image": "aW1hZ2U=", "module": "none", "enabled": false },
            ] } } }),
            false,
        )
        .unwrap();
        assert_eq!(request.control.len(), 1);
        assert_eq!(request.control[0].controlnet.as_deref(), Some("control_canny"));
        assert_eq!(
            (request.control[0].kind, request.control[0].scale),
            (ControlKind::Canny, Some(0.5))
        );
    }
}
