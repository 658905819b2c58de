"""Quantised tensors as bitsandbytes, ComfyUI, Black Forest Labs and quanto save them, and their values in 32 bits."""

import json

import comfy_kitchen
import torch
from bitsandbytes import functional
from comfy_kitchen.backends.eager import quantization as eager
from optimum import quanto
from safetensors.torch import save_file

from paths import REPOSITORY

FOLDER = REPOSITORY / "crates" / "weights" / "tests" / "fixtures" / "quantized"
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def text(value: object) -> torch.Tensor:
    """JSON as ComfyUI stores it in a tensor."""
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def save(name: str, tensors: dict, expected: dict, metadata: dict | None = None) -> None:
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, FOLDER / f"{name}.safetensors", metadata)
    expected = {name: value.float().clone().contiguous() for name, value in expected.items()}
    save_file(expected, FOLDER / f"{name}.expected.safetensors")
    for tensor, value in expected.items():
        assert tensor == "bias" or name == "float8" or (value.isfinite().all() and value.std() > 0), tensor


def float8() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    tensors = {"e4m3": every.view(E4M3), "e5m2": every.view(E5M2)}
    save("float8", tensors, {name: value.float() for name, value in tensors.items()})


def bitsandbytes_forms() -> None:
    tensors, expected = {"bias": torch.zeros(3).bfloat16()}, {"bias": torch.zeros(3)}
    for name, shape, kind, nested, block in [
        ("nested", (6, 128), "nf4", True, 64),
        ("deep", (258, 32), "nf4", True, 32),
        ("flat", (5, 128), "fp4", False, 128),
        ("convolution", (8, 4, 2, 2), "nf4", False, 64),
        ("long", (3, 1024), "nf4", False, 512),
    ]:
        weight = torch.randn(shape) * 0.1
        packed, state = functional.quantize_4bit(weight, blocksize=block, compress_statistics=nested, quant_type=kind)
        tensors[f"{name}.weight"] = packed
        tensors |= {f"{name}.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        expected[f"{name}.weight"] = functional.dequantize_4bit(packed, state)
    quantized, scales, _ = functional.int8_vectorwise_quant(torch.randn(6, 32, dtype=torch.float16) * 0.1)
    tensors |= {"eight.weight": quantized, "eight.SCB": scales, "eight.weight_format": torch.tensor(0, dtype=torch.uint8)}
    expected["eight.weight"] = functional.int8_vectorwise_dequant(quantized, scales)
    save("bitsandbytes", tensors, expected)


def scaled_float8() -> None:
    """The older form of ComfyUI."""
    weight = (torch.randn(6, 40) * 100).to(E4M3)
    scale = torch.tensor(0.0123)
    prefix = "model.diffusion_model."
    tensors = {
        f"{prefix}scaled_fp8": torch.zeros(2, dtype=E4M3),
        f"{prefix}a.weight": weight,
        f"{prefix}a.scale_weight": scale,
        f"{prefix}a.scale_input": torch.tensor(2.0),
        f"{prefix}b.weight": weight,
    }
    expected = {f"{prefix}a.weight": weight.float() * scale, f"{prefix}b.weight": weight.float()}
    save("scaled_fp8", tensors, expected)


def comfy() -> None:
    tensors, expected, layers = {}, {}, {}

    def add(name: str, layer: dict, weight: torch.Tensor, value: torch.Tensor, **beside: torch.Tensor) -> None:
        tensors[f"{name}.weight"] = weight
        tensors.update({f"{name}.{key}": value for key, value in beside.items()})
        expected[f"{name}.weight"] = value
        layers[name] = layer

    number = torch.tensor(0.0321)
    weight = (torch.randn(6, 64) * 90).to(E4M3)
    value = eager.dequantize_per_tensor_fp8(weight, number, torch.float32)
    add("fp8", {"format": "float8_e4m3fn"}, weight, value, weight_scale=number, input_scale=torch.tensor(1.5))
    rows = torch.rand(6) * 0.01
    weight = (torch.randn(6, 64) * 90).to(E5M2)
    add("rows", {"format": "float8_e5m2"}, weight, weight.float() * rows[:, None], weight_scale=rows)
    quantized = torch.randint(-127, 128, (3, 256), dtype=torch.int8)
    value = eager.dequantize_int8_simple(quantized, number)
    add("int8", {"format": "int8_tensorwise"}, quantized, value, weight_scale=number)
    rows = torch.rand(3, 1) * 0.01
    for size in [64, 256]:
        layer = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": size}
        value = eager.dequantize_int8_convrot_weight(quantized, rows, size)
        add(f"rotated{size}", layer, quantized, value, weight_scale=rows)
    for name, shape in [("mxfp8", (160, 32)), ("mxfp8_wide", (32, 160))]:
        quantized, scales = comfy_kitchen.quantize_mxfp8(torch.randn(shape), pad_32x=False)
        value = eager.dequantize_mxfp8(quantized, scales, torch.float32)
        add(name, {"format": "mxfp8"}, quantized, value, weight_scale=scales.view(torch.uint8))
    whole = torch.tensor(0.004)
    for name, shape in [("nvfp4", (144, 32)), ("nvfp4_wide", (16, 96))]:
        quantized, scales = comfy_kitchen.quantize_nvfp4(torch.randn(shape), whole)
        value = eager.dequantize_nvfp4(quantized, whole, scales, torch.float32)
        add(name, {"format": "nvfp4"}, quantized, value, weight_scale=scales, weight_scale_2=whole)
    described = {f"{name}.comfy_quant": text(layer) for name, layer in layers.items()}
    save("comfy", tensors | described, expected)
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, FOLDER / "comfy.metadata.safetensors", metadata)


def black_forest_labs() -> None:
    """nvfp4 with scales row after row and the first value in the low bits, and 8-bit floats with scales by rows."""
    levels = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    levels = torch.cat([levels, -levels])
    bits = torch.randint(0, 16, (10, 64))
    scales = (torch.rand(10, 4) * 100).to(E4M3)
    whole = torch.tensor(0.0007)
    value = levels[bits] * (whole * scales.float()).repeat_interleave(16, 1)
    packed = (bits[:, 0::2] | bits[:, 1::2] << 4).to(torch.uint8)
    weight, rows = (torch.randn(4, 32) * 90).to(E4M3), torch.rand(4) * 0.01
    tensors = {
        "a.weight": packed,
        "a.weight_scale": scales,
        "a.weight_scale_2": whole,
        "a.input_scale": torch.tensor(1.0),
        "b.weight": weight,
        "b.weight_scale": rows,
    }
    save("bfl", tensors, {"a.weight": value, "b.weight": weight.float() * rows[:, None]})


def quanto_forms() -> None:
    tensors, expected = {}, {}
    for name, kind in [("int", quanto.qint8), ("float", quanto.qfloat8)]:
        layer = torch.nn.Sequential(torch.nn.Linear(32, 6))
        quanto.quantize(layer, weights=kind)
        quanto.freeze(layer)
        state = layer.state_dict()
        tensors |= {f"{name}.{key}": value for key, value in state.items()}
        expected[f"{name}.0.weight"] = layer[0].weight.dequantize().detach()
        expected[f"{name}.0.bias"] = layer[0].bias.detach()
    save("quanto", tensors, expected)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    torch.manual_seed(92)
    float8()
    bitsandbytes_forms()
    scaled_float8()
    comfy()
    black_forest_labs()
    quanto_forms()
    for file in sorted(FOLDER.iterdir()):
        print(f"quantized/{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
