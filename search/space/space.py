"""The space of subsets: one bit per attribute value, repaired to what the budget and the constraints allow."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, model_validator

from finegpr.arrays import Bools, Codes, Floats, Ints
from finegpr.attributes import Attribute
from finegpr.config import Config
from finegpr.errors import ConfigError, InputError
from finegpr.manifest import Sampler
from finegpr.storage import canonical_hash, sha256
from finegpr.subset import Subset
from search.space.repair import choose, grow, have_shape, shrink
from search.space.shape import Shape

if TYPE_CHECKING:
    from finegpr.catalog import Catalog, Cells

SCENE = "scene"
MAX_BITS = 1_000
MAX_LEVELS = 10
MAX_ENTRIES = 250_000  # of one (masks, cells) array, so that it stays in the cache; larger batches are cut
LEAST_PIECE = 256  # masks: fewer would not be worth reading the cells of a thousand unlike people

Values = Annotated[tuple[str, ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


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


class SpaceConfig(Config):
    """What may be chosen, by attribute.

    ``fixed`` values are in and all others of the attribute out. Of any other attribute at least ``least_values`` and at
    most ``most_values`` values are in, and of those in ``arcs`` only neighbours: any arc of a circular one, any range
    of an ordinal one, whatever its start and length. ``identity_attributes`` are searched too: their values choose
    people. With ``levels`` above 1 a value is not in or out, but has a weight up to that: see ``search.space.mixture``.
    """

    fixed: dict[str, Values] = Field(default_factory=dict)
    least_values: dict[str, Count] = Field(default_factory=dict)
    most_values: dict[str, Count] = Field(default_factory=dict)
    arcs: tuple[str, ...] = ()
    identity_attributes: tuple[str, ...] = ()
    levels: int = Field(default=1, ge=1, le=MAX_LEVELS)

    @model_validator(mode="after")
    def _agrees(self) -> "SpaceConfig":
        for name in self.least_values:
            if self.least_values[name] > self.most_values.get(name, MAX_BITS):
                raise ValueError(
                    f"least_values.{name} should be at most most_values.{name}, got {self.least_values[name]} and "
                    f"{self.most_values[name]}"
                )
        for name in self.fixed:
            if name in self.least_values or name in self.most_values or name in self.arcs:
                raise ValueError(f"{name} is fixed; name it either there, or in least_values, most_values and arcs")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class _Level:
    """The searched attributes of one level: which bit (A, R) of each its R cells or groups need, and which of these the
    fixed values allow, (R,)."""

    bits: Ints
    allowed: Bools

    def masks(self, masks: Bools) -> Bools:
        """Which of the R are in, (n, bits) -> (n, R)."""
        of_bit = np.ascontiguousarray(masks.T)
        inside = np.repeat(self.allowed[:, None], len(masks), axis=1) if len(self.bits) == 0 else None
        for bits in self.bits:
            inside = of_bit.take(bits, axis=0) if inside is None else np.logical_and(inside, of_bit[bits], out=inside)
        assert inside is not None
        if not self.allowed.all():
            inside &= self.allowed[:, None]
        return np.asarray(inside.T)


class Space:
    """All subsets of the attributes of ``cells``; ``identity`` (rows,) belongs to the same catalog.

    A mask is (bits,) bool. Its bits are the values that occur, by attribute and value in catalog order, those of the
    people's attributes in ``groups`` last; an attribute that is fixed or has a single occurring value has none.
    Raises ConfigError for constraints that fit no subset, InputError when not even the whole catalog fits the budget.
    """

    def __init__(
        self,
        cells: "Cells",
        identity: Ints,
        budget: Budget,
        *,
        seed: int,
        config: SpaceConfig = SpaceConfig(),  # noqa: B008 (frozen)
        groups: "Cells | None" = None,
    ) -> None:
        of_people = () if groups is None else groups.attributes
        if tuple(attribute.name for attribute in of_people) != config.identity_attributes:
            raise ValueError(f"groups should be those of {config.identity_attributes}, got {of_people}")
        self.cells = cells
        self.groups = groups
        self.budget = budget
        self.config = config
        self.seed = seed
        rows = cells.of_row.astype("<i8").tobytes() + identity.astype("<i8").tobytes()
        self._rows_sha256 = sha256(rows if groups is None else rows + groups.of_row.astype("<i8").tobytes())
        self.sampler = Sampler(
            cells, identity, budget=budget.images, identities=budget.identities, seed=seed, groups=groups
        )
        present = _present([cells] if groups is None else [cells, groups])
        _check(config, present)
        self.fixed = {
            attribute.name: _fixed(attribute, codes, config.fixed[attribute.name])
            for attribute, codes in present
            if attribute.name in config.fixed
        }
        free = [
            (attribute, codes) for attribute, codes in present if len(codes) > 1 and attribute.name not in self.fixed
        ]
        self.attributes = tuple(attribute for attribute, _ in free)
        self.values = tuple(tuple(attribute.values[code] for code in codes) for attribute, codes in free)
        sizes = [len(values) for values in self.values]
        self.num_bits = sum(sizes)
        if not 0 < self.num_bits <= MAX_BITS:
            raise InputError(
                f"a search needs 1 to {MAX_BITS} values of attributes that vary, got {self.num_bits} over "
                f"{', '.join(attribute.name for attribute, _ in present) or 'no attributes'}"
            )
        stops = np.cumsum(sizes).tolist()
        self.blocks = tuple(slice(stop - size, stop) for stop, size in zip(stops, sizes, strict=True))
        self._shapes = tuple(
            _shape(config, attribute, values, block)
            for attribute, values, block in zip(self.attributes, self.values, self.blocks, strict=True)
        )
        self._cell_level = self._level(cells)
        self._group_level = None if groups is None else self._level(groups)
        self._check_budget()

    @classmethod
    def of(
        cls,
        catalog: "Catalog",
        budget: Budget,
        *,
        seed: int,
        attributes: Sequence[str] | None = None,
        config: SpaceConfig = SpaceConfig(),  # noqa: B008 (frozen)
    ) -> "Space":
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
        of_people = [attribute.name for attribute in catalog.identity_attributes]
        if unknown := [name for name in config.identity_attributes if name not in of_people]:
            raise ConfigError(
                f"identity_attributes: {', '.join(unknown)}: not an identity-level attribute of {catalog.title}; "
                f"known: {', '.join(of_people) or 'none'}"
            )
        groups = catalog.cells(config.identity_attributes) if config.identity_attributes else None
        identity = catalog.frame["identity"].to_numpy()
        return cls(catalog.cells(chosen), identity, budget, seed=seed, config=config, groups=groups)

    @property
    def num_subsets(self) -> int:
        """Number of subsets before the budget, bounds and arcs: the product of 2^values - 1."""
        return prod(2 ** len(values) - 1 for values in self.values)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what a mask means: values, constraints, cells, groups, each row's cell, identity
        and group, budget, seed."""
        facts = {
            "values": {attribute.name: values for attribute, values in zip(self.attributes, self.values, strict=True)},
            "codes": self.cells.codes.tolist(),
            "rows": self._rows_sha256,
            "budget": self.budget.model_dump(),
            "seed": self.seed,
        }
        if self.config != SpaceConfig():
            facts |= {"config": self.config.model_dump(mode="json")}
        if self.groups is not None:
            facts |= {"groups": self.groups.codes.tolist()}
        return canonical_hash(facts)

    def subset(self, mask: Bools) -> Subset:
        """The canonical subset of a mask (bits,): every attribute of the space is named, the fixed ones too."""
        chosen = {
            attribute.name: [value for value, inside in zip(values, mask[block], strict=True) if inside]
            for attribute, values, block in zip(self.attributes, self.values, self.blocks, strict=True)
        }
        return Subset({**chosen, **self.fixed})

    def mask(self, subset: Subset) -> Bools:
        """The mask (bits,) of a subset; an attribute that is not named keeps all its values.

        Raises InputError for an attribute or a value that is not in the space.
        """
        occurring = {attribute.name: values for attribute, values in zip(self.attributes, self.values, strict=True)}
        inside = {name: [True] * len(values) for name, values in occurring.items()}
        for name, chosen in subset.values.items():
            if name in self.fixed:
                if chosen != frozenset(self.fixed[name]):
                    raise InputError(
                        f"{name} is fixed to {', '.join(self.fixed[name])}, got {', '.join(sorted(chosen))}"
                    )
                continue
            if name not in inside:
                raise InputError(f"{name!r} is not searched over; searched: {', '.join([*inside, *self.fixed])}")
            if unknown := sorted(chosen.difference(occurring[name])):
                raise InputError(f"no image has {name} {', '.join(unknown)}; expected {', '.join(occurring[name])}")
            inside[name] = [value in chosen for value in occurring[name]]
        return np.concatenate([np.array(values, dtype=bool) for values in inside.values()])

    def cell_masks(self, masks: Bools) -> Bools:
        """Which cells are in, (n, bits) -> (n, C)."""
        return self._cell_level.masks(masks)

    def group_masks(self, masks: Bools) -> Bools | None:
        """Which groups of people are in, (n, bits) -> (n, G); None when no identity-level attribute is searched."""
        return None if self._group_level is None else self._group_level.masks(masks)

    def expected_shares(self, masks: Bools) -> Floats:
        """Expected share of each cell in a manifest, then of each group, (n, bits) -> (n, C + G); each sum to 1."""
        return self.expect(masks)[0]

    def expect(self, masks: Bools) -> tuple[Floats, Bools]:
        """``expected_shares``, and whether masks hold the budget (n,); whatever the bounds and arcs."""
        return self.sampler.expect(self.cell_masks(masks), self.group_masks(masks))

    def num_images(self, masks: Bools) -> Ints:
        """Number of drawable images in masks (n, bits) -> (n,)."""
        return self.sampler.images(self.cell_masks(masks), self.group_masks(masks))

    def pieces(self, num: int) -> list[slice]:
        """Cuts ``num`` masks so that one (masks, cells) array stays small."""
        step = max(LEAST_PIECE, MAX_ENTRIES // len(self.cells))
        return [slice(start, start + step) for start in range(0, num, step)]

    def feasible(self, masks: Bools) -> Bools:
        """Whether masks (n, bits) hold the budget and lie within all bounds, (n,)."""
        cells, groups = self.cell_masks(masks), self.group_masks(masks)
        num_images = self.sampler.images(cells, groups)
        held = (num_images >= self._least) & (num_images <= self._most) & have_shape(masks, self._shapes)
        held[held] = self.sampler.feasible(cells[held], None if groups is None else groups[held])
        return np.asarray(held)

    def decode(self, x: Floats) -> Bools:
        """Coordinates (n, bits), any reals -> masks (n, bits): the values above 0, repaired.

        Each attribute keeps at least its highest value, or as many as ``least_values`` asks for; of an arc, that with
        the greatest sum. While a mask is too small, the highest value that is out and may come in does; while it is too
        large, the lowest one that can be spared goes out. A mask that cannot be brought within the budget this way is
        returned as far as it came: ask ``feasible``.
        """
        masks = choose(x, self._shapes)
        grow(masks, x, self._shapes, self._enough)
        if self.budget.most < 1:
            shrink(masks, x, self._shapes, self._enough, self._few_enough)
        return masks

    def _enough(self, masks: Bools) -> Bools:
        cells, groups = self.cell_masks(masks), self.group_masks(masks)
        enough = self.sampler.images(cells, groups) >= self._least
        if enough.any():
            enough[enough] = self.sampler.feasible(cells[enough], None if groups is None else groups[enough])
        return enough

    def _few_enough(self, masks: Bools) -> Bools:
        return np.asarray(self.num_images(masks) <= self._most)

    def _level(self, table: "Cells") -> _Level:
        """Where the searched attributes of these cells or groups are among the bits."""
        bits = np.empty((0, len(table)), dtype=np.int64)
        allowed = np.ones(len(table), dtype=bool)
        for column, attribute in enumerate(table.attributes):
            codes = table.codes[:, column]
            if attribute.name in self.fixed:
                allowed &= np.isin(codes, [attribute.index(value) for value in self.fixed[attribute.name]])
            elif attribute in self.attributes:
                block = self.blocks[self.attributes.index(attribute)]
                bits = np.vstack([bits, block.start + np.searchsorted(np.unique(codes), codes)])
        return _Level(bits=bits, allowed=allowed)

    def _check_budget(self) -> None:
        everything = np.ones((1, self.num_bits), dtype=bool)
        total = int(self.sampler.images(np.ones((1, len(self.cells)), dtype=bool))[0])
        # A bound of 108 / 1764 must admit 108 of 1764 cells, whatever its last bit.
        self._least = int(np.ceil(self.budget.least * total - 1e-6))
        self._most = int(np.floor(self.budget.most * total + 1e-6))
        if not self._enough(everything)[0]:
            people = self.sampler.num_identities(self.cell_masks(everything), self.group_masks(everything))[0]
            raise InputError(
                f"the budget asks for {max(self.budget.images, self._least)} images"
                + (f" of {self.budget.identities} identities" if self.budget.identities else "")
                + f", {'the fixed values hold' if self.fixed else 'the catalog holds'} "
                f"{self.num_images(everything)[0]} images of {people} identities; lower the budget"
            )
        if self._most < self.budget.images:
            raise InputError(
                f"budget.most = {self.budget.most:g} leaves at most {self._most} of {total} images in a subset, "
                f"but {self.budget.images} are to be drawn; raise most or lower images"
            )


def _present(tables: "Sequence[Cells]") -> list[tuple[Attribute, Codes]]:
    """Every attribute of these cells and groups, and the codes of its values that occur."""
    return [
        (attribute, np.unique(table.codes[:, column]))
        for table in tables
        for column, attribute in enumerate(table.attributes)
    ]


def _check(config: SpaceConfig, present: Sequence[tuple[Attribute, Codes]]) -> None:
    """Raises ConfigError for names that are not searched, and for bounds and arcs that their attribute cannot have."""
    known = [attribute.name for attribute, _ in present]
    fields: dict[str, Iterable[str]] = {
        "fixed": config.fixed,
        "least_values": config.least_values,
        "most_values": config.most_values,
        "arcs": config.arcs,
    }
    for field, names in fields.items():
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f"{field}: {', '.join(unknown)}: not searched over; searched: {', '.join(known)}")
    ordered = [attribute.name for attribute, _ in present if attribute.circular or attribute.ordinal]
    if wrong := [name for name in config.arcs if name not in ordered]:
        such = ", ".join(ordered) or "none"
        raise ConfigError(f"arcs: {', '.join(wrong)}: neither circular nor ordinal; such are: {such}")
    for attribute, codes in present:
        if (least := config.least_values.get(attribute.name, 1)) > len(codes):
            raise ConfigError(f"least_values.{attribute.name} is {least}, but only {len(codes)} values occur")


def _fixed(attribute: Attribute, codes: Codes, values: Sequence[str]) -> tuple[str, ...]:
    """The fixed values in their attribute's order."""
    occurring = [attribute.values[code] for code in codes]
    if unknown := [value for value in values if value not in occurring]:
        raise InputError(
            f"fixed: no image has {attribute.name} {', '.join(unknown)}; expected some of {', '.join(occurring)}"
        )
    return tuple(value for value in occurring if value in values)


def _shape(config: SpaceConfig, attribute: Attribute, values: Sequence[str], block: slice) -> Shape:
    circle = None
    if attribute.name in config.arcs and attribute.ordinal:
        circle = np.arange(len(values))
    elif attribute.name in config.arcs:
        circle = np.argsort([attribute.degrees(value) % 360 for value in values], kind="stable")
    return Shape(
        block=block,
        least=config.least_values.get(attribute.name, 1),
        most=min(config.most_values.get(attribute.name, len(values)), len(values)),
        circle=circle,
        is_line=attribute.ordinal,
    )
