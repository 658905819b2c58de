"""UNets as they are in Stable Diffusion 1.5, 2.1, XL, XL's refiner, for inpainting and distilled to few steps."""

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from checks import check_inputs, check_weights, describe
from paths import network_folder
from weights import randomise

TEXT_LENGTH = 11
POOLED_WIDTH = 12
IDS_WIDTH = 8
TIMESTEPS = [987.0, 12.0]


def predict(model: UNet2DConditionModel, given: dict[str, torch.Tensor], timestep: float, **more) -> torch.Tensor:
    """What the network predicts of inputs by their names in the fixture."""
    added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]} if "pooled" in given else None
    return model(
        given["latents"], torch.tensor(timestep), given["context"], timestep_cond=given.get("guidance_embedding"),
        added_cond_kwargs=added, return_dict=False, **more,
    )[0]


def inputs(model: UNet2DConditionModel, seed: int, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Latents of two images, each with its text."""
    generator = torch.Generator("cpu").manual_seed(seed)
    config = model.config
    given = {
        "latents": torch.randn(2, config.in_channels, *size, generator=generator),
        "context": torch.randn(2, TEXT_LENGTH, config.cross_attention_dim, generator=generator),
    }
    if config.addition_embed_type is not None:
        ids = (config.projection_class_embeddings_input_dim - POOLED_WIDTH) // config.addition_time_embed_dim
        given["pooled"] = torch.randn(2, POOLED_WIDTH, generator=generator)
        given["time_ids"] = torch.randint(0, 900, (2, ids), generator=generator).float()
    return given


def round_weights(model: torch.nn.Module) -> None:
    """Leaves the weights with 16 bits, so that they can be saved so and are still the ones that were computed with."""
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()


def make(
    case: str, seed: int, size: tuple[int, int], odd_size: tuple[int, int] | None = None,
    guidance: float | None = None, **options,
) -> None:
    """Writes one UNet and what it predicts at two times, for latents of `size` and of an `odd_size`."""
    print(f"unet/{case}")
    model = UNet2DConditionModel(norm_num_groups=4, sample_size=16, **options)
    # What timesteps and texts pass through has been through SiLU, and is small.
    randomise(model, seed, gains={"time_emb_proj.weight": 2.0, "add_embedding": 1.5})
    round_weights(model)
    given = inputs(model, seed, size)
    if guidance is not None:
        # As `LatentConsistencyModelPipeline.get_guidance_scale_embedding` makes it.
        half = options["time_cond_proj_dim"] // 2
        frequencies = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
        phases = 1000.0 * (guidance - 1.0) * frequencies[None]
        given["guidance_embedding"] = torch.cat([phases.sin(), phases.cos()], dim=1)

    check_inputs(lambda **given: predict(model, given, TIMESTEPS[0]), given)
    tensors = dict(given)
    for index, timestep in enumerate(TIMESTEPS):
        tensors[f"prediction_{index}"] = predict(model, given, timestep)
    if odd_size is not None:
        odd = given | {"latents": inputs(model, seed + 100, odd_size)["latents"]}
        tensors["odd_latents"] = odd["latents"]
        tensors["odd_prediction"] = predict(model, odd, TIMESTEPS[0])
    difference = (tensors["prediction_0"] - tensors["prediction_1"]).std() / tensors["prediction_0"].std()
    assert difference > 0.01, "the timestep has no effect"
    tensors["timesteps"] = torch.tensor(TIMESTEPS)
    if guidance is not None:
        tensors["guidance"] = torch.tensor([guidance])
    describe(case, {name: value for name, value in tensors.items() if name not in ("time_ids", "guidance")})
    check_weights(model, tensors["prediction_0"])
    folder = network_folder("unet", case)
    model.half().save_pretrained(folder)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")


def main() -> None:
    attends, plain = "CrossAttnDownBlock2D", "DownBlock2D"
    attends_up, plain_up = "CrossAttnUpBlock2D", "UpBlock2D"
    make(
        "sd15", 41, (16, 8), odd_size=(10, 14), block_out_channels=(8, 12, 16, 16), layers_per_block=2,
        cross_attention_dim=20, attention_head_dim=2,
    )
    make(
        "sd21", 42, (8, 16), block_out_channels=(8, 16, 16, 16), layers_per_block=1, cross_attention_dim=24,
        attention_head_dim=(1, 2, 4, 4), use_linear_projection=True, upcast_attention=True,
    )
    make(
        "sdxl", 43, (12, 8), odd_size=(11, 13), block_out_channels=(8, 16, 16), layers_per_block=1,
        down_block_types=(plain, attends, attends), up_block_types=(attends_up, attends_up, plain_up),
        cross_attention_dim=24, attention_head_dim=(1, 2, 4), transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=IDS_WIDTH,
        projection_class_embeddings_input_dim=6 * IDS_WIDTH + POOLED_WIDTH,
    )
    make(
        "refiner", 44, (8, 16), block_out_channels=(8, 12, 12, 16), layers_per_block=1,
        down_block_types=(plain, attends, attends, plain), up_block_types=(plain_up, attends_up, attends_up, plain_up),
        cross_attention_dim=20, attention_head_dim=(1, 3, 4, 4), transformer_layers_per_block=2,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=IDS_WIDTH,
        projection_class_embeddings_input_dim=5 * IDS_WIDTH + POOLED_WIDTH,
    )
    make(
        "inpainting", 45, (8, 8), in_channels=9, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=(attends, plain), up_block_types=(plain_up, attends_up), cross_attention_dim=20,
        attention_head_dim=2,
    )
    make(
        "lcm", 46, (8, 8), guidance=8.5, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=(attends, plain), up_block_types=(plain_up, attends_up), cross_attention_dim=20,
        attention_head_dim=2, time_cond_proj_dim=16,
    )


if __name__ == "__main__":
    main()
