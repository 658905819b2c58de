"""How diffusers' schedulers lead a sample through their noise levels: `samplers.json`. Two samplers that diffusers does not have
are k-diffusion's, over the noise levels of diffusers' Euler.

Predictions and noise are formulas of the evaluation and of the place in the tensor, which the test repeats. A prediction
depends on the scaled input too, so an error in one step shows in all that follow.
"""

import importlib.util
import json
import math
import sys
import types

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from paths import SCHEDULERS

# Only their Brownian noise needs the first, and noise is given here; the others serve what is not used.
for unused, name in (("torchsde", None), ("torchdiffeq", "odeint"), ("torchvision", None), ("torchvision.transforms", "functional")):
    module = types.ModuleType(unused)
    if name is not None:
        setattr(module, name, None)
    sys.modules.setdefault(unused, module)
from diffusers.schedulers import scheduling_dpmsolver_sde as dpm_sde  # noqa: E402


def k_diffusion():
    """Its `sampling` alone: the package loads training code."""
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
    sys.modules["k_diffusion"] = package
    return importlib.import_module("k_diffusion.sampling")


SAMPLING = k_diffusion()
SHAPE = (1, 2, 2, 3)
SIZE = math.prod(SHAPE)
PLACES = np.arange(SIZE)
SLICED = ("LMS",)

CLASSES = {
    "Euler": diffusers.EulerDiscreteScheduler,
    "Euler a": diffusers.EulerAncestralDiscreteScheduler,
    "Heun": diffusers.HeunDiscreteScheduler,
    "DPM2": diffusers.KDPM2DiscreteScheduler,
    "DPM2 a": diffusers.KDPM2AncestralDiscreteScheduler,
    "DDIM": diffusers.DDIMScheduler,
    "DDPM": diffusers.DDPMScheduler,
    "PNDM": diffusers.PNDMScheduler,
    "PNDM RK": diffusers.PNDMScheduler,
    "LMS": diffusers.LMSDiscreteScheduler,
    "DEIS": diffusers.DEISMultistepScheduler,
    "DPM 2M": diffusers.DPMSolverMultistepScheduler,
    "DPM 2M SDE": diffusers.DPMSolverMultistepScheduler,
    "DPM 2S": diffusers.DPMSolverSinglestepScheduler,
    "DPM++ 2M": diffusers.DPMSolverMultistepScheduler,
    "DPM++ 2M SDE": diffusers.DPMSolverMultistepScheduler,
    "DPM++ SDE": dpm_sde.DPMSolverSDEScheduler,
    "DPM++ 2S": diffusers.DPMSolverSinglestepScheduler,
    "DPM++ 2S SDE": diffusers.DPMSolverSinglestepScheduler,
    "UniPC": diffusers.UniPCMultistepScheduler,
    "LCM": diffusers.LCMScheduler,
    "TCD": diffusers.TCDScheduler,
    "Flow Euler": diffusers.FlowMatchEulerDiscreteScheduler,
    "Flow Heun": diffusers.FlowMatchHeunDiscreteScheduler,
    "Flow LCM": diffusers.FlowMatchLCMScheduler,
    "EDM Euler": diffusers.EDMEulerScheduler,
    "EDM DPM++ 2M": diffusers.EDMDPMSolverMultistepScheduler,
    "EDM DPM++ 2M SDE": diffusers.EDMDPMSolverMultistepScheduler,
}
ALGORITHMS = {
    "DPM++ 2M SDE": "sde-dpmsolver++", "DPM 2M": "dpmsolver", "DPM 2M SDE": "sde-dpmsolver", "DPM 2S": "dpmsolver",
    "DPM++ 2S SDE": "sde-dpmsolver++", "EDM DPM++ 2M SDE": "sde-dpmsolver++",
}
# Those of k-diffusion, with how many evaluations they have of a step.
K_DIFFUSION = {"DPM++ 2S a": ("sample_dpmpp_2s_ancestral", 2), "DPM++ 3M SDE": ("sample_dpmpp_3m_sde", 1)}
FLOW = ("Flow Euler", "Flow Heun", "Flow LCM")
EDM = ("EDM Euler", "EDM DPM++ 2M", "EDM DPM++ 2M SDE")
LOGARITHMIC = ("DPM 2M", "DPM 2M SDE", "DPM 2S")
SINGLESTEP = ("DPM 2S", "DPM++ 2S", "DPM++ 2S SDE")
CURVED = (
    "Euler", "Heun", "DPM2", "DPM2 a", "LMS", "DEIS", "DPM 2M", "DPM 2M SDE", "DPM 2S", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ SDE",
    "DPM++ 2S", "DPM++ 2S SDE", "UniPC",
)
# Those whose noise levels diffusers does not bend, or space: they are given another scheduler's.
STARTERS = {"Euler a": "Euler", "Flow Heun": "Flow Euler", "DPM 2S": "DPM 2M", "DPM++ 2S": "DPM++ 2M", "DPM++ 2S SDE": "DPM++ 2M"}
WITHOUT_SAMPLE = ("Euler a", "DPM2", "DPM2 a", "PNDM", "PNDM RK", "DPM++ SDE")
DISTILLED = ("LCM", "TCD")
# Further kinds are tried with fewer settings, to keep the file small.
BRIEF = ("DPM2", "DPM2 a", "PNDM RK", "DEIS", "DPM 2M", "DPM 2M SDE", "DPM 2S", "DPM++ 2S", "DPM++ 2S SDE", "TCD")
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
    if kind in ALGORITHMS:
        options["algorithm_type"] = ALGORITHMS[kind]
    options |= CURVES.get(schedule, {})
    if schedule == "sgm_uniform":
        options["timestep_spacing"] = "trailing"
    scheduler = CLASSES[kind].from_config(options)
    if kind in EDM and schedule != "automatic":
        options["sigma_schedule"] = schedule
        scheduler = CLASSES[kind].from_config(options)
    if kind in ("Flow Euler", "Flow LCM"):
        mu = None
        if patches is not None:
            limits = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            mu = calculate_shift(patches, *(scheduler.config[limit] for limit in limits))
        if schedule == "sgm_uniform":
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        else:
            scheduler.set_timesteps(steps, mu=mu)
        return scheduler
    if patches is not None and kind not in FLOW:
        # As the pipelines of Stable Diffusion 3 do for the schedulers of diffusion models too.
        scheduler.set_timesteps(steps, mu=calculate_shift(patches))
        return scheduler
    scheduler.set_timesteps(steps)
    if kind in SINGLESTEP and schedule == "sgm_uniform":
        starter = prepare(STARTERS[kind], schedule, config, steps, patches)
        scheduler.sigmas, scheduler.timesteps = starter.sigmas, starter.timesteps
        return scheduler
    bent = schedule in CURVES or (kind == "Flow Heun" and schedule == "sgm_uniform") or patches is not None
    if kind in STARTERS and kind not in SINGLESTEP and bent:
        starter = prepare(STARTERS[kind], schedule, config, steps, patches)
        scheduler.sigmas, scheduler.timesteps = starter.sigmas, starter.timesteps
        if kind == "Flow Heun":
            sigmas, timesteps = starter.sigmas, starter.timesteps
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


