"""Random numbers of torch on a CPU: `randn.safetensors`."""

import torch
from safetensors.torch import save_file

from paths import PIPELINE

SEEDS = (0, 42, 2**32 - 1, 2**40 + 7)
SIZES = (1, 5, 15, 16, 17, 24, 31, 32, 100, 4096)
SEQUENCES = ((16, 16, 5, 40), (5, 16, 3, 17, 1, 1, 40))


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def main() -> None:
    tensors = {}
    for seed in SEEDS:
        for size in SIZES:
            tensors[f"seed{seed}_n{size}"] = torch.randn(size, generator=generator(seed))
        tensors[f"seed{seed}_uniform_n100"] = torch.rand(100, generator=generator(seed))
        for sequence in SEQUENCES:
            stream = generator(seed)
            name = f"seed{seed}_sequence_{'_'.join(map(str, sequence))}"
            for part, size in enumerate(sequence):
                tensors[f"{name}_part{part}"] = torch.randn(size, generator=stream)
    tensors["seed42_n16384"] = torch.randn(16 * 32 * 32, generator=generator(42))
    PIPELINE.mkdir(parents=True, exist_ok=True)
    save_file(tensors, PIPELINE / "randn.safetensors")
    print(f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors.values())} numbers")


if __name__ == "__main__":
    main()
