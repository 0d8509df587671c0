import numpy as np

from cluster.run.choice import attribute_shares
from finegpr.attributes import Attribute
from finegpr.subset import Subset
from search.analysis.records import AttributeShares
from search.objectives.attribute_shares import AttributeEstimate

WEATHER = Attribute(name="weather", values=("sunny", "foggy", "snow"))
EVEN = {"weather": np.full(3, 1 / 3)}
ESTIMATE = AttributeEstimate(attribute="weather", values=WEATHER.values, shares=(0.7, 0.0, 0.3))


def shares(true: dict[str, np.ndarray], estimate: AttributeEstimate) -> AttributeShares:
    """Of the first and the last value."""
    return attribute_shares(WEATHER, [0, 2], Subset({}), EVEN, EVEN, true, {"weather": estimate})


def test_an_estimate_brings_its_interval_and_the_truth_has_none() -> None:
    certain = AttributeEstimate(**{**vars(ESTIMATE), "low": (0.6, 0.0, 0.2), "high": (0.8, 0.0, 0.4)})
    found = shares({}, certain)
    assert (found.target_kind, found.target) == ("estimate", (0.7, 0.3))
    assert found.target_interval == ((0.6, 0.8), (0.2, 0.4))
    assert shares({}, ESTIMATE).target_interval is None
    known = shares({"weather": np.array([1.0, 0.0, 0.0])}, certain)
    assert (known.target_kind, known.target, known.target_interval) == ("true", (1.0, 0.0), None)
