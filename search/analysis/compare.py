"""The statistics of a comparison of arms: paired differences, agreement with a known truth, rank correlation.

Nothing here draws or formats. Metrics such as mAP and rank-1 are fractions in [0, 1] throughout.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import comb, isfinite

import numpy as np
import pandas as pd
from scipy import stats

from finegpr.arrays import Bools, Codes, Floats
from finegpr.attributes import Attribute
from finegpr.errors import InputError
from finegpr.subset import Subset

EXACT_LIMIT = 20_000
MONTE_CARLO_DRAWS = 4_096


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over ``n`` values with its two-sided Student-t interval; ``low`` and ``high`` are None when n < 2."""

    mean: float
    low: float | None
    high: float | None
    n: int
    confidence: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and zero lies outside it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm of a comparison on one target under one metric.

    ``values[i]`` belongs to ``seeds[i]``; ``difference`` is arm - baseline, paired over the seeds both have, and None
    for the baseline itself and where no seed is shared. ``num_failed`` runs gave no number and are left out.
    """

    target: str
    arm: str
    metric: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: Estimate | None
    difference: Estimate | None
    num_failed: int


@dataclass(frozen=True, kw_only=True)
class BesideChance:
    """A statistic of the chosen values of one attribute, beside its mean over random choices.

    ``same_size``: over random sets with the same number of values; ``any_size``: over all non-empty sets alike;
    ``everything``: of the choice of all values. ``tail``: share of the same-size sets at least as near the truth as
    the chosen one. ``exact``: enumerated or in closed form; otherwise a seeded Monte Carlo.
    """

    value: float
    same_size: float
    any_size: float
    everything: float
    tail: float
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near the chosen values of one attribute are to a known true distribution."""

    attribute: str
    num_values: int
    num_chosen: int
    num_true: int
    jaccard: BesideChance
    total_variation: BesideChance


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """Whether an objective ranks arms as true training does: correlation of its scores with the arms' mean mAP.

    +1 is the same order, whatever the objective's direction. Correlations are None with fewer than three arms or
    where one side is constant. ``p_value`` is Kendall's two-sided one (exact without ties). ``best`` is the arm the
    objective likes best, ``best_rank`` its rank by training (1 is first), ``regret`` the mAP that it gives away.
    """

    objective: str
    target: str
    arms: tuple[str, ...]
    scores: tuple[float, ...]
    truths: tuple[float, ...]
    spearman: float | None
    kendall: float | None
    p_value: float | None
    best: str
    best_rank: int
    regret: float


def t_interval(values: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Mean and two-sided Student-t interval, mean +- t(n - 1) s / sqrt(n), of one or more finite values."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    mean = float(array.mean())
    if n < 2:
        return Estimate(mean=mean, low=None, high=None, n=n, confidence=confidence)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * array.std(ddof=1) / np.sqrt(n))
    return Estimate(mean=mean, low=mean - half, high=mean + half, n=n, confidence=confidence)


def summarise(
    results: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("mAP", "rank-1"),
    baseline: str = "random",
    confidence: float = 0.95,
) -> tuple[ArmSummary, ...]:
    """Summaries per target, arm and metric, in the order of first appearance.

    ``results``: one row per (arm, target, seed), a column per metric as a fraction; NaN marks a failed training.
    Raises InputError for a missing column, a repeated row, or a value outside [0, 1].
    """
    _check_results(results, metrics)
    summaries = []
    for target in results["target"].unique():
        rows = results[results["target"] == target]
        arms = rows["arm"].unique()
        for arm in arms:
            for metric in metrics:
                runs = _finite(rows, arm, metric)
                difference = None
                if arm != baseline and baseline in arms:
                    paired = (runs - _finite(rows, baseline, metric)).dropna()
                    difference = t_interval(paired.tolist(), confidence=confidence) if len(paired) else None
                summaries.append(
                    ArmSummary(
                        target=str(target),
                        arm=str(arm),
                        metric=metric,
                        seeds=tuple(int(seed) for seed in runs.index),
                        values=tuple(float(value) for value in runs),
                        mean=t_interval(runs.tolist(), confidence=confidence) if len(runs) else None,
                        difference=difference,
                        num_failed=int((rows["arm"] == arm).sum()) - len(runs),
                    )
                )
    return tuple(summaries)


