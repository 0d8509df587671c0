"""The surrogate: predicts cell means from attributes, for cells that nobody measured, and says how well it does.

XGBoost on top of a ridge regression on main effects: the trees only have to find what is not additive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finegpr.attributes import Attribute
from search.embedding import Samples

if TYPE_CHECKING:
    from finegpr.catalog import Cells

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int16]
Predict = Callable[[Codes], Floats]

NUM_FOLDS = 4
NUM_IDENTITY_FOLDS = 2
FEWEST_CELLS = 8
NUM_TREES = 80
TREES: dict[str, Any] = {
    "max_depth": 3,
    "eta": 0.15,
    "lambda": 2.0,
    "min_child_weight": 4.0,
    "tree_method": "hist",
    "nthread": 1,  # more threads are slower at this size, and a result must not depend on their number
}
RIDGE = 0.1


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """How well one quantity is predicted on held-out cell means.

    ``split``: ``cells`` and ``value pairs`` are left out whole; ``identities`` leaves out people. R2 is 1 - squared
    error / variance (may be below 0); ``ceiling`` is the highest R2 that measurement noise allows, None when unknown.
    """

    quantity: str
    split: str
    r2: float
    spearman: float
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


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A fitted surrogate with its validation."""

    names: tuple[str, ...]
    report: SurrogateReport
    predict: Predict

    def predict_cells(self, codes: Codes) -> Floats:
        """Value codes (C, A) -> predicted means (C, q), in the units of the samples."""
        return self.predict(codes)


def fit_surrogate(cells: "Cells", samples: Samples, *, seed: int) -> Surrogate:
    """Fit on the measured cells, and validate by leaving out cells, pairs of values, and identities.

    Quantities that are positive in every image are modelled by their logarithm.
    """
    measured = samples.num_identities > 0
    positive = np.asarray((samples.values > 0).all(axis=0))
    scores, warnings = _validate(cells, samples, positive, seed)
    report = _report(scores, warnings, measured)
    fit = _fit_trees if report.trusted else _fit_ridge
    predict = _fit(fit, cells.attributes, cells.codes[measured], samples, measured, positive)
    return Surrogate(names=samples.names, report=report, predict=lambda codes: _unlog(predict(codes), positive))


def _validate(cells: "Cells", samples: Samples, positive: Bools, seed: int) -> tuple[list[SplitScore], list[str]]:
    measured = np.flatnonzero(samples.num_identities > 0)
    if len(measured) < FEWEST_CELLS:
        return [], [f"only {len(measured)} cells were measured: too few to validate a surrogate; measure more"]
    warnings: list[str] = []
    random = np.random.default_rng(seed)
    noise = samples.variance / np.maximum(samples.num_identities, 1)[:, None]
    truth = _Truth(values=samples.means, noise=noise if samples.has_variance else None, positive=positive)
    by_cell = random.permutation(len(measured)) % NUM_FOLDS
    folds = [(samples, measured[by_cell != fold], measured[by_cell == fold]) for fold in range(NUM_FOLDS)]
    scores = _held_out("cells", cells, folds, truth)
    pairs = _pair_folds(cells.codes, measured, random)
    if pairs:
        folds = [(samples, np.setdiff1d(measured, held), held) for held in pairs]
        scores += _held_out("value pairs", cells, folds, truth)
    else:
        warnings.append("too few attributes vary to leave out pairs of values")
    people = np.unique(samples.identity)
    if len(people) < 2 * NUM_IDENTITY_FOLDS:
        warnings.append(f"only {len(people)} identities were measured: none can be left out")
        return scores, warnings
    fold_of = random.permutation(len(people)) % NUM_IDENTITY_FOLDS
    of_image = fold_of[np.searchsorted(people, samples.identity)]
    for fold in range(NUM_IDENTITY_FOLDS):
        seen, unseen = samples.take(of_image != fold), samples.take(of_image == fold)
        noise = unseen.variance / np.maximum(unseen.num_identities, 1)[:, None]
        truth = _Truth(values=unseen.means, noise=noise if unseen.has_variance else None, positive=positive)
        train, held = np.flatnonzero(seen.num_identities), np.flatnonzero(unseen.num_identities)
        scores += _held_out(f"identities {fold + 1}", cells, [(seen, train, held)], truth)
    return scores, warnings


