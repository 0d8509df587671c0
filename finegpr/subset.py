"""A subset: which values of each attribute are in. It flows through search, selection and the report."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from finegpr.errors import InputError


@dataclass(frozen=True, eq=False)
class Subset:
    """Attribute -> the frozen set of its values that are in; an attribute not named keeps all its values.

    Two subsets are equal when their canonical ``key`` is. Raises InputError for an attribute with no value.
    """

    values: Mapping[str, frozenset[str]]

    def __init__(self, values: Mapping[str, Iterable[str]]) -> None:
        texts = [name for name, chosen in values.items() if isinstance(chosen, str)]
        if texts:
            raise InputError(f"a subset needs a list of values, got one text for {', '.join(texts)}")
        frozen = {name: frozenset(chosen) for name, chosen in sorted(values.items())}
        empty = [name for name, chosen in frozen.items() if not chosen]
        if empty:
            raise InputError(f"a subset needs at least one value of every attribute, got none of {', '.join(empty)}")
        object.__setattr__(self, "values", MappingProxyType(frozen))

    @cached_property
    def key(self) -> str:
        """Canonical one-line JSON: sorted attributes, sorted values."""
        return json.dumps(self.to_record(), separators=(",", ":"))

    def to_record(self) -> dict[str, Any]:
        """JSON-ready: sorted attributes, each a sorted list of values."""
        return {name: sorted(chosen) for name, chosen in self.values.items()}

    def to_json(self) -> str:
        """The canonical key; ``from_json`` reads it back."""
        return self.key

    @classmethod
    def from_json(cls, text: str) -> "Subset":
        """Read what ``to_json`` wrote. Raises InputError for anything but an object of lists of strings."""
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"a subset is a JSON object of lists of values: {error}") from None
        if not isinstance(loaded, dict) or not all(
            isinstance(chosen, list) and all(isinstance(value, str) for value in chosen) for chosen in loaded.values()
        ):
            raise InputError(f"a subset is a JSON object of lists of values, got {text[:80]}")
        return cls(loaded)

    def __reduce__(self) -> tuple[type["Subset"], tuple[dict[str, frozenset[str]]]]:
        return Subset, (dict(self.values),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subset) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
