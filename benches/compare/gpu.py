#!/usr/bin/env python3
"""Runs the same models of random weights here and in diffusers on one NVIDIA GPU, and prints seconds a step of both sides.

    cargo build --release --features cuda
    cargo build --release -p sd-models --example synthesize
    cargo build --release -p sd-models --features cuda --example networks
    gpu.py --models DIR [--compile] [WORK...]      models are written to DIR once (45 GB); needs diffusers

A step is one evaluation of the network for a batch of two, the prompt and the empty prompt: the median without the first three steps.
Decoding and T5 are timed by themselves too, with their weights in the GPU's memory: seconds a call, and the memory at most.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Name, architecture of the example, pixels of the side, steps, and the budgets of our runs.
WORKS = {
    "large": ("sd3.5-large", 1024, 28, [None, "3GB"]),
    "medium": ("sd3.5-medium", 1024, 28, [None, "3GB"]),
    "xl": ("sdxl", 1024, 30, [None, "4GB"]),
    "1.5": ("sd1.5", 512, 30, [None, "2GB"]),
}
LEFT_OUT = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK", help="any of " + ", ".join(WORKS))
    parser.add_argument("--models", type=Path, required=True, help="where models lie, and are made if missing")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release", help="where our programs lie")
    parser.add_argument("--compile", action="store_true", help="compile diffusers' networks, which takes minutes")
    parser.add_argument("--ours-only", action="store_true", help="without diffusers")
    arguments = parser.parse_args()
    for name in arguments.works or WORKS:
        architecture, side, steps, budgets = WORKS[name]
        folder = arguments.models / name.replace(".", "")
        if not folder.is_dir():
            run_quietly([program(arguments, "synthesize"), "--arch", architecture, folder])
        images = [ours(arguments, folder, side, steps, budget) for budget in budgets]
        if len({image for image in images}) > 1:
            print("the images differ between budgets")
        if program(arguments, "networks").is_file():
            subprocess.run([program(arguments, "networks"), folder], check=True)
        if not arguments.ours_only:
            theirs(name, folder, side, arguments.compile)


def program(arguments, name):
    places = [arguments.programs / name, arguments.programs / "examples" / name]
    return next((place for place in places if place.is_file()), places[0])


def run_quietly(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ours(arguments, folder, side, steps, budget):
    """Draws an image, prints a row, and returns the pixels' bytes."""
    output = folder / f"ours{budget or ''}.png"
    output.unlink(missing_ok=True)
    command = [program(arguments, "generate"), "a red circle", "--model", folder, "--size", f"{side}x{side}", "--steps", str(steps)]
    command += ["--seed", "1", "--device", "cuda", "--json", "--output", output, *(["--memory", budget] if budget else [])]
    begin = time.time()
    stages, seconds, last = {}, [], ("start", begin)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "step":
                seconds.append(event["seconds"])
            if event["event"] in ("stage", "saved"):
                stages[last[0]] = stages.get(last[0], 0) + time.time() - last[1]
                last = (event.get("stage", "save"), time.time())
    whole = time.time() - begin
    memory = json.loads(output.with_suffix(".json").read_text())["memory"]
    step = statistics.median(seconds[LEFT_OUT:])
    listed = " ".join(f"{name} {duration:.2f}" for name, duration in stages.items())
    print(
        f"ours {folder.name} {budget or 'no limit'}: {step:.4f} s a step, first {seconds[0]:.2f}, whole {whole:.2f} s ({listed}); "
        f"predicted {memory['predicted_peak'] / 1e9:.2f} GB, measured {memory['measured_peak'] / 1e9:.2f} GB",
        flush=True,
    )
    return pixels(output)


def pixels(path):
    from PIL import Image

    return Image.open(path).tobytes()


def theirs(name, folder, side, compiles):
    import torch
    from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel

    device, latent = "cuda", side // 8
    is_sd3 = name in ("large", "medium")
    dtype = torch.bfloat16 if is_sd3 else torch.float16

    def normal(*shape):
        return torch.randn(shape, dtype=dtype, device=device)

    begin = time.time()
    if is_sd3:
        network = SD3Transformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=dtype).to(device)
        given = dict(
            hidden_states=normal(2, 16, latent, latent),
            encoder_hidden_states=normal(2, 333, 4096),
            pooled_projections=normal(2, 2048),
            timestep=torch.full((2,), 500.0, device=device),
        )
    else:
        network = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype).to(device)
        given = dict(sample=normal(2, 4, latent, latent), timestep=500, encoder_hidden_states=normal(2, 77, network.config.cross_attention_dim))
        if name == "xl":
            given["added_cond_kwargs"] = dict(text_embeds=normal(2, 1280), time_ids=normal(2, 6))
    torch.cuda.synchronize()
    loading = time.time() - begin
    step = timed(torch, lambda: network(**given, return_dict=False))
    line = f"diffusers {folder.name}: {step:.4f} s a step, loading {loading:.2f} s"
    if compiles:
        network.to(memory_format=torch.channels_last) if not is_sd3 else None
        compiled = torch.compile(network, mode="max-autotune-no-cudagraphs", fullgraph=True)
        begin = time.time()
        with torch.no_grad():
            compiled(**given, return_dict=False)
        line += f"; compiled in {time.time() - begin:.0f} s: {timed(torch, lambda: compiled(**given, return_dict=False)):.4f} s"
    del network
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype).to(device)
    for size in (latent, 2 * latent):
        latents = normal(1, vae.config.latent_channels, size, size)
        decoding = timed(torch, lambda: vae.decode(latents, return_dict=False), 3)
        line += f"; decoding {8 * size}: {decoding:.4f} s, {torch.cuda.max_memory_allocated() / 1e9:.2f} GB"
    del vae, latents
    if is_sd3:
        from transformers import T5EncoderModel

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        encoder = T5EncoderModel.from_pretrained(folder, subfolder="text_encoder_3", torch_dtype=dtype).to(device)
        ids = torch.arange(512, device=device).reshape(2, 256)
        seconds = timed(torch, lambda: encoder(ids))
        line += f"; T5, 2 x 256 tokens: {seconds:.4f} s, {torch.cuda.max_memory_allocated() / 1e9:.2f} GB"
        del encoder
    print(line, flush=True)
    torch.cuda.empty_cache()


def timed(torch, call, count=10):
    with torch.no_grad():
        for _ in range(LEFT_OUT):
            call()
        torch.cuda.synchronize()
        begin = time.time()
        for _ in range(count):
            call()
        torch.cuda.synchronize()
    return (time.time() - begin) / count


if __name__ == "__main__":
    main()
