"""Images of the tiny models: `cases.json` and, for each case, an image and its latents in `cases/`."""

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from safetensors.torch import save_file

from cases import Generated
from corpus import TEXTS
from make_models import FOLDER
from paths import PIPELINE

# The default `max_sequence_length` of diffusers.
LONGEST_T5_PROMPT = 256


@dataclass(frozen=True)
class Case(Generated):
    """The settings of an image."""

    width: int = 64
    height: int = 64


CASES = [
    Case("medium", "tiny-medium"),
    Case("medium-wide", "tiny-medium", "the black dog runs through the green grass", seed=7, width=160, height=96),
    Case("medium-long-prompt", "tiny-medium", TEXTS[-1], negative_prompt="a blurry, low quality picture " * 9, seed=3),
    Case("large", "tiny-large", "A Portrait of an old man, it's raining!"),
    Case("large-negative", "tiny-large", "a castle in the clouds", negative_prompt="bad colors, blurry!", seed=2**32 - 1),
    Case("large-no-guidance", "tiny-large", "a castle in the clouds", seed=5, guidance_scale=1.0),
    Case("large-unicode", "tiny-large", "caf\u00e9 \u732b \U0001f600  two  spaces", seed=0, steps=2, height=112, width=48),
    Case("medium35", "tiny-medium35", "a robot reading a newspaper, 4k"),
    Case("medium35-tall", "tiny-medium35", "two birds fly", "cats and dogs", seed=2**40 + 7, width=80, height=144),
    Case("medium35-no-guidance", "tiny-medium35", "", seed=9, guidance_scale=1.0, steps=1),
    Case("no-t5", "tiny-no-t5", "a yellow flower"),
    Case("no-t5-negative", "tiny-no-t5", "a yellow flower", "a red rose", seed=1, guidance_scale=7.0, steps=5),
]


class Artist:
    """A tiny model loaded by diffusers."""

    def __init__(self, model: str):
        index = json.loads((FOLDER / model / "model_index.json").read_text())
        # diffusers needs an explicit None for a missing text encoder, even if the index has it.
        missing = {name: None for name in ("text_encoder_3", "tokenizer_3") if index[name] == [None, None]}
        self.pipeline = StableDiffusion3Pipeline.from_pretrained(FOLDER / model, dtype=torch.float32, **missing)
        self.pipeline.set_progress_bar_config(disable=True)
        tokenizer = self.pipeline.tokenizer_3
        limit = LONGEST_T5_PROMPT if tokenizer is None else tokenizer.model_max_length
        self.t5_length = min(LONGEST_T5_PROMPT, limit)
        config = self.pipeline.transformer.config
        self.embeds_shape = (self.pipeline.tokenizer_max_length + self.t5_length, config.joint_attention_dim)

    def noise(self, case: Case) -> torch.Tensor:
        shape = (1, self.pipeline.transformer.config.in_channels, case.height // 8, case.width // 8)
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(case.seed))

    def generate(self, case: Case, noise: torch.Tensor | None = None) -> tuple[Image.Image, dict[str, torch.Tensor]]:
        """The image, and the latents after each step."""
        latents = {}

        def keep(_pipeline, step, _timestep, values):
            latents[f"latents_{step + 1}"] = values["latents"].clone()
            return values

        image = self.pipeline(
            prompt=case.prompt, negative_prompt=case.negative_prompt, height=case.height, width=case.width,
            num_inference_steps=case.steps, guidance_scale=case.guidance_scale, latents=noise,
            generator=torch.Generator("cpu").manual_seed(case.seed), max_sequence_length=self.t5_length,
            callback_on_step_end=keep, callback_on_step_end_tensor_inputs=["latents"],
        ).images[0]
        return image, latents

    def embeds(self, case: Case) -> dict[str, torch.Tensor]:
        """The encoded prompt."""
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        guided = case.guidance_scale > 1
        values = self.pipeline.encode_prompt(
            prompt=case.prompt, prompt_2=None, prompt_3=None, negative_prompt=case.negative_prompt,
            do_classifier_free_guidance=guided, max_sequence_length=self.t5_length,
        )
        return {name: value for name, value in zip(names, values) if value is not None}


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def check(artist: Artist, case: Case, image: Image.Image) -> None:
    """Prints the variation of an image, and checks that each setting changes it."""
    expected = pixels(image)
    clipped = np.mean((expected == 0) | (expected == 255))
    print(f"{case.name}: std {expected.std():.0f} of 255, {100 * clipped:.1f} % of the values at a limit")
    assert expected.std() > 30 and clipped < 0.25, case.name
    same, _ = artist.generate(case, artist.noise(case))
    assert np.array_equal(pixels(same), expected), "the noise is another"

    def change(title: str, noise: torch.Tensor | None = None, **changes) -> int:
        other, _ = artist.generate(Case(**(asdict(case) | changes)), noise)
        difference = np.abs(pixels(other) - expected)
        beyond = np.mean(difference > 2)
        print(f"    {title}: by at most {difference.max()}, {100 * beyond:.0f} % of the values by more than 2")
        return difference.max()

    generator = torch.Generator("cpu").manual_seed(1)
    noise = artist.noise(case)
    disturbed = noise + 1e-5 * torch.randn(noise.shape, generator=generator)
    assert change("noise disturbed by 0.00001", disturbed) <= 1
    assert change("another prompt", prompt="a bridge over the river") > 10
    if case.guidance_scale > 1:
        assert change("another negative prompt", negative_prompt="snow on the trees") > 10
        assert change("weaker guidance", guidance_scale=case.guidance_scale - 0.5) > 2
    t5 = artist.pipeline.text_encoder_3
    if t5 is not None:
        artist.pipeline.register_modules(text_encoder_3=None)
        assert change("without T5") > 10
        artist.pipeline.register_modules(text_encoder_3=t5)


@torch.no_grad()
def main() -> None:
    folder = PIPELINE / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    artists: dict[str, Artist] = {}
    entries = []
    for case in CASES:
        first = case.model not in artists
        if first:
            artists[case.model] = Artist(case.model)
        artist = artists[case.model]
        image, latents = artist.generate(case)
        check(artist, case, image)
        embeds = artist.embeds(case)
        assert embeds["prompt_embeds"].shape[1:] == artist.embeds_shape
        tensors = {"noise": artist.noise(case), "latents": latents[f"latents_{case.steps}"]}
        if first:
            tensors |= latents
            if artist.pipeline.text_encoder_3 is None:
                # Zeros stand in for T5.
                limit = artist.pipeline.tokenizer_max_length
                for name in ("prompt_embeds", "negative_prompt_embeds"):
                    assert not embeds[name][:, limit:].any()
                    embeds[name] = embeds[name][:, :limit]
            tensors |= embeds
        image.save(folder / f"{case.name}.png", optimize=True)
        save_file({name: value.clone() for name, value in tensors.items()}, folder / f"{case.name}.safetensors")
        files = {"expected": f"cases/{case.name}.png", "tensors": f"cases/{case.name}.safetensors"}
        entries.append(asdict(case) | {"max_sequence_length": artist.t5_length} | files)
    (PIPELINE / "cases.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