def _pair_folds(codes: Codes, measured: npt.NDArray[np.int64], random: np.random.Generator) -> list[Any]:
    """Disjoint sets of about a quarter of the cells, each all cells of some pairs of values of two attributes."""
    varying = [column for column in range(codes.shape[1]) if len(np.unique(codes[measured, column])) > 1]
    choices = list(combinations(varying, 2))
    folds = []
    for place in random.permutation(len(choices))[:NUM_FOLDS] if choices else []:
        pair = codes[measured][:, list(choices[place])]
        _, of_cell = np.unique(pair, axis=0, return_inverse=True)
        of_cell = of_cell.reshape(-1)
        num = int(of_cell.max()) + 1
        held = random.permutation(num)[: max(1, num // NUM_FOLDS)]
        folds.append(measured[np.isin(of_cell, held)])
    return [held for held in folds if FEWEST_CELLS // 2 <= len(held) < len(measured)]


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """Cell means to be predicted (C, q), the variance of their error (C, q) or None, and which are modelled as logs."""

    values: Floats
    noise: Floats | None
    positive: Bools


def _held_out(split: str, cells: "Cells", folds: Sequence[tuple[Samples, Any, Any]], truth: _Truth) -> list[SplitScore]:
    """Predict the held-out cells of every fold and score them together."""
    held = np.concatenate([fold[2] for fold in folds])
    predictions = []
    for fit in (_fit_trees, _fit_ridge):
        parts = []
        for samples, train, test in folds:
            mask = np.zeros(samples.num_cells, dtype=bool)
            mask[train] = True
            predict = _fit(fit, cells.attributes, cells.codes[mask], samples, mask, truth.positive)
            parts.append(predict(cells.codes[test]))
        predictions.append(np.concatenate(parts))
    values = _log(truth.values[held], truth.positive)
    scores = []
    for column, name in enumerate(folds[0][0].names):
        spread = float(values[:, column].var())
        ceiling = None
        if truth.noise is not None and spread > 0:
            noise = truth.noise[held, column]
            if truth.positive[column]:
                noise = noise / np.square(truth.values[held, column])  # variance of a logarithm, to first order
            ceiling = max(0.0, 1 - float(noise.mean()) / spread)
        trees, ridge = (
            (_r2(values[:, column], predicted[:, column]), _spearman(values[:, column], predicted[:, column]))
            for predicted in predictions
        )
        scores.append(
            SplitScore(
                quantity=name,
                split=split,
                r2=trees[0],
                spearman=trees[1],
                ridge_r2=ridge[0],
                ridge_spearman=ridge[1],
                ceiling=ceiling,
                num_held_out=len(held),
            )
        )
    return scores


def _report(scores: list[SplitScore], warnings: list[str], measured: Bools) -> SurrogateReport:
    report = SurrogateReport(
        scores=tuple(scores),
        trusted=bool(scores),
        warnings=tuple(warnings),
        num_cells=len(measured),
        num_unmeasured=int((~measured).sum()),
    )
    beaten = []
    for split in ("cells", "value pairs"):
        trees, ridge = report.mean_r2(split)
        if trees <= ridge:
            beaten.append(f"the surrogate does not beat a ridge on unseen {split} (mean R2 {trees:.3f}, {ridge:.3f})")
    if beaten:
        warnings = [*warnings, *beaten, "predictions for unmeasured cells come from the ridge; measure more cells"]
    return SurrogateReport(
        scores=report.scores,
        trusted=bool(scores) and not beaten,
        warnings=tuple(warnings),
        num_cells=report.num_cells,
        num_unmeasured=report.num_unmeasured,
    )


FitStandardised = Callable[[tuple[Attribute, ...], Codes, Floats, Floats], Predict]


def _fit(
    fit: FitStandardised,
    attributes: tuple[Attribute, ...],
    codes: Codes,
    samples: Samples,
    cells: Bools,
    positive: Bools,
) -> Predict:
    """Fit cell means (logarithms where ``positive``), each standardised, weighted by measured identities."""
    weights = samples.num_identities[cells].astype(np.float64)
    values = _log(samples.means[cells], positive)
    centre = np.average(values, axis=0, weights=weights)
    spread = values.std(axis=0)
    spread[spread <= 1e-12 * np.abs(centre) + 1e-300] = 1.0
    predict = fit(attributes, codes, (values - centre) / spread, weights / weights.mean())
    return lambda new: predict(new) * spread + centre


def _fit_ridge(attributes: tuple[Attribute, ...], codes: Codes, values: Floats, weights: Floats) -> Predict:
    """Ridge regression on one indicator per value; ``RIDGE`` counts as that many cells at zero."""
    x = _indicators(attributes, codes)
    root = np.sqrt(weights)[:, None]
    gram = (x * root).T @ (x * root) + RIDGE * np.eye(x.shape[1])
    coefficients = np.linalg.solve(gram, (x * root).T @ (values * root))
    return lambda new: np.asarray(_indicators(attributes, new) @ coefficients)


def _fit_trees(attributes: tuple[Attribute, ...], codes: Codes, values: Floats, weights: Floats) -> Predict:
    import xgboost  # half a second, which --help should not take

    ridge = _fit_ridge(attributes, codes, values, weights)
    features = _features(attributes, codes)
    residuals = values - ridge(codes)
    data = xgboost.QuantileDMatrix(features, label=residuals, weight=weights, nthread=1)
    boosters = xgboost.train({**TREES, "base_score": 0.0}, data, num_boost_round=NUM_TREES)

    def predict(new: Codes) -> Floats:
        trees = boosters.inplace_predict(_features(attributes, new)).reshape(len(new), -1)
        return np.asarray(ridge(new) + trees, dtype=np.float64)

    return predict


def _indicators(attributes: tuple[Attribute, ...], codes: Codes) -> Floats:
    """A constant column, then one column per value, (C, 1 + values)."""
    columns = [np.ones((len(codes), 1))]
    columns += [np.eye(len(attribute.values))[codes[:, place]] for place, attribute in enumerate(attributes)]
    return np.concatenate(columns, axis=1)


def _features(attributes: tuple[Attribute, ...], codes: Codes) -> Floats:
    """Sine and cosine of a circular attribute, indicators of the others."""
    columns = []
    for place, attribute in enumerate(attributes):
        if attribute.circular:
            angle = np.deg2rad([attribute.degrees(value) for value in attribute.values])[codes[:, place]]
            columns.append(np.stack([np.sin(angle), np.cos(angle)], axis=1))
        else:
            columns.append(np.eye(len(attribute.values))[codes[:, place]])
    return np.concatenate(columns, axis=1)


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
