from pathlib import Path

import numpy as np
import pytest
import torch

from finegpr.reid.losses import batch_hard_triplet, parse_losses

golden = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(("name", "margin"), [("m0.3", 0.3), ("mbig", "big"), ("softmargin", None)])
def test_batch_hard_matches_the_golden_value_and_gradient(name, margin):
    data = np.load(golden / "losses_pk.npz")
    margin = float(data["margin_big"]) if margin == "big" else margin
    features = torch.from_numpy(data["features"]).requires_grad_()
    value = batch_hard_triplet(features, torch.from_numpy(data["labels"]), margin=margin)
    value.backward()
    assert value.item() == pytest.approx(float(data[f"ref_batch_hard_{name}_value"]), abs=1e-12)
    np.testing.assert_allclose(features.grad.numpy(), data[f"ref_batch_hard_{name}_grad"], atol=1e-12)


@pytest.mark.parametrize("margin", [0.3, None])
def test_gradient_is_finite_where_features_are_equal(margin):
    features = torch.zeros(4, 3, requires_grad=True)
    batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]), margin=margin).backward()
    assert torch.isfinite(features.grad).all()


def test_near_features_far_from_the_origin_keep_their_distance():
    features = torch.tensor([[1000.0, 0], [1000.25, 0], [1001.0, 0], [1001.25, 0]])
    value = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]), margin=1.0)
    assert value.item() == pytest.approx((0.25 - 1 + 1 + 0.25 - 0.75 + 1) / 2)


def test_a_batch_of_one_identity_is_refused():
    with pytest.raises(ValueError, match="at least 2 identities"):
        batch_hard_triplet(torch.zeros(4, 3), torch.ones(4, dtype=torch.long))


def test_an_unknown_loss_names_the_known_ones():
    with pytest.raises(ValueError, match="softmax, triplet"):
        parse_losses("softmax+arcface")
