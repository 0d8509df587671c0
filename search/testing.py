"""The contract of optimizers, as checks that every registered optimizer must pass."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finegpr.subset import Subset
from search.journal import JOURNAL
from search.loop import PENALTY, SearchResult, search
from search.optimizer import MakeOptimizer, Proposal
from search.space import Floats, Space

Check = Callable[[MakeOptimizer, Space, Path], None]
EVALUATIONS = 120


class TableObjective:
    """A cheap objective with a known optimum: number of values that differ from ``wanted``, plus noise by subset."""

    name = "table"
    unit = "values"
    higher_is_better = False

    def __init__(self, space: Space, wanted: npt.NDArray[np.bool_]) -> None:
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


def proposes_subsets_of_the_space(make: MakeOptimizer, space: Space, folder: Path) -> None:
    """Every proposal names every attribute, with known values, and ids are never used twice."""
    history = run(make, space, folder).history
    for trial in history:
        assert set(trial.subset.values) == {attribute.name for attribute in space.attributes}
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


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        proposes_subsets_of_the_space,
        respects_ask,
        follows_its_seed,
        spends_no_evaluation_twice,
        survives_failures,
        survives_duplicates,
        resumes,
        accepts_equal_losses,
    )
}
