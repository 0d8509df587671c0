"""Effects of identity-level attributes: what choosing people adds to the embedding of the cells.

An image of cell c and of a person of group g is taken to lie at u_c + d_g, d_g a sum over the values of the person.
Then a manifest of cell shares p and group shares q lies at sum_c p_c u_c + sum_g q_g d_g: the groups are more rows.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Bools, Floats, Ints
from search.objectives.embedding import SMALLEST_EIGENVALUE, CellEmbedding
from search.objectives.kernels import UnitGram

if TYPE_CHECKING:
    from finegpr.catalog import Cells

RIDGE_PEOPLE = 2.0  # an effect is shrunk as if its value had been seen in so many more people, who show none
NUM_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class IdentityScore:
    """How well the effects predict how far a person who was left out lies from the cells' means.

    ``explained`` is 1 - squared error / squared deviation, over people and over the columns of one quantity: the
    coordinates together, or the linear part. It may be below 0. ``ceiling``: the share of that deviation which is the
    person's own and not noise between the person's images, the most that any model of people could explain; None when
    nobody was measured in two cells.
    """

    quantity: str
    explained: float
    ceiling: float | None


@dataclass(frozen=True, kw_only=True)
class IdentityReport:
    """The additive effects of ``attributes`` on ``num_people`` measured people, checked on people left out.

    ``warnings`` say when the effects cannot be known, or explain nothing; they are used all the same.
    """

    attributes: tuple[str, ...]
    num_groups: int
    num_people: int
    scores: tuple[IdentityScore, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Units:
    """Mean values (U, r + 1) of one person in one cell each, the cell (U,), the person (U,), and the person's attribute
    values as 0 or 1, (U, P)."""

    values: Floats
    cell: Ints
    person: Ints
    design: Floats

    def take(self, chosen: Bools) -> "_Units":
        return _Units(
            values=self.values[chosen], cell=self.cell[chosen], person=self.person[chosen], design=self.design[chosen]
        )


def add_group_effects(
    embedding: CellEmbedding, groups: "Cells", identity: Ints, gram: UnitGram, *, seed: int
) -> tuple[CellEmbedding, IdentityReport]:
    """The embedding with a row for each of G groups after its C cells, for shares (n, C + G); and its validation.

    ``identity`` (rows,) is the catalog's, ``groups`` are the cells of its identity-level attributes. Effects are fitted
    by ridge regression to the deviations of measured people from their cells' means, and centred: over all people of
    the source they sum to 0. What of them lies outside the cells' coordinates gets coordinates of its own, by ``gram``.
    Of a group ``num_identities`` counts the measured people, and ``variance`` is 0: the score's correction remains the
    cells' own. It ignores the errors of the effects, which lengthen them, so that with few people a choice of people
    looks a little worse than it is.
    """
    people, group = _group_of_people(groups, identity)
    design = _design(groups)
    units, kept = _units(embedding, people, group, design)
    weights = _weights(units)
    of_value = weights.T @ units.values
    spread = design - np.bincount(group, minlength=len(groups)) @ design / len(group)
    effects = spread @ of_value
    of_all = np.zeros((len(kept), weights.shape[1]))
    of_all[kept] = weights
    more = _factor(spread @ (gram(of_all) - of_value[:, :-1] @ of_value[:, :-1].T) @ spread.T)
    measured = np.bincount(group[np.unique(units.person)], minlength=len(groups)).astype(np.int64)
    extended = replace(
        embedding,
        coordinates=np.block(
            [[embedding.coordinates, np.zeros((len(embedding.linear), more.shape[1]))], [effects[:, :-1], more]]
        ),
        linear=np.concatenate([embedding.linear, effects[:, -1]]),
        beyond_rank=np.concatenate([embedding.beyond_rank, np.zeros(len(groups))]),
        variance=np.concatenate([embedding.variance, np.zeros(len(groups))]),
        num_identities=np.concatenate([embedding.num_identities, measured]),
    )
    names = tuple(attribute.name for attribute in groups.attributes)
    scores = _held_out(units, seed=seed)
    return extended, IdentityReport(
        attributes=names,
        num_groups=len(groups),
        num_people=int(measured.sum()),
        scores=scores,
        warnings=_warnings(", ".join(names), scores),
    )


def _group_of_people(groups: "Cells", identity: Ints) -> tuple[Ints, Ints]:
    """The people (I,) of known group, ascending, and their group (I,)."""
    rows = np.flatnonzero((groups.of_row >= 0) & (identity > 0))
    people, first = np.unique(identity[rows], return_index=True)
    return people, groups.of_row[rows[first]]


def _design(groups: "Cells") -> Floats:
    """Which values each group has, (G, P) of 0 and 1."""
    columns = [groups.codes[:, [place]] == np.unique(groups.codes[:, place]) for place in range(groups.codes.shape[1])]
    return np.concatenate(columns, axis=1).astype(np.float64)


def _units(embedding: CellEmbedding, people: Ints, group: Ints, design: Floats) -> tuple[_Units, Bools]:
    """The measured people of known group, cell by cell; a person is the place among ``people``. And which units of the
    samples these are."""
    samples = embedding.samples
    label = np.empty(len(samples.unit_cell), dtype=np.int64)
    label[samples.unit_of_image] = samples.identity
    person = np.searchsorted(people, label).clip(max=len(people) - 1)
    kept = np.asarray(people[person] == label)
    units = _Units(
        values=samples.unit_means @ embedding.readout,
        cell=samples.unit_cell,
        person=person,
        design=design[group[person]],
    )
    return units.take(kept), kept


def _weights(units: _Units) -> Floats:
    """Weights (U, P) of the units in the values' effects: ridge regression on the differences within cells."""
    design = units.design - _means(units.design, units.cell)[units.cell]
    penalty = RIDGE_PEOPLE * len(units.cell) / max(len(np.unique(units.person)), 1)
    gram = design.T @ design + max(penalty, RIDGE_PEOPLE) * np.eye(design.shape[1])
    return np.asarray(np.linalg.solve(gram, design.T).T)