def case_of_k_diffusion(kind, schedule="automatic", steps=7, first=0, base=STABLE_DIFFUSION, **changes) -> dict:
    """One run of k-diffusion's, whose model is called for each evaluation."""
    config = {**base, **changes}
    scheduler = prepare("Euler", schedule, config, steps, None)
    name, order = K_DIFFUSION[kind]
    sigmas = scheduler.sigmas[first:]
    Noise.draws = 0
    initial = float(scheduler.init_noise_sigma)
    evaluated, levels = [], []

    def model(x: torch.Tensor, sigma: torch.Tensor, **_) -> torch.Tensor:
        evaluated.append((x, Noise.draws))
        levels.append(sigma)
        scaled = x / (sigma**2 + 1) ** 0.5
        output = prediction(len(evaluated) - 1, scaled)
        if config["prediction_type"] == "epsilon":
            return x - sigma * output
        return output * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)

    last = getattr(SAMPLING, name)(model, START * initial, sigmas, noise_sampler=Noise.draw, disable=True)
    logarithms = np.log(np.array(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5))
    timesteps = [
        float(scheduler._sigma_to_t(np.array(sigma.item()), logarithms))
        if evaluation % order else float(scheduler.timesteps[first + evaluation // order])
        for evaluation, sigma in enumerate(levels)
    ]
    noise = tensor(np.sin(3.1 * PLACES + 0.7))
    noised = [numbers(ORIGINAL + noise * sigmas[-(-evaluation // order)]) for evaluation in range(len(evaluated))]
    draws = [drawn for _, drawn in evaluated[1:]] + [Noise.draws]
    return {
        "kind": kind, "schedule": schedule, "config": {"_class_name": type(scheduler).__name__, **config}, "steps": steps,
        "first": first, "patches": None, "initial_noise_scale": initial, "timesteps": numbers(torch.tensor(timesteps)),
        "noised": [one if place in (0, 3) else [] for place, one in enumerate(noised)],
        "noises": [after - before for before, after in zip([0, *draws[:-1]], draws, strict=True)],
        "samples": [numbers(sample) for sample in [x for x, _ in evaluated[1:]] + [last]],
    }


def case(
    kind, schedule="automatic", steps=7, first=0, patches=None, base=STABLE_DIFFUSION, eta=None, **changes
) -> dict:
    """One run. `first` is the step that it begins with."""
    config = {**base, **changes}
    if kind in LOGARITHMIC:
        # They divide by the last level.
        config = {"final_sigmas_type": "sigma_min", **config}
    if kind == "PNDM RK":
        config["skip_prk_steps"] = False
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
    if eta is not None:
        result["eta"] = eta
    for evaluation, timestep in enumerate(timesteps):
        result["noised"].append(numbers(add_noise(scheduler, timestep)) if evaluation in (0, 3) else [])
        scaled = sample
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(sample, timestep)
        before = Noise.draws
        # The default arguments of diffusers' pipelines.
        arguments = {"eta": eta or 0.0} if kind in ("TCD", "DDIM") else {}
        sample = scheduler.step(prediction(evaluation, scaled), timestep, sample, **arguments).prev_sample
        result["noises"].append(Noise.draws - before)
        kept = steps <= 7 or evaluation >= len(timesteps) - 2 or evaluation == 5
        result["samples"].append(numbers(sample) if kept else [])
    return result


def cases() -> list[dict]:
    result = []
    diffusion = [kind for kind in CLASSES if kind not in (*FLOW, *EDM, *BRIEF)]
    for kind in diffusion:
        predictions = ["epsilon", "v_prediction"] + ["sample"] * (kind not in WITHOUT_SAMPLE)
        schedules = ["normal"] + ["sgm_uniform"] * (kind != "LCM")
        schedules += list(CURVES) if kind in CURVED or kind in STARTERS else []
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
    for kind in FLOW[:2]:
        for schedule in ("normal", "sgm_uniform", *CURVES):
            result.append(case(kind, schedule, base={"num_train_timesteps": 1000, "shift": 3.0}))
        dynamic = {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True}
        result.append(case(kind, base=dynamic, patches=1024))
        result.append(case(kind, "sgm_uniform", base=dynamic, patches=1024))
        result.append(case(kind, steps=1, base={"shift": 3.0}))
        result.append(case(kind, first=3, base={"shift": 3.0}))
        result.append(case(kind, base={}))
    return result + further_cases()


def further_cases() -> list[dict]:
    """Of the kinds that are tried briefly, and of settings that belong to few."""
    result = []
    for kind in BRIEF:
        result.append(case(kind, prediction_type="v_prediction"))
        if kind not in WITHOUT_SAMPLE:
            result.append(case(kind, prediction_type="sample"))
        for schedule in (*CURVES, "sgm_uniform") if kind in CURVED else ():
            result.append(case(kind, schedule))
        if kind not in DISTILLED:
            result.append(case(kind, timestep_spacing="linspace", beta_schedule="linear"))
        for steps, first in ((4, 0), (16, 0), (7, 3), (20, 4)):
            result.append(case(kind, steps=steps, first=first))
        result.append(case(kind, base={}))
    for kind in ("DPM 2M", "DEIS", "DPM 2S", "DPM++ 2S", "DPM++ 2S SDE"):
        for order in (1, 3):
            result.extend(case(kind, solver_order=order, steps=steps) for steps in (6, 7, 16, 17))
        # With a curve their last step has no length, and diffusers divides by it.
        schedule = "automatic" if kind in LOGARITHMIC else "karras"
        result.append(case(kind, schedule, solver_order=3, steps=16, first=2))
    for kind in ("DPM 2M", "DPM 2M SDE", "DPM 2S", "DPM++ 2S", "DPM++ 2S SDE"):
        result.append(case(kind, solver_type="heun"))
        result.append(case(kind, solver_type="heun", steps=16, final_sigmas_type="sigma_min"))
        result.append(case(kind, "karras", beta_schedule="squaredcos_cap_v2"))
        if kind != "DPM 2M SDE":
            result.append(case(kind, solver_type="heun", solver_order=3, steps=16, final_sigmas_type="sigma_min"))
    for kind in ("DPM 2M", "DPM 2M SDE"):
        result.append(case(kind, solver_order=1))
        result.append(case(kind, steps=16, euler_at_final=True))
        result.append(case(kind, lower_order_final=False))
    for kind in SINGLESTEP:
        for order, steps in ((2, 6), (3, 6), (2, 7)):
            result.append(case(kind, solver_order=order, steps=steps, final_sigmas_type="sigma_min", lower_order_final=False))
        result.append(case(kind, lambda_min_clipped=-2.1))
    result.append(case("DEIS", lower_order_final=False, solver_order=3))
    result.append(case("DEIS", solver_type="bh2", algorithm_type="dpmsolver++"))
    for eta in (0.0, 0.3, 1.0):
        for steps in (4, 7):
            result.append(case("TCD", eta=eta, steps=steps))
        result.append(case("DDIM", eta=eta))
    result.append(case("TCD", eta=0.3, first=2, original_inference_steps=30))
    result.append(case("TCD", eta=0.3, **ZERO_TERMINAL))
    for first in (1, 2):
        result.append(case("PNDM RK", first=first))
    result.append(case("PNDM RK", set_alpha_to_one=True, steps=8))
    for kind in ("DPM++ 2M", "DPM++ 2M SDE", "DPM 2M"):
        result.append(case(kind, use_lu_lambdas=True))
    for steps in (1, 7):
        result.append(case("Euler", interpolation_type="log_linear", steps=steps))
    result.append(case("Euler", "karras", interpolation_type="log_linear"))
    continuous = {"timestep_type": "continuous", "prediction_type": "v_prediction"}
    result.append(case("Euler", **continuous))
    # As Stable Video Diffusion has it.
    result.append(case("Euler", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, **continuous))
    result.append(case("Euler", "exponential", sigma_min=0.01, sigma_max=60.0, **continuous))
    # Without velocities it means nothing.
    result.append(case("Euler", timestep_type="continuous"))
    # Its class has no such setting, and passes over it.
    result.append(case("Euler a", use_karras_sigmas=True))
    for kind in K_DIFFUSION:
        for schedule in ("automatic", *CURVES, "sgm_uniform"):
            result.append(case_of_k_diffusion(kind, schedule))
        result.append(case_of_k_diffusion(kind, prediction_type="v_prediction"))
        result.append(case_of_k_diffusion(kind, "karras", steps=16))
        result.append(case_of_k_diffusion(kind, first=3))
    result.append(case_of_k_diffusion("DPM++ 2S a", steps=1))
    for shift in (1.0, 3.0):
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        for kind in ("DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2S", "DPM++ 2S SDE", "UniPC", "DEIS"):
            result.append(case(kind, base=flow))
            if shift == 3.0:
                result.append(case(kind, base=flow, steps=16))
                result.append(case(kind, base=flow, first=3, solver_order=3))
                result.append(case(kind, base={**flow, "prediction_type": "v_prediction"}))
                if kind != "DEIS":
                    result.append(case(kind, base=flow, final_sigmas_type="sigma_min"))
                result.append(case(kind, base=flow, use_dynamic_shifting=True, patches=1024))
    result.append(case("UniPC", "karras", base=flow))
    result.append(case("UniPC", base=flow, shift_terminal=0.1))
    result.append(case("UniPC", base=flow, use_dynamic_shifting=True, time_shift_type="linear", patches=1024))
    for kind in ("Flow LCM", "Flow Euler"):
        result.append(case(kind, base={"shift": 3.0, "shift_terminal": 0.1}))
    original, torch.randn_like = torch.randn_like, Noise.draw
    result.append(case("Flow Euler", base={"shift": 3.0, "stochastic_sampling": True}))
    torch.randn_like = original
    for schedule in ("normal", *CURVES):
        result.append(case("Flow LCM", schedule, base={"shift": 3.0}))
    result.append(case("Flow LCM", base={"shift": 3.0}, steps=4, first=1))
    result.append(case("Flow LCM", base={"shift": 3.0, "use_dynamic_shifting": True}, patches=1024))
    # Playground 2.5 and CosXL.
    playground = {"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002, "prediction_type": "epsilon"}
    cosxl = {"sigma_data": 1.0, "sigma_max": 120.0, "sigma_min": 0.002, "prediction_type": "v_prediction"}
    for kind in EDM:
        for base in ({}, playground, cosxl, {**playground, "sigma_schedule": "exponential", "rho": 5.0}):
            result.append(case(kind, base=base))
        result.append(case(kind, "exponential", base=playground))
        result.append(case(kind, base=playground, first=3))
        result.append(case(kind, base=playground, steps=1))
        result.append(case(kind, base=playground, steps=16, final_sigmas_type="sigma_min", rho=3.0))
        if "2M" in kind:
            result.append(case(kind, base=playground, solver_order=1))
            result.append(case(kind, base=playground, solver_type="heun", euler_at_final=True, steps=16))
    for steps in (7, 16):
        result.append(case("EDM DPM++ 2M", base=playground, solver_order=3, steps=steps))
    return result


def main() -> None:
    content = cases()
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in content)
    (SCHEDULERS / "samplers.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(content)} cases of {len({entry['kind'] for entry in content})} samplers")


if __name__ == "__main__":
    main()
