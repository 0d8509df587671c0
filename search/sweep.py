"""A sweep: one whole search at every point of a grid, and what each of them found in one row of a tidy table.

The table holds summaries, not proposals. Columns, in the order of ``SCHEMA``: the point's number and settings; the
``subset`` found (its key), its ``score`` and the ``random_median`` of random subsets under the same budget; ``gain``,
see below; evaluations spent; the source's images in the subset; why the search ended; or the ``error`` in one line,
and then nothing of these. ``gain`` is the score's distance from the random median as a share of its size: above 0 is
better than random, whichever direction the score has. Nothing in it depends on the machine or the number of workers.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field, ValidationError, model_validator

from finegpr.arrays import Ints
from finegpr.config import Config
from finegpr.errors import AostError, ConfigError
from finegpr.measuring.results import Measurements
from finegpr.storage import read_table
from finegpr.weighing import ALPHA, BETA, Scale, Weighing
from search.loop import NUM_RANDOM, random_median, search
from search.measured import Measured
from search.objectives import OBJECTIVES, CellObjective, make_objective
from search.optimizers import check_optimizer, make_optimizer
from search.space import Budget, MixtureSpace, Space, SpaceConfig, make_space

if TYPE_CHECKING:
    import pandas as pd

    from finegpr.catalog import Catalog, Cells

MAX_POINTS = 1_000_000

WeightsOfLayers = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]

SCHEMA = pa.schema(
    [
        ("point", pa.int64()),
        ("target", pa.string()),
        ("objective", pa.string()),
        ("scale", pa.string()),
        ("alpha", pa.float64()),
        ("beta", pa.float64()),
        ("layer_weights", pa.list_(pa.float64())),
        ("seed", pa.int64()),
        ("images", pa.int64()),
        ("identities", pa.int64()),
        ("least", pa.float64()),
        ("most", pa.float64()),
        ("optimizer", pa.string()),
        ("subset", pa.string()),
        ("score", pa.float64()),
        ("random_median", pa.float64()),
        ("gain", pa.float64()),
        ("num_evaluations", pa.int64()),
        ("num_images", pa.int64()),
        ("stopped", pa.string()),
        ("error", pa.string()),
    ]
)


class SweepConfig(Config):
    """What is swept: a list per axis, each value once, and what all searches share."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    """names of measured targets; by default all"""
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("mmd_rbf",)
    """what scores a subset"""
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = ("standardised",)
    """each layer over its median distance, or paper: as printed"""
    alphas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (ALPHA,)
    """of style in D_total"""
    betas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (BETA,)
    """of content in D_total"""
    layer_weights: Annotated[tuple[WeightsOfLayers, ...], Field(min_length=1)]
    """one for each layer of style; by default the same for all, of sum 1"""
    images: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)]
    """budgets: how many are trained on"""
    identities: Annotated[tuple[Annotated[int, Field(gt=0)] | None, ...], Field(min_length=1)] = (None,)
    """of so many people; null for all that the subset has"""
    bounds: Annotated[tuple[tuple[Share, Share], ...], Field(min_length=1)] = ((0.0, 1.0),)
    """least and most of the source's images that a subset may hold"""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """of the searches"""
    optimizers: Annotated[tuple[str, ...], Field(min_length=1)] = ("swarm",)
    """what proposes subsets"""
    evaluations: Annotated[int, Field(gt=0)] = 300
    """new subsets scored in each search"""
    attributes: tuple[str, ...] | None = None
    """names; by default all of an image but its scene"""
    space: SpaceConfig = SpaceConfig()
    sample: Annotated[int, Field(gt=0)] | None = None
    """so many points of the grid, not all"""
    sample_seed: Annotated[int, Field(ge=0)] = 0
    """what the sample is drawn by"""
    chunk: Annotated[int, Field(gt=0)] = 32
    """searches that are given to a worker and written down together"""

    @model_validator(mode="after")
    def _makes_sense(self) -> "SweepConfig":
        for name in AXES.values():
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} should name each value once, got {', '.join(map(str, values))}")
        for objective in self.objectives:
            if objective not in OBJECTIVES:
                raise ValueError(f"no objective {objective!r}; known: {', '.join(OBJECTIVES)}")
        for optimizer in self.optimizers:
            try:
                check_optimizer(optimizer, {})
            except ConfigError as error:
                raise ValueError(str(error)) from None
        if 0 in self.betas and (0 in self.alphas or any(max(weights) == 0 for weights in self.layer_weights)):
            raise ValueError(
                "beta 0 with alpha 0, or with layer_weights that are all 0, leaves no distance; remove one"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the grid: the settings of one search."""

    target: str
    objective: str
    scale: Scale
    alpha: float
    beta: float
    layer_weights: tuple[float, ...]
    seed: int
    images: int
    identities: int | None
    bounds: tuple[float, float]
    optimizer: str


# A point's field and its list in the config. The last ones change fastest, so that neighbours share an objective.
AXES = {
    "target": "targets",
    "objective": "objectives",
    "scale": "scales",
    "alpha": "alphas",
    "beta": "betas",
    "layer_weights": "layer_weights",
    "seed": "seeds",
    "images": "images",
    "identities": "identities",
    "bounds": "bounds",
    "optimizer": "optimizers",
}


class Grid:
    """The points of a sweep, numbered from 0: the whole grid, or a seeded sample of it in the grid's order.

    Objectives that are not ``weighed`` have one scale (standardised, where it is swept) and one set of weights.
    Raises ConfigError for more than ``MAX_POINTS`` points, or a sample of more than there are.
    """

    def __init__(self, config: SweepConfig) -> None:
        axes = {field: getattr(config, name) for field, name in AXES.items()}
        scale = "standardised" if "standardised" in config.scales else config.scales[0]
        single = {"scale": (scale,)} | {name: axes[name][:1] for name in ("alpha", "beta", "layer_weights")}
        plain = [name for name in config.objectives if not OBJECTIVES[name].weighed]
        weighed = [name for name in config.objectives if OBJECTIVES[name].weighed]
        self._blocks = [axes | {"objective": weighed}, axes | {"objective": plain} | single]
        self._sizes = [prod(map(len, block.values())) for block in self._blocks]
        whole = sum(self._sizes)
        num = whole if config.sample is None else config.sample
        if num > whole:
            raise ConfigError(f"sample should be at most the grid's {whole} points, got {num}; leave it out for all")
        if num > MAX_POINTS:
            raise ConfigError(f"a sweep has at most {MAX_POINTS} searches, these axes make {num}; set sample to fewer")
        self._places: Ints | None = None
        if config.sample is not None:
            drawn = np.random.default_rng(config.sample_seed).choice(whole, size=num, replace=False)
            self._places = np.sort(drawn).astype(np.int64)
        self.whole = whole
        self._num = num

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, number: int) -> Point:
        """The point of this number. Raises IndexError when there is none."""
        if not 0 <= number < self._num:
            raise IndexError(number)
        place = number if self._places is None else int(self._places[number])
        block = self._blocks[0]
        if place >= self._sizes[0]:
            place, block = place - self._sizes[0], self._blocks[1]
        chosen = np.unravel_index(place, [len(values) for values in block.values()])
        return Point(**{name: values[int(at)] for (name, values), at in zip(block.items(), chosen, strict=True)})

    def __iter__(self) -> Iterator[Point]:
        return (self[number] for number in range(self._num))


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """What all searches of a sweep stand on, as far as the images go; ``identity`` (rows,) is the catalog's."""

    cells: "Cells"
    groups: "Cells | None"
    identity: Ints
    measurements: Measurements

    @classmethod
    def of(cls, config: SweepConfig, catalog: "Catalog", measurements: Measurements) -> "Ground":
        """Raises ConfigError or InputError for targets, weights, attributes or bounds of values that no search could
        have."""
        if unknown := [name for name in config.targets if name not in measurements.terms]:
            raise ConfigError(
                f"{', '.join(unknown)}: no such target; measured: {', '.join(sorted(measurements.terms))}"
            )
        for weights in config.layer_weights:
            Weighing(layer_weights=weights).weights(measurements.of)
        space = make_space(catalog, Budget(images=1), seed=0, attributes=config.attributes, config=config.space)
        return cls(cells=space.cells, groups=space.groups, identity=catalog.identities, measurements=measurements)

    def space(self, budget: Budget, config: SpaceConfig, *, seed: int) -> Space:
        """What is searched under this budget. Raises InputError when the images do not fit it."""
        kind = Space if config.levels == 1 else MixtureSpace
        return kind(self.cells, self.identity, budget, seed=seed, config=config, groups=self.groups)

    def measured(self, target: str, weighing: Weighing) -> Measured:
        """The measurements against one of the targets, their terms weighed so."""
        return Measured(
            measurements=self.measurements,
            cells=self.cells,
            identity=self.identity,
            target=target,
            weighing=weighing,
        )


class Sweeper:
    """Does the searches of a sweep, one after the other.

    Each is what ``aost search`` does with the point's settings. Objectives, spaces and medians of random subsets are
    kept for the neighbours that share them; an objective costs more than the search itself.
    """

    def __init__(self, config: SweepConfig, ground: Ground) -> None:
        self._config = config
        self._ground = ground
        self._space = lru_cache(maxsize=64)(self._make_space)
        self._form = lru_cache(maxsize=8)(self._make_form)
        self._median = lru_cache(maxsize=64)(self._make_median)

    def row(self, number: int, point: Point) -> dict[str, Any]:
        """One row of the table; a search that cannot be done is a row with its error."""
        settings = asdict(point)
        least, most = settings.pop("bounds")
        settings |= {"point": number, "least": least, "most": most}
        found: dict[str, Any] = dict.fromkeys(set(SCHEMA.names).difference(settings))
        try:
            return settings | found | self._search(point)
        except AostError as error:
            return settings | found | {"error": " ".join(str(error).split())}

    def _search(self, point: Point) -> dict[str, Any]:
        space = self._space(_budget(point), point.seed)
        objective = self._objective(point)
        evaluations = self._config.evaluations
        optimizer = make_optimizer(point.optimizer, space, seed=point.seed, evaluations=evaluations)
        result = search(space, objective, optimizer, None, evaluations=evaluations, config={}, num_random=0)
        median = self._median(replace(point, optimizer=""))
        return {
            "subset": result.subset.key,
            "score": result.score,
            "random_median": median,
            "gain": gain(result.score, median, higher_is_better=objective.higher_is_better),
            "num_evaluations": result.num_evaluations,
            "num_images": int(space.num_images(space.mask(result.subset)[None])[0]),
            "stopped": result.stopped,
        }

    def _objective(self, point: Point) -> CellObjective:
        """The form comes from the images; the seed matters to it only where something was fitted, which it reports."""
        form = self._form(_weighing(point), self._config.seeds[0])
        if form.report is not None or form.identity_report is not None:
            form = self._form(_weighing(point), point.seed)
        return replace(form, space=self._space(_budget(point), point.seed))

    def _make_space(self, budget: Budget, seed: int) -> Space:
        return self._ground.space(budget, self._config.space, seed=seed)

    def _make_form(self, point: Point, seed: int) -> CellObjective:
        weighing = Weighing(scale=point.scale, alpha=point.alpha, beta=point.beta, layer_weights=point.layer_weights)
        space = self._space(Budget(images=1), seed)
        return make_objective(point.objective, space, self._ground.measured(point.target, weighing))

    def _make_median(self, point: Point) -> float | None:
        space = self._space(_budget(point), point.seed)
        return random_median(space, self._objective(point).score, num=NUM_RANDOM, seed=space.seed)


def gain(score: float, median: float | None, *, higher_is_better: bool) -> float | None:
    """(median - score) / |median|, the other way round where higher is better; None without a median other than 0."""
    if not median:
        return None
    return (score - median if higher_is_better else median - score) / abs(median)


def to_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of ``Sweeper`` as a table, in the order of their points."""
    return pa.Table.from_pylist(sorted(rows, key=lambda row: int(row["point"])), schema=SCHEMA)


def read_sweep(path: Path) -> "pd.DataFrame":
    """The table of a finished sweep, verified. Raises StateError that names the file, and the column that is wrong."""
    frame: pd.DataFrame = read_table(path, schema=SCHEMA).to_pandas()
    frame["identities"] = frame["identities"].astype("Int64")
    frame["layer_weights"] = [tuple(weights) for weights in frame["layer_weights"]]
    return frame


def _weighing(point: Point) -> Point:
    """The point, with all that its objective's form does not depend on set alike."""
    return replace(point, images=1, identities=None, bounds=(0.0, 1.0), seed=0, optimizer="")


def _budget(point: Point) -> Budget:
    least, most = point.bounds
    try:
        return Budget(images=point.images, identities=point.identities, least=least, most=most)
    except ValidationError as error:
        raise ConfigError(f"the budget: {error.errors()[0]['msg']}") from None
