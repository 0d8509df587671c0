"""The arms of a comparison: which subset each trains on, and the manifests drawn from it by the one sampler."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cluster.run.config import ALL, EVERYTHING, RANDOM, TRUE, WRONG, RunConfig
from finegpr.arrays import Ints
from finegpr.attributes import Attribute, by_name
from finegpr.catalog import Catalog, read_world
from finegpr.errors import ConfigError, InputError
from finegpr.subset import Subset
from search.selectors import SELECTORS
from search.space import Space, make_space

Truth = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm: what it may draw from, and whether it draws the budget, takes all there is, or a selector chooses.

    An arm that takes all does so of the people whom the sampler would draw from its subset: so it shows whom the arm
    of the budget with the same subset shows.
    """

    name: str
    subset: Subset
    takes_all: bool = False
    selector: bool = False

    def require_budget(self, space: Space) -> None:
        """Raises InputError when a manifest cannot be drawn; what a selector needs shows when it chooses."""
        if not self.takes_all and not self.selector:
            try:
                space.sampler.require(self.subset)
            except InputError as error:
                raise InputError(f"arm {self.name}: {error}") from None

    def draw(self, catalog: Catalog, space: Space, *, seed: int) -> Catalog:
        """The manifest. Raises InputError when the subset does not hold the budget."""
        rows = self.all_rows(catalog, space) if self.takes_all else space.sampler.draw(self.subset, seed=seed)
        return catalog.take(rows)

    def all_rows(self, catalog: Catalog, space: Space) -> Ints:
        """Rows, ascending, of all that an arm may draw from. Where no value is chosen, images of unknown attributes are
        among them, which no arm draws."""
        if self.subset.values:
            return space.sampler.all_of(self.subset)
        people = catalog.identities
        inside = people > 0
        if space.budget.identities is not None:
            inside &= np.isin(people, space.sampler.people(self.subset))
        return np.flatnonzero(inside)


def searched_space(config: RunConfig, source: Catalog) -> Space:
    """What the config searches of ``source``. Raises InputError where it does not hold the budget, ConfigError."""
    return make_space(source, config.budget, seed=config.seed, attributes=config.search.attributes, config=config.space)


def known_truth(config: RunConfig, source: Catalog, target: Catalog) -> Truth | None:
    """The target's true distribution, uniform over these values: from the config, or from a rendered target.

    Raises InputError or ConfigError for attributes and values that the source does not know.
    """
    if config.truth is not None:
        for name, values in config.truth.items():
            attribute = by_name(source.attributes, name)
            if not values:
                raise ConfigError(f"truth.{name} names no value; expected some of {', '.join(attribute.values)}")
            for value in values:
                attribute.index(value)
        return config.truth
    distribution = (read_world(target.root) or {}).get("distribution")
    return {name: tuple(values) for name, values in distribution.items()} if distribution else None


def make_arm(name: str, config: RunConfig, space: Space, truth: Truth | None, found: Mapping[str, Subset]) -> Arm:
    """The arm ``name``; ``found`` holds the subsets that the searches chose. Raises ConfigError."""
    if name.startswith(ALL):
        return replace(make_arm(name.removeprefix(ALL), config, space, truth, found), name=name, takes_all=True)
    if name in found:
        return Arm(name=name, subset=found[name])
    if name in config.subsets:
        return Arm(name=name, subset=Subset(config.subsets[name]))
    if name in SELECTORS:
        return Arm(name=name, subset=Subset({}), selector=True)
    if name == RANDOM:
        return Arm(name=name, subset=Subset({}))
    if name == EVERYTHING:
        return Arm(name=name, subset=Subset({}), takes_all=True)
    if truth is None:
        raise ConfigError(
            f"arm {name} needs the target's true distribution; state it as `truth:`, or leave the arm out"
        )
    searched = {attribute.name: attribute for attribute in space.attributes}
    true = {attribute: values for attribute, values in truth.items() if attribute in searched}
    if name == TRUE:
        return Arm(name=name, subset=Subset({key: _present(searched[key], true[key], space) for key in true}))
    attribute = name.removeprefix(WRONG)
    if attribute not in true:
        raise ConfigError(f"arm {name}: the truth names {', '.join(true) or 'no searched attribute'}, not {attribute}")
    wrong = [value for value in _present(searched[attribute], None, space) if value not in true[attribute]]
    return Arm(name=name, subset=Subset({attribute: wrong}))


def in_words(name: str, config: RunConfig) -> str:
    """What an arm that takes all matching images trains on, in words; nothing for an arm whose name says it."""
    if not name.startswith(ALL):
        return ""
    base = name.removeprefix(ALL)
    if base == TRUE:
        return "all that matches the truth"
    return f"all that matches {base}" + ("" if base in config.subsets or base.startswith(WRONG) else "'s choice")


def _present(attribute: Attribute, values: tuple[str, ...] | None, space: Space) -> list[str]:
    """The values of ``attribute`` that the source has, all of them or those among ``values``."""
    present = space.values[space.attributes.index(attribute)]
    return [value for value in present if values is None or value in values]
