"""The surrogate: predicts cell means from attributes, for cells that nobody measured, and says how well it does.

XGBoost on top of a ridge regression on main effects: the trees only have to find what is not additive. The ridge is
ours, not scikit-learn's, whose last bits are others: the scores in journals of before must come out again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from finegpr.arrays import Bools, Codes, Floats, Ints
from finegpr.attributes import Attribute
from search.objectives.samples import Samples

if TYPE_CHECKING:
    from finegpr.catalog import Cells

Predict = Callable[[Codes], Floats]

UNSEEN = ("cells", "value pairs")
NUM_FOLDS = 4
NUM_IDENTITY_FOLDS = 2
FEWEST_CELLS = 8
NUM_TREES = 60
TREES: dict[str, Any] = {
    "max_depth": 4,
    "eta": 0.15,
    "lambda": 8.0,
    "min_child_weight": 4.0,
    "tree_method": "hist",
    "nthread": 1,  # more threads are slower at this size, and a result must not depend on their number
}
RIDGE = 0.1


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """How well one quantity is predicted on held-out cell means.

    ``split``: ``cells`` and ``value pairs`` are left out whole; ``identities`` leaves out people. R2 is 1 - squared
    error / variance (may be below 0); ``ceiling`` is the highest R2 that measurement noise allows, None when unknown;
    ``bias`` is the mean of predicted minus true, over the standard deviation of the truth.
    """

    quantity: str
    split: str
    r2: float
    spearman: float
    bias: float
    ridge_r2: float
    ridge_spearman: float
    ceiling: float | None
    num_held_out: int


@dataclass(frozen=True, kw_only=True)
class SurrogateReport:
    """The validation of a surrogate. ``trusted``: it beats the ridge on unseen cells and value pairs, over quantities.

    When it does not, ``warnings`` say so and the ridge predicts instead.
    """

    scores: tuple[SplitScore, ...]
    trusted: bool
    warnings: tuple[str, ...]
    num_cells: int
    num_unmeasured: int

    def mean_r2(self, split: str) -> tuple[float, float]:
        """Mean over quantities of (surrogate's, ridge's) R2 in one split; NaN when it was not validated there."""
        rows = [(score.r2, score.ridge_r2) for score in self.scores if score.split == split]
        means = np.mean(rows, axis=0) if rows else (np.nan, np.nan)
        return float(means[0]), float(means[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A fitted function of value codes (C, A): ``predict`` gives (C, q), ``explain`` its SHAP values (C, A + 1, q).

    Along the second axis ``explain`` has each attribute's part, then the mean of the cells that were fitted; the sum is
    the prediction.
    """

    predict: Predict
    explain: Predict


@dataclass(frozen=True, kw_only=True, eq=False)
class Surrogate:
    """A fitted surrogate with its validation. ``positive`` (q,) quantities are modelled by their logarithm."""

    names: tuple[str, ...]
    report: SurrogateReport
    positive: Bools
    model: Model

    def predict_cells(self, codes: Codes) -> Floats:
        """Value codes (C, A) -> predicted means (C, q), in the units of the samples."""
        return _unlog(self.model.predict(codes), self.positive)

    def shap_values(self, codes: Codes) -> Floats:
        """Value codes (C, A) -> SHAP values (C, A + 1, q), see ``Model``; of the logarithm where ``positive``.

        Exact for the ridge, whose attributes add up; of the trees, along their paths (Lundberg et al. 2020).
        """
        return self.model.explain(codes)


def fit_surrogate(cells: "Cells", samples: Samples, *, seed: int) -> Surrogate:
    """Fit on the measured cells, and validate by leaving out cells, pairs of values, and identities.

    Quantities that are positive in every image are modelled by their logarithm.
    """
    measured = samples.num_identities > 0
    positive = np.asarray((samples.values > 0).all(axis=0))
    scores, warnings = _validate(cells, samples, positive, seed)
    return fit_reported(cells, samples, _report(scores, warnings, measured))


