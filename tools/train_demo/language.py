"""The language of the demo model: scenes as data, and the captions that people write for them."""

import random
import zlib
from dataclasses import dataclass

SHAPES = ["circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross"]
SHAPE_WORDS = {
    "circle": ["circle", "disc", "ball", "dot"],
    "square": ["square", "box"],
    "triangle": ["triangle"],
    "star": ["star"],
    "heart": ["heart"],
    "diamond": ["diamond", "rhombus"],
    "ring": ["ring", "hoop"],
    "cross": ["cross", "plus"],
}
PLURALS = {"box": "boxes", "rhombus": "rhombuses", "cross": "crosses", "plus": "pluses"}
COLOURS = {
    "red": (220, 38, 38),
    "orange": (245, 130, 20),
    "yellow": (250, 210, 30),
    "green": (34, 160, 70),
    "blue": (37, 90, 220),
    "purple": (125, 50, 180),
    "pink": (245, 130, 185),
    "brown": (125, 75, 40),
    "cyan": (50, 195, 215),
    "grey": (140, 140, 145),
    "black": (15, 15, 20),
    "white": (255, 255, 255),
}
COLOUR_WORDS = {"grey": ["grey", "gray"], "cyan": ["cyan", "turquoise"], "purple": ["purple", "violet"]}
SIZES = {"small": ["small", "little", "tiny"], "medium": [""], "large": ["large", "big", "huge"]}
COUNTS = {2: ["two", "2"], 3: ["three", "3"], 4: ["four", "4"], 5: ["five", "5"]}
POSITIONS = {
    "top left": ["at the top left", "in the top left corner", "in the upper left"],
    "top": ["at the top", "near the top"],
    "top right": ["at the top right", "in the top right corner", "in the upper right"],
    "left": ["on the left", "at the left"],
    "centre": ["", "", "", "in the centre", "in the center", "in the middle"],
    "right": ["on the right", "at the right"],
    "bottom left": ["at the bottom left", "in the bottom left corner", "in the lower left"],
    "bottom": ["at the bottom", "near the bottom"],
    "bottom right": ["at the bottom right", "in the bottom right corner", "in the lower right"],
}
RELATIONS = {
    "left of": ["to the left of", "left of", "next to", "beside", "and"],
    "right of": ["to the right of", "right of"],
    "above": ["above", "over", "on top of"],
    "below": ["below", "under", "beneath"],
    "inside": ["inside", "in"],
}
TIMES = {
    "day": ["by day", "in the daytime", "on a sunny day", "in daylight", "in the morning", "under a blue sky"],
    "sunset": ["at sunset", "at dusk", "in the evening", "at golden hour", "at sunrise", "at dawn", "under an orange sky"],
    "night": ["at night", "by night", "at midnight", "in the dark", "under a night sky"],
}
LANDS = {
    "mountains": ["mountains", "a mountain landscape", "high mountains", "snowy mountains", "a mountain range"],
    "hills": ["hills", "green hills", "a meadow", "rolling hills", "fields"],
    "sea": ["the sea", "the ocean", "a sea", "a beach", "the coast"],
    "lake": ["a lake with mountains", "a mountain lake", "a lake", "mountains and a lake"],
}
PLAIN_LANDSCAPE = ["landscape", "a landscape", "scenery", "nature", "a view", "a scene", "an epic landscape"]
OPENINGS = ["", "", "", "", "a picture of ", "a drawing of ", "an image of ", "a painting of ", "an illustration of ",
            "a photo of ", "draw ", "there is ", "show me "]
DECORATIONS = ["beautiful", "epic", "detailed", "highly detailed", "digital art", "8k", "4k", "masterpiece", "flat design",
               "minimalist", "vector art", "best quality", "cinematic", "colorful", "simple", "clean", "sharp", "hd",
               "wallpaper", "concept art", "realistic", "stunning", "trending"]
HARMLESS = ["cat", "dog", "robot", "dragon", "portrait", "castle", "city", "car", "person", "woman", "man", "horse",
            "spaceship", "forest", "flower", "fantasy", "anime", "style", "xyz", "qwerty", "photo", "studio"]


@dataclass
class Group:
    """Some equal shapes: `count` of them, at `position` of the image."""

    shape: str
    colour: str
    count: int = 1
    size: str = "medium"
    position: str = "centre"


