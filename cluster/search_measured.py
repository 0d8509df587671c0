"""Searching on measurements, for the verb ``search`` and for a run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.progress import progress, say
from finegpr.atomic import write_bytes
from finegpr.weighing import Scale
from search.analysis.subset_diff import describe, searched
from search.loop import Evaluate, Generation, SearchConfig, SearchResult
from search.loop import search as search_space
from search.measured import Measured
from search.objectives import CellObjective, make_objective
from search.objectives.base import Objective
from search.optimizers import make_optimizer
from search.optimizers.proposer import Optimizer
from search.parallel import in_parallel
from search.rounds import RoundsConfig, search_in_rounds
from search.space import Budget, Space, SpaceConfig

SUBSET = "subset.json"
TRUE_RANKING, BEST_TRAINED = "true-ranking.json", "subset-trained.json"
NUM_RANDOM = 200


class SearchVerbConfig(SearchConfig):
    """The settings of the verb ``search``: those of a search, the budget, what bounds the subsets, whether to search in
    rounds, and how the terms are weighed."""

    budget: Budget
    space: SpaceConfig = SpaceConfig()
    rounds: RoundsConfig | None = None
    scale: Scale = "standardised"


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredSearch:
    """One search on measurements, at once or in rounds; the journals in ``folder`` make it resume."""

    config: SearchConfig
    space: Space
    measured: Measured
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
                objective = self._objective(self.measured)
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
                    self.measured,
                    self.folder,
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

    def _objective(self, measured: Measured) -> CellObjective:
        return make_objective(self.config.objective, self.space, measured)

    def _optimizer(self) -> Optimizer:
        config = self.config
        return make_optimizer(
            config.optimizer,
            self.space,
            seed=config.seed,
            evaluations=config.evaluations,
            options=config.optimizer_options,
        )


def tell(result: SearchResult, objective: CellObjective) -> str:
    """Say what a search found, beside random subsets, and in words, which are returned."""
    if result.notice:
        say(f"  {result.notice}")
    random = "none scored" if result.random_median is None else f"{result.random_median:.5g}"
    say(
        f"  {objective.name}: {result.score:.5g} {objective.unit} (median random {random}, "
        f"{'higher' if objective.higher_is_better else 'lower'} is better), "
        f"{result.num_evaluations} subsets in {result.num_generations} generations of {result.population}"
    )
    words = describe(result.subset, searched(objective.space))
    say(f"  {words}")
    return words


def _evaluate(objective: Objective) -> Evaluate:
    """On all cores; the journal does not depend on their number."""
    return in_parallel(objective.score, workers=len(os.sched_getaffinity(0)))
