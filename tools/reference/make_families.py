"""Complete tiny models of Stable Diffusion 1, 2, XL and its refiner, and images that diffusers generates with them."""

import shutil
from dataclasses import asdict, dataclass

import numpy as np
import torch
from diffusers import (
    AutoencoderKL, ControlNetModel, DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler, HeunDiscreteScheduler, LCMScheduler, LMSDiscreteScheduler, PNDMScheduler,
    StableDiffusionControlNetPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel, UniPCMultistepScheduler,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import cases
import tokenizer_folders
from byte_pairs import END
from cases import Generated
from paths import PIPELINE
from weights import randomise

FOLDER = PIPELINE / "families"
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
# Of the UNets of XL: the pooled text has 16 features, each number is spread over 8.
POOLED, SPREAD = 16, 8


@dataclass(frozen=True)
class Case(Generated):
    """The settings of an image. Paths are those below the folder of the families."""

    steps: int = 6
    width: int = 64
    height: int = 64
    # The name of `--sampler`; without it the model's own.
    sampler: str | None = None
    # Whether it is image-to-image from `init.png`, and whether `mask.png` says where.
    strength: float | None = None
    masked: bool = False
    # ControlNets with `init.png` as their control image, each with its scale.
    controls: tuple[tuple[str, float], ...] = ()


SAMPLERS = {
    "Euler": (EulerDiscreteScheduler, {}),
    "Euler a": (EulerAncestralDiscreteScheduler, {}),
    "Heun": (HeunDiscreteScheduler, {}),
    "LMS": (LMSDiscreteScheduler, {}),
    "DPM++ 2M Karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "UniPC": (UniPCMultistepScheduler, {}),
    # These classes would clip latents like colours.
    "DDIM": (DDIMScheduler, {"clip_sample": False}),
    "DDPM": (DDPMScheduler, {"clip_sample": False}),
    "LCM": (LCMScheduler, {}),
}

CASES = [
    Case("sd15", "sd15"),
    Case("sd15-odd", "sd15", negative_prompt="blurry", seed=2**33 + 1, width=80, height=112),
    Case("sd15-no-guidance", "sd15", guidance_scale=1.0),
    *(Case(f"sd15-{name.lower().replace(' ', '-')}", "sd15", sampler=name) for name in SAMPLERS),
    Case("sd21", "sd21", negative_prompt="dark"),
    Case("sdxl", "sdxl"),
    Case("sdxl-negative", "sdxl", negative_prompt="dark", width=96),
    *(
        Case(f"{model}-img2img-{strength}", model, "a photo of a dog", negative, 3, 10, strength=strength)
        for model, negative in [("sd15", ""), ("sdxl", ""), ("refiner", "dark")]
        for strength in (0.3, 0.6, 1.0)
    ),
    Case("refiner-img2img-without-negative", "refiner", "a photo of a dog", seed=3, steps=10, strength=0.5),
    *(
        Case(f"{model}-masked-{strength}", model, "a photo of a dog", "", 3, 10, strength=strength, masked=True)
        for model in ("sd15", "inpainting")
        for strength in (0.7, 1.0)
    ),
    Case("sd15-controlled", "sd15", controls=(("control-1", 0.7),)),
    Case("sd15-controlled-twice", "sd15", seed=5, guidance_scale=1.0, controls=(("control-1", 0.7), ("control-2", 1.0))),
]


def clip(width: int, vocabulary: dict[str, int], seed: int, act: str, layers: int = 2, projection: bool = False):
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_hidden_layers=layers, num_attention_heads=2, max_position_embeddings=77, hidden_act=act, bos_token_id=0,
        pad_token_id=1, eos_token_id=2,
    )
    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    randomise(model, seed)
    return model


def vae(seed: int) -> AutoencoderKL:
    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[4, 4, 8, 8], layers_per_block=1, norm_num_groups=2, latent_channels=4, sample_size=64,
    )
    randomise(model, seed)
    return model


def unet(seed: int, **changes) -> UNet2DConditionModel:
    settings = {
        "sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "attention_head_dim": 2,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 16,
    }
    model = UNet2DConditionModel(**(settings | changes))
    randomise(model, seed)
    return model


def unet_of_xl(seed: int, numbers: int, context: int) -> UNet2DConditionModel:
    return unet(
        seed, cross_attention_dim=context, addition_embed_type="text_time", addition_time_embed_dim=SPREAD,
        projection_class_embeddings_input_dim=POOLED + numbers * SPREAD, use_linear_projection=True,
        transformer_layers_per_block=(1, 2), attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


@torch.no_grad()
def calibrate(pipeline) -> None:
    """Scales the last convolution so that an image fills the range of colours without clipping."""
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        "a photo of a cat", height=64, width=64, num_inference_steps=4, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(1),
    ).images
    image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    last = pipeline.vae.decoder.conv_out
    scale = 0.4 / image.std(dim=(0, 2, 3))
    last.weight *= scale[:, None, None, None]
    last.bias.copy_((last.bias - image.mean(dim=(0, 2, 3))) * scale)


