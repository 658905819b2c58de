//! Equal pixels from a folder of diffusers, from single files, and from files for each network.

use std::path::{Path, PathBuf};

use safetensors::Dtype;
use sd_pipeline::{
    Bytes, DeviceChoice, Event, GuidanceScale, ImageSize, InitImage, Interrupt, LoraChoice, ModelChoice,
    ModelFiles, NetworkFiles, Recommended, Request, Strength, TypeChoice,
};

use crate::model::{FAMILIES, Model, Tensor, Tensors, save, with_networks};
use crate::reference::{Pixels, fixtures};

/// An image to be drawn.
struct Drawing<'a> {
    family: &'a str,
    lora: Option<&'a Path>,
    memory: Option<Bytes>,
    steps: usize,
    guidance: f64,
}

impl Drawing<'_> {
    fn of(family: &str) -> Drawing<'_> {
        Drawing {
            family,
            lora: None,
            memory: None,
            steps: 2,
            guidance: 3.0,
        }
    }

    /// A request for 64x64 pixels: image-to-image with the refiner, inpainting with the inpainting
    /// model.
    fn request(&self, files: &ModelFiles, output: &Path) -> Request {
        let families = fixtures().join("families");
        let fills_mask = self.family == "inpainting";
        let init = InitImage {
            image: families.join("init.png"),
            strength: Some(Strength(1.0)),
            mask: fills_mask.then(|| families.join("mask.png")),
        };
        let lora = |file: &Path| LoraChoice {
            name: "test".to_owned(),
            file: file.to_owned(),
            scale: 1.0,
            text_scale: 1.0,
        };
        let model = ModelChoice {
            name: self.family.to_owned(),
            files: files.clone(),
            recommended: Recommended::default(),
        };
        Request {
            negative_prompt: Some("dark".to_owned()),
            steps: Some(self.steps),
            size: Some(ImageSize::new(64, 64).unwrap().into()),
            guidance_scale: Some(GuidanceScale(self.guidance)),
            init: (fills_mask || self.family == "refiner").then_some(init),
            loras: self.lora.iter().map(|file| lora(file)).collect(),
            memory: self.memory,
            output: output.to_owned(),
            device: DeviceChoice::Cpu,
            weight_type: TypeChoice::F32,
            strict: true,
            ..Request::new("a photo of a cat", model)
        }
    }

    fn draw(&self, files: &ModelFiles) -> Pixels {
        let output = tempfile::tempdir().unwrap();
        let request = self.request(files, output.path());
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::Engine::new()
            .run(&request, &mut observer, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}, {:?}: {error}", self.family, files.path()));
        Pixels::read(&saved[0].image)
    }
}

/// An image that would not show a difference has few values.
fn must_be_an_image(pixels: &Pixels, family: &str) {
    let mut seen = [false; 256];
    for &byte in &pixels.bytes {
        seen[usize::from(byte)] = true;
    }
    let values = seen.iter().filter(|&&seen| seen).count();
    assert!(values > 60, "{family}: {values} values");
}

/// The images of a family from a folder and from files are equal.
fn files_draw_what_a_folder_draws(family: &str) {
    let model = Model::of(family);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    model.write_folder(&path("folder"));
    let original = model.original();
    let drawing = Drawing::of(family);
    let expected = drawing.draw(&ModelFiles::at(path("folder")));
    must_be_an_image(&expected, family);
    for name in ["model.safetensors", "model.ckpt"] {
        let file = save(&original, &path(name));
        let files = ModelFiles::at(&file);
        assert!(drawing.draw(&files) == expected, "{family}: {name}");
        if name.ends_with("ckpt") {
            continue;
        }
        let plan = sd_pipeline::plan(&drawing.request(&files, folder.path())).unwrap();
        let in_little = Drawing {
            memory: Some(plan.smallest_budget),
            ..Drawing::of(family)
        };
        assert!(
            in_little.draw(&files) == expected,
            "{family}: {name} in little memory"
        );
    }
}

#[test]
fn stable_diffusion_1_is_drawn_from_files() {
    files_draw_what_a_folder_draws("sd15");
}

#[test]
fn stable_diffusion_1_for_inpainting_is_drawn_from_files() {
    files_draw_what_a_folder_draws("inpainting");
}

#[test]
fn stable_diffusion_2_is_drawn_from_files() {
    files_draw_what_a_folder_draws("sd21");
}

#[test]
fn stable_diffusion_xl_is_drawn_from_files() {
    files_draw_what_a_folder_draws("sdxl");
}

#[test]
fn the_refiner_is_drawn_from_files() {
    files_draw_what_a_folder_draws("refiner");
}

#[test]
fn stable_diffusion_3_medium_is_drawn_from_files() {
    files_draw_what_a_folder_draws("sd3-medium");
}

#[test]
fn stable_diffusion_35_medium_is_drawn_from_files() {
    files_draw_what_a_folder_draws("sd35-medium");
}

