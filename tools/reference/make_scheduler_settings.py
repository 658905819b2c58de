"""The settings of diffusers' schedulers with their defaults: `known_settings.json` of sd-schedulers."""

import importlib
import inspect
import json
import math
import pkgutil
import sys
import types

from diffusers import SchedulerMixin, schedulers

from paths import REPOSITORY

# Only their Brownian noise needs it, and diffusers, now imported, looks for it no more.
sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))

FILE = REPOSITORY / "crates/schedulers/src/config/known_settings.json"


def plain(value: object) -> object:
    """As a `scheduler_config.json` has it; what JSON cannot say is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


def settings(scheduler: type) -> dict[str, object]:
    parameters = inspect.signature(scheduler.__init__).parameters.values()
    named = [one for one in parameters if one.name != "self" and one.kind is not one.VAR_KEYWORD]
    return {one.name: None if one.default is one.empty else plain(one.default) for one in named}


def main() -> None:
    classes = {}
    for module in pkgutil.iter_modules(schedulers.__path__, f"{schedulers.__name__}."):
        if module.name.endswith("_flax"):
            continue
        for name, found in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(found) and issubclass(found, SchedulerMixin) and found is not SchedulerMixin:
                classes[name] = settings(found)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(classes[name])}" for name in sorted(classes))
    FILE.write_text(f"{{\n{lines}\n}}\n")
    print(f"{len(classes)} classes, {len(set().union(*classes.values()))} settings")


if __name__ == "__main__":
    main()
