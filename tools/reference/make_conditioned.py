"""LoRA files of every naming and ControlNets of Stable Diffusion 3 for the tiny models, and images that diffusers generates with
them. After `make_models.py` and `make_families.py`."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from diffusers import (
    LCMScheduler, SD3ControlNetModel, StableDiffusion3ControlNetPipeline, StableDiffusion3Pipeline, StableDiffusionPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from safetensors.torch import save_file

import cases
from cases import Generated
from make_models import CLIP_WIDTHS, JOINT_WIDTH
from paths import PIPELINE
from weights import randomise

FOLDER = PIPELINE / "conditioned"
LORAS = FOLDER / "loras"
INIT = PIPELINE / "families" / "init.png"
RANK = 2


@dataclass(frozen=True)
class Case(Generated):
    """The settings of an image. Paths are those below the fixtures of the pipeline."""

    # The name of `--sampler`; without it the model's own.
    sampler: str | None = None
    # LoRA files, each with its scale.
    loras: tuple[tuple[str, float], ...] = ()
    # ControlNets with `init.png` as their control image, or its edges, each with its scale.
    controls: tuple[tuple[str, str, float], ...] = ()


SD15, LARGE, MEDIUM, MEDIUM35 = "families/sd15", "models/tiny-large", "models/tiny-medium", "models/tiny-medium35"
CASES = [
    Case("kohya", SD15, loras=(("kohya", 0.8),)),
    Case("diffusers", SD15, seed=7, loras=(("diffusers", 1.0),)),
    Case("peft", SD15, loras=(("peft", 0.7),)),
    Case("two", SD15, negative_prompt="dark", loras=(("kohya", 0.6), ("peft", -0.5))),
    Case("lcm", SD15, guidance_scale=1.0, sampler="LCM", loras=(("lcm", 1.0),)),
    Case("sd3-peft", LARGE, loras=(("sd3-peft", 0.9),)),
    Case("sd3-kohya", LARGE, seed=3, loras=(("sd3-kohya", 0.8),)),
    Case("sd3-two", LARGE, guidance_scale=1.0, loras=(("sd3-peft", 0.4), ("sd3-kohya", 0.7))),
    Case("control-large", LARGE, controls=(("control-large", "depth", 0.8),)),
    Case("control-large-edges", LARGE, seed=9, controls=(("control-large", "canny", 1.0),)),
    Case("control-medium", MEDIUM, negative_prompt="dark", controls=(("control-medium", "pose", 0.7),)),
    Case("control-medium-no-guidance", MEDIUM, guidance_scale=1.0, controls=(("control-medium", "canny", 1.0),)),
    Case(
        "control-medium35-twice", MEDIUM35,
        controls=(("control-medium35-1", "pose", 0.6), ("control-medium35-2", "depth", 0.9)),
    ),
    Case("control-large-lora", LARGE, loras=(("sd3-peft", 0.9),), controls=(("control-large", "depth", 0.8),)),
]

Layers = dict[str, tuple[int, ...]]
# The down and the up matrix of each layer.
Matrices = dict[str, tuple[torch.Tensor, torch.Tensor]]


def sd15() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(PIPELINE / SD15, torch_dtype=torch.float32)


def layers(model: torch.nn.Module, wanted: tuple[str, ...]) -> Layers:
    """The shapes of the weights of linear layers and convolutions whose names end in one of `wanted`."""
    return {
        name.removesuffix(".weight"): tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if name.removesuffix(".weight").endswith(wanted) and parameter.dim() in (2, 4)
    }


def matrices(of: Layers, seed: int) -> Matrices:
    """Matrices whose update is about a third as large as the weights of each layer."""
    generator = torch.Generator("cpu").manual_seed(seed)
    found = {}
    for name, shape in of.items():
        down = torch.randn((RANK, *shape[1:]), generator=generator) / down_size(shape)
        up = torch.randn((shape[0], RANK, *([1, 1] if len(shape) == 4 else [])), generator=generator) / 3
        found[name] = (down, up)
    return found


def down_size(shape: tuple[int, ...]) -> float:
    return float(np.prod(shape[1:])) ** 0.5


def write(name: str, tensors: dict[str, torch.Tensor]) -> None:
    save_file({key: value.half().contiguous() for key, value in tensors.items()}, LORAS / f"{name}.safetensors")


def named(of: Matrices, naming: Callable[[str], str], down: str, up: str, alpha: float | None = None) -> dict[str, torch.Tensor]:
    """The matrices under the layer names that `naming` returns."""
    tensors = {}
    for layer, (lower, upper) in of.items():
        tensors[f"{naming(layer)}.{down}.weight"], tensors[f"{naming(layer)}.{up}.weight"] = lower, upper
        if alpha:
            tensors[f"{naming(layer)}.alpha"] = torch.tensor(alpha)
    return tensors


def whole(layer: str) -> str:
    """The name of a CLIP layer inside a whole CLIP model."""
    return layer if layer.startswith("text_model.") else f"text_model.{layer}"


def make_loras_of_sd15() -> None:
    pipeline = sd15()
    attention = ("to_q", "to_v", "to_out.0", "ff.net.0.proj")
    # With convolutions: what LyCORIS calls LoCon.
    with_convolutions = (*attention, "proj_in", "conv1", "downsamplers.0.conv", "time_emb_proj")
    text = ("q_proj", "v_proj", "out_proj", "fc1")
    clip = pipeline.text_encoder

    def underscores(prefix: str, name: Callable[[str], str] = str) -> Callable[[str], str]:
        return lambda layer: prefix + name(layer).replace(".", "_")

    kohya = ("lora_down", "lora_up", 1.5)
    write("kohya", named(matrices(layers(pipeline.unet, with_convolutions), 81), underscores("lora_unet_"), *kohya)
          | named(matrices(layers(clip, text), 82), underscores("lora_te_", whole), *kohya))
    write("diffusers", named(matrices(layers(pipeline.unet, attention), 83), lambda layer: f"unet.{layer}", "lora.down", "lora.up")
          | named(matrices(layers(clip, text), 84), lambda layer: f"text_encoder.{whole(layer)}",
                    "lora_linear_layer.down", "lora_linear_layer.up"))
    peft = ("lora_A", "lora_B")
    write("peft", named(matrices(layers(pipeline.unet, with_convolutions), 85), lambda layer: f"unet.{layer}", *peft)
          | named(matrices(layers(clip, text), 86), lambda layer: f"text_encoder.{whole(layer)}", *peft))
    lcm = (*with_convolutions, "to_k", "ff.net.2", "proj_out", "conv2", "conv_shortcut", "upsamplers.0.conv")
    write("lcm", named(matrices(layers(pipeline.unet, lcm), 87), underscores("lora_unet_"), *kohya))


def make_loras_of_sd3() -> dict[str, torch.Tensor]:
    """Writes the files. What kohya-ss calls by Stability AI's names diffusers is given by its own: that is returned."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(PIPELINE / LARGE, torch_dtype=torch.float32)
    attention = ("to_q", "to_v", "to_out.0", "add_k_proj", "ff.net.0.proj", "ff_context.net.2", "norm1.linear")
    text = ("q_proj", "out_proj", "fc2")
    peft = ("lora_A", "lora_B")
    tensors = named(matrices(layers(pipeline.transformer, attention), 91), lambda layer: f"transformer.{layer}", *peft)
    for seed, encoder in [(92, "text_encoder"), (93, "text_encoder_2")]:
        of_text = matrices(layers(getattr(pipeline, encoder), text), seed)
        tensors |= named(of_text, lambda layer, encoder=encoder: f"{encoder}.{whole(layer)}", *peft)
    write("sd3-peft", tensors)

    generator = torch.Generator("cpu").manual_seed(94)
    width = pipeline.transformer.inner_dim
    theirs, own = {}, {}
    alpha = 3.0
    for block in range(pipeline.transformer.config.num_layers):
        for name, parts, inputs in [
            ("x_block_attn_qkv", ["attn.to_q", "attn.to_k", "attn.to_v"], width),
            ("x_block_mlp_fc2", ["ff.net.2"], 4 * width),
            ("context_block_attn_qkv", ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"], width),
        ]:
            down = torch.randn((RANK, inputs), generator=generator) / inputs**0.5
            up = torch.randn((len(parts) * width, RANK), generator=generator) / 3
            key = f"lora_unet_joint_blocks_{block}_{name}"
            theirs |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(alpha)}
            for part, up_of_part in zip(parts, up.half().float().chunk(len(parts)), strict=True):
                key = f"transformer.transformer_blocks.{block}.{part}"
                own |= {f"{key}.lora_A.weight": down.half().float(), f"{key}.lora_B.weight": up_of_part * alpha / RANK}
    for seed, encoder, name in [(95, "text_encoder", "lora_te1_"), (96, "text_encoder_2", "lora_te2_")]:
        of_text = matrices(layers(getattr(pipeline, encoder), text), seed)
        theirs |= named(of_text, lambda layer, name=name: name + whole(layer).replace(".", "_"), "lora_down", "lora_up", alpha)
        for layer, (down, up) in of_text.items():
            key = f"{encoder}.{whole(layer)}"
            own |= {f"{key}.lora_A.weight": down.half().float(), f"{key}.lora_B.weight": up.half().float() * alpha / RANK}
    write("sd3-kohya", theirs)
    return own


