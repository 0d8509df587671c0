import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from finegpr.attributes import Attribute
from finegpr.catalog import Cells
from search.objectives.samples import Samples
from search.objectives.surrogate import fit_surrogate


def make_cells(sizes: tuple[int, ...]) -> Cells:
    degrees = tuple(f"{360 * step / sizes[0]:g}deg" for step in range(sizes[0]))
    attributes = [Attribute(name="viewpoint", values=degrees, circular=True)]
    attributes += [
        Attribute(name=f"a{place}", values=tuple(str(value) for value in range(size)))
        for place, size in enumerate(sizes[1:])
    ]
    codes = np.array(list(product(*(range(size) for size in sizes))), dtype=np.int16)
    return Cells(
        attributes=tuple(attributes), codes=codes, of_row=np.arange(len(codes)), images=np.ones(len(codes), dtype=int)
    )


def make_samples(cells: Cells, means: np.ndarray, *, noise: float, k: int = 3, num_people: int = 8) -> Samples:
    random = np.random.default_rng(0)
    cell = np.repeat(np.arange(len(cells)), k)
    identity = np.concatenate([random.permutation(num_people)[:k] + 1 for _ in range(len(cells))])
    values = means[cell] + noise * random.normal(size=(len(cell), means.shape[1]))
    names = tuple(f"q{place}" for place in range(means.shape[1]))
    return Samples(values=values, names=names, cell=cell, identity=identity, num_cells=len(cells))