def fit_reported(cells: "Cells", samples: Samples, report: SurrogateReport) -> Surrogate:
    """Fit on the measured cells what an earlier validation advises: the trees where it trusts them, else the ridge."""
    positive = np.asarray((samples.values > 0).all(axis=0))
    fit = _fit_trees if report.trusted else _fit_ridge
    model = _fit(fit, cells, samples, samples.num_identities > 0, positive)
    return Surrogate(names=samples.names, report=report, positive=positive, model=model)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fold:
    """Fit on the cells ``seen`` (C,) of ``train``, predict the cells ``held`` (m,) of ``test``."""

    train: Samples
    seen: Bools
    test: Samples
    held: Ints


def _validate(cells: "Cells", samples: Samples, positive: Bools, seed: int) -> tuple[list[SplitScore], list[str]]:
    measured = np.flatnonzero(samples.num_identities > 0)
    if len(measured) < FEWEST_CELLS:
        return [], [f"only {len(measured)} cells were measured: too few to validate a surrogate; measure more"]
    random = np.random.default_rng(seed)
    splits = {
        "cells": _leave_out(samples, np.array_split(random.permutation(measured), NUM_FOLDS)),
        "value pairs": _leave_out(samples, _cells_of_pairs(cells.codes, measured, random)),
        "identities": _leave_out_identities(samples, random),
    }
    warnings = [f"too few to leave out {split}" for split, folds in splits.items() if not folds]
    scores = [_held_out(split, cells, folds, positive) for split, folds in splits.items() if folds]
    return [score for split in scores for score in split], warnings


def _leave_out(samples: Samples, groups: Sequence[Ints]) -> list[_Fold]:
    folds = []
    for held in groups:
        seen = samples.num_identities > 0
        seen[held] = False
        folds.append(_Fold(train=samples, seen=seen, test=samples, held=held))
    return folds


