"""Textual inversion: CLIPs with more token embeddings, and files of such embeddings as each program writes them."""

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from checks import check_inputs, describe
from make_clip import LENGTH, texts
from paths import MODELS, REPOSITORY

ADDED = 3
FILES = REPOSITORY / "crates" / "weights" / "tests" / "fixtures" / "embeddings"


@torch.no_grad()
def make(case: str, kind: type, padding: int, seed: int) -> None:
    """The outputs of the encoder of `make_clip.py` for texts with ids of added embeddings."""
    print(f"clip/{case}")
    folder = MODELS / "clip" / case
    model = kind.from_pretrained(folder).eval()
    vocabulary, width = model.config.vocab_size, model.config.hidden_size
    generator = torch.Generator("cpu").manual_seed(seed)
    table = model.get_input_embeddings().weight
    embeddings = torch.randn(ADDED, width, generator=generator) * table.std()
    model.resize_token_embeddings(vocabulary + ADDED, mean_resizing=False)
    model.get_input_embeddings().weight[vocabulary:] = embeddings
    begin, end = 96, 97

    def words(count: int) -> list[int]:
        return torch.randint(3, 90, (count,), generator=generator).tolist()

    added = [vocabulary + i for i in range(ADDED)]
    rows = [[begin, *words(4), *added, *words(3), end], [begin, added[1], *words(LENGTH - 4), added[0], end]]
    input_ids = texts(rows, padding)
    output = model(input_ids, output_hidden_states=True)
    tensors = {
        "input_ids": input_ids,
        "embeddings": embeddings,
        "penultimate": output.hidden_states[-2],
        "hidden": output.last_hidden_state,
    }
    if kind is CLIPTextModelWithProjection:
        tensors["pooled"] = output.text_embeds
    describe(case, tensors)
    check_inputs(lambda input_ids: model(input_ids).last_hidden_state, {"input_ids": input_ids})
    # The embeddings matter.
    model.get_input_embeddings().weight[vocabulary:] *= -1
    assert (model(input_ids).last_hidden_state - output.last_hidden_state).abs().max() > 0.1
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "embeddings.safetensors")


def make_files() -> None:
    FILES.mkdir(parents=True, exist_ok=True)
    for file in FILES.iterdir():
        file.unlink()
    generator = torch.Generator("cpu").manual_seed(5)

    def vectors(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 8).round() / 8

    two, one = vectors(2, 24), vectors(24)
    save_file({"emb_params": two}, FILES / "kohya.safetensors")
    save_file({"emb_params": two.half()}, FILES / "half.safetensors")
    save_file({"<cat-toy>": one}, FILES / "learned_embeds.safetensors")
    save_file({"clip_l": two, "clip_g": vectors(2, 32)}, FILES / "xl.safetensors")
    torch.save({"<cat-toy>": torch.nn.Parameter(one)}, FILES / "learned_embeds.bin")
    webui = {
        "string_to_token": {"*": 265}, "string_to_param": {"*": two}, "name": "webui", "step": 500,
        "sd_checkpoint": None, "sd_checkpoint_name": None,
    }
    torch.save(webui, FILES / "webui.pt")
    # What is refused.
    save_file({"a": one, "b": one.clone()}, FILES / "two-words.safetensors")
    save_file({"emb_params": vectors(1, 2, 24)}, FILES / "cube.safetensors")
    save_file({"emb_params": vectors(76, 2)}, FILES / "too-many.safetensors")
    save_file({"emb_params": torch.full((2, 24), float("nan"))}, FILES / "nan.safetensors")
    save_file({"emb_params": torch.zeros(2, 24, dtype=torch.int64)}, FILES / "whole-numbers.safetensors")


def main() -> None:
    make("big", CLIPTextModelWithProjection, padding=0, seed=21)
    make("plain", CLIPTextModel, padding=97, seed=22)
    make_files()


if __name__ == "__main__":
    main()
