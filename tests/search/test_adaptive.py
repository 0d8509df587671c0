"""Adaptive sampling on simulated worlds: what it asks for, when it stops, and that it is worth it."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from pydantic import ValidationError

from finegpr.measuring.results import Measurements
from finegpr.weighing import Weighing
from search.adaptive.belief import believe
from search.adaptive.sampler import PAIRED, AdaptiveConfig, AdaptiveSampler, Decision
from search.loop import random_median, regret
from search.objectives import QUADRATIC, make_objective
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space

PEOPLE = 10
QUICK = AdaptiveConfig(batch=0.05)


@cache
def world(seed: int = 0, noise: float = 1.5) -> tuple[Simulation, Space, np.ndarray]:
    """5 x 4 x 3 cells with 10 images each, all of them measured, and the order in which to ask for them."""
    simulation = simulate((5, 4, 3), seed=seed, num_identities=PEOPLE, identities_per_cell=PEOPLE, noise=noise)
    budget = Budget(images=60, identities=8, least=0.1, most=0.4)
    space = Space(simulation.cells, simulation.identity, budget, seed=seed)
    priority = np.random.default_rng(seed).random(len(simulation.identity))
    return simulation, space, np.lexsort((priority, simulation.cells.of_row))


def take(measurements: Measurements, rows: np.ndarray) -> Measurements:
    """What would have been measured of these rows."""
    kept = np.isin(measurements.row, rows)
    per_image = ("row", "cell", "sketch", "norms", "off_basis")
    terms = {name: values[kept] for name, values in measurements.terms.items()}
    return replace(measurements, terms=terms, **{name: getattr(measurements, name)[kept] for name in per_image})


def make(config: AdaptiveConfig, seed: int = 0) -> AdaptiveSampler:
    simulation, space, order = world(seed)
    return AdaptiveSampler(config, space, simulation.identity, order, target=TARGET, weighing=Weighing())


def follow(config: AdaptiveConfig, seed: int = 0, *, most: int = 100) -> tuple[list[np.ndarray], list[Decision]]:
    """The batches and decisions of at most so many rounds."""
    sampler, (simulation, _, _) = make(config, seed), world(seed)
    batches, decisions = [sampler.first()], []
    while len(decisions) < most:
        measured = take(simulation.measurements, np.concatenate(batches))
        decisions.append(sampler.decide(measured, batches, [decision.subset for decision in decisions]))
        if decisions[-1].stopped:
            break
        batches.append(decisions[-1].rows)
    return batches, decisions


@pytest.mark.parametrize("objective", QUADRATIC)
def test_every_row_is_asked_for_once_and_never_more_than_the_ceiling(objective: str) -> None:
    config = QUICK.model_copy(update={"objective": objective, "ceiling": 0.37, "patience": 99, "tolerance": 0.0})
    batches, decisions = follow(config)
    rows = np.concatenate(batches)
    assert len(np.unique(rows)) == len(rows) == 222
    assert decisions[-1].stopped == "222 of 600 images are measured, the ceiling"
    assert len(decisions[-1].rows) == 0
    assert [len(batch) for batch in batches[1:-1]] == [30] * (len(batches) - 2)


def test_a_full_ceiling_ends_with_every_image() -> None:
    batches, decisions = follow(QUICK.model_copy(update={"ceiling": 1.0, "patience": 99, "tolerance": 0.0}))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(600))
    assert decisions[-1].expected_regret == 0
    assert decisions[-1].certainty == 1


def test_a_ceiling_below_the_seed_sample_cuts_it() -> None:
    batches, decisions = follow(QUICK.model_copy(update={"ceiling": 0.05}))
    assert [len(batch) for batch in batches] == [30]
    assert decisions[-1].stopped == "30 of 600 images are measured, the ceiling"


def test_images_of_a_cell_come_in_their_order() -> None:
    batches, _ = follow(QUICK)
    simulation, _, order = world()
    asked = np.concatenate(batches)
    for cell in range(len(simulation.cells)):
        in_order = order[simulation.cells.of_row[order] == cell]
        num = int(np.isin(in_order, asked).sum())
        assert set(in_order[:num]) <= set(asked.tolist())


def test_the_seed_sample_has_pairs_in_a_part_of_its_cells() -> None:
    simulation, _, _ = world()
    for share, num in ((1.0, 60), (0.5, 30)):
        two = math.ceil(PAIRED * num)
        rows = make(QUICK.model_copy(update={"seed_cells": share})).first()
        counts = np.bincount(simulation.cells.of_row[rows], minlength=60)
        assert (int((counts == 1).sum()), int((counts == 2).sum())) == (num - two, two)
        assert 0 < two < num


def test_the_same_past_gives_the_same_rows() -> None:
    """A run that goes on after any round decides as the one that was never interrupted."""
    batches, decisions = follow(QUICK, most=6)
    simulation, _, _ = world()
    for done in range(len(decisions)):
        measured = take(simulation.measurements, np.concatenate(batches[: done + 1]))
        past = [decision.subset for decision in decisions[:done]]
        again = make(QUICK).decide(measured, batches[: done + 1], past)
        np.testing.assert_array_equal(again.rows, decisions[done].rows)
        assert again.subset == decisions[done].subset
        assert again.expected_regret == decisions[done].expected_regret


def test_exploration_reaches_every_value_and_cell() -> None:
    config = QUICK.model_copy(update={"seed_cells": 0.2, "explore": 0.5, "patience": 99, "tolerance": 0.0})
    batches, _ = follow(config, most=6)
    simulation, _, _ = world()
    seed = np.bincount(simulation.cells.of_row[batches[0]], minlength=60)
    assert (seed > 0).sum() == 12
    asked = np.bincount(simulation.cells.of_row[np.concatenate(batches)], minlength=60)
    assert (asked > 0).all()


def test_most_images_go_where_the_decision_hangs_on_them() -> None:
    """Cells that no rival holds get no more than the share that explores; cells on the border get most."""
    config = QUICK.model_copy(update={"patience": 99, "tolerance": 0.0, "ceiling": 0.4})
    batches, decisions = follow(config)
    simulation, _, _ = world()
    counts = np.bincount(simulation.cells.of_row[np.concatenate(batches)], minlength=60)
    inside = np.mean([simulation.cells.mask(decision.subset) for decision in decisions[-3:]], axis=0)
    assert counts[inside > 0].mean() > 2 * counts[inside == 0].mean()


def test_it_stops_when_the_subset_stands() -> None:
    batches, decisions = follow(QUICK.model_copy(update={"patience": 2, "tolerance": 0.0, "ceiling": 1.0}))
    assert decisions[-1].stopped == "the subset is the same for 2 more rounds"
    chosen = [decision.subset for decision in decisions]
    assert chosen[-1] == chosen[-2] == chosen[-3]
    assert all(len({*chosen[end - 3 : end]}) > 1 for end in range(3, len(chosen)))
    assert sum(map(len, batches)) < 600


def test_it_stops_when_little_is_to_be_gained() -> None:
    _, decisions = follow(QUICK.model_copy(update={"patience": 99, "tolerance": 0.02, "ceiling": 1.0}))
    last = decisions[-1]
    assert last.stopped == "a better subset is expected to gain less than 0.02 of a random subset's regret"
    assert last.expected_regret < 0.02
    assert last.subset == decisions[-2].subset


def test_rows_that_could_not_be_read_are_not_asked_for_again() -> None:
    sampler, (simulation, _, _) = make(QUICK), world()
    first = sampler.first()
    decision = sampler.decide(take(simulation.measurements, first[5:]), [first], [])
    assert not np.isin(first, decision.rows).any()


def test_adaptive_images_decide_better_than_as_many_spread_evenly() -> None:
    """Mean regret under full measurement over five worlds, at the same number of images."""
    adaptive, even = [], []
    for seed in range(5):
        simulation, space, order = world(seed)
        full = make_objective("mmd_rbf", space, simulation.measured)
        sampler = make(QUICK.model_copy(update={"ceiling": 1.0}), seed)
        evenly = order.reshape(60, PEOPLE)[:, :3].ravel()
        best, spread = (
            sampler.decide(take(simulation.measurements, rows), [rows], []).subset for rows in (order, evenly)
        )
        _, decisions = follow(QUICK.model_copy(update={"patience": 99, "tolerance": 0.0, "ceiling": 0.3}), seed)
        least, *scores = full.score([best, decisions[-1].subset, spread]).tolist()
        middle = random_median(space, full.score, num=200, seed=seed)
        assert middle is not None
        for found, score in zip((adaptive, even), scores, strict=True):
            found.append(regret(score, best=least, random_median=middle))
    assert np.mean(adaptive) < 0.7 * np.mean(even), (adaptive, even)


@pytest.mark.parametrize("objective", QUADRATIC)
def test_what_is_believed_unknown_is_what_is_wrong(objective: str) -> None:
    """Draws scatter as widely as estimates do around the full measurement, in measured cells and in predicted ones."""
    simulation, space, order = world(0, noise=1.0)
    rows = order.reshape(60, PEOPLE)
    asked = np.concatenate([rows[:20, :2].ravel(), rows[20:45, :4].ravel()])
    part = make_objective(
        objective, space, replace(simulation.measured, measurements=take(simulation.measurements, asked))
    )
    full = make_objective(objective, space, simulation.measured)
    belief = believe(part.embedding, part.report, np.full(60, PEOPLE))
    random = np.random.default_rng(0)
    draws = np.stack([belief.draw(random) for _ in range(400)])
    # The linear parts of two embeddings differ by a constant that no score sees.
    error = part.embedding.linear - full.embedding.linear
    if objective == "mean_distance":
        for cells in (slice(0, 20), slice(20, 45), slice(45, 60)):
            believed = float(np.sqrt(np.square(draws[:, cells, -1]).mean()))
            assert 0.5 < float(np.sqrt(np.square(error[cells]).mean())) / believed < 2
    assert draws[:, :20].std() > draws[:, 20:45].std()
    assert believe(full.embedding, None, np.full(60, PEOPLE)).draw(random).any() is np.False_


def test_a_budget_that_leaves_no_neighbour_is_not_an_error() -> None:
    simulation, _, order = world()
    space = Space(simulation.cells, simulation.identity, Budget(images=60, least=0.98), seed=0)
    sampler = AdaptiveSampler(QUICK, space, simulation.identity, order, target=TARGET, weighing=Weighing())
    first = sampler.first()
    decision = sampler.decide(take(simulation.measurements, first), [first], [])
    assert space.mask(decision.subset).all()
    assert decision.expected_regret == 0
    assert len(decision.rows) == 30


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValidationError, match="needs a quadratic objective, got 'frechet'; expected mean_distance"):
        AdaptiveConfig(objective="frechet")
    with pytest.raises(ValidationError):
        AdaptiveConfig(explore=0.0)
    simulation, space, order = world()
    with pytest.raises(ValueError, match="cells ascending"):
        AdaptiveSampler(QUICK, space, simulation.identity, order[::-1], target=TARGET, weighing=Weighing())