def interacting(cells: Cells, strength: float) -> np.ndarray:
    """Main effects, and a product of the viewpoint's cosine with the first half of an attribute's values."""
    random = np.random.default_rng(1)
    angle = 2 * np.pi * cells.codes[:, 0] / len(cells.attributes[0].values)
    main = random.normal(size=len(cells.attributes[1].values))[cells.codes[:, 1]] + np.sin(angle)
    side = np.where(cells.codes[:, 1] < len(cells.attributes[1].values) // 2, 1.0, -1.0)
    return np.stack([main + strength * side * np.cos(angle), main - strength * side], axis=1)


def test_it_finds_what_a_ridge_on_main_effects_cannot() -> None:
    cells = make_cells((12, 6, 4))
    samples = make_samples(cells, interacting(cells, 1.0), noise=0.2)
    report = fit_surrogate(cells, samples, seed=0).report
    assert report.trusted
    assert report.warnings == ()
    for split in ("cells", "value pairs"):
        trees, ridge = report.mean_r2(split)
        assert trees > ridge + 0.05
        assert trees > 0.9
    first = next(score for score in report.scores if (score.split, score.quantity) == ("cells", "q0"))
    assert first.spearman > first.ridge_spearman
    assert first.num_held_out == len(cells)
    assert abs(first.bias) < 0.05


def test_it_is_not_trusted_silently_on_noise() -> None:
    cells = make_cells((12, 4, 3))
    samples = make_samples(cells, np.zeros((144, 3)), noise=1.0)
    report = fit_surrogate(cells, samples, seed=0).report
    assert not report.trusted
    assert any("does not beat a ridge on unseen cells" in warning for warning in report.warnings)
    assert "ridge" in report.warnings[-1]
    assert all(score.r2 < 0.2 for score in report.scores)
    assert all(score.ceiling is not None and score.ceiling < 0.3 for score in report.scores if score.split == "cells")


def test_the_ceiling_is_the_share_of_variance_that_is_not_noise() -> None:
    """Cell means of 3 people with noise 1 around means of variance 2: at most 1 - (1/3) / (2 + 1/3) = 0.857."""
    cells = make_cells((12, 7, 7))
    means = np.sqrt(2) * np.random.default_rng(2).normal(size=(len(cells), 1))
    report = fit_surrogate(cells, make_samples(cells, means, noise=1.0), seed=0).report
    ceiling = next(score.ceiling for score in report.scores if score.split == "cells")
    assert ceiling == pytest.approx(0.857, abs=0.03)


def test_it_predicts_cells_that_nobody_measured() -> None:
    cells = make_cells((12, 6, 4))
    means = interacting(cells, 1.0)
    samples = make_samples(cells, means, noise=0.1)
    seen = np.random.default_rng(3).random(len(cells)) < 0.6
    surrogate = fit_surrogate(cells, samples.take(seen[samples.cell]), seed=0)
    assert surrogate.report.num_unmeasured == (~seen).sum()
    predicted = surrogate.predict_cells(cells.codes[~seen])
    error = np.square(predicted - means[~seen]).mean(axis=0) / means[~seen].var(axis=0)
    assert (error < 0.1).all()


def test_positive_quantities_are_modelled_by_their_logarithm() -> None:
    cells = make_cells((12, 6, 4))
    means = np.exp(3 * interacting(cells, 0.0))
    samples = make_samples(cells, means, noise=0.0)
    surrogate = fit_surrogate(cells, samples, seed=0)
    predicted = surrogate.predict_cells(cells.codes)
    assert (predicted > 0).all()
    assert np.abs(np.log(predicted / means)).max() < 0.3


def test_units_do_not_matter() -> None:
    cells = make_cells((8, 4, 3))
    samples = make_samples(cells, interacting(cells, 1.0), noise=0.2)
    small = replace(samples, values=samples.values * 1e-9)
    here, there = fit_surrogate(cells, samples, seed=0), fit_surrogate(cells, small, seed=0)
    np.testing.assert_allclose(there.predict_cells(cells.codes), here.predict_cells(cells.codes) * 1e-9, rtol=1e-3)


@pytest.mark.parametrize("num_cells", [1, 2, 5, 9])
def test_a_handful_of_cells_gives_a_warning_and_no_crash(num_cells: int) -> None:
    cells = make_cells((4, 3, 2))
    samples = make_samples(cells, interacting(cells, 1.0), noise=0.1, k=1, num_people=3)
    surrogate = fit_surrogate(cells, samples.take(samples.cell < num_cells), seed=0)
    assert surrogate.report.warnings
    assert np.isfinite(surrogate.predict_cells(cells.codes)).all()
    assert all(score.ceiling is None for score in surrogate.report.scores)


def test_a_constant_quantity_is_predicted_exactly() -> None:
    cells = make_cells((8, 4, 3))
    samples = make_samples(cells, np.full((96, 1), -7.0), noise=0.0)
    np.testing.assert_allclose(fit_surrogate(cells, samples, seed=0).predict_cells(cells.codes), -7.0)


def test_the_seed_decides_everything() -> None:
    cells = make_cells((8, 4, 3))
    samples = make_samples(cells, interacting(cells, 1.0), noise=0.2)
    assert fit_surrogate(cells, samples, seed=4).report == fit_surrogate(cells, samples, seed=4).report


def test_588_cells_take_seconds() -> None:
    cells = make_cells((12, 7, 7))
    samples = make_samples(cells, np.tile(interacting(cells, 1.0), 7), noise=0.2, k=2)
    started = time.process_time()
    fit_surrogate(cells, samples, seed=0)
    assert time.process_time() - started < 20


def test_an_ordinal_attribute_is_a_number() -> None:
    """A value that nobody measured lies between its neighbours; the parts of a prediction add up to it."""
    cells = make_cells((6, 8))
    trend = np.sin(2 * np.pi * cells.codes[:, 0] / 6) + 2.0 * cells.codes[:, 1]
    errors = {}
    for ordinal in (False, True):
        attributes = (cells.attributes[0], replace(cells.attributes[1], ordinal=ordinal))
        of_kind = replace(cells, attributes=attributes)
        samples = make_samples(of_kind, trend[:, None], noise=0.1)
        surrogate = fit_surrogate(of_kind, samples.take(of_kind.codes[samples.cell, 1] != 5), seed=0)
        predicted = surrogate.predict_cells(of_kind.codes)[:, 0]
        errors[ordinal] = np.abs(predicted - trend)[of_kind.codes[:, 1] == 5].mean()
        if not surrogate.positive.any():
            parts = surrogate.shap_values(of_kind.codes)[:, :, 0]
            np.testing.assert_allclose(parts.sum(axis=1), predicted, rtol=1e-4, atol=1e-4)
    assert errors[True] < 0.5 < errors[False]
