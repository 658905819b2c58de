"""Trains the transformer and the text encoders to turn noise into latents."""

import copy
import time

import torch

EMPTY_SHARE = 0.12
SHIFT = 1.5
REGENERATED_LEVELS = (0.1, 0.7)
REGENERATED_STEPS = 6


def noise_levels(size: int, device) -> torch.Tensor:
    """Shares of noise between 0 and 1: half of them most in the middle, half everywhere, shifted towards much noise."""
    middle = torch.sigmoid(torch.randn(size, device=device))
    level = torch.where(torch.rand(size, device=device) < 0.5, torch.rand(size, device=device), middle)
    return SHIFT * level / (1 + (SHIFT - 1) * level)


def train(model, latents: torch.Tensor, ids: torch.Tensor, empty: torch.Tensor, shift: float, scale: float, seconds: float,
          batch: int, rates: tuple[float, float], compiled: bool, decay: float = 0.999):
    """Trains for `seconds`, the rate falling from the first of `rates` to the second; gives the averaged model.

    `latents` `[n, 16, 32, 32]` are the encoder's; `ids` `[n, captions, 3, 32]`; `empty` `[3, 32]` are the empty prompt's.
    """
    device = latents.device
    model.to(device).train()
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rates[0], betas=(0.9, 0.98), weight_decay=0.01,
                                  fused=device.type == "cuda")
    forward = torch.compile(model) if compiled else model
    begun, step, share, seen = time.time(), 0, 0.0, torch.zeros((), device=device)
    while share < 1:
        share = min(1.0, (time.time() - begun) / seconds)
        for group in optimizer.param_groups:
            group["lr"] = (rates[0] + (rates[1] - rates[0]) * share) * min(1, (step + 1) / 300)
        index = torch.randint(len(latents), (batch,), device=device)
        texts = ids[index, torch.randint(ids.shape[1], (batch,), device=device)].long()
        texts[torch.rand(batch, device=device) < EMPTY_SHARE] = empty
        clean = (latents[index].float() - shift) * scale
        noise = torch.randn_like(clean)
        level = noise_levels(batch, device)
        mixed = torch.lerp(clean, noise, level.view(-1, 1, 1, 1))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            velocity = forward(mixed, 1000 * level, texts)
        loss = (velocity.float() - (noise - clean)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - min(decay, (step + 1) / (step + 20)))
            seen.lerp_(loss.detach(), 0.01 if step > 100 else 0.2)
        step += 1
        if step % 1000 == 0 or share >= 1:
            print(f"flow step {step} at {time.time() - begun:.0f} s loss {seen.item():.4f}", flush=True)
    return average


@torch.no_grad()
def regenerate(model, latents: torch.Tensor, ids: torch.Tensor, empty: torch.Tensor, shift: float, scale: float, guidance: float,
           compiled: bool, batch: int = 500) -> torch.Tensor:
    """The encoder's `latents` as the flow would have made them: some noise is added and the flow takes it away again.

    Little enough noise that the image stays the same, so that a decoder can learn the flow's errors from it.
    """
    device = latents.device
    forward = torch.compile(model.transformer) if compiled else model.transformer
    made = torch.empty_like(latents)
    for start in range(0, len(latents), batch):
        clean = (latents[start:start + batch].float() - shift) * scale
        size = len(clean)
        texts = ids[start:start + size, 0].long()
        level = torch.empty(size, device=device).uniform_(*REGENERATED_LEVELS)
        mixed = torch.lerp(clean, torch.randn_like(clean), level.view(-1, 1, 1, 1))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            states, pooled = model.encode(torch.cat([empty.expand_as(texts), texts]))
            for step in range(REGENERATED_STEPS):
                now = level * (1 - step / REGENERATED_STEPS)
                velocity = forward(torch.cat([mixed, mixed]), encoder_hidden_states=states, pooled_projections=pooled,
                                   timestep=1000 * torch.cat([now, now]), return_dict=False)[0].float()
                without, wanted = velocity.chunk(2)
                mixed = mixed - (level / REGENERATED_STEPS).view(-1, 1, 1, 1) * (without + guidance * (wanted - without))
        made[start:start + size] = mixed / scale + shift
    return made
