//! From the fields of stable-diffusion-webui's interface to a request of this program.

use serde_json::{Map, Value};

use super::super::error::{Answer, ApiError};
use crate::job::{ControlRequest, ImageField, JobRequest, SeedField};
use sd_pipeline::ControlKind;

/// Settings that this program has not, with the numbers at which they change nothing. So do null, false, nothing and
/// empty texts.
const WITHOUT: [(&str, &[f64]); 15] = [
    ("enable_hr", &[]),
    ("restore_faces", &[]),
    ("tiling", &[]),
    ("script_name", &[]),
    ("subseed_strength", &[0.0]),
    ("s_min_uncond", &[0.0]),
    ("s_churn", &[0.0]),
    ("s_tmin", &[0.0]),
    ("s_noise", &[1.0]),
    ("eta", &[0.0, 1.0]),
    ("inpainting_mask_invert", &[0.0]),
    ("initial_noise_multiplier", &[0.0, 1.0]),
    ("token_merging_ratio", &[0.0]),
    ("firstphase_width", &[0.0]),
    ("firstphase_height", &[0.0]),
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
    is_img2img: bool,
    chosen: Option<String>,
) -> Answer<JobRequest> {
    for (name, nothing) in WITHOUT {
        if let Some(value) = sent.get(name)
            && !changes_nothing(value, nothing)
        {
            return Err(ApiError::invalid(name, format!("`{name}` is not supported")));
        }
    }
    let overrides = overrides(sent)?;
    let number = |name: &str| of_number(sent, name);
    let positive = |name: &str| of_count(sent, name);
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
        seed: Some(seed(sent)?),
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
    if is_img2img {
        let image = match of_list(sent, "init_images")? {
            [Value::String(image)] => image.clone(),
            [] => return Err(ApiError::invalid("init_images", "there is no initial image")),
            _ => return Err(ApiError::invalid("init_images", "it is not one image in base64")),
        };
        request.init_image = Some(ImageField::Sent(image));
        request.mask = of_text(sent, "mask")?.map(ImageField::Sent);
        request.strength = Some(number("denoising_strength")?.unwrap_or(0.75));
    }
    Ok(request)
}

/// Whether a setting that this program has not is off, or at one of the numbers that change nothing.
fn changes_nothing(value: &Value, nothing: &[f64]) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "None",
        Value::Number(number) => number.as_f64().is_some_and(|number| nothing.contains(&number)),
        _ => false,
    }
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

/// A whole number from 1.
fn of_count(sent: &Map<String, Value>, name: &str) -> Answer<Option<u64>> {
    of_number(sent, name)?
        .map(|value| match value {
            value if value >= 1.0 && value.fract() == 0.0 && value <= 1e9 => Ok(value as u64),
            _ => Err(ApiError::invalid(
                name,
                format!("{value} is no number of this setting"),
            )),
        })
        .transpose()
}

fn of_list<'a>(sent: &'a Map<String, Value>, name: &str) -> Answer<&'a [Value]> {
    match sent.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(_) => Err(ApiError::invalid(name, format!("{name}: it is no list"))),
    }
}

fn of_object<'a>(sent: &'a Map<String, Value>, name: &str) -> Answer<Option<&'a Map<String, Value>>> {
    match sent.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(values)) => Ok(Some(values)),
        Some(_) => Err(ApiError::invalid(name, format!("{name}: it is no object"))),
    }
}

/// The seed; -1 is a random one.
fn seed(sent: &Map<String, Value>) -> Answer<SeedField> {
    match sent.get("seed") {
        None | Some(Value::Null) => Ok(SeedField::Number(-1)),
        Some(value) => serde_json::from_value(value.clone())
            .ok()
            .filter(|seed| matches!(seed, SeedField::Number(-1..) | SeedField::Large(_)))
            .ok_or_else(|| {
                ApiError::invalid("seed", "it is no seed: a whole number, or -1 for a random one")
            }),
    }
}

/// The one style of the request, if it has one.
fn style(sent: &Map<String, Value>) -> Answer<Option<String>> {
    match of_list(sent, "styles")? {
        [] => Ok(None),
        [Value::String(style)] => Ok(Some(style.clone())),
        _ => Err(ApiError::invalid("styles", "a request has one style")),
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
    let Some(settings) = of_object(sent, "override_settings")? else {
        return Ok(overrides);
    };
    for name in settings.keys() {
        match name.as_str() {
            "sd_model_checkpoint" => {
                overrides.model = of_text(settings, name)?.map(|title| without_hash(&title));
            }
            "sd_vae" => {
                let vae = of_text(settings, name)?;
                overrides.vae = vae.filter(|vae| !["Automatic", "None"].contains(&vae.as_str()));
            }
            "CLIP_stop_at_last_layers" => overrides.clip_skip = of_count(settings, name)?,
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
    let mut controls = Vec::new();
    for (script, arguments) in of_object(sent, "alwayson_scripts")?.into_iter().flatten() {
        let arguments = arguments.as_object().ok_or_else(|| {
            let message = format!("the arguments of `{script}` are no object");
            ApiError::invalid("alwayson_scripts", message)
        })?;
        let units = of_list(arguments, "args")?;
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
    use serde_json::json;

    use super::*;

    fn of(value: Value, is_img2img: bool) -> Answer<JobRequest> {
        request(value.as_object().unwrap(), is_img2img, None)
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
            ("subseed_strength", json!(1)),
            ("inpainting_mask_invert", json!(1)),
            ("seed", json!(1.5)),
            ("seed", json!(-2)),
            ("seed", json!("soon")),
            ("styles", json!("anime")),
            ("override_settings", json!([])),
            ("alwayson_scripts", json!({ "controlnet": [] })),
            ("alwayson_scripts", json!(1)),
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
