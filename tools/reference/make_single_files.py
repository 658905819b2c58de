"""What single files of Stable Diffusion hold: for a tiny model of each family the original names of its tensors, and which tensors of
diffusers they consist of. diffusers reads such files back, in both formats, and must find every tensor of its own.

The weights follow from the names (`seeded.py`), so that none is kept, and the tests make the same files.
"""

import gzip
import json
import shutil
import tempfile
import zlib
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import (
    AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler,
    SD3Transformer2DModel, StableDiffusion3Pipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm, create_diffusers_t5_model_from_checkpoint
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast,
)

import byte_pairs
import seeded
from byte_pairs import END, START
from paths import PIPELINE, REPOSITORY
from single_file_names import CONVOLUTION, SAME, SWAPPED, THIRDS, TRANSPOSED, Place, mmdit, open_clip, unet, vae

FOLDER = PIPELINE / "single_files"
TOKENIZERS = REPOSITORY / "crates" / "weights" / "src" / "model_source" / "builtin_tokenizer"
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CLIP_TOKENS, T5_TOKENS = 49408, 32128
# A tensor of the file that no tensor of diffusers is made of.
UNUSED = "unused"
PROMPT = "a photo of a cat"
# Features of an attention head, of each size that conditions XL, and of the text encoders.
HEAD, SPREAD, LARGE, BIG = 64, 256, 128, 64


def clip(width: int, layers: int, act: str, projection: bool, padding: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=CLIP_TOKENS, hidden_size=width, intermediate_size=width, projection_dim=width, num_hidden_layers=layers,
        num_attention_heads=width // HEAD, max_position_embeddings=77, hidden_act=act, bos_token_id=0, pad_token_id=padding,
        eos_token_id=2,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def clip_l(width: int, projection: bool = False) -> CLIPTextModel:
    return clip(width, 3, "quick_gelu", projection, 1)


def clip_g() -> CLIPTextModel:
    return clip(BIG, 32, "gelu", True, 1)


def t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(T5Config(
        vocab_size=T5_TOKENS, d_model=width, d_kv=HEAD, d_ff=64, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=32, tie_word_embeddings=False,
    ))


def autoencoder(latents: int = 4, scale: float = 0.18215, shift: float | None = None) -> AutoencoderKL:
    has_quant = latents == 4
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[32, 32, 64, 64], layers_per_block=2, norm_num_groups=32, latent_channels=latents, sample_size=512,
        scaling_factor=scale, shift_factor=shift, use_quant_conv=has_quant, use_post_quant_conv=has_quant,
    )


def of_four_levels(**settings) -> UNet2DConditionModel:
    """A UNet of Stable Diffusion 1 or 2."""
    return UNet2DConditionModel(**({"sample_size": 64, "cross_attention_dim": 64} | settings))


def of_xl(channels: tuple[int, ...], depths: tuple[int, ...], attends: str, context: int, sizes: int) -> UNet2DConditionModel:
    """A UNet of XL or its refiner; of the levels those attend that have a `+`."""
    down = ["CrossAttnDownBlock2D" if level == "+" else "DownBlock2D" for level in attends]
    up = ["CrossAttnUpBlock2D" if level == "+" else "UpBlock2D" for level in reversed(attends)]
    return UNet2DConditionModel(
        sample_size=128, block_out_channels=channels, down_block_types=down, up_block_types=up, cross_attention_dim=context,
        transformer_layers_per_block=depths, attention_head_dim=[count // HEAD for count in channels],
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=SPREAD,
        projection_class_embeddings_input_dim=BIG + sizes * SPREAD,
    )


def transformer(**settings) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=HEAD,
        num_attention_heads=3, joint_attention_dim=LARGE + BIG, caption_projection_dim=3 * HEAD,
        pooled_projection_dim=LARGE + BIG, pos_embed_max_size=32, **settings,
    )


def tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer, T5TokenizerFast]:
    """The tokenizers of CLIP, which pad with the end token and with `!`, and that of T5."""
    merges = zlib.decompress((TOKENIZERS / "clip_merges.txt.zlib").read_bytes()).decode()
    letters = list(byte_pairs.letters_of_bytes().values())
    pairs = [tuple(line.split(" ")) for line in merges.splitlines()]
    tokens = [*letters, *(letter + byte_pairs.END_OF_WORD for letter in letters), *(a + b for a, b in pairs), START, END]
    assert len(tokens) == CLIP_TOKENS
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    first, second = [
        CLIPTokenizer(**files, pad_token=padding, model_max_length=77, bos_token=START, eos_token=END, unk_token=END)
        for padding in (END, "!")
    ]
    assert first(PROMPT).input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert second("", padding="max_length").input_ids[1:3] == [49407, 0]
    (folder / "tokenizer.json").write_bytes(zlib.decompress((TOKENIZERS / "t5_tokenizer.json.zlib").read_bytes()))
    third = T5TokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), model_max_length=512)
    return first, second, third


