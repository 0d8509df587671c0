"""Running a search on measurements, and what the report says of it: the choice, its history, the surrogate's worth."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from cluster.progress import progress, say
from cluster.run.arms import Truth
from cluster.run.config import TRAINING
from finegpr.arrays import Floats, Ints
from finegpr.attributes import Attribute
from finegpr.catalog import Catalog, Cells
from finegpr.measuring.results import Measurements, Scale
from finegpr.storage import read_json, write_bytes
from finegpr.subset import Subset
from search.analysis.compare import RankAgreement, agreements, rank_agreement, value_shares
from search.analysis.records import AttributeShares, Choice
from search.analysis.subset_diff import describe, searched
from search.loop import Evaluate, Generation, SearchConfig, SearchResult
from search.loop import search as search_space
from search.objectives import CellObjective, make_objective
from search.objectives.base import Objective
from search.objectives.mean_distance import embed_distance
from search.objectives.surrogate import SurrogateReport, fit_surrogate
from search.optimizers import make_optimizer
from search.optimizers.baselines import random_masks
from search.optimizers.proposer import Optimizer
from search.parallel import in_parallel
from search.rounds import ROUNDS, RoundsConfig, search_in_rounds
from search.space import Budget, Space, SpaceConfig, make_space

if TYPE_CHECKING:
    from cluster.run.pipeline import Run

Shares = Mapping[str, Floats]

SUBSET = "subset.json"
NUM_RANDOM = 200


class SearchVerbConfig(SearchConfig):
    """The settings of the verb ``search``: those of a search, the budget, what bounds the subsets, whether to search in
    rounds, and how the terms are weighed."""

    budget: Budget
    space: SpaceConfig = SpaceConfig()
    rounds: RoundsConfig | None = None
    scale: Scale = "standardised"


def search_measured(
    config: SearchVerbConfig, source: Catalog, measurements: Measurements, *, target: str, folder: Path
) -> SearchResult:
    """Search on measurements of ``source``; the journal in ``folder`` makes the same call resume."""
    space = make_space(source, config.budget, seed=config.seed, attributes=config.attributes, config=config.space)
    settings = {
        **config.model_dump(mode="json"),
        "target": target,
        "measurements": measurements.fingerprint(target),
    }
    job = _Job(
        config=config,
        space=space,
        identity=source.frame["identity"].to_numpy(dtype=np.int64),
        measurements=measurements,
        target=target,
        scale=config.scale,
        folder=folder,
        settings=settings,
    )
    return job.run(config.rounds)[0]


def run_search(run: "Run", name: str) -> tuple[SearchResult, CellObjective]:
    """The search stage of one objective in a run."""
    from cluster.run.pipeline import TARGET

    config = run.config.search.model_copy(update={"objective": name, "seed": run.config.search.seed + run.config.seed})
    settings = {**config.model_dump(mode="json"), "budget": run.config.budget.model_dump(mode="json")}
    settings["scale"] = run.config.measure.scale
    if run.config.space != SpaceConfig():
        settings["space"] = run.config.space.model_dump(mode="json")
    if run.config.rounds is not None:
        settings["rounds"] = run.config.rounds.model_dump(mode="json")
    stage = run.folder.open(f"search/{name}", inputs={"measure": run.keys["measure"]}, config=settings, journal=True)
    job = _Job(
        config=config,
        space=run.space,
        identity=run.source.frame["identity"].to_numpy(dtype=np.int64),
        measurements=run.measurements,
        target=TARGET,
        scale=run.config.measure.scale,
        folder=stage.folder,
        settings=settings,
    )
    started = time.monotonic()
    # A finished search replays its journal: the same asks and tells, without a score computed again.
    result, objective = job.run(run.config.rounds)
    if not stage.done:
        stage.finish(seconds=time.monotonic() - started, num_evaluations=result.num_evaluations, score=result.score)
    if run.config.rounds is not None:
        run.notes.append(f"{name}: {read_json(stage.folder / ROUNDS)['summary']}.")
    if result.notice:
        say(f"  {result.notice}")
    say(
        f"  {name}: {result.score:.5g} {objective.unit} (median random {result.random_median:.5g}), "
        f"{result.num_evaluations} subsets in {result.num_generations} generations of {result.population}"
    )
    say(f"  {describe(result.subset, searched(run.space))}")
    return result, objective


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """One search on measurements, at once or in rounds; the journals in ``folder`` make it resume."""

    config: SearchConfig
    space: Space
    identity: Ints
    measurements: Measurements
    target: str
    scale: Scale
    folder: Path
    settings: Mapping[str, object]

    def run(self, rounds: RoundsConfig | None) -> tuple[SearchResult, CellObjective]:
        """The search of the last round, and its objective."""
        config = self.config
        with progress(f"searching by {config.objective}", "subsets") as tick:

            def show(generation: Generation) -> None:
                best = "" if generation.best is None else f"best {generation.best:.5g}"
                tick(generation.num_evaluations, config.evaluations, best)

            if rounds is None:
                objective = self._objective(self.measurements)
                result = search_space(
                    self.space,
                    objective,
                    self._optimizer(),
                    self.folder,
                    evaluations=config.evaluations,
                    config=self.settings,
                    evaluate=_evaluate(objective),
                    num_random=NUM_RANDOM,
                    progress=show,
                )
            else:
                done = search_in_rounds(
                    rounds,
                    self.space,
                    self.measurements,
                    self.folder,
                    target=self.target,
                    make_objective=self._objective,
                    make_optimizer=self._optimizer,
                    evaluations=config.evaluations,
                    settings=self.settings,
                    seed=config.seed,
                    evaluate=_evaluate,
                    num_random=NUM_RANDOM,
                    progress=lambda _, generation: show(generation),
                )
                assert isinstance(done.objective, CellObjective)
                result, objective = done.last, done.objective
        if rounds is not None:
            for each in done.rounds:
                say(f"  after {each.num_target_images} photos: {each.change}")
            say(f"  {done.summary}")
        for warning in objective.report.warnings if objective.report else ():
            say(f"  {warning}")
        write_bytes(self.folder / SUBSET, (result.subset.to_json() + "\n").encode())
        return result, objective

    def _objective(self, measurements: Measurements) -> CellObjective:
        return make_objective(
            self.config.objective, self.space, measurements, self.identity, target=self.target, scale=self.scale
        )

    def _optimizer(self) -> Optimizer:
        config = self.config
        return make_optimizer(
            config.optimizer,
            self.space,
            seed=config.seed,
            evaluations=config.evaluations,
            options=config.optimizer_options,
        )


def _evaluate(objective: Objective) -> Evaluate:
    """On all cores; the journal does not depend on their number."""
    return in_parallel(objective.score, workers=len(os.sched_getaffinity(0)))


def make_choice(run: "Run", name: str) -> Choice:
    """What one search chose, for the report."""
    result = run.searches[name]
    scored_by: Objective = run.by_training if name == TRAINING else run.objectives[name]
    manifest = Catalog.read(run.manifests[name, run.config.seeds[0]])
    groups = run.space.groups
    attributes = run.space.cells.attributes + (() if groups is None else groups.attributes)
    source, chosen = (shares_of(catalog, attributes) for catalog in (run.source, manifest))
    true = true_shares(run.truth, attributes) if run.truth else {}
    estimated = {each.attribute: np.array(each.shares) for other in run.objectives.values() for each in other.estimate}
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
        random = scored_by.score_masks(random_masks(run.space, NUM_RANDOM, seed=run.space.seed))
    return Choice(
        objective=name,
        unit=scored_by.unit,
        higher_is_better=scored_by.higher_is_better,
        optimizer=run.config.search.optimizer,
        arm=name,
        score=result.score,
        random_score=result.random_median,
        known_best=None,
        num_evaluations=result.num_evaluations,
        num_failed=result.num_failed,
        num_images=int(run.space.num_images(run.space.mask(result.subset)[None])[0]),
        attributes=tuple(
            attribute_shares(attribute, occurring[attribute.name], result.subset, source, chosen, true, estimated)
            for attribute in attributes
        ),
        agreements=agreements(result.subset, attributes, chosen=chosen, source=source, true=true, seed=run.config.seed),
        history=tuple(trial.score for trial in result.history if trial.status != "duplicate"),
        random_history=tuple(float(score) if np.isfinite(score) else None for score in random),
    )


def attribute_shares(
    attribute: Attribute,
    places: list[int],
    subset: Subset,
    source: Shares,
    manifest: Shares,
    true: Shares,
    estimated: Shares,
) -> AttributeShares:
    """One attribute of a choice, with the values at ``places``: those that the source or the target has."""
    values = tuple(attribute.values[place] for place in places)
    chosen = subset.values.get(attribute.name, frozenset(values))
    kind: Literal["true", "estimate", "unknown"] = "unknown"
    target = None
    if attribute.name in true:
        kind, target = "true", tuple(true[attribute.name][places].tolist())
    elif attribute.name in estimated:
        kind, target = "estimate", tuple(estimated[attribute.name][places].tolist())
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


def rank_arms(run: "Run", results: pd.DataFrame) -> tuple[RankAgreement, ...]:
    """Whether each objective ranks the arms at equal budget as their training does."""
    arms = {name: arm for name, arm in run.arms.items() if not arm.takes_all}
    truths = {str(name): float(value) for name, value in results.groupby("arm")["mAP"].mean().items()}
    return tuple(
        rank_agreement(
            dict(zip(arms, objective.score([arm.subset for arm in arms.values()]).tolist(), strict=True)),
            truths,
            objective=name,
            target=run.target.title,
            higher_is_better=objective.higher_is_better,
        )
        for name, objective in run.objectives.items()
    )


def validate_surrogate(run: "Run") -> SurrogateReport:
    """How well a surrogate predicts the distance terms of cells, value pairs and identities that it has not seen."""
    from cluster.run.pipeline import TARGET

    identity = run.source.frame["identity"].to_numpy(dtype=np.int64)
    scale = run.config.measure.scale
    embedding = embed_distance(run.measurements, run.space.cells, identity, target=TARGET, scale=scale)
    return fit_surrogate(run.space.cells, embedding.samples, seed=run.config.seed).report
