"""What a search chose, for the report, and whether it ranks the arms as training does."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from cluster.recipes import TRAINING
from cluster.run.arms import Truth
from cluster.run.state import Made, Run
from cluster.search_measured import NUM_RANDOM
from finegpr.arrays import Floats
from finegpr.attributes import Attribute
from finegpr.catalog import Catalog, Cells
from finegpr.subset import Subset
from search.analysis.compare import RankAgreement, agreements, rank_agreement, value_shares
from search.analysis.records import AttributeShares, Choice
from search.loop import SearchResult
from search.objectives import CellObjective
from search.objectives.attribute_shares import AttributeEstimate
from search.objectives.base import Objective
from search.optimizers.baselines import random_masks

Shares = Mapping[str, Floats]


def make_choice(run: Run, made: Made, name: str) -> Choice:
    """What one search chose, for the report."""
    result, scored_by = _search(made, name)
    space = made.indexed.space
    arm = run.config.arm_of(name)
    manifest = made.manifest(arm, run.config.seeds[0])
    groups = space.groups
    attributes = space.cells.attributes + (() if groups is None else groups.attributes)
    source, chosen = (shares_of(catalog, attributes) for catalog in (made.indexed.source, manifest))
    true = true_shares(made.indexed.truth, attributes) if made.indexed.truth else {}
    # the last word on an attribute is that of the objective itself
    objectives = [made.found[other].objective for other in sorted(made.found, key=lambda other: other == name)]
    estimated = {each.attribute: each for other in objectives for each in other.estimate}
    occurring = {
        attribute.name: [
            place
            for place, share in enumerate(source[attribute.name])
            if share > 0 or (attribute.name in true and true[attribute.name][place] > 0)
        ]
        for attribute in attributes
    }
    random: Floats = np.empty(0)
    if isinstance(scored_by, CellObjective):  # to train random subsets would cost as much as the search
        random = scored_by.score_masks(random_masks(space, NUM_RANDOM, seed=space.seed))
    return Choice(
        objective=name,
        unit=scored_by.unit,
        higher_is_better=scored_by.higher_is_better,
        optimizer=run.config.search.optimizer,
        arm=arm,
        score=result.score,
        random_score=result.random_median,
        num_evaluations=result.num_evaluations,
        num_failed=result.num_failed,
        num_images=int(space.num_images(space.mask(result.subset)[None])[0]),
        attributes=tuple(
            attribute_shares(attribute, occurring[attribute.name], result.subset, source, chosen, true, estimated)
            for attribute in attributes
        ),
        agreements=agreements(result.subset, attributes, chosen=chosen, source=source, true=true, seed=run.config.seed),
        history=tuple(trial.score for trial in result.history if trial.status != "duplicate"),
        random_history=tuple(float(score) if np.isfinite(score) else None for score in random),
    )


def _search(made: Made, name: str) -> tuple[SearchResult, Objective]:
    if name == TRAINING:
        assert made.short.search is not None
        return made.short.search
    return made.found[name].result, made.found[name].objective


def attribute_shares(
    attribute: Attribute,
    places: list[int],
    subset: Subset,
    source: Shares,
    manifest: Shares,
    true: Shares,
    estimated: Mapping[str, AttributeEstimate],
) -> AttributeShares:
    """One attribute of a choice, with the values at ``places``: those that the source or the target has."""
    values = tuple(attribute.values[place] for place in places)
    chosen = subset.values.get(attribute.name, frozenset(values))
    kind: Literal["true", "estimate", "unknown"] = "unknown"
    target, interval = None, None
    if attribute.name in true:
        kind, target = "true", tuple(true[attribute.name][places].tolist())
    elif attribute.name in estimated:
        estimate = estimated[attribute.name]
        kind, target = "estimate", tuple(estimate.shares[place] for place in places)
        if estimate.low is not None and estimate.high is not None:
            interval = tuple((estimate.low[place], estimate.high[place]) for place in places)
    return AttributeShares(
        name=attribute.name,
        values=values,
        level=attribute.level,
        circular=attribute.circular,
        chosen=tuple(value in chosen for value in values),
        source=tuple(source[attribute.name][places].tolist()),
        manifest=tuple(manifest[attribute.name][places].tolist()),
        target=target,
        target_kind=kind,
        target_interval=interval,
    )


def shares_of(catalog: Catalog, attributes: tuple[Attribute, ...]) -> dict[str, Floats]:
    """Share of every value among the images of a catalog."""
    cells: Cells = catalog.cells([attribute.name for attribute in attributes])
    return value_shares(cells.codes, cells.images.astype(np.float64), attributes)


def true_shares(truth: Truth, attributes: tuple[Attribute, ...]) -> dict[str, Floats]:
    """The stated distribution, uniform over the values it names; attributes it does not name are left out."""
    return {
        attribute.name: np.array(
            [(value in truth[attribute.name]) / len(truth[attribute.name]) for value in attribute.values]
        )
        for attribute in attributes
        if attribute.name in truth
    }


def rank_arms(made: Made, results: pd.DataFrame) -> tuple[RankAgreement, ...]:
    """Whether each objective ranks the arms at equal budget as their training does."""
    arms = {each.arm.name: each.arm for each in made.manifests if not each.arm.takes_all}
    if not arms:
        return ()
    truths = {str(name): float(value) for name, value in results.groupby("arm")["mAP"].mean().items()}
    return tuple(
        rank_agreement(
            dict(zip(arms, found.objective.score([arm.subset for arm in arms.values()]).tolist(), strict=True)),
            truths,
            objective=name,
            target=made.indexed.target.title,
            higher_is_better=found.objective.higher_is_better,
        )
        for name, found in made.found.items()
    )
