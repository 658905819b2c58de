//! Parses the names of tensors in LoRA files into network, layer and role.
//!
//! Three namings are supported, with their variants. kohya-ss writes
//! `lora_unet_mid_block_…_to_q.lora_down.weight`, the name of the layer with underscores for dots; diffusers
//! `unet.mid_block.….to_q.lora.down.weight` or `unet.mid_block.….to_q.lora_A.weight`, and before that
//! `….attn1.processor.to_q_lora.down.weight`; PEFT alone
//! `base_model.model.mid_block.….to_q.lora_A.default.weight`. LyCORIS writes the names of kohya-ss with the
//! prefix `lora_unet_` or `lycoris_` and with roles of its own: `.hada_w1_a`, `.lokr_w2`, `.dora_scale`.

use super::ModelPart;

/// The role of a tensor in its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The matrix from the inputs of the layer to the rank.
    Down,
    /// The matrix from the rank to the outputs of the layer.
    Up,
    /// The core between them, of a convolution with Tucker decomposition.
    Middle,
    /// The scale, which is divided by the rank.
    Alpha,
    /// The first product of a LoHa: up, down and core.
    HadaW1A,
    HadaW1B,
    HadaT1,
    /// The second product of a LoHa.
    HadaW2A,
    HadaW2B,
    HadaT2,
    /// The first factor of a LoKr, as a whole or as up and down.
    LokrW1,
    LokrW1A,
    LokrW1B,
    /// The second factor of a LoKr, as a whole or as up, down and core.
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    /// The magnitudes of a DoRA in LyCORIS.
    DoraScale,
    /// The magnitudes of a DoRA in PEFT.
    MagnitudeVector,
}

/// The meaning of the name of a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// A tensor of the layer `module` of `part`. `part` is `None` where the name does not have it.
    Layer {
        part: Option<ModelPart>,
        module: &'a str,
        role: Role,
    },
    /// A tensor of another method than LoRA, with the name of the method.
    Unsupported(&'static str),
    /// An unknown tensor.
    Other,
}

const ROLES: [(&str, Role); 26] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_mid.weight", Role::Middle),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".hada_w1_a", Role::HadaW1A),
    (".hada_w1_b", Role::HadaW1B),
    (".hada_t1", Role::HadaT1),
    (".hada_w2_a", Role::HadaW2A),
    (".hada_w2_b", Role::HadaW2B),
    (".hada_t2", Role::HadaT2),
    (".lokr_w1", Role::LokrW1),
    (".lokr_w1_a", Role::LokrW1A),
    (".lokr_w1_b", Role::LokrW1B),
    (".lokr_w2", Role::LokrW2),
    (".lokr_w2_a", Role::LokrW2A),
    (".lokr_w2_b", Role::LokrW2B),
    (".lokr_t2", Role::LokrT2),
    (".dora_scale", Role::DoraScale),
];

/// Parts of names that show other methods.
const OTHER_METHODS: [(&str, &str); 6] = [
    (".lokr_t1", "LoKr with a core of the first factor"),
    (".oft_", "OFT or BOFT"),
    (".on_input", "IA3"),
    (".lora_embedding_", "embeddings"),
    (".lora_B.bias", "biases"),
    (".lora_up.bias", "biases"),
];

/// Suffixes of tensors that are not low-rank matrices.
const OTHER_ENDS: [(&str, &str); 6] = [
    (".a1.weight", "GLoRA"),
    (".lambda_layer", "T-LoRA"),
    (".diff", "full differences"),
    (".diff_b", "full differences"),
    (".w_norm", "norms"),
    (".b_norm", "norms"),
];

/// Prefixes of names. Where one is a prefix of another, the longer one comes first.
const PARTS: [(&str, ModelPart); 20] = [
    ("lora_unet_", ModelPart::Denoiser),
    ("lora_transformer_", ModelPart::Denoiser),
    ("lora_te_", ModelPart::TextEncoder),
    ("lora_te1_", ModelPart::TextEncoder),
    ("lora_te2_", ModelPart::TextEncoder2),
    ("lora_te3_", ModelPart::TextEncoder3),
    ("unet.", ModelPart::Denoiser),
    ("transformer.", ModelPart::Denoiser),
    ("model.diffusion_model.", ModelPart::Denoiser),
    ("diffusion_model.", ModelPart::Denoiser),
    ("text_encoder.", ModelPart::TextEncoder),
    ("text_encoder_2.", ModelPart::TextEncoder2),
    ("text_encoder_3.", ModelPart::TextEncoder3),
    ("text_encoders.clip_l.transformer.", ModelPart::TextEncoder),
    ("text_encoders.clip_l.", ModelPart::TextEncoder),
    ("text_encoders.clip_g.transformer.", ModelPart::TextEncoder2),
    ("text_encoders.clip_g.", ModelPart::TextEncoder2),
    ("text_encoders.t5xxl.transformer.", ModelPart::TextEncoder3),
    ("text_encoders.t5xxl.", ModelPart::TextEncoder3),
    ("lycoris_", ModelPart::Denoiser),
];

