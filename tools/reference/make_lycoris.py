"""LoHa, LoKr and DoRA files as LyCORIS saves them, a DoRA folder of PEFT's, and the weights that their own code makes of
those of a linear layer and of convolutions by 3 x 3 and 1 x 1."""

import json
import shutil

import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from paths import REPOSITORY

FOLDER = REPOSITORY / "crates" / "weights" / "tests" / "fixtures" / "lycoris"
SCALES = [1.0, 0.7]
RANK = 2
ALPHA = 1.5


class Network(nn.Module):
    """A layer of each kind, with the same weights every time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 36, bias=False)
        self.conv = nn.Conv2d(4, 36, 3, padding=1, bias=False)
        self.point = nn.Conv2d(4, 36, 1, bias=False)
        generator = torch.Generator("cpu").manual_seed(71)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)


# Each with the class, its settings and the tensors that one of the layers must have, so that no case is another one.
CASES = {
    "loha": (LohaModule, {}, ["hada_w1_a", "hada_w2_b"]),
    "loha-tucker": (LohaModule, {"use_tucker": True}, ["hada_t1", "hada_t2"]),
    "lokr": (LokrModule, {}, ["lokr_w1", "lokr_w2_a"]),
    "lokr-both": (LokrModule, {"decompose_both": True}, ["lokr_w1_a", "lokr_w2_a"]),
    # Which makes the first factor the larger one, and the second whole.
    "lokr-left": (
        LokrModule, {"decompose_both": True, "unbalanced_factorization": True, "factor": 2}, ["lokr_w1_a", "lokr_w2"],
    ),
    "lokr-full": (LokrModule, {"full_matrix": True}, ["lokr_w1", "lokr_w2"]),
    "lokr-tucker": (LokrModule, {"use_tucker": True}, ["lokr_t2"]),
    "dora": (LoConModule, {"weight_decompose": True}, ["dora_scale"]),
    "dora-inputs": (LoConModule, {"weight_decompose": True, "wd_on_out": False}, ["dora_scale"]),
    "dora-tucker": (LoConModule, {"weight_decompose": True, "use_tucker": True}, ["lora_mid.weight", "dora_scale"]),
    "loha-dora": (LohaModule, {"weight_decompose": True}, ["hada_w1_a", "dora_scale"]),
    "lokr-dora-inputs": (LokrModule, {"weight_decompose": True, "wd_on_out": False}, ["lokr_w1", "dora_scale"]),
}


def used_weight(module: nn.Module, layer: nn.Module) -> torch.Tensor:
    """The weight with which `module` computes its layer: that of the layer and what the module adds to it.

    This is what was trained. `get_merged_weight` of LyCORIS 4.1.3 multiplies the differences of LoHa and LoKr by
    alpha / rank twice, which neither the forward pass nor other programs do.
    """
    added = []

    def operation(x: torch.Tensor, weight: torch.Tensor, *_, **__) -> torch.Tensor:
        added.append(weight)
        return torch.zeros(())

    module.op = operation
    inputs = (1, layer.weight.shape[1], *([4, 4] if layer.weight.dim() == 4 else []))
    module(torch.zeros(inputs, dtype=torch.float64))
    (difference,) = added
    return layer.weight + difference


def lycoris(name: str, seed: int) -> dict[str, torch.Tensor]:
    """Writes the file `name`, and returns the weights of the network with it, by scale and layer."""
    kind, settings, expected = CASES[name]
    generator = torch.Generator("cpu").manual_seed(seed)
    tensors, weights = {}, {}
    for layer_name, layer in Network().double().named_children():
        module = kind(layer_name, layer, lora_dim=RANK, alpha=ALPHA, **settings).double().eval()
        for parameter_name, parameter in module.named_parameters():
            # In 32 bits, as in the file. The magnitudes stay near the norms.
            noise = torch.randn(parameter.shape, generator=generator)
            values = parameter.float() * (1 + noise / 4) if "dora_scale" in parameter_name else noise
            parameter.data = values.double()
        prefix = "lycoris" if seed % 2 else "lora_unet"
        for key, value in module.state_dict().items():
            tensors[f"{prefix}_{layer_name}.{key}"] = value.detach().float().contiguous()
        for scale in SCALES:
            is_dora = settings.get("weight_decompose", False)
            module.multiplier = 1.0 if is_dora else scale
            weight = used_weight(module, layer)
            if is_dora:
                # A scale interpolates, as in stable-diffusion-webui and ComfyUI. LyCORIS itself adds the whole
                # difference at any scale, so that a scale of nearly 0 is not nearly the model.
                weight = layer.weight + scale * (weight - layer.weight)
            weights[f"{name}.{scale}.{layer_name}"] = weight.detach().float().contiguous()
    for end in expected:
        assert any(key.endswith(f".{end}") for key in tensors), (name, end, list(tensors))
    save_file(tensors, FOLDER / f"{name}.safetensors")
    return weights


def peft(name: str, seed: int) -> dict[str, torch.Tensor]:
    """Writes the folder `name` with a DoRA, and returns the weights of the network with it, by scale and layer."""
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["linear", "conv", "point"], use_dora=True)
    model = get_peft_model(Network(), config)
    generator = torch.Generator("cpu").manual_seed(seed)
    for parameter_name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "lora_magnitude_vector" in parameter_name:
            parameter.data = parameter.data * (1 + noise / 4)
        elif "lora_" in parameter_name:
            parameter.data = noise / 2
    folder = FOLDER / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    settings = json.loads((folder / "adapter_config.json").read_text())
    for of_library in ("auto_mapping", "base_model_name_or_path"):
        settings[of_library] = None
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    merged = PeftModel.from_pretrained(Network(), folder).merge_and_unload().state_dict()
    before = Network().state_dict()
    return {
        f"{name}.{scale}.{key.removesuffix('.weight')}": before[key] + scale * (merged[key] - before[key])
        for scale in SCALES for key in before
    }


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    weights = {}
    for seed, name in enumerate(CASES, start=72):
        weights |= lycoris(name, seed)
    weights |= peft("peft-dora", 90)
    before = Network().state_dict()
    for key, value in weights.items():
        change = (value - before[f"{key.rsplit('.', 1)[1]}.weight"]).norm() / value.norm()
        assert 0.05 < change < 1.5, (key, change)
    save_file(before, FOLDER / "network.safetensors")
    save_file({key: value.contiguous() for key, value in weights.items()}, FOLDER / "merged.safetensors")
    print(f"lycoris: {len(weights)} weights")


if __name__ == "__main__":
    with torch.no_grad():
        main()