#[test]
fn stable_diffusion_35_large_is_drawn_from_files() {
    files_draw_what_a_folder_draws("sd35-large");
}

#[test]
fn the_list_of_families_is_that_of_the_fixtures() {
    let mut found: Vec<String> = std::fs::read_dir(fixtures().join("single_files"))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".json.gz").map(str::to_owned)
        })
        .collect();
    found.sort();
    let mut wanted = FAMILIES.to_vec();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

/// A LoRA of rank 2 for modules of `[outputs, inputs]`, in the naming of PEFT or of kohya.
fn lora(modules: &[(&str, [usize; 2])], names: [&str; 2]) -> Tensors {
    let mut tensors = Tensors::new();
    for &(module, [outputs, inputs]) in modules {
        for (name, shape) in names.iter().zip([[2, inputs], [outputs, 2]]) {
            let name = format!("{module}.{name}.weight");
            tensors.insert(name.clone(), Tensor::seeded(&name, &shape));
        }
    }
    tensors
}

#[test]
fn a_lora_changes_a_file_as_it_changes_a_folder() {
    // Parts of fused tensors, and a modulation whose halves are swapped.
    let sd3 = [
        ("transformer.transformer_blocks.0.attn.to_k", [192, 192]),
        ("transformer.transformer_blocks.1.attn.add_v_proj", [192, 192]),
        (
            "transformer.transformer_blocks.2.norm1_context.linear",
            [384, 192],
        ),
        ("transformer.transformer_blocks.0.ff.net.2", [192, 768]),
    ];
    let xl = [
        (
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
            [128, 128],
        ),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", [128, 128]),
        ("lora_te2_text_model_encoder_layers_4_self_attn_v_proj", [64, 64]),
    ];
    for (family, tensors) in [
        ("sd35-medium", lora(&sd3, ["lora_A", "lora_B"])),
        ("sdxl", lora(&xl, ["lora_down", "lora_up"])),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::of(family);
        model.write_folder(&folder.path().join("folder"));
        let in_folder = ModelFiles::at(folder.path().join("folder"));
        let file = ModelFiles::at(save(&model.original(), &folder.path().join("model.safetensors")));
        let lora = save(&tensors, &folder.path().join("lora.safetensors"));
        let with = Drawing {
            lora: Some(&lora),
            ..Drawing::of(family)
        };
        let expected = with.draw(&in_folder);
        assert!(with.draw(&file) == expected, "{family}");
        assert!(Drawing::of(family).draw(&file) != expected, "{family}: no effect");
    }
}

/// The files of single networks of `model` in `folder`.
fn network_files(model: &Model, prefixes: [&str; 4], folder: &Path) -> NetworkFiles {
    let file = |prefix: &str, name: &str| -> Option<PathBuf> {
        let tensors = model.below(prefix);
        (!tensors.is_empty()).then(|| save(&tensors, &folder.join(name)))
    };
    NetworkFiles {
        vae: file(prefixes[0], "v.safetensors"),
        clip_l: file(prefixes[1], "l.safetensors"),
        clip_g: file(prefixes[2], "g.safetensors"),
        t5xxl: file(prefixes[3], "t.safetensors"),
    }
}

/// The prefixes of the networks of `family` in the original file, in the order of [`NetworkFiles`].
fn prefixes(family: &str) -> [&'static str; 4] {
    const NONE: &str = "-";
    let vae = "first_stage_model.";
    match family {
        "sd15" => [vae, "cond_stage_model.transformer.", NONE, NONE],
        "sd21" => [vae, NONE, "cond_stage_model.model.", NONE],
        "sdxl" => [
            vae,
            "conditioner.embedders.0.transformer.",
            "conditioner.embedders.1.model.",
            NONE,
        ],
        "refiner" => [vae, NONE, "conditioner.embedders.0.model.", NONE],
        _ => [
            vae,
            "text_encoders.clip_l.transformer.",
            "text_encoders.clip_g.transformer.",
            "text_encoders.t5xxl.transformer.",
        ],
    }
}

#[test]
fn networks_in_files_of_their_own_draw_the_same() {
    for family in ["sd21", "sdxl", "sd35-large"] {
        let model = Model::of(family);
        let folder = tempfile::tempdir().unwrap();
        let whole = save(&model.original(), &folder.path().join("whole/model.safetensors"));
        let drawing = Drawing::of(family);
        let expected = drawing.draw(&ModelFiles::at(whole));
        // As ComfyUI has them: the denoising network without its prefix, the others elsewhere.
        let denoiser = model.below("model.diffusion_model.");
        let denoiser = save(
            &denoiser,
            &folder.path().join("diffusion_models/model.safetensors"),
        );
        let named = with_networks(
            &denoiser,
            network_files(&model, prefixes(family), &folder.path().join("elsewhere")),
        );
        assert!(drawing.draw(&named) == expected, "{family}: named");
        let beside = NetworkFiles {
            vae: None,
            ..network_files(&model, prefixes(family), &folder.path().join("text_encoders"))
        };
        std::fs::create_dir_all(folder.path().join("vae")).unwrap();
        std::fs::rename(
            folder.path().join("text_encoders/v.safetensors"),
            folder.path().join("vae/v.safetensors"),
        )
        .unwrap();
        assert_eq!(beside.files().count() + 1, named.networks.files().count());
        assert!(
            drawing.draw(&ModelFiles::at(&denoiser)) == expected,
            "{family}: beside"
        );
        // With the names of diffusers.
        let component = match family {
            "sd35-large" => "transformer",
            _ => "unet",
        };
        let renamed = folder.path().join("elsewhere/denoiser.safetensors");
        let renamed = with_networks(save(model.component(component), &renamed), named.networks.clone());
        assert!(drawing.draw(&renamed) == expected, "{family}: names of diffusers");
    }
}

