"""`torch.randn` on an x86 CPU, bit by bit, in numpy; run it to compare it with torch itself.

Facts and constants only: MT19937 of Matsumoto and Nishimura, the transformation of Box and Muller, and the
polynomials of S. Moshier's Cephes library (`logf`, `sinf`, `cosf`), as torch's vector code combines them.
"""

import math

import numpy as np

GROUP = 16
HALF = GROUP // 2
F32 = np.float32


class Stream:
    """The numbers of `torch.Generator("cpu").manual_seed(seed)`."""

    def __init__(self, seed: int):
        # The seeding of 2002, from the lower 32 bits of the seed.
        self.uniform = np.random.RandomState()
        state = [seed & 0xFFFFFFFF]
        for index in range(1, 624):
            state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + index) & 0xFFFFFFFF)
        self.uniform.set_state(("MT19937", np.array(state, dtype=np.uint32), 624))
        self.waiting: float | None = None

    def integers(self, count: int) -> np.ndarray:
        """The next `count` 32-bit numbers."""
        return np.frombuffer(self.uniform.bytes(4 * count), dtype="<u4")

    def rand(self, count: int) -> np.ndarray:
        """`torch.rand(count)`: the lower 24 bits of each number."""
        return (self.integers(count) & 0xFFFFFF).astype(F32) * F32(2.0**-24)

    def randn(self, count: int, fill=None) -> np.ndarray:
        """`torch.randn(count)`. `fill` makes sixteen normal numbers a row of sixteen uniform ones."""
        if count < GROUP:
            return np.array([self._in_64_bits() for _ in range(count)]).astype(F32)
        fill = fill or cephes_fused
        uniform = self.rand(count)
        whole = count - count % GROUP
        result = np.empty(count, F32)
        result[:whole] = fill(uniform[:whole].reshape(-1, GROUP)).reshape(-1)
        if count % GROUP:
            # The last sixteen come from sixteen new uniform numbers, whatever stood there.
            result[-GROUP:] = fill(self.rand(GROUP).reshape(1, GROUP)).reshape(-1)
        return result

    def _in_64_bits(self) -> float:
        if self.waiting is not None:
            value, self.waiting = self.waiting, None
            return value
        upper_1, lower_1, upper_2, lower_2 = (int(number) for number in self.integers(4))
        first = (((upper_1 << 32) | lower_1) & (2**53 - 1)) * 2.0**-53
        second = (((upper_2 << 32) | lower_2) & (2**53 - 1)) * 2.0**-53
        radius = math.sqrt(-2.0 * math.log1p(-second))
        self.waiting = radius * math.sin(2.0 * math.pi * first)
        return radius * math.cos(2.0 * math.pi * first)


def cephes_fused(uniform: np.ndarray) -> np.ndarray:
    """Rows of sixteen: the first eight give the radii, the others the angles, every product that is added fused."""
    return _fill(uniform, lambda x: _log(x, _fused), lambda x: _sincos(x, _fused))


def cephes_plain(uniform: np.ndarray) -> np.ndarray:
    """The same polynomials without fusing."""
    return _fill(uniform, lambda x: _log(x, _separate), lambda x: _sincos(x, _separate))


def correctly_rounded(uniform: np.ndarray) -> np.ndarray:
    """The same formula with functions rounded correctly to 32 bits."""

    def rounded(function):
        return lambda x: function(x.astype(np.float64)).astype(F32)

    return _fill(uniform, rounded(np.log), lambda x: (rounded(np.sin)(x), rounded(np.cos)(x)))


def _fill(uniform: np.ndarray, log, sincos) -> np.ndarray:
    radius = np.sqrt(F32(-2.0) * log(F32(1.0) - uniform[:, :HALF]))
    sine, cosine = sincos(F32(2.0 * math.pi) * uniform[:, HALF:])
    # Adding the mean turns -0 into +0.
    return np.concatenate([radius * cosine, radius * sine], axis=1) + F32(0.0)


