from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import linalg, stats
from scipy.cluster.vq import kmeans2

from finegpr.attributes import Attribute
from finegpr.catalog import Cells
from finegpr.errors import ConfigError, InputError
from search.selectors import SELECTORS, select
from search.selectors.pool import Pool, choose_people, holds
from search.selectors.snp import farthest_points, k_means, lloyd, nearest_union, principal, search_and_prune
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget

SHARES = {"attribute1": {"value0": 0.7, "value1": 0.3}, "attribute2": {"value0": 0.2, "value1": 0.3, "value2": 0.5}}


def pool_of(simulation: Simulation, *, target_shares: Any = SHARES, **changes: Any) -> Pool:
    return Pool(measured=replace(simulation.measured, **changes), target_shares=target_shares)


@pytest.fixture(scope="module")
def pool() -> Pool:
    """5 x 4 x 3 cells and 20 people, all measured; 2 people are junk and distractors, one row in ten is unlabelled."""
    simulation = simulate((5, 4, 3), seed=0, num_identities=20, identities_per_cell=20)
    identity = np.where(simulation.identity == 7, -1, np.where(simulation.identity == 3, 0, simulation.identity))
    of_row = simulation.cells.of_row.copy()
    of_row[::10] = -1
    return pool_of(simulation, identity=identity, cells=replace(simulation.cells, of_row=of_row))


BUDGETS = [
    Budget(images=100, identities=9),
    Budget(images=100),
    Budget(images=18, identities=18),
    Budget(images=5),
    Budget(images=300, identities=16),
]


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: f"{budget.images}of{budget.identities}")
@pytest.mark.parametrize("name", SELECTORS)
def test_contract(name: str, budget: Budget, pool: Pool) -> None:
    """Exactly B distinct drawable rows of exactly K people; the seed decides."""
    rows = select(name, pool, budget, seed=1)
    assert rows.dtype == np.int64
    assert rows.shape == (budget.images,)
    assert (np.diff(rows) > 0).all()
    assert (pool.measured.cells.of_row[rows] >= 0).all()
    assert (pool.measured.identity[rows] > 0).all()
    if budget.identities is not None:
        assert len(np.unique(pool.measured.identity[rows])) == budget.identities
    np.testing.assert_array_equal(rows, select(name, pool, budget, seed=1))
    assert any(not np.array_equal(rows, select(name, pool, budget, seed=seed)) for seed in range(2, 5))


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize(
    ("budget", "match"),
    [
        (
            Budget(images=2000),
            r"hold \d+ images of 18 identities, expected at least 2000 images; .* or lower the budget",
        ),
        (Budget(images=100, identities=19), "at least 100 images of 19 identities together"),
        (Budget(images=400, identities=6), "at least 400 images of 6 identities together"),
    ],
)
def test_a_pool_that_is_too_small_is_refused(name: str, budget: Budget, match: str, pool: Pool) -> None:
    with pytest.raises(InputError, match=match):
        select(name, pool, budget, seed=0)


def test_an_unknown_selector_is_refused(pool: Pool) -> None:
    with pytest.raises(ConfigError, match="no selector 'dsir'; known: importance, snp"):
        select("dsir", pool, Budget(images=5), seed=0)


def test_people_are_chosen_so_that_they_hold_the_budget() -> None:
    """Whenever any K people hold B images, so do those that are chosen, whatever their keys."""
    random = np.random.default_rng(0)
    for _ in range(300):
        available = random.integers(0, 8, size=6)
        num = int(random.integers(1, 6))
        budget = Budget(images=int(random.integers(num, 30)), identities=num)
        possible = any(
            available[list(people)].min() > 0 and available[list(people)].sum() >= budget.images
            for people in combinations(range(6), num)
        )
        assert holds(available, budget) == possible
        if possible:
            people = choose_people(available, random.uniform(size=6), num=num, images=budget.images)
            assert len(set(people.tolist())) == num
            assert available[people].min() > 0
            assert available[people].sum() >= budget.images


# --- importance


