"""The names of tensors in the original files of Stable Diffusion, which hold a whole model, and how these files lay out the values.

Written for `make_single_files.py` after the original code (CompVis/stable-diffusion, Stability-AI/generative-models,
Stability-AI/sd3.5, mlfoundations/open_clip), so that neither diffusers nor the Rust code checks itself.
"""

import re
from dataclasses import dataclass

# How an original tensor consists of those of diffusers.
SAME, THIRDS, SWAPPED, TRANSPOSED, CONVOLUTION = "same", "thirds", "halves_swapped", "transposed", "convolution"
# Residual blocks a level on the way up, and on the way down with the downsampler.
PER_LEVEL = 3

RESIDUAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
STREAMS = {
    "norm1.linear": "x_block.adaLN_modulation.1", "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj", "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj", "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q", "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q", "attn.norm_added_k": "context_block.attn.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2", "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
FUSED = {
    "attn.to_q": ("x_block.attn.qkv", 0), "attn.to_k": ("x_block.attn.qkv", 1), "attn.to_v": ("x_block.attn.qkv", 2),
    "attn2.to_q": ("x_block.attn2.qkv", 0), "attn2.to_k": ("x_block.attn2.qkv", 1), "attn2.to_v": ("x_block.attn2.qkv", 2),
    "attn.add_q_proj": ("context_block.attn.qkv", 0), "attn.add_k_proj": ("context_block.attn.qkv", 1),
    "attn.add_v_proj": ("context_block.attn.qkv", 2),
}


@dataclass(frozen=True)
class Place:
    """Where a tensor of diffusers lies: the original name, the form, and which third it is."""

    name: str
    form: str = SAME
    part: int = 0


def unet(name: str, upsamplers: dict[int, int]) -> Place:
    """`upsamplers` has the slot of the upsampler of each level: behind the attention, where there is one."""
    for module, original in [
        ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
        ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    ]:
        if name.startswith(module + "."):
            return Place(name.replace(module, original, 1))
    side, rest = name.split(".", 1)
    if side == "mid_block":
        kind, index, inside = rest.split(".", 2)
        if kind == "attentions":
            return Place(f"middle_block.1.{inside}")
        return Place(f"middle_block.{2 * int(index)}.{_replaced(inside, RESIDUAL)}")
    level, kind, index, inside = rest.split(".", 3)
    level, index = int(level), int(index)
    if side == "down_blocks":
        if kind == "downsamplers":
            return Place(f"input_blocks.{PER_LEVEL * (level + 1)}.0.{inside.replace('conv', 'op', 1)}")
        block = f"input_blocks.{1 + PER_LEVEL * level + index}"
    else:
        if kind == "upsamplers":
            return Place(f"output_blocks.{PER_LEVEL * level + 2}.{upsamplers[level]}.{inside}")
        block = f"output_blocks.{PER_LEVEL * level + index}"
    if kind == "attentions":
        return Place(f"{block}.1.{inside}")
    return Place(f"{block}.0.{_replaced(inside, RESIDUAL)}")


def vae(name: str, levels: int) -> Place:
    form = SAME
    if ".attentions.0." in name:
        coder, inside = name.split(".mid_block.attentions.0.")
        names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
        form = SAME if "norm" in inside or inside.endswith("bias") else CONVOLUTION
        return Place(f"{coder}.mid.attn_1.{_replaced(inside, names)}", form)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda found: f"up.{levels - 1 - int(found[1])}.block.", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda found: f"up.{levels - 1 - int(found[1])}.upsample.", name)
    return Place(name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut"), form)


def open_clip(name: str) -> Place:
    name = name.removeprefix("text_model.")
    if name == "text_projection.weight":
        return Place("text_projection", TRANSPOSED)
    if name == "embeddings.token_embedding.weight":
        return Place("token_embedding.weight")
    if name == "embeddings.position_embedding.weight":
        return Place("positional_embedding")
    if name.startswith("final_layer_norm."):
        return Place(name.replace("final_layer_norm", "ln_final"))
    layer, inside = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)", name).groups()
    block = f"transformer.resblocks.{layer}"
    fused = re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", inside)
    if fused:
        return Place(f"{block}.attn.in_proj_{fused[2]}", THIRDS, "qkv".index(fused[1]))
    return Place(f"{block}.{_replaced(inside, OPEN_CLIP_LAYER)}")


def mmdit(name: str, blocks: int) -> Place:
    for module, original in [
        ("pos_embed.proj", "x_embedder.proj"), ("pos_embed.pos_embed", "pos_embed"), ("proj_out", "final_layer.linear"),
        ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
        ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"), ("context_embedder", "context_embedder"),
    ]:
        if name.startswith(module):
            return Place(name.replace(module, original, 1))
    if name.startswith("norm_out.linear."):
        return Place(name.replace("norm_out.linear", "final_layer.adaLN_modulation.1"), SWAPPED)
    block, inside = re.fullmatch(r"transformer_blocks\.(\d+)\.(.*)", name).groups()
    module, kind = inside.rsplit(".", 1)
    if module in FUSED:
        fused, part = FUSED[module]
        return Place(f"joint_blocks.{block}.{fused}.{kind}", THIRDS, part)
    is_last = int(block) == blocks - 1
    form = SWAPPED if module == "norm1_context.linear" and is_last else SAME
    return Place(f"joint_blocks.{block}.{STREAMS[module]}.{kind}", form)


def _replaced(inside: str, names: dict[str, str]) -> str:
    module, kind = inside.rsplit(".", 1)
    return f"{names[module]}.{kind}"
