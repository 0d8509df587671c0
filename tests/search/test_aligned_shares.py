from dataclasses import replace

import numpy as np
import pytest

from search.analysis.compare import total_variation
from search.measured import Measured
from search.objectives.aligned_shares import make_aligned_shares
from search.objectives.attribute_shares import AttributeSharesForm, make_attribute_shares
from search.simulation import TARGET, Simulation, simulate


@pytest.fixture(scope="module")
def world() -> Simulation:
    """96 cells of 10 people each; the target shows half of every attribute's values."""
    return simulate((6, 4, 4), seed=3, interactions=0.1, identities_per_cell=10, num_target=400, noise=1.0)


def seen_by(world: Simulation, photos: np.ndarray) -> Measured:
    """The world with other sketches of the target."""
    measurements = replace(world.measurements, target_sketch={TARGET: photos.astype(np.float32)})
    return replace(world.measured, measurements=measurements)


def photographed(world: Simulation, *, by: float) -> Measured:
    """The target through one camera: deviations shrunk to 0.7, and ``by`` source deviations of shift, any way."""
    photos = world.measurements.target_sketch[TARGET].astype(np.float64)
    source = world.measurements.sketch.astype(np.float64)
    middle = photos.mean(axis=0)
    shift = by * source.std(axis=0) * np.random.default_rng(0).normal(size=len(middle))
    return seen_by(world, middle + 0.7 * (photos - middle) + shift)


def errors(world: Simulation, form: AttributeSharesForm) -> list[float]:
    """Total variation of each attribute's estimate to the planted shares."""
    found = []
    for attribute, estimate in zip(world.cells.attributes, form.estimate, strict=True):
        true = np.array([value in world.planted.values[attribute.name] for value in attribute.values], dtype=float)
        found.append(total_variation(np.array(estimate.shares), true / true.sum()))
    return found


def test_without_a_gap_nothing_is_lost(world: Simulation) -> None:
    form, report = make_aligned_shares(world.measured, seed=0)
    assert report is None
    unaligned, _ = make_attribute_shares(world.measured, seed=0)
    assert max(errors(world, form)) < 0.12
    assert np.mean(errors(world, form)) < np.mean(errors(world, unaligned)) + 0.02
    assert form.gap is not None
    assert form.gap.shift < 0.15
    assert form.gap.spread == pytest.approx(1, abs=0.1)
    assert form.gap.moved < 0.1


def test_through_another_camera_the_shares_are_found_and_the_gap_is_told(world: Simulation) -> None:
    measured = photographed(world, by=0.6)
    form, _ = make_aligned_shares(measured, seed=0)
    unaligned, _ = make_attribute_shares(measured, seed=0)
    assert np.mean(errors(world, form)) < 0.15
    assert np.mean(errors(world, unaligned)) > np.mean(errors(world, form)) + 0.1
    assert form.gap is not None
    assert form.gap.shift == pytest.approx(0.6, abs=0.15)
    assert form.gap.spread == pytest.approx(0.7, abs=0.1)
    assert form.gap.moved > 0.1
    assert form.gap.attribute in [attribute.name for attribute in world.cells.attributes]


def test_intervals_hold_the_shares_and_narrow_with_more_photos(world: Simulation) -> None:
    photos = world.measurements.target_sketch[TARGET]
    widths = []
    for measured in (world.measured, seen_by(world, photos[:40])):
        form, _ = make_aligned_shares(measured, seed=0)
        for each in form.estimate:
            assert each.low is not None
            assert each.high is not None
            assert all(
                0 <= low <= share <= high <= 1
                for low, share, high in zip(each.low, each.shares, each.high, strict=True)
            )
            assert sum(each.shares) == pytest.approx(1)
        widths.append(np.mean([np.subtract(each.high, each.low).mean() for each in form.estimate]))
    assert 2 < widths[1] / widths[0] < 5  # sqrt(10) = 3.2


def test_the_same_photos_give_the_same_numbers_whatever_the_seed(world: Simulation) -> None:
    first, second = (make_aligned_shares(world.measured, seed=seed)[0] for seed in (0, 1))
    assert first.estimate == second.estimate
    assert first.gap == second.gap


def test_few_images_of_every_cell_and_few_photos_suffice() -> None:
    """Two people in each of 96 cells, and 30 photos."""
    world = simulate((6, 4, 4), seed=3, interactions=0.1, identities_per_cell=2, num_target=30, noise=0.5)
    form, _ = make_aligned_shares(world.measured, seed=0)
    assert np.mean(errors(world, form)) < 0.2


def test_values_that_the_source_has_not_have_no_share() -> None:
    world = simulate((4, 3), seed=1, identities_per_cell=6, num_target=100)
    kept = world.cells.codes[world.cells.of_row[world.measurements.row], 1] != 2
    measurements = replace(world.measurements, row=world.measurements.row[kept], sketch=world.measurements.sketch[kept])
    form, _ = make_aligned_shares(replace(world.measured, measurements=measurements), seed=0)
    estimate = form.estimate[1]
    assert (estimate.shares[2], estimate.low[2], estimate.high[2]) == (0, 0, 0)
    assert sum(estimate.shares) == pytest.approx(1)
