"""The weights of tiny models' components as torch.save writes them, for folders without safetensors: the values of the
components that make_families.py made."""

import json

import torch
from safetensors.torch import load_file

from paths import REPOSITORY

FIXTURES = REPOSITORY / "crates" / "pipeline" / "tests" / "fixtures"
MODEL = FIXTURES / "families" / "sd15"
FOLDER = FIXTURES / "torch"


def main() -> None:
    (FOLDER / "text_encoder").mkdir(parents=True, exist_ok=True)
    (FOLDER / "vae").mkdir(parents=True, exist_ok=True)
    # In shards with their index, as transformers saves what is large.
    state = load_file(MODEL / "text_encoder" / "model.safetensors")
    # Old files hold this too, in whole numbers.
    state["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    names = sorted(state)
    shards = [names[0::2], names[1::2]]
    files = [f"pytorch_model-{index + 1:05}-of-00002.bin" for index in range(2)]
    for file, shard in zip(files, shards):
        torch.save({name: state[name] for name in shard}, FOLDER / "text_encoder" / file)
    weight_map = {name: file for file, shard in zip(files, shards) for name in shard}
    index = {"metadata": {"total_size": sum(value.nbytes for value in state.values())}, "weight_map": weight_map}
    (FOLDER / "text_encoder" / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")
    torch.save(load_file(MODEL / "vae" / "diffusion_pytorch_model.safetensors"), FOLDER / "vae" / "diffusion_pytorch_model.bin")
    for file in sorted(FOLDER.rglob("*.*")):
        print(f"torch/{file.relative_to(FOLDER)}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