def paired(first: ArmSummary, second: ArmSummary, *, confidence: float = 0.95) -> Estimate | None:
    """The difference first - second of two arms under one metric, over the seeds that both have; None without any."""
    of_second = dict(zip(second.seeds, second.values, strict=True))
    shared = [
        value - of_second[seed] for seed, value in zip(first.seeds, first.values, strict=True) if seed in of_second
    ]
    return t_interval(shared, confidence=confidence) if shared else None


def _finite(rows: pd.DataFrame, arm: str, metric: str) -> "pd.Series[float]":
    runs = rows[rows["arm"] == arm]
    return pd.Series(runs[metric].to_numpy(np.float64), index=runs["seed"].to_numpy()).dropna().sort_index()


def _check_results(results: pd.DataFrame, metrics: Sequence[str]) -> None:
    missing = [name for name in ("arm", "target", "seed", *metrics) if name not in results.columns]
    if missing:
        got = ", ".join(map(str, results.columns))
        raise InputError(f"results need the columns {', '.join(missing)}, got {got}; add them to the table")
    repeated = results[results.duplicated(["arm", "target", "seed"])]
    if len(repeated):
        arm, target, seed = repeated.iloc[0][["arm", "target", "seed"]]
        raise InputError(f"results hold arm {arm}, target {target}, seed {seed} more than once; keep one row")
    for metric in metrics:
        outside = results[(results[metric] < 0) | (results[metric] > 1)]
        if len(outside):
            got = outside[metric].iloc[0]
            raise InputError(f"results: {metric} should be a fraction in [0, 1], got {got:g}; divide percents by 100")


def value_shares(codes: Codes, shares: Floats, attributes: Sequence[Attribute]) -> dict[str, Floats]:
    """Marginal share of every value, per attribute.

    ``codes`` (C, A): value index per cell and attribute; ``shares`` (C,): non-negative, need not sum to one.
    """
    total = shares.sum()
    return {
        attribute.name: np.bincount(codes[:, column], weights=shares, minlength=len(attribute.values)) / total
        for column, attribute in enumerate(attributes)
    }


def total_variation(first: Floats, second: Floats) -> float:
    """Half the L1 distance between two distributions over the same values: 0 the same, 1 disjoint."""
    return float(np.abs(first - second).sum() / 2)


def jaccard(first: Collection[str], second: Collection[str]) -> float:
    """Size of the intersection over size of the union of two sets of which at least one is not empty."""
    return len(set(first) & set(second)) / len(set(first) | set(second))


def agreements(
    subset: Subset,
    attributes: Sequence[Attribute],
    *,
    chosen: Mapping[str, Floats],
    source: Mapping[str, Floats],
    true: Mapping[str, Floats],
    seed: int = 0,
) -> tuple[Agreement, ...]:
    """Agreement of a subset with the true distribution, for every attribute whose truth is known.

    ``chosen``, ``source``, ``true``: attribute -> shares aligned with its values. A value is truly in when its true
    share is positive; a random set is drawn among values the source holds and gets the source's shares within it.
    Values of a circular attribute count as plain ones: a neighbour is as wrong as the opposite side.
    """
    return tuple(
        _agreement(
            attribute,
            subset.values.get(attribute.name, frozenset(attribute.values)),
            chosen[attribute.name],
            source[attribute.name],
            true[attribute.name],
            seed,
        )
        for attribute in attributes
        if attribute.name in true
    )


