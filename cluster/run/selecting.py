"""Manifests that a selector chooses image by image, and the guard over who is in a manifest."""

import numpy as np

from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.errors import RefusedError
from finegpr.measuring.results import Measurements
from finegpr.weighing import Scale
from search.analysis.fairness import FairnessConfig, identity_shifts, violations
from search.objectives.attribute_shares import make_attribute_shares
from search.selectors import select
from search.selectors.pool import Pool
from search.space import SCENE, Budget


def selected(
    name: str,
    source: Catalog,
    measurements: Measurements,
    budget: Budget,
    *,
    target: str,
    scale: Scale,
    seed: int,
) -> Ints:
    """Row numbers (budget.images,), ascending, of the manifest of the selector ``name``.

    Importance resampling goes by the shares that classifiers estimate for the target. Raises ConfigError for an unknown
    selector, InputError where the budget cannot be filled.
    """
    cells = source.cells([attribute.name for attribute in source.image_attributes if attribute.name != SCENE])
    identity = source.frame["identity"].to_numpy(dtype=np.int64)
    shares = None
    if name == "importance":
        form, _ = make_attribute_shares(measurements, cells, identity, target=target, scale=scale, seed=seed)
        shares = {each.attribute: dict(zip(each.values, each.shares, strict=True)) for each in form.estimate}
    pool = Pool(
        cells=cells, identity=identity, measurements=measurements, target=target, scale=scale, target_shares=shares
    )
    return select(name, pool, budget, seed=seed)


def require_fair(config: FairnessConfig, source: Catalog, manifest: Catalog, *, what: str) -> None:
    """Raises RefusedError for a manifest in which a value of the people's attributes has become too rare."""
    found = violations(identity_shifts(source, manifest, seed=0), least_share=config.least_share)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise RefusedError(f"{what}: {found[0]}{more}; choose more identities, or lower fairness.least_share")
