"""Tiny models whose files omit settings or have unusual ones, and images that diffusers generates with them.

Each is one of the models of `make_families.py` with a few files replaced. Only those are kept: whoever generates lays them over the
rest (`laid_over`).
"""

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    ControlNetModel, LatentConsistencyModelPipeline, StableDiffusionControlNetPipeline, StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline, StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline, UNet2DConditionModel,
)
from PIL import Image

import cases
import make_families as families
from cases import Generated
from paths import PIPELINE
from weights import randomise

FOLDER = PIPELINE / "variants"
FAMILIES = PIPELINE / "families"
PLAIN, ATTENDS = "DownBlock2D", "CrossAttnDownBlock2D"
PLAIN_UP, ATTENDS_UP = "UpBlock2D", "CrossAttnUpBlock2D"


@dataclass(frozen=True)
class Case(Generated):
    """The settings of an image. `base` is the model of the families that `model` is laid over."""

    base: str = "sd15"
    steps: int = 6
    sampler: str | None = None
    strength: float | None = None
    masked: bool = False
    # A ControlNet with `init.png` as its control image: its folder among the families' or among these.
    control: str | None = None


def case(model: str, what: str = "", base: str = "sd15", **more) -> Case:
    return Case(f"{model}-{what}".removesuffix("-"), model, base=base, **more)


IMG2IMG = {"strength": 0.6, "steps": 10, "seed": 3}
MASKED = {"strength": 0.7, "steps": 10, "seed": 3, "masked": True}

CASES = [
    # `steps_offset`: left out, and 0.
    case("no-offset"),
    case("no-offset", "img2img", **IMG2IMG),
    case("no-offset", "masked", **MASKED),
    case("no-offset", "controlled", control="families/control-1"),
    case("no-offset", "ddpm", sampler="DDPM"),
    case("zero-offset"),
    case("zero-offset", "ddpm", sampler="DDPM"),
    case("zero-offset", "lcm", sampler="LCM"),
    # DDIM with the default `clip_sample`.
    case("clips"),
    case("clips", "img2img", **IMG2IMG),
    case("clips", "masked", **MASKED),
    case("clips", "controlled", control="families/control-1"),
    case("of-another-class"),
    # PNDM with the default `skip_prk_steps`: it starts with Runge-Kutta.
    case("runge-kutta", "masked", **MASKED),
    # XL without `force_zeros_for_empty_prompt`, with a DDIM that clips.
    case("xl-bare", base="sdxl"),
    case("xl-bare", "img2img", base="sdxl", **IMG2IMG),
    case("xl-bare", "euler", base="sdxl", sampler="Euler"),
    case("xl-moments", base="sdxl"),
    case("xl-moments", "img2img", base="sdxl", **IMG2IMG),
    case("xl-moments", "masked", base="sdxl", **MASKED),
    # A mean alone, and families that read neither.
    case("xl-mean", base="sdxl"),
    case("moments", base="sd15"),
    # Guidance-distilled.
    case("distilled", guidance_scale=8.5, steps=4),
    case("distilled", "weak", guidance_scale=1.3, steps=3),
    case("distilled", "img2img", guidance_scale=7.3, **IMG2IMG),
    # Shapes of BK-SDM, SSD-1B and Segmind-Vega.
    case("bk-sdm"),
    case("bk-sdm", "controlled", control="variants/bk-sdm-control"),
    case("ssd-1b", base="sdxl"),
    case("ssd-1b", "img2img", base="sdxl", **IMG2IMG),
]

MOMENTS = {"latents_mean": [-1.6574, 1.886, -1.383, 2.5155], "latents_std": [1.7, 0.6, 1.3, 0.8]}


@contextmanager
def laid_over(base: str, model: str):
    """A folder with the files of `model` over those of `base`."""
    with tempfile.TemporaryDirectory() as folder:
        for source in (FAMILIES / base, FOLDER / model):
            shutil.copytree(source, folder, dirs_exist_ok=True)
        yield Path(folder)


def change(model: str, base: str, file: str, changes: dict, without: tuple[str, ...] = ()) -> None:
    """Writes a JSON file of `base` with other settings, and `without` some."""
    settings = json.loads((FAMILIES / base / file).read_text()) | changes
    target = FOLDER / model / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({name: value for name, value in settings.items() if name not in without}, indent=2) + "\n")


def save(model: torch.nn.Module, folder: str) -> None:
    model.half().save_pretrained(FOLDER / folder)
    model.float()


