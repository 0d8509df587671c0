"""The mixture of the source's cells against a world whose effects, shares and camera are known."""

from itertools import product

import numpy as np
import pytest

from search.analysis.compare import total_variation
from search.objectives.attribute_shares import em_shares
from search.objectives.cell_mixture import MAX_CELLS, AdditiveCells, grouped, shrunk

SIZES, DIMENSIONS = (4, 3), 30
SHARES = (np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.1, 0.2, 0.7]))


def effects(random: np.random.Generator) -> list[np.ndarray]:
    found = [1.2 * random.normal(size=(size, DIMENSIONS)) for size in SIZES]
    return [each - each.mean(axis=0) for each in found]


def drawn(
    random: np.random.Generator, effects: list[np.ndarray], shares: tuple[np.ndarray, ...], num: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sketches of unit variance round their cells' means, and the labels."""
    labels = [random.choice(len(each), size=num, p=each) for each in shares]
    means = sum(effect[codes] for effect, codes in zip(effects, labels, strict=True))
    return means + random.normal(size=(num, DIMENSIONS)), labels


@pytest.fixture(scope="module")
def world() -> tuple[AdditiveCells, np.ndarray, list[np.ndarray]]:
    """A fit to 3,000 images of even shares, 800 photos of SHARES by the same camera, and the effects."""
    random = np.random.default_rng(0)
    true = effects(random)
    even = tuple(np.full(size, 1 / size) for size in SIZES)
    sketches, labels = drawn(random, true, even, 3000)
    photos, _ = drawn(random, true, SHARES, 800)
    return AdditiveCells.fit(sketches, labels), photos, true


def test_effects_and_covariance_are_those_of_the_world(world: tuple) -> None:
    cells, _, true = world
    for found, planted in zip(cells.effects, true, strict=True):
        np.testing.assert_allclose(found - found.mean(axis=0), planted, atol=0.2)
    np.testing.assert_allclose(cells.covariance, np.eye(DIMENSIONS), atol=0.12)


def test_without_a_gap_the_shares_are_those_of_plain_em(world: tuple) -> None:
    """Posteriors of the same normal distributions, by Saerens et al.; what the camera changes is within the noise."""
    cells, photos, _ = world
    means = np.array(
        [
            cells.intercept + sum(e[c] for e, c in zip(cells.effects, code, strict=True))
            for code in product(*(range(size) for size in SIZES))
        ]
    )
    away = photos[:, None] - means
    logs = -0.5 * np.einsum("ncs,st,nct->nc", away, np.linalg.inv(cells.covariance), away)
    posterior = np.exp(logs - logs.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    joint = em_shares(posterior, np.full(len(means), 1 / len(means))).reshape(SIZES)
    unaligned, aligned = cells.mixture().shares(photos, np.ones(len(photos)))
    for found, moved, expected, planted in zip(
        unaligned, aligned, (joint.sum(axis=1), joint.sum(axis=0)), SHARES, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=0.01)
        np.testing.assert_allclose(moved, expected, atol=0.02)
        assert total_variation(moved, planted) < 0.05


@pytest.mark.parametrize("stretch", [0.7, 1.0, 1.4])
def test_a_camera_that_moves_and_stretches_all_photos_is_seen_through(world: tuple, stretch: float) -> None:
    cells, photos, true = world
    random = np.random.default_rng(1)
    shift = 0.6 * (true[0][3] - true[0][0]) + random.normal(size=DIMENSIONS)  # towards a value that no photo shows
    unaligned, aligned = cells.mixture().shares(stretch * photos + shift, np.ones(len(photos)))
    for found, planted in zip(aligned, SHARES, strict=True):
        assert total_variation(found, planted) < 0.1
    assert total_variation(unaligned[0], SHARES[0]) > 0.2


def test_weights_count_photos(world: tuple) -> None:
    """A photo that counts twice is the photo and its copy."""
    cells, photos, _ = world
    mixture, times = cells.mixture(), np.arange(60) % 3
    repeated = mixture.shares(np.repeat(photos[:60], times, axis=0), np.ones(times.sum()))
    for found, expected in zip(mixture.shares(photos[:60], times.astype(float)), repeated, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)


def test_moments_are_those_of_drawn_sketches(world: tuple) -> None:
    cells, _, true = world
    many, _ = drawn(np.random.default_rng(2), true, SHARES, 40_000)
    mean, deviation = cells.moments(SHARES)
    np.testing.assert_allclose(mean, many.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(deviation, many.std(axis=0), rtol=0.1)


def test_attributes_of_many_values_are_read_by_themselves() -> None:
    assert grouped([12, 7, 7]) == [[1, 2, 0]]
    assert grouped([36, 7, 7]) == [[1, 2], [0]]
    assert grouped([36, 7, 7, 9]) == [[1, 2, 3], [0]]
    assert grouped([5]) == [[0]]
    assert grouped([2 * MAX_CELLS, 1]) == [[1], [0]]


@pytest.mark.parametrize("num", [20, 200])
def test_a_shrunk_covariance_is_nearer_to_the_true_one_and_can_be_inverted(num: int) -> None:
    random = np.random.default_rng(3)
    scale = np.linspace(0.5, 2, 60)
    sample = random.normal(size=(num, 60)) * scale
    plain = sample.T @ sample / num
    found = shrunk(plain, num)
    true = np.diag(scale**2)
    assert np.square(found - true).sum() < np.square(plain - true).sum()
    assert np.trace(found) == pytest.approx(np.trace(plain))
    assert np.linalg.eigvalsh(found)[0] > 1e-3


def test_a_sphere_is_left_alone() -> None:
    np.testing.assert_array_equal(shrunk(2 * np.eye(5), 10), 2 * np.eye(5))


def test_attributes_of_one_value_and_single_images_are_no_fault() -> None:
    cells = AdditiveCells.fit(np.random.default_rng(0).normal(size=(2, 5)), [np.array([0, 0]), np.array([0, 1])])
    unaligned, aligned = cells.mixture().shares(np.ones((1, 5)), np.ones(1))
    for shares in (unaligned, aligned):
        assert shares[0] == pytest.approx([1.0])
        assert shares[1].sum() == pytest.approx(1.0)
