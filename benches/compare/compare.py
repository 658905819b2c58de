#!/usr/bin/env python3
"""Runs the same work here and in diffusers, in alternation, with full-size models of the same random weights.

    benches/compare/install.sh FOLDER              once; then, with its Python:
    compare.py --models DIR [WORK...]              by default all works; models are written to DIR once (34 GB)

Needs `cargo build --release` of the programs first (`--build` does it), or `--programs DIR` with `generate`, `compare` and
`synthesize` that were built elsewhere: then this file and that folder suffice.

Each program is a process that loads the network once and then runs one piece of work (a step, a decoded image) per request.
The two alternate, so that a machine that is now fast and now slow is so for both. A ratio is that of two neighbours: seconds
of diffusers divided by seconds here. The results are compared, so that a wrong kernel cannot win. Memory is VmHWM of the
process at its end.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PROMPT = "a red circle"
# What a process prints when its first step starts; here it is the label of a memory reading.
BEFORE_STEPS = "Before generation"
# The largest relative difference of results, by the data type of the weights.
LIMITS = {"f32": 1e-3, "bf16": 5e-2}
TEXT_TOKENS, CLIP_TOKENS, T5_TOKENS = 333, 77, 256
LATENTS = 64  # of an image of 512x512


@dataclass
class Work:
    """The work of both programs."""

    name: str
    what: str
    kind: str  # the name in `compare` and Theirs
    model: str  # the name in `synthesize`
    dtype: str
    pairs: int = 3
    # The residency here: as in `generate` with enough memory, or a budget in megabytes.
    held: str = "resident"
    shapes: dict = field(default_factory=dict)


def sd3(name, what, model, held, pairs):
    shapes = {"latents": (1, 16, LATENTS, LATENTS), "context": (1, TEXT_TOKENS, 4096), "pooled": (1, 2048)}
    return Work(name, what, "transformer", model, "bf16", pairs, held, shapes)


def unet(dtype):
    shapes = {"latents": (2, 4, LATENTS, LATENTS), "context": (2, CLIP_TOKENS, 768)}
    return Work(f"unet-{dtype}", "SD 1.5, a step, batch 2", "unet", "sd1.5", dtype, 5, shapes=shapes)


def decoder(dtype):
    shapes = {"latents": (1, 4, LATENTS, LATENTS)}
    return Work(f"decode-{dtype}", "SD 1.5, 512x512 decoded", "decoder", "sd1.5", dtype, 5, shapes=shapes)


def text(name, what, held):
    return Work(name, what, "t5", "sd3.5-large", "bf16", 3, held, {"tokens": (1, T5_TOKENS)})


WORKS = [
    sd3("large", "SD 3.5 Large, a step, ours in 3 GB", "sd3.5-large", "3072", 2),
    sd3("medium", "SD 3.5 Medium, a step", "sd3.5-medium", "resident", 3),
    unet("bf16"),
    unet("f32"),
    decoder("bf16"),
    decoder("f32"),
    text("t5", "T5-XXL, 256 tokens encoded", "resident"),
    # As in `generate`: its weights are needed once.
    text("t5-streamed", "T5-XXL, 256 tokens encoded, ours streamed", "streamed"),
    Work("start", "SD 1.5, from nothing to where the first step begins", "start", "sd1.5", "bf16", 3),
    Work("demo", "the built-in model's image, 20 steps", "demo", "", "bf16", 5),
]


def main():
    if sys.argv[1:2] == ["--theirs"]:
        return Theirs(*sys.argv[2:]).serve()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [work.name for work in WORKS]
    parser.add_argument("works", nargs="*", metavar="WORK", help="any of " + ", ".join(names))
    parser.add_argument("--models", type=Path, required=True, help="where full-size models lie, and are made if missing")
    parser.add_argument("--programs", type=Path, help="where our programs lie [default: target/release of this repository]")
    parser.add_argument("--build", action="store_true", help="build them first")
    slow = "bf16 is slow on CPUs without bf16 products"
    parser.add_argument("--their-dtype", choices=sorted(LIMITS), help=f"of diffusers' weights [default: as ours]; {slow}")
    parser.add_argument("--threads", type=int, help="of both programs [default: the CPUs that they may use]")
    parser.add_argument("--cpu-list", help="the CPUs that both may use, 0,1 or 0-3 [default: all]")
    parser.add_argument("--pairs", type=int, help="how often each side does each work [default: 2 to 5]")
    parser.add_argument("--no-warm-up", action="store_true", help="time the first piece of each side too")
    parser.add_argument("--json", type=Path, help="a file that every measurement is added to, one a line")
    arguments = parser.parse_args()
    wanted = arguments.works or names
    if unknown := set(wanted) - set(names):
        parser.error(f"there is no work called {', '.join(sorted(unknown))}")
    if arguments.cpu_list:
        os.sched_setaffinity(0, cpus(arguments.cpu_list))
    arguments.threads = arguments.threads or len(os.sched_getaffinity(0))
    arguments.models = arguments.models.resolve()
    programs = Programs(arguments.programs, arguments.build)
    print(machine(arguments.threads, programs), flush=True)
    print("\n| work | weights | ours | diffusers | diffusers / ours | least to most | our peak | their peak | results differ by |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    is_right = True
    with tempfile.TemporaryDirectory() as scratch:
        for work in WORKS:
            if work.name in wanted:
                measured = Comparison(work, arguments, programs, Path(scratch)).run()
                print(row(measured), flush=True)
                is_right &= measured.get("difference", 0.0) <= LIMITS[work.dtype]
                if arguments.json:
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(measured) + "\n")
    if not is_right:
        sys.exit("results differ by more than they may")


class Programs:
    """The programs of this repository, built here or given."""

    EXAMPLES = ["compare", "synthesize"]

    def __init__(self, folder, build):
        root = Path(__file__).resolve().parents[2]
        self.folders = [folder.resolve()] if folder else [root / "target/release", root / "target/release/examples"]
        if build:
            cargo = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(root / "Cargo.toml")]
            subprocess.run([*cargo, "-p", "sd-generate"], check=True)
            for example in self.EXAMPLES:
                subprocess.run([*cargo, "-p", "sd-models", "--example", example], check=True)

    def find(self, name):
        for folder in self.folders:
            if (folder / name).is_file():
                return str(folder / name)
        sys.exit(f"there is no `{name}` in {' or '.join(map(str, self.folders))}: try --build")


@dataclass
class Comparison:
    """Runs one work in both programs, in alternation."""

    work: Work
    arguments: argparse.Namespace
    programs: Programs
    scratch: Path

    def run(self):
        if self.work.kind == "demo":
            return self.measured([self.demo() for _ in range(self.pairs)], [])
        folder = self.model()
        if self.work.kind == "start":
            sides = [Start(self.ours_from_nothing(folder)), Start(self.theirs(folder, "-", "-"))]
            return self.alternate(sides)
        inputs = self.scratch / "inputs.safetensors"
        write_inputs(self.work, inputs)
        outputs = [self.scratch / "ours.safetensors", self.scratch / "theirs.safetensors"]
        compare = self.programs.find("compare")
        ours = [compare, self.work.kind, str(folder), str(inputs), str(outputs[0])]
        ours += [self.work.dtype, self.work.held, str(self.arguments.threads)]
        with Server(ours) as first, Server(self.theirs(folder, inputs, outputs[1])) as second:
            measured = self.alternate([first, second])
        measured["difference"] = difference(*outputs)
        return measured

    @property
    def their_dtype(self):
        return self.arguments.their_dtype or self.work.dtype

    @property
    def pairs(self):
        return self.arguments.pairs or self.work.pairs

    def alternate(self, sides):
        """The pieces of both, in pairs that alternately start with one and the other."""
        seconds = ([], [])
        for number in range(0 if self.arguments.no_warm_up else -1, self.pairs):
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                took = sides[index].piece()
                say(f"{self.work.name}: {('ours', 'diffusers')[index]} {took:.3f} s{' (warm-up)' if number < 0 else ''}")
                if number >= 0:
                    seconds[index].append(took)
        return {**self.measured(*seconds), "our_peak": sides[0].peak(), "their_peak": sides[1].peak()}

    def measured(self, ours, theirs):
        dtype = self.work.dtype
        if theirs and self.their_dtype != dtype:
            dtype = f"{dtype}, there {self.their_dtype}"
        return {"work": self.work.name, "what": self.work.what, "dtype": dtype, "ours": ours, "theirs": theirs}

    def theirs(self, folder, inputs, output):
        parts = [self.work.kind, folder, inputs, output, self.their_dtype, self.arguments.threads]
        return [sys.executable, str(Path(__file__).resolve()), "--theirs", *map(str, parts)]

    def ours_from_nothing(self, folder):
        parts = ["--model", folder, "--size", "512x512", "--sampler", "euler", "--dtype", self.work.dtype]
        return [*self.generate(), *map(str, parts), "--json"]

    def generate(self):
        # A separate folder, so that the prompt cache is empty and no state is left behind.
        here = Path(tempfile.mkdtemp(dir=self.scratch))
        for name in ("CACHE", "STATE"):
            os.environ[f"SD_GENERATE_{name}"] = str(here / name)
        parts = [self.programs.find("generate"), PROMPT, "--device", "cpu", "--threads", self.arguments.threads, "--output", here]
        return list(map(str, parts))

    def demo(self):
        command = [*self.generate(), "--model", "demo", "--quiet"]
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    def model(self):
        """The folder of the model, which is synthesized if missing."""
        folder = self.arguments.models / self.work.model
        if not (folder / "model_index.json").exists():
            large = self.arguments.models / "sd3.5-large"
            if self.work.model == "sd3.5-medium" and large.exists():
                folder.mkdir(parents=True, exist_ok=True)
                for encoder in ("text_encoder", "text_encoder_2", "text_encoder_3"):
                    with contextlib.suppress(FileExistsError):
                        (folder / encoder).symlink_to(large / encoder)
            say(f"making {folder}")
            subprocess.run([self.programs.find("synthesize"), "--arch", self.work.model, str(folder)], check=True)
        return folder


class Server:
    """A process that is ready and runs one piece of its work per line."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer("ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def answer(self, name):
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                return json.loads(line)[name]
        sys.exit(f"`{' '.join(self.process.args)}` has ended: {self.process.wait()}")

    def piece(self):
        print(file=self.process.stdin, flush=True)
        return self.answer("seconds")

    def peak(self):
        return most_resident(self.process.pid)


