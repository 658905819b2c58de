//! The namings of LoRA files, their match with a model, and files that are refused.

use crate::lora_files::{Files, adapters, assert_close, changed, held, random};
use candle_core::Tensor;
use sd_weights::{Error, ModelFamily, ModelPart, WeightType};

#[test]
fn every_naming_changes_the_layer_it_names() {
    let files = Files::new();
    let linear = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0";
    let network = files.network(&[
        (format!("{linear}.weight").as_str(), random(&[6, 5], 1)),
        ("down_blocks.0.resnets.0.conv1.weight", random(&[4, 3, 3, 3], 2)),
        ("down_blocks.1.resnets.0.conv1.weight", random(&[4, 3, 3, 3], 3)),
    ]);
    let (down, up) = (random(&[2, 5], 4), random(&[6, 2], 5));
    let flat = linear.replace('.', "_");
    let base = random(&[6, 5], 1);
    for (down_name, up_name) in [
        (
            format!("lora_unet_{flat}.lora_down.weight"),
            format!("lora_unet_{flat}.lora_up.weight"),
        ),
        (
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_out_0.lora_down.weight".to_owned(),
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_out_0.lora_up.weight".to_owned(),
        ),
        (
            format!("unet.{linear}.lora.down.weight"),
            format!("unet.{linear}.lora.up.weight"),
        ),
        (
            format!("unet.{linear}.lora_A.weight"),
            format!("unet.{linear}.lora_B.weight"),
        ),
        (
            format!("{linear}.lora_A.weight"),
            format!("{linear}.lora_B.weight"),
        ),
        (
            format!("base_model.model.{linear}.lora_A.weight"),
            format!("base_model.model.{linear}.lora_B.weight"),
        ),
        (
            format!("base_model.model.{linear}.lora_A.default.weight"),
            format!("base_model.model.{linear}.lora_B.default.weight"),
        ),
        (
            format!(
                "unet.{}.processor.to_out_lora.down.weight",
                linear.strip_suffix(".to_out.0").unwrap()
            ),
            format!(
                "unet.{}.processor.to_out_lora.up.weight",
                linear.strip_suffix(".to_out.0").unwrap()
            ),
        ),
    ] {
        let file = files
            .lora(&[(&down_name, down.clone()), (&up_name, up.clone())])
            .unwrap();
        let fit = file.fit(&[(ModelPart::Denoiser, &network)]).unwrap();
        assert_eq!(fit.matched(), 1, "{down_name}");
        let adapters = adapters(ModelPart::Denoiser, &[(&fit, 0.5)]);
        let found = held(&network, WeightType::F32, &adapters)
            .tensor(&format!("{linear}.weight"), &[6, 5])
            .unwrap();
        assert_close(&found, &changed(&base, &down, &up, 0.5), 1e-6);
    }
}

