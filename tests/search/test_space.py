import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finegpr.attributes import ILLUMINATION, SCENE, WEATHER, Attribute
from finegpr.catalog import Catalog, Cells
from finegpr.errors import InputError
from finegpr.subset import Subset
from search.simulation import Simulation, simulate
from search.space import Budget, Space


def repair_one_by_one(space: Space, x: np.ndarray) -> np.ndarray:
    """The rule of ``decode`` as it is written down, value by value."""
    total = space.sampler.images(np.ones((1, len(space.cells)), dtype=bool))[0]

    def images(mask: np.ndarray) -> int:
        return int(space.sampler.images(space.cell_masks(mask[None]))[0])

    def large_enough(mask: np.ndarray) -> bool:
        fits = space.sampler.feasible(space.cell_masks(mask[None]))[0]
        return bool(fits) and images(mask) >= space.budget.least * total - 1e-6

    mask = x > 0
    highest = [block.start + int(x[block].argmax()) for block in space.blocks]
    mask[highest] = True
    for bit in np.argsort(-x, kind="stable"):
        if large_enough(mask):
            break
        mask[bit] = True
    for bit in np.argsort(x, kind="stable"):
        if images(mask) <= space.budget.most * total + 1e-6:
            break
        without = mask.copy()
        without[bit] = False
        if mask[bit] and bit not in highest and large_enough(without):
            mask = without
    return mask


@pytest.mark.parametrize(
    "budget",
    [
        Budget(images=90, identities=9, least=0.15, most=0.5),
        Budget(images=90, identities=9),
        Budget(images=200, least=0.3, most=0.32),
        Budget(images=20, most=0.05),
    ],
)
def test_decode_repairs_by_the_written_rule(simulation: Simulation, budget: Budget) -> None:
    space = Space(simulation.cells, simulation.identity, budget, seed=0)
    x = np.random.default_rng(0).normal(size=(80, space.num_bits))
    masks = space.decode(x)
    np.testing.assert_array_equal(masks, np.stack([repair_one_by_one(space, row) for row in x]))
    assert space.feasible(masks).mean() > 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 5))
def test_decode_gives_every_attribute_a_value_and_leaves_feasible_masks_alone(seed: int, shift: float) -> None:
    simulation = simulate((4, 3, 2), seed=1)
    space = Space(simulation.cells, simulation.identity, Budget(images=40, most=0.6), seed=0)
    x = np.random.default_rng(seed).normal(shift, 1, (20, space.num_bits))
    masks = space.decode(x)
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
        (Budget(images=721), "asks for 721 images, the catalog holds 720 of 12"),
        (Budget(images=20, identities=13), "13 identities, the catalog holds 720 of 12"),
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
