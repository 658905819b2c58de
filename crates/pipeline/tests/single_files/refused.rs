//! Files that hold something else.

use std::path::Path;

use safetensors::Dtype;
use sd_pipeline::{FileContent, ModelFiles};
use sd_weights::Error;

use crate::model::{Model, Tensor, Tensors, save};

/// A file with small tensors of these names.
fn file(names: &[&str], path: &Path) -> ModelFiles {
    let tensor = |name: &&str| ((*name).to_owned(), Tensor::zeros(Dtype::F16, &[4, 4]));
    ModelFiles::at(save(&names.iter().map(tensor).collect(), path))
}

#[test]
fn models_of_other_families_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (names, wanted) in [
        (
            [
                "double_blocks.0.img_attn.qkv.weight",
                "single_blocks.0.linear1.weight",
            ]
            .as_slice(),
            "FLUX.1",
        ),
        (
            &[
                "double_blocks.0.img_attn.qkv.weight",
                "double_stream_modulation_img.lin.weight",
            ],
            "FLUX.2",
        ),
        (
            &[
                "distilled_guidance_layer.in_proj.weight",
                "double_blocks.0.img_attn.qkv.weight",
            ],
            "Chroma",
        ),
        (
            &[
                "double_blocks.0.img_attn.qkv.weight",
                "nerf_blocks.0.param_generator.weight",
                "distilled_guidance_layer.in_proj.weight",
            ],
            "Chroma",
        ),
        (
            &[
                "double_blocks.0.img_attn_qkv.weight",
                "single_blocks.0.linear1.weight",
            ],
            "Hunyuan",
        ),
        (
            &[
                "transformer_blocks.0.img_mod.1.weight",
                "img_in.weight",
                "txt_in.weight",
            ],
            "Qwen-Image",
        ),
        (
            &[
                "cap_embedder.1.weight",
                "layers.0.attention.qkv.weight",
                "noise_refiner.0.attention.qkv.weight",
            ],
            "Z-Image",
        ),
        (
            &[
                "blocks.0.cross_attn.k.weight",
                "head.modulation",
                "patch_embedding.weight",
            ],
            "Wan",
        ),
        (
            &["llm_adapter.blocks.0.weight", "blocks.0.self_attn.q_proj.weight"],
            "Anima",
        ),
        (
            &["txtfusion.blocks.0.weight", "blocks.0.attn.qkv.weight"],
            "Krea 2",
        ),
        (
            &["double_layers.0.attn.w1q.weight", "positional_encoding"],
            "AuraFlow",
        ),
        (
            &[
                "adaln_single.emb.timestep_embedder.linear_1.weight",
                "transformer_blocks.0.attn1.to_q.weight",
            ],
            "PixArt",
        ),
        (
            &["clip_txt_pooled_mapper.weight", "clf.1.weight"],
            "Stable Cascade",
        ),
    ] {
        for (prefix, ending) in [
            ("model.diffusion_model.", "safetensors"),
            ("diffusion_model.", "ckpt"),
            ("", "safetensors"),
        ] {
            let names: Vec<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let path = folder.path().join(format!("model.{ending}"));
            let error = file(&names, &path).open().unwrap_err();
            let Error::OtherFamily { family, tensor, .. } = &error else {
                panic!("{wanted}: {error}");
            };
            assert!(family.contains(wanted), "{wanted}: {family}");
            assert!(names.contains(&tensor.as_str()), "{tensor}");
        }
    }
}

#[test]
fn a_whole_model_of_another_family_is_named_though_its_encoders_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = Model::of("sd3-medium").original();
    tensors.retain(|name, _| !name.starts_with("model.diffusion_model."));
    let name = "model.diffusion_model.double_blocks.0.img_attn.qkv.weight";
    tensors.insert(name.to_owned(), Tensor::zeros(Dtype::F16, &[4, 4]));
    let path = folder.path().join("model.safetensors");
    let error = ModelFiles::at(save(&tensors, &path)).open().unwrap_err();
    assert!(
        matches!(error, Error::OtherFamily { family: "FLUX.1", .. }),
        "{error}"
    );
}

