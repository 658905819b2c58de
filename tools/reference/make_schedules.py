"""What FlowMatchEulerDiscreteScheduler plans and how it steps: `schedules.json`."""

import json

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from paths import SCHEDULERS

STEPS = (1, 2, 5, 20, 28)


def numbers(tensor: torch.Tensor) -> list[float]:
    """As written in full: each 32-bit number is exact."""
    return tensor.double().flatten().tolist()


def schedule(steps: int, patches: int | None = None, **options) -> dict:
    """`patches` is what a size-dependent shift depends on."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, **options)
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    mu = None
    if patches is not None:
        limits = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        mu = calculate_shift(patches, *(config[limit] for limit in limits))
    scheduler.set_timesteps(steps, mu=mu)
    return {
        "config": config, "patches": patches, "mu": mu, "steps": steps,
        "sigmas": numbers(scheduler.sigmas), "timesteps": numbers(scheduler.timesteps),
    }


def trace(shift: float, steps: int) -> dict:
    """A sample led through all steps by given outputs of a network."""
    generator = torch.Generator("cpu").manual_seed(5)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    scheduler.set_timesteps(steps)
    sample = torch.randn(6, generator=generator)
    result = {"shift": shift, "steps": steps, "sample": numbers(sample), "model_outputs": [], "next_samples": []}
    for timestep in scheduler.timesteps:
        output = torch.randn(6, generator=generator)
        sample = scheduler.step(output, timestep, sample).prev_sample
        result["model_outputs"].append(numbers(output))
        result["next_samples"].append(numbers(sample))
    return result


def main() -> None:
    schedules = [schedule(steps, shift=shift) for shift in (1.0, 3.0) for steps in STEPS]
    for kind in ("exponential", "linear"):
        dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "time_shift_type": kind}
        schedules += [schedule(steps, patches, shift=3.0, **dynamic) for steps, patches in ((5, 1024), (20, 4096))]
    content = {"schedules": schedules, "trace": trace(3.0, 4)}
    (SCHEDULERS / "schedules.json").write_text(json.dumps(content, indent=1) + "\n")
    for entry in schedules:
        print(entry["config"]["shift"], entry["mu"], entry["steps"], entry["timesteps"][-1], entry["sigmas"][-2:])


if __name__ == "__main__":
    main()
