"""The contracts of optimizers and objectives, as checks that every registered one must pass."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finegpr.arrays import Bools, Floats
from finegpr.subset import Subset
from search.journal import JOURNAL
from search.loop import PENALTY, Evaluate, SearchResult, search
from search.objectives.base import Objective
from search.optimizers.baselines import random_masks
from search.optimizers.proposer import MakeOptimizer, Optimizer
from search.space import Space
from search.trial import Proposal

Check = Callable[[MakeOptimizer, Space, Path], None]
ObjectiveCheck = Callable[[Objective, Space], None]
EVALUATIONS = 120


class TableObjective:
    """A cheap objective with a known optimum: number of values that differ from ``wanted``, plus noise by subset."""

    name = "table"
    unit = "values"
    higher_is_better = False

    def __init__(self, space: Space, wanted: Bools) -> None:
        self._space = space
        self._wanted = wanted
        self._tilt = np.linspace(0, 0.01, space.num_bits)

    def score(self, subsets: list[Subset]) -> Floats:
        """Scores (n,), lower is better."""
        masks = np.stack([self._space.mask(subset) for subset in subsets])
        return np.asarray((masks != self._wanted).sum(axis=1) + masks @ self._tilt)


def run(make: MakeOptimizer, space: Space, folder: Path, **changes: Any) -> SearchResult:
    """One search of ``EVALUATIONS`` subsets towards every second value."""
    objective = TableObjective(space, np.arange(space.num_bits) % 2 == 0)
    options: dict[str, Any] = {"config": {}, "num_random": 0, "evaluations": EVALUATIONS, **changes}
    optimizer = make(space, seed=options.pop("seed", 0), evaluations=options["evaluations"])
    return search(space, objective, optimizer, folder, **options)


class Recorder:
    """An optimizer that remembers what another one was asked for, proposed and was told."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.asks: list[tuple[int, list[Proposal]]] = []
        self.tells: list[list[tuple[Proposal, float]]] = []
        self._optimizer = optimizer

    @property
    def population(self) -> int:
        """The other's."""
        return self._optimizer.population

    def ask(self, num: int) -> list[Proposal]:
        """The other's proposals."""
        self.asks.append((num, self._optimizer.ask(num)))
        return list(self.asks[-1][1])

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """To the other."""
        self.tells.append(list(scored))
        self._optimizer.tell(scored)


