"""Images that diffusers generates with schedulers of models of the hub: `schedulers/cases.json`, with each scheduler's configuration,
and `schedulers/NAME.png`. The models are those of `make_families.py` and `make_models.py`; only their schedulers are others.
"""

import json
import shutil
from dataclasses import dataclass, field

import diffusers
import numpy as np
import torch
from PIL import Image

import cases
from cases import Generated
from make_cases import Artist as ArtistOfFlow
from make_cases import Case as CaseOfFlow
from paths import PIPELINE

FOLDER = PIPELINE / "schedulers"
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LEADING = {**BETAS, "steps_offset": 1, "timestep_spacing": "leading"}
PLAYGROUND = {"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


@dataclass(frozen=True)
class Case(Generated):
    """The settings of an image. `model` is a folder of the fixtures; its scheduler is `settings`' of the class `scheduler`."""

    steps: int = 6
    scheduler: str = ""
    settings: dict = field(default_factory=dict)
    # As its file has it, with every setting.
    config: dict = field(default_factory=dict)


def case(name: str, model: str, scheduler: str, settings: dict, **more) -> Case:
    made = getattr(diffusers, f"{scheduler}Scheduler")(**settings)
    # JSON has no infinity.
    config = json.loads(made.to_json_string(), parse_constant=lambda _: None)
    return Case(name, model, scheduler=scheduler, settings=settings, config=config, **more)


def all_cases() -> list[Case]:
    old, two, xl, flow = "families/sd15", "families/sd21", "families/sdxl", "models/tiny-medium"
    singlestep = "DPMSolverSinglestep"
    multistep = "DPMSolverMultistep"
    return [
        case("tcd", old, "TCD", LEADING, steps=4, guidance_scale=1.0),
        case("deis", old, "DEISMultistep", LEADING, steps=8),
        case("deis-karras", old, "DEISMultistep", {**LEADING, "use_karras_sigmas": True, "solver_order": 3}),
        case("kdpm2", old, "KDPM2Discrete", LEADING),
        case("kdpm2-ancestral", old, "KDPM2AncestralDiscrete", LEADING),
        case("singlestep", old, singlestep, BETAS),
        case("singlestep-3", two, singlestep, {**BETAS, "solver_order": 3, "prediction_type": "v_prediction"}),
        case("dpmsolver", old, multistep, {**LEADING, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        case("sde-dpmsolver", old, multistep, {**LEADING, "algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}),
        case("runge-kutta", old, "PNDM", {**LEADING, "skip_prk_steps": False}),
        case("edm-euler", xl, "EDMEuler", {**PLAYGROUND, "sigma_data": 1.0, "prediction_type": "v_prediction"}),
        case("edm-dpm", xl, "EDMDPMSolverMultistep", PLAYGROUND),
        case(
            "continuous", two, "EulerDiscrete",
            {
                **LEADING, "prediction_type": "v_prediction", "timestep_type": "continuous", "use_karras_sigmas": True,
                "sigma_min": 0.002, "sigma_max": 80.0,
            },
        ),
        case("flow-dpm", flow, multistep, FLOW),
        case("flow-unipc", flow, "UniPCMultistep", FLOW),
        # FlowMatchLCM is not here: the pipeline gives it no generator, so that its noise is none of the seed's.
    ]


def generate(case: Case) -> np.ndarray:
    scheduler = getattr(diffusers, f"{case.scheduler}Scheduler")(**case.settings)
    if case.model.startswith("models/"):
        artist = ArtistOfFlow(case.model.removeprefix("models/"))
        artist.pipeline.scheduler = scheduler
        generated = CaseOfFlow(case.name, case.model, case.prompt, case.negative_prompt, case.seed, case.steps, case.guidance_scale)
        return np.asarray(artist.generate(generated)[0], dtype=np.int16)
    kind = diffusers.StableDiffusionXLPipeline if case.model.endswith("sdxl") else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(PIPELINE / case.model, torch_dtype=torch.float32, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        case.prompt, negative_prompt=case.negative_prompt or None, num_inference_steps=case.steps, width=64, height=64,
        guidance_scale=case.guidance_scale, generator=torch.Generator("cpu").manual_seed(case.seed),
    ).images[0]
    return np.asarray(image, dtype=np.int16)


@torch.no_grad()
def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    listed = all_cases()
    for case in listed:
        image = generate(case)
        limits = np.mean((image == 0) | (image == 255))
        print(f"{case.name}: std {image.std():.0f} of 255, {100 * limits:.1f} % of the values at a limit")
        assert image.std() > 20 and limits < 0.5, case.name
        Image.fromarray(image.astype(np.uint8)).save(FOLDER / f"{case.name}.png")
    cases.write(FOLDER, listed)


if __name__ == "__main__":
    main()