def make_controls() -> None:
    """Writes ControlNets of both kinds, with weights of 16 bits."""
    shape = {
        "sample_size": 8, "patch_size": 2, "in_channels": 16, "out_channels": 16, "attention_head_dim": 8,
        "num_attention_heads": 2, "pooled_projection_dim": sum(CLIP_WIDTHS), "caption_projection_dim": 16,
    }
    of_large = {
        "joint_attention_dim": None, "pos_embed_max_size": None, "pos_embed_type": None, "use_pos_embed": False,
        "force_zeros_for_pooled_projection": False,
    }
    of_medium = {"joint_attention_dim": JOINT_WIDTH, "pos_embed_max_size": 16}
    for name, seed, options in [
        ("control-large", 71, of_large),
        ("control-medium", 72, of_medium),
        ("control-medium35-1", 73, of_medium | {"force_zeros_for_pooled_projection": False, "qk_norm": "rms_norm"}),
        (
            "control-medium35-2", 74,
            of_medium | {
                "force_zeros_for_pooled_projection": False, "qk_norm": "rms_norm", "dual_attention_layers": (0,),
            },
        ),
    ]:
        # The transformers have two blocks, and nothing is added after the last.
        control = SD3ControlNetModel(**shape, **options, num_layers=1)
        randomise(control, seed, gains={"norm1.linear.weight": 1.5, "controlnet_blocks": 2})
        control.to(dtype=torch.float16).save_pretrained(FOLDER / name)


