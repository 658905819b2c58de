"""Whether a fixture can tell a right network from a wrong one: healthy outputs, and no input or weight without effect."""

from collections.abc import Callable

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]


def describe(title: str, tensors: Tensors) -> None:
    """Prints the shape and the distribution of each tensor, and refuses flat or wild ones."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            print(f"  {title} {name} {list(tensor.shape)}")
            continue
        std, largest = tensor.std().item(), tensor.abs().max().item()
        print(f"  {title} {name} {list(tensor.shape)} mean {tensor.mean():.3f} std {std:.3f} largest {largest:.2f}")
        assert torch.isfinite(tensor).all() and std > 0.02 and largest < 1000, f"{title} {name} is degenerate"


@torch.no_grad()
def check_inputs(forward: Callable[..., torch.Tensor], inputs: Tensors) -> None:
    """Changes each input a little in turn and refuses one that does not show in the output."""
    generator = torch.Generator("cpu").manual_seed(99)
    expected = forward(**inputs)
    for name, value in inputs.items():
        if value.is_floating_point():
            changed = value + 0.1 * value.std() * torch.randn(value.shape, generator=generator)
        else:
            changed = value.clone()
            changed[:, 1] -= 1
        change = (forward(**{**inputs, name: changed}) - expected).std() / expected.std()
        print(f"    a change of {name} changes the output by {100 * change:.2f} % of its spread")
        assert change > 1e-3, name


def check_weights(model: nn.Module, output: torch.Tensor) -> None:
    """Names the weights that the output does not depend on."""
    generator = torch.Generator("cpu").manual_seed(98)
    model.zero_grad()
    (output * torch.randn(output.shape, generator=generator)).sum().backward()
    size = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in model.named_parameters()}
    idle = [name for name, gradient in size.items() if gradient < 1e-4]
    print(f"    {len(size)} weights, without effect: {', '.join(idle) or 'none'}")
    model.zero_grad()
