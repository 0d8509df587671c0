import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finegpr.attributes import ILLUMINATION, SCENE, WEATHER, Attribute
from finegpr.catalog import Catalog, Cells
from finegpr.errors import ConfigError, InputError
from finegpr.subset import Subset
from search.loop import search
from search.optimizers import OPTIMIZERS, make_optimizer
from search.optimizers.baselines import enumerate_masks, random_masks
from search.optimizers.polish import neighbours
from search.simulation import Simulation, simulate
from search.space import Budget, Space, SpaceConfig
from search.testing import TableObjective


class Written:
    """The rules of ``decode`` as they are written down, value by value."""

    def __init__(self, space: Space, x: np.ndarray) -> None:
        self.space, self.x = space, x
        self.total = space.sampler.images(np.ones((1, len(space.cells)), dtype=bool))[0]
        config = space.config
        self.attributes = [
            (
                list(range(block.start, block.stop)),
                config.least_values.get(attribute.name, 1),
                config.most_values.get(attribute.name, len(values)),
                attribute.name in config.arcs,
                attribute.ordinal,
            )
            for attribute, values, block in zip(space.attributes, space.values, space.blocks, strict=True)
        ]

    def images(self, mask: np.ndarray) -> int:
        return int(self.space.sampler.images(self.space.cell_masks(mask[None]))[0])

    def large_enough(self, mask: np.ndarray) -> bool:
        fits = self.space.sampler.feasible(self.space.cell_masks(mask[None]))[0]
        return bool(fits) and self.images(mask) >= self.space.budget.least * self.total - 1e-6

    def small_enough(self, mask: np.ndarray) -> bool:
        return self.images(mask) <= self.space.budget.most * self.total + 1e-6

    def has_shape(self, mask: np.ndarray) -> bool:
        for bits, least, most, is_arc, is_line in self.attributes:
            inside = [bit for bit in bits if mask[bit]]
            if not least <= len(inside) <= most or (is_arc and set(inside) not in map(set, arcs(bits, is_line))):
                return False
        return True

    def chosen(self) -> np.ndarray:
        mask = np.zeros(len(self.x), dtype=bool)
        for bits, least, most, is_arc, is_line in self.attributes:
            if is_arc:
                allowed = [arc for arc in arcs(bits, is_line) if least <= len(arc) <= most]
                mask[max(allowed, key=lambda arc: self.x[arc].sum())] = True
            else:
                falling = sorted(bits, key=lambda bit: -self.x[bit])
                mask[falling[:least]] = True
                mask[[bit for bit in falling[:most] if self.x[bit] > 0]] = True
        return mask

    def may_enter(self, mask: np.ndarray) -> list[int]:
        found = []
        for bits, _, most, is_arc, is_line in self.attributes:
            if mask[bits].sum() < most:
                for place, bit in enumerate(bits):
                    beside = any(mask[bit] for bit in neighbours_of(bits, place, is_line))
                    if not mask[bit] and (beside or not is_arc):
                        found.append(bit)
        return found

    def may_leave(self, mask: np.ndarray) -> list[int]:
        found = []
        for bits, least, _, is_arc, is_line in self.attributes:
            inside = sorted((bit for bit in bits if mask[bit]), key=lambda bit: self.x[bit])
            if is_arc:
                whole = len(inside) == len(bits) and not is_line
                inside = [
                    bit
                    for place, bit in enumerate(bits)
                    if mask[bit] and (whole or sum(mask[bit] for bit in neighbours_of(bits, place, is_line)) < 2)
                ]
                found += inside if mask[bits].sum() > least else []
            else:
                found += inside[: max(0, len(inside) - least)]
        return found

    def repaired(self) -> np.ndarray:
        mask = self.chosen()
        while not self.large_enough(mask) and (may := self.may_enter(mask)):
            mask[max(may, key=lambda bit: self.x[bit])] = True
        order, rest = [], mask.copy()
        while may := self.may_leave(rest):
            order.append(min(may, key=lambda bit: self.x[bit]))
            rest[order[-1]] = False
        for bit in order:
            if self.small_enough(mask):
                break
            without = mask.copy()
            without[bit] = False
            if self.large_enough(without) and self.has_shape(without):
                mask = without
        return mask