/// Parses the name of a tensor.
pub(super) fn parse(name: &str) -> Key<'_> {
    let by_part = OTHER_METHODS.iter().find(|(part, _)| name.contains(part));
    let by_end = || OTHER_ENDS.iter().find(|(end, _)| name.ends_with(end));
    if let Some((_, method)) = by_part.or_else(by_end) {
        return Key::Unsupported(method);
    }
    let Some((layer, role)) = role_of(name) else {
        return Key::Other;
    };
    let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
    let named = PARTS
        .iter()
        .find_map(|(prefix, part)| Some((*part, layer.strip_prefix(prefix)?)));
    let (part, module) = match named {
        Some((part, module)) => (Some(part), module),
        None => (None, layer),
    };
    Key::Layer { part, module, role }
}

/// The name of the layer and the role of the tensor.
fn role_of(name: &str) -> Option<(&str, Role)> {
    ROLES
        .iter()
        .find_map(|(suffix, role)| Some((name.strip_suffix(suffix)?, *role)))
        .or_else(|| {
            // PEFT inserts the name of the adapter.
            [(".lora_A.", Role::Down), (".lora_B.", Role::Up)]
                .into_iter()
                .find_map(|(middle, role)| {
                    let (layer, rest) = name.rsplit_once(middle)?;
                    let adapter = rest.strip_suffix(".weight")?;
                    (!adapter.contains('.')).then_some((layer, role))
                })
        })
        .or_else(|| {
            let (layer, rest) = name.rsplit_once(".lora_magnitude_vector")?;
            let adapter = rest.strip_suffix(".weight").unwrap_or(rest);
            let is_adapter = |name: &str| !name.is_empty() && !name.contains('.');
            let is_whole = adapter.is_empty() || adapter.strip_prefix('.').is_some_and(is_adapter);
            is_whole.then_some((layer, Role::MagnitudeVector))
        })
}

/// The normal form in which layer names are compared: underscores for dots, and without the `processor` that
/// early versions of diffusers put between an attention and its projections.
pub(super) fn flat(module: &str) -> String {
    module.replace('.', "_").replace("_processor_to_", "_to_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_naming_is_understood() {
        let layer = |part, module, role| Key::Layer { part, module, role };
        let denoiser = Some(ModelPart::Denoiser);
        for (name, key) in [
            (
                "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
                layer(denoiser, "mid_block_attentions_0_proj_in", Role::Down),
            ),
            (
                "lora_te2_text_model_encoder_layers_3_mlp_fc1.alpha",
                layer(
                    Some(ModelPart::TextEncoder2),
                    "text_model_encoder_layers_3_mlp_fc1",
                    Role::Alpha,
                ),
            ),
            (
                "lora_unet_conv_in.lora_mid.weight",
                layer(denoiser, "conv_in", Role::Middle),
            ),
            (
                "unet.mid_block.attentions.0.proj_in.lora.up.weight",
                layer(denoiser, "mid_block.attentions.0.proj_in", Role::Up),
            ),
            (
                "transformer.proj_out.lora_B.weight",
                layer(denoiser, "proj_out", Role::Up),
            ),
            (
                "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight",
                layer(
                    Some(ModelPart::TextEncoder),
                    "text_model.encoder.layers.0.mlp.fc1",
                    Role::Down,
                ),
            ),
            (
                "base_model.model.conv_in.lora_A.default.weight",
                layer(None, "conv_in", Role::Down),
            ),
            (
                "base_model.model.conv_in.lora_B.weight",
                layer(None, "conv_in", Role::Up),
            ),
            (
                "attn1.processor.to_q_lora.down.weight",
                layer(None, "attn1.processor.to_q", Role::Down),
            ),
            (
                "diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight",
                layer(denoiser, "joint_blocks.0.x_block.attn.qkv", Role::Down),
            ),
            ("lora_unet_norm.diff_b", Key::Unsupported("full differences")),
            (
                "lora_unet_conv_in.hada_w1_a",
                layer(denoiser, "conv_in", Role::HadaW1A),
            ),
            (
                "lycoris_transformer_blocks_0_attn_to_q.lokr_w2",
                layer(denoiser, "transformer_blocks_0_attn_to_q", Role::LokrW2),
            ),
            (
                "lora_te1_text_model_encoder_layers_3_mlp_fc1.dora_scale",
                layer(
                    Some(ModelPart::TextEncoder),
                    "text_model_encoder_layers_3_mlp_fc1",
                    Role::DoraScale,
                ),
            ),
            (
                "unet.conv_in.lora_magnitude_vector",
                layer(denoiser, "conv_in", Role::MagnitudeVector),
            ),
            (
                "base_model.model.conv_in.lora_magnitude_vector.default.weight",
                layer(None, "conv_in", Role::MagnitudeVector),
            ),
            (
                "conv_in.lora_magnitude_vector.weight",
                layer(None, "conv_in", Role::MagnitudeVector),
            ),
            ("conv_in.lora_magnitude_vector.a.b", Key::Other),
            ("lora_unet_conv_in.oft_blocks", Key::Unsupported("OFT or BOFT")),
            ("lora_unet_conv_in.a1.weight", Key::Unsupported("GLoRA")),
            ("lora_unet_conv_in.on_input", Key::Unsupported("IA3")),
            (
                "lora_unet_conv_in.lokr_t1",
                Key::Unsupported("LoKr with a core of the first factor"),
            ),
            ("conv_in.weight", Key::Other),
            ("a.lora_A.b.c.weight", Key::Other),
        ] {
            assert_eq!(parse(name), key, "{name}");
        }
        assert_eq!(flat("a.attn1.processor.to_q"), "a_attn1_to_q");
    }
}
