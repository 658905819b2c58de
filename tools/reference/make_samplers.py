"""How diffusers' schedulers lead a sample through their noise levels: `samplers.json`.

Predictions and noise are formulas of the evaluation and of the place in the tensor, which the test repeats. A prediction
depends on the scaled input too, so an error in one step shows in all that follow.
"""

import json
import math
import sys
import types

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from places import PIPELINE

# Only its Brownian noise needs it, and noise is given here.
sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
from diffusers.schedulers import scheduling_dpmsolver_sde as dpm_sde  # noqa: E402

SHAPE = (1, 2, 2, 3)
SIZE = math.prod(SHAPE)
PLACES = np.arange(SIZE)
SLICED = ("LMS",)

CLASSES = {
    "Euler": diffusers.EulerDiscreteScheduler,
    "Euler a": diffusers.EulerAncestralDiscreteScheduler,
    "Heun": diffusers.HeunDiscreteScheduler,
    "DDIM": diffusers.DDIMScheduler,
    "DDPM": diffusers.DDPMScheduler,
    "PNDM": diffusers.PNDMScheduler,
    "LMS": diffusers.LMSDiscreteScheduler,
    "DPM++ 2M": diffusers.DPMSolverMultistepScheduler,
    "DPM++ 2M SDE": diffusers.DPMSolverMultistepScheduler,
    "DPM++ SDE": dpm_sde.DPMSolverSDEScheduler,
    "UniPC": diffusers.UniPCMultistepScheduler,
    "LCM": diffusers.LCMScheduler,
    "Flow Euler": diffusers.FlowMatchEulerDiscreteScheduler,
    "Flow Heun": diffusers.FlowMatchHeunDiscreteScheduler,
}
FLOW = ("Flow Euler", "Flow Heun")
CURVED = ("Euler", "Heun", "LMS", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ SDE", "UniPC")
# Those whose noise levels diffusers does not bend: they are given another scheduler's.
LENT = {"Euler a": "Euler", "Flow Heun": "Flow Euler"}
WITHOUT_SAMPLE = ("Euler a", "PNDM", "DPM++ SDE")
CURVES = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
}
STABLE_DIFFUSION = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "timestep_spacing": "leading", "prediction_type": "epsilon",
}
ZERO_TERMINAL = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).reshape(SHAPE)


START = tensor(1.3 * np.sin(0.9 * PLACES + 0.4))
ORIGINAL = tensor(0.6 * np.cos(1.3 * PLACES))


def prediction(evaluation: int, scaled: torch.Tensor) -> torch.Tensor:
    return tensor(0.8 * np.sin(1.7 * PLACES + 2.3 * evaluation + 0.5)) + 0.15 * scaled


class Noise:
    """Stands for every generator: the same sequence for each case."""

    draws = 0

    @classmethod
    def draw(cls, *_arguments, **_options) -> torch.Tensor:
        cls.draws += 1
        return tensor(1.4 * np.cos(2.9 * PLACES + 1.1 * cls.draws + 0.2))


diffusers.logging.set_verbosity_error()
for name, module in list(sys.modules.items()):
    if name.startswith("diffusers.schedulers.") and hasattr(module, "randn_tensor"):
        module.randn_tensor = Noise.draw


def numbers(values: torch.Tensor) -> list[float]:
    """Eight digits: as exact as 32 bits."""
    assert torch.isfinite(values).all()
    return [float(f"{value:.8g}") for value in values.double().flatten().tolist()]


def prepare(kind: str, schedule: str, config: dict, steps: int, patches: int | None):
    """A scheduler with its timesteps set."""
    options = dict(config)
    if kind == "DPM++ 2M SDE":
        options["algorithm_type"] = "sde-dpmsolver++"
    options |= CURVES.get(schedule, {})
    if schedule == "sgm_uniform":
        options["timestep_spacing"] = "trailing"
    scheduler = CLASSES[kind].from_config(options)
    if kind == "Flow Euler":
        mu = None
        if patches is not None:
            limits = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            mu = calculate_shift(patches, *(scheduler.config[limit] for limit in limits))
        if schedule == "sgm_uniform":
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        else:
            scheduler.set_timesteps(steps, mu=mu)
        return scheduler
    scheduler.set_timesteps(steps)
    bent = schedule in CURVES or (kind == "Flow Heun" and schedule == "sgm_uniform") or patches is not None
    if kind in LENT and bent:
        lender = prepare(LENT[kind], schedule, config, steps, patches)
        scheduler.sigmas, scheduler.timesteps = lender.sigmas, lender.timesteps
        if kind == "Flow Heun":
            sigmas, timesteps = lender.sigmas, lender.timesteps
            scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
            scheduler.timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
    return scheduler


def add_noise(scheduler, timestep: torch.Tensor) -> torch.Tensor:
    noise = tensor(np.sin(3.1 * PLACES + 0.7))
    if hasattr(scheduler, "scale_noise"):
        if "Heun" in type(scheduler).__name__:
            return scheduler.scale_noise(ORIGINAL, timestep, noise)
        return scheduler.scale_noise(ORIGINAL, timestep[None], noise)
    return scheduler.add_noise(ORIGINAL, noise, timestep[None])


