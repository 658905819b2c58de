"""Trains the demo model: first its autoencoder, then the text encoders and the transformer together.

    python train.py --out OUT --vae-minutes 4 --flow-minutes 10
    python train.py --out OUT --resume OUT --flow-minutes 10      # goes on from what is there
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from networks import encode_text, make_text_encoders, make_transformer, make_vae, sample
from pictures import CAPTIONS, Pictures

PROMPTS = ["a red circle", "two green squares on a black background", "a small blue triangle at the top left", "epic landscape",
           "a house by the sea at sunset", "mountains under a full moon", "a boat on the sea at night with stars",
           "three purple stars on a yellow background", "a pink heart inside a blue square", "a yellow cross to the left of a red ring",
           "a red house and three pine trees in the mountains by day", "five orange diamonds", "a large cyan star on the right",
           "a lake with mountains at sunset with a boat with a red sail", "a white circle", "a cat"]


class Average:
    """An exponential average of a module's weights, which draws better than the weights themselves."""

    def __init__(self, module, decay):
        self.module, self.decay = copy.deepcopy(module).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, module, step):
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(a, b) for a, b in zip(self.module.parameters(), module.parameters())]
        torch._foreach_lerp_([a for a, _ in pairs], [b.detach() for _, b in pairs], 1 - decay)


