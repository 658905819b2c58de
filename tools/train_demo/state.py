"""Training's state on disk: f32 weights of all parts in shards of safetensors."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SHARD = 12_000_000


def save(folder: Path, vae, model) -> None:
    """Writes `state-0.safetensors` and so on, with the autoencoder's shift and scale."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"vae.{name}": value for name, value in vae.state_dict().items()}
    tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors["scale"] = torch.tensor([vae.config.shift_factor, vae.config.scaling_factor])
    shards, size = [{}], 0
    for name, value in tensors.items():
        if size + value.nbytes > SHARD:
            shards, size = shards + [{}], 0
        shards[-1][name] = value.detach().float().cpu().contiguous().clone()
        size += value.nbytes
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"state-{number}.safetensors")


def load(folder: Path, vae, model) -> None:
    """Reads what `save` wrote."""
    tensors = {}
    for path in sorted(Path(folder).glob("state-*.safetensors")):
        tensors |= load_file(path)
    shift, scale = tensors.pop("scale").tolist()
    vae.register_to_config(shift_factor=round(shift, 4), scaling_factor=round(scale, 4))
    vae.load_state_dict({name.removeprefix("vae."): value for name, value in tensors.items() if name.startswith("vae.")})
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
