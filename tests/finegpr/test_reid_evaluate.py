from pathlib import Path

import numpy as np
import pytest

from finegpr.reid.evaluate import euclidean
from finegpr.reid.ranking import evaluate_ranking

golden = Path(__file__).parents[1] / "golden"
CASES = ("basic", "junk", "no_match", "single_query", "small_gallery", "ties")


@pytest.mark.parametrize("case", CASES)
def test_matches_the_golden_market_protocol(case):
    data = np.load(golden / f"eval_{case}.npz")
    labels = [data[name] for name in ("q_pids", "g_pids", "q_camids", "g_camids")]
    ranking = evaluate_ranking(data["dist"], *labels)
    np.testing.assert_allclose(ranking.average_precision, data["ref_AP"], atol=1e-10)
    np.testing.assert_allclose(ranking.cmc, data["ref_cmc"], atol=1e-10)
    assert ranking.mean_ap == pytest.approx(float(data["ref_mAP"]), abs=1e-10)
    assert ranking.mean_inp == pytest.approx(float(data["ref_mINP"]), abs=1e-10)
    assert ranking.num_valid == data["ref_valid"].sum()
    trapezoid = evaluate_ranking(data["dist"], *labels, ap="trapezoid")
    np.testing.assert_allclose(trapezoid.average_precision, data["ref_AP_trapezoid"], atol=1e-10)
    assert trapezoid.mean_ap == pytest.approx(float(data["ref_mAP_trapezoid_valid"]), abs=1e-10)


def test_blocks_of_queries_change_nothing(monkeypatch):
    data = np.load(golden / "eval_junk.npz")
    labels = [data[name] for name in ("q_pids", "g_pids", "q_camids", "g_camids")]
    whole = evaluate_ranking(data["dist"], *labels)
    monkeypatch.setattr("finegpr.reid.ranking._BLOCK_VALUES", 3 * data["dist"].shape[1] + 1)
    blocked = evaluate_ranking(data["dist"], *labels)
    np.testing.assert_array_equal(whole.average_precision, blocked.average_precision)
    np.testing.assert_array_equal(whole.cmc, blocked.cmc)


def test_ties_go_to_the_lower_gallery_index():
    same = np.full((1, 300), 0.5, dtype=np.float32)
    ids = np.arange(300) + 2
    ids[200] = 1
    ranking = evaluate_ranking(same, [1], ids, [0], np.ones(300, dtype=int))
    assert ranking.mean_ap == pytest.approx(1 / 201)


def test_a_distractor_is_wrong_even_to_a_query_of_identity_zero():
    ranking = evaluate_ranking([[0.1, 0.2], [0.1, 0.2]], [0, 5], [0, 5], [1, 1], [2, 2])
    assert np.isnan(ranking.average_precision[0])
    assert ranking.average_precision[1] == pytest.approx(0.5)
    assert ranking.num_valid == 1


def test_cmc_holds_its_last_value_past_the_gallery():
    ranking = evaluate_ranking([[0.3, 0.1]], [1], [1, 2], [1], [2, 2], max_rank=7)
    np.testing.assert_array_equal(ranking.cmc, [0, 1, 1, 1, 1, 1, 1])
    assert ranking.metrics() == {"mAP": 0.5, "rank-1": 0, "rank-5": 1, "rank-10": 1, "mINP": 0.5, "num_valid": 1}


def test_no_valid_query_names_the_camera_labels():
    with pytest.raises(ValueError, match=r"1 query identities .* camera labels \(got query cameras 0,"):
        evaluate_ranking([[0.3, 0.1]], [1], [1, 2], [0], [0, 0])


@pytest.mark.parametrize(
    ("distances", "labels", "message"),
    [
        ([[0.1, 0.2]], ([1], [1], [1], [2]), "shape"),
        ([[np.nan]], ([1], [1], [1], [2]), "NaN"),
        ([[0.1]], ([1.5], [1], [1], [2]), "integer"),
    ],
)
def test_refuses_what_does_not_fit(distances, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(distances, *labels)


def test_euclidean_of_unit_vectors():
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.testing.assert_allclose(euclidean(x, x), expected, atol=1e-3)