def _factor(gram: Floats) -> Floats:
    """Coordinates (G, r) whose inner products are a Gram matrix (G, G), rounding noise apart."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    kept = values > SMALLEST_EIGENVALUE * max(values[-1], 0.0)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _means(values: Floats, cell: Ints) -> Floats:
    """Means (C, m) over the units of each cell; 0 where there is none."""
    sums = np.zeros((int(cell.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, cell, values)
    return np.asarray(sums / np.maximum(np.bincount(cell), 1)[:, None])


def _held_out(units: _Units, *, seed: int) -> tuple[IdentityScore, ...]:
    """Leave people out, a fold at a time; none when no two measured people share a cell."""
    people = np.random.default_rng(seed).permutation(np.unique(units.person))
    deviations, predictions, owners = [], [], []
    for held in np.array_split(people, min(NUM_FOLDS, len(people))) if len(people) > 1 else []:
        out = np.isin(units.person, held)
        train, test = units.take(~out), units.take(out & np.isin(units.cell, units.cell[~out]))
        deviations.append(test.values - _means(train.values, train.cell)[test.cell])
        predictions.append(
            (test.design - _means(train.design, train.cell)[test.cell]) @ (_weights(train).T @ train.values)
        )
        owners.append(test.person)
    if not sum(map(len, owners)):
        return ()
    deviation, error, owner = np.concatenate(deviations), np.concatenate(predictions), np.concatenate(owners)
    error = deviation - error
    num = np.bincount(owner)
    own = _means(deviation, owner)
    # One-way analysis of variance: what differs between the cells of one person is noise.
    within = np.square(deviation - own[owner]).sum(axis=0) / max(int((num - 1)[num > 1].sum()), 1)
    noise = within * np.sum(1 / num[num > 0])
    total = np.square(own).sum(axis=0)
    missed = np.square(_means(error, owner)).sum(axis=0)
    columns = {"coordinates": slice(0, len(total) - 1), "linear": slice(len(total) - 1, None)}
    return tuple(
        IdentityScore(
            quantity=quantity,
            explained=float(1 - missed[at].sum() / total[at].sum()),
            ceiling=float(np.clip(1 - noise[at].sum() / total[at].sum(), 0, 1)) if (num > 1).any() else None,
        )
        for quantity, at in columns.items()
        if total[at].sum() > 0
    )


def _warnings(names: str, scores: tuple[IdentityScore, ...]) -> tuple[str, ...]:
    if not scores:
        return (f"no two measured people share a cell: the effects of {names} are unknown; measure more people",)
    return tuple(
        f"additive effects of {names} explain nothing of the {score.quantity} of people who were left out "
        f"({score.explained:.2f}); a choice of people rests on noise"
        for score in scores
        if score.explained <= 0
    )
