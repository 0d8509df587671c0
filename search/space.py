"""The space of subsets: one bit per attribute value, repaired to what the budget allows."""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from finegpr.config import Config
from finegpr.errors import InputError
from finegpr.manifest import Sampler
from finegpr.storage import canonical_hash, sha256
from finegpr.subset import Subset

if TYPE_CHECKING:
    from finegpr.catalog import Catalog, Cells

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCENE = "scene"
MAX_BITS = 1_000
MAX_ENTRIES = 8_000_000  # of one (masks, cells) array; larger batches are cut into pieces


class Budget(Config):
    """What is trained on: ``images`` of ``identities`` persons (None: all that the subset has).

    ``least`` and ``most`` bound the images of the subset itself, as a fraction of the catalog's drawable images.
    """

    images: int = Field(gt=0)
    identities: int | None = Field(default=None, gt=0)
    least: float = Field(default=0.0, ge=0, le=1)
    most: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Budget":
        if self.least > self.most:
            raise ValueError(f"least should be at most most, got {self.least} and {self.most}")
        if self.identities is not None and self.identities > self.images:
            raise ValueError(f"identities should be at most images, got {self.identities} and {self.images}")
        return self


class Space:
    """All subsets of the attributes of ``cells``; ``identity`` (rows,) belongs to the same catalog.

    A mask is (bits,) bool. Its bits are the values that occur, by attribute and value in catalog order; an attribute
    with a single occurring value has none. Raises InputError when not even the whole catalog fits the budget.
    """

    def __init__(self, cells: "Cells", identity: Ints, budget: Budget, *, seed: int) -> None:
        self.cells = cells
        self.budget = budget
        self.seed = seed
        self._rows_sha256 = sha256(cells.of_row.astype("<i8").tobytes() + identity.astype("<i8").tobytes())
        self.sampler = Sampler(cells, identity, budget=budget.images, identities=budget.identities, seed=seed)
        present = [np.unique(cells.codes[:, column]) for column in range(len(cells.attributes))]
        free = [column for column, codes in enumerate(present) if len(codes) > 1]
        self.attributes = tuple(cells.attributes[column] for column in free)
        self.values = tuple(
            tuple(attribute.values[code] for code in present[column])
            for attribute, column in zip(self.attributes, free, strict=True)
        )
        sizes = [len(values) for values in self.values]
        self.num_bits = sum(sizes)
        if not 0 < self.num_bits <= MAX_BITS:
            raise InputError(
                f"a search needs 1 to {MAX_BITS} values of attributes that vary, got {self.num_bits} over "
                f"{', '.join(attribute.name for attribute in cells.attributes) or 'no attributes'}"
            )
        stops = np.cumsum(sizes).tolist()
        self.blocks = tuple(slice(stop - size, stop) for stop, size in zip(stops, sizes, strict=True))
        self._bit_of_cell = np.stack(
            [
                block.start + np.searchsorted(present[column], cells.codes[:, column])
                for block, column in zip(self.blocks, free, strict=True)
            ]
        )
        self._check_budget()

    @classmethod
    def of(cls, catalog: "Catalog", budget: Budget, *, seed: int, attributes: Sequence[str] | None = None) -> "Space":
        """The space over these image-level attributes of a catalog; by default all of them but the scene.

        The scene is not a free factor in FineGPR: every image has one, so choosing scenes only removes images.
        """
        names = [attribute.name for attribute in catalog.image_attributes]
        chosen = [name for name in names if name != SCENE] if attributes is None else list(attributes)
        if unknown := [name for name in chosen if name not in names]:
            raise InputError(
                f"{', '.join(unknown)}: not an image-level attribute of {catalog.title}; "
                f"known: {', '.join(names) or 'none'}"
            )
        return cls(catalog.cells(chosen), catalog.frame["identity"].to_numpy(), budget, seed=seed)

    @property
    def num_subsets(self) -> int:
        """Number of subsets before the budget: the product of 2^values - 1."""
        return prod(2 ** len(values) - 1 for values in self.values)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what a mask means: values, cells, each row's cell and identity, budget, seed."""
        facts = {
            "values": {attribute.name: values for attribute, values in zip(self.attributes, self.values, strict=True)},
            "codes": self.cells.codes.tolist(),
            "rows": self._rows_sha256,
            "budget": self.budget.model_dump(),
            "seed": self.seed,
        }
        return canonical_hash(facts)

    def subset(self, mask: Bools) -> Subset:
        """The canonical subset of a mask (bits,): every attribute of the space is named."""
        return Subset(
            {
                attribute.name: [value for value, chosen in zip(values, mask[block], strict=True) if chosen]
                for attribute, values, block in zip(self.attributes, self.values, self.blocks, strict=True)
            }
        )

    def mask(self, subset: Subset) -> Bools:
        """The mask (bits,) of a subset; an attribute that is not named keeps all its values.

        Raises InputError for an attribute or a value that is not in the space.
        """
        mask = np.ones(self.num_bits, dtype=bool)
        names = [attribute.name for attribute in self.attributes]
        for name, chosen in subset.values.items():
            if name not in names:
                raise InputError(f"{name!r} is not searched over; searched: {', '.join(names)}")
            place = names.index(name)
            if unknown := sorted(chosen.difference(self.values[place])):
                raise InputError(f"no image has {name} {', '.join(unknown)}; expected {', '.join(self.values[place])}")
            mask[self.blocks[place]] = [value in chosen for value in self.values[place]]
        return mask

    def cell_masks(self, masks: Bools) -> Bools:
        """Which cells are in, (n, bits) -> (n, C)."""
        of_bit = np.ascontiguousarray(masks.T)
        cells = of_bit.take(self._bit_of_cell[0], axis=0)
        for bits in self._bit_of_cell[1:]:
            cells &= of_bit.take(bits, axis=0)
        return np.asarray(cells.T)

    def expected_shares(self, masks: Bools) -> Floats:
        """Expected share of each cell in a manifest, (n, bits) -> (n, C)."""
        return self.sampler.expected_shares(self.cell_masks(masks))

    def pieces(self, num: int) -> list[slice]:
        """Cuts ``num`` masks so that one (masks, cells) array stays small."""
        step = max(1, MAX_ENTRIES // len(self.cells))
        return [slice(start, start + step) for start in range(0, num, step)]

    def feasible(self, masks: Bools) -> Bools:
        """Whether masks (n, bits) hold the budget and lie within the bounds, (n,)."""
        cells = self.cell_masks(masks)
        return np.asarray(self._enough(cells) & (self.sampler.images(cells) <= self._most))

    def decode(self, x: Floats) -> Bools:
        """Coordinates (n, bits), any reals -> masks (n, bits): the values above 0, repaired.

        Each attribute keeps at least its highest value. While a mask is too small, the highest value that is out
        comes in; while it is too large, the lowest one that can be spared goes out. A mask that cannot be brought
        within ``most`` this way is returned as it is: ask ``feasible``.
        """
        masks = x > 0
        for block in self.blocks:
            masks[np.arange(len(x)), block.start + x[:, block].argmax(axis=1)] = True
        self._grow(masks, x)
        if self.budget.most < 1:
            self._shrink(masks, x)
        return masks

    def _enough(self, cells: Bools) -> Bools:
        enough = self.sampler.images(cells) >= self._least
        if enough.any():
            enough[enough] = self.sampler.feasible(cells[enough])
        return enough

    def _grow(self, masks: Bools, x: Floats) -> None:
        """Bring values in, highest first, until the mask is large enough. Changes ``masks``."""
        rows = np.flatnonzero(~self._enough(self.cell_masks(masks)))
        rank = _ranks(np.where(masks[rows], -np.inf, -x[rows]))
        num_in = masks[rows].sum(axis=1)
        num = _bisect(
            num_in, np.full(len(rows), self.num_bits), lambda at, num: self._enough(self.cell_masks(rank[at] < num))
        )
        masks[rows] = rank < num[:, None]

    def _shrink(self, masks: Bools, x: Floats) -> None:
        """Values leave, lowest first, but not the highest of an attribute, until the mask is small enough."""
        rows = np.flatnonzero(self.sampler.images(self.cell_masks(masks)) > self._most)
        start, x = masks[rows], x[rows]
        spared = start.copy()
        for block in self.blocks:
            spared[np.arange(len(rows)), block.start + x[:, block].argmax(axis=1)] = False
        rank = _ranks(np.where(spared, x, np.inf))
        num = _bisect(
            np.zeros(len(rows), dtype=np.int64),
            spared.sum(axis=1),
            lambda at, num: self.sampler.images(self.cell_masks(start[at] & (rank[at] >= num))) <= self._most,
        )
        masks[rows] = start & (rank >= num[:, None])
        # One value too many may leave a mask too small; then smaller values must go instead.
        small = np.flatnonzero(~self._enough(self.cell_masks(masks[rows])))
        masks[rows[small]] = self._shrink_one_by_one(start[small], rank[small], spared[small].sum(axis=1))

    def _shrink_one_by_one(self, masks: Bools, rank: Ints, num: Ints) -> Bools:
        """As ``_shrink``, but a value whose leaving would make the mask too small stays."""
        rows = np.arange(len(masks))
        for turn in range(int(num.max(initial=0))):
            without = masks[rows] & (rank[rows] != turn)
            cells = self.cell_masks(without)
            enough = self._enough(cells)
            masks[rows[enough]] = without[enough]
            rows = rows[~(enough & (self.sampler.images(cells) <= self._most)) & (turn + 1 < num[rows])]
        return masks

    def _check_budget(self) -> None:
        everything = np.ones((1, len(self.cells)), dtype=bool)
        total = int(self.sampler.images(everything)[0])
        # A bound of 108 / 1764 must admit 108 of 1764 cells, whatever its last bit.
        self._least = int(np.ceil(self.budget.least * total - 1e-6))
        self._most = int(np.floor(self.budget.most * total + 1e-6))
        if not self._enough(everything)[0]:
            raise InputError(
                f"the budget asks for {self.budget.images} images"
                + (f" of {self.budget.identities} identities" if self.budget.identities else "")
                + f", the catalog holds {total} of {self.sampler.num_identities(everything)[0]}; lower the budget"
            )
        if self._most < self.budget.images:
            raise InputError(
                f"budget.most = {self.budget.most:g} leaves at most {self._most} of {total} images in a subset, "
                f"but {self.budget.images} are to be drawn; raise most or lower images"
            )


def _ranks(keys: Floats) -> Ints:
    """Place of each entry (n, bits) in its row's ascending order, ties by column."""
    order = np.argsort(keys, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(keys.shape[1])[None, :], axis=1)
    return ranks


def _bisect(low: Ints, high: Ints, holds: Callable[[Ints, Ints], Bools]) -> Ints:
    """Least number in (low, high], per row, at which a monotone test holds; ``high`` is taken to hold.

    ``holds(rows, numbers (rows, 1))`` answers for some rows.
    """
    low, high = low.copy(), high.copy()
    while (rows := np.flatnonzero(high - low > 1)).size:
        middle = (low[rows] + high[rows]) // 2
        held = holds(rows, middle[:, None])
        high[rows[held]] = middle[held]
        low[rows[~held]] = middle[~held]
    return high
