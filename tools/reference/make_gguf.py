"""A GGUF file with a tensor of every type that is read, and its values as ggml's reference decoder has them."""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

from paths import REPOSITORY

FOLDER = REPOSITORY / "crates" / "weights" / "tests" / "fixtures" / "gguf"
# The offsets of the 16-bit floats in a block.
HALVES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
}
ROWS, COLUMNS = 3, 256


def blocks(random: np.random.Generator, kind: Type, values: int) -> np.ndarray:
    """Random blocks whose scales are finite, among them zero and subnormal ones."""
    in_block, size = gguf.GGML_QUANT_SIZES[kind]
    found = random.integers(0, 256, (values // in_block, size), dtype=np.uint8)
    for offset in HALVES[kind]:
        scales = random.normal(0, 0.05, len(found)).astype(np.float16)
        scales[::7] = np.float16(3e-7)
        found[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return found


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(91)
    writer = gguf.GGUFWriter(FOLDER / "types.gguf", "sdxl")
    writer.add_quantization_version(2)
    writer.add_uint8("small", 7)
    writer.add_int64("negative", -(2**40))
    writer.add_float32("float", 0.5)
    writer.add_bool("yes", True)
    writer.add_string("tokenizer.ggml.model", "t5")
    writer.add_array("tokenizer.ggml.tokens", ["<pad>", "</s>", "▁a", "größer"])
    writer.add_array("tokenizer.ggml.scores", [0.0, 0.0, -2.5, -3.25])
    writer.add_array("tokenizer.ggml.token_type", [3, 3, 1, 1])
    expected = {}
    for kind in HALVES:
        found = blocks(random, kind, ROWS * COLUMNS)
        writer.add_tensor(kind.name, found.reshape(ROWS, -1), raw_dtype=kind)
        expected[kind.name] = gguf.quants.dequantize(found.reshape(ROWS, -1), kind)
    # A convolution whose rows are no whole blocks, as ComfyUI-GGUF stores it.
    shape = (4, 16, 3, 4)
    found = blocks(random, Type.Q4_K, 768).reshape(3, -1)
    writer.add_array("comfy.gguf.orig_shape.convolution", [int(size) for size in shape])
    writer.add_tensor("convolution", found, raw_dtype=Type.Q4_K)
    expected["convolution"] = gguf.quants.dequantize(found, Type.Q4_K).reshape(shape)
    plain = random.normal(0, 1, (2, 5)).astype(np.float32)
    writer.add_tensor("F32", plain)
    writer.add_tensor("F16", plain.astype(np.float16))
    writer.add_tensor("F64", plain.astype(np.float64))
    brain = torch.from_numpy(plain).bfloat16()
    writer.add_tensor("BF16", brain.view(torch.uint8).numpy(), raw_dtype=Type.BF16)
    writer.add_tensor("I32", np.array([5, 6], dtype=np.int32))
    expected |= {"F32": plain, "F16": plain.astype(np.float16).astype(np.float32), "F64": plain}
    expected["BF16"] = brain.float().numpy()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for name, values in expected.items():
        assert np.isfinite(values).all() and values.std() > 0, name
    save_file(expected, FOLDER / "expected.safetensors")
    for file in sorted(FOLDER.iterdir()):
        print(f"gguf/{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
