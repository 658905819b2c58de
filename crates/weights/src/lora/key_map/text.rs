//! Names of CLIP layers: those of OpenCLIP, and those that diffusers used before PEFT.

use super::KeyMap;

/// The attention projections in transformers, and in the attention processors of diffusers.
const PROJECTIONS: [(&str, &str); 4] = [
    ("q_proj", "to_q"),
    ("k_proj", "to_k"),
    ("v_proj", "to_v"),
    ("out_proj", "to_out"),
];

pub(super) fn add(key_map: &mut KeyMap, names: &[&str]) {
    for name in names {
        // The text encoder is saved with and without its prefix inside a whole CLIP model.
        match name.strip_prefix("text_model.") {
            Some(inner) => key_map.also(name, inner),
            None => key_map.also(name, &format!("text_model.{name}")),
        }
        for (projection, old) in PROJECTIONS {
            if let Some(attention) = name.strip_suffix(projection) {
                key_map.also(name, &format!("{attention}{old}"));
            }
        }
        let Some((model, layer)) = name.rsplit_once("encoder.layers.") else {
            continue;
        };
        let Some((index, inner)) = layer.split_once('.') else {
            continue;
        };
        let block = format!("transformer.resblocks.{index}");
        match inner {
            "self_attn.out_proj" => key_map.also(name, &format!("{block}.attn.out_proj")),
            "mlp.fc1" => key_map.also(name, &format!("{block}.mlp.c_fc")),
            "mlp.fc2" => key_map.also(name, &format!("{block}.mlp.c_proj")),
            "self_attn.q_proj" => {
                let of =
                    |projection: &str| format!("{model}encoder.layers.{index}.self_attn.{projection}_proj");
                let fused = [of("q"), of("k"), of("v")];
                key_map.joined(
                    &fused.each_ref().map(String::as_str),
                    &format!("{block}.attn.in_proj"),
                );
            }
            _ => {}
        }
    }
}
