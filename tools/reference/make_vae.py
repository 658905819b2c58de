"""Autoencoders: one like that of SD 3, and one like that of SD 1 with its convolutions around the latents."""

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from checks import check_inputs, check_weights, describe
from paths import network_folder
from weights import randomise


def make(case: str, seed: int, latent_size: tuple[int, int], image_size: tuple[int, int], **options) -> None:
    """Writes one autoencoder, what it decodes and what it encodes."""
    print(f"vae/{case}")
    levels = len(options["block_out_channels"])
    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels, **options
    )
    randomise(model, seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    latents = torch.randn(1, options["latent_channels"], *latent_size, generator=generator)
    image = torch.rand(1, 3, *image_size, generator=generator) * 2 - 1

    decoded = model.decode(latents).sample
    moments = model.encoder(image)
    if model.quant_conv is not None:
        moments = model.quant_conv(moments)
    mean, logvar = moments.chunk(2, dim=1)
    posterior = model.encode(image).latent_dist
    assert torch.equal(posterior.mean, mean) and torch.equal(posterior.logvar, logvar.clamp(-30, 20))

    tensors = {
        "latents": latents, "decoded": decoded, "image": image, "encoded_mean": mean, "encoded_logvar": logvar,
    }
    describe(case, tensors)
    check_inputs(lambda latents: model.decode(latents).sample, {"latents": latents})
    check_inputs(lambda image: model.encode(image).latent_dist.mean, {"image": image})
    check_weights(model, torch.cat([decoded.flatten(), moments.flatten()]))
    folder = network_folder("vae", case)
    model.save_pretrained(folder)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")


def main() -> None:
    make(
        "plain", 31, (6, 8), (48, 32), block_out_channels=[8, 8, 8, 16], layers_per_block=2, norm_num_groups=4,
        latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305,
        shift_factor=0.0609, sample_size=64,
    )
    make(
        "quant", 32, (8, 6), (24, 40), block_out_channels=[8, 8, 8], layers_per_block=1, norm_num_groups=4,
        latent_channels=4, use_quant_conv=True, use_post_quant_conv=True, scaling_factor=0.18215, sample_size=32,
    )


if __name__ == "__main__":
    main()
