"""A mixture: a subset whose values weigh differently, as a share of each value instead of in or out."""

import json
from collections.abc import Mapping
from math import gcd
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from finegpr.arrays import Floats
from finegpr.errors import InputError
from finegpr.subset import Subset

if TYPE_CHECKING:
    from finegpr.catalog import Cells


class Mixture(Subset):
    """Attribute -> value -> weight, a count; a manifest is drawn with cells in proportion to the products of weights.

    ``values`` are those of a weight above 0. Only ratios within an attribute matter: its weights are divided by their
    greatest common divisor, and an attribute whose weights are all alike is written as a subset writes it, so that a
    mixture without preference is equal to a subset. Raises InputError for a weight that is no count, or all being 0.
    """

    weights: Mapping[str, Mapping[str, int]]

    def __init__(self, weights: Mapping[str, Mapping[str, int]]) -> None:
        for attribute, of_value in weights.items():
            for value, weight in of_value.items():
                if type(weight) is not int or weight < 0:
                    raise InputError(f"the weight of {attribute} {value} should be a count, got {weight!r}")
        kept = {
            attribute: {value: weight for value, weight in sorted(of_value.items()) if weight}
            for attribute, of_value in sorted(weights.items())
        }
        super().__init__(kept)
        reduced = {}
        for attribute, of_value in kept.items():
            divisor = gcd(*of_value.values())
            reduced[attribute] = MappingProxyType({value: weight // divisor for value, weight in of_value.items()})
        object.__setattr__(self, "weights", MappingProxyType(reduced))

    @property
    def has_weights(self) -> bool:
        """Whether any attribute prefers one of its values."""
        return any(set(of_value.values()) != {1} for of_value in self.weights.values())

    def of_cells(self, cells: "Cells") -> Floats:
        """The weight of every cell (C,), the product of its values' weights; attributes of no cell are left out."""
        product = np.ones(len(cells))
        for column, attribute in enumerate(cells.attributes):
            if attribute.name in self.weights:
                of_value = self.weights[attribute.name]
                product *= np.array([of_value.get(value, 0) for value in attribute.values])[cells.codes[:, column]]
        return product

    def to_record(self) -> dict[str, Any]:
        """JSON-ready: a sorted list of values, or value -> weight where they are not all alike."""
        return {
            attribute: list(of_value) if set(of_value.values()) == {1} else dict(of_value)
            for attribute, of_value in self.weights.items()
        }

    def __reduce__(self) -> tuple[type["Mixture"], tuple[dict[str, dict[str, int]]]]:  # type: ignore[override]
        return Mixture, ({attribute: dict(of_value) for attribute, of_value in self.weights.items()},)


def choice_from_record(record: Mapping[str, Any]) -> Subset:
    """What ``to_record`` gave: a Subset of lists of values, or a Mixture where an attribute has weights.

    Raises InputError for anything else.
    """
    weights = {}
    for attribute, chosen in record.items():
        if isinstance(chosen, list) and all(isinstance(value, str) for value in chosen):
            weights[attribute] = dict.fromkeys(chosen, 1)
        elif isinstance(chosen, Mapping):
            weights[attribute] = dict(chosen)
        else:
            raise InputError(
                f"{attribute} should have a list of values, or an object of values and weights, got {chosen!r}"
            )
    if any(isinstance(chosen, Mapping) for chosen in record.values()):
        return Mixture(weights)
    return Subset(record)


def choice_from_json(text: str) -> Subset:
    """What ``to_json`` of a subset or a mixture wrote. Raises InputError."""
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"a subset is a JSON object of lists of values: {error}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"a subset is a JSON object of lists of values, got {text[:80]}")
    return choice_from_record(loaded)
