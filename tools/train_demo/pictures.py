"""Pictures and captions in shared memory, filled by worker processes while training already goes on."""

import mmap
import os
import random
import time

import numpy as np

from draw import SIDE, render
from language import caption, lexicon, random_landscape, random_shapes
from text import LENGTH, Tokenizers

CAPTIONS = 6
CHUNK = 250


def shared(shape: tuple[int, ...], kind) -> np.ndarray:
    """An array that forked processes share."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype=kind).reshape(shape)


class Pictures:
    """`count` pictures with `CAPTIONS` captions each, the same for the same seed. Make it before CUDA starts."""

    def __init__(self, count: int, seed: int, workers: int):
        self.count, self.seed = count, seed
        self.tokenizers = Tokenizers(lexicon())
        self.pixels = shared((count, SIDE, SIDE, 3), np.uint8)
        self.ids = shared((3, count, CAPTIONS, LENGTH), np.int16)
        self.done = shared((count // CHUNK,), np.uint8)
        for worker in range(workers):
            if os.fork() == 0:
                os.nice(5)
                for chunk in range(worker, count // CHUNK, workers):
                    self.fill(chunk)
                os._exit(0)

    def fill(self, chunk: int) -> None:
        rng = random.Random(self.seed * 1_000_003 + chunk)
        for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
            scene = random_shapes(rng, held_out=False) if rng.random() < 0.6 else random_landscape(rng)
            self.pixels[index] = render(scene, rng)
            for k in range(CAPTIONS):
                for which, row in enumerate(self.tokenizers.ids(caption(rng, scene))):
                    self.ids[which, index, k] = row
        self.done[chunk] = 1

    def ready(self) -> int:
        """How many pictures at the beginning are finished."""
        missing = np.flatnonzero(self.done == 0)
        return (missing[0] if len(missing) else len(self.done)) * CHUNK

    def wait(self, count: int) -> None:
        while self.ready() < count:
            time.sleep(0.2)