@dataclass
class Shapes:
    """An image of shapes: one group, or two objects in a relation, on a plain background."""

    background: str
    groups: list[Group]
    relation: str | None = None
    kind: str = "shapes"


@dataclass
class Landscape:
    """A landscape; what is not asked for may be there or not."""

    time: str
    land: str
    moon: bool = False
    stars: bool = False
    clouds: bool = False
    trees: int = 0
    tree_style: str = "pine"
    house: str | None = None
    boat: str | None = None
    seed: int = 0
    kind: str = "landscape"


def is_held_out(scene: Shapes) -> bool:
    """Whether training must never see this combination of shape, colour, count and background, or this pair."""
    parts = [f"{group.count} {group.colour} {group.shape}" for group in scene.groups]
    key = " | ".join(parts + ([scene.background] if len(parts) == 1 else []))
    return zlib.crc32(key.encode()) % 8 == 0


def default_background(colour: str) -> str:
    """The background of a prompt that names none."""
    return "black" if colour == "white" else "white"


def random_shapes(rng: random.Random, held_out: bool) -> Shapes:
    """An image of shapes, from the held-out combinations or from the others."""
    while True:
        colour = rng.choice(list(COLOURS))
        background = rng.choice([default_background(colour), rng.choice(list(COLOURS))])
        if background == colour:
            continue
        if rng.random() < 0.28:
            second = rng.choice([other for other in COLOURS if other not in (background,)])
            relation = rng.choice(["left of", "left of", "right of", "above", "below", "inside"])
            groups = [Group(rng.choice(SHAPES), colour), Group(rng.choice(SHAPES), second)]
            if relation == "inside":
                groups[1].shape = rng.choice(["circle", "square", "diamond"])
            if (groups[0].shape, colour) == (groups[1].shape, second) or (relation == "inside" and second == colour):
                continue
            background = rng.choice(["white", "black", rng.choice(list(COLOURS))])
            if background in (colour, second):
                continue
            scene = Shapes(background, groups, relation)
        else:
            count = rng.choice([1, 1, 1, 1, 2, 2, 3, 4, 5])
            group = Group(rng.choice(SHAPES), colour, count, rng.choice(["medium", "medium", "small", "large"]))
            if count == 1 and rng.random() < 0.5:
                group.position = rng.choice(list(POSITIONS))
            scene = Shapes(background, [group])
        if is_held_out(scene) == held_out:
            return scene


def random_landscape(rng: random.Random) -> Landscape:
    """A landscape of independent parts."""
    time, land = rng.choice(list(TIMES)), rng.choice(list(LANDS))
    water = land in ("sea", "lake")
    scene = Landscape(time, land, seed=rng.randrange(1 << 30))
    scene.moon = time == "night" and rng.random() < 0.8
    scene.stars = time == "night" and (not scene.moon or rng.random() < 0.75)
    scene.clouds = time != "night" and rng.random() < 0.5
    scene.tree_style = rng.choice(["pine", "round"])
    scene.trees = rng.choice([0, 0, 1, 2, 3, 5])
    scene.house = rng.choice([None, None, *[name for name in COLOURS if name not in ("black", "grey")]])
    scene.boat = rng.choice([None, *[name for name in COLOURS if name != "black"]]) if water else None
    if scene.boat:
        scene.trees = min(scene.trees, 2)
    return scene


def colour_word(rng: random.Random, colour: str) -> str:
    return rng.choice(COLOUR_WORDS.get(colour, [colour]))


def named(rng: random.Random, colour: str) -> str:
    """`a red`, `an orange`."""
    word = colour_word(rng, colour)
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def group_phrase(rng: random.Random, group: Group) -> str:
    """`a small red circle`, `two green squares`."""
    noun = rng.choice(SHAPE_WORDS[group.shape])
    size = rng.choice(SIZES[group.size])
    words = [word for word in (size, colour_word(rng, group.colour)) if word]
    if group.count == 1:
        article = "an" if words[0][0] in "aeiou" else "a"
        return " ".join([rng.choice([article, article, article, "one"]), *words, noun])
    return " ".join([rng.choice(COUNTS[group.count]), *words, PLURALS.get(noun, noun + "s")])


def background_phrase(rng: random.Random, scene: Shapes) -> str:
    word = colour_word(rng, scene.background)
    full = f"an {word}" if word[0] in "aeiou" else f"a {word}"
    phrases = [f"on {full} background", f"on {word}", f"with {full} background", f"on {full} background", f"{word} background",
               f"against {full} background"]
    is_default = all(scene.background == default_background(group.colour) for group in scene.groups)
    return "" if is_default and rng.random() < 0.75 else rng.choice(phrases)


