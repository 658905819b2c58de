"""The encoder of T5 v1.1, on texts long enough that the last buckets of relative positions are used."""

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

from checks import check_inputs, check_weights, describe
from paths import network_folder
from weights import randomise


def main() -> None:
    print("t5/small")
    # Attention of T5 is not divided by the root of the head's width, so queries must be small.
    head_width = 8
    config = T5Config(
        vocab_size=64, d_model=32, d_kv=head_width, num_heads=3, d_ff=40, num_layers=3, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
        dropout_rate=0.0, tie_word_embeddings=False, is_encoder_decoder=False, use_cache=False, pad_token_id=0,
        eos_token_id=1,
    )
    model = T5EncoderModel(config)
    randomise(model, seed=3, gains={".q.": head_width**-0.5})
    generator = torch.Generator("cpu").manual_seed(12)
    input_ids = torch.randint(2, 64, (2, 150), generator=generator)
    input_ids[0, 20], input_ids[0, 21:], input_ids[1, -1] = 1, 0, 1
    hidden = model(input_ids).last_hidden_state
    short_ids = input_ids[:, :9].contiguous()
    short_hidden = model(short_ids).last_hidden_state
    tensors = {"input_ids": input_ids, "hidden": hidden, "short_input_ids": short_ids, "short_hidden": short_hidden}
    describe("small", tensors)
    check_weights(model, hidden)
    check_inputs(lambda input_ids: model(input_ids).last_hidden_state, {"input_ids": input_ids})
    folder = network_folder("t5", "small")
    model.save_pretrained(folder)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "case.safetensors")


if __name__ == "__main__":
    main()
