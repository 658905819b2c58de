#!/usr/bin/env python3
"""Runs the program on damaged files of every format that it reads, and counts panics, aborts, hangs and memory.

    tools/measure/mutations.py PROGRAM [COUNT] [SEED]

Each run has one file of a working set-up damaged: bits flipped, bytes removed, doubled or overwritten, the end truncated,
numbers and texts of JSON replaced by extreme ones. A run must end by itself within ten seconds with one of the program's exit
codes, without the word of a panic, and with at most 300 MB more memory than the undamaged set-up takes. Exit status 1 and
the damaged files in the folder `mutations-failed` otherwise. Needs Python 3 and nothing else; Linux. It opens no connection.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURES = REPOSITORY / "crates/pipeline/tests/fixtures"
UPSCALERS = REPOSITORY / "crates/models/tests/fixtures/upscaler"
TORCH = REPOSITORY / "crates/weights/tests/fixtures/torch"
SECONDS = 10
MORE_MEMORY = 300 << 20
EXIT_CODES = {0, 1, 2, 3, 4}

# Files that are refused without damage.
REFUSED = {"init image bad-palette.png"}

NUMBERS = [0, -1, 1, 2, 3, 7, 255, 65536, 10**9, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, -(2**63), 0.5, 1e308, -1e-308]
VALUES = [None, True, False, "", "x", "\u202e\x1b[2J", "../../x", "/", [], {}, [[]], [0], {"a": {}}, "9" * 400, ["a"] * 50]


def leaves(value, path=()):
    """The paths of all values in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, path + (key,))


def replaced(document, path, value):
    if not path:
        return value
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return document


def damaged_json(text, random):
    """The JSON document with one to three of its values replaced, removed or doubled."""
    try:
        document = json.loads(text)
    except ValueError:
        return damaged_bytes(text, random)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = [place for place in leaves(document) if place]
        if not places:
            break
        place = random.choice(places)
        kind = random.random()
        if kind < 0.15:
            holder = document
            for key in place[:-1]:
                holder = holder[key]
            del holder[place[-1]]
        elif kind < 0.6:
            document = replaced(document, place, random.choice(NUMBERS))
        else:
            document = replaced(document, place, random.choice(VALUES))
    return json.dumps(document).encode()


def damaged_safetensors(data, random):
    """The file with a damaged JSON header, or with damaged bytes."""
    if len(data) < 8 or random.random() < 0.4:
        return damaged_bytes(data, random)
    length = int.from_bytes(data[:8], "little")
    header = damaged_json(data[8:8 + length], random)
    return len(header).to_bytes(8, "little") + header + data[8 + length:]


def damaged_bytes(data, random):
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        # Most of the structure is at the start of a file.
        place = random.randrange(min(len(data), random.choice((64, 512, len(data)))))
        kind = random.randrange(7)
        if kind == 0:
            data[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[place] = random.choice((0, 1, 0x7f, 0x80, 0xff, ord('"'), ord("{")))
        elif kind == 2:
            del data[place:place + random.choice((1, 2, 8, 100))]
        elif kind == 3:
            data[place:place] = data[place:place + random.choice((1, 4, 64, 1000))]
        elif kind == 4:
            number = random.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1)).to_bytes(4, random.choice(("little", "big")))
            data[place:place + 4] = number
        elif kind == 5:
            data[place:place + 8] = random.randbytes(8)
        else:
            del data[place:]
    return bytes(data)


class Setup:
    """A working folder, a command, and the files that may be damaged."""

    def __init__(self, name, prepare, arguments, files, environment=None):
        self.name, self.prepare, self.arguments, self.files = name, prepare, arguments, files
        self.environment = environment or {}


def copied(source, target):
    def prepare(folder):
        destination = folder / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, destination)
        else:
            shutil.copy(source, destination)
    return prepare


def together(*steps):
    def prepare(folder):
        for step in steps:
            step(folder)
    return prepare


