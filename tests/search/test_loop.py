import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegpr.errors import InputError, StateError
from finegpr.subset import Subset
from search.journal import JOURNAL
from search.loop import PENALTY, Generation, regret, search
from search.optimizers import OPTIMIZERS
from search.space import Space
from search.testing import TableObjective, run
from search.trial import Proposal

SWARM = OPTIMIZERS["swarm"]


class Script:
    """An optimizer that proposes given masks, then nothing."""

    def __init__(self, space: Space, generations: list[list[np.ndarray]]) -> None:
        self.population = max(len(masks) for masks in generations)
        self.told: list[float] = []
        self._space = space
        self._generations = list(generations)
        self._next_id = 0

    def ask(self, num: int) -> list[Proposal]:  # noqa: ARG002
        masks = self._generations.pop(0) if self._generations else []
        self._next_id += len(masks)
        first = self._next_id - len(masks)
        return [Proposal(id=first + place, subset=self._space.subset(mask)) for place, mask in enumerate(masks)]

    def tell(self, scored: list[tuple[Proposal, float]]) -> None:
        self.told += [loss for _, loss in scored]


def masks_of(space: Space, num: int) -> list[np.ndarray]:
    return list(np.unique(space.decode(np.random.default_rng(0).normal(size=(50, space.num_bits))), axis=0)[:num])


def run_script(space: Space, folder: Path, generations: list[list[np.ndarray]], **options: Any) -> Any:
    script = Script(space, generations)
    objective = TableObjective(space, np.ones(space.num_bits, dtype=bool))
    options = {"evaluations": 100, "config": {}, "num_random": 0, **options}
    return search(space, objective, script, folder, **options), script


def test_duplicates_within_and_across_generations_cost_nothing_and_are_told(space: Space, tmp_path: Path) -> None:
    a, b, c = masks_of(space, 3)
    batches: list[int] = []
    objective = TableObjective(space, np.ones(space.num_bits, dtype=bool))

    def evaluate(subsets: list[Subset]) -> np.ndarray:
        batches.append(len(subsets))
        return objective.score(subsets)

    result, script = run_script(space, tmp_path, [[a, b, a], [b, c]], evaluate=evaluate)
    assert batches == [2, 1]
    assert [trial.status for trial in result.history] == ["scored", "scored", "duplicate", "duplicate", "scored"]
    assert script.told[0] == script.told[2]
    assert script.told[1] == script.told[3]
    assert (result.num_evaluations, result.num_duplicates) == (3, 2)
    assert result.stopped == "the optimizer has nothing new to propose"


def test_subsets_outside_the_budget_are_told_a_penalty_and_never_evaluated(space: Space, tmp_path: Path) -> None:
    small = np.zeros(space.num_bits, dtype=bool)
    small[[block.start for block in space.blocks]] = True
    result, script = run_script(space, tmp_path, [[small, masks_of(space, 1)[0]]])
    assert [trial.status for trial in result.history] == ["infeasible", "scored"]
    assert script.told[0] == PENALTY
    assert result.num_infeasible == 1


def test_higher_is_better_is_told_as_a_loss(space: Space, tmp_path: Path) -> None:
    masks = masks_of(space, 5)
    objective = TableObjective(space, np.ones(space.num_bits, dtype=bool))
    objective.higher_is_better = True
    script = Script(space, [masks])
    result = search(space, objective, script, tmp_path, evaluations=9, config={}, num_random=20)
    scores = objective.score([space.subset(mask) for mask in masks])
    np.testing.assert_allclose(script.told, -scores)
    assert result.score == pytest.approx(scores.max())
    assert result.random_median is not None


def test_a_search_where_everything_fails_stops(space: Space, tmp_path: Path) -> None:
    calls = []

    def evaluate(subsets: list[Subset]) -> np.ndarray:
        calls.append(len(subsets))
        return np.full(len(subsets), np.nan)

    with pytest.raises(InputError, match="every evaluation of 3 generations in a row failed"):
        run(SWARM, space, tmp_path, evaluate=evaluate)
    assert len(calls) == 3