def case(kind, schedule="automatic", steps=7, first=0, patches=None, base=STABLE_DIFFUSION, **changes) -> dict:
    """One run. `first` is the step that it begins with."""
    config = {**base, **changes}
    scheduler = prepare(kind, schedule, config, steps, patches)
    order = scheduler.order
    timesteps = scheduler.timesteps[first * order:]
    initial = float(getattr(scheduler, "init_noise_sigma", 1.0))
    if kind in SLICED and first > 0:
        # Counted from the schedule's beginning, it would weigh derivatives that it does not have.
        scheduler.sigmas, scheduler.timesteps = scheduler.sigmas[first:], timesteps
    elif hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * order)
    if kind == "DPM++ SDE":
        scheduler.noise_sampler = Noise.draw
    Noise.draws = 0
    sample = START * initial
    result = {
        "kind": kind, "schedule": schedule, "config": {"_class_name": type(scheduler).__name__, **config},
        "steps": steps, "first": first, "patches": patches, "initial_noise_scale": initial,
        "timesteps": numbers(timesteps.float()), "noised": [], "noises": [], "samples": [],
    }
    for evaluation, timestep in enumerate(timesteps):
        result["noised"].append(numbers(add_noise(scheduler, timestep)) if evaluation in (0, 3) else [])
        scaled = sample
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(sample, timestep)
        before = Noise.draws
        sample = scheduler.step(prediction(evaluation, scaled), timestep, sample).prev_sample
        result["noises"].append(Noise.draws - before)
        kept = steps <= 7 or evaluation >= len(timesteps) - 2 or evaluation == 5
        result["samples"].append(numbers(sample) if kept else [])
    return result


def cases() -> list[dict]:
    result = []
    diffusion = [kind for kind in CLASSES if kind not in FLOW]
    for kind in diffusion:
        predictions = ["epsilon", "v_prediction"] + ["sample"] * (kind not in WITHOUT_SAMPLE)
        schedules = ["normal"] + ["sgm_uniform"] * (kind != "LCM")
        schedules += list(CURVES) if kind in CURVED or kind in LENT else []
        for schedule in schedules:
            for predicted in predictions:
                result.append(case(kind, schedule, prediction_type=predicted))
        result.append(case(kind, first=3))
        result.append(case(kind, first=3, steps=20))
        result.append(case(kind, steps=1))
        result.append(case(kind, steps=20))
        for spacing in () if kind == "LCM" else ("linspace", "trailing"):
            result.append(case(kind, timestep_spacing=spacing))
        for betas in ("linear", "squaredcos_cap_v2"):
            result.append(case(kind, beta_schedule=betas))
        # What its class takes where the file does not say.
        defaults = {"skip_prk_steps": True} if kind == "PNDM" else {}
        result.append(case(kind, base=defaults))
    for kind in ("Euler", "Euler a", "DDIM", "DDPM", "DPM++ 2M", "DPM++ 2M SDE", "UniPC", "LCM"):
        result.append(case(kind, **ZERO_TERMINAL))
    for kind in ("Euler", "DPM++ 2M"):
        for schedule in ("normal", "karras"):
            result.append(case(kind, schedule, beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **ZERO_TERMINAL))
    for kind in ("DPM++ 2M", "DPM++ 2M SDE", "UniPC", "Heun", "Euler"):
        result.append(case(kind, "karras", beta_schedule="squaredcos_cap_v2"))
    for kind in ("DPM++ 2M", "UniPC", "Euler", "DPM++ 2M SDE"):
        for schedule in ("normal", "karras"):
            result.append(case(kind, schedule, final_sigmas_type="sigma_min"))
    for kind in ("DPM++ 2M", "DPM++ 2M SDE"):
        for order in (1, 3):
            result.append(case(kind, "karras", solver_order=order))
            result.append(case(kind, "karras", solver_order=order, steps=16))
        result.append(case(kind, solver_type="heun"))
        result.append(case(kind, lower_order_final=False))
        result.append(case(kind, steps=16, euler_at_final=True, final_sigmas_type="sigma_min"))
        result.append(case(kind, steps=16, final_sigmas_type="sigma_min"))
        result.append(case(kind, solver_order=3, first=2))
    result.append(case("DPM++ 2M", solver_type="logrho"))
    result.append(case("DPM++ 2M", lambda_min_clipped=-2.1))
    for changes in (
        {"solver_order": 1}, {"solver_order": 3}, {"solver_order": 3, "steps": 16},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"disable_corrector": [0, 1]}, {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "first": 2, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    ):
        result.append(case("UniPC", **changes))
    for kind in ("DDIM", "DDPM", "LCM", "Heun"):
        result.append(case(kind, clip_sample=True, clip_sample_range=0.7))
    for kind in ("DDIM", "PNDM", "LCM"):
        result.append(case(kind, set_alpha_to_one=True))
    for first in (1, 2):
        result.append(case("PNDM", first=first))
    for variance in ("fixed_small_log", "fixed_large"):
        result.append(case("DDPM", variance_type=variance))
    result.append(case("LCM", original_inference_steps=30, timestep_scaling=4.0, steps=4))
    result.append(case("Euler", "karras", sigma_min=0.1, sigma_max=9.0))
    result.append(case("Euler", num_train_timesteps=20, trained_betas=[0.01 * (place + 1) for place in range(20)]))
    for kind in FLOW:
        for schedule in ("normal", "sgm_uniform", *CURVES):
            result.append(case(kind, schedule, base={"num_train_timesteps": 1000, "shift": 3.0}))
        dynamic = {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True}
        result.append(case(kind, base=dynamic, patches=1024))
        result.append(case(kind, "sgm_uniform", base=dynamic, patches=1024))
        result.append(case(kind, steps=1, base={"shift": 3.0}))
        result.append(case(kind, first=3, base={"shift": 3.0}))
        result.append(case(kind, base={}))
    return result


def main() -> None:
    content = cases()
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in content)
    (PIPELINE / "samplers.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(content)} cases of {len({entry['kind'] for entry in content})} samplers")


if __name__ == "__main__":
    main()
