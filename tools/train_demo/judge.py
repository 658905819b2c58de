"""Looks at an image of shapes in code: colours, counts, places, sizes, forms and background."""

import functools

import numpy as np
from scipy import ndimage
from PIL import Image, ImageDraw

from draw import SIDE, draw_shape, placed
from language import COLOURS, SHAPES, Shapes

NAMES = list(COLOURS)
PALETTE = np.array([COLOURS[name] for name in NAMES], dtype=np.float32)
FARTHEST_COLOUR = 45.0
SMALLEST_AREA = 60
FARTHEST_PLACE = 0.075
AREA_RATIO = (0.72, 1.4)
LEAST_OVERLAP = 0.82
TEMPLATE = 64


@functools.cache
def template(shape: str) -> np.ndarray:
    """A shape's mask, `[64, 64]`, around its centroid and of one quarter of the square's area."""
    image = Image.new("L", (512, 512), 0)
    draw_shape(ImageDraw.Draw(image), shape, 256, 256, 130, 255, 0)
    return normalised(np.asarray(image) > 127)


def normalised(mask: np.ndarray) -> np.ndarray:
    """A mask moved and scaled so that masks of the same form are equal."""
    rows, columns = np.nonzero(mask)
    scale = np.sqrt(len(rows)) / (TEMPLATE / 2)
    steps = (np.arange(TEMPLATE) - (TEMPLATE - 1) / 2) * scale
    down = np.clip(np.rint(rows.mean() + steps), -1, mask.shape[0]).astype(int)
    across = np.clip(np.rint(columns.mean() + steps), -1, mask.shape[1]).astype(int)
    padded = np.pad(mask, 1)
    return padded[np.ix_(down + 1, across + 1)]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return np.logical_and(a, b).sum() / max(1, np.logical_or(a, b).sum())


def components(image: np.ndarray, background: str) -> list[tuple[str, np.ndarray]]:
    """The colour and mask of each patch of one colour that is not background."""
    distance = np.linalg.norm(image[:, :, None].astype(np.float32) - PALETTE, axis=-1)
    nearest, solid = distance.argmin(-1), distance.min(-1) < FARTHEST_COLOUR
    found = []
    for number, name in enumerate(NAMES):
        if name == background:
            continue
        kept = ndimage.binary_opening((nearest == number) & solid, np.ones((3, 3)))
        labels, count = ndimage.label(kept)
        for label in range(1, count + 1):
            mask = labels == label
            if mask.sum() >= SMALLEST_AREA:
                found.append((name, mask))
    return found


def background_share(image: np.ndarray, background: str) -> float:
    """How much of the image's border has the background's colour."""
    border = np.concatenate([image[:4].reshape(-1, 3), image[-4:].reshape(-1, 3), image[:, :4].reshape(-1, 3),
                             image[:, -4:].reshape(-1, 3)]).astype(np.float32)
    nearest = np.linalg.norm(border[:, None] - PALETTE, axis=-1)
    return float(((nearest.argmin(-1) == NAMES.index(background)) & (nearest.min(-1) < FARTHEST_COLOUR)).mean())


def faults(image: np.ndarray, scene: Shapes, forms: bool = True) -> list[str]:
    """What is wrong with `image`, `[256, 256, 3]` bytes, as an image of `scene`; nothing where it is right.

    Colours, count, places and background always; with `forms` the size and the outline of each object too.
    """
    wrong = []
    if background_share(image, scene.background) < 0.97:
        wrong.append("background")
    found = components(image, scene.background)
    expected = placed(scene)
    if len(found) != len(expected):
        wrong.append(f"{len(found)} objects, not {len(expected)}")
    for group, x, y, radius in expected:
        near = [(np.hypot(*(np.array(ndimage.center_of_mass(mask)) / SIDE - (y, x))), number)
                for number, (colour, mask) in enumerate(found) if colour == group.colour]
        distance, number = min(near, default=(9.0, -1))
        if distance > FARTHEST_PLACE:
            wrong.append(f"no {group.colour} object in its place")
            continue
        mask = found.pop(number)[1]
        if not forms:
            continue
        if scene.relation == "inside" and group is scene.groups[1]:
            mask = ndimage.binary_fill_holes(mask)
        image = Image.new("L", (SIDE * 2, SIDE * 2), 0)
        draw_shape(ImageDraw.Draw(image), group.shape, x * SIDE * 2, y * SIDE * 2, radius * SIDE * 2, 255, 0)
        ratio = mask.sum() / ((np.asarray(image) > 127).sum() / 4)
        if not AREA_RATIO[0] < ratio < AREA_RATIO[1]:
            wrong.append(f"area {ratio:.2f} of the expected")
        form = normalised(mask)
        scores = {shape: overlap(form, template(shape)) for shape in SHAPES}
        best = max(scores, key=scores.get)
        if best != group.shape or scores[best] < LEAST_OVERLAP:
            wrong.append(f"{best} ({scores[best]:.2f}), not {group.shape}")
    return wrong
