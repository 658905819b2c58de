"""Weights that follow from their names alone, so that tests make the same without a file.

The generator is SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014), seeded with the FNV-1a hash of
the name. `crates/pipeline/tests/single_files/weights.rs` has the same.
"""

import numpy as np

MASK = (1 << 64) - 1


def seed(name: str) -> int:
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def uniform(name: str, count: int) -> np.ndarray:
    """Numbers from -0.5 to below 0.5, multiples of 2^-24."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)


def values(name: str, shape: list[int]) -> np.ndarray:
    """The values of the tensor `name`, in 16 bits: norms around one, others around zero, with the spread that keeps signals."""
    is_norm = len(shape) == 1 and name.endswith(".weight")
    if is_norm:
        mean, spread = 1.0, 0.6
    elif len(shape) == 1:
        mean, spread = 0.0, 0.4
    elif "embedding.weight" in name or name.endswith(("shared.weight", "attention_bias.weight", "pos_embed.pos_embed")):
        mean, spread = 0.0, 2.0
    elif name.endswith("vae.decoder.conv_out.weight"):
        # So that an image fills the range of colours without clipping.
        mean, spread = 0.0, 0.09
    else:
        inputs = int(np.prod(shape[1:]))
        mean, spread = 0.0, 3.4 / np.sqrt(np.float32(inputs))
    drawn = uniform(name, int(np.prod(shape)))
    return (np.float32(mean) + np.float32(spread) * drawn).astype(np.float16).reshape(shape)
