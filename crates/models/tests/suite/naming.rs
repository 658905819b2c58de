//! The names of whole networks in other programs, there and back.

use std::collections::{BTreeMap, BTreeSet};

use sd_weights::{Layout, Naming, Translated};

// The networks that full-size models are synthesized from.
#[allow(dead_code)] // Other tests use the rest.
#[path = "../../examples/synthesize/networks/mod.rs"]
mod networks;

use networks::Tensor;
use networks::sd3::Sd3;
use networks::text::{Clip, T5};
use networks::unet::UNet;
use networks::vae::Vae;

/// Translates the names of `tensors` to the other program of `naming` and back. The result are the names
/// there, each with the layouts of the tensors that it holds.
#[track_caller]
fn there(naming: Naming, tensors: &[Tensor]) -> BTreeMap<String, Vec<Layout>> {
    let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let translation = naming.translation(names.iter().copied());
    let others: BTreeSet<String> = names
        .iter()
        .map(|name| {
            translation
                .other_name(name)
                .unwrap_or_else(|| panic!("{name}"))
                .name
        })
        .collect();
    // Derived from the names of the other program alone.
    let back = naming.translation(others.iter().map(String::as_str));
    let mut layouts: BTreeMap<String, Vec<Layout>> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for other in &others {
        for Translated { name, layout } in back.diffusers_names(other) {
            assert_eq!(
                translation.other_name(&name),
                Some(Translated {
                    name: other.clone(),
                    layout
                })
            );
            layouts.entry(other.clone()).or_default().push(layout);
            assert!(found.insert(name), "{other} has the name of another tensor");
        }
    }
    assert_eq!(found, names.iter().map(|name| (*name).to_owned()).collect());
    layouts
}

fn has(layouts: &BTreeMap<String, Vec<Layout>>, name: &str, expected: &[Layout]) {
    assert_eq!(layouts.get(name).map(Vec::as_slice), Some(expected), "{name}");
}

const THIRDS: [Layout; 3] = [
    Layout::Part { index: 0, of: 3 },
    Layout::Part { index: 1, of: 3 },
    Layout::Part { index: 2, of: 3 },
];

#[test]
fn every_tensor_of_a_unet_has_its_original_name() {
    for (unet, tensors, last_upsampler) in [
        (UNet::SD15, 686, "output_blocks.8.2.conv.weight"),
        (UNet::SD21, 686, "output_blocks.2.1.conv.weight"),
        (UNet::SDXL, 1680, "output_blocks.5.2.conv.weight"),
        (UNet::SDXL_REFINER, 1220, "output_blocks.8.2.conv.weight"),
    ] {
        let layouts = there(Naming::UNET, &unet.tensors());
        assert_eq!(layouts.len(), tensors);
        has(&layouts, last_upsampler, &[Layout::Same]);
        has(&layouts, "input_blocks.3.0.op.bias", &[Layout::Same]);
    }
}

#[test]
fn every_tensor_of_a_controlnet_has_its_original_name() {
    let layouts = there(
        Naming::CONTROLNET,
        &UNet::SD15.controlnet_tensors(&[16, 32, 96, 256]),
    );
    for name in [
        "zero_convs.11.0.weight",
        "middle_block_out.0.bias",
        "input_hint_block.14.weight",
        "input_blocks.11.0.in_layers.0.weight",
    ] {
        has(&layouts, name, &[Layout::Same]);
    }
}

#[test]
fn every_tensor_of_an_autoencoder_has_its_original_name() {
    for (vae, tensors) in [(Vae::SD, 248), (Vae::SD3, 244)] {
        let layouts = there(Naming::VAE, &vae.tensors());
        assert_eq!(layouts.len(), tensors);
        // The first level of diffusers is the last of the original code.
        has(&layouts, "decoder.up.3.upsample.conv.weight", &[Layout::Same]);
        has(
            &layouts,
            "decoder.up.0.block.0.nin_shortcut.weight",
            &[Layout::Same],
        );
        has(&layouts, "encoder.mid.attn_1.proj_out.weight", &[Layout::Same]);
    }
}

#[test]
fn every_tensor_of_a_transformer_has_its_original_name() {
    let shape = |layers, dual_attention_layers| Sd3 {
        layers,
        heads: layers,
        table_side: 192,
        dual_attention_layers,
        context: Sd3::CONTEXT,
        pooled: Sd3::POOLED,
    };
    for (transformer, tensors) in [(shape(24, 13), 665), (shape(38, 0), 923)] {
        let last = transformer.layers - 1;
        let layouts = there(Naming::MMDIT, &transformer.tensors());
        assert_eq!(layouts.len(), tensors);
        has(&layouts, "joint_blocks.0.x_block.attn.qkv.weight", &THIRDS);
        has(&layouts, "joint_blocks.0.context_block.attn.qkv.bias", &THIRDS);
        has(&layouts, "pos_embed", &[Layout::Same]);
        let modulation =
            |block: usize| format!("joint_blocks.{block}.context_block.adaLN_modulation.1.weight");
        has(&layouts, &modulation(0), &[Layout::Same]);
        has(&layouts, &modulation(last), &[Layout::HalvesSwapped]);
        has(
            &layouts,
            "final_layer.adaLN_modulation.1.bias",
            &[Layout::HalvesSwapped],
        );
    }
}

#[test]
fn every_tensor_of_a_text_encoder_has_its_other_names() {
    for clip in [Clip::HUGE, Clip::BIG] {
        let layouts = there(Naming::OPEN_CLIP, &clip.tensors());
        has(&layouts, "transformer.resblocks.0.attn.in_proj_weight", &THIRDS);
        has(&layouts, "positional_embedding", &[Layout::Same]);
        if clip.projects {
            has(&layouts, "text_projection", &[Layout::Transposed]);
        }
    }
    let bare = there(Naming::BARE_CLIP, &Clip::LARGE.tensors());
    has(&bare, "encoder.layers.11.mlp.fc1.weight", &[Layout::Same]);
    let gguf = there(Naming::T5_GGUF, &T5::XXL.tensors());
    has(&gguf, "enc.blk.0.attn_rel_b.weight", &[Layout::Same]);
    has(&gguf, "enc.blk.23.ffn_gate.weight", &[Layout::Same]);
}

#[test]
fn another_name_of_a_projection_is_read_too() {
    let translation = Naming::OPEN_CLIP.translation([]);
    let names = translation.diffusers_names("text_projection.weight");
    assert_eq!(
        names,
        [Translated {
            name: "text_projection.weight".to_owned(),
            layout: Layout::Same
        }]
    );
    assert_eq!(translation.diffusers_names("logit_scale"), []);
}
