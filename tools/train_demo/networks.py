"""The demo's networks, in the classes and the layout of Stable Diffusion 3.5."""

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from text import END, LENGTH, START, Tokenizers

WIDTH, HEADS, LAYERS = 144, 3, 7
JOINT = 160


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(24, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=16, norm_num_groups=8,
        sample_size=256, use_quant_conv=False, use_post_quant_conv=False, force_upcast=False)


def make_transformer() -> SD3Transformer2DModel:
    transformer = SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=16, out_channels=16, num_layers=LAYERS, attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS, joint_attention_dim=JOINT, caption_projection_dim=WIDTH, pooled_projection_dim=160,
        pos_embed_max_size=32, qk_norm="rms_norm")
    # Every block begins as the identity (Peebles and Xie 2023, adaLN-Zero).
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def make_text_encoders(tokenizers: Tokenizers) -> nn.ModuleList:
    """CLIP L, CLIP G and T5, small."""
    vocabulary = tokenizers.vocabulary

    def clip(width: int, activation: str) -> CLIPTextModelWithProjection:
        return CLIPTextModelWithProjection(CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=width // 32, max_position_embeddings=LENGTH, projection_dim=80, hidden_act=activation,
            bos_token_id=vocabulary[START], eos_token_id=vocabulary[END], pad_token_id=vocabulary[END]))

    t5 = T5EncoderModel(T5Config(
        vocab_size=tokenizers.t5.get_vocab_size(), d_model=JOINT, d_kv=32, num_heads=5, d_ff=320, num_layers=3,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, is_encoder_decoder=False, use_cache=False,
        tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1))
    encoders = nn.ModuleList([clip(64, "quick_gelu"), clip(96, "gelu"), t5])
    return encoders


def encode_text(encoders: nn.ModuleList, large, big, t5) -> tuple[torch.Tensor, torch.Tensor]:
    """Context `[batch, 2 * LENGTH, JOINT]` and pooled summary, put together as StableDiffusion3Pipeline does."""
    first = encoders[0](large, output_hidden_states=True)
    second = encoders[1](big, output_hidden_states=True)
    clip = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
    clip = nn.functional.pad(clip, (0, JOINT - clip.shape[-1]))
    context = torch.cat([clip, encoders[2](t5)[0]], -2)
    return context, torch.cat([first.text_embeds, second.text_embeds], -1)


@torch.no_grad()
def sample(transformer, encoders, tokenizers: Tokenizers, prompts: list[str], device, *, seed=0, steps=20, guidance=3.0,
           shift=2.0, latents=None) -> torch.Tensor:
    """Scaled latents for `prompts`, by Euler steps with guidance, as the scheduler of diffusers spaces them."""
    def ids(texts):
        rows = [tokenizers.ids(text) for text in texts]
        return [torch.tensor([row[k] for row in rows], device=device) for k in range(3)]

    context, pooled = encode_text(encoders, *ids([""] * len(prompts) + prompts))
    if latents is None:
        latents = torch.randn(len(prompts), 16, 32, 32, generator=torch.Generator().manual_seed(seed)).to(device)
    lowest = shift * 0.001 / (1 + (shift - 1) * 0.001)
    sigmas = torch.linspace(1, lowest, steps)
    sigmas = torch.cat([shift * sigmas / (1 + (shift - 1) * sigmas), torch.zeros(1)])
    for now, then in zip(sigmas[:-1], sigmas[1:]):
        timestep = torch.full((2 * len(prompts),), 1000 * float(now), device=device)
        velocity = transformer(hidden_states=torch.cat([latents, latents]), timestep=timestep, encoder_hidden_states=context,
                               pooled_projections=pooled, return_dict=False)[0].float()
        without, with_prompt = velocity.chunk(2)
        latents = latents + (then - now) * (without + guidance * (with_prompt - without))
    return latents