def _cells_of_pairs(codes: Codes, measured: Ints, random: np.random.Generator) -> list[Ints]:
    """Sets of cells: all measured cells of a quarter of the value pairs of two attributes, at most NUM_FOLDS sets."""
    varying = [column for column in range(codes.shape[1]) if len(np.unique(codes[measured, column])) > 1]
    choices = list(combinations(varying, 2))
    folds = []
    for turn in range(NUM_FOLDS if choices else 0):
        pair = codes[measured][:, list(choices[turn % len(choices)])]
        _, of_cell = np.unique(pair, axis=0, return_inverse=True)
        num_pairs = int(of_cell.max()) + 1
        held = random.permutation(num_pairs)[: max(1, num_pairs // NUM_FOLDS)]
        folds.append(measured[np.isin(of_cell.reshape(-1), held)])
    return [held for held in folds if len(held) < len(measured)]


def _leave_out_identities(samples: Samples, random: np.random.Generator) -> list[_Fold]:
    people = np.unique(samples.identity)
    if len(people) < 2 * NUM_IDENTITY_FOLDS:
        return []
    fold_of_image = (random.permutation(len(people)) % NUM_IDENTITY_FOLDS)[np.searchsorted(people, samples.identity)]
    folds = []
    for fold in range(NUM_IDENTITY_FOLDS):
        train, test = samples.take(fold_of_image != fold), samples.take(fold_of_image == fold)
        held = np.flatnonzero(test.num_identities)
        folds.append(_Fold(train=train, seen=train.num_identities > 0, test=test, held=held))
    return folds


def _held_out(split: str, cells: "Cells", folds: Sequence[_Fold], positive: Bools) -> list[SplitScore]:
    """Predict the held-out cells of every fold, and score all folds together."""
    truth = np.concatenate([_log(fold.test.means[fold.held], positive) for fold in folds])
    predicted = [
        np.concatenate(
            [_fit(fit, cells, fold.train, fold.seen, positive).predict(cells.codes[fold.held]) for fold in folds]
        )
        for fit in (_fit_trees, _fit_ridge)
    ]
    noise = np.concatenate([_noise(fold.test, positive)[fold.held] for fold in folds])
    is_noise_known = all(fold.test.has_variance for fold in folds)
    scores = []
    for column, quantity in enumerate(folds[0].test.names):
        values, trees, ridge = truth[:, column], predicted[0][:, column], predicted[1][:, column]
        spread = float(values.var())
        scores.append(
            SplitScore(
                quantity=quantity,
                split=split,
                r2=_r2(values, trees),
                spearman=_spearman(values, trees),
                bias=float((trees - values).mean() / np.sqrt(spread)) if spread > 0 else 0.0,
                ridge_r2=_r2(values, ridge),
                ridge_spearman=_spearman(values, ridge),
                ceiling=max(0.0, 1 - float(noise[:, column].mean()) / spread)
                if is_noise_known and spread > 0
                else None,
                num_held_out=len(values),
            )
        )
    return scores


def _noise(samples: Samples, positive: Bools) -> Floats:
    """Variance of the error of cell means (C, q); of their logarithms, to first order, where ``positive``."""
    noise = samples.variance / np.maximum(samples.num_identities, 1)[:, None]
    return np.where(positive, noise / np.square(np.where(positive, samples.means, 1.0)), noise)


def _report(scores: list[SplitScore], warnings: list[str], measured: Bools) -> SurrogateReport:
    report = SurrogateReport(
        scores=tuple(scores),
        trusted=False,
        warnings=tuple(warnings),
        num_cells=len(measured),
        num_unmeasured=int((~measured).sum()),
    )
    beaten = []
    for split in UNSEEN:
        trees, ridge = report.mean_r2(split)
        if trees <= ridge:
            beaten.append(f"the surrogate does not beat a ridge on unseen {split} (mean R2 {trees:.3f}, {ridge:.3f})")
    if scores and not beaten:
        return replace(report, trusted=True)
    advice = "predictions for unmeasured cells come from the ridge; measure more cells"
    return replace(report, warnings=(*warnings, *beaten, advice))


FitStandardised = Callable[[tuple[Attribute, ...], Codes, Floats, Floats], Model]


def _fit(fit: FitStandardised, cells: "Cells", samples: Samples, seen: Bools, positive: Bools) -> Model:
    """Fit the means of cells ``seen`` (logarithms where ``positive``), standardised, weighted by identities."""
    weights = samples.num_identities[seen].astype(np.float64)
    values = _log(samples.means[seen], positive)
    centre = np.average(values, axis=0, weights=weights)
    spread = values.std(axis=0)
    spread[spread <= 1e-12 * np.abs(centre) + 1e-300] = 1.0
    model = fit(cells.attributes, cells.codes[seen], (values - centre) / spread, weights / weights.mean())

    def explain(new: Codes) -> Floats:
        parts: Floats = model.explain(new) * spread
        parts[:, -1] += centre
        return parts

    return Model(predict=lambda new: model.predict(new) * spread + centre, explain=explain)


def _fit_ridge(attributes: tuple[Attribute, ...], codes: Codes, values: Floats, weights: Floats) -> Model:
    """Ridge regression on ``_columns``; ``RIDGE`` counts as that many cells at zero."""
    x = _indicators(attributes, codes)
    root = np.sqrt(weights)[:, None]
    gram = (x * root).T @ (x * root) + RIDGE * np.eye(x.shape[1])
    coefficients = np.linalg.solve(gram, (x * root).T @ (values * root))

    def explain(new: Codes) -> Floats:
        parts = np.empty((len(new), len(attributes) + 1, values.shape[1]))
        parts[:, -1] = coefficients[0]
        start = 1
        for place, attribute in enumerate(attributes):
            columns = _columns(attribute)
            of_value = columns @ coefficients[start : start + columns.shape[1]]
            mean = np.average(of_value[codes[:, place]], axis=0, weights=weights)
            parts[:, place] = of_value[new[:, place]] - mean
            parts[:, -1] += mean
            start += columns.shape[1]
        return parts

    return Model(predict=lambda new: np.asarray(_indicators(attributes, new) @ coefficients), explain=explain)


def _fit_trees(attributes: tuple[Attribute, ...], codes: Codes, values: Floats, weights: Floats) -> Model:
    import xgboost  # half a second, which --help should not take

    ridge = _fit_ridge(attributes, codes, values, weights)
    features = _features(attributes, codes)
    residuals = values - ridge.predict(codes)
    data = xgboost.QuantileDMatrix(features, label=residuals, weight=weights, nthread=1)
    boosters = xgboost.train({**TREES, "base_score": 0.0}, data, num_boost_round=NUM_TREES)

    def predict(new: Codes) -> Floats:
        trees = boosters.inplace_predict(_features(attributes, new)).reshape(len(new), -1)
        return np.asarray(ridge.predict(new) + trees, dtype=np.float64)

    def explain(new: Codes) -> Floats:
        columns = xgboost.DMatrix(_features(attributes, new), nthread=1)
        parts = boosters.predict(columns, pred_contribs=True).reshape(len(new), values.shape[1], -1)
        widths = [_of_value(attribute).shape[1] for attribute in attributes]
        starts = np.cumsum([0, *widths])  # the last one is of the trees' mean
        of_attribute = np.add.reduceat(parts, starts, axis=2).transpose(0, 2, 1)
        return np.asarray(ridge.explain(new) + of_attribute, dtype=np.float64)

    return Model(predict=predict, explain=explain)


def _indicators(attributes: tuple[Attribute, ...], codes: Codes) -> Floats:
    """A constant column, then those of each attribute, (C, 1 + columns)."""
    columns = [np.ones((len(codes), 1))]
    columns += [_columns(attribute)[codes[:, place]] for place, attribute in enumerate(attributes)]
    return np.concatenate(columns, axis=1)


def _columns(attribute: Attribute) -> Floats:
    """What the ridge knows of each value, (V, columns): its indicator; of an ordinal one the steps up to it.

    A value that was not measured then lies between its neighbours, for the two steps beside it share what is between.
    """
    num = len(attribute.values)
    return np.tri(num, num - 1, -1) if attribute.ordinal else np.eye(num)


def _features(attributes: tuple[Attribute, ...], codes: Codes) -> Floats:
    return np.concatenate([_of_value(attribute)[codes[:, place]] for place, attribute in enumerate(attributes)], axis=1)


def _of_value(attribute: Attribute) -> Floats:
    """What the trees know of each value: sine and cosine of an angle, the place of an ordered one, else indicators."""
    if attribute.circular:
        angle = np.deg2rad([attribute.degrees(value) for value in attribute.values])
        return np.stack([np.sin(angle), np.cos(angle)], axis=1)
    if attribute.ordinal:
        return np.arange(len(attribute.values), dtype=np.float64)[:, None]
    return np.eye(len(attribute.values))


def _log(values: Floats, positive: Bools) -> Floats:
    return np.where(positive, np.log(np.where(positive, np.maximum(values, 1e-300), 1.0)), values)


def _unlog(values: Floats, positive: Bools) -> Floats:
    return np.where(positive, np.exp(np.where(positive, values, 0.0)), values)


def _r2(truth: Floats, predicted: Floats) -> float:
    spread = float(np.square(truth - truth.mean()).sum())
    return 1 - float(np.square(truth - predicted).sum()) / spread if spread > 0 else 0.0


def _spearman(truth: Floats, predicted: Floats) -> float:
    if np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return 0.0
    from scipy import stats

    return float(stats.spearmanr(truth, predicted).statistic)
