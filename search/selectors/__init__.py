"""What a selector is, and which there are: it chooses a manifest, image by image, not a product of values.

A new one is a module, a line here and nothing else.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from finegpr.arrays import Ints
from finegpr.errors import ConfigError
from search.selectors.importance import importance
from search.selectors.pool import Pool
from search.selectors.snp import search_and_prune
from search.space import Budget


class Selector(Protocol):
    """Chooses the images to train on, exactly ``budget.images`` of exactly ``budget.identities`` people (None: any).

    Only rows in ``pool.drawable``, each once; the same arguments give the same rows. ``budget.least`` and ``most``
    bound subsets and do not bind a manifest. Raises InputError when the pool cannot fill the budget.
    """

    def __call__(self, pool: Pool, budget: Budget, *, seed: int) -> Ints:
        """Row numbers (budget.images,), ascending."""


SELECTORS: Mapping[str, Selector] = {
    "importance": importance,
    "snp": search_and_prune,
}


def select(name: str, pool: Pool, budget: Budget, *, seed: int) -> Ints:
    """The manifest of the selector called ``name``. Raises ConfigError for an unknown name."""
    if name not in SELECTORS:
        raise ConfigError(f"no selector {name!r}; known: {', '.join(SELECTORS)}")
    rows = SELECTORS[name](pool, budget, seed=seed)
    assert len(rows) == budget.images
    assert (np.diff(rows) > 0).all()
    return rows


__all__ = ["SELECTORS", "Pool", "Selector", "select"]