def _separate(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return a * b + c


def _fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c rounded once: in 64 bits the product is exact, and the sum is rounded to odd before it is narrowed."""
    product = np.asarray(np.asarray(a, np.float64) * np.asarray(b, np.float64))
    c = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    bits = total.view(np.int64)
    outwards = (error > 0) == (total > 0)
    odd = bits + np.where((error == 0) | (bits & 1 == 1), 0, np.where(outwards, 1, -1))
    return odd.view(np.float64).astype(F32)


def _polynomial(coefficients: list[float], x: np.ndarray, add_product) -> np.ndarray:
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = add_product(result, x, F32(coefficient))
    return result


def _log(x: np.ndarray, add_product) -> np.ndarray:
    bits = x.view(np.uint32)
    exponent = ((bits >> 23).astype(np.int32) - 126).astype(F32)
    x = ((bits & 0x007FFFFF) | 0x3F000000).view(F32)
    small = x < F32(0.707106781186547524)
    exponent = exponent - small.astype(F32)
    x = (x - F32(1.0)) + np.where(small, x, F32(0.0))
    square = x * x
    coefficients = [
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    ]
    y = _polynomial(coefficients, x, add_product) * x
    y = add_product(y, square, exponent * F32(-2.12194440e-4))
    y = y - square * F32(0.5)
    return add_product(exponent, F32(0.693359375), x + y)


def _sincos(angle: np.ndarray, add_product) -> tuple[np.ndarray, np.ndarray]:
    eighths = ((angle * F32(1.27323954473516)).astype(np.int32) + 1) & ~1
    x = angle
    for part in (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8):
        x = add_product(eighths.astype(F32), F32(part), x)
    square = x * x
    cosine = _polynomial([2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2], square, add_product)
    cosine = add_product(cosine * square, square, -(square * F32(0.5))) + F32(1.0)
    sine = _polynomial([-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1], square, add_product) * square
    sine = add_product(sine, x, x)
    swapped = eighths & 2 != 0
    sine, cosine = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    sine = np.where(eighths & 4 != 0, -sine, sine)
    cosine = np.where(~(eighths - 2) & 4 != 0, -cosine, cosine)
    return sine, cosine


def main() -> None:
    import torch

    def differing(fill, seeds: range, count: int) -> str:
        wrong, largest = 0, 0
        for seed in seeds:
            expected = torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
            found = Stream(seed).randn(count, fill)
            distance = np.abs(expected.view(np.int32).astype(np.int64) - found.view(np.int32))
            wrong, largest = wrong + np.count_nonzero(distance), max(largest, int(distance.max()))
        return f"{wrong} of {count * len(seeds)} differ, by at most {largest} units in the last place"

    print("CPU:", torch.backends.cpu.get_cpu_capability())
    for fill in (cephes_fused, cephes_plain, correctly_rounded):
        print(f"{fill.__name__}: {differing(fill, range(8), 1_000_003)}")
    print(f"fewer than sixteen: {differing(None, range(2000), 15)}")
    mixed = [5, 16, 3, 17, 1, 1, 40, 15, 100]
    for seed in (0, 42, 2**32 - 1, 2**40 + 7):
        stream, generator = Stream(seed), torch.Generator("cpu").manual_seed(seed)
        same = all(np.array_equal(stream.randn(n), torch.randn(n, generator=generator).numpy()) for n in mixed)
        uniform = np.array_equal(stream.rand(99), torch.rand(99, generator=generator).numpy())
        print(f"seed {seed}: draws of {mixed} in turn are {'equal' if same and uniform else 'NOT EQUAL'}")
    low = torch.randn(16, generator=torch.Generator("cpu").manual_seed(7))
    high = torch.randn(16, generator=torch.Generator("cpu").manual_seed(2**40 + 7))
    print("seeds 7 and 2**40 + 7 give", "the same" if torch.equal(low, high) else "different", "numbers")


if __name__ == "__main__":
    main()