def pipelines(first: CLIPTokenizer, second: CLIPTokenizer, third: T5TokenizerFast) -> dict:
    """A tiny model of each family, with the scheduler of its release."""
    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pndm = PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    ddim = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    euler = EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading")
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    small, large = (32, 64, 64, 64), (64, 64, 128, 128)
    models = {
        "sd15": StableDiffusionPipeline(
            vae=autoencoder(), text_encoder=clip_l(64), tokenizer=first, scheduler=pndm,
            unet=of_four_levels(block_out_channels=small, attention_head_dim=8), **unused,
        ),
        "sd21": StableDiffusionPipeline(
            vae=autoencoder(), text_encoder=clip(64, 23, "gelu", False, 1), tokenizer=second,
            scheduler=DDIMScheduler(**BETAS, **ddim, prediction_type="v_prediction"),
            unet=of_four_levels(
                block_out_channels=large, attention_head_dim=[1, 1, 2, 2], use_linear_projection=True, sample_size=96,
            ), **unused,
        ),
        "sdxl": StableDiffusionXLPipeline(
            vae=autoencoder(scale=0.13025), text_encoder=clip_l(LARGE), text_encoder_2=clip_g(), tokenizer=first,
            tokenizer_2=second, scheduler=euler, unet=of_xl((64, 128, 128), (1, 2, 3), "-++", LARGE + BIG, 6),
            force_zeros_for_empty_prompt=True, add_watermarker=False,
        ),
        "refiner": StableDiffusionXLImg2ImgPipeline(
            vae=autoencoder(scale=0.13025), text_encoder=None, text_encoder_2=clip_g(), tokenizer=None, tokenizer_2=second,
            scheduler=euler, unet=of_xl(large, (2, 2, 2, 2), "-++-", BIG, 5), requires_aesthetics_score=True,
            force_zeros_for_empty_prompt=False, add_watermarker=False,
        ),
        "inpainting": StableDiffusionInpaintPipeline(
            vae=autoencoder(), text_encoder=clip_l(64), tokenizer=first, scheduler=DDIMScheduler(**BETAS, **ddim),
            unet=of_four_levels(block_out_channels=small, attention_head_dim=8, in_channels=9), **unused,
        ),
    }
    for name, settings in {
        "sd3-medium": {},
        "sd35-medium": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
        "sd35-large": {"qk_norm": "rms_norm"},
    }.items():
        models[name] = StableDiffusion3Pipeline(
            vae=autoencoder(16, 1.5305, 0.0609), text_encoder=clip_l(LARGE, True), text_encoder_2=clip_g(),
            text_encoder_3=t5(LARGE + BIG), tokenizer=first, tokenizer_2=second, tokenizer_3=third, scheduler=flow,
            transformer=transformer(**settings),
        )
    return models


def networks(pipeline) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def name_here(component: str, name: str) -> str:
    """The name that releases have: from transformers 5.6 on text encoders are saved without `text_model.`."""
    is_bare = component in ("text_encoder", "text_encoder_2") and name.split(".")[0] in ("embeddings", "encoder", "final_layer_norm")
    return f"text_model.{name}" if is_bare else name