def one_person_each(weights: list[float]) -> Pool:
    """One image of each of n people, whose target shares are ``weights``; the source has each value once."""
    num = len(weights)
    attribute = Attribute(name="weather", values=tuple(f"w{place}" for place in range(num)))
    cells = Cells(
        attributes=(attribute,),
        codes=np.arange(num, dtype=np.int16)[:, None],
        of_row=np.arange(num),
        images=np.ones(num, dtype=np.int64),
    )
    shares = {"weather": dict(zip(attribute.values, weights, strict=True))}
    return pool_of(simulate((5, 4, 3), seed=0), cells=cells, identity=np.arange(1, num + 1), target_shares=shares)


def sequential_probabilities(weights: np.ndarray, num: int) -> dict[tuple[int, ...], float]:
    """Of each set: drawing one after the other without replacement, in proportion to the weights of what is left."""
    sets: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(num):
        larger: dict[tuple[int, ...], float] = {}
        for drawn, probability in sets.items():
            left = [place for place in range(len(weights)) if place not in drawn]
            for place in left:
                key = tuple(sorted((*drawn, place)))
                larger[key] = larger.get(key, 0.0) + probability * weights[place] / weights[left].sum()
        sets = larger
    return sets


@pytest.mark.parametrize("identities", [None, 2])
def test_importance_draws_without_replacement_by_the_ratio_of_shares(identities: int | None) -> None:
    """Against enumeration: images alone, or one-image people, are drawn by weight, one after the other."""
    weights = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    pool = one_person_each(weights.tolist())
    budget = Budget(images=2, identities=identities)
    num = 3000
    drawn = Counter(tuple(select("importance", pool, budget, seed=seed).tolist()) for seed in range(num))
    expected = sequential_probabilities(weights, 2)
    assert set(drawn) <= set(expected)
    counts = [drawn[key] for key in expected]
    assert stats.chisquare(counts, [num * probability for probability in expected.values()]).pvalue > 1e-3


@pytest.mark.parametrize("budget", [Budget(images=600), Budget(images=600, identities=100)], ids=["all", "some"])
def test_importance_brings_every_attribute_to_the_targets_shares(budget: Budget) -> None:
    """A source of other shares, a small part of which is drawn: within 4 standard errors."""
    simulation = simulate((5, 4, 3), seed=0, num_identities=600)
    random = np.random.default_rng(1)
    rows = np.arange(len(simulation.identity))
    # Value 0 of attribute1 is rare in the source: 8 in 10 of its rows are unlabelled.
    codes = simulation.cells.codes[simulation.cells.of_row]
    unlabelled = (codes[:, 1] == 0) & (random.uniform(size=len(rows)) < 0.8)
    cells = replace(simulation.cells, of_row=np.where(unlabelled, -1, simulation.cells.of_row))
    shares = {
        "attribute1": {"value0": 0.4, "value1": 0.3, "value2": 0.2, "value3": 0.1},
        "attribute2": SHARES["attribute2"],
    }
    chosen = select("importance", pool_of(simulation, cells=cells, target_shares=shares), budget, seed=2)
    for name, expected in shares.items():
        column = [attribute.name for attribute in cells.attributes].index(name)
        got = np.bincount(codes[chosen, column]) / budget.images
        wanted = np.array(list(expected.values()))
        # Without replacement the commonest values run short; that is a bias of the method, here below 0.02.
        tolerance = 4 * np.sqrt(wanted * (1 - wanted) / budget.images) + 0.02
        assert (np.abs(got - wanted) < tolerance).all()


def test_people_weigh_once() -> None:
    """Two kinds of people, of target share 0.8 and 0.2: chosen in proportion, then heard alike."""
    simulation = simulate((2, 2), seed=0, num_identities=400)
    attribute = Attribute(name="gender", values=("male", "female"), level="identity")
    gender = simulation.identity % 2
    cells = Cells(
        attributes=(attribute,),
        codes=np.array([[0], [1]], dtype=np.int16),
        of_row=gender,
        images=np.bincount(gender),
    )
    pool = pool_of(simulation, cells=cells, target_shares={"gender": {"male": 0.8, "female": 0.2}})
    shares = [
        np.mean(gender[select("importance", pool, Budget(images=60, identities=30), seed=seed)] == 0)
        for seed in range(60)
    ]
    # Of 200 men and 200 women 30 are drawn: nearly with replacement.
    assert abs(np.mean(shares) - 0.8) < 0.03