def shapes_caption(rng: random.Random, scene: Shapes) -> str:
    first = group_phrase(rng, scene.groups[0])
    if scene.relation:
        relation = rng.choice(RELATIONS[scene.relation])
        text = f"{first} {relation} {group_phrase(rng, scene.groups[1])}"
    else:
        text = f"{first} {rng.choice(POSITIONS[scene.groups[0].position])}".strip()
    background = background_phrase(rng, scene)
    joint = ", " if background and (background.endswith("background") and rng.random() < 0.3) else " "
    return f"{text}{joint}{background}".strip()


def landscape_caption(rng: random.Random, scene: Landscape) -> str:
    """Names the place and the time mostly, and of the other parts some."""
    parts = []
    if scene.house:
        parts.append(rng.choice([f"{named(rng, scene.house)} house", f"{named(rng, scene.house)} cottage", "a house"]))
    if scene.boat:
        parts.append(rng.choice([f"a boat with {named(rng, scene.boat)} sail", "a sailing boat", "a boat", "a ship",
                                 f"{named(rng, scene.boat)} boat"]))
    if scene.trees == 1:
        parts.append("a tree")
    elif scene.trees > 1:
        kind = rng.choice(["trees", "pine trees" if scene.tree_style == "pine" else "round trees"])
        number = COUNTS[scene.trees][0] + " " if scene.trees in COUNTS and rng.random() < 0.4 else ""
        parts.append(number + kind)
    if scene.time == "night":
        if scene.moon:
            parts.append(rng.choice(["the moon", "a full moon", "a moon", "moonlight"]))
        if scene.stars:
            parts.append(rng.choice(["stars", "a starry sky", "many stars"]))
    else:
        parts.append(rng.choice(["the sun", "a sun", "sunshine"]))
        if scene.clouds:
            parts.append(rng.choice(["clouds", "white clouds", "a cloudy sky"]))
    parts = [part for part in parts if rng.random() < 0.6]
    rng.shuffle(parts)
    land = rng.choice(LANDS[scene.land])
    time = rng.choice(TIMES[scene.time]) if rng.random() < 0.8 else ""
    if not parts:
        return f"{rng.choice([land, land, rng.choice(PLAIN_LANDSCAPE)])} {time}".strip()
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    forms = [f"{land} with {listed} {time}", f"{land} {time} with {listed}"]
    near = {"sea": ["by the sea", "at the sea", "on the sea"], "lake": ["by a lake", "on a lake"],
            "mountains": ["in the mountains", "and mountains", "under mountains"], "hills": ["in the hills", "on a hill"]}
    forms += [f"{listed} {rng.choice(near[scene.land])} {time}"] * 2
    return rng.choice(forms).strip()


def unknown_word(rng: random.Random) -> str:
    """A word that means nothing to the model."""
    if rng.random() < 0.5:
        return rng.choice(HARMLESS)
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8)))


def caption(rng: random.Random, scene: Shapes | Landscape) -> str:
    """One of the many things that a person could type for `scene`."""
    if scene.kind == "shapes":
        text = shapes_caption(rng, scene)
    else:
        text = landscape_caption(rng, scene)
        if rng.random() < 0.02:
            text = f"a {unknown_word(rng)}"
        if rng.random() < 0.25:
            text = rng.choice(["epic ", "beautiful ", "a beautiful "]) + text.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    text = rng.choice(OPENINGS) + text
    if rng.random() < 0.2:
        text += ", " + ", ".join(rng.sample(DECORATIONS, rng.randint(1, 3)))
    if rng.random() < 0.05:
        text += " " + unknown_word(rng)
    if rng.random() < 0.1:
        text = rng.choice([str.capitalize, str.upper, lambda words: words + "."])(text)
    return text


def held_out_prompts(number: int = 200) -> list[tuple[str, Shapes]]:
    """Prompts of combinations that training never sees, each with the image that it means."""
    rng = random.Random(2026)
    prompts = []
    while len(prompts) < number:
        scene = random_shapes(rng, held_out=True)
        if scene.relation != "inside" or scene.groups[0].shape != "ring":
            prompts.append((shapes_caption(rng, scene), scene))
    return prompts
