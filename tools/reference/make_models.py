"""Complete tiny models, in the folders that diffusers saves: `models/<name>`."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel

import tokenizer_folders
from byte_pairs import END
from paths import PIPELINE
from weights import randomise

LATENT_CHANNELS = 16
JOINT_WIDTH = 32
CLIP_WIDTHS = (12, 16)
T5_HEAD_WIDTH = 6
FOLDER = PIPELINE / "models"


@dataclass(frozen=True)
class Kind:
    """How one tiny model differs from the others."""

    name: str
    seed: int
    clip_limit: int
    # What tokenizer_config.json says; none means no T5 at all.
    t5_limit: int | None
    # Whether the configurations of CLIP name the true end of a text, or 2 as the published ones do.
    true_end: bool
    qk_norm: str | None
    dual_attention_layers: tuple[int, ...] = ()
    shift: float = 3.0


KINDS = [
    Kind("tiny-medium", 100, clip_limit=24, t5_limit=32, true_end=False, qk_norm=None),
    Kind("tiny-large", 200, clip_limit=77, t5_limit=512, true_end=False, qk_norm="rms_norm"),
    Kind("tiny-medium35", 300, 24, 40, true_end=True, qk_norm="rms_norm", dual_attention_layers=(0,)),
    Kind("tiny-no-t5", 400, clip_limit=77, t5_limit=None, true_end=False, qk_norm="rms_norm", shift=1.5),
]


def clip(kind: Kind, index: int, vocabulary: dict[str, int]) -> CLIPTextModelWithProjection:
    width = CLIP_WIDTHS[index]
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, layer_norm_eps=1e-5,
        hidden_act=("quick_gelu", "gelu")[index], bos_token_id=0, pad_token_id=1,
        eos_token_id=vocabulary[END] if kind.true_end else 2,
    )
    model = CLIPTextModelWithProjection(config)
    randomise(model, kind.seed + index)
    return model


def t5(kind: Kind, vocabulary_size: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=vocabulary_size, d_model=JOINT_WIDTH, d_kv=T5_HEAD_WIDTH, num_heads=4, d_ff=40, num_layers=2,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False, is_encoder_decoder=False,
        use_cache=False,
    )
    model = T5EncoderModel(config)
    randomise(model, kind.seed + 2, gains={".q.": T5_HEAD_WIDTH**-0.5})
    return model


def transformer(kind: Kind) -> SD3Transformer2DModel:
    model = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=JOINT_WIDTH, caption_projection_dim=16,
        pooled_projection_dim=sum(CLIP_WIDTHS), pos_embed_max_size=12, qk_norm=kind.qk_norm,
        dual_attention_layers=kind.dual_attention_layers,
    )
    randomise(model, kind.seed + 3, gains={"norm1.linear.weight": 1.5, "add_k_proj.weight": 2, "add_v_proj.weight": 2})
    return model


def vae(kind: Kind) -> AutoencoderKL:
    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[4, 4, 8, 8], layers_per_block=1, norm_num_groups=2, latent_channels=LATENT_CHANNELS,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609, sample_size=64,
    )
    randomise(model, kind.seed + 4)
    return model


@torch.no_grad()
def calibrate(pipeline: StableDiffusion3Pipeline) -> None:
    """Scales the last convolution so that an image fills the range of colours without leaving it."""
    latents = pipeline(
        "a photo of a cat", height=64, width=96, num_inference_steps=4, guidance_scale=4.5, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(1), max_sequence_length=32,
    ).images
    config = pipeline.vae.config
    image = pipeline.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    last = pipeline.vae.decoder.conv_out
    scale = 0.4 / image.std(dim=(0, 2, 3))
    last.weight *= scale[:, None, None, None]
    last.bias.copy_((last.bias - image.mean(dim=(0, 2, 3))) * scale)


def make(kind: Kind) -> Path:
    """Writes one model."""
    folder = FOLDER / kind.name
    shutil.rmtree(folder, ignore_errors=True)
    vocabularies, tokenizers = [], []
    paddings = {"tokenizer": END, "tokenizer_2": "!"}
    for component, padding in paddings.items():
        vocabularies.append(tokenizer_folders.write_clip(folder / component, kind.clip_limit, padding))
        tokenizers.append(CLIPTokenizer.from_pretrained(folder / component))
    tokenizer_3 = tokenizer_folders.t5(kind.t5_limit) if kind.t5_limit else None
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer(kind), vae=vae(kind),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=kind.shift),
        text_encoder=clip(kind, 0, vocabularies[0]), tokenizer=tokenizers[0],
        text_encoder_2=clip(kind, 1, vocabularies[1]), tokenizer_2=tokenizers[1],
        text_encoder_3=t5(kind, len(tokenizer_3)) if tokenizer_3 else None, tokenizer_3=tokenizer_3,
    )
    pipeline.set_progress_bar_config(disable=True)
    calibrate(pipeline)
    pipeline.save_pretrained(folder)
    for component, padding in paddings.items():
        # What the installed transformers saves has no vocab.json; the published repositories have.
        tokenizer_folders.write_clip(folder / component, kind.clip_limit, padding)
    return folder


def main() -> None:
    for kind in KINDS:
        folder = make(kind)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{kind.name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
