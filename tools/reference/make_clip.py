"""CLIP text encoders: with both rules for the end of a text, and with the old and the new tensor names."""

import json

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from checks import check_inputs, check_weights, describe
from paths import network_folder
from weights import randomise

LENGTH = 77


def texts(rows: list[list[int]], padding: int) -> torch.Tensor:
    """Rows of ids, padded to the length of CLIP."""
    return torch.tensor([row + [padding] * (LENGTH - len(row)) for row in rows])


def make(case: str, config: CLIPTextConfig, input_ids: torch.Tensor, seed: int) -> None:
    """Writes one encoder and its outputs for `input_ids`."""
    print(f"clip/{case}")
    model = CLIPTextModelWithProjection(config)
    randomise(model, seed)
    output = model(input_ids, output_hidden_states=True)
    tensors = {
        "input_ids": input_ids,
        "penultimate": output.hidden_states[-2],
        "hidden": output.last_hidden_state,
        "pooled": output.text_embeds,
    }
    describe(case, tensors)
    check_weights(model, output.text_embeds)
    check_inputs(lambda input_ids: model(input_ids).text_embeds, {"input_ids": input_ids})
    folder = network_folder("clip", case)
    model.save_pretrained(folder)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")


def make_plain(case: str, config: CLIPTextConfig, input_ids: torch.Tensor, seed: int, older: bool) -> None:
    """Writes an encoder without a projection, and its outputs for `input_ids` with some layers skipped."""
    print(f"clip/{case}")
    model = CLIPTextModel(config)
    randomise(model, seed)
    output = model(input_ids, output_hidden_states=True)
    states = output.hidden_states
    tensors = {
        "input_ids": input_ids,
        "hidden": output.last_hidden_state,
        "skipped_1": model.final_layer_norm(states[-2]),
        "skipped_2": model.final_layer_norm(states[-3]),
        "penultimate": states[-2],
        "penultimate_skipped_1": states[-3],
    }
    assert torch.equal(model.final_layer_norm(states[-1]), output.last_hidden_state)
    describe(case, tensors)
    check_weights(model, output.last_hidden_state)
    check_inputs(lambda input_ids: model(input_ids).last_hidden_state, {"input_ids": input_ids})
    folder = network_folder("clip", case)
    model.save_pretrained(folder)
    if older:
        # As transformers 4 wrote it: every name below `text_model`, beside a table of positions; and as some published
        # configurations are, without `projection_dim`.
        weights = {f"text_model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
        weights["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
        save_file(weights, folder / "model.safetensors")
        written = json.loads((folder / "config.json").read_text())
        del written["projection_dim"]
        (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")


def main() -> None:
    generator = torch.Generator("cpu").manual_seed(11)

    def words(count: int) -> list[int]:
        return torch.randint(3, 90, (count,), generator=generator).tolist()

    # The last two ids begin and end a text. The configuration says that 2 ends it, as old ones do: the summary is
    # then read where the largest id is, here not where the 2 is.
    begin, end = 98, 99
    rows = [[begin, *words(5), end], [begin, 2, *words(20), 2, end], [begin, *words(LENGTH - 2), end]]
    large = CLIPTextConfig(
        vocab_size=100, hidden_size=24, intermediate_size=64, projection_dim=24, num_hidden_layers=3,
        num_attention_heads=3, max_position_embeddings=LENGTH, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )
    make("large", large, texts(rows, end), seed=1)

    # A true end, which is not the largest id; it comes again in the first row, and 0 fills the others up.
    begin, end = 96, 97
    rows = [[begin, *words(4), end, 99, end], [begin, 99, *words(30), 98, end], [begin, *words(LENGTH - 2), end]]
    big = CLIPTextConfig(
        vocab_size=100, hidden_size=32, intermediate_size=48, projection_dim=24, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=LENGTH, hidden_act="gelu", layer_norm_eps=1e-5,
        bos_token_id=begin, eos_token_id=end, pad_token_id=1,
    )
    make("big", big, texts(rows, 0), seed=2)

    rows = [[begin, *words(5), end], [begin, *words(LENGTH - 2), end]]
    for seed, case, activation in [(3, "older", "quick_gelu"), (4, "plain", "gelu")]:
        config = CLIPTextConfig(
            vocab_size=100, hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=3,
            max_position_embeddings=LENGTH, hidden_act=activation, layer_norm_eps=1e-5, bos_token_id=begin,
            eos_token_id=end, pad_token_id=1,
        )
        make_plain(case, config, texts(rows, end), seed, older=case == "older")


if __name__ == "__main__":
    main()