class Artist:
    """Generates cases with diffusers."""

    def __init__(self, of_sd3_kohya: dict[str, torch.Tensor]) -> None:
        self.of_sd3_kohya = of_sd3_kohya
        self.init = Image.open(INIT)
        # diffusers samples the latents of the control image with noise that no seed determines.
        DiagonalGaussianDistribution.sample = lambda distribution, generator=None: distribution.mode()

    def pipeline(self, case: Case):
        folder = PIPELINE / case.model
        if case.model == SD15:
            pipeline = sd15()
            if case.sampler == "LCM":
                pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
        elif case.controls:
            networks = [
                SD3ControlNetModel.from_pretrained(FOLDER / name, torch_dtype=torch.float32) for name, _, _ in case.controls
            ]
            controlnet = networks[0] if len(networks) == 1 else networks
            pipeline = StableDiffusion3ControlNetPipeline.from_pretrained(folder, controlnet=controlnet, torch_dtype=torch.float32)
        else:
            pipeline = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def image(self, control: tuple[str, str, float]):
        """The control image in the range of the network's training."""
        name, kind, _ = control
        if kind != "canny":
            return self.init
        edges = cv2.Canny(np.asarray(self.init), 100, 200)
        edges = Image.fromarray(np.stack([edges] * 3, axis=2))
        if name != "control-large":
            return edges
        # As in the model card of Stability AI's ControlNet.
        values = torch.from_numpy(np.asarray(edges).copy()).permute(2, 0, 1)[None] / 255
        return values * 255 * 0.5 + 0.5

    def generate(self, case: Case) -> np.ndarray:
        pipeline = self.pipeline(case)
        names = []
        for index, (file, _) in enumerate(case.loras):
            names.append(f"lora_{index}")
            source = self.of_sd3_kohya if file == "sd3-kohya" else LORAS / f"{file}.safetensors"
            pipeline.load_lora_weights(dict(source) if isinstance(source, dict) else source, adapter_name=names[-1])
        if names:
            pipeline.set_adapters(names, [scale for _, scale in case.loras])
        more = {}
        if case.model != SD15:
            more["max_sequence_length"] = min(256, pipeline.tokenizer_3.model_max_length)
        if case.controls:
            images = [self.image(control) for control in case.controls]
            scales = [scale for _, _, scale in case.controls]
            one = len(scales) == 1
            more |= {
                "control_image": images[0] if one else images,
                "controlnet_conditioning_scale": scales[0] if one else scales,
            }
        image = pipeline(
            case.prompt, negative_prompt=case.negative_prompt, num_inference_steps=case.steps, width=64, height=64,
            guidance_scale=case.guidance_scale, generator=torch.Generator("cpu").manual_seed(case.seed), **more,
        ).images[0]
        return np.asarray(image, dtype=np.int16)