def written(name, data):
    def prepare(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return prepare


def interrupted(program):
    """The state of a run that was killed."""
    def prepare(folder):
        command = [program, "a red circle", "--steps", "60", "--size", "64x64", "--n", "2", "--device", "cpu", "--json"]
        run = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
        steps = 0
        for line in run.stdout:
            steps += b'"step"' in line
            if steps == 20:
                break
        run.kill()
        run.wait()
        states = list((folder / "user/state/runs").glob("*.safetensors"))
        assert len(states) == 1, f"no state was left: {states}"
    return prepare


def snapshot(source):
    """A model in the cache of Hugging Face."""
    def prepare(folder):
        repository = folder / "user/hub/models--me--tiny"
        shutil.copytree(source, repository / "snapshots" / ("a" * 40))
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text("a" * 40)
    return prepare


def environment(folder):
    user = folder / "user"
    keep = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return keep | {
        "SD_GENERATE_STATE": str(user / "state"),
        "SD_GENERATE_CACHE": str(user / "cache"),
        "SD_GENERATE_CONFIG": str(folder / "config.toml"),
        "HF_HOME": str(user),
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "RAYON_NUM_THREADS": "2",
    }


def setups(program):
    generate = ["a cat", "--size", "64x64", "--steps", "1", "--device", "cpu", "--output", "out"]
    of_model = generate + ["--model", "model"]
    json_files = ["model_index.json", "*/*.json"]
    weights = ["*/*.safetensors"]
    for family in ("families/sd15", "families/sdxl", "models/tiny-large"):
        model = copied(FIXTURES / family, "model")
        yield Setup(f"{family} configuration", model, ["plan", *of_model[:-2], "--model", "model"],
                    [f"model/{name}" for name in json_files])
        yield Setup(f"{family} configuration, generated", model, of_model, [f"model/{name}" for name in json_files])
        yield Setup(f"{family} weights", model, of_model, [f"model/{name}" for name in weights])
    model = copied(FIXTURES / "families/sd15", "model")
    for lora in sorted((FIXTURES / "conditioned/loras").glob("*.safetensors")):
        if not lora.name.startswith("sd3"):
            yield Setup(f"LoRA {lora.name}", together(model, copied(lora, "lora.safetensors")),
                        [*of_model, "--lora", "lora.safetensors:0.5"], ["lora.safetensors"])
    for kind in ("x4/model.pth", "compact/model.pth", "compact-x3/model.safetensors"):
        name = "upscaler" + Path(kind).suffix
        yield Setup(f"upscaler {kind}", together(model, copied(UPSCALERS / kind, name)),
                    [*of_model, "--upscale", "2", "--upscaler", name], [name])
    for path in sorted(TORCH.iterdir()):
        if path.suffix in (".pth", ".bin", ".ckpt"):
            name = "network" + path.suffix
            yield Setup(f"PyTorch file {path.name}", together(model, copied(path, name)),
                        [*of_model, "--upscale", "2", "--upscaler", name], [name])
    for path in sorted((FIXTURES / "source_images").iterdir()):
        if path.suffix not in (".png", ".jpg", ".webp"):
            continue
        name = "init" + path.suffix
        image = copied(path, name)
        yield Setup(f"init image {path.name}", together(model, image),
                    [*of_model, "--init-image", name, "--strength", "1"], [name])
    mask = copied(FIXTURES / "families/mask.png", "mask.png")
    init = copied(FIXTURES / "families/init.png", "init.png")
    yield Setup("mask", together(model, init, mask),
                ["a cat", "--steps", "1", "--device", "cpu", "--output", "out", "--model", "model",
                 "--init-image", "init.png", "--mask", "mask.png"], ["mask.png"])
    control = copied(FIXTURES / "families/control-1", "control")
    yield Setup("ControlNet", together(model, init, control),
                [*of_model, "--canny", "init.png", "--controlnet", "control"],
                ["init.png", "control/config.json", "control/*.safetensors"])
    yield Setup("configuration file", written("config.toml", b'[defaults]\nsteps = 2\n[presets.mine]\nmodel = "demo"\nsteps = 3\ncfg = 2.0\n'),
                ["a cat", "--quality", "mine", "--size", "64x64", "--steps", "1", "--device", "cpu", "--output", "out"],
                ["config.toml"])
    yield Setup("resume state", interrupted(program), ["resume", "--last"], ["user/state/runs/*.safetensors"])
    yield Setup("resume list", interrupted(program), ["resume"], ["user/state/runs/*.safetensors"])
    yield Setup("hub cache", snapshot(FIXTURES / "families/sd15"), [*generate, "--model", "me/tiny"],
                ["user/hub/models--me--tiny/refs/main", "user/hub/models--me--tiny/snapshots/*/*.json"])
    prompt = '(a [cat]:1.2) BREAK <lora:lora.safetensors:0.5:1> \\(photo\\) ((((deep:0.3)))) 猫 , '.encode() * 3
    lora = copied(FIXTURES / "conditioned/loras/kohya.safetensors", "lora.safetensors")
    yield Setup("prompt", together(model, lora, written("prompt.txt", prompt)), None, ["prompt.txt"])


def run(program, setup, folder):
    """Exit code (negative for a signal, None for a hang), standard error, and the most memory."""
    arguments = setup.arguments
    if arguments is None:
        text = (folder / "prompt.txt").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        arguments = ["--model", "model", "--size", "64x64", "--steps", "1", "--device", "cpu", "--output", "out", "--", text]
    with open(folder / "stderr", "wb") as stderr:
        process = subprocess.Popen([program, *arguments], cwd=folder, env=environment(folder) | setup.environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.alarm(3 * SECONDS)
        begin = time.monotonic()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        signal.alarm(0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = (folder / "stderr").read_text("utf-8", "replace")
    return process.returncode, text, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, seconds


def main():
    program = str(Path(sys.argv[1]).resolve())
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    generator = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    failures = 0
    codes, slowest, most = {}, 0.0, 0
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        every = list(setups(program))
        baselines = {}
        for index, setup in enumerate(every):
            folder = work / f"setup-{index}"
            folder.mkdir()
            setup.prepare(folder)
            keep = work / f"keep-{index}"
            shutil.copytree(folder, keep, symlinks=True)
            code, text, peak, _, _ = run(program, setup, folder)
            baselines[index] = (keep, peak)
            print(f"{setup.name}: undamaged exit {code}, {peak >> 20} MB", flush=True)
            if code != 0 and setup.name not in REFUSED:
                sys.exit(f"{setup.name} does not work undamaged: {text}")
        for number in range(count):
            index = number % len(every)
            setup, (keep, peak) = every[index], baselines[index]
            folder = work / "run"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(keep, folder, symlinks=True)
            files = sorted({path for pattern in setup.files for path in folder.glob(pattern) if path.is_file()})
            path = generator.choice(files)
            data = path.read_bytes()
            if path.suffix == ".json":
                data = damaged_json(data, generator) if generator.random() < 0.8 else damaged_bytes(data, generator)
            elif path.suffix == ".safetensors":
                data = damaged_safetensors(data, generator)
            else:
                data = damaged_bytes(data, generator)
            path.write_bytes(data)
            code, text, used, cpu, seconds = run(program, setup, folder)
            codes[code] = codes.get(code, 0) + 1
            slowest, most = max(slowest, cpu), max(most, used - peak)
            reasons = []
            if code not in EXIT_CODES:
                reasons.append(f"exit code {code}")
            if re.search(r"panicked at|RUST_BACKTRACE|overflow its stack", text):
                reasons.append("a panic")
            if cpu > SECONDS or seconds > 3 * SECONDS - 1:
                reasons.append(f"{cpu:.1f} s of CPU time, {seconds:.1f} s")
            if used > peak + MORE_MEMORY:
                reasons.append(f"{(used - peak) >> 20} MB more memory")
            if reasons:
                failures += 1
                kept = Path("mutations-failed") / f"{number}-{path.name}"
                kept.parent.mkdir(exist_ok=True)
                kept.write_bytes(data)
                last = text.strip().splitlines()[-1] if text.strip() else ""
                print(f"{number} {setup.name} {path.relative_to(folder)}: {', '.join(reasons)}: {last[:200]}", flush=True)
            if (number + 1) % 500 == 0:
                print(f"{number + 1} of {count}, {failures} failed", flush=True)
    print(f"exit codes {codes}; most CPU time {slowest:.1f} s; most memory over the undamaged {most >> 20} MB")
    print(f"{count - failures} passed, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
