"""Random weights under which no part of a network is idle: norms away from one, biases and modulations away from zero."""

import math

import torch
from torch import nn


def randomise(model: nn.Module, seed: int, gains: dict[str, float] | None = None) -> None:
    """Draws every parameter anew. `gains` scales the parameters whose name contains its key."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        scale = math.prod([gain for part, gain in (gains or {}).items() if part in name])
        with torch.no_grad():
            parameter.copy_(_mean(name, parameter) + scale * _spread(name, parameter) * noise)
    model.eval().requires_grad_(True)


def _is_norm(name: str, parameter: nn.Parameter) -> bool:
    return name.endswith(".weight") and parameter.dim() == 1


def _mean(name: str, parameter: nn.Parameter) -> float:
    return 1.0 if _is_norm(name, parameter) else 0.0


def _spread(name: str, parameter: nn.Parameter) -> float:
    if _is_norm(name, parameter):
        return 0.2
    if parameter.dim() < 2:
        return 0.15
    if "embedding.weight" in name or name.endswith(("shared.weight", "relative_attention_bias.weight")):
        return 0.7
    return 1.0 / math.sqrt(parameter[0].numel())
