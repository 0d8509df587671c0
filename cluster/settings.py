"""Reading YAML that a person wrote: no surprises of YAML 1.1, unique keys, caps against bombs, one-line errors."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from finegpr.config import Config
from finegpr.errors import AostError, ConfigError, did_you_mean
from finegpr.faults import patiently

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_ALIASES = 100
MAX_UNKNOWN = 3

Model = TypeVar("Model", bound=Config)


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: ``no`` is text, ``1e-3`` a number, dates are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own protocol)

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise ConfigError(f"more than {MAX_ALIASES} YAML aliases; write the values out")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConfigError(f"YAML nested deeper than {MAX_DEPTH} levels; a config needs four")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"line {line}: key {key!r} should be text; quote it")
            if key in seen:
                raise ConfigError(f"line {line}: key {key!r} is there twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null|~|)$", ("n", "~", "")),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _decimal(loader: yaml.SafeLoader, node: yaml.Node) -> int:
    """An integer as YAML 1.2 reads it: a leading zero does not mean octal."""
    return int(loader.construct_scalar(node))  # type: ignore[arg-type]


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def parse(text: str, where: str) -> Any:
    """Parse YAML text; ``where`` names it in errors. Raises ConfigError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}:{place} is not YAML we read ({problem})") from None


def load_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping. Raises ConfigError."""
    if path.is_dir():
        inside = path / "config.yaml"
        advice = f"did you mean {inside}?" if inside.is_file() else "give a YAML file; README shows one"
        raise ConfigError(f"config {path} is a folder; {advice}")
    try:
        size = patiently(path.stat, path).st_size
        if size > MAX_BYTES:
            raise ConfigError(f"{path} has {size} bytes; a config has at most {MAX_BYTES}")
        text = patiently(lambda: path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}; README shows what one holds") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path} is not UTF-8 text; expected YAML, as README shows") from None
    loaded = parse(text, str(path))
    if not isinstance(loaded, dict):
        raise ConfigError(f"config {path} should hold 'key: value' lines, got {type(loaded).__name__}")
    return loaded


def override(mapping: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """``mapping`` with every ``a.b=value`` (YAML value) of ``settings`` put in. Raises ConfigError."""
    result: dict[str, Any] = json.loads(json.dumps(mapping))
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        if not equals or not dotted:
            raise ConfigError(f"--set takes key=value such as measure.height=128, got {setting!r}")
        *parents, last = dotted.split(".")
        place = result
        for parent in parents:
            below = place.setdefault(parent, {})
            if not isinstance(below, dict):
                raise ConfigError(f"--set {dotted}: {parent} holds a value, not settings")
            place = below
        place[last] = parse(text, f"--set {dotted}")
    return result


def validate(model: type[Model], mapping: dict[str, Any], where: str) -> Model:
    """``mapping`` as a ``model``, strictly typed. Raises ConfigError with the paths of unknown keys, or of the first
    wrong field."""
    try:
        return model.model_validate_json(json.dumps(mapping, allow_nan=False))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # What is missing or does not fit together may follow from a misspelt key, never the other way round.
        if unknown := [each["loc"] for each in found if each["type"] == "extra_forbidden"]:
            advice = "; ".join(dict.fromkeys(_unknown(model, location) for location in unknown[:MAX_UNKNOWN]))
            more = f"; and {len(unknown) - MAX_UNKNOWN} more" if len(unknown) > MAX_UNKNOWN else ""
            raise ConfigError(f"{where}: {advice}{more}") from None
        first = found[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f", got {first['input']!r}"
        raise ConfigError(f"{where}: {place or 'config'}: {message}{got}") from None
    except AostError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _unknown(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """That there is no such key, and which one is near, stands elsewhere, or is known in its place."""
    name, known = str(location[-1]), _known_keys(model, location[:-1])
    elsewhere = [place for place in _places(model) if place.rpartition(".")[2] == name][:MAX_UNKNOWN]
    otherwise = f"known: {', '.join(sorted(known))}"
    if elsewhere:
        otherwise = f"did you mean {' or '.join(map(repr, elsewhere))}? Here {otherwise}"
    advice = did_you_mean(name, known, otherwise=otherwise)
    return f"unknown key {'.'.join(map(str, location))!r}; {advice}"


def _places(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys below a model, the upper ones first."""
    yield from (prefix + name for name in model.model_fields)
    for name, field in model.model_fields.items():
        for below in _models_in(field.annotation):
            yield from _places(below, f"{prefix}{name}.")


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Field names at ``location`` below ``model``, following nested models through lists, tuples and unions."""
    kinds: list[Any] = [model]
    for part in location:
        below: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
                below += _models_in(kind.model_fields[str(part)].annotation)
        kinds = below or kinds
    return [name for kind in kinds for name in kind.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, list, tuple, dict):
        return [model for argument in get_args(annotation) for model in _models_in(argument)]
    return []
