"""ControlNets for the UNets of Stable Diffusion 1.5 and XL, and for transformers of Stable Diffusion 3, alone and together
with them. After `make_unet.py`."""

import torch
from diffusers import ControlNetModel, SD3ControlNetModel, SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from checks import check_inputs, check_weights, describe
from make_mmdit import JOINT_WIDTH, POOLED_WIDTH, inputs
from make_unet import TIMESTEPS, predict, round_weights
from paths import MODELS, network_folder
from weights import randomise

SCALE = 0.7
# Seven blocks of the transformer: two and three residuals are spread over them unevenly.
LAYERS = 7
SHAPE = {"attention_head_dim": 6, "num_attention_heads": 2, "patch_size": 2, "in_channels": 16, "out_channels": 16}


def make(case: str, seed: int, odd: bool = False, **options) -> None:
    """Writes the ControlNet for the UNet `case`, its residuals, and the UNet's prediction with them."""
    print(f"controlnet/{case}")
    unet = UNet2DConditionModel.from_pretrained(MODELS / "unet" / case, torch_dtype=torch.float32)
    of_unet = load_file(MODELS / "unet" / case / "case.safetensors")
    model = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(4, 6, 8, 8), load_weights_from_unet=False, **options
    )
    randomise(model, seed, gains={"time_emb_proj.weight": 2.0, "controlnet_cond_embedding": 1.5})
    round_weights(model)
    given = {name: of_unet[name] for name in ("context", "pooled", "time_ids") if name in of_unet}
    given["latents"] = of_unet["odd_latents" if odd else "latents"]
    height, width = given["latents"].shape[2:]
    given["picture"] = torch.rand(1, 3, 8 * height, 8 * width, generator=torch.Generator("cpu").manual_seed(seed))

    def control(**given: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]} if "pooled" in given else None
        image = given["picture"].repeat(2, 1, 1, 1)
        return model(
            given["latents"], torch.tensor(TIMESTEPS[0]), given["context"], image, conditioning_scale=SCALE,
            added_cond_kwargs=added, return_dict=False,
        )

    def joined(down: list[torch.Tensor], middle: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor.flatten() for tensor in [*down, middle]])

    check_inputs(lambda **given: joined(*control(**given)), given)
    down, middle = control(**given)
    residuals = {f"down_{index}": residual for index, residual in enumerate(down)} | {"middle": middle}
    prediction = predict(
        unet, given, TIMESTEPS[0], down_block_additional_residuals=tuple(down), mid_block_additional_residual=middle
    )
    alone = predict(unet, given, TIMESTEPS[0])
    assert (prediction - alone).std() > 0.1 * alone.std(), "control has no effect"
    tensors = given | residuals | {"prediction": prediction}
    describe(case, {name: value for name, value in tensors.items() if name != "time_ids"})
    check_weights(model, joined(down, middle))
    tensors |= {"scale": torch.tensor([SCALE]), "timesteps": torch.tensor(TIMESTEPS[:1])}
    folder = network_folder("controlnet", case)
    model.half().save_pretrained(folder)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")


def round_all(model: torch.nn.Module) -> None:
    """Rounds weights and position tables to 16 bits."""
    round_weights(model)
    for buffer in model.buffers():
        buffer.data = buffer.data.half().float()


def transformer() -> tuple[SD3Transformer2DModel, dict[str, torch.Tensor]]:
    """The transformer of the ControlNets, and its inputs."""
    model = SD3Transformer2DModel(
        **SHAPE, num_layers=LAYERS, joint_attention_dim=JOINT_WIDTH, pooled_projection_dim=POOLED_WIDTH,
        pos_embed_max_size=14, sample_size=16, caption_projection_dim=12, qk_norm="rms_norm",
    )
    randomise(model, 53, gains={"norm1.linear.weight": 1.5, "norm1_context.linear.weight": 1.5})
    round_all(model)
    return model, inputs(53, 12, 20)


def spread(residuals: list[torch.Tensor]) -> list[torch.Tensor]:
    """A result for each block of the transformer, by its own rule."""
    return [residuals[int(index / (LAYERS / len(residuals)))] for index in range(LAYERS)]


def make_for_transformer() -> None:
    """Writes two ControlNets for a transformer, and its predictions with each and with both."""
    denoiser, given = transformer()

    def predicted(latents, encoder_hidden_states, pooled, timestep, residuals=None) -> torch.Tensor:
        return denoiser(
            latents, encoder_hidden_states, pooled, timestep, block_controlnet_hidden_states=residuals, return_dict=False
        )[0]

    alone = predicted(**given)
    added = []
    for case, seed, extra, options in [
        ("sd3", 54, 1, {
            "num_layers": 2, "joint_attention_dim": JOINT_WIDTH, "pos_embed_max_size": 18, "qk_norm": "rms_norm",
            "dual_attention_layers": (1,),
        }),
        ("sd35-large", 55, 0, {
            "num_layers": 3, "joint_attention_dim": None, "pos_embed_max_size": None, "pos_embed_type": None,
            "use_pos_embed": False, "force_zeros_for_pooled_projection": False,
        }),
    ]:
        print(f"controlnet/{case}")
        model = SD3ControlNetModel(
            **SHAPE, **options, sample_size=12, pooled_projection_dim=POOLED_WIDTH, extra_conditioning_channels=extra,
            # What is said of those that read no text is of none of their tensors.
            caption_projection_dim=12 if options["joint_attention_dim"] else 20,
        )
        randomise(model, seed, gains={"norm1.linear.weight": 1.5, "norm1_context.linear.weight": 1.5})
        round_all(model)
        generator = torch.Generator("cpu").manual_seed(seed)
        image = torch.randn(1, 16 + extra, *given["latents"].shape[2:], generator=generator)
        config = model.config

        def control(image, latents, encoder_hidden_states, pooled, timestep) -> list[torch.Tensor]:
            if not config.use_pos_embed:
                latents = denoiser.pos_embed(latents)
            return model(
                latents, image.repeat(2, 1, 1, 1), SCALE,
                encoder_hidden_states if config.joint_attention_dim else None,
                torch.zeros_like(pooled) if config.force_zeros_for_pooled_projection else pooled, timestep,
                return_dict=False,
            )[0]

        def conditioned(image, **given) -> torch.Tensor:
            return predicted(**given, residuals=control(image, **given))

        given_both = given | {"picture": image}
        check_inputs(conditioned, given_both)
        residuals = control(image, **given)
        # The transformer's own positions are in what it gives the second kind.
        prediction = predicted(**given, residuals=residuals)
        assert (prediction - alone).std() > 0.1 * alone.std(), "control has no effect"
        added.append(spread(residuals))
        tensors = {"picture": image, "prediction": prediction}
        if len(added) == 2:
            both = [sum(of_block) for of_block in zip(*added, strict=True)]
            tensors["prediction_of_both"] = predicted(**given, residuals=both)
        describe(case, tensors)
        check_weights(model, prediction)
        tensors["scale"] = torch.tensor([SCALE])
        folder = network_folder("controlnet", case)
        model.half().save_pretrained(folder)
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")
    folder = network_folder("controlnet", "transformer")
    denoiser.half().save_pretrained(folder)
    save_file(given, folder / "case.safetensors")


def main() -> None:
    make("sd15", 51, odd=True, controlnet_conditioning_channel_order="rgb")
    make("sdxl", 52, controlnet_conditioning_channel_order="bgr")
    make_for_transformer()


if __name__ == "__main__":
    main()
