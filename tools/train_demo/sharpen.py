"""Trains the decoder, alone and last, on latents as the flow makes them rather than as the encoder does.

What the flow leaves a little wrong, wavy outlines and pale edges, the decoder then draws straight and sharp. Each
picture's latents are mixed with some noise, brought back by a few steps of the flow, and decoded; the picture itself is
what the result is compared with. A processor is enough:

    python sharpen.py ../../models/demo --minutes 20
"""

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from torch.nn import functional

from draw import render
from language import caption, random_landscape, random_shapes
from sample import GUIDANCE
from text import Tokenizers

MOST_NOISE = 0.4
STEPS = 3
LANDSCAPES = 0.35


def pictures_and_captions(rng: random.Random, count: int) -> tuple[torch.Tensor, list[str]]:
    """`count` new pictures, `[count, 3, 256, 256]` from -1 to 1, with a caption each."""
    pictures, texts = [], []
    for _ in range(count):
        scene = random_landscape(rng) if rng.random() < LANDSCAPES else random_shapes(rng, held_out=False)
        pictures.append(render(scene, rng))
        texts.append(caption(rng, scene))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1, texts


@torch.no_grad()
def through_the_flow(pipeline, latents: torch.Tensor, texts: list[str], generator: torch.Generator) -> torch.Tensor:
    """Scaled latents after some noise was added and taken away again by guided steps."""
    with torch.autocast("cpu", torch.bfloat16):
        states, negative, pooled, negative_pooled = pipeline.encode_prompt(texts, texts, texts, max_sequence_length=32)
        states, pooled = torch.cat([negative, states]), torch.cat([negative_pooled, pooled])
        level = torch.rand(len(texts), 1, 1, 1, generator=generator) * MOST_NOISE
        mixed = torch.lerp(latents, torch.randn(latents.shape, generator=generator), level)
        for step in range(STEPS):
            now, then = level * (1 - step / STEPS), level * (1 - (step + 1) / STEPS)
            timestep = 1000 * now.flatten()
            velocity = pipeline.transformer(torch.cat([mixed, mixed]), encoder_hidden_states=states, pooled_projections=pooled,
                                            timestep=torch.cat([timestep, timestep]), return_dict=False)[0].float()
            without, wanted = velocity.chunk(2)
            mixed = mixed + (then - now) * (without + GUIDANCE * (wanted - without))
    return mixed


def edges(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]


def difference(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Distance of two pictures, that of their edges counted too."""
    return functional.l1_loss(made, wanted) + sum(functional.l1_loss(a, b) for a, b in zip(edges(made), edges(wanted)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the model; its vae is replaced")
    parser.add_argument("--out", type=Path, help="folder for the new vae instead of the model's own")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    Tokenizers(options.folder)
    pipeline = StableDiffusion3Pipeline.from_pretrained(options.folder, torch_dtype=torch.float32)
    vae, config = pipeline.vae, pipeline.vae.config
    vae.to(memory_format=torch.channels_last)
    for module in (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3, vae.encoder):
        module.requires_grad_(False)
    rng, generator = random.Random(options.seed), torch.Generator().manual_seed(options.seed)

    def pairs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        wanted, texts = pictures_and_captions(rng, count)
        with torch.no_grad():
            clean = (vae.encode(wanted).latent_dist.mean - config.shift_factor) * config.scaling_factor
        made = through_the_flow(pipeline, clean, texts, generator)
        return made / config.scaling_factor + config.shift_factor, wanted

    kept = pairs(24)

    def judge() -> float:
        with torch.no_grad():
            return sum(difference(vae.decode(z[None]).sample, x[None]).item() for z, x in zip(*kept)) / len(kept[0])

    print(f"before: {judge():.4f}", flush=True)
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    begun, step, share = time.time(), 0, 0.0
    while share < 1:
        share = min(1.0, (time.time() - begun) / (60 * options.minutes))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * share))
        latents, wanted = pairs(options.batch)
        loss = difference(vae.decode(latents).sample, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            print(f"step {step} at {time.time() - begun:.0f} s: {judge():.4f}", flush=True)
    print(f"after {step} steps: {judge():.4f}")
    vae.to(memory_format=torch.contiguous_format).to(torch.bfloat16).save_pretrained(options.out or options.folder / "vae")


if __name__ == "__main__":
    main()
