"""Each statistic of a comparison against a closed form, brute force or SciPy's own test."""

from itertools import combinations, permutations
from math import nan, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from finegpr.attributes import Attribute
from finegpr.errors import InputError
from finegpr.subset import Subset
from search.analysis import compare

RESULTS = pd.DataFrame(
    [
        ("chosen", "Mini", seed, mean_ap, rank1)
        for seed, mean_ap, rank1 in [(0, 0.30, 0.5), (1, 0.34, 0.6), (2, 0.32, 0.55)]
    ]
    + [
        ("random", "Mini", seed, mean_ap, rank1)
        for seed, mean_ap, rank1 in [(2, 0.27, 0.5), (0, 0.26, 0.5), (1, 0.31, 0.5)]
    ]
    + [("everything", "Mini", 7, 0.33, 0.5)],
    columns=["arm", "target", "seed", "mAP", "rank-1"],
)


def summary(results, arm, metric="mAP"):
    (found,) = (each for each in compare.summarise(results) if (each.arm, each.metric) == (arm, metric))
    return found


def test_t_interval_is_the_textbook_formula():
    got = compare.t_interval([1.0, 2.0, 3.0, 6.0])
    half = 3.182446305284263 * sqrt(14 / 3) / 2  # t(0.975, 3); s^2 = 14/3; sqrt(n) = 2
    assert (got.mean, got.n) == (3.0, 4)
    assert (got.low, got.high) == pytest.approx((3 - half, 3 + half))


def test_paired_difference_agrees_with_scipys_paired_t_test():
    got = summary(RESULTS, "chosen").difference
    test = stats.ttest_rel([0.30, 0.34, 0.32], [0.26, 0.31, 0.27])
    interval = test.confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.excludes_zero == (test.pvalue < 0.05)
    assert got.n == 3


def test_pairing_is_by_seed_not_by_row():
    shuffled = RESULTS.sample(frac=1, random_state=3)
    assert summary(shuffled, "chosen").difference == summary(RESULTS, "chosen").difference


def test_one_seed_has_no_interval_and_no_shared_seed_has_no_difference():
    one = RESULTS[RESULTS["seed"].isin([0, 7])]
    got = summary(one, "chosen")
    assert (got.mean.low, got.mean.high, got.difference.low, got.difference.n) == (None, None, None, 1)
    assert not got.difference.excludes_zero
    assert summary(one, "everything").difference is None
    assert summary(one, "random").difference is None


def test_failed_training_is_left_out_and_counted():
    broken = RESULTS.copy()
    broken.loc[(broken["arm"] == "chosen") & (broken["seed"] == 1), "mAP"] = nan
    got = summary(broken, "chosen")
    assert (got.seeds, got.num_failed, got.mean.n, got.difference.n) == ((0, 2), 1, 2, 2)
    broken.loc[broken["arm"] == "everything", "mAP"] = nan
    assert summary(broken, "everything").mean is None


def test_wrong_results_are_named():
    with pytest.raises(InputError, match="rank-1"):
        compare.summarise(RESULTS.drop(columns="rank-1"))
    with pytest.raises(InputError, match="more than once"):
        compare.summarise(pd.concat([RESULTS, RESULTS.head(1)]))
    with pytest.raises(InputError, match="divide percents by 100"):
        compare.summarise(RESULTS.assign(mAP=RESULTS["mAP"] * 100))


def test_value_shares_are_the_weighted_marginals():
    random = np.random.default_rng(0)
    attributes = [Attribute(name="a", values=("x", "y", "z")), Attribute(name="b", values=("p", "q"))]
    codes = np.column_stack([random.integers(0, 3, 40), random.integers(0, 2, 40)]).astype(np.int16)
    weights = random.random(40)
    got = compare.value_shares(codes, weights, attributes)
    for column, attribute in enumerate(attributes):
        expected = pd.Series(weights).groupby(codes[:, column]).sum() / weights.sum()
        assert got[attribute.name] == pytest.approx(expected.to_numpy())
        assert len(got[attribute.name]) == len(attribute.values)


WEATHER = Attribute(name="weather", values=("sunny", "clouds", "foggy", "blizzard", "neutral"))
SOURCE = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
TRUE = np.array([0.0, 0.6, 0.4, 0.0, 0.0])


def weather_agreement(chosen=("clouds", "blizzard"), source=SOURCE, true=TRUE):
    inside = np.isin(WEATHER.values, chosen)
    shares = source * inside / (source * inside).sum()
    (got,) = compare.agreements(
        Subset({"weather": chosen}),
        [WEATHER],
        chosen={"weather": shares},
        source={"weather": source},
        true={"weather": true},
    )
    return got


def brute_force(statistic, sizes):
    names = WEATHER.values
    return [statistic(set(chosen)) for size in sizes for chosen in combinations(names, size)]


def jaccard_with_truth(chosen):
    return len(chosen & {"clouds", "foggy"}) / len(chosen | {"clouds", "foggy"})


def variation_from_truth(chosen):
    shares = np.array([share if name in chosen else 0.0 for name, share in zip(WEATHER.values, SOURCE, strict=True)])
    return 0.5 * np.abs(shares / shares.sum() - TRUE).sum()