class Start:
    """A process that is started for every piece, and stopped when its first step starts."""

    def __init__(self, command):
        self.command, self.most = command, None

    def piece(self):
        begin = time.perf_counter()
        process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in process.stdout:
            if BEFORE_STEPS in line:
                break
        else:
            sys.exit(f"`{' '.join(self.command)}` came to no step")
        seconds = time.perf_counter() - begin
        self.most = most_resident(process.pid)
        process.kill()
        process.wait()
        # The prompt is encoded again the next time.
        shutil.rmtree(os.environ["SD_GENERATE_CACHE"], ignore_errors=True)
        return seconds

    def peak(self):
        return self.most


class Theirs:
    """diffusers in its own process."""

    def __init__(self, kind, folder, inputs, output, dtype, threads):
        import torch

        self.torch, self.folder, self.output = torch, folder, output
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        torch.set_num_threads(int(threads))
        begin = time.perf_counter()
        self.inputs = {} if inputs == "-" else self.read(inputs)
        with torch.inference_mode():
            self.piece = getattr(self, kind)()
        print(json.dumps({"ready": time.perf_counter() - begin}), flush=True)

    def serve(self):
        from safetensors.torch import save_file

        for index, _ in enumerate(sys.stdin):
            begin = time.perf_counter()
            with self.torch.inference_mode():
                result = self.piece()
            seconds = time.perf_counter() - begin
            if index == 0:
                save_file({"output": result.float().contiguous()}, self.output)
            print(json.dumps({"seconds": seconds}), flush=True)

    def read(self, path):
        from safetensors.torch import load_file

        tensors = load_file(path)
        return {name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}

    def network(self, class_, folder):
        return class_.from_pretrained(self.folder, subfolder=folder, dtype=self.dtype).eval()

    def transformer(self):
        from diffusers import SD3Transformer2DModel

        network, given = self.network(SD3Transformer2DModel, "transformer"), self.inputs
        return lambda: network(
            hidden_states=given["latents"],
            encoder_hidden_states=given["context"],
            pooled_projections=given["pooled"],
            timestep=given["timestep"],
        ).sample

    def unet(self):
        from diffusers import UNet2DConditionModel

        network, given = self.network(UNet2DConditionModel, "unet"), self.inputs
        return lambda: network(given["latents"], given["timestep"], encoder_hidden_states=given["context"]).sample

    def decoder(self):
        from diffusers import AutoencoderKL

        network = self.network(AutoencoderKL, "vae")
        return lambda: network.decode(self.inputs["latents"]).sample

    def t5(self):
        from transformers import T5EncoderModel

        network = T5EncoderModel.from_pretrained(self.folder, subfolder="text_encoder_3", dtype=self.dtype).eval()
        return lambda: network(self.inputs["tokens"]).last_hidden_state

    def start(self):
        """Generates up to the first step, and waits there until the parent ends this process."""
        from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(self.folder, dtype=self.dtype)
        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)

        def tell(_network, _given):
            print(BEFORE_STEPS, flush=True)
            sys.stdin.read()
            time.sleep(60)

        pipeline.unet.register_forward_pre_hook(tell)
        pipeline(PROMPT, height=8 * LATENTS, width=8 * LATENTS)