@torch.no_grad()
def fill(component: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gives a network its weights; returns them."""
    state = {}
    for name, value in network.state_dict().items():
        if name == "encoder.embed_tokens.weight" and component == "text_encoder_3":
            continue
        full = f"{component}.{name_here(component, name)}"
        state[name_here(component, name)] = torch.from_numpy(seeded.values(full, list(value.shape)))
        value.copy_(state[name_here(component, name)])
    return state


def places(family: str, component: str, pipeline) -> tuple[str, object]:
    """The prefix of a component in the original file, and the function that gives the name below it."""
    if component == "unet":
        types = pipeline.unet.config.up_block_types
        slots = {level: 2 if "CrossAttn" in block else 1 for level, block in enumerate(types)}
        return "model.diffusion_model.", lambda name: unet(name, slots)
    if component == "transformer":
        blocks = pipeline.transformer.config.num_layers
        return "model.diffusion_model.", lambda name: mmdit(name, blocks)
    if component == "vae":
        return "first_stage_model.", lambda name: vae(name, 4)
    if component == "text_encoder_3":
        return "text_encoders.t5xxl.transformer.", Place
    if family.startswith("sd3"):
        return f"text_encoders.clip_{'l' if component == 'text_encoder' else 'g'}.transformer.", Place
    if family == "sd21":
        return "cond_stage_model.model.", open_clip
    if family == "sdxl" and component == "text_encoder":
        return "conditioner.embedders.0.transformer.", Place
    if component == "text_encoder_2":
        return f"conditioner.embedders.{0 if family == 'refiner' else 1}.model.", open_clip
    return "cond_stage_model.transformer.", Place


def rows(family: str, pipeline, states: dict) -> list:
    """The original tensors: name, form, shape, and the component and name of each tensor of diffusers that they consist of."""
    found = {}
    for component, state in states.items():
        prefix, place_of = places(family, component, pipeline)
        for name, value in state.items():
            place = place_of(name)
            form, parts, shape = found.setdefault(prefix + place.name, (place.form, {}, list(value.shape)))
            assert form == place.form and place.part not in parts and shape == list(value.shape), (name, place)
            parts[place.part] = [component, name]
    listed = []
    for original, (form, parts, shape) in found.items():
        assert sorted(parts) == list(range(3 if form == THIRDS else 1)), original
        if form == THIRDS:
            shape = [3 * shape[0], *shape[1:]]
        elif form == TRANSPOSED:
            shape = shape[::-1]
        elif form == CONVOLUTION:
            shape = [*shape, 1, 1]
        listed.append([original, form, shape, [parts[part] for part in sorted(parts)]])
    if family == "sd21":
        # The last layer of OpenCLIP-H, and the projection.
        layer = [row for row in listed if ".resblocks.22." in row[0]]
        for original, _, shape, _ in layer:
            listed.append([original.replace(".22.", ".23."), UNUSED, shape, []])
        listed.append(["cond_stage_model.model.text_projection", UNUSED, [64, 64], []])
    return listed


def original(listed: list, states: dict) -> dict[str, torch.Tensor]:
    """The tensors of the original file."""
    tensors = {}
    for name, form, shape, parts in listed:
        values = [states[component][tensor] for component, tensor in parts]
        if form == UNUSED:
            value = torch.from_numpy(seeded.values(name, shape))
        elif form == THIRDS:
            value = torch.cat(values)
        elif form == SWAPPED:
            value = torch.cat(values[0].chunk(2)[::-1])
        elif form == TRANSPOSED:
            value = values[0].T
        else:
            assert form in (SAME, CONVOLUTION)
            value = values[0].reshape(shape)
        assert list(value.shape) == shape
        tensors[name] = value.contiguous()
    return tensors


def check(family: str, component: str, network: torch.nn.Module, state: dict, file: Path, folder: Path) -> None:
    """Whether diffusers reads from the original file the weights that the network has."""
    if component == "text_encoder_3":
        read = create_diffusers_t5_model_from_checkpoint(
            T5EncoderModel, load(file), subfolder=component, config=str(folder), local_files_only=True,
        )
    elif component.startswith("text_encoder"):
        read = create_diffusers_clip_model_from_ldm(
            type(network), load(file), subfolder=component, config=str(folder), local_files_only=True,
        )
    else:
        read = type(network).from_single_file(str(file), config=str(folder), subfolder=component, local_files_only=True)
    found = {name_here(component, name): value for name, value in read.state_dict().items()}
    found.pop("encoder.embed_tokens.weight", None)
    assert sorted(found) == sorted(state), (family, component)
    for name, value in state.items():
        if family.startswith("sd3") and component == "text_encoder" and name == "text_projection.weight":
            # diffusers takes the identity, also where the file has a matrix.
            value = torch.eye(LARGE)
        assert torch.equal(found[name].float(), value.float()), (family, component, name)


def load(file: Path) -> dict[str, torch.Tensor]:
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)["state_dict"]


def configs(folder: Path) -> dict[str, object]:
    """All configurations of the model, without vocabularies."""
    files = [file for file in sorted(folder.rglob("*.json")) if file.name not in ("vocab.json", "tokenizer.json")]
    found = {str(file.relative_to(folder)): json.loads(file.read_text()) for file in files}
    for config in found.values():
        for name in ("_name_or_path", "name_or_path"):
            config.pop(name, None)
    return found


def generate_v(pipeline, path: Path) -> None:
    """The image of the XL model as one that predicts the velocity and whose last timestep is pure noise."""
    pipeline.scheduler = EulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(dtype=torch.float32)

    def image(prompt: str) -> np.ndarray:
        drawn = pipeline(
            prompt, negative_prompt="dark", width=64, height=64, num_inference_steps=4, guidance_scale=3.0,
            generator=torch.Generator("cpu").manual_seed(42),
        ).images[0]
        return np.asarray(drawn, dtype=np.int16)

    drawn = image(PROMPT)
    change = np.abs(drawn - image("a bridge over the river")).max()
    print(f"sdxl-v: std {drawn.std():.0f} of 255, another prompt changes it by at most {change}")
    assert drawn.std() > 30 and change > 5
    Image.fromarray(drawn.astype(np.uint8)).save(path)


def main() -> None:
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as vocabularies:
        models = pipelines(*tokenizers(Path(vocabularies)))
    for family, pipeline in models.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "folder"
            states = {component: fill(component, network) for component, network in networks(pipeline).items()}
            pipeline.save_pretrained(folder)
            listed = rows(family, pipeline, states)
            tensors = original(listed, states)
            files = [Path(temporary) / "model.safetensors", Path(temporary) / "model.ckpt"]
            save_file(tensors, files[0])
            torch.save({"state_dict": tensors}, files[1])
            for file in files:
                for component, network in networks(pipeline).items():
                    check(family, component, network, states[component], file, folder)
            text = json.dumps({"configs": configs(folder), "tensors": listed}, separators=(",", ":"))
        size = (FOLDER / f"{family}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        weights = sum(value.numel() for value in tensors.values())
        print(f"{family}: {len(listed)} tensors with {weights / 1e6:.1f} million weights, {size} bytes")
    generate_v(models["sdxl"], FOLDER / "sdxl-v.png")


if __name__ == "__main__":
    main()