def make_models() -> None:
    """Writes every model, with weights of 16 bits."""
    tokenizers = {}
    for name, padding in [("first", END), ("second", "!")]:
        folder = FOLDER / name
        tokenizers[name] = (tokenizer_folders.write_clip(folder, 77, padding), CLIPTokenizer.from_pretrained(folder))
    (words, tokenizer), (words_2, tokenizer_2) = tokenizers["first"], tokenizers["second"]
    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    sd15 = StableDiffusionPipeline(
        vae=vae(1), text_encoder=clip(16, words, 2, "quick_gelu"), tokenizer=tokenizer, unet=unet(3),
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False), **unused,
    )
    calibrate(sd15)
    sd21 = StableDiffusionPipeline(
        vae=vae(11), text_encoder=clip(16, words, 12, "gelu", layers=3), tokenizer=tokenizer,
        unet=unet(13, use_linear_projection=True, attention_head_dim=(2, 4)),
        scheduler=DDIMScheduler(
            **BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        ), **unused,
    )
    calibrate(sd21)
    euler = EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading")
    sdxl = StableDiffusionXLPipeline(
        vae=vae(4), text_encoder=clip(12, words, 5, "quick_gelu"), tokenizer=tokenizer, tokenizer_2=tokenizer_2,
        text_encoder_2=clip(POOLED, words_2, 6, "gelu", projection=True), unet=unet_of_xl(7, 6, 12 + POOLED),
        scheduler=euler, force_zeros_for_empty_prompt=True, add_watermarker=False,
    )
    calibrate(sdxl)
    refiner = StableDiffusionXLImg2ImgPipeline(
        vae=sdxl.vae, text_encoder=None, tokenizer=None, text_encoder_2=sdxl.text_encoder_2, tokenizer_2=tokenizer_2,
        unet=unet_of_xl(8, 5, POOLED), scheduler=euler, requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False, add_watermarker=False,
    )
    inpainting = StableDiffusionInpaintPipeline(
        vae=sd15.vae, text_encoder=sd15.text_encoder, tokenizer=tokenizer, unet=unet(9, in_channels=9),
        scheduler=sd15.scheduler, **unused,
    )
    models = {"sd15": sd15, "sd21": sd21, "sdxl": sdxl, "refiner": refiner, "inpainting": inpainting}
    for name, pipeline in models.items():
        pipeline.to(dtype=torch.float16).save_pretrained(FOLDER / name)
        pipeline.to(dtype=torch.float32)
    for index in (1, 2):
        control = ControlNetModel.from_unet(sd15.unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
        randomise(control, 20 + index)
        control.to(dtype=torch.float16).save_pretrained(FOLDER / f"control-{index}")
    for name in tokenizers:
        shutil.rmtree(FOLDER / name)


def make_sources() -> tuple[Image.Image, Image.Image]:
    """A smooth initial image, and a mask."""
    rows, columns = np.mgrid[0:64, 0:64] / 63
    image = np.stack([rows, columns, 0.5 + 0.5 * np.sin(9 * rows * columns)], axis=-1)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (16, 8, 64, 40))
    init = Image.fromarray((255 * image).round().astype(np.uint8))
    init.save(FOLDER / "init.png")
    mask.save(FOLDER / "mask.png")
    return init, mask


class Artist:
    """Generates cases with diffusers."""

    def __init__(self) -> None:
        self.init, self.mask = make_sources()

    def generate(self, case: Case) -> np.ndarray:
        is_img2img = case.strength is not None
        kind = {
            (False, False): (StableDiffusionPipeline, StableDiffusionXLPipeline),
            (True, False): (StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline),
            (True, True): (StableDiffusionInpaintPipeline, None),
        }[is_img2img, case.masked][case.model in ("sdxl", "refiner")]
        more = {}
        if case.controls:
            kind = StableDiffusionControlNetPipeline
            networks = [
                ControlNetModel.from_pretrained(FOLDER / name, torch_dtype=torch.float32) for name, _ in case.controls
            ]
            more = {"controlnet": networks}
        pipeline = kind.from_pretrained(FOLDER / case.model, torch_dtype=torch.float32, **more)
        pipeline.set_progress_bar_config(disable=True)
        if case.sampler:
            scheduler, settings = SAMPLERS[case.sampler]
            pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
        more = {}
        if case.controls:
            scales = [scale for _, scale in case.controls]
            more = {"image": [self.init] * len(scales), "controlnet_conditioning_scale": scales}
        if is_img2img:
            more |= {"image": self.init, "strength": case.strength}
        if case.masked:
            more["mask_image"] = self.mask
        if not is_img2img or case.masked:
            more |= {"width": case.width, "height": case.height}
        image = pipeline(
            case.prompt, negative_prompt=case.negative_prompt or None, num_inference_steps=case.steps,
            guidance_scale=case.guidance_scale, generator=torch.Generator("cpu").manual_seed(case.seed), **more,
        ).images[0]
        return np.asarray(image, dtype=np.int16)


@torch.no_grad()
def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "cases").mkdir(parents=True)
    make_models()
    artist = Artist()
    for case in CASES:
        image = artist.generate(case)
        assert image.std() > 30, case.name
        other = artist.generate(Case(**(asdict(case) | {"prompt": "a bridge over the river"})))
        difference = np.abs(image - other).max()
        print(f"{case.name}: std {image.std():.0f} of 255, another prompt changes it by at most {difference}")
        assert difference > 5, case.name
        Image.fromarray(image.astype(np.uint8)).save(FOLDER / "cases" / f"{case.name}.png")
    cases.write(FOLDER, CASES)


if __name__ == "__main__":
    main()
