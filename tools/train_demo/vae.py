"""Trains the autoencoder."""

import time

import torch
from torch.nn import functional

from data import Images

DIVERGENCE_WEIGHT = 2e-4
LATENT_NOISE = 0.03


def edge_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How much the differences between neighbouring pixels differ."""
    across = (made[..., 1:] - made[..., :-1]) - (wanted[..., 1:] - wanted[..., :-1])
    down = (made[..., 1:, :] - made[..., :-1, :]) - (wanted[..., 1:, :] - wanted[..., :-1, :])
    return across.abs().mean() + down.abs().mean()


def image_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sharp and even: absolute and squared error, and the error of edges."""
    return functional.l1_loss(made, wanted) + 2.0 * functional.mse_loss(made, wanted) + 0.5 * edge_loss(made, wanted)


def psnr(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, the mean over images."""
    error = (made.clamp(-1, 1) - wanted).square().mean(dim=(1, 2, 3)) / 4
    return (-10 * error.clamp_min(1e-9).log10()).mean().item()


def train(vae, decoder, images: Images, seconds: float, batch: int, rate: float, decoder_only: bool, compiled: bool,
          sources: list[torch.Tensor] | None = None) -> float:
    """Trains for `seconds` and gives the peak signal-to-noise ratio on images of the set.

    `decoder` is the autoencoder's own, compiled or not. When it alone is trained, it learns from each of `sources` in turn, latents
    `[n, 16, 32, 32]` of the first `n` images, or, where there are none, from what the encoder makes of an image.
    """
    device = images.images.device
    vae.to(device, memory_format=torch.channels_last).train()
    trained = vae.decoder if decoder_only else vae
    parameters = list(trained.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=device.type == "cuda")
    average = [value.detach().clone() for value in vae.parameters()]
    encoder = torch.compile(vae.encoder) if compiled else vae.encoder
    begun, step, share = time.time(), 0, 0.0
    while share < 1:
        share = min(1.0, (time.time() - begun) / seconds)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 200) * max(0.01, min(1.0, 1.25 * (1 - share)))
        source = sources[step % len(sources)] if sources else None
        index = images.some(batch, len(source) if sources else images.ready)
        wanted = images.at(index).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            if decoder_only:
                with torch.no_grad():
                    mean = source[index].float() if sources else encoder(wanted).float()[:, :16]
                spread = LATENT_NOISE / vae.config.scaling_factor * torch.rand(batch, 1, 1, 1, device=device) * 2
                given = (mean + spread * torch.randn_like(mean)).contiguous(memory_format=torch.channels_last)
                loss = image_loss(decoder(given).float(), wanted)
            else:
                mean, log_variance = encoder(wanted).float().chunk(2, dim=1)
                log_variance = log_variance.clamp(-20, 10)
                divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
                made = decoder(mean + (0.5 * log_variance).exp() * torch.randn_like(mean)).float()
                loss = image_loss(made, wanted) + DIVERGENCE_WEIGHT * divergence
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, list(vae.parameters()), 1 - min(0.998, step / (step + 10)))
        if step % 400 == 0 or share >= 1:
            print(f"vae step {step} at {time.time() - begun:.0f} s loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        for value, mean in zip(vae.parameters(), average):
            value.copy_(mean)
    return measure(vae, images)


@torch.no_grad()
def measure(vae, images: Images) -> float:
    """Peak signal-to-noise ratio of 256 images, in f32."""
    vae.eval()
    total = 0.0
    for start in range(0, 256, 32):
        wanted = images.images[start:start + 32].float() / 127.5 - 1
        total += psnr(vae.decode(vae.encode(wanted).latent_dist.mean).sample, wanted) / 8
    return total


@torch.no_grad()
def encode_all(vae, images: Images, batch: int = 250) -> torch.Tensor:
    """Latents of every image, as the encoder gives them, in bf16."""
    vae.eval()
    latents = torch.empty((images.number, 16, 32, 32), dtype=torch.bfloat16, device=images.images.device)
    for start in range(0, images.number, batch):
        chosen = images.images[start:start + batch]
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=latents.device.type == "cuda"):
            mean = vae.encoder(chosen.float() / 127.5 - 1)[:, :16]
        latents[start:start + len(chosen)] = mean
    return latents


def measure_scale(vae, latents: torch.Tensor) -> None:
    """Sets the configuration's shift and scale so that latents have mean 0 and deviation 1."""
    sample = latents[:20000].float()
    vae.register_to_config(shift_factor=round(sample.mean().item(), 4), scaling_factor=round(1 / sample.std().item(), 4))