def test_a_search_without_any_score_says_so(space: Space, tmp_path: Path) -> None:
    small = np.zeros(space.num_bits, dtype=bool)
    small[[block.start for block in space.blocks]] = True
    with pytest.raises(InputError, match=r"none of 1 proposed subsets got a score \(1 did not fit"):
        run_script(space, tmp_path, [[small]])


def test_a_wrong_number_of_scores_is_our_own_mistake(space: Space, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="should give 20 scores"):
        run(SWARM, space, tmp_path, evaluate=lambda subsets: np.zeros(len(subsets) + 1))


def test_resuming_evaluates_nothing_again(space: Space, tmp_path: Path) -> None:
    whole = run(SWARM, space, tmp_path)

    def evaluate(subsets: list[Subset]) -> np.ndarray:
        raise AssertionError(f"evaluated {len(subsets)} subsets again")

    ticks: list[Generation] = []
    again = run(SWARM, space, tmp_path, evaluate=evaluate, progress=ticks.append)
    assert again == whole
    assert all(tick.replayed for tick in ticks)
    assert ticks[-1].best == whole.score
    assert ticks[-1].num_evaluations == whole.num_evaluations


def test_a_batch_evaluated_in_another_way_gives_the_same_journal(space: Space, tmp_path: Path) -> None:
    """The parallel seam: scoring one by one, with the last bits of every score changed, changes nothing."""
    objective = TableObjective(space, np.arange(space.num_bits) % 2 == 0)

    def evaluate(subsets: list[Subset]) -> np.ndarray:
        return np.array([objective.score([subset])[0] * (1 + 2e-16) for subset in subsets])

    run(SWARM, space, tmp_path / "batch")
    run(SWARM, space, tmp_path / "single", evaluate=evaluate)
    assert (tmp_path / "batch" / JOURNAL).read_bytes() == (tmp_path / "single" / JOURNAL).read_bytes()


def test_a_journal_of_another_search_is_refused(space: Space, tmp_path: Path) -> None:
    run(SWARM, space, tmp_path)
    with pytest.raises(StateError, match="num_evaluations: was 120, now 60"):
        run(SWARM, space, tmp_path, evaluations=60)
    with pytest.raises(StateError, match="seed: was null, now 3"):
        run(SWARM, space, tmp_path, config={"seed": 3})
    # A seed that the caller forgot to put into the config shows when the proposals are asked again.
    with pytest.raises(StateError, match="in generation 0, proposal 0, the journal has .* this optimizer asks"):
        run(SWARM, space, tmp_path, seed=3)


def run_slowly(space: Space, folder: Path) -> None:
    objective = TableObjective(space, np.arange(space.num_bits) % 2 == 0)

    def evaluate(subsets: list[Subset]) -> np.ndarray:
        time.sleep(0.1)
        return objective.score(subsets)

    run(SWARM, space, folder, evaluate=evaluate)


def test_a_search_killed_twice_leaves_the_same_bytes(space: Space, tmp_path: Path) -> None:
    whole = run(SWARM, space, tmp_path / "whole")
    path = tmp_path / "killed" / JOURNAL
    sizes = []
    for num_lines in (25, 60):
        process = multiprocessing.get_context("fork").Process(target=run_slowly, args=(space, path.parent))
        process.start()
        deadline = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < num_lines:
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.join()
        sizes.append(path.stat().st_size)
    expected = (tmp_path / "whole" / JOURNAL).read_bytes()
    assert sizes[0] < sizes[1] < len(expected)
    resumed = run(SWARM, space, path.parent)
    assert path.read_bytes() == expected
    assert (resumed.subset, resumed.score) == (whole.subset, whole.score)


def test_a_space_that_is_spent_ends_the_search(space: Space, tmp_path: Path) -> None:
    mask = masks_of(space, 1)[0]
    result, _ = run_script(space, tmp_path, [[mask]] * 40)
    assert result.stopped == "no new subset in 25 generations"
    assert result.num_generations == 26


def test_regret_is_0_at_the_best_and_1_at_a_random_subset() -> None:
    assert regret(3.0, best=3.0, random_median=9.0) == 0
    assert regret(9.0, best=3.0, random_median=9.0) == 1
    assert regret(6.0, best=9.0, random_median=3.0) == 0.5
    assert regret(3.0, best=3.0, random_median=3.0) == 0