def neighbours_of(bits: list[int], place: int, is_line: bool) -> list[int]:
    if not is_line:
        return [bits[place - 1], bits[(place + 1) % len(bits)]]
    return [bits[beside] for beside in (place - 1, place + 1) if 0 <= beside < len(bits)]


def arcs(bits: list[int], is_line: bool) -> list[list[int]]:
    """All arcs of a circle, or ranges of a line."""
    if is_line:
        return [bits[low:high] for low in range(len(bits)) for high in range(low + 1, len(bits) + 1)]
    return [(bits + bits)[start : start + length] for start in range(len(bits)) for length in range(1, len(bits) + 1)]


SHAPED = SpaceConfig(arcs=("viewpoint",), least_values={"attribute1": 2}, most_values={"attribute1": 3, "viewpoint": 4})


RANGES = SpaceConfig(arcs=("viewpoint", "attribute1"), most_values={"attribute1": 3})


def make_ordinal(simulation: Simulation) -> Cells:
    """The cells of a simulation, with its second attribute in order."""
    circle, ordered, *others = simulation.cells.attributes
    return replace(simulation.cells, attributes=(circle, replace(ordered, ordinal=True), *others))


@pytest.mark.parametrize(
    "config",
    [SpaceConfig(), SpaceConfig(arcs=("viewpoint",)), SHAPED, RANGES, SpaceConfig(least_values={"viewpoint": 3})],
)
@pytest.mark.parametrize(
    "budget",
    [
        Budget(images=90, identities=9, least=0.15, most=0.5),
        Budget(images=90, identities=9),
        Budget(images=200, least=0.3, most=0.32),
        Budget(images=20, most=0.1),
    ],
)
def test_decode_repairs_by_the_written_rule(simulation: Simulation, budget: Budget, config: SpaceConfig) -> None:
    cells = make_ordinal(simulation) if config is RANGES else simulation.cells
    space = Space(cells, simulation.identity, budget, seed=0, config=config)
    x = np.random.default_rng(0).normal(size=(60, space.num_bits))
    masks = space.decode(x)
    written = [Written(space, row) for row in x]
    np.testing.assert_array_equal(masks, np.stack([rules.repaired() for rules in written]))
    fits = [
        rules.large_enough(mask) and rules.small_enough(mask) and rules.has_shape(mask)
        for rules, mask in zip(written, masks, strict=True)
    ]
    np.testing.assert_array_equal(space.feasible(masks), fits)
    assert np.mean(fits) > 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.booleans())
def test_decode_gives_every_attribute_a_value_and_leaves_feasible_masks_alone(
    seed: int, shift: float, shaped: bool
) -> None:
    simulation = simulate((4, 3, 2), seed=1)
    config = SHAPED if shaped else SpaceConfig()
    space = Space(simulation.cells, simulation.identity, Budget(images=40, most=0.6), seed=0, config=config)
    x = np.random.default_rng(seed).normal(shift, 1, (20, space.num_bits))
    masks = space.decode(x)
    assert all(Written(space, x[0]).has_shape(mask) for mask in masks)
    assert all(masks[:, block].any(axis=1).all() for block in space.blocks)
    again = space.decode(np.where(masks, 1.0, -1.0))
    fits = space.feasible(masks)
    np.testing.assert_array_equal(again[fits], masks[fits])


def test_masks_and_subsets_are_one_to_one(space: Space) -> None:
    masks = space.decode(np.random.default_rng(0).normal(size=(50, space.num_bits)))
    for mask in masks:
        subset = space.subset(mask)
        np.testing.assert_array_equal(space.mask(subset), mask)
        assert Subset.from_json(subset.to_json()) == subset
    np.testing.assert_array_equal(space.cell_masks(masks), [space.cells.mask(space.subset(mask)) for mask in masks])
    assert space.mask(Subset({})).all()


def test_count_of_subsets(space: Space) -> None:
    assert space.num_subsets == 31 * 15 * 7