def make_models() -> None:
    scheduler = "scheduler/scheduler_config.json"
    ddim = {"_class_name": "DDIMScheduler"}
    change("no-offset", "sd15", scheduler, {}, ("steps_offset",))
    change("zero-offset", "sd15", scheduler, {"steps_offset": 0})
    change("clips", "sd15", scheduler, ddim, ("steps_offset", "skip_prk_steps"))
    change("clips", "sd15", "model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]})
    # The index declares the class.
    change("of-another-class", "sd15", scheduler, ddim)
    change("runge-kutta", "sd15", scheduler, {}, ("skip_prk_steps",))
    change("xl-bare", "sdxl", scheduler, ddim, ("steps_offset", "interpolation_type", "timestep_type", "final_sigmas_type"))
    change("xl-bare", "sdxl", "model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, ("force_zeros_for_empty_prompt",))
    change("xl-moments", "sdxl", "vae/config.json", MOMENTS)
    change("xl-mean", "sdxl", "vae/config.json", {"latents_mean": MOMENTS["latents_mean"]})
    change("moments", "sd15", "vae/config.json", MOMENTS | {"shift_factor": 0.3})

    lcm = {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0}
    change("distilled", "sd15", scheduler, lcm, ("skip_prk_steps", "steps_offset"))
    of_lcm = {"_class_name": "LatentConsistencyModelPipeline", "scheduler": ["diffusers", "LCMScheduler"]}
    change("distilled", "sd15", "model_index.json", of_lcm)
    # With a mid block of a single residual block.
    save(families.unet(31, time_cond_proj_dim=16, mid_block_type="UNetMidBlock2D"), "distilled/unet")

    levels = {"block_out_channels": (8, 8, 12), "down_block_types": (ATTENDS,) * 3, "layers_per_block": 1}
    save(families.unet(32, **levels, up_block_types=(ATTENDS_UP,) * 3, mid_block_type=None), "bk-sdm/unet")
    control = ControlNetModel(
        **levels, norm_num_groups=4, attention_head_dim=2, cross_attention_dim=16,
        conditioning_embedding_out_channels=(4, 4, 8, 8),
    )
    randomise(control, 33)
    save(control, "bk-sdm-control")
    save(
        families.unet(
            34, cross_attention_dim=12 + families.POOLED, addition_embed_type="text_time",
            addition_time_embed_dim=families.SPREAD, use_linear_projection=True, attention_head_dim=(1, 2, 4),
            projection_class_embeddings_input_dim=families.POOLED + 6 * families.SPREAD, layers_per_block=2,
            block_out_channels=(8, 8, 12), down_block_types=(PLAIN, ATTENDS, ATTENDS),
            up_block_types=(ATTENDS_UP, ATTENDS_UP, PLAIN_UP), mid_block_type=None,
            transformer_layers_per_block=(1, (1, 2), (2, 1)), reverse_transformer_layers_per_block=((1, 1, 2), (2, 1, 1), 1),
        ),
        "ssd-1b/unet",
    )


def kind(case: Case, index: dict):
    """The pipeline's class, as diffusers would choose it for the task."""
    is_xl = case.base == "sdxl"
    if case.control:
        return StableDiffusionControlNetPipeline
    if case.masked:
        return StableDiffusionXLInpaintPipeline if is_xl else StableDiffusionInpaintPipeline
    if case.strength is not None:
        return StableDiffusionXLImg2ImgPipeline if is_xl else StableDiffusionImg2ImgPipeline
    if index["_class_name"] == "LatentConsistencyModelPipeline":
        return LatentConsistencyModelPipeline
    return StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline


def generate(case: Case, prompt: str) -> np.ndarray:
    init, mask = Image.open(FAMILIES / "init.png"), Image.open(FAMILIES / "mask.png")
    with laid_over(case.base, case.model) as folder:
        loaded = {}
        if case.control:
            control = PIPELINE / case.control
            loaded["controlnet"] = ControlNetModel.from_pretrained(control, torch_dtype=torch.float32)
        of_case = kind(case, json.loads((folder / "model_index.json").read_text()))
        pipeline = of_case.from_pretrained(folder, torch_dtype=torch.float32, **loaded)
    pipeline.set_progress_bar_config(disable=True)
    if case.sampler:
        scheduler, settings = families.SAMPLERS[case.sampler]
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
    more = {"negative_prompt": case.negative_prompt or None}
    if of_case is LatentConsistencyModelPipeline:
        more = {}
    if case.control:
        more |= {"image": init, "controlnet_conditioning_scale": 0.7}
    if case.strength is not None:
        more |= {"image": init, "strength": case.strength}
    if case.masked:
        more["mask_image"] = mask
    if case.strength is None or case.masked:
        more |= {"width": 64, "height": 64}
    image = pipeline(
        prompt, num_inference_steps=case.steps, guidance_scale=case.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(case.seed), **more,
    ).images[0]
    return np.asarray(image, dtype=np.int16)


@torch.no_grad()
def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "cases").mkdir(parents=True)
    make_models()
    for case in CASES:
        image = generate(case, case.prompt)
        difference = np.abs(image - generate(case, "a bridge over the river")).max()
        print(f"{case.name}: std {image.std():.0f} of 255, another prompt changes it by at most {difference}")
        assert image.std() > 15 and difference > 5, case.name
        if case.model == "distilled":
            # Its input is the scale minus 1; one less again shows.
            weaker = generate(replace(case, guidance_scale=case.guidance_scale - 1), case.prompt)
            assert np.abs(image - weaker).max() > 5, case.name
        Image.fromarray(image.astype(np.uint8)).save(FOLDER / "cases" / f"{case.name}.png")
    cases.write(FOLDER, CASES)


if __name__ == "__main__":
    main()
