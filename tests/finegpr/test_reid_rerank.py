from pathlib import Path

import numpy as np
import pytest

from finegpr.reid.rerank import k_reciprocal

golden = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def data():
    return np.load(golden / "rerank_25x90_edge.npz")


@pytest.mark.parametrize("row", range(4))
def test_matches_the_golden_distances(data, row, monkeypatch):
    monkeypatch.setattr("finegpr.reid.rerank._BLOCK_VALUES", 115 * 9)  # blocks that straddle queries and gallery
    k1, k2, mixing = data["params"][row]
    expected = data[f"ref64_k1_{int(k1)}_k2_{int(k2)}_lam_{mixing}"]
    got = k_reciprocal(
        data["qg_dist"], data["qq_dist"], data["gg_dist"], k1=int(k1), k2=int(k2), lambda_value=float(mixing)
    )
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_more_neighbours_than_points():
    distances = [np.array([[1.0, 2.0]]), np.zeros((1, 1)), np.array([[0.0, 1.5], [1.5, 0.0]])]
    assert k_reciprocal(*distances, k1=50, k2=50).shape == (1, 2)


def test_equal_points_give_no_nan():
    got = k_reciprocal(np.zeros((2, 30)), np.zeros((2, 2)), np.zeros((30, 30)), k1=3, k2=2)
    assert np.isfinite(got).all()


def test_refuses_what_does_not_fit(data):
    with pytest.raises(ValueError, match="shapes"):
        k_reciprocal(data["qg_dist"], data["gg_dist"], data["qq_dist"])
    with pytest.raises(ValueError, match="k1 >= 1"):
        k_reciprocal(data["qg_dist"], data["qq_dist"], data["gg_dist"], k1=0)
    with pytest.raises(ValueError, match="finite"):
        k_reciprocal(data["qg_dist"] * np.nan, data["qq_dist"], data["gg_dist"])
