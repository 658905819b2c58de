"""An image, resampled by Pillow to other sizes, and its Canny edges by OpenCV."""

import cv2
import numpy
from PIL import Image
from safetensors.numpy import save_file

from paths import PIPELINE

SIZES = [(97, 64), (45, 71), (20, 13), (45, 64), (160, 31)]


def example() -> numpy.ndarray:
    """Rows of bytes with soft and hard edges in every direction, 45 pixels wide and 31 high, and some noise."""
    generator = numpy.random.default_rng(91)
    rows, columns = numpy.mgrid[0:31, 0:45]
    wave = 127 + 90 * numpy.sin(columns / 5 + rows / 9)
    disc = numpy.where((rows - 14) ** 2 + (columns - 20) ** 2 < 90, 230, 30)
    steps = numpy.where(rows + 2 * columns > 70, 200, 60) + 40 * (rows // 8 % 2)
    noise = generator.integers(-12, 13, (31, 45, 3))
    return numpy.clip(numpy.stack([wave, disc, steps], 2) + noise, 0, 255).astype(numpy.uint8)


def main() -> None:
    image = example()
    tensors = {"picture": image}
    for width, height in SIZES:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
        tensors[f"resized_{width}x{height}"] = numpy.asarray(resized)
    large = numpy.asarray(Image.fromarray(image).resize((150, 110), Image.Resampling.BICUBIC))
    tensors["large"] = large
    for name, source in {"edges": image, "edges_of_large": large}.items():
        edges = cv2.Canny(source, 100, 200)
        share = (edges > 0).mean()
        print(f"{name}: {100 * share:.1f} % of {edges.shape} on an edge")
        assert 0.02 < share < 0.5
        tensors[name] = edges
    tensors["edges_of_more"] = cv2.Canny(large, 20, 60)
    save_file({name: numpy.ascontiguousarray(value) for name, value in tensors.items()}, PIPELINE / "resampling.safetensors")


if __name__ == "__main__":
    main()