def test_a_value_the_target_never_has_is_never_drawn(pool: Pool) -> None:
    rows = select("importance", pool, Budget(images=200), seed=0)
    assert set(np.unique(pool.measured.cells.codes[pool.measured.cells.of_row[rows], 1])) == {0, 1}
    with pytest.raises(InputError, match="the images with values that the target has hold 4.. images of 18"):
        select("importance", pool, Budget(images=600), seed=0)


@pytest.mark.parametrize(
    ("shares", "error", "match"),
    [
        (None, ConfigError, "importance needs the target's shares"),
        (
            {"season": {"winter": 1.0}},
            InputError,
            "shares of 'season', which is not searched over; searched: viewpoint",
        ),
        ({"attribute1": {"hail": 1.0}}, InputError, "attribute1 has no value 'hail'"),
        ({"attribute1": {"value0": 0.7}}, InputError, "should be 0 or more and sum to 1"),
        ({"attribute1": {"value0": 1.5, "value1": -0.5}}, InputError, "should be 0 or more and sum to 1"),
        ({"attribute1": {"value0": float("nan")}}, InputError, "should be 0 or more and sum to 1"),
    ],
)
def test_wrong_shares_are_refused(shares: Any, error: type[Exception], match: str, pool: Pool) -> None:
    with pytest.raises(error, match=match):
        select("importance", replace(pool, target_shares=shares), Budget(images=5), seed=0)


# --- search and prune


def test_lloyd_is_scipys() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        x = random.normal(size=(80, 3))
        centres = x[random.permutation(80)[:6]]
        theirs = kmeans2(x, centres, iter=100, minit="matrix", missing="raise")[1]
        np.testing.assert_array_equal(lloyd(x, centres), theirs)


def test_k_means_finds_what_is_apart() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(5), 12)
    x = 50 * np.eye(5)[truth] + random.normal(size=(60, 5))
    found = k_means(x, 5, random)
    pairs = {(a, b) for a, b in zip(truth.tolist(), found.tolist(), strict=True)}
    assert len(pairs) == 5
    assert sorted(np.unique(k_means(np.repeat(np.eye(3), 4, axis=0), 8, random))) == [0, 1, 2]


def test_farthest_points_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3))
    x[30:] = x[:10]  # twins
    chosen = [5, 17]
    for _ in range(38):
        left = [place for place in range(40) if place not in chosen]
        gaps = [np.linalg.norm(x[place] - x[chosen], axis=1).min() for place in left]
        chosen.append(left[int(np.argmax(np.round(gaps, 9)))])
    found = farthest_points(x, np.array([5, 17]), 40)
    assert sorted(found.tolist()) == list(range(40))
    assert found[:30].tolist() == chosen[:30]
    assert farthest_points(x, np.array([5, 17]), 1).tolist() == [5]


@pytest.mark.parametrize("images", [10, 110, 190])
def test_the_union_is_the_nearest_of_all_that_hold_the_budget(images: int) -> None:
    """Against the images of every union themselves."""
    random = np.random.default_rng(4)
    person = np.repeat(np.arange(20), 10)
    cluster = np.arange(20) % 5
    place = np.array([[2.0, 0, 0], [0, 2, 0], [1, 1, 6], [-6, 0, 0], [0, -6, 0]]) - [9, 0, 0]
    x = random.normal(size=(200, 3)) + place[cluster[person]]
    target = random.normal(size=(80, 3)) * [1.5, 1.5, 1.0] + [-8.0, 1.0, 0.0]

    def distance(clusters: list[int]) -> float:
        union = x[np.isin(cluster[person], clusters)]
        c, d = np.cov(union.T, ddof=0), np.cov(target.T, ddof=0)
        gap = np.square(union.mean(0) - target.mean(0)).sum()
        return float(gap + np.trace(c + d - 2 * np.real(linalg.sqrtm(c @ d))))

    order = sorted(range(5), key=lambda label: distance([label]))
    unions = [order[:size] for size in range(1, 6) if 40 * size >= images]
    best = min(unions, key=distance)
    assert len(best) == {10: 2, 110: 3, 190: 5}[images]
    people = nearest_union(x, person, cluster, target, np.bincount(person), Budget(images=images))
    np.testing.assert_array_equal(people, np.flatnonzero(np.isin(cluster, best)))


