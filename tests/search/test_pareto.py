import numpy as np
import pytest

from search.analysis.pareto import non_dominated, pareto_front
from search.optimizers.baselines import random_masks
from search.space import Space
from search.trial import Trial


def dominated_by_hand(costs: np.ndarray) -> list[int]:
    """Every pair compared; rows with NaN and repeated rows left out."""
    front = []
    for i, row in enumerate(costs):
        beaten = any((other <= row).all() and (other < row).any() for other in costs)
        repeated = any((costs[j] == row).all() for j in range(i))
        if not np.isnan(row).any() and not beaten and not repeated:
            front.append(i)
    return front


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_costs", [1, 2, 3])
def test_the_front_is_that_of_all_pairs(seed: int, num_costs: int) -> None:
    random = np.random.default_rng(seed)
    # Few levels, so that there are ties in one cost and equal rows.
    costs = random.integers(6, size=(80, num_costs)).astype(float)
    costs[random.random(costs.shape) < 0.05] = np.nan
    assert np.flatnonzero(non_dominated(costs)).tolist() == dominated_by_hand(costs)


def test_nothing_and_all_nan_have_an_empty_front() -> None:
    assert non_dominated(np.empty((0, 2))).shape == (0,)
    assert not non_dominated(np.full((3, 2), np.nan)).any()


def trials_of(space: Space, masks: np.ndarray, scores: np.ndarray) -> list[Trial]:
    return [
        Trial(
            index=place,
            generation=0,
            proposal=place,
            subset=space.subset(mask),
            status="scored" if np.isfinite(score) else "failed",
            score=float(score) if np.isfinite(score) else None,
            loss=float(score) if np.isfinite(score) else 1e12,
        )
        for place, (mask, score) in enumerate(zip(masks, scores, strict=True))
    ]


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_front_of_a_history(space: Space, higher_is_better: bool) -> None:
    random = np.random.default_rng(0)
    masks = np.unique(random_masks(space, 150, seed=0), axis=0)
    scores = random.normal(size=len(masks))
    scores[::10] = np.nan
    front = pareto_front(trials_of(space, masks, scores), space, higher_is_better=higher_is_better)
    images = space.num_images(masks)
    costs = np.stack([-scores if higher_is_better else scores, images], axis=1)
    expected = {(space.subset(masks[i]).key, scores[i], images[i]) for i in dominated_by_hand(costs)}
    assert {(point.subset.key, point.score, point.num_images) for point in front} == expected
    assert [point.num_images for point in front] == sorted(point.num_images for point in front)
    assert all(point.gpu_seconds is None for point in front)


def test_gpu_seconds_are_a_cost_of_their_own(space: Space) -> None:
    """When more images are cheaper, the larger of two equally good subsets is no longer beaten."""
    masks = np.ones((2, space.num_bits), dtype=bool)
    masks[0, 0] = False
    trials = trials_of(space, masks, np.array([1.0, 1.0]))
    assert len(pareto_front(trials, space)) == 1
    front = pareto_front(trials, space, gpu_seconds=lambda num: 1e6 / num)
    assert [point.gpu_seconds for point in front] == [1e6 / point.num_images for point in front]
    assert len(front) == 2


def test_failed_trials_and_no_trials_have_no_front(space: Space) -> None:
    masks = np.ones((1, space.num_bits), dtype=bool)
    assert pareto_front([], space) == ()
    assert pareto_front(trials_of(space, masks, np.array([np.nan])), space) == ()