def check(artist: Artist, case: Case, image: np.ndarray) -> None:
    """Checks that the image would show a mistake in any file or network."""
    print(f"{case.name}: std {image.std():.0f} of 255")
    assert image.std() > 25, case.name

    def change(title: str, **changes) -> None:
        difference = np.abs(artist.generate(replace(case, **changes)) - image)
        beyond = np.mean(difference > 2)
        print(f"    {title}: by at most {difference.max()}, {100 * beyond:.0f} % of the values by more than 2")
        assert difference.max() > 5, (case.name, title)

    for kind in ("loras", "controls"):
        chosen = getattr(case, kind)
        for index, one in enumerate(chosen):
            others = chosen[:index] + chosen[index + 1 :]
            change(f"without {one[0]}", **{kind: others})
            change(f"{one[0]} weaker", **{kind: (*chosen[:index], (*one[:-1], one[-1] - 0.2), *chosen[index + 1 :])})


def check_text_encoders(artist: Artist) -> None:
    """Checks that diffusers has applied the text encoder layers of the files."""
    for case in CASES:
        if case.loras and case.name != "lcm" and len(case.loras) == 1 and not case.controls:
            pipeline = artist.pipeline(case)
            file = case.loras[0][0]
            source = artist.of_sd3_kohya if file == "sd3-kohya" else LORAS / f"{file}.safetensors"
            pipeline.load_lora_weights(dict(source) if isinstance(source, dict) else source, adapter_name="it")
            adapted = {component: len(of) for component, of in pipeline.get_list_adapters().items()}
            print(f"{case.name}: adapted are {', '.join(adapted)}")
            assert "text_encoder" in adapted and (case.model == SD15 or "text_encoder_2" in adapted), case.name


@torch.no_grad()
def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    LORAS.mkdir(parents=True)
    (FOLDER / "cases").mkdir()
    make_loras_of_sd15()
    of_sd3_kohya = make_loras_of_sd3()
    make_controls()
    artist = Artist(of_sd3_kohya)
    check_text_encoders(artist)
    for case in CASES:
        image = artist.generate(case)
        check(artist, case, image)
        Image.fromarray(image.astype(np.uint8)).save(FOLDER / "cases" / f"{case.name}.png", optimize=True)
    cases.write(FOLDER, CASES)


if __name__ == "__main__":
    main()
