"""The noise of stable-diffusion-webui's generator `NV`, which imitates torch's on NVIDIA GPUs: `philox.safetensors`.

An implementation in numpy from the paper (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) and from
cuRAND's layout of counter and key. It is checked against the known answers of Random123 and against the numbers in the
documentation of webui's `modules/rng_philox.py`.
"""

import numpy as np
from safetensors.numpy import save_file

from paths import PIPELINE

# Shapes of latents, and of few numbers; each is drawn several times one after another.
CASES = [(0, 12), (42, 1), (42, 4 * 64 * 64), (2**32 + 5, 64), (2**64 - 1, 4 * 8 * 8)]
DRAWS = 3


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of each column of `counter` [4, n]."""
    mask, key = np.uint64(0xFFFFFFFF), [np.uint64(part) for part in key]
    c = [row.astype(np.uint64) for row in counter]
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(q >> np.uint64(32)) ^ c[1] ^ key[0], q & mask, (p >> np.uint64(32)) ^ c[3] ^ key[1], p & mask]
        key = [(key[0] + np.uint64(0x9E3779B9)) & mask, (key[1] + np.uint64(0xBB67AE85)) & mask]
    return np.stack(c)


def randn(seed: int, draw: int, count: int) -> np.ndarray:
    counter = np.zeros((4, count), np.uint64)
    counter[0], counter[2] = draw, np.arange(count)
    first, second, *_ = philox(counter, (seed & 0xFFFFFFFF, seed >> 32)).astype(np.float64)
    unit, turn = (float(np.float32(value)) for value in (2.3283064e-10, 2.3283064e-10 * 6.2831855))
    radius = np.sqrt(-2 * np.log(first * unit + unit / 2))
    return (radius * np.sin(second * turn + turn / 2)).astype(np.float32)


def main() -> None:
    pi = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [0x03707344]])
    answers = [
        (np.zeros((4, 1)), (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (np.full((4, 1), 0xFFFFFFFF), (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi, (0xA4093822, 0x299F31D0), [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ]
    for counter, key, expected in answers:
        assert philox(counter, key)[:, 0].tolist() == expected
    documented = [
        -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709,
        -1.07454231, -0.36314407, -1.67105067, 2.26550497,
    ]
    # The documentation has the digits of a GPU, whose logarithm and sine are those of 32 bits.
    assert np.abs(randn(0, 0, 12) - documented).max() < 5e-7
    many = randn(1, 0, 1_000_000)
    assert abs(many.mean()) < 0.005 and abs(many.std() - 1) < 0.005
    tensors = {
        f"seed{seed}_n{count}_draw{draw}": randn(seed, draw, count) for seed, count in CASES for draw in range(DRAWS)
    }
    save_file(tensors, PIPELINE / "philox.safetensors")
    print(f"{len(tensors)} draws")


if __name__ == "__main__":
    main()
