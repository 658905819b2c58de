"""The joint transformer as it is in SD 3 Medium, in SD 3.5 Large and in SD 3.5 Medium."""

import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import save_file

from checks import check_inputs, check_weights, describe
from paths import network_folder
from weights import randomise

JOINT_WIDTH = 40
POOLED_WIDTH = 24
TEXT_LENGTH = 13


def inputs(seed: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """Two latents at different times, each with its text."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return {
        "latents": torch.randn(2, 16, height, width, generator=generator),
        "encoder_hidden_states": torch.randn(2, TEXT_LENGTH, JOINT_WIDTH, generator=generator),
        "pooled": torch.randn(2, POOLED_WIDTH, generator=generator),
        "timestep": torch.tensor([987.3, 12.5]),
    }


def watch(model: SD3Transformer2DModel) -> dict[str, torch.Tensor]:
    """A dictionary that the next forward pass fills with values from inside the network."""
    seen: dict[str, torch.Tensor] = {}

    def keep(*names: str):
        def hook(_module, _arguments, output):
            outputs = output if isinstance(output, tuple) else (output,)
            seen.update((name, value) for name, value in zip(names, outputs) if value is not None)

        return hook

    model.pos_embed.register_forward_hook(keep("patch_embedding"))
    model.time_text_embed.register_forward_hook(keep("conditioning"))
    model.context_embedder.register_forward_hook(keep("context"))
    model.transformer_blocks[0].register_forward_hook(keep("block_0_context", "block_0_hidden"))
    return seen


def make(case: str, seed: int, size: tuple[int, int], shard: str, **options) -> None:
    """Writes one transformer and what it predicts."""
    print(f"mmdit/{case}")
    model = SD3Transformer2DModel(
        patch_size=2, in_channels=16, out_channels=16, joint_attention_dim=JOINT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH, pos_embed_max_size=14, sample_size=16,
        caption_projection_dim=options["attention_head_dim"] * options["num_attention_heads"], **options,
    )
    # Modulations see features after SiLU, which are small.
    randomise(model, seed, gains={"norm1.linear.weight": 1.5, "norm1_context.linear.weight": 1.5})
    given = inputs(seed, *size)

    def forward(latents, encoder_hidden_states, pooled, timestep) -> torch.Tensor:
        return model(latents, encoder_hidden_states, pooled, timestep, return_dict=False)[0]

    check_inputs(forward, given)
    seen = watch(model)
    prediction = forward(**given)
    tensors = given | {"noise_prediction": prediction} | seen
    describe(case, tensors)
    check_weights(model, prediction)
    folder = network_folder("mmdit", case)
    model.save_pretrained(folder, max_shard_size=shard)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")


def main() -> None:
    whole = "1GB"
    make("medium", 21, (12, 20), whole, num_layers=3, attention_head_dim=12, num_attention_heads=2)
    make("large", 22, (10, 14), "80KB", num_layers=2, attention_head_dim=8, num_attention_heads=3, qk_norm="rms_norm")
    make(
        "medium35", 23, (16, 12), whole, num_layers=3, attention_head_dim=8, num_attention_heads=3, qk_norm="rms_norm",
        dual_attention_layers=(0, 1),
    )


if __name__ == "__main__":
    main()
