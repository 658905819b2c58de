"""A tiny UNet of the build of SDXL's, LoRA files for it in three namings and folders as PEFT saves them, and its weights once
diffusers or PEFT has fused them."""

import json
import shutil

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from paths import REPOSITORY
from weights import randomise

FOLDER = REPOSITORY / "crates" / "weights" / "tests" / "fixtures" / "lora"
SCALE = 0.7


def network() -> UNet2DConditionModel:
    """The network, with the same weights every time."""
    model = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=[4, 4, 8], norm_num_groups=2,
        layers_per_block=2, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], cross_attention_dim=6,
        attention_head_dim=4, transformer_layers_per_block=[1, 1, 2], use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=2, projection_class_embeddings_input_dim=20,
    )
    randomise(model, 51)
    return model


def layers(model: UNet2DConditionModel, wanted: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights of linear layers and convolutions whose names end in one of `wanted`."""
    return {
        name.removesuffix(".weight"): tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if any(name.endswith(f"{end}.weight") for end in wanted)
    }


def matrices(shape: tuple[int, ...], rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """`down` and `up` for a layer whose weight has `shape`."""
    down = torch.randn((rank, *shape[1:]), generator=generator)
    up = torch.randn((shape[0], rank, *([1, 1] if len(shape) == 4 else [])), generator=generator) / 4
    return down, up


def write_kohya(name: str, naming, wanted: list[str], seed: int) -> None:
    """A file of kohya-ss whose layers `naming` names. One alpha for all: diffusers 0.42 loses other ones of attentions."""
    generator = torch.Generator("cpu").manual_seed(seed)
    tensors = {}
    for index, (layer, shape) in enumerate(layers(network(), wanted).items()):
        rank = 2 + index % 3
        down, up = matrices(shape, rank, generator)
        key = "lora_unet_" + naming(layer).replace(".", "_")
        tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = down, up
        tensors[f"{key}.alpha"] = torch.tensor(1.5)
    save_file(tensors, FOLDER / f"{name}.safetensors")


def write_diffusers(name: str, wanted: list[str], seed: int) -> None:
    """A file of diffusers, whose header says that alpha is not the rank."""
    model = network()
    config = LoraConfig(r=3, lora_alpha=5, target_modules=wanted, alpha_pattern={"attn1.to_q": 2})
    model.add_adapter(config)
    generator = torch.Generator("cpu").manual_seed(seed)
    for parameter_name, parameter in model.named_parameters():
        if "lora_" in parameter_name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 2
    Loader.save_lora_weights(
        FOLDER, unet_lora_layers=get_peft_model_state_dict(model), weight_name=f"{name}.safetensors",
        unet_lora_adapter_metadata=model.peft_config["default"].to_dict(),
    )


def fuse(name: str) -> dict[str, torch.Tensor]:
    """The weights that diffusers changes for the file `name`, as it changes them."""
    model = network()
    state, alphas, metadata = Loader.lora_state_dict(
        FOLDER / f"{name}.safetensors", unet_config=model.config, return_lora_metadata=True
    )
    Loader.load_lora_into_unet(state, alphas, model, adapter_name="it", metadata=metadata)
    model.set_adapters(["it"], [SCALE])
    model.fuse_lora()
    model.unload_lora()
    before = network().state_dict()
    changed = {key: value for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    print(f"lora/{name}: {len(load_file(FOLDER / f'{name}.safetensors'))} tensors, {len(changed)} weights changed")
    assert changed
    return changed


def original(layer: str) -> str:
    """The name of a layer in SDXL's own code, written from the layout of this network: 2 blocks a level."""
    words = layer.split(".")
    inner = ".".join(words[4:])
    match words[0]:
        case "down_blocks":
            return f"input_blocks.{1 + 3 * int(words[1]) + int(words[3])}.1.{inner}"
        case "mid_block":
            return f"middle_block.1.{'.'.join(words[3:])}"
        case "up_blocks":
            return f"output_blocks.{3 * int(words[1]) + int(words[3])}.1.{inner}"
    raise ValueError(layer)


# Folders of PEFT's, whose settings lie beside the weights.
PEFT = {
    "peft-patterns": LoraConfig(
        r=3, lora_alpha=6, target_modules=["to_q", "to_v", "conv_shortcut"],
        # The second is a pattern; the first that fits a layer counts.
        rank_pattern={"attn2.to_q": 2}, alpha_pattern={"attn1.to_q": 2, r"down_blocks\.[01]\..*to_q": 5, "to_q": 4},
    ),
    "peft-rslora": LoraConfig(r=4, lora_alpha=6, target_modules=["to_k", "conv_shortcut"], use_rslora=True),
}


def write_peft(name: str, seed: int) -> None:
    """The folder `name`, and the weights that PEFT changes for it, as it changes them."""
    model = get_peft_model(network(), PEFT[name])
    generator = torch.Generator("cpu").manual_seed(seed)
    for parameter_name, parameter in sorted(model.named_parameters()):
        if "lora_" in parameter_name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 2
    folder = FOLDER / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    settings = json.loads((folder / "adapter_config.json").read_text())
    # Which depends on nothing but the library.
    for of_library in ("auto_mapping", "base_model_name_or_path"):
        settings[of_library] = None
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    fused = PeftModel.from_pretrained(network(), folder).merge_and_unload().state_dict()
    before = network().state_dict()
    changed = {key: value.contiguous() for key, value in fused.items() if not torch.equal(value, before[key])}
    print(f"lora/{name}: {len(changed)} weights changed")
    assert changed
    save_file(changed, FOLDER / f"{name}.fused.safetensors")


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    attention = ["to_q", "to_v", "to_out.0", "ff.net.0.proj", "proj_in"]
    write_diffusers("diffusers", ["to_q", "to_k", "to_out.0", "conv1", "conv_shortcut", "proj_out"], 61)
    write_kohya("kohya", lambda layer: layer, [*attention, "conv2", "downsamplers.0.conv", "time_emb_proj"], 62)
    write_kohya("original", original, attention, 63)
    for name in ["diffusers", "kohya", "original"]:
        save_file({key: value.contiguous() for key, value in fuse(name).items()}, FOLDER / f"{name}.fused.safetensors")
    save_file({key: value.contiguous() for key, value in network().state_dict().items()}, FOLDER / "unet.safetensors")
    for seed, name in enumerate(PEFT, start=64):
        write_peft(name, seed)


if __name__ == "__main__":
    main()
