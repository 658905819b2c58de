"""The settings of reference images, and the list of them that the tests read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Generated:
    """The settings that every image has."""

    name: str
    model: str
    prompt: str = "a photo of a cat"
    negative_prompt: str = ""
    seed: int = 42
    steps: int = 4
    guidance_scale: float = 4.5


def write(folder: Path, cases: Sequence[Generated]) -> None:
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
