#!/usr/bin/env python3
"""Generates the images of the tests' fixtures on a device, and prints how far each is from that of diffusers.

    cargo build --release --features cuda
    fixtures.py --program target/release/generate --device cuda --dtype f32

The images of diffusers are those that tools/reference has written, on a CPU in f32. Needs numpy and Pillow.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates/pipeline/tests/fixtures"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/generate")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="f32")
    arguments = parser.parse_args()
    worst = 0
    for kind in ["", "families"]:
        for case in json.loads((FIXTURES / kind / "cases.json").read_text()):
            # The command refuses an empty prompt.
            if not case["prompt"]:
                continue
            difference = of_case(arguments, case, kind)
            worst = max(worst, difference)
            print(f"{case['name']:32} {difference:3} of 255")
    print(f"{'at most':32} {worst:3} of 255")


def of_case(arguments, case, kind):
    families = FIXTURES / "families"
    options = {
        "--model": (families if kind == "families" else FIXTURES / "models") / case["model"],
        "--negative-prompt": case["negative_prompt"],
        "--size": f"{case['width']}x{case['height']}",
        "--seed": case["seed"],
        "--steps": case["steps"],
        "--cfg": case["guidance_scale"],
        "--sampler": case.get("sampler"),
        "--strength": case.get("strength"),
        "--init-image": families / "init.png" if case.get("strength") is not None else None,
        "--mask": families / "mask.png" if case.get("masked") else None,
        "--device": arguments.device,
        "--dtype": arguments.dtype,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    for name, scale in case.get("controls", []):
        words += ["--pose", str(families / "init.png"), "--controlnet", str(families / name), "--control-scale", str(scale)]
    with tempfile.TemporaryDirectory() as output:
        command = [arguments.program, "--quiet", "--output", output, *words, "--prompt", case["prompt"]]
        subprocess.run(command, check=True, capture_output=True)
        (image,) = Path(output).glob("*.png")
        ours = numpy.asarray(Image.open(image).convert("RGB"), dtype=int)
    theirs = numpy.asarray(Image.open(FIXTURES / kind / "cases" / f"{case['name']}.png").convert("RGB"), dtype=int)
    return int(numpy.abs(ours - theirs).max()) if ours.shape == theirs.shape else 255


if __name__ == "__main__":
    main()
