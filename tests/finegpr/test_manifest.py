import numpy as np
import pytest

from finegpr.attributes import Attribute
from finegpr.catalog import Cells
from finegpr.errors import InputError
from finegpr.manifest import Sampler
from finegpr.subset import Subset


def make_cells(counts: np.ndarray, seed: int = 0) -> tuple[Cells, np.ndarray]:
    """Cells of one attribute, with ``counts[identity, cell]`` images of identities 1, 2, ..., rows shuffled."""
    num_identities, num_cells = counts.shape
    identity = np.repeat(np.arange(1, num_identities + 1), counts.sum(axis=1))
    of_row = np.concatenate([np.repeat(np.arange(num_cells), row) for row in counts])
    order = np.random.default_rng(seed).permutation(len(identity))
    attribute = Attribute(name="weather", values=tuple(f"w{place}" for place in range(num_cells)))
    cells = Cells(
        attributes=(attribute,),
        codes=np.arange(num_cells, dtype=np.int16)[:, None],
        of_row=of_row[order],
        images=counts.sum(axis=0),
    )
    return cells, identity[order]


UNEVEN = np.array([[5, 0, 2, 1], [1, 1, 1, 1], [0, 3, 0, 0], [5, 0, 2, 1], [2, 6, 9, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(("budget", "identities"), [(17, None), (3, None), (14, 3), (11, 4), (20, 5), (5, 1)])
def test_expected_shares_are_the_mean_of_many_draws(budget: int, identities: int | None) -> None:
    cells, identity = make_cells(UNEVEN)
    sampler = Sampler(cells, identity, budget=budget, identities=identities, seed=3)
    for mask in (np.ones(4, dtype=bool), np.array([True, False, True, True])):
        if not sampler.feasible(mask[None])[0]:
            continue
        counts = np.stack(
            [np.bincount(cells.of_row[sampler.draw(mask, seed=seed)], minlength=4) for seed in range(700)]
        )
        expected = sampler.expected_shares(mask[None])[0]
        error = counts.std(axis=0) / np.sqrt(len(counts))
        np.testing.assert_array_less(np.abs(counts.mean(axis=0) - expected * budget), 4 * error + 1e-9)
        assert expected.sum() == pytest.approx(1)


def make_groups(of_identity: list[int], identity: np.ndarray) -> Cells:
    """Groups of identities 1, 2, ... by one identity-level attribute; -1 is unknown."""
    attribute = Attribute(name="gender", values=("male", "female", "other"), level="identity")
    of_row = np.array(of_identity)[identity - 1]
    return Cells(
        attributes=(attribute,),
        codes=np.arange(3, dtype=np.int16)[:, None],
        of_row=of_row,
        images=np.bincount(of_row[of_row >= 0], minlength=3),
    )


@pytest.mark.parametrize(("budget", "identities"), [(17, None), (3, None), (14, 3), (11, 4)])
def test_expected_shares_of_groups_are_the_mean_of_many_draws(budget: int, identities: int | None) -> None:
    cells, identity = make_cells(UNEVEN)
    groups = make_groups([0, 1, 1, 0, 2, 2], identity)
    sampler = Sampler(cells, identity, budget=budget, identities=identities, seed=3, groups=groups)
    for chosen in (["male", "female", "other"], ["male", "other"]):
        subset = Subset({"gender": chosen, "weather": ["w0", "w2", "w3"]})
        cell_mask = cells.mask(Subset({"weather": ["w0", "w2", "w3"]}))[None]
        group_mask = groups.mask(Subset({"gender": chosen}))[None]
        if not sampler.feasible(cell_mask, group_mask)[0]:
            with pytest.raises(InputError, match="expected at least"):
                sampler.draw(subset, seed=0)
            continue
        counts = []
        for seed in range(500):
            rows = sampler.draw(subset, seed=seed)
            of_cell = np.bincount(cells.of_row[rows], minlength=4)
            counts.append(np.concatenate([of_cell, np.bincount(groups.of_row[rows], minlength=3)]))
        expected = sampler.expected_shares(cell_mask, group_mask)[0]
        error = np.std(counts, axis=0) / np.sqrt(len(counts))
        np.testing.assert_array_less(np.abs(np.mean(counts, axis=0) - expected * budget), 4 * error + 1e-9)
        assert expected[4:][~group_mask[0]].sum() == 0


def test_groups_of_people_act_like_cells_of_their_own() -> None:
    """Leaving a group out is the same as leaving its people's rows out of the catalog."""
    random = np.random.default_rng(1)
    cells, identity = make_cells(random.integers(0, 4, (30, 12)))
    groups = make_groups(random.integers(0, 3, 30).tolist(), identity)
    masks = random.random((40, 12)) < 0.6
    for budget, identities in ((50, 10), (60, None)):
        options = {"budget": budget, "identities": identities, "seed": 0}
        whole = Sampler(cells, identity, groups=groups, **options)
        for chosen in ([True, True, True], [False, True, True], [True, False, False]):
            inside = np.append(chosen, False)[groups.of_row]
            less = Sampler(cells, np.where(inside, identity, -1), **options)
            # The priority is by identity: it must not depend on who is left out.
            kept = np.unique(identity[inside]) - 1
            less._priority = np.argsort(np.argsort(whole._priority[kept]))
            group_masks = np.tile(chosen, (len(masks), 1))
            np.testing.assert_array_equal(whole.images(masks, group_masks), less.images(masks))
            np.testing.assert_array_equal(whole.feasible(masks, group_masks), less.feasible(masks))
            np.testing.assert_array_equal(whole.num_identities(masks, group_masks), less.num_identities(masks))
            shares, feasible = whole.expect(masks, group_masks)
            np.testing.assert_allclose(shares[:, :12], less.expected_shares(masks), atol=1e-12)
            np.testing.assert_array_equal(feasible, less.feasible(masks))
    np.testing.assert_array_equal(whole.images(masks), whole.images(masks, np.ones((40, 3), dtype=bool)))


def test_people_of_unknown_group_are_never_drawn_and_of_two_groups_refused() -> None:
    cells, identity = make_cells(np.full((4, 2), 5))
    sampler = Sampler(cells, identity, budget=30, identities=None, seed=0, groups=make_groups([0, -1, 1, 1], identity))
    assert set(identity[sampler.draw(np.ones(2, dtype=bool), seed=0)]) == {1, 3, 4}
    np.testing.assert_array_equal(sampler.people_of_group, [1, 2, 0])
    groups = make_groups([0, 0, 1, 1], identity)
    groups.of_row[np.flatnonzero(identity == 3)[0]] = 0
    with pytest.raises(InputError, match="identity 3 has images of several groups of gender"):
        Sampler(cells, identity, budget=30, identities=None, seed=0, groups=groups)


def test_expected_shares_of_many_masks_equal_those_of_each() -> None:
    random = np.random.default_rng(1)
    cells, identity = make_cells(random.integers(0, 4, (30, 12)))
    sampler = Sampler(cells, identity, budget=50, identities=10, seed=0)
    masks = random.random((40, 12)) < 0.6
    together = sampler.expected_shares(masks)
    np.testing.assert_allclose(together, np.concatenate([sampler.expected_shares(mask[None]) for mask in masks]))
    assert (together[~masks] == 0).all()


def test_a_draw_has_exactly_the_budget_of_distinct_rows_inside_the_subset() -> None:
    cells, identity = make_cells(UNEVEN)
    sampler = Sampler(cells, identity, budget=14, identities=3, seed=0)
    rows = sampler.draw(Subset({"weather": ["w0", "w1", "w2"]}), seed=1)
    assert len(rows) == 14
    assert (np.diff(rows) > 0).all()
    assert set(cells.of_row[rows]) <= {0, 1, 2}
    assert len(set(identity[rows])) == 3


@pytest.mark.parametrize("seed", range(5))
def test_water_filling_favours_nobody(seed: int) -> None:
    """Whoever has fewer images than somebody else's minus one has given all; the same for cells of a person."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 5, (9, 6))
    cells, identity = make_cells(counts, seed)
    rows = Sampler(cells, identity, budget=40, identities=None, seed=seed).draw(np.ones(6, dtype=bool), seed=seed)
    taken = np.zeros_like(counts)
    np.add.at(taken, (identity[rows] - 1, cells.of_row[rows]), 1)
    for got, available in [(taken.sum(axis=1), counts.sum(axis=1)), *zip(taken, counts, strict=True)]:
        assert (got[got < available] >= got.max() - 1).all()


def test_identities_that_fill_their_share_come_first_then_a_priority_that_ignores_the_subset() -> None:
    counts = np.full((20, 4), 2)
    counts[:5] = 1
    cells, identity = make_cells(counts)
    sampler = Sampler(cells, identity, budget=30, identities=6, seed=0)
    drawn = [
        set(identity[sampler.draw(np.array(mask, dtype=bool), seed=seed)].tolist())
        for seed, mask in enumerate([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]])
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    assert not drawn[0] & set(range(1, 6))
    other = Sampler(cells, identity, budget=30, identities=6, seed=1).draw(np.ones(4, dtype=bool), seed=0)
    assert set(identity[other].tolist()) != drawn[0]


@pytest.mark.parametrize("identities", [None, 8])
def test_all_of_a_subset_is_every_image_of_it_that_the_people_of_a_draw_have(identities: int | None) -> None:
    cells, identity = make_cells(np.random.default_rng(4).integers(0, 6, (20, 5)))
    identity[identity == 7] = -1
    sampler = Sampler(cells, identity, budget=60, identities=identities, seed=0)
    for mask in ([1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]):
        inside = np.array(mask, dtype=bool)
        people = sampler.people(inside)
        drawn = np.unique(identity[sampler.draw(inside, seed=1)])
        np.testing.assert_array_equal(people, drawn)
        expected = np.flatnonzero(np.isin(identity, drawn) & inside[cells.of_row])
        np.testing.assert_array_equal(sampler.all_of(inside), expected)
        assert set(sampler.draw(inside, seed=2)) < set(expected.tolist())
    nobody = np.zeros(5, dtype=bool)
    assert len(sampler.people(nobody)) == len(sampler.all_of(nobody)) == 0
    few = np.array([1, 0, 0, 0, 0], dtype=bool)
    sampler = Sampler(cells, identity, budget=150, identities=identities, seed=0)
    assert not sampler.feasible(few[None])[0]
    assert len(sampler.people(few)) == (identities or len(np.unique(identity[(cells.of_row == 0) & (identity > 0)])))


def test_feasible_means_that_a_draw_succeeds_and_grows_with_the_mask() -> None:
    random = np.random.default_rng(2)
    cells, identity = make_cells(random.integers(0, 3, (8, 10)))
    sampler = Sampler(cells, identity, budget=25, identities=4, seed=0)
    masks = random.random((200, 10)) < 0.5
    feasible = sampler.feasible(masks)
    assert 0 < feasible.sum() < len(masks)
    for mask, holds in zip(masks, feasible, strict=True):
        if holds:
            assert len(sampler.draw(mask, seed=0)) == 25
            more = mask | (random.random(10) < 0.3)
            assert sampler.feasible(more[None])[0]
        else:
            with pytest.raises(InputError, match="expected at least 25 images of 4 identities"):
                sampler.draw(mask, seed=0)


def test_infeasible_says_what_was_got() -> None:
    cells, identity = make_cells(UNEVEN)
    sampler = Sampler(cells, identity, budget=12, identities=None, seed=0)
    with pytest.raises(InputError, match="holds 4 images of 4 identities, expected at least 12 images"):
        sampler.draw(Subset({"weather": ["w3"]}), seed=0)
    with pytest.raises(InputError, match="1 <= identities <= images"):
        Sampler(cells, identity, budget=3, identities=4, seed=0)


def test_junk_distractors_and_unknown_attributes_are_never_drawn() -> None:
    cells, identity = make_cells(np.full((4, 2), 5))
    identity[:6] = -1
    identity[6:9] = 0
    cells.of_row[9:12] = -1
    sampler = Sampler(cells, identity, budget=28, identities=None, seed=0)
    assert sampler.images(np.ones((1, 2), dtype=bool))[0] == 28
    np.testing.assert_array_equal(sampler.draw(np.ones(2, dtype=bool), seed=0), np.arange(12, 40))


def test_the_seed_decides_the_draw() -> None:
    cells, identity = make_cells(np.full((6, 5), 4))
    sampler = Sampler(cells, identity, budget=30, identities=5, seed=0)
    mask = np.ones(5, dtype=bool)
    np.testing.assert_array_equal(sampler.draw(mask, seed=4), sampler.draw(mask, seed=4))
    assert not np.array_equal(sampler.draw(mask, seed=4), sampler.draw(mask, seed=5))


def test_a_full_grid_gives_even_shares() -> None:
    cells, identity = make_cells(np.full((6, 5), 3))
    sampler = Sampler(cells, identity, budget=40, identities=4, seed=0)
    shares = sampler.expected_shares(np.array([[1, 0, 1, 1, 1]], dtype=bool))[0]
    np.testing.assert_allclose(shares, [0.25, 0, 0.25, 0.25, 0.25])
