//! Images of tiny models whose files omit settings or have unusual ones, against diffusers in f32.
//! `tools/reference/make_variants.py` writes the files that differ from the models of `families`.

use std::fs;
use std::path::Path;

use crate::reference;
use reference::{CaseSettings, Pixels, copy_folder, fixtures};
use sd_pipeline::bundle::Bundle;
use sd_pipeline::{ControlChoice, ControlKind, InitImage, ModelFiles, Request, Strength};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    settings: CaseSettings,
    base: String,
    strength: Option<f64>,
    masked: bool,
    control: Option<String>,
}

/// A folder with the files of the variant `model` over those of the family's model `base`.
fn laid_over(base: &str, model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixtures().join("families").join(base), folder.path());
    if !model.is_empty() {
        copy_folder(&fixtures().join("variants").join(model), folder.path());
    }
    folder
}

/// Changes settings of the JSON file at `path`.
fn set(path: &Path, settings: &Value) {
    let mut all: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (name, value) in settings.as_object().unwrap() {
        all[name] = value.clone();
    }
    fs::write(path, all.to_string()).unwrap();
}

impl Case {
    fn request(&self, model: &Path, output: &Path) -> Request {
        let init = fixtures().join("families/init.png");
        let control = self.control.as_ref().map(|name| ControlChoice {
            name: name.clone(),
            folder: fixtures().join(name),
            kind: ControlKind::Pose,
            image: init.clone(),
            scale: 0.7,
        });
        Request {
            init: self.strength.map(|strength| InitImage {
                image: init.clone(),
                strength: Some(Strength(strength)),
                mask: self.masked.then(|| fixtures().join("families/mask.png")),
            }),
            controls: control.into_iter().collect(),
            ..self
                .settings
                .request(reference::model_in(model, &self.settings.name), output)
        }
    }

    fn generate(&self, request: &Request) -> Pixels {
        self.settings.generate(request).remove(0)
    }
}

#[test]
fn every_image_is_the_reference_s() {
    let mut wrong = Vec::new();
    for case in reference::cases::<Case>("variants/cases.json", 25) {
        let (model, output) = (
            laid_over(&case.base, &case.settings.model),
            tempfile::tempdir().unwrap(),
        );
        let found = case.generate(&case.request(model.path(), output.path()));
        let expected = Pixels::read(&fixtures().join(format!("variants/cases/{}.png", case.settings.name)));
        let near = std::panic::catch_unwind(|| found.must_be_near(&expected, &case.settings.name));
        if near.is_err() {
            wrong.push(case.settings.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join(", "));
}

#[test]
fn the_smallest_budget_changes_no_pixel() {
    let wanted = ["bk-sdm-controlled", "ssd-1b", "distilled"];
    let cases = reference::cases::<Case>("variants/cases.json", 25);
    for case in cases
        .iter()
        .filter(|case| wanted.contains(&case.settings.name.as_str()))
    {
        let (model, output) = (
            laid_over(&case.base, &case.settings.model),
            tempfile::tempdir().unwrap(),
        );
        let request = case.request(model.path(), output.path());
        let plan = sd_pipeline::plan(&request).unwrap();
        let in_little = Request {
            memory: Some(plan.smallest_budget),
            ..request.clone()
        };
        assert!(
            case.generate(&request) == case.generate(&in_little),
            "{}",
            case.settings.name
        );
    }
}

#[test]
fn early_unets_without_a_size_were_trained_for_512_pixels() {
    for (version, sample_size, wanted) in [
        (json!("0.6.0"), json!(8), (512, 512)),
        (json!("0.8.1"), json!(32), (512, 512)),
        (json!("0.9.0.dev0"), json!(8), (64, 64)),
        (json!("0.42.1"), json!(8), (64, 64)),
        (json!(null), json!(8), (64, 64)),
        (json!("0.6.0"), json!(96), (768, 768)),
        (json!("0.42.1"), json!([8, 16]), (128, 64)),
    ] {
        let folder = laid_over("sd15", "");
        let settings = json!({"_diffusers_version": version, "sample_size": sample_size});
        set(&folder.path().join("unet/config.json"), &settings);
        let bundle = Bundle::open(&ModelFiles::at(folder.path())).unwrap();
        let size = bundle.defaults().size;
        assert_eq!((size.width(), size.height()), wanted, "{settings}");
    }
}

#[test]
fn settings_and_classes_that_are_not_known_are_refused_by_name() {
    for (base, file, setting, value) in [
        ("sd15", "vae/config.json", "act_fn", json!("gelu")),
        (
            "sd15",
            "vae/config.json",
            "down_block_types",
            json!(vec!["AttnDownEncoderBlock2D"; 4]),
        ),
        (
            "sd15",
            "vae/config.json",
            "up_block_types",
            json!(["UpDecoderBlock2D"]),
        ),
        ("sd15", "vae/config.json", "latents_std", json!([1.0, 1.0])),
        ("sd15", "vae/config.json", "out_channels", json!(4)),
        ("sd15", "vae/config.json", "_class_name", json!("AutoencoderTiny")),
        (
            "sd15",
            "model_index.json",
            "vae",
            json!(["diffusers", "AsymmetricAutoencoderKL"]),
        ),
        (
            "sd15",
            "model_index.json",
            "text_encoder",
            json!(["altdiffusion", "RobertaSeriesModel"]),
        ),
        ("sd15", "text_encoder/config.json", "hidden_act", json!("relu")),
        (
            "sd15",
            "text_encoder/config.json",
            "use_attention_mask",
            json!(true),
        ),
        (
            "sd15",
            "text_encoder/config.json",
            "model_type",
            json!("xlm-roberta"),
        ),
        (
            "sd15",
            "unet/config.json",
            "_class_name",
            json!("UNetMotionModel"),
        ),
        ("sd15", "unet/config.json", "flip_sin_to_cos", json!(null)),
        (
            "sd15",
            "unet/config.json",
            "mid_block_type",
            json!("UNetMidBlock2DSimpleCrossAttn"),
        ),
    ] {
        let folder = laid_over(base, "");
        set(&folder.path().join(file), &json!({ setting: value.clone() }));
        let output = tempfile::tempdir().unwrap();
        let cases = reference::cases::<Case>("variants/cases.json", 25);
        let request = cases[0].request(folder.path(), output.path());
        let message = sd_pipeline::plan(&request).unwrap_err().to_string();
        let name = match value.as_str().or_else(|| value.get(1).and_then(Value::as_str)) {
            Some(class) if class.starts_with(char::is_uppercase) => class,
            _ => setting,
        };
        assert!(message.contains(name), "{setting}: {message}");
        assert!(!message.contains("Some("), "{message}");
    }
}
