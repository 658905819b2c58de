//! What is derived from the tensors of a single file: configurations, prediction, and which networks are
//! missing.

use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use sd_pipeline::bundle::Bundle;
use sd_pipeline::{ModelFiles, NetworkFiles, Prediction};
use sd_weights::{Error, ModelSource};
use serde_json::{Map, Value, json};

use crate::model::{FAMILIES, Model, Tensor, Tensors, save, save_with, with_networks, write};

type Settings = Map<String, Value>;

fn config(source: &dyn ModelSource, component: &str) -> Settings {
    source.config(component).unwrap().json().unwrap()
}

fn open(path: &Path) -> Arc<dyn ModelSource> {
    ModelFiles::at(path).open().unwrap()
}

/// The setting `name` of `config`, as one value for all levels where it is equal, and without the depths of
/// levels that have no transformers.
fn normal(config: &Settings, name: &str) -> Option<Value> {
    let value = config.get(name)?;
    let Value::Array(levels) = value else {
        return Some(value.clone());
    };
    let kinds = config.get("down_block_types").and_then(Value::as_array);
    let attends = |level: usize| {
        let kind = kinds.and_then(|kinds| kinds.get(level)?.as_str());
        name != "transformer_layers_per_block" || kind.is_some_and(|kind| kind.starts_with("CrossAttn"))
    };
    let counted: Vec<Value> = (0..levels.len())
        .filter(|&level| attends(level))
        .map(|level| levels[level].clone())
        .collect();
    match counted.as_slice() {
        [first, others @ ..] if others.iter().all(|other| other == first) => Some(first.clone()),
        _ => Some(counted.into()),
    }
}

fn with_prediction(path: impl AsRef<Path>, prediction: Prediction) -> ModelFiles {
    let mut files = ModelFiles::at(path.as_ref());
    files.prediction = Some(prediction);
    files
}