@pytest.mark.parametrize(
    ("statistic", "field"), [(jaccard_with_truth, "jaccard"), (variation_from_truth, "total_variation")]
)
def test_chance_is_the_mean_over_all_sets(statistic, field):
    got = getattr(weather_agreement(), field)
    value = statistic({"clouds", "blizzard"})
    same = brute_force(statistic, [2])
    nearer = [each >= value - 1e-12 if field == "jaccard" else each <= value + 1e-12 for each in same]
    assert got.value == pytest.approx(value)
    assert got.same_size == pytest.approx(np.mean(same))
    assert got.any_size == pytest.approx(np.mean(brute_force(statistic, [1, 2, 3, 4, 5])))
    assert got.everything == pytest.approx(statistic(set(WEATHER.values)))
    assert got.tail == pytest.approx(np.mean(nearer))
    assert got.exact


def test_monte_carlo_agrees_with_enumeration(monkeypatch):
    exact = weather_agreement().total_variation
    monkeypatch.setattr(compare, "EXACT_LIMIT", 0)
    sampled = weather_agreement().total_variation
    assert not sampled.exact
    for field in ("same_size", "any_size", "tail"):
        assert getattr(sampled, field) == pytest.approx(getattr(exact, field), abs=0.03)
    assert sampled == weather_agreement().total_variation, "the sample is seeded"


def test_true_choice_is_perfect_and_a_truth_outside_the_source_is_missed():
    perfect = weather_agreement(("clouds", "foggy"), source=np.full(5, 0.2), true=np.array([0, 0.5, 0.5, 0, 0]))
    assert (perfect.jaccard.value, perfect.total_variation.value) == (1.0, 0.0)
    assert perfect.jaccard.tail == pytest.approx(1 / 10)
    absent = weather_agreement(("sunny",), source=np.array([0.5, 0.0, 0.5, 0.0, 0.0]))
    assert (absent.jaccard.value, absent.jaccard.everything) == (0.0, pytest.approx(1 / 3))
    assert absent.total_variation.value == absent.total_variation.tail == 1.0  # both single values: 1.0 and 0.6
    assert absent.total_variation.same_size == pytest.approx(0.8)


def test_unknown_truth_is_skipped_and_an_empty_one_refused():
    shares = {"weather": SOURCE}
    assert compare.agreements(Subset({}), [WEATHER], chosen=shares, source=shares, true={}) == ()
    with pytest.raises(InputError, match="no true value"):
        weather_agreement(true=np.zeros(5))


def test_full_circle_is_compared_in_time_by_sampling():
    viewpoint = Attribute(name="viewpoint", values=tuple(f"{angle}deg" for angle in range(0, 360, 10)), circular=True)
    source = np.full(36, 1 / 36)
    chosen = np.where(np.arange(36) < 9, 1 / 9, 0.0)
    (got,) = compare.agreements(
        Subset({"viewpoint": viewpoint.values[:9]}),
        [viewpoint],
        chosen={"viewpoint": chosen},
        source={"viewpoint": source},
        true={"viewpoint": np.roll(chosen, 3)},
    )
    assert got.total_variation.value == pytest.approx(1 / 3)
    # Shares of equal-sized sets are equal, so TV = 1 - overlap / 9, and the mean overlap of 9 in 36 with 9 is 9/4.
    assert got.total_variation.same_size == pytest.approx(3 / 4, abs=0.01)
    assert (got.total_variation.exact, got.jaccard.exact) == (False, True)


def test_rank_correlations_by_hand():
    scores = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.9, "untrained": 0.0}
    truths = {"a": 0.5, "b": 0.3, "c": 0.2, "d": 0.1}
    got = compare.rank_agreement(scores, truths, objective="mmd_rbf", target="Mini", higher_is_better=False)
    # goodness ranks 4 2 3 1, mAP ranks 4 3 2 1: sum d^2 = 2, one of six pairs discordant
    assert got.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert got.kendall == pytest.approx((5 - 1) / 6)
    assert (got.arms, got.best, got.best_rank, got.regret) == (("a", "b", "c", "d"), "a", 1, 0.0)
    worse = compare.rank_agreement(scores, truths, objective="mmd_rbf", target="Mini", higher_is_better=True)
    assert worse.spearman == pytest.approx(-got.spearman)
    assert (worse.best, worse.best_rank, worse.regret) == ("d", 4, pytest.approx(0.4))


def test_kendall_p_value_is_the_permutation_test():
    truths = dict(zip("abcde", [0.1, 0.2, 0.3, 0.5, 0.4], strict=True))
    scores = dict(zip("abcde", [1.0, 2.0, 3.0, 4.0, 5.0], strict=True))
    got = compare.rank_agreement(scores, truths, objective="o", target="t", higher_is_better=True)
    inversions = [sum(p[i] > p[j] for i, j in combinations(range(5), 2)) for p in permutations(range(5))]
    as_extreme = np.mean([abs(10 - 2 * k) >= 8 for k in inversions])
    assert got.kendall == pytest.approx(0.8)
    assert got.p_value == pytest.approx(as_extreme)


def test_too_few_or_constant_arms_have_no_correlation():
    two = compare.rank_agreement({"a": 1, "b": 2}, {"a": 0, "b": 1}, objective="o", target="t", higher_is_better=True)
    assert (two.spearman, two.kendall, two.p_value) == (None, None, None)
    flat = {"a": 1.0, "b": 1.0, "c": 1.0}
    constant = compare.rank_agreement(
        flat, {"a": 0.1, "b": 0.2, "c": 0.3}, objective="o", target="t", higher_is_better=True
    )
    assert constant.spearman is None
    with pytest.raises(InputError, match="score the trained arms"):
        compare.rank_agreement({"a": nan}, {"a": 0.2}, objective="o", target="t", higher_is_better=True)
