"""Why a subset was chosen: what each attribute value does to a score, with intervals over people.

People are the independent unit. One draw resamples all identities with replacement (Efron 1979); to first order that
moves a cell's mean by 1/k sum_i (n_i - 1) e_i, n_i how often person i was drawn and e_i the person's deviation from the
mean of the cell's k people, times sqrt(k / (k - 1)) so that the variance is v / k and not (k - 1) / k of it. A cell of
one person takes the deviation of a random one from a cell of several. So all draws of a subset's mean are one product:
draws x people times people x coordinates. What a surrogate filled in is taken as it is.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from finegpr.arrays import Floats
from finegpr.mixture import Mixture
from finegpr.subset import Subset
from search.analysis.records import Contour, Effect, Importance, Spread
from search.measured import Measured
from search.objectives.embedding import CellEmbedding
from search.objectives.mean_distance import embed_distance
from search.objectives.surrogate import SurrogateReport, fit_reported

if TYPE_CHECKING:
    from finegpr.catalog import Catalog, Cells
    from search.objectives import CellObjective

NUM_DRAWS = 400
INTERVAL = (2.5, 97.5)
PERCENTILES = (5, 25, 50, 75, 95)


class Resampling:
    """Scores of an embedding when its measured identities are resampled; see this module's docstring.

    Some cell should have two measured identities, or nothing is known of the variance: see ``has_variance``.
    """

    def __init__(self, embedding: CellEmbedding, *, seed: int, draws: int = NUM_DRAWS) -> None:
        samples = embedding.samples
        assert samples.has_variance
        self._embedding = embedding
        deviations, self._cell = samples.deviations
        identity = np.empty(len(self._cell), dtype=np.int64)
        identity[samples.unit_of_image] = samples.identity
        people, self._person = np.unique(identity, return_inverse=True)
        self._num_people = len(people)
        self._num_in_cell = samples.num_identities
        random = np.random.default_rng(seed)
        counts = random.multinomial(self._num_people, np.full(self._num_people, 1 / self._num_people), size=draws)
        self._counts = counts.astype(np.float64) - 1.0
        num = self._num_in_cell[self._cell]
        several = np.flatnonzero(num > 1)
        deviations[several] *= np.sqrt(num[several] / (num[several] - 1.0))[:, None]
        alone = np.flatnonzero(num == 1)
        deviations[alone] = deviations[random.choice(several, len(alone))]
        self._deviations = deviations

    def scores(self, shares: Floats) -> Floats:
        """Score of each subset in every draw, (n, C) -> (n, draws); their mean is ``embedding.score`` to second order.

        Two subsets see the same people in the same draw, so their difference is paired.
        """
        exact = self._embedding.score(shares)
        moved = np.stack([self._moved(row) for row in shares])
        return np.asarray(exact[:, None] + moved)

    def _moved(self, shares: Floats) -> Floats:
        """How far one subset's score moves in every draw, (C,) -> (draws,)."""
        weight = shares[self._cell] / self._num_in_cell[self._cell]
        units = np.flatnonzero(weight)
        by_person = sparse.csr_array(
            (weight[units], (self._person[units], units)), shape=(self._num_people, len(weight))
        )
        parts = by_person @ self._deviations @ self._embedding.readout
        moves = self._counts @ parts
        mean = shares @ self._embedding.coordinates
        # The mean square of the moves is what the score's own correction takes off: here it is taken off again.
        centred = parts[:, :-1] - parts[:, :-1].mean(axis=0)
        squares = np.square(moves[:, :-1]).sum(axis=1) - np.square(centred).sum()
        return np.asarray(2 * moves[:, :-1] @ mean + moves[:, -1] + squares)


def flip_effects(
    objective: "CellObjective", subset: Subset, *, quantity: str, seed: int, draws: int = NUM_DRAWS
) -> tuple[Effect, ...]:
    """Leave one value out, or take one in: the score with that value flipped, minus the score of ``subset``.

    Where lower is better, a positive effect means that the value is rightly as it is. A flip that the budget or the
    bounds forbid is scored all the same, see ``Effect``. Intervals are known for quadratic objectives, where some cell
    has two measured people.
    """
    space = objective.space
    places = [
        (attribute.name, value)
        for attribute, values in zip(space.attributes, space.values, strict=True)
        for value in values
    ]
    mask = space.mask(subset)
    whole = space.subset(mask)
    flips = [_flip(whole, name, value) for name, value in places]
    masks = np.stack([mask, *(mask if flip is None else space.mask(flip) for flip in flips)])
    allowed, shares = space.feasible(masks)[1:], space.expected_shares(masks)
    form, drawn = objective.form, None
    scores = form.score(shares)
    if isinstance(form, CellEmbedding) and form.samples.has_variance:
        drawn = Resampling(form, seed=seed, draws=draws).scores(shares)
    effects = []
    for place, ((attribute, value), flip) in enumerate(zip(places, flips, strict=True), start=1):
        # Without a single image there are no shares.
        known = flip is not None and shares[place].any()
        low, high = _interval(drawn[place] - drawn[0]) if known and drawn is not None else (None, None)
        effects.append(
            Effect(
                quantity=quantity,
                attribute=attribute,
                value=value,
                effect=float(scores[place] - scores[0]) if known else None,
                low=low,
                high=high,
                allowed=bool(known and allowed[place - 1]),
            )
        )
    return tuple(effects)