/// What training programs leave in files, with wrong values.
fn left_over() -> Tensors {
    [
        ("alphas_cumprod", Dtype::F32, vec![1000]),
        ("betas", Dtype::F32, vec![1000]),
        ("sqrt_one_minus_alphas_cumprod", Dtype::F32, vec![1000]),
        ("posterior_variance", Dtype::F32, vec![1000]),
        ("log_one_minus_alphas_cumprod", Dtype::F32, vec![1000]),
        ("global_step", Dtype::I64, vec![1]),
        ("model_ema.decay", Dtype::F32, vec![1]),
        ("model_ema.num_updates", Dtype::I64, vec![1]),
        (
            "model_ema.diffusion_modelinput_blocks00weight",
            Dtype::F16,
            vec![32, 4, 3, 3],
        ),
        (
            "cond_stage_model.transformer.text_model.embeddings.position_ids",
            Dtype::F16,
            vec![1, 77],
        ),
        ("cond_stage_model.logit_scale", Dtype::F32, vec![1]),
    ]
    .into_iter()
    .map(|(name, element_type, shape)| (name.to_owned(), Tensor::zeros(element_type, &shape)))
    .collect()
}

#[test]
fn what_training_left_behind_changes_nothing() {
    let model = Model::of("sd15");
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = model.original();
    let drawing = Drawing::of("sd15");
    let expected = drawing.draw(&ModelFiles::at(save(
        &tensors,
        &folder.path().join("clean.safetensors"),
    )));
    tensors.extend(left_over());
    for name in ["a/model.safetensors", "b/model.ckpt"] {
        let file = save(&tensors, &folder.path().join(name));
        assert!(drawing.draw(&ModelFiles::at(file)) == expected, "{name}");
    }
    // Some files lack a part of the names of the text encoder.
    let renamed = tensors.into_iter().map(|(name, tensor)| {
        let bare = name.replace("transformer.text_model.", "transformer.");
        (bare, tensor)
    });
    let file = save(&renamed.collect(), &folder.path().join("c/model.safetensors"));
    assert!(
        drawing.draw(&ModelFiles::at(file)) == expected,
        "without `text_model.`"
    );
}

#[test]
fn projections_of_another_rank_draw_the_same() {
    let model = Model::of("sdxl");
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = model.original();
    let drawing = Drawing::of("sdxl");
    let expected = drawing.draw(&ModelFiles::at(save(
        &tensors,
        &folder.path().join("model.safetensors"),
    )));
    let mut changed = 0;
    for (name, tensor) in &mut tensors {
        if name.ends_with("proj_in.weight") || name.contains(".1.proj_out.weight") {
            tensor.shape.extend([1, 1]);
            changed += 1;
        } else if name.contains("mid.attn_1.") && tensor.shape.len() == 4 {
            tensor.shape.pop();
            changed += 1;
        }
    }
    assert!(changed > 20, "{changed}");
    let file = save(&tensors, &folder.path().join("other/model.safetensors"));
    assert!(drawing.draw(&ModelFiles::at(file)) == expected);
}

#[test]
fn velocity_without_signal_at_the_last_timestep_is_the_reference_s() {
    let model = Model::of("sdxl");
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = model.original();
    for name in ["v_pred", "ztsnr"] {
        tensors.insert(name.to_owned(), Tensor::zeros(Dtype::F32, &[0]));
    }
    let drawing = Drawing {
        steps: 4,
        ..Drawing::of("sdxl")
    };
    let mut draw = |name: &str| {
        let file = save(&tensors, &folder.path().join(name));
        let drawn = drawing.draw(&ModelFiles::at(file));
        tensors.remove("ztsnr");
        drawn
    };
    let expected = Pixels::read(&fixtures().join("single_files/sdxl-v.png"));
    draw("model.ckpt").must_be_near(&expected, "sdxl-v");
    let with_signal = draw("other.ckpt");
    let pairs = with_signal.bytes.iter().zip(&expected.bytes);
    let difference = pairs.map(|(one, other)| one.abs_diff(*other)).max().unwrap();
    assert!(difference > 2, "{difference}");
}