def test_a_subset_of_another_space_is_refused(space: Space) -> None:
    with pytest.raises(InputError, match="searched: viewpoint, attribute1, attribute2"):
        space.mask(Subset({"weather": ["foggy"]}))
    with pytest.raises(InputError, match="no image has attribute1 snow"):
        space.mask(Subset({"attribute1": ["snow"]}))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(images=721), "asks for 721 images, the catalog holds 720 images of 12 identities;"),
        (Budget(images=20, identities=13), "13 identities, the catalog holds 720 images of 12 identities;"),
        (Budget(images=100, most=0.1), "at most 72 of 720 images in a subset, but 100 are to be drawn"),
    ],
)
def test_an_impossible_budget_is_refused_with_numbers(simulation: Simulation, budget: Budget, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Space(simulation.cells, simulation.identity, budget, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"images": 0}, {"images": 5, "identities": 6}, {"images": 5, "least": 0.5, "most": 0.4}]
)
def test_a_contradictory_budget_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Budget(**wrong)


def make_catalog() -> Catalog:
    random = np.random.default_rng(0)
    attributes = (WEATHER, ILLUMINATION, SCENE, Attribute(name="hat", values=("yes", "no"), level="identity"))
    num = 400
    columns = {
        attribute.name: pd.Categorical(random.choice(attribute.values[:3], num), categories=attribute.values)
        for attribute in attributes
    }
    columns["illumination"] = pd.Categorical(["dusk"] * num, categories=ILLUMINATION.values)
    frame = pd.DataFrame(
        {
            "path": [f"{place}.jpg" for place in range(num)],
            "identity": random.integers(1, 9, num),
            "camera": 0,
            "part": pd.Categorical(["train"] * num),
            **columns,
        }
    )
    rejected = pd.DataFrame({"path": [], "reason": []})
    return Catalog(frame=frame, root=None, title="Toy", layout="toy", attributes=attributes, rejected=rejected)


def test_the_scene_and_constant_attributes_are_left_out() -> None:
    space = Space.of(make_catalog(), Budget(images=10), seed=0)
    assert [attribute.name for attribute in space.attributes] == ["weather"]
    assert space.values == (("sunny", "clouds", "overcast"),)
    with_scene = Space.of(make_catalog(), Budget(images=10), seed=0, attributes=["weather", "scene"])
    assert with_scene.num_bits == 6


def test_only_image_attributes_that_vary_are_searched() -> None:
    with pytest.raises(InputError, match="hat: not an image-level attribute of Toy; known: weather"):
        Space.of(make_catalog(), Budget(images=10), seed=0, attributes=["hat"])
    with pytest.raises(InputError, match="1 to 1000 values of attributes that vary, got 0 over illumination"):
        Space.of(make_catalog(), Budget(images=10), seed=0, attributes=["illumination"])


def test_the_fingerprint_tells_spaces_apart(simulation: Simulation) -> None:
    def fingerprint(budget: int, seed: int) -> str:
        return Space(simulation.cells, simulation.identity, Budget(images=budget), seed=seed).fingerprint

    assert len({fingerprint(90, 0), fingerprint(91, 0), fingerprint(90, 1)}) == 3
    assert fingerprint(90, 0) == fingerprint(90, 0)


def test_feasible_means_budget_bounds_and_arcs(simulation: Simulation) -> None:
    space = Space(simulation.cells, simulation.identity, Budget(images=60, most=0.4), seed=0, config=SHAPED)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    rules = Written(space, np.zeros(space.num_bits))
    expected = [rules.large_enough(mask) and rules.small_enough(mask) and rules.has_shape(mask) for mask in masks]
    np.testing.assert_array_equal(space.feasible(masks), expected)
    assert 50 < sum(expected) < 1500
    assert space.feasible(random_masks(space, 100, seed=0)).mean() > 0.9


@pytest.mark.parametrize(
    "config",
    [RANGES, SHAPED, SpaceConfig(arcs=("viewpoint",), least_values={"viewpoint": 3}, most_values={"viewpoint": 3})],
)
def test_neighbours_reach_every_feasible_subset(simulation: Simulation, config: SpaceConfig) -> None:
    """An arc grows and shrinks by flips of its ends and moves by an exchange of them."""
    cells = make_ordinal(simulation) if config is RANGES else simulation.cells
    space = Space(cells, simulation.identity, Budget(images=60, most=0.4), seed=0, config=config)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    feasible = {mask.tobytes() for mask in masks[space.feasible(masks)]}
    start = random_masks(space, 1, seed=0)[0]
    reached, waiting = {start.tobytes()}, [start]
    while waiting:
        near = [mask for mask in neighbours(space, waiting.pop()) if mask.tobytes() not in reached]
        reached |= {mask.tobytes() for mask in near}
        waiting += near
    assert reached == feasible


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_stay_within_bounds_and_arcs(simulation: Simulation, name: str, tmp_path: Path) -> None:
    space = Space(simulation.cells, simulation.identity, Budget(images=60, most=0.4), seed=0, config=SHAPED)
    objective = TableObjective(space, np.arange(space.num_bits) % 2 == 0)
    optimizer = make_optimizer(name, space, seed=0, evaluations=100)
    result = search(space, objective, optimizer, tmp_path, evaluations=100, config={}, num_random=0)
    rules = Written(space, np.zeros(space.num_bits))
    scored = [space.mask(trial.subset) for trial in result.history if trial.score is not None]
    assert all(rules.has_shape(mask) and rules.small_enough(mask) for mask in scored)
    assert len(scored) > 0.8 * len(result.history)


