"""A simulated source and target without images, for tests and benchmarks: measurements whose truth is known."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from finegpr.arrays import Floats, Ints
from finegpr.attributes import Attribute
from finegpr.catalog import Cells
from finegpr.measuring.results import Measurements
from finegpr.subset import Subset
from finegpr.weighing import Terms, Weighing
from search.measured import Measured

TARGET = "target"


TERMS = Terms(style=("style1", "style2", "style3", "style4", "style5"), content=("content",))


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """``cell_means`` (C, S) are the true mean sketches; the target was drawn from the cells of ``planted``.

    With identity-level attributes, ``groups`` of people differ by ``group_effects`` (G, S), of mean 0 over people.
    """

    cells: Cells
    identity: Ints
    measurements: Measurements
    cell_means: Floats
    planted: Subset
    groups: Cells | None = None
    group_effects: Floats | None = None

    @property
    def measured(self) -> Measured:
        """What is measured against the target, its terms standardised."""
        return Measured(
            measurements=self.measurements,
            cells=self.cells,
            identity=self.identity,
            target=TARGET,
            weighing=Weighing(),
        )


def simulate(
    sizes: tuple[int, ...],
    *,
    seed: int,
    num_identities: int = 12,
    identities_per_cell: int = 3,
    coordinates_per_term: int = 6,
    interactions: float = 0.3,
    noise: float = 0.5,
    num_target: int = 200,
    measured: float = 1.0,
    identity_sizes: tuple[int, ...] = (),
) -> Simulation:
    """Every identity has one image in every cell of a full grid of ``sizes``; the first attribute is circular.

    A cell's mean is the sum of main effects, of variance 1 - ``interactions`` together, and of an effect of its own.
    ``identities_per_cell`` people are measured in a share ``measured`` of the cells. The target shows other people in
    the cells of a planted product subset, about half of each attribute's values. ``identity_sizes`` are the numbers of
    values of identity-level attributes, whose effects add up to a variance of 1.
    """
    random = np.random.default_rng(seed)
    attributes = tuple(_attribute(place, size) for place, size in enumerate(sizes))
    codes = np.array(list(product(*(range(size) for size in sizes))), dtype=np.int16)
    num_cells, num_coordinates = len(codes), len(TERMS) * coordinates_per_term
    means = np.sqrt(interactions) * random.normal(size=(num_cells, num_coordinates))
    for place, size in enumerate(sizes):
        effect = random.normal(size=(size, num_coordinates))
        if place == 0:
            angle = 2 * np.pi * np.arange(size) / size
            effect = np.stack([np.sin(angle), np.cos(angle)], axis=1) @ random.normal(size=(2, num_coordinates))
        means += np.sqrt((1 - interactions) / len(sizes)) * effect[codes[:, place]]
    of_row = np.tile(np.arange(num_cells), num_identities)
    identity = np.repeat(np.arange(1, num_identities + 1), num_cells)
    cells = Cells(
        attributes=attributes, codes=codes, of_row=of_row, images=np.full(num_cells, num_identities, dtype=np.int64)
    )
    chosen = [np.sort(random.permutation(size)[: max(1, size // 2)]) for size in sizes]
    in_target = np.flatnonzero(np.all([np.isin(codes[:, a], kept) for a, kept in enumerate(chosen)], axis=0))
    people = _People(identity_sizes, num_identities, num_coordinates, np.random.default_rng((seed, 1)))
    target = means[random.choice(in_target, num_target)] + noise * random.normal(size=(num_target, num_coordinates))
    seen = np.sort(random.permutation(num_cells)[: round(measured * num_cells)])
    row = np.sort(
        np.concatenate([random.permutation(num_identities)[:identities_per_cell] * num_cells + cell for cell in seen])
    )
    sketch = means[of_row[row]] + noise * random.normal(size=(len(row), num_coordinates))
    if identity_sizes:
        target += people.effects[people.planted_groups(num_target)]
        sketch += people.effects[people.group[identity[row] - 1]]
    return Simulation(
        cells=cells,
        identity=identity,
        measurements=_measurements(row, of_row, sketch, target, len(identity), coordinates_per_term),
        cell_means=means,
        planted=Subset(
            {
                attribute.name: [attribute.values[code] for code in kept]
                for attribute, kept in zip((*attributes, *people.attributes), (*chosen, *people.chosen), strict=True)
            }
        ),
        groups=people.groups(identity) if identity_sizes else None,
        group_effects=people.effects if identity_sizes else None,
    )


class _People:
    """Identity-level attributes of people 1 .. ``num``, each value as frequent as any other of its attribute."""

    def __init__(self, sizes: tuple[int, ...], num: int, num_coordinates: int, random: np.random.Generator) -> None:
        self.attributes = tuple(
            Attribute(name=f"person{place}", values=tuple(f"value{code}" for code in range(size)), level="identity")
            for place, size in enumerate(sizes)
        )
        codes = np.array([random.permutation(num) % size for size in sizes], dtype=np.int16).reshape(len(sizes), num).T
        self.codes, group = np.unique(codes, axis=0, return_inverse=True)
        self.group = group.reshape(-1)
        effects = np.zeros((len(self.codes), num_coordinates))
        for place, size in enumerate(sizes):
            effects += random.normal(size=(size, num_coordinates))[self.codes[:, place]] / np.sqrt(len(sizes))
        self.effects = effects - effects[self.group].mean(axis=0)
        self.chosen = [np.sort(random.permutation(size)[: max(1, size // 2)]) for size in sizes]
        self._random = random

    def planted_groups(self, num: int) -> Ints:
        """Groups (num,) of people drawn from those whose every value is planted."""
        planted = np.all([np.isin(self.codes[:, place], kept) for place, kept in enumerate(self.chosen)], axis=0)
        return np.asarray(self._random.choice(self.group[planted[self.group]], num))

    def groups(self, identity: Ints) -> Cells:
        """The cells of the identity-level attributes, for rows of these people."""
        of_row = self.group[identity - 1]
        return Cells(
            attributes=self.attributes,
            codes=self.codes,
            of_row=of_row,
            images=np.bincount(of_row, minlength=len(self.codes)).astype(np.int64),
        )


def _attribute(place: int, size: int) -> Attribute:
    if place == 0:
        return Attribute(
            name="viewpoint", values=tuple(f"{360 * step / size:g}deg" for step in range(size)), circular=True
        )
    return Attribute(name=f"attribute{place}", values=tuple(f"value{code}" for code in range(size)))


def _measurements(
    row: Ints, of_row: Ints, sketch: Floats, target: Floats, num_catalog: int, coordinates_per_term: int
) -> Measurements:
    blocks = [slice(term * coordinates_per_term, (term + 1) * coordinates_per_term) for term in range(len(TERMS))]
    terms: list[Any] = []
    medians = []
    half = len(sketch) // 2
    for block in blocks:
        z, goal = sketch[:, block], target[:, block]
        spread = np.square(goal - goal.mean(axis=0)).sum(axis=1).mean()
        terms.append(np.square(z - goal.mean(axis=0)).sum(axis=1) + spread)
        medians.append(np.median(np.square(z[:half] - z[half : 2 * half]).sum(axis=1)))
    return Measurements(
        of=TERMS,
        row=row,
        cell=of_row[row],
        terms={TARGET: np.stack(terms, axis=1).astype(np.float32)},
        median=np.array(medians),
        sketch=sketch.astype(np.float32),
        blocks=blocks,
        norms=np.stack([np.square(sketch[:, block]).sum(axis=1) for block in blocks], axis=1).astype(np.float32),
        off_basis=np.zeros((len(row), len(TERMS)), dtype=np.float32),
        target_sketch={TARGET: target.astype(np.float32)},
        target_constant={TARGET: np.zeros(len(TERMS))},
        num_target={TARGET: len(target)},
        quarantine=pd.DataFrame({"path": [], "reason": [], "of": []}),
        weights="simulated",
        warnings=[],
        num_catalog=num_catalog,
        catalog="simulated",
    )
