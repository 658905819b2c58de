"""ControlNets for the UNets of Stable Diffusion 1.5 and XL, alone and together with them. After `make_unet.py`."""

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from checks import check_inputs, check_weights, describe
from make_unet import TIMESTEPS, predict, round_weights
from places import MODELS, network_folder
from weights import randomise

SCALE = 0.7


def make(case: str, seed: int, odd: bool = False, **options) -> None:
    """Writes the ControlNet for the UNet `case`, what it adds, and what the UNet predicts with it."""
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
        picture = given["picture"].repeat(2, 1, 1, 1)
        return model(
            given["latents"], torch.tensor(TIMESTEPS[0]), given["context"], picture, conditioning_scale=SCALE,
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


def main() -> None:
    make("sd15", 51, odd=True, controlnet_conditioning_channel_order="rgb")
    make("sdxl", 52, controlnet_conditioning_channel_order="bgr")


if __name__ == "__main__":
    main()
