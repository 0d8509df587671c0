"""What a selector is, and which there are: it chooses a manifest, image by image, not a product of values.

A new one is a module, a line here and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from finegpr.arrays import Ints
from finegpr.errors import ConfigError
from finegpr.weighing import Weighing
from search.measured import Measured
from search.objectives.attribute_shares import make_attribute_shares
from search.selectors.importance import importance
from search.selectors.pool import Pool
from search.selectors.snp import search_and_prune
from search.space import SCENE, Budget

if TYPE_CHECKING:
    from finegpr.catalog import Catalog
    from finegpr.measuring.results import Measurements


class Selector(Protocol):
    """Chooses the images to train on, exactly ``budget.images`` of exactly ``budget.identities`` people (None: any).

    Only rows in ``pool.drawable``, each once; the same arguments give the same rows. ``budget.least`` and ``most``
    bound subsets and do not bind a manifest. Raises InputError when the pool cannot fill the budget.
    """

    def __call__(self, pool: Pool, budget: Budget, *, seed: int) -> Ints:
        """Row numbers (budget.images,), ascending."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One selector; with ``goes_by_shares`` it needs the target's shares of attribute values."""

    choose: Selector
    goes_by_shares: bool = False


SELECTORS: Mapping[str, Kind] = {
    "importance": Kind(choose=importance, goes_by_shares=True),
    "snp": Kind(choose=search_and_prune),
}


def select(name: str, pool: Pool, budget: Budget, *, seed: int) -> Ints:
    """The manifest of the selector called ``name``. Raises ConfigError for an unknown name."""
    rows = _kind(name).choose(pool, budget, seed=seed)
    assert len(rows) == budget.images
    assert (np.diff(rows) > 0).all()
    return rows


def select_images(
    name: str,
    source: "Catalog",
    measurements: "Measurements",
    budget: Budget,
    *,
    target: str,
    weighing: Weighing,
    seed: int,
) -> Ints:
    """``select`` among the rows of ``source``, by all its image-level attributes but the scene.

    The target's shares, where they are needed, are those that classifiers estimate. Raises ConfigError for an unknown
    name, InputError where the budget cannot be filled.
    """
    names = [attribute.name for attribute in source.image_attributes if attribute.name != SCENE]
    measured = Measured(
        measurements=measurements,
        cells=source.cells(names),
        identity=source.identities,
        target=target,
        weighing=weighing,
    )
    shares = None
    if _kind(name).goes_by_shares:
        form, _ = make_attribute_shares(measured, seed=seed)
        shares = {each.attribute: dict(zip(each.values, each.shares, strict=True)) for each in form.estimate}
    return select(name, Pool(measured=measured, target_shares=shares), budget, seed=seed)


def require_selector(name: str) -> None:
    """Raises ConfigError for an unknown name."""
    if name not in SELECTORS:
        raise ConfigError(f"no selector {name!r}; known: {', '.join(SELECTORS)}")


def _kind(name: str) -> Kind:
    require_selector(name)
    return SELECTORS[name]


__all__ = ["SELECTORS", "Pool", "Selector", "require_selector", "select", "select_images"]
