"""The dual trick against a plain singular value decomposition."""

import numpy as np
import pytest
import torch

from finegpr.measuring.sketch import fit_basis


def sample(size: int, *, rank: int = 12, length: int = 300, seed: int = 0) -> torch.Tensor:
    """Vectors around a large mean, of known rank and falling spectrum."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(rank, length)) * (0.7 ** np.arange(rank))[:, None]
    return torch.from_numpy(50 + generator.normal(size=(size, rank)) @ directions).float()


def test_directions_are_the_principal_ones() -> None:
    vectors = sample(40)
    centred = vectors.double() - vectors.double().mean(dim=0)
    _, values, expected = np.linalg.svd(centred.numpy(), full_matrices=False)
    basis = fit_basis(vectors.clone(), 6)
    torch.testing.assert_close(basis.directions.T @ basis.directions, torch.eye(6), atol=1e-5, rtol=0)
    cosines = np.abs((basis.directions.numpy() * expected[:6].T).sum(axis=0))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    np.testing.assert_allclose(basis.spread, (values**2).sum() / 40, rtol=1e-5)


def test_full_rank_coordinates_give_exact_distances() -> None:
    basis = fit_basis(sample(40), 64)
    assert basis.directions.shape == (300, 12), "directions of rounding noise are dropped"
    others = sample(10, seed=1)
    coordinates, norms, off_basis = basis.project(others)
    torch.testing.assert_close(torch.cdist(coordinates, coordinates), torch.cdist(others, others), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(norms, (others - basis.mean).square().sum(dim=1))
    assert off_basis.max() < 1e-5


def test_the_share_off_the_basis_is_what_the_coordinates_miss() -> None:
    basis = fit_basis(sample(40), 3)
    coordinates, norms, off_basis = basis.project(sample(10, seed=1))
    torch.testing.assert_close(off_basis, 1 - coordinates.square().sum(dim=1) / norms, atol=1e-6, rtol=0)
    strange = basis.mean + 30 * torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    assert basis.project(strange)[2].item() > 0.9 > off_basis.max()


def test_the_median_is_over_pairs_of_the_sample() -> None:
    vectors = sample(15)
    pairs = torch.pdist(vectors.double()).square()
    assert fit_basis(vectors.clone(), 4).median == pytest.approx(float(pairs.median()), rel=1e-5)


@pytest.mark.parametrize("size", [1, 5])
def test_a_sample_without_variance_has_one_zero_direction(size: int) -> None:
    basis = fit_basis(torch.full((size, 20), 3.7), 4)
    coordinates, norms, off_basis = basis.project(torch.full((2, 20), 3.7))
    assert basis.median == 0
    assert coordinates.shape == (2, 1)
    assert torch.cat([coordinates.flatten(), norms, off_basis]).abs().max() == 0