#[test]
fn derived_settings_are_those_of_the_folder() {
    // In releases it is 2, which stands for the token with the largest id.
    const FREE: &str = "eos_token_id";
    for family in FAMILIES {
        let model = Model::of(family);
        let folder = tempfile::tempdir().unwrap();
        let source = open(&save(&model.original(), &folder.path().join("model.safetensors")));
        let mut compared = 0;
        for (path, wanted) in model.configs() {
            let Some((component, _)) = path
                .split_once('/')
                .filter(|(_, file)| file.ends_with("config.json"))
            else {
                continue;
            };
            if component.starts_with("tokenizer") {
                continue;
            }
            let derived = config(&*source, component);
            let wanted = wanted.as_object().unwrap();
            for name in derived.keys().filter(|name| *name != FREE) {
                // diffusers leaves settings out that have their default.
                let (Some(found), Some(wanted)) = (normal(&derived, name), normal(wanted, name)) else {
                    continue;
                };
                let is_equal = match (found.as_f64(), wanted.as_f64()) {
                    (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-6,
                    _ => found == wanted,
                };
                assert!(is_equal, "{family}: {path}: {name} is {found}, not {wanted}");
                compared += 1;
            }
        }
        assert!(compared > 40, "{family}: {compared}");
        let index = config(&*source, "model_index");
        for name in [
            "unet",
            "transformer",
            "vae",
            "text_encoder",
            "text_encoder_2",
            "text_encoder_3",
            "scheduler",
        ] {
            let wanted = &model.configs()["model_index.json"][name];
            let wanted = Some(wanted).filter(|wanted| wanted.get(0).is_some_and(Value::is_string));
            assert_eq!(index.get(name), wanted, "{family}: {name}");
        }
        let zeros = |settings: &Value| settings.get("force_zeros_for_empty_prompt").cloned();
        assert_eq!(
            zeros(&Value::Object(index)),
            zeros(&model.configs()["model_index.json"]),
            "{family}"
        );
        model.write_folder(&folder.path().join("folder"));
        let size = |files: ModelFiles| {
            let size = Bundle::open(&files).unwrap().defaults().size;
            (size.width(), size.height())
        };
        assert_eq!(
            size(ModelFiles::at(folder.path().join("model.safetensors"))),
            size(ModelFiles::at(folder.path().join("folder"))),
            "{family}"
        );
    }
}

#[test]
fn widths_of_releases_tell_the_family_also_with_projections_of_another_rank() {
    // The least that a UNet has, with the widths of the releases.
    let unet = |context: usize, added: Option<usize>, projection: &[usize]| -> Tensors {
        let mut shapes = vec![
            ("input_blocks.0.0.weight", vec![320, 4, 3, 3]),
            ("input_blocks.1.0.in_layers.2.weight", vec![320, 320, 3, 3]),
            ("input_blocks.1.1.proj_in.weight", projection.to_vec()),
            (
                "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
                vec![320, context],
            ),
            ("out.2.weight", vec![4, 320, 3, 3]),
        ];
        shapes.extend(added.map(|added| ("label_emb.0.0.weight", vec![1280, added])));
        let zeros = |(name, shape): (&str, Vec<usize>)| {
            let name = format!("model.diffusion_model.{name}");
            (name, Tensor::zeros(Dtype::F16, &shape))
        };
        shapes.into_iter().map(zeros).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let (convolution, linear) = ([320, 320, 1, 1], [320, 320]);
    for (context, added, projection, family) in [
        (768, None, &convolution[..], "Stable Diffusion 1"),
        (768, None, &linear, "Stable Diffusion 1"),
        (1024, None, &linear, "Stable Diffusion 2"),
        (1024, None, &convolution, "Stable Diffusion 2"),
        (2048, Some(2816), &linear, "Stable Diffusion XL"),
        (2048, Some(2816), &convolution, "Stable Diffusion XL"),
        (1280, Some(2560), &linear, "the refiner of Stable Diffusion XL"),
        // As wide as CLIP-L: XL and its refiner with smaller encoders.
        (768, Some(1280 + 6 * 256), &linear, "Stable Diffusion XL"),
        (
            768,
            Some(768 + 5 * 256),
            &linear,
            "the refiner of Stable Diffusion XL",
        ),
    ] {
        let path = folder.path().join("model.safetensors");
        let file = save(&unet(context, added, projection), &path);
        match ModelFiles::at(file).open() {
            Err(Error::MissingNetworks { family: found, .. }) => assert_eq!(found, family),
            other => panic!("{family}: {other:?}"),
        }
    }
}

#[test]
fn missing_networks_are_named() {
    let title = |name: &str| match name {
        "v" => "an autoencoder (VAE)",
        "l" => "the text encoder CLIP-L",
        "h" => "the text encoder OpenCLIP-H",
        _ => "the text encoder OpenCLIP-bigG",
    };
    for (family, networks) in [
        ("sd15", ["l", "v"].as_slice()),
        ("sd21", &["h", "v"]),
        ("sdxl", &["l", "g", "v"]),
        ("refiner", &["g", "v"]),
        // T5 is optional.
        ("sd35-medium", &["l", "g", "v"]),
    ] {
        let model = Model::of(family);
        let folder = tempfile::tempdir().unwrap();
        let denoiser = model.below("model.diffusion_model.");
        let file = save(&denoiser, &folder.path().join("model.safetensors"));
        let error = ModelFiles::at(&file).open().unwrap_err();
        let wanted: Vec<&str> = networks.iter().map(|name| title(name)).collect();
        match &error {
            Error::MissingNetworks { networks, .. } => assert_eq!(networks, &wanted, "{family}"),
            other => panic!("{family}: {other}"),
        }
        let message = error.to_string();
        assert!(
            wanted.iter().all(|network| message.contains(network)),
            "{message}"
        );
        // With the autoencoder that the user names, it is no longer missing.
        let vae = save(
            &model.below("first_stage_model."),
            &folder.path().join("x/v.safetensors"),
        );
        let files = with_networks(
            &file,
            NetworkFiles {
                vae: Some(vae),
                ..NetworkFiles::default()
            },
        );
        let message = files.open().unwrap_err().to_string();
        assert!(!message.contains("VAE"), "{message}");
    }
}

#[test]
fn of_several_autoencoders_beside_a_file_none_is_guessed() {
    let model = Model::of("sd15");
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = model.original();
    tensors.retain(|name, _| !name.starts_with("first_stage_model."));
    let file = save(&tensors, &folder.path().join("model.safetensors"));
    let vae = model.below("first_stage_model.");
    // That of Stable Diffusion 3 has other latents, so that it is none of them.
    let other = Model::of("sd3-medium").below("first_stage_model.");
    save(&other, &folder.path().join("vae/3.safetensors"));
    let message = ModelFiles::at(&file).open().unwrap_err().to_string();
    assert!(message.contains("without an autoencoder"), "{message}");
    let first = save(&vae, &folder.path().join("vae/a.safetensors"));
    assert_eq!(open(&file).checkpoint("vae").unwrap().place(), first);
    save(&vae, &folder.path().join("vae/b.ckpt"));
    let error = ModelFiles::at(&file).open().unwrap_err();
    match &error {
        Error::SeveralNetworks { candidates, .. } => assert_eq!(candidates.len(), 2),
        other => panic!("{other}"),
    }
    let named = with_networks(
        &file,
        NetworkFiles {
            vae: Some(first),
            ..NetworkFiles::default()
        },
    );
    named.open().unwrap();
}

#[test]
fn a_file_of_another_network_than_the_named_is_refused() {
    let model = Model::of("sdxl");
    let folder = tempfile::tempdir().unwrap();
    let file = save(&model.original(), &folder.path().join("model.safetensors"));
    let clip = save(
        &model.below("conditioner.embedders.0.transformer."),
        &folder.path().join("l.safetensors"),
    );
    let with = |networks: NetworkFiles| {
        let files = with_networks(&file, networks);
        files.open().unwrap_err().to_string()
    };
    let message = with(NetworkFiles {
        vae: Some(clip.clone()),
        ..NetworkFiles::default()
    });
    assert!(
        message.contains("holds the text encoder CLIP-L, not an autoencoder"),
        "{message}"
    );
    let message = with(NetworkFiles {
        clip_g: Some(clip),
        ..NetworkFiles::default()
    });
    assert!(
        message.contains("holds the text encoder CLIP-L, not the text encoder OpenCLIP-bigG"),
        "{message}"
    );
}

/// The settings of the scheduler of the file at `path`.
fn scheduler(files: &ModelFiles) -> Settings {
    config(&*files.open().unwrap(), "scheduler")
}

#[test]
fn the_prediction_of_stable_diffusion_2_follows_from_the_strongest_evidence() {
    const BIAS: &str = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
    let model = Model::of("sd21");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let velocity = model.original();
    let mut noise = velocity.clone();
    let bias = noise.get_mut(BIAS).unwrap();
    // All of one value: a deviation of zero, and a mean that is not.
    bias.bytes = half::f16::ONE.to_le_bytes().repeat(bias.shape[0]);
    let prediction = |file: &Path| scheduler(&ModelFiles::at(file))["prediction_type"].clone();
    for ending in ["safetensors", "ckpt"] {
        let file = save(&velocity, &path(&format!("v.{ending}")));
        assert_eq!(prediction(&file), "v_prediction", "{ending}");
        let file = save(&noise, &path(&format!("noise.{ending}")));
        assert_eq!(prediction(&file), "epsilon", "{ending}");
    }
    let file = path("noise.ckpt");
    write(
        &path("noise.yaml"),
        b"model:\n  params:\n    parameterization: \"v\" # as trained\n    use_ema: False\n",
    );
    assert_eq!(prediction(&file), "v_prediction", "by a configuration");
    let named = |prediction| with_prediction(&file, prediction);
    assert_eq!(
        scheduler(&named(Prediction::Epsilon))["prediction_type"],
        "epsilon"
    );
    write(&path("v.yaml"), b"model:\n  params:\n    linear_start: 0.00085\n");
    assert_eq!(
        prediction(&path("v.ckpt")),
        "v_prediction",
        "a configuration without it"
    );
    for (key, value, tensors, wanted) in [
        ("modelspec.predict_key", "v", &noise, "v_prediction"),
        ("modelspec.predict_key", "epsilon", &velocity, "epsilon"),
        ("modelspec.prediction_type", "v", &noise, "v_prediction"),
        ("modelspec.prediction_type", "epsilon", &velocity, "epsilon"),
    ] {
        let file = save_with(
            tensors,
            &[("format", "pt"), (key, value)],
            &path("told.safetensors"),
        );
        assert_eq!(prediction(&file), wanted, "{key}: {value}");
    }
    // Metadata are stronger than a configuration.
    write(&path("told.yaml"), b"parameterization: v\n");
    assert_eq!(prediction(&path("told.safetensors")), "epsilon");
}

#[test]
fn entries_without_elements_tell_how_xl_was_trained() {
    let model = Model::of("sdxl");
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = model.original();
    let settings = |tensors: &Tensors| {
        let read = |ending: &str| {
            let file = save(tensors, &folder.path().join(format!("model.{ending}")));
            scheduler(&ModelFiles::at(file))
        };
        let found = read("safetensors");
        assert_eq!(found, read("ckpt"));
        let snr = found.get("rescale_betas_zero_snr").cloned();
        (found["prediction_type"].clone(), snr)
    };
    assert_eq!(settings(&tensors), (json!("epsilon"), None));
    tensors.insert("v_pred".to_owned(), Tensor::zeros(Dtype::F32, &[0]));
    assert_eq!(settings(&tensors), (json!("v_prediction"), None));
    tensors.insert("ztsnr".to_owned(), Tensor::zeros(Dtype::F32, &[0]));
    assert_eq!(settings(&tensors), (json!("v_prediction"), Some(json!(true))));
    let files = with_prediction(folder.path().join("model.ckpt"), Prediction::Epsilon);
    assert_eq!(scheduler(&files)["prediction_type"], "epsilon");
}

#[test]
fn noise_levels_of_edm_come_from_the_file() {
    let model = Model::of("sdxl");
    let folder = tempfile::tempdir().unwrap();
    let number = |value: f32| Tensor {
        element_type: Dtype::F32,
        shape: vec![],
        bytes: value.to_le_bytes().to_vec(),
    };
    let mut tensors = model.original();
    tensors.insert("edm_vpred.sigma_max".to_owned(), number(110.0));
    tensors.insert("edm_vpred.sigma_min".to_owned(), number(0.25));
    let found = scheduler(&ModelFiles::at(save(
        &tensors,
        &folder.path().join("cos.safetensors"),
    )));
    assert_eq!(found["_class_name"], "EDMEulerScheduler");
    assert_eq!(found["prediction_type"], "v_prediction");
    assert_eq!(
        (&found["sigma_max"], &found["sigma_min"]),
        (&json!(110.0), &json!(0.25))
    );
    let mut tensors = model.original();
    for (name, first) in [("edm_mean", 0.5_f32), ("edm_std", 2.0)] {
        let values = (0..4).map(|index| first + index as f32);
        let tensor = Tensor {
            element_type: Dtype::F32,
            shape: vec![1, 4, 1, 1],
            bytes: values.flat_map(f32::to_le_bytes).collect(),
        };
        tensors.insert(name.to_owned(), tensor);
    }
    let file = save(&tensors, &folder.path().join("playground.safetensors"));
    let source = open(&file);
    assert_eq!(config(&*source, "scheduler")["sigma_max"], 80.0);
    let vae = config(&*source, "vae");
    assert_eq!(vae["scaling_factor"], 0.5);
    assert_eq!(vae["latents_mean"], json!([0.5, 1.5, 2.5, 3.5]));
    assert_eq!(vae["latents_std"], json!([2.0, 3.0, 4.0, 5.0]));
}