def test_fixed_values_have_no_bits_but_are_in_every_subset(simulation: Simulation) -> None:
    config = SpaceConfig(fixed={"attribute1": ("value3", "value1")})
    space = Space(simulation.cells, simulation.identity, Budget(images=60, identities=9), seed=0, config=config)
    assert [attribute.name for attribute in space.attributes] == ["viewpoint", "attribute2"]
    assert space.num_subsets == 31 * 7
    masks = random_masks(space, 20, seed=0)
    for mask, cells in zip(masks, space.cell_masks(masks), strict=True):
        subset = space.subset(mask)
        assert subset.values["attribute1"] == {"value1", "value3"}
        np.testing.assert_array_equal(space.mask(subset), mask)
        np.testing.assert_array_equal(space.cells.mask(subset), cells)
    rows = space.sampler.draw(space.subset(masks[0]), seed=0)
    assert set(space.cells.codes[space.cells.of_row[rows], 1]) <= {1, 3}
    with pytest.raises(InputError, match="attribute1 is fixed to value1, value3, got value1"):
        space.mask(Subset({"attribute1": ["value1"]}))
    everything = space.expected_shares(np.ones((1, space.num_bits), dtype=bool))[0]
    assert everything[~np.isin(space.cells.codes[:, 1], [1, 3])].sum() == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fixed": {"wether": ("sunny",)}}, "fixed: wether: not searched over; searched: viewpoint, attribute1"),
        ({"most_values": {"scene": 2}}, "most_values: scene: not searched over"),
        ({"arcs": ("attribute1",)}, "arcs: attribute1: neither circular nor ordinal; such are: viewpoint"),
        ({"least_values": {"attribute2": 4}}, "least_values.attribute2 is 4, but only 3 values occur"),
        ({"fixed": {"attribute1": ("snow",)}}, "fixed: no image has attribute1 snow; expected some of value0, value1"),
    ],
)
def test_constraints_on_what_is_not_there_are_refused(
    simulation: Simulation, config: dict[str, object], message: str
) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        Space(simulation.cells, simulation.identity, Budget(images=90), seed=0, config=SpaceConfig(**config))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"least_values": {"weather": 3}, "most_values": {"weather": 2}}, "at most most_values.weather, got 3 and 2"),
        ({"fixed": {"weather": ("sunny",)}, "arcs": ("weather",)}, "weather is fixed"),
        ({"fixed": {"weather": ()}}, "at least 1 item"),
        ({"least_values": {"weather": 0}}, "greater than or equal to 1"),
    ],
)
def test_contradictory_constraints_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SpaceConfig(**config)


def test_fixed_values_that_cannot_hold_the_budget_are_refused(simulation: Simulation) -> None:
    config = SpaceConfig(fixed={"attribute2": ("value0",)})
    with pytest.raises(
        InputError, match="asks for 300 images, the fixed values hold 240 images of 12 identities; lower the budget"
    ):
        Space(simulation.cells, simulation.identity, Budget(images=300), seed=0, config=config)