def test_principal_coordinates_keep_distances_of_the_source() -> None:
    random = np.random.default_rng(0)
    source = (random.normal(size=(30, 4)) @ random.normal(size=(4, 9)) + 3).astype(np.float32)
    x, goal = principal(source, source[:5] + 1)
    assert x.shape == (30, 4)
    np.testing.assert_allclose(np.linalg.norm(x[0] - x, axis=1), np.linalg.norm(source[0] - source, axis=1), rtol=1e-4)
    assert goal.shape == (5, 4)


def looks(simulation: Simulation, of_person: np.ndarray, of_target: np.ndarray) -> Pool:
    """A pool whose people (place, S) and target (S,) look so, with a little noise."""
    random = np.random.default_rng(0)
    measured = simulation.measurements
    sketch = of_person[simulation.identity[measured.row] - 1] + 0.05 * random.normal(size=measured.sketch.shape)
    goal = of_target + 0.05 * random.normal(size=(60, sketch.shape[1]))
    measured = replace(
        measured, sketch=sketch.astype(np.float32), target_sketch={TARGET: goal.astype(np.float32)}, median=np.ones(6)
    )
    return pool_of(simulation, measurements=measured)


def test_snp_chooses_the_people_who_look_like_the_target() -> None:
    """120 people of whom every fourth looks like the target; with a budget of more, these come first."""
    simulation = simulate((3, 2), seed=0, num_identities=120, identities_per_cell=120)
    random = np.random.default_rng(3)
    kinds = 3 * random.normal(size=(4, simulation.measurements.sketch.shape[1]))
    pool = looks(simulation, kinds[np.arange(120) % 4], kinds[2])
    rows = search_and_prune(pool, Budget(images=100, identities=25), seed=0)
    assert set(pool.measured.identity[rows] % 4) == {3}  # identities count from 1
    rows = search_and_prune(pool, Budget(images=200, identities=40), seed=0)
    assert np.count_nonzero(np.unique(pool.measured.identity[rows]) % 4 == 3) > 15
    assert len(np.unique(pool.measured.identity[rows])) == 40


def test_snp_joins_clusters_where_the_target_is_of_two_kinds() -> None:
    simulation = simulate((3, 2), seed=0, num_identities=120, identities_per_cell=120)
    random = np.random.default_rng(3)
    kinds = 3 * random.normal(size=(4, simulation.measurements.sketch.shape[1]))
    kinds[2:] *= 3  # alone, a wrong kind halfway between the two would be nearer than either
    of_target = kinds[np.arange(60) % 2]
    pool = looks(simulation, kinds[np.arange(120) % 4], of_target)
    people = np.unique(pool.measured.identity[search_and_prune(pool, Budget(images=300), seed=0)])
    assert set((people - 1) % 4) == {0, 1}
    assert len(people) > 50


def test_snp_takes_diverse_images() -> None:
    """Of each person's six images five are near twins: the sixth is always among two."""
    simulation = simulate((3, 2), seed=0, num_identities=20, identities_per_cell=20)
    measured = simulation.measurements
    random = np.random.default_rng(0)
    sketch = 0.01 * random.normal(size=measured.sketch.shape)
    odd = simulation.cells.of_row[measured.row] == 4
    sketch[odd] += random.normal(size=(odd.sum(), sketch.shape[1]))
    measured = replace(measured, sketch=sketch.astype(np.float32), median=np.ones(6))
    pool = pool_of(simulation, measurements=measured)
    rows = search_and_prune(pool, Budget(images=40, identities=20), seed=0)
    assert np.count_nonzero(pool.measured.cells.of_row[rows] == 4) == 20


def test_snp_chooses_measured_images_only() -> None:
    simulation = simulate((5, 4, 3), seed=0, measured=0.5)
    pool = pool_of(simulation)
    rows = search_and_prune(pool, Budget(images=60), seed=0)
    assert np.isin(rows, simulation.measurements.row).all()
    with pytest.raises(InputError, match="the measured images hold 90 images of 12 identities, .* measure more images"):
        search_and_prune(pool, Budget(images=91), seed=0)
    with pytest.raises(InputError, match="target 'duke' was not measured; measured targets: target"):
        search_and_prune(replace(pool, measured=replace(pool.measured, target="duke")), Budget(images=10), seed=0)
    other = replace(simulation.measurements, num_catalog=7)
    with pytest.raises(InputError, match="measurements of a catalog of 7 images"):
        search_and_prune(replace(pool, measured=replace(pool.measured, measurements=other)), Budget(images=10), seed=0)