def _agreement(
    attribute: Attribute, chosen: frozenset[str], chosen_share: Floats, source: Floats, true: Floats, seed: int
) -> Agreement:
    truth = {value for value, share in zip(attribute.values, true, strict=True) if share > 0}
    held = source > 0
    universe = [value for value, has in zip(attribute.values, held, strict=True) if has]
    chosen = chosen & frozenset(universe)
    if not truth or not chosen:
        empty = "true" if not truth else "chosen"
        raise InputError(f"attribute {attribute.name}: no {empty} value has any image, so there is nothing to compare")
    num_shared = len(truth & set(universe))

    def closed_form(size: int) -> tuple[Floats, Floats]:
        shared = np.arange(min(size, num_shared) + 1)
        weight = stats.hypergeom.pmf(shared, len(universe), num_shared, size)
        return shared / (size + len(truth) - shared), weight

    overlap = jaccard(chosen, truth)
    same, weight = closed_form(len(chosen))
    sizes = np.arange(1, len(universe) + 1)
    number = np.array([comb(len(universe), size) for size in sizes.tolist()], dtype=np.float64)
    by_size = np.array([float(np.dot(*closed_form(size))) for size in sizes.tolist()])

    distance = total_variation(chosen_share, true)
    missed = float(true[~held].sum())

    def distances(masks: Bools) -> Floats:
        shares = masks * source[held]
        shares /= shares.sum(axis=1, keepdims=True)
        return np.asarray((np.abs(shares - true[held]).sum(axis=1) + missed) / 2)

    random_same, exact_same = _over_random_sets(distances, len(universe), len(chosen), seed)
    random_any, exact_any = _over_random_sets(distances, len(universe), None, seed)
    return Agreement(
        attribute=attribute.name,
        num_values=len(attribute.values),
        num_chosen=len(chosen),
        num_true=len(truth),
        jaccard=BesideChance(
            value=overlap,
            same_size=float(np.dot(same, weight)),
            any_size=float(np.dot(by_size, number) / number.sum()),
            everything=jaccard(universe, truth),
            tail=float(weight[same >= overlap - 1e-12].sum()),
            exact=True,
        ),
        total_variation=BesideChance(
            value=distance,
            same_size=float(random_same.mean()),
            any_size=float(random_any.mean()),
            everything=total_variation(source, true),
            tail=float((random_same <= distance + 1e-12).mean()),
            exact=exact_same and exact_any,
        ),
    )


def _over_random_sets(
    statistic: Callable[[Bools], Floats], num_values: int, size: int | None, seed: int
) -> tuple[Floats, bool]:
    """``statistic`` of every non-empty set of ``size`` values (None: of any size), or of a seeded sample of them."""
    if size is None and 2**num_values - 1 <= EXACT_LIMIT:
        numbers = np.arange(1, 2**num_values)
        return statistic((numbers[:, None] >> np.arange(num_values)) % 2 == 1), True
    if size is not None and comb(num_values, size) <= EXACT_LIMIT:
        return statistic(_sets_of(num_values, size)), True
    random = np.random.default_rng(seed)
    if size is None:
        masks = random.random((MONTE_CARLO_DRAWS, num_values)) < 0.5
        return statistic(masks[masks.any(axis=1)]), False
    order = random.random((MONTE_CARLO_DRAWS, num_values)).argsort(axis=1)
    return statistic(order < size), False


def _sets_of(num_values: int, size: int) -> Bools:
    """All sets of ``size`` out of ``num_values``, one per row, built value by value."""
    masks = np.zeros((1, 0), dtype=bool)
    for left in range(num_values, 0, -1):
        have = masks.sum(axis=1)
        may_skip, may_take = have + left - 1 >= size, have < size
        skipped, taken = masks[may_skip], masks[may_take]
        masks = np.concatenate(
            [
                np.column_stack([skipped, np.zeros(len(skipped), dtype=bool)]),
                np.column_stack([taken, np.ones(len(taken), dtype=bool)]),
            ]
        )
    return masks


def rank_agreement(
    scores: Mapping[str, float],
    truths: Mapping[str, float],
    *,
    objective: str,
    target: str,
    higher_is_better: bool,
) -> RankAgreement:
    """Rank correlation, over the arms both mappings hold, between an objective's scores and the mean mAP.

    Arms with a score or mAP that is not finite are left out. Raises InputError when no arm is left.
    """
    arms = [arm for arm in scores if arm in truths and isfinite(scores[arm]) and isfinite(truths[arm])]
    if not arms:
        raise InputError(f"no arm has both a score of {objective} and a mAP on {target}; score the trained arms")
    score = np.array([scores[arm] for arm in arms])
    truth = np.array([truths[arm] for arm in arms])
    goodness = score if higher_is_better else -score
    spearman = kendall = p_value = None
    if len(arms) >= 3 and np.ptp(score) > 0 and np.ptp(truth) > 0:
        spearman = float(stats.spearmanr(goodness, truth).statistic)
        tau = stats.kendalltau(goodness, truth)
        kendall, p_value = float(tau.statistic), float(tau.pvalue)
    best = int(goodness.argmax())
    return RankAgreement(
        objective=objective,
        target=target,
        arms=tuple(arms),
        scores=tuple(score.tolist()),
        truths=tuple(truth.tolist()),
        spearman=spearman,
        kendall=kendall,
        p_value=p_value,
        best=arms[best],
        best_rank=int((truth > truth[best]).sum()) + 1,
        regret=float(truth.max() - truth[best]),
    )