def to_device(pixels: np.ndarray, device) -> torch.Tensor:
    """Bytes `[batch, height, width, 3]` to values from -1 to 1, `[batch, 3, height, width]`."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(image):
    return image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]


def learning_rate(share: float, step: int, peak: float) -> float:
    """A short rise, level for the first half of the time, then down to nothing."""
    return peak * min(1, step / 300) * min(1.0, max(0.0, 2 * (1 - share)) ** 1.0)


def train_vae(pictures: Pictures, device, minutes: float, batch: int, compiled: bool):
    vae = make_vae().to(device, memory_format=torch.channels_last)
    average = Average(vae, 0.999)
    encode, decode = vae.encode, vae.decode
    if compiled:
        encode = torch.compile(lambda x: vae.encode(x).latent_dist.parameters)
        decode = torch.compile(lambda z: vae.decode(z).sample)
    else:
        encode = lambda x: vae.encode(x).latent_dist.parameters
        decode = lambda z: vae.decode(z).sample
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=device.type == "cuda")
    rng, start, step = np.random.default_rng(1), time.time(), 0
    while (share := (time.time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(share, step, 1.5e-3)
        chosen = np.sort(rng.choice(pictures.ready(), batch, replace=False))
        image = to_device(pictures.pixels[chosen], device).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            mean, log_variance = encode(image).float().chunk(2, 1)
            log_variance = log_variance.clamp(-30, 20)
            latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            result = decode(latents).float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        error = functional.l1_loss(result, image) + functional.mse_loss(result, image)
        error = error + sum(functional.l1_loss(a, b) for a, b in zip(edges(result), edges(image)))
        (error + 1.5e-4 * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(vae, step)
        step += 1
        if step % 500 == 0:
            print(f"vae {step} {time.time() - start:.0f}s error {error.item():.4f} kl {kl.item():.2f}", flush=True)
    vae = average.module
    with torch.no_grad():
        image = to_device(pictures.pixels[:256], device)
        mse = torch.stack([(vae.decode(vae.encode(x[None]).latent_dist.mean).sample.clamp(-1, 1) - x).square().mean() for x in image])
        print(f"vae {step} steps, PSNR {(10 * torch.log10(4 / mse)).mean().item():.2f} dB (least {10 * torch.log10(4 / mse.max()).item():.2f})")
    return vae


@torch.no_grad()
def encode_all(pictures: Pictures, vae, device):
    """All pictures as normalised latents, and the shift and scale that normalise them."""
    pictures.wait(pictures.count)
    latents = torch.empty(pictures.count, 16, 32, 32, dtype=torch.bfloat16, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        for begin in range(0, pictures.count, 250):
            image = to_device(pictures.pixels[begin:begin + 250], device)
            latents[begin:begin + 250] = vae.encode(image).latent_dist.mean
    shift, scale = latents[:20000].float().mean().item(), 1 / latents[:20000].float().std().item()
    for begin in range(0, pictures.count, 10000):
        part = latents[begin:begin + 10000]
        part.copy_((part.float() - shift) * scale)
    return latents, shift, scale


def train_flow(pictures, latents, transformer, encoders, device, minutes, batch, peak, compiled, decay):
    """Rectified flow: the network learns the direction from a picture to noise (Esser et al. 2024)."""
    both = torch.nn.ModuleList([transformer, encoders])
    average = Average(both, decay)
    ids = torch.from_numpy(pictures.ids.astype(np.int32)).to(device)
    empty = torch.tensor([pictures.tokenizers.ids("")], device=device, dtype=torch.int32)[0]
    optimizer = torch.optim.AdamW(both.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda")

    def loss_of(picture, tokens, noise, sigma):
        context, pooled = encode_text(encoders, tokens[0], tokens[1], tokens[2])
        mixed = (1 - sigma) * picture + sigma * noise
        velocity = transformer(hidden_states=mixed, timestep=1000 * sigma[:, 0, 0, 0], encoder_hidden_states=context,
                               pooled_projections=pooled, return_dict=False)[0]
        return functional.mse_loss(velocity.float(), noise - picture)

    if compiled:
        loss_of = torch.compile(loss_of)
    start, step, running = time.time(), 0, 0.0
    while (share := (time.time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(share, step, peak)
        chosen = torch.randint(0, len(latents), (batch,), device=device)
        tokens = ids[:, chosen, torch.randint(0, CAPTIONS, (batch,), device=device)]
        dropped = torch.rand(batch, device=device) < 0.12
        tokens = torch.where(dropped[None, :, None], empty[:, None, :], tokens).long()
        picture = latents[chosen].float()
        noise = torch.randn_like(picture)
        sigma = torch.sigmoid(0.4 + 1.1 * torch.randn(batch, 1, 1, 1, device=device))
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(picture, tokens, noise, sigma)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(both, step)
        step += 1
        running = loss.detach() if step == 1 else running * 0.99 + loss.detach() * 0.01
        if step % 1000 == 0:
            print(f"flow {step} {time.time() - start:.0f}s loss {running.item():.4f}", flush=True)
    print(f"flow {step} steps, loss {float(running):.4f}")
    return average.module[0], average.module[1]


def save(out: Path, vae, transformer, encoders, shift, scale):
    """Plain files of 32-bit weights, small enough each to be sent about."""
    save_file({**{name: value.contiguous() for name, value in vae.state_dict().items()},
               "latent_shift_and_scale": torch.tensor([shift, scale])}, out / "vae.safetensors")
    save_file({name: value.clone() for name, value in encoders.state_dict().items()}, out / "text.safetensors")
    state = {name: value.contiguous() for name, value in transformer.state_dict().items() if name != "pos_embed.pos_embed"}
    names = sorted(state, key=lambda name: state[name].numel())
    for part in range(2):
        save_file({name: state[name] for name in names[part::2]}, out / f"transformer_{part}.safetensors")


def load(folder: Path, vae, transformer, encoders):
    state = load_file(folder / "vae.safetensors")
    shift, scale = state.pop("latent_shift_and_scale").tolist()
    vae.load_state_dict(state)
    if (folder / "text.safetensors").exists():
        encoders.load_state_dict(load_file(folder / "text.safetensors"), strict=False)
        parts = [load_file(folder / f"transformer_{part}.safetensors") for part in range(2)]
        transformer.load_state_dict({**parts[0], **parts[1]}, strict=False)
    return shift, scale


def save_grid(out: Path, name: str, images: torch.Tensor, columns: int = 8):
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    rows = [np.concatenate(list(pixels[index:index + columns]), 1) for index in range(0, len(pixels), columns)]
    Image.fromarray(np.concatenate(rows, 0)).save(out / name)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--resume", type=Path)
    arguments.add_argument("--pictures", type=int, default=200_000)
    arguments.add_argument("--workers", type=int, default=15)
    arguments.add_argument("--vae-minutes", type=float, default=4)
    arguments.add_argument("--flow-minutes", type=float, default=10)
    arguments.add_argument("--vae-batch", type=int, default=64)
    arguments.add_argument("--batch", type=int, default=512)
    arguments.add_argument("--rate", type=float, default=1e-3)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--plain", action="store_true", help="without torch.compile")
    arguments = arguments.parse_args()
    begin = time.time()
    pictures = Pictures(arguments.pictures, arguments.seed, arguments.workers)
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.suppress_errors = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae, transformer, encoders = make_vae().to(device), make_transformer().to(device), make_text_encoders(pictures.tokenizers).to(device)
    for name, module in (("vae", vae), ("transformer", transformer), ("text", encoders)):
        print(name, sum(parameter.numel() for parameter in module.parameters()), "parameters")
    pictures.wait(min(20_000, pictures.count))
    print(f"{time.time() - begin:.0f}s first pictures", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        load(arguments.resume, vae, transformer, encoders)
    else:
        vae = train_vae(pictures, device, arguments.vae_minutes, arguments.vae_batch, not arguments.plain)
    latents, shift, scale = encode_all(pictures, vae, device)
    print(f"{time.time() - begin:.0f}s latents, shift {shift:.4f} scale {scale:.4f}", flush=True)
    with torch.no_grad():
        there = vae.decode(latents[:8].float() / scale + shift).sample
        save_grid(arguments.out, "vae.png", torch.cat([to_device(pictures.pixels[:8], device), there]))
    save(arguments.out, vae, transformer, encoders, shift, scale)
    transformer, encoders = train_flow(pictures, latents, transformer, encoders, device, arguments.flow_minutes,
                                       arguments.batch, arguments.rate, not arguments.plain, 0.9995)
    save(arguments.out, vae, transformer, encoders, shift, scale)
    with torch.no_grad():
        drawn = sample(transformer, encoders, pictures.tokenizers, PROMPTS, device)
        save_grid(arguments.out, "drawn.png", torch.cat([vae.decode(z[None] / scale + shift).sample for z in drawn]))
    print(f"{time.time() - begin:.0f}s done", flush=True)


if __name__ == "__main__":
    main()
