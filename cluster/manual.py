"""The settings of a verb as text: what ``--settings`` prints, from the models that read them.

What a setting does is said where it is defined, or in everything.yaml, which has every key of a run.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module, resources
from typing import Any, get_args

from pydantic import BaseModel

from cluster.options import Verb
from cluster.verbs import SETTINGS
from finegpr.errors import ConfigError

EVERYTHING = "everything.yaml"
REQUIRED = "..."
_KEY = re.compile(r"#?(?P<indent> *)(?P<name>[a-z_]+):(?: +(?P<value>[^# ].*?))?(?: +# (?P<does>.*))?")
_WIDTH = 44
# Where a verb's settings stand in everything.yaml, below which those of its own models are looked for.
_HOMES = {
    "measure": ("measure.",),
    "search": ("search.", "measure."),
    "train": ("train.",),
    "index": ("source.options.",),
}


def settings(verb: type[Verb]) -> str:
    """Every setting of a verb, a line each, or the whole of everything.yaml for the main job.

    Raises ConfigError for a verb that has none.
    """
    if verb not in SETTINGS:
        raise ConfigError(f"aost {verb.name()} has no settings; all it takes is in aost {verb.name()} --help")
    name = SETTINGS[verb]
    if name == EVERYTHING:
        return _everything()
    module, attribute = name.split(":")
    found, homes = getattr(import_module(module), attribute), _HOMES.get(verb.name(), ())
    if isinstance(found, Mapping):
        listed = "\n".join(f"# {key}\n{''.join(_lines(each, homes))}" for key, each in found.items())
        return f"{listed}\n# More words on each are in aost {verb.name()} --help.\n"
    return "".join(_lines(found, homes))


def _lines(found: Any, homes: tuple[str, ...]) -> Iterator[str]:
    for name, default, does in _of_function(found) if inspect.isfunction(found) else _of_model(found):
        told, example = _told(name, homes)
        value = REQUIRED if default is REQUIRED else _written(default)
        such = f"such as {example}: " if value in ("{}", "[]") and told and example not in ("", value) else ""
        comment = does or such + told
        yield (f"{name}={value}".ljust(_WIDTH) + (f"  # {comment}" if comment else "")).rstrip() + "\n"


def _of_model(found: BaseModel | type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Name, value and meaning of every setting below a model with its defaults, or a recipe with its values."""
    model = found if isinstance(found, type) else type(found)
    for name, field in model.model_fields.items():
        place, below = prefix + name, _models(field.annotation)
        if place.endswith("training.train"):
            yield f"{place}.recipe", "paper", "or quick or seconds, and what `aost train --settings` lists"
        elif below:
            yield from _of_model(below[0], f"{place}.")
        elif isinstance(found, BaseModel):
            yield place, getattr(found, name), field.description or ""
        else:
            default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
            yield place, default, field.description or ""


def _of_function(function: Any) -> Iterator[tuple[str, Any, str]]:
    """The options of a layout: what the function that lists it takes by name."""
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY:
            yield each.name, REQUIRED if each.default is each.empty else each.default, ""


def _models(annotation: Any) -> list[type[BaseModel]]:
    kinds = [annotation, *get_args(annotation)]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _written(value: Any) -> str:
    """A value as --set takes it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=lambda each: dict(each) if isinstance(each, Mapping) else list(each))


def _told(name: str, homes: tuple[str, ...]) -> tuple[str, str]:
    """What everything.yaml says of a setting, and its example there; by the longest end of the name that it has."""
    parts = name.split(".")
    ends = [home + name for home in homes] + [".".join(parts[start:]) for start in range(len(parts) - 1)]
    said = _said()
    for end in ends:
        for known in said:
            if f".{known}".endswith(f".{end}"):
                return said[known]
    return "", ""


@cache
def _said() -> dict[str, tuple[str, str]]:
    """The comment behind every key of everything.yaml, and the value there, by the key's dotted name."""
    said: dict[str, tuple[str, str]] = {}
    above: list[tuple[int, str]] = []
    for line in _everything().splitlines():
        if (match := _KEY.fullmatch(line)) is not None:
            indent = len(match["indent"])
            above = [*(each for each in above if each[0] < indent), (indent, match["name"])]
            said[".".join(part for _, part in above)] = match["does"] or "", match["value"] or ""
    return said


@cache
def _everything() -> str:
    return (resources.files("cluster") / "configs" / EVERYTHING).read_text(encoding="utf-8")
