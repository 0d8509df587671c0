"""Adaptive sampling: which images to measure next, when all that is asked is which subset to choose.

After every round the best subset by what is measured so far is compared with its rivals. Its lead over one is, to
first order, a sum over cells of g_c . u_c, g_c the difference of the two scores' gradients in the cell's embedding. So
one more image of a cell is worth g_c' S_c g_c / (k_c (k_c + 1)), S_c the covariance between its identities, summed over
rivals by how often each would be the best if the cells' means were drawn from what is known of them (Thompson 1933;
spread over cells as by Neyman 1934, over rivals as in optimal computing budget allocation, Chen et al. 2000). A cell in
no likely subset is worth nothing, nor is one that all of them hold alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from finegpr.arrays import Bools, Floats, Ints
from finegpr.config import Config
from finegpr.errors import InputError
from finegpr.subset import Subset
from finegpr.weighing import Weighing
from search.adaptive.belief import Belief, believe
from search.measured import Measured
from search.objectives import QUADRATIC, CellObjective, make_objective
from search.optimizers.baselines import random_masks
from search.optimizers.polish import neighbours
from search.space import Space

if TYPE_CHECKING:
    from finegpr.measuring.results import Measurements

PAIRED = 0.15  # share of the seed's cells that give a second image: without pairs no variance would be known
NUM_RANDOM = 200  # subsets whose median score is the unit of regret; the best of them are starts
NUM_STARTS = 8
NUM_OPTIMA = 6  # whose neighbours are rivals
MAX_RIVALS = 500
NUM_DRAWS = 128
MAX_ENTRIES = 4_000_000  # of a table of the next images of all cells
SIGNIFICANT_DIGITS = 10


class AdaptiveConfig(Config):
    """Adaptive sampling: images are measured in rounds, where the choice of a subset hangs on them.

    All images are those that would be measured otherwise: of known cell, up to ``images_per_cell`` where that is set.
    ``objective`` names what the subset is chosen by. The first round takes one image in a share ``seed_cells`` of the
    cells, and a second in some of these; each further round ``batch`` of all images, a share ``explore`` of it
    where fewest are measured. It ends when the subset has been the same for ``patience`` more rounds, or is expected to
    lie within ``tolerance`` of the best (1 is a median random subset's regret), or at ``ceiling`` of all images.
    """

    objective: str = "mmd_rbf"
    seed_cells: float = Field(default=0.5, gt=0, le=1)
    batch: float = Field(default=0.02, gt=0, le=1)
    explore: float = Field(default=0.1, gt=0, le=1)
    patience: int = Field(default=3, ge=1)
    tolerance: float = Field(default=0.001, ge=0, lt=1)
    ceiling: float = Field(default=0.5, gt=0, le=1)

    @field_validator("objective")
    @classmethod
    def _is_known(cls, objective: str) -> str:
        if objective not in QUADRATIC:
            known = ", ".join(QUADRATIC)
            raise ValueError(f"adaptive sampling needs a quadratic objective, got {objective!r}; expected {known}")
        return objective


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What one round decided: the subset by all that is measured, its score, and the rows (b,) to measure next.

    ``expected_regret`` is what the best rival is expected to gain over it, 1 being a median random subset's regret;
    ``certainty`` the share of draws in which no rival was better. ``stopped`` says why no rows follow, or is None.
    """

    subset: Subset
    score: float
    expected_regret: float
    certainty: float
    rows: Ints
    stopped: str | None


class AdaptiveSampler:
    """Decides round by round which rows of a catalog to measure. It keeps no state: the same past gives the same rows.

    ``order`` holds the rows of every cell of ``space`` together, cells ascending, each in the order to be measured in:
    see ``finegpr.measuring.measure.cell_order``. ``identity`` (rows,) is the catalog's.
    """

    def __init__(
        self, config: AdaptiveConfig, space: Space, identity: Ints, order: Ints, *, target: str, weighing: Weighing
    ) -> None:
        cell = space.cells.of_row[order]
        if (np.diff(cell) < 0).any():
            raise ValueError("order should hold the rows of each cell together, cells ascending")
        self.config = config
        self.num_images = len(order)
        self.ceiling = max(1, int(np.floor(config.ceiling * len(order) + 1e-9)))
        self._space = space
        self._identity = identity
        self._target = target
        self._weighing = weighing
        self._order = order
        self._sizes = np.bincount(cell, minlength=len(space.cells)).astype(np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        # Among equally measured cells, an order that no attribute has a part in.
        self._turn = np.argsort(np.random.default_rng(space.seed).permutation(len(space.cells)))

    def first(self) -> Ints:
        """The rows of the seed sample, ascending."""
        num = int(np.ceil(self.config.seed_cells * len(self._sizes)))
        counts = (self._turn < num).astype(np.int64) + (self._turn < np.ceil(PAIRED * num))
        return self._rows(np.zeros_like(counts), self._within_ceiling(np.minimum(counts, self._sizes)))

    def decide(self, measurements: "Measurements", batches: Sequence[Ints], chosen: Sequence[Subset]) -> Decision:
        """What follows from the measurements of these batches of rows; ``chosen`` are the earlier rounds' subsets.

        Rows of the batches that could not be measured are not asked for again.
        """
        measured = Measured(
            measurements=measurements,
            cells=self._space.cells,
            identity=self._identity,
            target=self._target,
            weighing=self._weighing,
        )
        objective = make_objective(self.config.objective, self._space, measured)
        cells = self._space.cells
        asked = np.bincount(cells.of_row[np.concatenate(batches)], minlength=len(cells)).astype(np.int64)
        belief = believe(objective.embedding, objective.report, self._sizes)
        seed = (self._space.seed, len(chosen))
        optima, unit = _optima(objective, [self._space.mask(subset) for subset in chosen[-1:]], seed=seed[1])
        rivals = _Rivals(objective, optima)
        winners, gain = rivals.draw(belief, np.random.default_rng(seed))
        subset = self._space.subset(rivals.masks[0])
        expected = gain / unit if unit > 0 else 0.0
        stopped = why_stop(self.config, [*chosen, subset], expected)
        if stopped is None and asked.sum() >= self.ceiling:
            stopped = f"{asked.sum()} of {self.num_images} images are measured, the ceiling"
        counts = np.zeros_like(asked)
        if stopped is None:
            counts = self._allocate(asked, belief, *rivals.value(belief, winners))
        return Decision(
            subset=subset,
            score=float(rivals.scores[0]),
            expected_regret=expected,
            certainty=float((winners == 0).mean()),
            rows=self._rows(asked, counts),
            stopped=stopped,
        )

    def _allocate(self, asked: Ints, belief: Belief, within: Floats, predicted: Floats) -> Ints:
        """Images of each cell in the next batch, (C,)."""
        room = self._sizes - asked
        num = min(max(1, round(self.config.batch * self.num_images)), self.ceiling - int(asked.sum()), int(room.sum()))
        explored = round(self.config.explore * num)
        step = np.arange(min(int(room.max()), num, max(1, MAX_ENTRIES // len(room))))
        known = belief.num_measured[:, None] + step
        value = within[:, None] / np.maximum(known * (known + 1), 1)
        # The first image replaces a prediction: what is left of the doubt is as of two estimates averaged.
        first = np.divide(predicted**2, predicted + within, out=np.zeros_like(within), where=predicted + within > 0)
        value[:, 0] = np.where(belief.unmeasured, first, value[:, 0])
        value[belief.unmeasured] = np.minimum.accumulate(value[belief.unmeasured], axis=1)
        counts = self._best(value, room, num - explored, worthless=0.0)
        return counts + self._best(-(asked + counts)[:, None] - step, room - counts, num - int(counts.sum()))

    def _best(self, value: NDArray[np.generic], room: Ints, num: int, *, worthless: float = -np.inf) -> Ints:
        """Spend ``num`` images where they are worth most: value (C, T) of a cell's next images, falling in T."""
        by_turn = np.argsort(self._turn)
        table = np.where(np.arange(value.shape[1]) < room[:, None], _rounded(value), -np.inf)[by_turn]
        flat = np.argsort(-table, axis=None, kind="stable")[:num]
        flat = flat[table.ravel()[flat] > worthless]
        return np.bincount(by_turn[flat // table.shape[1]], minlength=len(room)).astype(np.int64)

    def _within_ceiling(self, counts: Ints) -> Ints:
        """The first images of these, (C,), when all would be more than the ceiling."""
        value = -np.arange(max(1, int(counts.max())))[None, :].repeat(len(counts), axis=0)
        return self._best(value, counts, min(self.ceiling, int(counts.sum())))

    def _rows(self, asked: Ints, counts: Ints) -> Ints:
        """The next ``counts`` (C,) rows of every cell after the first ``asked``, ascending."""
        places = np.repeat(self._starts + asked - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return np.sort(self._order[places])


def why_stop(config: AdaptiveConfig, chosen: Sequence[Subset], expected_regret: float) -> str | None:
    """Why no more need be measured after rounds that chose these subsets, or None; the ceiling apart."""
    recent = chosen[-config.patience - 1 :]
    if len(recent) > config.patience and len(set(recent)) == 1:
        return f"the subset is the same for {config.patience} more rounds"
    # One round's confidence is not enough: it comes from the same images as the choice.
    if expected_regret < config.tolerance and len(set(chosen[-2:])) == 1 < len(chosen):
        return f"a better subset is expected to gain less than {config.tolerance:g} of a random subset's regret"
    return None


def _optima(objective: CellObjective, starts: Sequence[Bools], *, seed: int) -> tuple[Bools, float]:
    """Local optima (n, bits) under flips and exchanges, the best first, and the median random score above the best."""
    space = objective.space
    masks = random_masks(space, NUM_RANDOM, seed=seed)
    masks = masks[space.feasible(masks)]
    scores = _rounded(objective.score_masks(masks))
    if not np.isfinite(scores).any():
        raise InputError("no random subset fits the budget; widen budget.least and budget.most")
    starts = [*starts, *masks[np.argsort(scores, kind="stable")[:NUM_STARTS]]]
    found = {mask.tobytes(): (score, mask) for mask, score in (_descend(objective, start) for start in starts)}
    ordered = sorted(found.values(), key=lambda pair: (pair[0], pair[1].tobytes()))
    return np.stack([mask for _, mask in ordered]), float(np.nanmedian(scores)) - ordered[0][0]


def _descend(objective: CellObjective, mask: Bools) -> tuple[Bools, float]:
    """The local optimum that the steepest way down from ``mask`` ends in, and its score."""
    score = float(_rounded(objective.score_masks(mask[None]))[0])
    while True:
        near = neighbours(objective.space, mask)
        scores = _rounded(objective.score_masks(near))
        if not (scores < score).any():
            return mask, score
        place = int(scores.argmin())
        mask, score = near[place], float(scores[place])


class _Rivals:
    """Subsets that might turn out to be the best: local optima and their neighbours, the chosen one first."""

    def __init__(self, objective: CellObjective, optima: Bools) -> None:
        near = [neighbours(objective.space, mask) for mask in optima[:NUM_OPTIMA]]
        masks = np.concatenate([optima, *near])
        _, first = np.unique(masks, axis=0, return_index=True)
        masks = masks[np.sort(first)]
        scores = _rounded(objective.score_masks(masks))
        # The chosen one is the best of all its neighbours, so a stable sort keeps it first.
        kept = np.argsort(scores, kind="stable")[:MAX_RIVALS]
        self.masks, self.scores = masks[kept], scores[kept]
        shares = objective.space.expected_shares(self.masks)
        # What choosing people adds is taken as known: only the cells' own coordinates are in doubt.
        self._means = (shares @ objective.embedding.coordinates)[:, : objective.embedding.readout.shape[1] - 1]
        self._shares = shares[:, : len(objective.space.cells)]

    def draw(self, belief: Belief, random: np.random.Generator) -> tuple[Ints, float]:
        """Which of them is the best in each of ``NUM_DRAWS`` draws, and the mean of its lead over the chosen one."""
        winners, gain = np.zeros(NUM_DRAWS, dtype=np.int64), 0.0
        for turn in range(NUM_DRAWS):
            errors = belief.draw(random)
            moved = self._shares @ errors
            # To first order: the squared errors are what the score's correction already takes off.
            scores = self.scores + 2 * (self._means * moved[:, :-1]).sum(axis=1) + moved[:, -1]
            winners[turn] = scores.argmin()
            gain += float(scores[0] - scores.min()) / NUM_DRAWS
        return winners, gain

    def value(self, belief: Belief, winners: Ints) -> tuple[Floats, Floats]:
        """What an image of each cell, and an exact mean of each unmeasured one, takes off the doubt, (C,) each."""
        within, predicted = np.zeros(len(belief.scale)), np.zeros(len(belief.scale))
        for rival, times in zip(*np.unique(winners[winners > 0], return_counts=True), strict=True):
            of_image, of_prediction = belief.variances(self._gradient(rival) - self._gradient(0))
            total = float(of_image @ belief.remaining + of_prediction @ belief.unmeasured)
            if total > 0:
                # The expected loss of a close call falls with the standard deviation of the lead.
                within += times / np.sqrt(total) * of_image
                predicted += times / np.sqrt(total) * of_prediction
        return within, predicted

    def _gradient(self, place: int) -> Floats:
        """Gradient of a subset's score in the cells' coordinates and linear parts, (C, r + 1)."""
        weights = np.append(2 * self._means[place], 1.0)
        return np.asarray(self._shares[place][:, None] * weights)


def _rounded(values: NDArray[np.generic]) -> Floats:
    """Ten digits, so that the last bits of a matrix product do not decide what is measured."""
    exact = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore"):
        digits = SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(np.abs(exact)))
    unit = 10.0 ** np.where(np.isfinite(digits), digits, 0.0)
    return np.round(exact * unit) / unit