def marginal_effects(
    embedding: CellEmbedding, cells: "Cells", *, quantity: str, seed: int, draws: int = NUM_DRAWS
) -> tuple[Effect, ...]:
    """The score of all images with one value, minus the mean over the attribute's values, weighted by their images.

    For ``mean_distance`` that is the mean D of these images minus the mean D of all. Left out are cells that nobody
    measured, and attributes with one value.
    """
    embedding = _of_cells(embedding)
    resampling = Resampling(embedding, seed=seed, draws=draws) if embedding.samples.has_variance else None
    images = np.where(embedding.unmeasured, 0, cells.images) / cells.images[~embedding.unmeasured].sum()
    effects = []
    for column, attribute in enumerate(cells.attributes):
        present = np.unique(cells.codes[images > 0, column])
        if len(present) < 2:
            continue
        inside = (cells.codes[:, column] == present[:, None]) * images
        weight = inside.sum(axis=1)
        shares = inside / weight[:, None]
        scores = embedding.score(shares)
        found = scores - weight @ scores
        drawn = resampling.scores(shares) if resampling else None
        for place, code in enumerate(present):
            low, high = _interval(drawn[place] - weight @ drawn) if drawn is not None else (None, None)
            effects.append(
                Effect(
                    quantity=quantity,
                    attribute=attribute.name,
                    value=attribute.values[code],
                    effect=float(found[place]),
                    low=low,
                    high=high,
                )
            )
    return tuple(effects)


def distance_importances(measured: Measured, report: SurrogateReport) -> tuple[Importance, ...]:
    """What the distance to the target hangs on: mean |SHAP| of each attribute for D_total, its style and its content.

    ``report`` is of a surrogate of the distance terms; where it trusts no trees, the values are the ridge's.
    """
    cells, embedding = measured.cells, embed_distance(measured)
    weighted = embedding.samples.values * embedding.readout[:, 0]
    style, content = np.split(weighted, [len(measured.measurements.of.style)], axis=1)
    parts = np.stack([each.sum(axis=1) for each in (weighted, style, content)], axis=1)
    samples = replace(embedding.samples, values=parts, names=("D_total", "style", "content"))
    surrogate = fit_reported(cells, samples, report)
    found = np.average(np.abs(surrogate.shap_values(cells.codes)), axis=0, weights=cells.images)
    return tuple(
        Importance(
            quantity=quantity,
            attribute=attribute.name,
            importance=float(found[row, column]),
            relative=bool(surrogate.positive[column]),
        )
        for column, quantity in enumerate(surrogate.names)
        for row, attribute in enumerate(cells.attributes)
    )


def distance_spreads(source: "Catalog", measured: Measured) -> tuple[Spread, ...]:
    """How D_total spreads over the measured images with each value, of every attribute with two values or more."""
    total = measured.total
    frame = source.frame.iloc[measured.measurements.row]
    spreads = []
    for attribute in source.attributes:
        codes = frame[attribute.name].cat.codes.to_numpy()
        present = np.unique(codes[codes >= 0])
        if len(present) < 2:
            continue
        for code in present:
            inside = total[codes == code]
            low, lower, middle, upper, high = np.percentile(inside, PERCENTILES).tolist()
            spreads.append(
                Spread(
                    attribute=attribute.name,
                    level=attribute.level,
                    value=attribute.values[code],
                    num_images=len(inside),
                    percentiles=(low, lower, middle, upper, high),
                )
            )
    return tuple(spreads)


def distance_contour(source: "Catalog", measured: Measured, importances: Sequence[Importance]) -> Contour | None:
    """Mean D_total over the two attributes that matter most to it; None with fewer than two attributes."""
    of_total = [each for each in importances if each.quantity == "D_total"]
    if len(of_total) < 2:
        return None
    first, second = sorted(of_total, key=lambda each: -each.importance)[:2]
    frame = source.frame.iloc[measured.measurements.row]
    # The attribute with more values goes down the page, where there is room.
    rows, columns = sorted((frame[first.attribute], frame[second.attribute]), key=lambda column: -column.nunique())
    means = pd.Series(measured.total).groupby([rows.array, columns.array], observed=True).mean()
    table = means.unstack()
    return Contour(
        quantity="D_total",
        row_attribute=str(rows.name),
        column_attribute=str(columns.name),
        rows=tuple(map(str, table.index)),
        columns=tuple(map(str, table.columns)),
        means=tuple(tuple(None if np.isnan(mean) else float(mean) for mean in row) for row in table.to_numpy()),
    )


def _flip(subset: Subset, attribute: str, value: str) -> Subset | None:
    """The subset, which names the attribute, without one value, or with it, in a mixture at the others' mean weight.

    None where it was the last value.
    """
    weights = {name: dict.fromkeys(chosen, 1) for name, chosen in subset.values.items()}
    if isinstance(subset, Mixture):
        weights = {name: dict(of_value) for name, of_value in subset.weights.items()}
    chosen = weights[attribute]
    if value in chosen:
        del chosen[value]
    else:
        chosen[value] = round(fmean(chosen.values()))
    if not chosen:
        return None
    return Mixture(weights) if isinstance(subset, Mixture) else Subset(weights)


def _of_cells(embedding: CellEmbedding) -> CellEmbedding:
    """Without what comes after the cells: groups of identities, whose parts are 0 for the whole source."""
    num = embedding.samples.num_cells
    return replace(
        embedding,
        coordinates=embedding.coordinates[:num],
        linear=embedding.linear[:num],
        beyond_rank=embedding.beyond_rank[:num],
        variance=embedding.variance[:num],
        num_identities=embedding.num_identities[:num],
    )


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.percentile(draws, INTERVAL).tolist()
    return low, high
