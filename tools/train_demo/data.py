"""Draws the training images on every CPU core, each with several captions as token ids."""

import mmap
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import torch

from draw import SIDE, render
from language import Shapes, caption, random_landscape, random_shapes
from networks import TEXT_LENGTH
from text import Tokenizers

CAPTIONS = 8
CHUNK = 200
LANDSCAPES = 0.4
HARD_SHAPES = ("star", "ring", "cross")
EASY_DROPPED = 0.45
_worker = {}


def _begin(folder: str, seed: int) -> None:
    """What a worker process needs before its first chunk."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(10)
    torch.set_num_threads(1)
    _worker.update(seed=seed, tokenizers=Tokenizers(Path(folder)))


def _training_shapes(rng: random.Random) -> Shapes:
    """An image of shapes, more often one with thin or small parts, whose outlines are learnt last."""
    while True:
        scene = random_shapes(rng, held_out=False)
        hard = any(group.shape in HARD_SHAPES or group.size == "small" for group in scene.groups) or scene.relation == "inside"
        if hard or rng.random() >= EASY_DROPPED:
            return scene


def _draw_chunk(start: int) -> int:
    """Draws the images from `start` on into the shared memory."""
    texts = []
    for index in range(start, start + CHUNK):
        rng = random.Random(f"{_worker['seed']} {index}")
        scene = random_landscape(rng) if rng.random() < LANDSCAPES else _training_shapes(rng)
        _shared["images"][index] = render(scene, rng).transpose(2, 0, 1)
        texts += [caption(rng, scene) for _ in range(CAPTIONS)]
    _shared["ids"][start:start + CHUNK] = _worker["tokenizers"](texts).reshape(CHUNK, CAPTIONS, 3, TEXT_LENGTH)
    return start


_shared = {}


def _shared_array(shape: tuple[int, ...], kind) -> np.ndarray:
    """An array that forked processes share."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype=kind).reshape(shape)


class Images:
    """Images `[n, 3, 256, 256]` in bytes on the device and ids `[n, 8, 3, 32]`, filled in the background.

    Make it before the first use of the device: the workers are forked.
    """

    def __init__(self, number: int, folder: Path, seed: int, workers: int | None = None):
        self.number = number // CHUNK * CHUNK
        self.ready = 0
        _shared["images"] = _shared_array((self.number, 3, SIDE, SIDE), np.uint8)
        _shared["ids"] = _shared_array((self.number, CAPTIONS, 3, TEXT_LENGTH), np.int16)
        self._pool = multiprocessing.get_context("fork").Pool(workers or os.cpu_count(), _begin, (str(folder), seed))
        self._chunks = self._pool.imap(_draw_chunk, range(0, self.number, CHUNK))
        self._thread = None

    def load(self, device: str) -> None:
        """Begins to move what is drawn to `device`."""
        self.images = torch.empty((self.number, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
        self.ids = torch.empty((self.number, CAPTIONS, 3, TEXT_LENGTH), dtype=torch.int16, device=device)
        self._thread = threading.Thread(target=self._move, daemon=True)
        self._thread.start()

    def _move(self) -> None:
        for start in self._chunks:
            stop = start + CHUNK
            self.images[start:stop] = torch.from_numpy(_shared["images"][start:stop]).to(self.images.device)
            self.ids[start:stop] = torch.from_numpy(_shared["ids"][start:stop]).to(self.ids.device)
            self.ready = stop
        self._pool.terminate()

    def wait(self, number: int) -> None:
        """Returns when the first `number` images are there."""
        while self.ready < min(number, self.number):
            if not self._thread.is_alive():
                raise RuntimeError(f"drawing stopped after {self.ready} images")
            time.sleep(0.2)

    def some(self, size: int, of: int) -> torch.Tensor:
        """The numbers of random images, of the first so many."""
        return torch.randint(of, (size,), device=self.images.device)

    def at(self, index: torch.Tensor) -> torch.Tensor:
        """These images, from -1 to 1."""
        return self.images[index].float() / 127.5 - 1