#[test]
fn fused_layers_are_split_and_exchanged_halves_put_right() {
    let files = Files::new();
    let block = "transformer_blocks.0";
    let network = files.network(&[
        (format!("{block}.attn.to_q.weight").as_str(), random(&[4, 4], 1)),
        (format!("{block}.attn.to_k.weight").as_str(), random(&[4, 4], 2)),
        (format!("{block}.attn.to_v.weight").as_str(), random(&[4, 4], 3)),
        (
            format!("{block}.norm1_context.linear.weight").as_str(),
            random(&[8, 4], 4),
        ),
        ("norm_out.linear.weight", random(&[8, 4], 4)),
    ]);
    let (down, up) = (random(&[2, 4], 5), random(&[12, 2], 6));
    let norm = |name: &str| {
        [
            (format!("{name}.lora_down.weight"), down.clone()),
            (format!("{name}.lora_up.weight"), up.narrow(0, 0, 8).unwrap()),
        ]
    };
    let tensors = [
        (
            "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight".to_owned(),
            down.clone(),
        ),
        (
            "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight".to_owned(),
            up.clone(),
        ),
    ]
    .into_iter()
    .chain(norm("lora_unet_joint_blocks_0_context_block_adaLN_modulation_1"))
    .chain(norm("lora_unet_final_layer_adaLN_modulation_1"))
    .collect::<Vec<_>>();
    let file = files.lora(&tensors).unwrap();
    let width = ModelFamily::StableDiffusion3 { width: Some(4) };
    assert_eq!(file.family(), Some(width));
    let fit = file.fit(&[(ModelPart::Denoiser, &network)]).unwrap();
    let adapters = adapters(ModelPart::Denoiser, &[(&fit, 1.0)]);
    assert_eq!((fit.matched(), adapters.tensor_count()), (3, 5));
    let weights = held(&network, WeightType::F32, &adapters);
    for (index, name) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
        let found = weights
            .tensor(&format!("{block}.attn.{name}.weight"), &[4, 4])
            .unwrap();
        let rows = up.narrow(0, 4 * index, 4).unwrap().contiguous().unwrap();
        let base = random(&[4, 4], index as u64 + 1);
        assert_close(&found, &changed(&base, &down, &rows, 1.0), 1e-6);
    }
    let halves = Tensor::cat(&[up.narrow(0, 4, 4).unwrap(), up.narrow(0, 0, 4).unwrap()], 0).unwrap();
    let expected = changed(&random(&[8, 4], 4), &down, &halves, 1.0);
    for name in [
        format!("{block}.norm1_context.linear.weight"),
        "norm_out.linear.weight".to_owned(),
    ] {
        assert_close(&weights.tensor(&name, &[8, 4]).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn text_encoders_are_distinguished() {
    let (one, two) = (Files::new(), Files::new());
    let layer = "text_model.encoder.layers.0.self_attn";
    let projections = |seed: u64| {
        ["q_proj", "k_proj", "v_proj", "out_proj"]
            .map(|name| (format!("{layer}.{name}.weight"), random(&[4, 4], seed)))
    };
    let open = |files: &Files, seed: u64| {
        let tensors = projections(seed);
        files.network(&tensors)
    };
    let (first, second) = (open(&one, 1), open(&two, 2));
    let pair = |name: &str, rows: usize| {
        [
            (format!("{name}.lora_down.weight"), random(&[2, 4], 3)),
            (format!("{name}.lora_up.weight"), random(&[rows, 2], 4)),
        ]
    };
    let tensors: Vec<(String, Tensor)> = pair("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 4)
        .into_iter()
        .chain(pair("lora_te2_transformer_resblocks_0_attn_in_proj", 12))
        .chain([
            (
                format!("text_encoder.{layer}.to_out_lora.down.weight"),
                random(&[2, 4], 3),
            ),
            (
                format!("text_encoder.{layer}.to_out_lora.up.weight"),
                random(&[4, 2], 4),
            ),
        ])
        .collect();
    let file = one.lora(&tensors).unwrap();
    let fit = file
        .fit(&[
            (ModelPart::TextEncoder, &first),
            (ModelPart::TextEncoder2, &second),
        ])
        .unwrap();
    assert_eq!(fit.matched(), 3);
    let count = |part| adapters(part, &[(&fit, 1.0)]).tensor_count();
    assert_eq!(
        (
            count(ModelPart::TextEncoder),
            count(ModelPart::TextEncoder2),
            count(ModelPart::Denoiser)
        ),
        (2, 3, 0)
    );
    let weights = held(
        &second,
        WeightType::F32,
        &adapters(ModelPart::TextEncoder2, &[(&fit, 1.0)]),
    );
    let found = weights
        .tensor(&format!("{layer}.v_proj.weight"), &[4, 4])
        .unwrap();
    let rows = random(&[12, 2], 4).narrow(0, 8, 4).unwrap().contiguous().unwrap();
    assert_close(
        &found,
        &changed(&random(&[4, 4], 2), &random(&[2, 4], 3), &rows, 1.0),
        1e-6,
    );
}

#[test]
fn a_mismatch_names_the_family_of_the_lora() {
    let files = Files::new();
    let attention = |width: usize| {
        [
            (
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight".to_owned(),
                random(&[8, 8], 1),
            ),
            (
                "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight".to_owned(),
                random(&[8, width], 1),
            ),
        ]
    };
    let tensors = attention(768);
    let network = files.network(&tensors);
    let pair = |name: &str, width: usize| {
        [
            (
                format!("lora_unet_{name}.lora_down.weight"),
                random(&[2, width], 1),
            ),
            (format!("lora_unet_{name}.lora_up.weight"), random(&[8, 2], 1)),
        ]
    };
    let refused = |layers: Vec<[(String, Tensor); 2]>| {
        let tensors: Vec<(String, Tensor)> = layers.into_iter().flatten().collect();
        let file = files.lora(&tensors).unwrap();
        file.fit(&[(ModelPart::Denoiser, &network)]).unwrap_err()
    };
    let of_xl = vec![
        pair("down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 8),
        pair("down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 2048),
    ];
    let error = refused(of_xl);
    assert!(
        matches!(
            error,
            Error::LoraDoesNotFit {
                matched: 1,
                layers: 2,
                family: Some(ModelFamily::StableDiffusionXl),
                model: Some(ModelFamily::StableDiffusion1),
                ..
            }
        ),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(
        message.contains("1 of its 2 layers")
            && message.contains("made for SDXL, the model is Stable Diffusion 1.x"),
        "{message}"
    );
    let error = refused(vec![pair("joint_blocks_0_x_block_attn_proj", 8)]);
    assert!(
        matches!(
            error,
            Error::LoraDoesNotFit {
                matched: 0,
                family: Some(ModelFamily::StableDiffusion3 { width: None }),
                ..
            }
        ),
        "{error:?}"
    );
    let error = refused(vec![pair("somewhere_else", 8)]);
    assert!(
        matches!(
            error,
            Error::LoraDoesNotFit {
                matched: 0,
                layers: 1,
                family: None,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn other_methods_and_damage_are_named() {
    let files = Files::new();
    let pair = || {
        [
            ("lora_unet_a.lora_down.weight", random(&[2, 4], 1)),
            ("lora_unet_a.lora_up.weight", random(&[4, 2], 1)),
        ]
    };
    for (name, method) in [
        ("lora_unet_a.oft_blocks", "OFT or BOFT"),
        ("lora_unet_a.on_input", "IA3"),
        ("lora_unet_a.a1.weight", "GLoRA"),
        ("lora_unet_a.lokr_t1", "LoKr with a core of the first factor"),
        ("lora_unet_a.diff", "full differences"),
    ] {
        let mut tensors = pair().to_vec();
        tensors.push((name, random(&[4, 1], 1)));
        let error = files.lora(&tensors).unwrap_err();
        assert!(
            matches!(&error, Error::UnsupportedLora { method: found, tensor, .. } if *found == method && tensor == name),
            "{error:?}"
        );
        assert!(error.to_string().contains(method));
    }
    let error = files.lora(&[("conv_in.weight", random(&[4, 4], 1))]).unwrap_err();
    assert!(matches!(error, Error::NotLora { tensors: 1, .. }), "{error:?}");
    let [down, up] = pair();
    for damaged in [
        vec![down.clone()],
        vec![down.clone(), ("lora_unet_a.lora_up.weight", random(&[4, 3], 1))],
        vec![down.clone(), ("lora_unet_a.lora_up.weight", random(&[4], 1))],
        vec![down.clone(), up.clone(), ("lora_unet_a.alpha", random(&[2], 1))],
        vec![
            down.clone(),
            up.clone(),
            ("lora_unet_a.lora_mid.weight", random(&[2, 3, 1, 1], 1)),
        ],
        vec![
            ("lora_unet_a.lora_down.weight", random(&[2, 4, 3], 1)),
            up.clone(),
        ],
    ] {
        let error = files.lora(&damaged).unwrap_err();
        assert!(
            matches!(&error, Error::BadLora { layer, .. } if layer == "a"),
            "{error:?}"
        );
    }
}
