"""Reference data of each network: tiny random models of diffusers and transformers, with inputs and outputs.

    python tools/reference/networks.py

Writes `crates/models/tests/fixtures/<network>/<case>/`: the configuration and the weights as the reference saves
them, and `case.safetensors` with named inputs and expected outputs.
"""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

ROOT = Path(__file__).resolve().parents[2] / "crates/models/tests/fixtures"


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights under which every part matters: no zeros, norms around 1, projections that keep the variance."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name and parameter.dim() == 1 and "linear" not in name
        if is_norm and name.endswith("weight"):
            parameter.data = 1 + 0.2 * noise
        elif parameter.dim() == 1:
            parameter.data = 0.1 * noise
        elif "embedding" in name or "shared" in name or "relative_attention_bias" in name:
            parameter.data = 0.5 * noise
        else:
            parameter.data = noise * (1.0 / parameter[0].numel()) ** 0.5
    return model.eval().float()


def write(case: str, model, tensors: dict, **options) -> None:
    place = ROOT / case
    shutil.rmtree(place, ignore_errors=True)
    model.save_pretrained(place, **options)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, place / "case.safetensors")
    size = sum(file.stat().st_size for file in place.iterdir())
    values = ", ".join(f"{name} {tensor.float().std():.3f}" for name, tensor in tensors.items() if tensor.is_floating_point())
    print(f"{case}: {size} bytes; deviations {values}")


def clip(case: str, seed: int, end: int, **shape) -> None:
    config = CLIPTextConfig(vocab_size=120, max_position_embeddings=24, bos_token_id=118, eos_token_id=end, pad_token_id=1, **shape)
    model = randomise(CLIPTextModelWithProjection(config), seed)
    ids = torch.full((2, 24), 119 if end == 2 else 3)
    ids[0, :6] = torch.tensor([118, 5, 17, 99, 4, 119])
    ids[1, :11] = torch.tensor([118, 7, 2, 2, 64, 65, 66, 100, 1, 0, 119])
    output = model(ids, output_hidden_states=True)
    write(case, model, {"input_ids": ids, "penultimate": output.hidden_states[-2], "pooled": output.text_embeds})


def t5() -> None:
    config = T5Config(vocab_size=90, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
                      tie_word_embeddings=False, is_encoder_decoder=False, use_cache=False)
    model = randomise(T5EncoderModel(config), 3)
    ids = torch.randint(3, 90, (2, 150), generator=torch.Generator().manual_seed(4))
    ids[1, 30:] = 0
    write("t5/small", model, {"input_ids": ids, "hidden": model(ids)[0]})


def mmdit(case: str, seed: int, save: dict, **variant) -> None:
    model = randomise(SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=40, caption_projection_dim=32, pooled_projection_dim=24, pos_embed_max_size=16, **variant), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    inputs = {"latents": torch.randn(2, 16, 12, 20, generator=generator), "context": torch.randn(2, 19, 40, generator=generator),
              "pooled": torch.randn(2, 24, generator=generator), "timesteps": torch.tensor([987.3, 12.5])}
    output = model(hidden_states=inputs["latents"], encoder_hidden_states=inputs["context"], pooled_projections=inputs["pooled"],
                   timestep=inputs["timesteps"], return_dict=False)[0]
    write(case, model, {**inputs, "velocity": output}, **save)


def vae(case: str, seed: int, channels: int, **variant) -> None:
    model = randomise(AutoencoderKL(
        block_out_channels=(8, 12, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4, latent_channels=channels, **variant), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    latents = torch.randn(2, channels, 5, 7, generator=generator)
    image = torch.rand(1, 3, 48, 32, generator=generator) * 2 - 1
    encoded = model.encode(image).latent_dist
    write(case, model, {"latents": latents, "decoded": model.decode(latents).sample, "image": image,
                        "mean": encoded.mean, "log_variance": encoded.logvar})


def main() -> None:
    with torch.no_grad():
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "projection_dim": 20}
        clip("clip/large", 1, 2, hidden_act="quick_gelu", **shape)
        clip("clip/big", 2, 119, hidden_act="gelu", **{**shape, "hidden_size": 40, "projection_dim": 28})
        t5()
        mmdit("mmdit/medium", 10, {})
        mmdit("mmdit/large", 20, {}, qk_norm="rms_norm")
        mmdit("mmdit/medium35", 30, {"max_shard_size": "150KB"}, qk_norm="rms_norm", dual_attention_layers=(0, 1))
        vae("vae/plain", 40, 16, layers_per_block=2, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609)
        vae("vae/quant", 50, 4, layers_per_block=1)


if __name__ == "__main__":
    main()
