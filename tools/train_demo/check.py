"""Generates the held-out prompts with diffusers or with `generate`, and counts the right images."""

import argparse
import json
import random
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

from draw import render
from judge import faults
from language import Group, Shapes, held_out_prompts
from sample import GUIDANCE, STEPS
from text import write_json

FIRST_SEED = 42
TOGETHER = 10


def write_prompts(path: Path) -> None:
    """Writes the held-out prompts and what each means."""
    rows = [{"prompt": prompt, "seed": FIRST_SEED + number} | {key: value for key, value in asdict(scene).items() if key != "kind"}
            for number, (prompt, scene) in enumerate(held_out_prompts())]
    write_json(path, rows)


def read_prompts(path: Path) -> list[tuple[str, int, Shapes]]:
    """Each held-out prompt with its seed and its scene."""
    rows = json.loads(path.read_text("utf-8"))
    return [(row["prompt"], row["seed"], Shapes(row["background"], [Group(**group) for group in row["groups"]], row["relation"]))
            for row in rows]


def count_right(images: list[np.ndarray], scenes: list[Shapes], forms: bool = True) -> int:
    return sum(not faults(image, scene, forms) for image, scene in zip(images, scenes))


def generated_by_program(program: Path, model: Path, rows, guidance: float, steps: int) -> list[np.ndarray]:
    """The images of `generate` with the model in the folder `model`."""
    images = []
    with tempfile.TemporaryDirectory() as folder:
        for prompt, seed, _ in rows:
            command = [program, "--model", model, "--prompt", prompt, "--seed", str(seed), "--cfg", str(guidance), "--steps", str(steps),
                       "--quiet", "--output", folder]
            path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            images.append(np.asarray(Image.open(path)))
    return images


def generated_by_diffusers(options, rows) -> list[np.ndarray]:
    """The images of diffusers with the model in the folder, in f32."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(options.folder, torch_dtype=torch.float32)
    if options.shift:
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=options.shift)
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for start in range(0, len(rows), TOGETHER):
        part = rows[start:start + TOGETHER]
        generated = pipeline([prompt for prompt, _, _ in part], num_inference_steps=options.steps, guidance_scale=options.guidance,
                         generator=[torch.Generator("cpu").manual_seed(seed) for _, seed, _ in part], height=256, width=256,
                         max_sequence_length=32, output_type="np").images
        images += list((generated * 255).round().astype(np.uint8))
    return images


def check_the_check(scenes: list[Shapes]) -> None:
    """True images must pass, and true images of other prompts must fail."""
    rng = random.Random(1)
    images = [render(scene, rng) for scene in scenes]
    others = images[7:] + images[:7]
    for forms, what in ((False, "colours, count, places and background"), (True, "size and outline too")):
        print(f"{what}: {count_right(images, scenes, forms)} of {len(scenes)} true images are right, "
              f"and {count_right(others, scenes, forms)} of those of the prompt seven places on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=200, help="how many of the held-out prompts")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--program", type=Path, help="draw with this `generate` instead of with diffusers")
    parser.add_argument("--shift", type=float, help="instead of the scheduler's own")
    parser.add_argument("--write", action="store_true", help="write held_out.json first")
    parser.add_argument("--quiet", action="store_true", help="do not name the wrong images")
    options = parser.parse_args()
    if options.write:
        write_prompts(options.folder / "held_out.json")
    rows = read_prompts(options.folder / "held_out.json")[:options.prompts]
    scenes = [scene for _, _, scene in rows]
    if not options.quiet:
        check_the_check(scenes)
    if options.program:
        images = generated_by_program(options.program, options.folder, rows, options.guidance, options.steps)
    else:
        images = generated_by_diffusers(options, rows)
    if not options.quiet:
        for image, (prompt, seed, scene) in zip(images, rows):
            if wrong := faults(image, scene):
                print(f"  {prompt} (seed {seed}): {'; '.join(wrong)}")
    print(f"guidance {options.guidance}, {options.steps} steps: {count_right(images, scenes, forms=False)} of {len(rows)} right in "
          f"colours, count, places and background; {count_right(images, scenes)} in size and outline too")


if __name__ == "__main__":
    main()
