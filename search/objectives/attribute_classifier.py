"""What a sketch says of an image's attributes: logistic regressions trained on the source, people left out in turn.

The regression is ours, not scikit-learn's, which stops elsewhere: the scores in journals of before must come out again.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from finegpr.arrays import Floats, Ints
from finegpr.errors import InputError
from search.measured import Measured

NUM_FOLDS = 3  # of people
MAX_IMAGES = 20_000  # that a classifier is trained on
RIDGE = 1e-3
MAX_STEPS = 80
JITTER = 0.3  # of the copies: noise, differences between images, and the logarithm of a term's contrast
SPREAD_FLOOR = 0.3  # of the median; a coordinate that hardly varies is not blown up
SEED = 0  # of folds and copies: the same measurements give the same classifiers, whatever the search's seed


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """One attribute as read from n source and m target images; ``seen`` (V,) are the codes of the values that occur.

    ``labels`` (n,) count within ``seen``. ``of_source`` (n, V): logits of each image by the classifier that was trained
    without its fold of people; ``of_target``: logits (m, V) by each of the classifiers.
    """

    name: str
    values: tuple[str, ...]
    seen: Ints
    labels: Ints
    of_source: Floats
    of_target: tuple[Floats, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """All attributes of the cells; ``cell``, ``person`` and ``fold`` (n,) of the measured source images."""

    cell: Ints
    person: Ints
    fold: Ints
    attributes: tuple[Reading, ...]


def read_attributes(measured: Measured) -> Readings:
    """Train on the source, read source and target.

    The pixels are not at hand, so the classifiers learn from ``jittered`` sketches, not from altered images. Raises
    InputError for measurements that do not belong to the cells or the target, and for fewer than ``NUM_FOLDS`` people.
    """
    cells = measured.cells
    keep, cell, person = measured.images
    people, of_image = np.unique(person, return_inverse=True)
    if len(people) < NUM_FOLDS:
        raise InputError(
            f"classifiers of attributes are judged on people left out: expected at least {NUM_FOLDS} measured people, "
            f"got {len(people)}; measure more"
        )
    fold = (np.random.default_rng(SEED).permutation(len(people)) % NUM_FOLDS)[of_image.reshape(-1)]
    phi, goal = standardised(measured, keep)
    readings = []
    for column, attribute in enumerate(cells.attributes):
        seen, labels = np.unique(cells.codes[cell, column].astype(np.int64), return_inverse=True)
        labels = labels.reshape(-1)
        of_source, of_target = _read(phi, labels, fold, goal, measured.measurements.blocks, len(seen))
        readings.append(
            Reading(
                name=attribute.name,
                values=attribute.values,
                seen=seen,
                labels=labels,
                of_source=of_source,
                of_target=of_target,
            )
        )
    return Readings(cell=cell, person=person, fold=fold, attributes=tuple(readings))


def standardised(measured: Measured, keep: Ints) -> tuple[Floats, Floats]:
    """Sketches of the measured images at ``keep`` (n, S) and of the target's (m, S), in units of the source's spread
    round its mean."""
    phi = measured.phi[keep].astype(np.float64)
    origin, spread = phi.mean(axis=0), phi.std(axis=0)
    unit = np.maximum(spread + SPREAD_FLOOR * np.median(spread), 1e-300)
    goal = (measured.target_phi.astype(np.float64) - origin) / unit
    phi -= origin
    phi /= unit
    return phi, goal


def _read(
    x: Floats, labels: Ints, fold: Ints, target: Floats, blocks: list[slice], num_values: int
) -> tuple[Floats, tuple[Floats, ...]]:
    """Logits of the source (n, V), out of fold, and those of the target (m, V) by each classifier."""
    of_source = np.empty((len(x), num_values))
    of_target = []
    for held in range(NUM_FOLDS):
        random = np.random.default_rng((SEED, held))
        rows = np.flatnonzero(fold != held)
        if len(rows) > MAX_IMAGES:
            rows = np.sort(random.permutation(rows)[:MAX_IMAGES])
        copies = jittered(x[rows], blocks, random)
        classifier = fit_classifier(np.vstack([x[rows], copies]), np.tile(labels[rows], 2), num_values)
        of_source[fold == held] = classifier.logits(x[fold == held])
        of_target.append(classifier.logits(target))
    return of_source, tuple(of_target)


def jittered(x: Floats, blocks: list[slice], random: np.random.Generator) -> Floats:
    """A changed copy of each sketch (n, S), a stand-in for other cameras: independent noise, a share of the difference
    of two other images, and each term's block times a contrast of its own; all three normal, of scale ``JITTER``."""
    changed = x + JITTER * random.normal(size=x.shape) * x.std(axis=0)
    first, second = random.permutation(len(x)), random.permutation(len(x))
    changed += JITTER * random.normal(size=(len(x), 1)) * (x[first] - x[second])
    for block in blocks:
        changed[:, block] *= np.exp(JITTER * random.normal(size=(len(x), 1)))
    return np.asarray(changed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A multinomial logistic regression: logits x @ weights + bias, (n, S) -> (n, V)."""

    weights: Floats
    bias: Floats

    def logits(self, x: Floats) -> Floats:
        return np.asarray(x @ self.weights + self.bias)


def fit_classifier(x: Floats, labels: Ints, num_values: int, *, ridge: float = RIDGE) -> Classifier:
    """Minimise the mean cross-entropy of ``labels`` (n,) given ``x`` (n, S), plus ``ridge`` / 2 |weights|^2."""
    num, size = x.shape
    rows = np.arange(num)

    def loss(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(size + 1, num_values)
        logits = x @ table[:-1] + table[-1]
        posterior = softmax(logits)
        entropy = -float(np.log(np.maximum(posterior[rows, labels], 1e-300)).mean())
        posterior[rows, labels] -= 1.0
        gradient = np.empty_like(table)
        gradient[:-1] = x.T @ posterior / num + ridge * table[:-1]
        gradient[-1] = posterior.mean(axis=0)
        return entropy + ridge / 2 * float(np.square(table[:-1]).sum()), gradient.reshape(-1)

    start = np.zeros((size + 1) * num_values)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS})
    table = found.x.reshape(size + 1, num_values)
    return Classifier(weights=table[:-1], bias=table[-1])


def softmax(logits: Floats) -> Floats:
    """Rows (n, V) that sum to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