def test_people_are_chosen_by_their_attributes() -> None:
    simulation = simulate((3, 2), seed=0, num_identities=12, identity_sizes=(2, 3))
    config = SpaceConfig(identity_attributes=("person0", "person1"), most_values={"person1": 2})
    space = Space(
        simulation.cells,
        simulation.identity,
        Budget(images=10, least=0.1, most=0.6),
        seed=0,
        config=config,
        groups=simulation.groups,
    )
    assert space.num_subsets == 7 * 3 * 3 * 7
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    shares = space.expected_shares(masks)
    assert shares.shape == (len(masks), 6 + len(simulation.groups))
    fits = space.feasible(masks)
    assert 0 < fits.sum() < len(masks)
    np.testing.assert_allclose(shares[fits, :6].sum(axis=1), 1)
    np.testing.assert_allclose(shares[fits, 6:].sum(axis=1), 1)
    assert masks[fits][:, space.blocks[-1]].sum(axis=1).max() == 2
    for mask, expected in zip(masks[fits][::40], shares[fits][::40], strict=True):
        subset = space.subset(mask)
        np.testing.assert_array_equal(space.mask(subset), mask)
        rows = space.sampler.draw(subset, seed=0)
        group = simulation.groups.of_row[rows]
        assert set(group) == set(np.flatnonzero(expected[6:]))
        assert simulation.groups.mask(Subset({name: subset.values[name] for name in ("person0", "person1")}))[
            group
        ].all()
    x = np.random.default_rng(0).normal(size=(50, space.num_bits))
    assert space.feasible(space.decode(x)).mean() > 0.9


def test_identity_attributes_come_from_the_catalog() -> None:
    catalog = make_catalog()
    catalog.frame["hat"] = pd.Categorical(
        np.where(catalog.frame["identity"] % 2, "yes", "no"), categories=("yes", "no")
    )
    catalog.frame.loc[catalog.frame["identity"] == 8, "hat"] = np.nan
    config = SpaceConfig(identity_attributes=("hat",))
    space = Space.of(catalog, Budget(images=10), seed=0, config=config)
    assert space.values == (("sunny", "clouds", "overcast"), ("yes", "no"))
    unknown = (catalog.frame["identity"] == 8).sum()
    assert space.num_images(np.ones((1, 5), dtype=bool))[0] == len(catalog) - unknown
    only = Space.of(
        catalog, Budget(images=10), seed=0, config=SpaceConfig(identity_attributes=("hat",), fixed={"hat": ("no",)})
    )
    assert set(catalog.frame["identity"][only.sampler.draw(only.subset(np.ones(3, dtype=bool)), seed=0)]) <= {2, 4, 6}
    with pytest.raises(
        ConfigError, match="identity_attributes: weather: not an identity-level attribute of Toy; known: hat"
    ):
        Space.of(catalog, Budget(images=10), seed=0, config=SpaceConfig(identity_attributes=("weather",)))


def test_the_fingerprint_covers_constraints_and_people() -> None:
    simulation = simulate((3, 2), seed=0, num_identities=12, identity_sizes=(2,))

    def fingerprint(config: SpaceConfig, **options: object) -> str:
        return Space(
            simulation.cells, simulation.identity, Budget(images=9), seed=0, config=config, **options
        ).fingerprint

    people = SpaceConfig(identity_attributes=("person0",))
    found = {
        fingerprint(SpaceConfig()),
        fingerprint(SpaceConfig(arcs=("viewpoint",))),
        fingerprint(people, groups=simulation.groups),
    }
    assert len(found) == 3
    # Journals of searches without constraints, of the time before there were any, still belong to their space.
    assert fingerprint(SpaceConfig()) == "897a06493dedd7b9df5b84341ffd3b111f0332a91fe529d69c693d9c29979264"


def test_finegpr_sized_decodes_are_fast() -> None:
    codes = np.stack(np.meshgrid(np.arange(36), np.arange(7), np.arange(7), indexing="ij"), axis=-1).reshape(-1, 3)
    attributes = tuple(
        Attribute(name=f"a{place}", values=tuple(str(value) for value in range(size)))
        for place, size in enumerate((36, 7, 7))
    )
    cells = Cells(
        attributes=attributes,
        codes=codes.astype(np.int16),
        of_row=np.tile(np.arange(1764), 20),
        images=np.full(1764, 20),
    )
    identity = np.repeat(np.arange(1, 21), 1764)
    space = Space(cells, identity, Budget(images=1000, identities=20, least=0.03, most=0.12), seed=0)
    x = np.random.default_rng(0).normal(size=(400, 50))
    started = time.process_time()
    for start in range(0, len(x), 40):
        space.decode(x[start : start + 40])
    rate = len(x) / (time.process_time() - started)
    assert rate > 1_500, f"{rate:.0f} decodes/s; about 7,000 on one core of 2026"
