"""Subsets in words: what one chooses, and what changed from one to another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finegpr.attributes import Attribute, by_name
from finegpr.mixture import Mixture
from finegpr.subset import Subset
from search.space import Space

NO_CHANGE = "no change"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What changed in one attribute: the values that came in, those that went out; ``old`` and ``new`` hold all that
    were and are in."""

    attribute: Attribute
    old: frozenset[str]
    new: frozenset[str]

    @property
    def added(self) -> frozenset[str]:
        """Values that came in."""
        return self.new - self.old

    @property
    def dropped(self) -> frozenset[str]:
        """Values that went out."""
        return self.old - self.new


def searched(space: Space) -> tuple[Attribute, ...]:
    """The attributes of a space's cells and groups, also fixed ones, with only the values that occur: neighbours on a
    circle are the next of those."""
    tables = [space.cells] if space.groups is None else [space.cells, space.groups]
    return tuple(
        replace(attribute, values=tuple(attribute.values[code] for code in np.unique(table.codes[:, column])))
        for table in tables
        for column, attribute in enumerate(table.attributes)
    )


def changes(old: Subset, new: Subset, attributes: Sequence[Attribute]) -> tuple[Change, ...]:
    """The attributes whose values differ, in their order; one that a subset does not name has all its values.

    Raises InputError for an attribute or a value that is not one of ``attributes``.
    """
    before, after = _values(old, attributes), _values(new, attributes)
    return tuple(
        Change(attribute=attribute, old=before[attribute.name], new=after[attribute.name])
        for attribute in attributes
        if before[attribute.name] != after[attribute.name]
    )


def diff(old: Subset, new: Subset, attributes: Sequence[Attribute]) -> str:
    """What changed, as in ``adds foggy and dusk, drops 130-170 deg``; NO_CHANGE where nothing did.

    An attribute that has all its values now is ``now any weather``; one that had all and lost more than it kept
    ``keeps only foggy``. The weights of mixtures are said where they changed, ``weighs sunny 3, foggy 1``. Raises
    InputError as ``changes`` does.
    """
    names = _Names(attributes)
    added, dropped, kept, opened = [], [], [], []
    for change in changes(old, new, attributes):
        everything = frozenset(change.attribute.values)
        if change.new == everything:
            opened.append(f"now any {_title(change.attribute)}")
        elif change.old == everything and len(change.new) < len(change.dropped):
            kept.append(names.of(change.attribute, change.new, "and"))
        else:
            if change.added:
                added.append(names.of(change.attribute, change.added, "and"))
            if change.dropped:
                dropped.append(names.of(change.attribute, change.dropped, "and"))
    phrases = [
        f"{verb} {_joined(values, 'and')}"
        for verb, values in (("adds", added), ("drops", dropped), ("keeps only", kept))
        if values
    ]
    phrases += opened
    before, after = _weights(old, attributes), _weights(new, attributes)
    phrases += [
        f"weighs {after[attribute.name] or f'{_title(attribute)} evenly'}"
        for attribute in attributes
        if after[attribute.name] != before[attribute.name]
    ]
    return ", ".join(phrases) or NO_CHANGE


def describe(subset: Subset, attributes: Sequence[Attribute]) -> str:
    """What is in, as in ``sunny or foggy; 90-180 deg; any illumination``; a mixture with its weights, as ``diff``.

    Raises InputError as ``changes`` does.
    """
    names = _Names(attributes)
    chosen, weights = _values(subset, attributes), _weights(subset, attributes)
    return "; ".join(
        weights[attribute.name]
        or (
            f"any {_title(attribute)}"
            if chosen[attribute.name] == frozenset(attribute.values)
            else names.of(attribute, chosen[attribute.name], "or")
        )
        for attribute in attributes
    )


class _Names:
    """How values are called: by name alone where that says enough, with the attribute's where it does not."""

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        values = [value for attribute in attributes for value in attribute.values]
        self._ambiguous = {value for value in values if values.count(value) > 1}

    def of(self, attribute: Attribute, values: frozenset[str], conjunction: str) -> str:
        """``sunny or foggy``, ``90-180 deg``, ``hat yes``, ``exposure 0.5 to 1.2``.

        A person's values, and those in order, always with the attribute's name.
        """
        if attribute.circular:
            text = _joined(_arcs(attribute, values), conjunction)
        else:
            text = _joined([value for value in attribute.values if value in values], conjunction)
        if attribute.level == "identity" or attribute.ordinal or not self._ambiguous.isdisjoint(attribute.values):
            return f"{_title(attribute)} {text}"
        return text


def _arcs(attribute: Attribute, values: frozenset[str]) -> list[str]:
    """Neighbours on the circle as ranges, ``350-20 deg``, by where they start; over the seam from its far side."""
    circle = sorted(attribute.values, key=lambda value: attribute.degrees(value) % 360)
    inside = [value in values for value in circle]
    # From the first gap on, no arc is cut by the seam; a whole circle is cut at 0.
    first = 0 if all(inside) else inside.index(False)
    arcs: list[list[str]] = []
    open_arc = False
    for place in range(first, first + len(circle)):
        value, held = circle[place % len(circle)], inside[place % len(circle)]
        if held and open_arc:
            arcs[-1].append(value)
        elif held:
            arcs.append([value])
        open_arc = held
    arcs.sort(key=lambda arc: attribute.degrees(arc[0]) % 360)
    return [_range(attribute, arc) for arc in arcs]


def _range(attribute: Attribute, arc: list[str]) -> str:
    first, last = (f"{attribute.degrees(value):g}" for value in (arc[0], arc[-1]))
    return f"{first} deg" if len(arc) == 1 else f"{first}-{last} deg"


def _values(subset: Subset, attributes: Sequence[Attribute]) -> dict[str, frozenset[str]]:
    for name, chosen in subset.values.items():
        attribute = by_name(attributes, name)
        for value in sorted(chosen):
            attribute.index(value)
    return {attribute.name: subset.values.get(attribute.name, frozenset(attribute.values)) for attribute in attributes}


def _weights(subset: Subset, attributes: Sequence[Attribute]) -> dict[str, str]:
    """Attribute -> its weights in words, ``""`` where all are alike, as in every subset that is no mixture."""
    texts = {}
    for attribute in attributes:
        weights = subset.weights.get(attribute.name, {}) if isinstance(subset, Mixture) else {}
        alike = len(set(weights.values())) <= 1
        named = ", ".join(f"{value} {weights[value]}" for value in attribute.values if value in weights)
        texts[attribute.name] = "" if alike else f"{_title(attribute)} {named}"
    return texts


def _title(attribute: Attribute) -> str:
    return attribute.name.replace("_", " ")


def _joined(texts: Iterable[str], conjunction: str) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *most, last = texts
    return f"{', '.join(most)} {conjunction} {last}" if most else last
