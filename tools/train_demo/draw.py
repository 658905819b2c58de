"""Images of scenes: drawn four times too large and averaged, so that edges are sharp and smooth."""

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from language import COLOURS, Group, Landscape, Shapes

SIDE = 256
OVERSAMPLING = 4
CANVAS = SIDE * OVERSAMPLING
RADII = {"small": 0.095, "medium": 0.175, "large": 0.29}


def polygon_of(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """The outline of a shape of radius `r` around a point; circle and ring are not polygons."""
    def turned(radii, start):
        step = 2 * math.pi / len(radii)
        return [(x + q * math.cos(start + i * step), y + q * math.sin(start + i * step)) for i, q in enumerate(radii)]

    if shape == "square":
        s = 0.9 * r
        return [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
    if shape == "triangle":
        return [(x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)]
    if shape == "diamond":
        return [(x, y - 1.1 * r), (x + 0.75 * r, y), (x, y + 1.1 * r), (x - 0.75 * r, y)]
    if shape == "star":
        return turned([1.1 * r, 0.45 * r] * 5, -math.pi / 2)
    if shape == "cross":
        a, b = r, 0.34 * r
        return [(x - b, y - a), (x + b, y - a), (x + b, y - b), (x + a, y - b), (x + a, y + b), (x + b, y + b),
                (x + b, y + a), (x - b, y + a), (x - b, y + b), (x - a, y + b), (x - a, y - b), (x - b, y - b)]
    if shape == "heart":
        points = []
        for i in range(80):
            t = 2 * math.pi * i / 80
            points.append((x + r * math.sin(t) ** 3 * 1.05,
                           y - r * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15.5))
        return points
    raise ValueError(shape)


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, colour, background) -> None:
    """One shape, in pixels of the canvas."""
    if shape in ("circle", "ring"):
        draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
        if shape == "ring":
            q = 0.58 * r
            draw.ellipse([x - q, y - q, x + q, y + q], fill=background)
    else:
        draw.polygon(polygon_of(shape, x, y, r), fill=colour)


def layout(group: Group) -> list[tuple[float, float, float]]:
    """Centre and radius of each shape of a group, as shares of the image's side."""
    r = RADII[group.size]
    if group.count == 1:
        x = 0.5 + (0.5 - r - 0.055) * (("right" in group.position) - ("left" in group.position))
        y = 0.5 + (0.5 - r - 0.055) * (("bottom" in group.position) - ("top" in group.position))
        return [(x, y, r)]
    r = {"small": 0.065, "medium": 0.105, "large": 0.14}[group.size]
    d = {"small": 0.14, "medium": 0.19, "large": 0.22}[group.size]
    places = {
        2: [(-d, 0), (d, 0)],
        3: [(0, -d), (-d, d), (d, d)],
        4: [(-d, -d), (d, -d), (-d, d), (d, d)],
        5: [(-1.35 * d, -1.35 * d), (1.35 * d, -1.35 * d), (0, 0), (-1.35 * d, 1.35 * d), (1.35 * d, 1.35 * d)],
    }[group.count]
    return [(0.5 + x, 0.5 + y, r) for x, y in places]


def placed(scene: Shapes) -> list[tuple[Group, float, float, float]]:
    """Every shape of an image with its centre and radius, those in front last."""
    if not scene.relation:
        return [(scene.groups[0], *place) for place in layout(scene.groups[0])]
    first, second = scene.groups
    r, d = 0.155, 0.23
    if scene.relation == "inside":
        return [(second, 0.5, 0.5, 0.34), (first, 0.5, 0.5, 0.115)]
    x, y = {"left of": (-d, 0), "right of": (d, 0), "above": (0, -d), "below": (0, d)}[scene.relation]
    return [(first, 0.5 + x, 0.5 + y, r), (second, 0.5 - x, 0.5 - y, r)]


def draw_shapes(scene: Shapes, rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (CANVAS, CANVAS), COLOURS[scene.background])
    draw = ImageDraw.Draw(image)
    dx, dy, scale = rng.uniform(-0.012, 0.012), rng.uniform(-0.012, 0.012), rng.uniform(0.96, 1.04)
    behind = scene.background
    for group, x, y, r in placed(scene):
        draw_shape(draw, group.shape, (x + dx) * CANVAS, (y + dy) * CANVAS, r * scale * CANVAS,
                   COLOURS[group.colour], COLOURS[behind])
        if scene.relation == "inside":
            behind = group.colour
    return image


def gradient(top, bottom, height: int = CANVAS, width: int = CANVAS) -> Image.Image:
    """A vertical blend of two colours."""
    t = np.linspace(0, 1, height)[:, None]
    column = np.asarray(top) * (1 - t) + np.asarray(bottom) * t
    return Image.fromarray(np.broadcast_to(column[:, None, :], (height, width, 3)).round().astype(np.uint8))


def mixed(a, b, share):
    return tuple(int(round(x * (1 - share) + y * share)) for x, y in zip(a, b))


SKIES = {"day": ((86, 160, 235), (205, 232, 250)), "sunset": ((92, 60, 130), (255, 170, 90)), "night": ((12, 16, 48), (44, 56, 110))}
LIGHT = {"day": ((255, 255, 255), 0.0), "sunset": ((150, 60, 70), 0.30), "night": ((8, 12, 40), 0.62)}


def draw_landscape(scene: Landscape) -> Image.Image:
    rng = random.Random(scene.seed)
    top, bottom = SKIES[scene.time]
    image = gradient(top, bottom)
    draw = ImageDraw.Draw(image)
    tint, share = LIGHT[scene.time]

    def lit(colour, extra=0.0):
        return mixed(colour, tint, max(0.0, min(1.0, share + extra)))

    def u(value):
        return value * CANVAS

    horizon = {"mountains": 0.70, "hills": 0.62, "sea": 0.56, "lake": 0.60}[scene.land]
    light_x = rng.uniform(0.22, 0.78)
    light_y = {"day": rng.uniform(0.14, 0.24), "sunset": horizon - rng.uniform(0.05, 0.11), "night": rng.uniform(0.14, 0.24)}[scene.time]
    if scene.land in ("mountains", "lake") and scene.time == "sunset":
        light_y -= 0.12
    if scene.stars:
        for _ in range(26):
            x, y, r = rng.random(), rng.random() * (horizon - 0.1), rng.choice([0.005, 0.006, 0.008])
            draw.ellipse([u(x - r), u(y - r), u(x + r), u(y + r)], fill=(245, 245, 225))
    if scene.time != "night" or scene.moon:
        r = {"day": 0.07, "sunset": 0.095, "night": 0.07}[scene.time]
        glow = {"day": (255, 243, 190), "sunset": (255, 214, 130), "night": (70, 80, 130)}[scene.time]
        sky = mixed(top, bottom, light_y)
        for ring, strength in ((1.9, 0.25), (1.45, 0.5)):
            q = r * ring
            draw.ellipse([u(light_x - q), u(light_y - q), u(light_x + q), u(light_y + q)], fill=mixed(sky, glow, strength))
        colour = {"day": (255, 226, 70), "sunset": (255, 236, 150), "night": (248, 245, 220)}[scene.time]
        draw.ellipse([u(light_x - r), u(light_y - r), u(light_x + r), u(light_y + r)], fill=colour)
    if scene.clouds:
        white = {"day": (255, 255, 255), "sunset": (255, 205, 170)}[scene.time]
        for _ in range(rng.choice([2, 3])):
            x, y, s = rng.uniform(0.08, 0.92), rng.uniform(0.08, 0.30), rng.uniform(0.05, 0.07)
            for ox, oy, q in ((-1.3, 0.25, 0.7), (-0.5, -0.2, 1.0), (0.6, -0.05, 0.9), (1.4, 0.3, 0.65)):
                draw.ellipse([u(x + ox * s - q * s), u(y + oy * s - q * s), u(x + ox * s + q * s), u(y + oy * s + q * s)], fill=white)
            draw.rectangle([u(x - 1.6 * s), u(y + 0.3 * s), u(x + 1.7 * s), u(y + 0.92 * s)], fill=white)

    if scene.land in ("mountains", "lake"):
        for layer, (base, height, far) in enumerate(((horizon + 0.02, 0.36, 0.42), (horizon + 0.02, 0.24, 0.12))):
            colour = lit(mixed((84, 98, 128), bottom, far))
            offset = rng.uniform(-0.08, 0.08)
            for k in range(3):
                x = 0.17 + 0.33 * k + offset + 0.16 * layer
                peak = base - height * rng.uniform(0.75, 1.0)
                half = 0.29 - 0.05 * layer
                draw.polygon([(u(x - half), u(base)), (u(x), u(peak)), (u(x + half), u(base))], fill=colour)
                cap = 0.27
                snow = lit((250, 250, 255), -0.15)
                y, w = peak + cap * (base - peak), half * cap
                draw.polygon([(u(x), u(peak)), (u(x + w), u(y)), (u(x + 0.4 * w), u(y - 0.025)), (u(x), u(y + 0.015)),
                              (u(x - 0.45 * w), u(y - 0.025)), (u(x - w), u(y))], fill=snow)
    ground = lit((92, 165, 80))
    shore = 1.2
    if scene.land in ("sea", "lake"):
        near, distant = ((28, 110, 190), (90, 170, 225)) if scene.time != "sunset" else ((70, 70, 140), (235, 140, 110))
        water = gradient(lit(distant, -0.1), lit(near), CANVAS - int(u(horizon)))
        image.paste(water, (0, int(u(horizon))))
        draw = ImageDraw.Draw(image)
        if scene.time != "day" and (scene.time != "night" or scene.moon):
            shine = {"sunset": (255, 220, 150), "night": (200, 205, 215)}[scene.time]
            for k in range(6):
                y, w = horizon + 0.03 + 0.05 * k, 0.05 + 0.012 * k
                draw.rectangle([u(light_x - w), u(y), u(light_x + w), u(y + 0.012)], fill=mixed(lit(near), shine, 0.8))
        shore = 0.86
        sand = lit((238, 214, 160)) if scene.land == "sea" else ground
        draw.ellipse([u(-0.5), u(shore - 0.03), u(1.5), u(shore + 0.9)], fill=sand)
    elif scene.land == "mountains":
        draw.ellipse([u(-0.6), u(horizon - 0.01), u(1.6), u(horizon + 1.2)], fill=ground)
        shore = horizon + 0.12
    else:
        for x, y, far in ((0.80, horizon - 0.05, 0.35), (0.15, horizon, 0.18), (0.65, horizon + 0.12, 0.0)):
            draw.ellipse([u(x - 0.75), u(y), u(x + 0.75), u(y + 1.1)], fill=mixed(ground, bottom, far * 0.6))
        shore = horizon + 0.20

    if scene.boat:
        x = rng.uniform(0.3, 0.5) if scene.house or scene.trees else rng.uniform(0.3, 0.7)
        y, s = horizon + 0.13, 0.13
        draw.line([(u(x), u(y)), (u(x), u(y - 1.55 * s))], fill=lit((90, 60, 40)), width=int(u(0.010)))
        sail = lit(COLOURS[scene.boat], -0.3)
        draw.polygon([(u(x + 0.1 * s), u(y - 1.5 * s)), (u(x + 0.95 * s), u(y - 0.2 * s)), (u(x + 0.1 * s), u(y - 0.2 * s))], fill=sail)
        draw.polygon([(u(x - 0.1 * s), u(y - 1.25 * s)), (u(x - 0.7 * s), u(y - 0.2 * s)), (u(x - 0.1 * s), u(y - 0.2 * s))], fill=mixed(sail, (255, 255, 255), 0.35))
        draw.polygon([(u(x - s), u(y - 0.05 * s)), (u(x + 1.05 * s), u(y - 0.05 * s)), (u(x + 0.7 * s), u(y + 0.4 * s)), (u(x - 0.65 * s), u(y + 0.4 * s))], fill=lit((120, 70, 40)))
    house_x = rng.uniform(0.62, 0.78)
    if scene.house:
        x, y, s = house_x, shore + 0.02, 0.10
        wall, roof = lit(COLOURS[scene.house]), lit((110, 55, 45) if scene.house not in ("brown", "red") else (70, 70, 85))
        draw.rectangle([u(x - s), u(y - 1.1 * s), u(x + s), u(y + 0.35 * s)], fill=wall)
        draw.polygon([(u(x - 1.25 * s), u(y - 1.1 * s)), (u(x), u(y - 2.0 * s)), (u(x + 1.25 * s), u(y - 1.1 * s))], fill=roof)
        window = (255, 225, 120) if scene.time != "day" else (200, 230, 250)
        draw.rectangle([u(x - 0.7 * s), u(y - 0.75 * s), u(x - 0.2 * s), u(y - 0.25 * s)], fill=window)
        draw.rectangle([u(x + 0.15 * s), u(y - 0.6 * s), u(x + 0.65 * s), u(y + 0.35 * s)], fill=lit((80, 50, 35)))
    spots = [0.14, 0.30, 0.44, 0.05, 0.93] if scene.house else [0.2, 0.75, 0.36, 0.9, 0.06]
    if scene.boat:
        spots = [0.10, 0.93]
    for k in range(scene.trees):
        x, y = spots[k] + rng.uniform(-0.02, 0.02), shore + rng.uniform(0.0, 0.05)
        h = rng.uniform(0.20, 0.25)
        draw.rectangle([u(x - 0.012), u(y - 0.3 * h), u(x + 0.012), u(y + 0.02)], fill=lit((105, 70, 45)))
        green = lit((40, 120, 70) if scene.tree_style == "pine" else (60, 140, 60))
        if scene.tree_style == "pine":
            for step, w in ((0.18, 0.36), (0.42, 0.29), (0.66, 0.21)):
                draw.polygon([(u(x - w * h), u(y - step * h)), (u(x + w * h), u(y - step * h)), (u(x), u(y - (step + 0.42) * h))], fill=green)
        else:
            r = 0.34 * h
            draw.ellipse([u(x - r), u(y - 0.25 * h - 2 * r), u(x + r), u(y - 0.25 * h)], fill=green)
    return image


def render(scene: Shapes | Landscape, rng: random.Random) -> np.ndarray:
    """The image of `scene`, `[256, 256, 3]` bytes."""
    image = draw_shapes(scene, rng) if scene.kind == "shapes" else draw_landscape(scene)
    return np.asarray(image.reduce(OVERSAMPLING))
