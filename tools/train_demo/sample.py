"""Generates images as `StableDiffusion3Pipeline` does, many prompts at a time."""

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

STEPS = 20
GUIDANCE = 2.0
SHIFT = 2.0


def start_noise(seeds: list[int]) -> torch.Tensor:
    """Latents `[seeds, 16, 32, 32]` of noise, each from its own seed on the CPU."""
    return torch.cat([torch.randn((1, 16, 32, 32), generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def generate(model, vae, ids: torch.Tensor, empty: torch.Tensor, seeds: list[int], steps: int = STEPS, guidance: float = GUIDANCE,
         shift: float = SHIFT) -> np.ndarray:
    """Images `[n, 256, 256, 3]` in bytes for token ids `[n, 3, 32]`; `empty` `[3, 32]` is the negative prompt."""
    device = ids.device
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    scheduler.set_timesteps(steps, device=device)
    latents = start_noise(seeds).to(device)
    states, pooled = model.encode(torch.cat([empty.expand_as(ids), ids]).long())
    for timestep in scheduler.timesteps:
        doubled = torch.cat([latents, latents])
        velocity = model.transformer(doubled, encoder_hidden_states=states, pooled_projections=pooled,
                                     timestep=timestep.expand(len(doubled)), return_dict=False)[0]
        without, wanted = velocity.chunk(2)
        latents = scheduler.step(without + guidance * (wanted - without), timestep, latents, return_dict=False)[0]
    images = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """One image of many, row after row."""
    rows = [np.concatenate(list(images[start:start + columns]), axis=1) for start in range(0, len(images), columns)]
    return np.concatenate([row for row in rows if row.shape == rows[0].shape], axis=0)