#[test]
fn relatives_of_stable_diffusion_that_are_not_supported_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::of("sd15");
    let with_inputs = |inputs: usize| {
        let mut tensors = model.original();
        let name = "model.diffusion_model.input_blocks.0.0.weight";
        let rows = tensors[name].shape[0];
        tensors.insert(name.to_owned(), Tensor::zeros(Dtype::F16, &[rows, inputs, 3, 3]));
        tensors
    };
    let video = || {
        let mut tensors = with_inputs(8);
        let name = "model.diffusion_model.input_blocks.1.0.time_stack.in_layers.2.weight";
        tensors.insert(name.to_owned(), Tensor::zeros(Dtype::F16, &[4, 4, 3, 1, 1]));
        tensors
    };
    for (tensors, wanted) in [
        (with_inputs(5), "depth"),
        (with_inputs(7), "upscaler"),
        (with_inputs(8), "InstructPix2Pix"),
        (video(), "Stable Video Diffusion"),
    ] {
        let path = folder.path().join("model.safetensors");
        let error = ModelFiles::at(save(&tensors, &path)).open().unwrap_err();
        assert!(
            matches!(&error, Error::OtherFamily { family, .. } if family.contains(wanted)),
            "{wanted}: {error}"
        );
    }
}

#[test]
fn what_is_no_model_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (names, wanted) in [
        (
            [
                "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
                "lora_unet_down_blocks_0_attentions_0_proj_in.alpha",
            ]
            .as_slice(),
            FileContent::Lora,
        ),
        (
            &[
                "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
                "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
            ],
            FileContent::Lora,
        ),
        (
            &["diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight"],
            FileContent::Lora,
        ),
        // For another family it is a LoRA all the same.
        (
            &[
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight",
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight",
            ],
            FileContent::Lora,
        ),
        (
            &[
                "control_model.input_blocks.0.0.weight",
                "control_model.zero_convs.0.0.weight",
                "control_model.input_hint_block.0.weight",
            ],
            FileContent::ControlNet,
        ),
        (
            &[
                "controlnet_cond_embedding.conv_in.weight",
                "controlnet_down_blocks.0.weight",
                "down_blocks.0.resnets.0.conv1.weight",
                "conv_in.weight",
            ],
            FileContent::ControlNet,
        ),
        (
            &[
                "conv_first.weight",
                "body.0.rdb1.conv1.weight",
                "conv_last.weight",
            ],
            FileContent::Upscaler,
        ),
        (
            &["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"],
            FileContent::Upscaler,
        ),
        (&["emb_params"], FileContent::Embedding),
        (&["string_to_param.*"], FileContent::Embedding),
        (&["clip_g", "clip_l"], FileContent::Embedding),
        (&["something.weight"], FileContent::Unknown),
    ] {
        for ending in ["safetensors", "ckpt"] {
            let files = file(names, &folder.path().join(format!("model.{ending}")));
            match files.open().unwrap_err() {
                Error::NoModel { what, .. } => assert_eq!(what, wanted, "{names:?}"),
                other => panic!("{wanted}: {other}"),
            }
        }
    }
}

#[test]
fn a_single_network_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let xl = Model::of("sdxl");
    let third = Model::of("sd3-medium");
    let networks: [(Tensors, &str); 5] = [
        (xl.below("first_stage_model."), "an autoencoder (VAE)"),
        (xl.component("vae").clone(), "an autoencoder (VAE)"),
        (
            third.below("text_encoders.clip_l.transformer."),
            "the text encoder CLIP-L",
        ),
        (
            xl.below("conditioner.embedders.1.model."),
            "the text encoder OpenCLIP-bigG",
        ),
        (
            third.below("text_encoders.t5xxl.transformer."),
            "the text encoder T5",
        ),
    ];
    for (tensors, wanted) in networks {
        let file = save(&tensors, &folder.path().join("model.safetensors"));
        let message = ModelFiles::at(file).open().unwrap_err().to_string();
        assert!(
            message.contains(&format!("holds {wanted}, not a model")),
            "{message}"
        );
    }
}