def write_inputs(work, path):
    """Random numbers that bfloat16 represents exactly, so that both programs get the same."""
    import numpy
    from safetensors.numpy import save_file

    numbers = numpy.random.default_rng(0)

    def normal(shape):
        values = numbers.standard_normal(shape, dtype=numpy.float32)
        return (values.view(numpy.uint32) & 0xFFFF0000).view(numpy.float32)

    tensors = {name: normal(shape) for name, shape in work.shapes.items() if name != "tokens"}
    if "tokens" in work.shapes:
        tensors["tokens"] = numbers.integers(3, 32000, work.shapes["tokens"], dtype=numpy.int64)
    tensors["timestep"] = numpy.array([500.0], dtype=numpy.float32)
    save_file(tensors, path)


def difference(first, second):
    """The norm of the difference, relative to that of the second."""
    import numpy
    from safetensors.numpy import load_file

    ours, theirs = (load_file(path)["output"].astype(numpy.float64) for path in (first, second))
    if ours.shape != theirs.shape or not numpy.isfinite(ours).all():
        return float("inf")
    return float(numpy.linalg.norm(ours - theirs) / numpy.linalg.norm(theirs))


def most_resident(process):
    """The peak resident size of a process, if the system reports it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return None


def cpus(text):
    """The CPUs of a list like 0,2-3."""
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def machine(threads, programs):
    from importlib.metadata import version

    facts = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    interesting = ("fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    memory = ""
    with contextlib.suppress(OSError, ValueError):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB"
    name = facts.get("model name") or platform.processor() or platform.machine()
    ours = subprocess.run([programs.find("generate"), "--version"], capture_output=True, text=True, check=True).stdout
    theirs = ", ".join(f"{package} {version(package)}" for package in ("torch", "diffusers", "transformers"))
    family = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return (
        f"{name} ({family}; {' '.join(flag for flag in interesting if flag in flags)}), {threads} threads{memory}, "
        f"{platform.system()} {platform.release()}; {ours.strip()}; {theirs}, Python {platform.python_version()}."
    )


def row(measured):
    ours, theirs = measured["ours"], measured["theirs"]
    cells = [measured["what"], measured["dtype"], f"{statistics.median(ours):.2f} s"]
    if theirs:
        ratios = [theirs / ours for ours, theirs in zip(ours, theirs)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        cells += [f"{statistics.median(theirs):.2f} s", f"**{statistics.median(ratios):.2f}**", spread]
    else:
        cells += ["", "", f"{min(ours):.2f} s to {max(ours):.2f} s"]
    cells += [gigabytes(measured.get("our_peak")), gigabytes(measured.get("their_peak"))]
    cells.append(f"{measured['difference']:.1e}" if "difference" in measured else "")
    return f"| {' | '.join(cells)} |"


def gigabytes(count):
    return "" if count is None else f"{count / 2**30:.2f} GB"


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
