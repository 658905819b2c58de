"""The networks of the demo model: Stable Diffusion 3.5 in every part, only small."""

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

TEXT_LENGTH = 32
LATENT_CHANNELS = 16
LATENT_SIDE = 32
CLIP_WIDTHS = (64, 96)
T5_WIDTH = sum(CLIP_WIDTHS)


def build_vae() -> AutoencoderKL:
    """Images of 256x256 to latents of 16x32x32 and back."""
    levels = 4
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=[16, 32, 64, 64], layers_per_block=1, norm_num_groups=8, latent_channels=LATENT_CHANNELS,
        sample_size=256, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0, scaling_factor=1.0,
    )


def build_clip(width: int, activation: str, vocabulary: int) -> CLIPTextModelWithProjection:
    """A text encoder like CLIP-L or OpenCLIP-G; the last two ids of its vocabulary start and end a text."""
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, projection_dim=width, num_hidden_layers=2,
        num_attention_heads=width // 32, max_position_embeddings=TEXT_LENGTH, hidden_act=activation,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    )
    model = CLIPTextModelWithProjection(config)
    embeddings = next(module for name, module in model.named_modules() if name.endswith("embeddings"))
    nn.init.normal_(embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.1)
    return model


def build_t5(vocabulary: int) -> T5EncoderModel:
    """A text encoder like T5 v1.1 XXL."""
    config = T5Config(
        vocab_size=vocabulary, d_model=T5_WIDTH, d_kv=32, num_heads=T5_WIDTH // 32, d_ff=2 * T5_WIDTH, num_layers=2,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False, is_encoder_decoder=False,
        use_cache=False, pad_token_id=0, eos_token_id=1,
    )
    return T5EncoderModel(config)


def build_transformer(heads: int = 5, layers: int = 6) -> SD3Transformer2DModel:
    """The joint transformer; modulations and the output begin at zero, so that every block begins as the identity."""
    model = SD3Transformer2DModel(
        sample_size=LATENT_SIDE, patch_size=2, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        num_layers=layers, num_attention_heads=heads, attention_head_dim=32, caption_projection_dim=32 * heads,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=sum(CLIP_WIDTHS), pos_embed_max_size=32, qk_norm="rms_norm",
    )
    zeroed = [model.proj_out, model.norm_out.linear]
    for block in model.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for layer in zeroed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


class TextToVelocity(nn.Module):
    """All that the flow trains: three text encoders and the transformer, joined as SD 3.5 joins them."""

    def __init__(self, clip_vocabulary: int, t5_vocabulary: int):
        super().__init__()
        self.text_encoder = build_clip(CLIP_WIDTHS[0], "quick_gelu", clip_vocabulary)
        self.text_encoder_2 = build_clip(CLIP_WIDTHS[1], "gelu", clip_vocabulary)
        self.text_encoder_3 = build_t5(t5_vocabulary)
        self.transformer = build_transformer()

    def encode(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids `[batch, 3, 32]` to the text's states `[batch, 64, 160]` and its pooled vector `[batch, 160]`."""
        first = self.text_encoder(ids[:, 0], output_hidden_states=True)
        second = self.text_encoder_2(ids[:, 1], output_hidden_states=True)
        third = self.text_encoder_3(ids[:, 2]).last_hidden_state
        joined = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        joined = nn.functional.pad(joined, (0, third.shape[-1] - joined.shape[-1]))
        return torch.cat([joined, third], dim=1), torch.cat([first.text_embeds, second.text_embeds], dim=-1)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        states, pooled = self.encode(ids)
        return self.transformer(latents, encoder_hidden_states=states, pooled_projections=pooled, timestep=timestep,
                                return_dict=False)[0]