def proposes_subsets_of_the_space(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """Every proposal names every attribute, with known values, and ids are never used twice."""
    history = run(make, space, folder).history
    for trial in history:
        assert set(trial.subset.values) == {attribute.name for attribute in space.attributes} | set(space.fixed)
        space.mask(trial.subset)
    assert len({trial.proposal for trial in history}) == len(history)


def respects_ask(make: MakeOptimizer, space: Space, folder: Path) -> None:  # noqa: ARG001 (one signature for all checks)
    """Never more proposals than asked for, and at least one at the start."""
    for num in (1, 3, 1000):
        assert 1 <= len(make(space, seed=0, evaluations=EVALUATIONS).ask(num)) <= num


def follows_its_seed(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """The same seed gives the same journal, byte by byte."""
    run(make, space, folder / "one", seed=5)
    run(make, space, folder / "two", seed=5)
    assert (folder / "one" / JOURNAL).read_bytes() == (folder / "two" / JOURNAL).read_bytes()


def spends_no_evaluation_twice(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """New subsets only are evaluated, and no more of them than allowed."""
    seen: list[str] = []
    objective = TableObjective(space, np.ones(space.num_bits, dtype=bool))

    def evaluate(subsets: list[Subset]) -> Floats:
        seen.extend(subset.key for subset in subsets)
        return objective.score(subsets)

    result = run(make, space, folder, evaluate=evaluate)
    assert len(seen) == len(set(seen)) == result.num_evaluations <= EVALUATIONS


def keeps_to_the_budget(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """Every evaluated subset holds the budget and its bounds, for few evaluations as for many."""
    for evaluations in (1, 7, EVALUATIONS):
        evaluated: list[Subset] = []
        objective = TableObjective(space, np.arange(space.num_bits) % 3 == 0)

        def evaluate(
            subsets: list[Subset], evaluated: list[Subset] = evaluated, score: Evaluate = objective.score
        ) -> Floats:
            evaluated.extend(subsets)
            return score(subsets)

        run(make, space, folder / str(evaluations), evaluate=evaluate, evaluations=evaluations)
        assert 1 <= len(evaluated) <= evaluations
        assert space.feasible(np.stack([space.mask(subset) for subset in evaluated])).all()


def is_told_what_it_asked(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """Every proposal is told once, in the order of the ask; never more were proposed than asked for."""
    recorders: list[Recorder] = []

    def record(space: Space, *, seed: int, evaluations: int) -> Recorder:
        recorders.append(Recorder(make(space, seed=seed, evaluations=evaluations)))
        return recorders[-1]

    result = run(record, space, folder)
    asks = [proposals for _, proposals in recorders[0].asks if proposals]
    assert asks == [[proposal for proposal, _ in told] for told in recorders[0].tells]
    assert all(len(proposals) <= num for num, proposals in recorders[0].asks)
    assert [trial.loss for trial in result.history] == [loss for told in recorders[0].tells for _, loss in told]


def refuses_other_tells(make: MakeOptimizer, space: Space, folder: Path) -> None:  # noqa: ARG001
    """A proposal told twice, left out or out of order is a ValueError, not a wrong search."""
    optimizer = make(space, seed=0, evaluations=EVALUATIONS)
    proposals = optimizer.ask(optimizer.population)
    scored = [(proposal, 1.0) for proposal in proposals]
    for wrong in (scored[:-1], [*scored, scored[-1]], [(Proposal(id=10**6, subset=proposals[0].subset), 1.0)]):
        try:
            optimizer.tell(wrong)
        except ValueError:
            continue
        raise AssertionError(f"{len(wrong)} losses were accepted for {len(scored)} proposals")
    optimizer.tell(scored)


def survives_failures(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """Three in ten subsets fail, by NaN or infinity: told as a finite penalty, never best, and the search goes on."""
    objective = TableObjective(space, np.ones(space.num_bits, dtype=bool))

    def evaluate(subsets: list[Subset]) -> Floats:
        scores = objective.score(subsets)
        digits = np.array([sum(subset.key.encode()) % 10 for subset in subsets])
        scores[digits == 0] = np.nan
        scores[digits == 1] = -np.inf
        scores[digits == 2] = np.inf
        return scores

    result = run(make, space, folder, evaluate=evaluate)
    failed = [trial for trial in result.history if trial.score is None]
    assert result.num_failed > 0
    assert all(trial.loss == PENALTY for trial in failed)
    assert np.isfinite(result.score)


def survives_duplicates(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """More evaluations than there are subsets: the search ends by itself, with duplicates told their first score."""
    result = run(make, space, folder, evaluations=10 * space.num_subsets)
    first: dict[str, float | None] = {}
    for trial in result.history:
        assert first.setdefault(trial.subset.key, trial.score) == trial.score
    assert result.num_evaluations <= space.num_subsets
    assert result.stopped != "all evaluations spent"


def resumes(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """A journal cut anywhere is completed to the same bytes and the same best subset."""
    whole = run(make, space, folder / "whole")
    data = (folder / "whole" / JOURNAL).read_bytes()
    header = data.index(b"\n") + 1
    for place, cut in enumerate(np.linspace(header, len(data) - 1, 4, dtype=int)):
        path = folder / f"cut{place}" / JOURNAL
        path.parent.mkdir()
        path.write_bytes(data[:cut])
        resumed = run(make, space, path.parent)
        assert path.read_bytes() == data
        assert (resumed.subset, resumed.score) == (whole.subset, whole.score)


def accepts_equal_losses(make: MakeOptimizer, space: Space, folder: Path) -> None:  # noqa: ARG001
    """A constant objective, even one that always fails, is no error."""
    for constant in (0.0, PENALTY):
        optimizer = make(space, seed=0, evaluations=EVALUATIONS)
        for _ in range(5):
            proposals: Sequence[Proposal] = optimizer.ask(optimizer.population)
            if not proposals:
                break
            optimizer.tell([(proposal, constant) for proposal in proposals])


def scores_each_subset(objective: Objective, space: Space) -> None:
    """One finite score each, for any number of subsets; the names and the direction are said."""
    assert objective.name
    assert objective.unit
    assert isinstance(objective.higher_is_better, bool)
    for subsets in ([], _random_subsets(space)[:1], _random_subsets(space)):
        scores = objective.score(subsets)
        assert scores.shape == (len(subsets),)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0


def scores_alone_as_together(objective: Objective, space: Space) -> None:
    """A score depends neither on the other subsets of the batch nor on their order, and is the same every time."""
    subsets = _random_subsets(space)
    scores = objective.score(subsets)
    np.testing.assert_allclose(objective.score(subsets[::-1])[::-1], scores, rtol=1e-9, atol=1e-12)
    alone = np.concatenate([objective.score([subset]) for subset in subsets])
    np.testing.assert_allclose(alone, scores, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(objective.score(subsets), scores)


def gives_no_score_outside_the_budget(objective: Objective, space: Space) -> None:
    """A subset that does not hold the images of the budget scores NaN, and does not disturb the others."""
    small = np.zeros(space.num_bits, dtype=bool)
    small[[block.start for block in space.blocks]] = True
    assert not space.feasible(small[None])[0]
    subsets = _random_subsets(space)[:3]
    scores = objective.score([subsets[0], space.subset(small), *subsets[1:]])
    assert np.isnan(scores[1])
    np.testing.assert_allclose(np.delete(scores, 1), objective.score(subsets), rtol=1e-9, atol=1e-12)


def _random_subsets(space: Space) -> list[Subset]:
    masks = np.unique(random_masks(space, 20, seed=0), axis=0)
    return [space.subset(mask) for mask in masks[space.feasible(masks)]]


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        proposes_subsets_of_the_space,
        respects_ask,
        follows_its_seed,
        spends_no_evaluation_twice,
        keeps_to_the_budget,
        is_told_what_it_asked,
        refuses_other_tells,
        survives_failures,
        survives_duplicates,
        resumes,
        accepts_equal_losses,
    )
}
OBJECTIVE_CHECKS: Mapping[str, ObjectiveCheck] = {
    check.__name__: check for check in (scores_each_subset, scores_alone_as_together, gives_no_score_outside_the_budget)
}
