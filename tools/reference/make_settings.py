"""Images that diffusers generates with the tiny models and further settings: guidance rescale, and LoRAs with separate scales
for text encoder and network. After `make_families.py` and `make_conditioned.py`."""

import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

import cases
from cases import Generated
from paths import PIPELINE

FOLDER = PIPELINE / "settings"
# The values for `scheduler_config.json`.
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@dataclass(frozen=True)
class Case(Generated):
    """The settings of an image. Paths are those below the fixtures of the pipeline."""

    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    # Whether the schedule has zero terminal SNR.
    zero_snr: bool = False
    # LoRA files of `conditioned/loras`, each with its scale for the text encoder and for the network.
    loras: tuple[tuple[str, float, float], ...] = ()


SD15, SD21, SDXL = "families/sd15", "families/sd21", "families/sdxl"
CASES = [
    Case("rescaled", SD15, guidance_rescale=0.7),
    Case("rescaled-zero-snr", SD21, steps=6, guidance_rescale=0.7, zero_snr=True),
    Case("rescaled-xl", SDXL, negative_prompt="dark", guidance_rescale=0.5),
    Case("lora-of-the-network", SD15, guidance_scale=4.5, loras=(("kohya", 0.0, 0.8),)),
    Case("lora-of-the-text", SD15, guidance_scale=4.5, loras=(("kohya", 0.8, 0.0),)),
    Case("two-loras", SD15, guidance_scale=4.5, loras=(("kohya", 0.2, 1.0), ("peft", 0.9, 0.3))),
]


def generate(case: Case) -> np.ndarray:
    kind = StableDiffusionXLPipeline if case.model == SDXL else StableDiffusionPipeline
    pipeline = kind.from_pretrained(PIPELINE / case.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if case.zero_snr:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **ZERO_SNR)
    names = [f"lora_{index}" for index in range(len(case.loras))]
    for name, (file, _, _) in zip(names, case.loras, strict=True):
        pipeline.load_lora_weights(PIPELINE / "conditioned" / "loras" / f"{file}.safetensors", adapter_name=name)
    if names:
        pipeline.set_adapters(names, [{"text_encoder": text, "unet": unet} for _, text, unet in case.loras])
    image = pipeline(
        case.prompt, negative_prompt=case.negative_prompt, num_inference_steps=case.steps, width=64, height=64,
        guidance_scale=case.guidance_scale, guidance_rescale=case.guidance_rescale,
        generator=torch.Generator("cpu").manual_seed(case.seed),
    ).images[0]
    return np.asarray(image, dtype=np.int16)


def check(case: Case, image: np.ndarray) -> None:
    """Checks that the image would show an ignored setting."""

    def change(title: str, **changes) -> None:
        difference = np.abs(generate(replace(case, **changes)) - image).max()
        print(f"{case.name}: {title} changes it by at most {difference}")
        assert difference > 5, (case.name, title)

    if case.guidance_rescale:
        change("no rescale", guidance_rescale=0.0)
    if case.zero_snr:
        change("the default schedule", zero_snr=False)
    if case.loras:
        change("scales for both alike", loras=tuple((file, unet, unet) for file, _, unet in case.loras))


@torch.no_grad()
def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "cases").mkdir(parents=True)
    for case in CASES:
        image = generate(case)
        check(case, image)
        Image.fromarray(image.astype(np.uint8)).save(FOLDER / "cases" / f"{case.name}.png", optimize=True)
    cases.write(FOLDER, CASES)
    (FOLDER / "zero_snr.json").write_text(json.dumps(ZERO_SNR) + "\n")


if __name__ == "__main__":
    main()
