import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegpr.attributes import FINEGPR, IDENTITY_ATTRIBUTES, ILLUMINATION, VIEWPOINT, WEATHER, Attribute
from finegpr.errors import InputError
from finegpr.mixture import Mixture
from finegpr.subset import Subset
from search.analysis.subset_diff import NO_CHANGE, changes, describe, diff, searched
from search.simulation import simulate
from search.space import Budget, Space, SpaceConfig

IMAGE = (VIEWPOINT, WEATHER, ILLUMINATION)
COARSE = replace(VIEWPOINT, values=("0deg", "90deg", "180deg", "270deg"))


def degrees(*angles: int) -> list[str]:
    return [f"{angle}deg" for angle in angles]


BASE = {"viewpoint": degrees(*range(90, 180, 10)), "weather": ["sunny"], "illumination": ["dusk", "night"]}


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({}, NO_CHANGE),
        ({"weather": ["sunny", "foggy"]}, "adds foggy"),
        ({"viewpoint": degrees(90, 100, 110, 120)}, "drops 130-170 deg"),
        (
            {"viewpoint": degrees(90, 100, 110, 120), "weather": ["foggy", "sunny"], "illumination": ["dusk"]},
            "adds foggy, drops 130-170 deg and night",
        ),
        ({"viewpoint": degrees(*range(90, 180, 10), 350, 0, 10, 20)}, "adds 350-20 deg"),
        ({"viewpoint": degrees(90, 110, 130, 140, 150, 160, 170)}, "drops 100 deg and 120 deg"),
        ({"weather": list(WEATHER.values)}, "now any weather"),
        ({"weather": ["foggy"], "illumination": ["dusk", "night", "noon"]}, "adds foggy and noon, drops sunny"),
    ],
)
def test_a_diff_in_words(new: dict[str, list[str]], words: str) -> None:
    assert diff(Subset(BASE), Subset({**BASE, **new}), IMAGE) == words


def test_from_everything_to_a_few() -> None:
    assert diff(Subset({}), Subset({"weather": ["foggy", "sunny"]}), IMAGE) == "keeps only sunny and foggy"
    assert diff(Subset({}), Subset({"weather": WEATHER.values[1:]}), IMAGE) == "drops sunny"


@pytest.mark.parametrize(
    ("subset", "words"),
    [
        ({}, "any viewpoint; any weather; any illumination"),
        (BASE, "90-170 deg; sunny; dusk or night"),
        (
            {"viewpoint": degrees(340, 350, 0, 180), "weather": ["foggy", "sunny", "clouds"]},
            "180 deg or 340-0 deg; sunny, clouds or foggy; any illumination",
        ),
        ({"viewpoint": degrees(*range(10, 360, 10))}, "10-350 deg; any weather; any illumination"),
    ],
)
def test_a_subset_in_words(subset: dict[str, list[str]], words: str) -> None:
    assert describe(Subset(subset), IMAGE) == words


def test_values_that_several_attributes_share_are_said_with_their_attribute() -> None:
    people = (WEATHER, *IDENTITY_ATTRIBUTES)
    old = Subset({"hat": ["no"], "upper_colour": ["black"]})
    new = Subset({"hat": ["yes"], "upper_colour": ["black", "red"], "weather": ["foggy"]})
    assert diff(old, new, people) == "adds hat yes and upper colour red, drops hat no, keeps only foggy"
    heights = tuple(Attribute(name=name, values=("low", "high")) for name in ("camera", "light"))
    assert describe(Subset({"camera": ["low"]}), heights) == "camera low; any light"


def test_values_in_order_are_said_with_their_attribute() -> None:
    exposure = Attribute(name="exposure", values=("-2 to 0.5", "0.5 to 1.2", "1.3 to 2"), ordinal=True)
    assert describe(Subset({"exposure": ["0.5 to 1.2", "-2 to 0.5"]}), [exposure]) == (
        "exposure -2 to 0.5 or 0.5 to 1.2"
    )


def test_neighbours_are_those_of_the_values_that_occur() -> None:
    assert describe(Subset({"viewpoint": degrees(270, 0)}), (COARSE,)) == "270-0 deg"
    simulation = simulate((12, 3), seed=0)
    attributes = searched(Space(simulation.cells, simulation.identity, Budget(images=20), seed=0))
    assert describe(Subset({"viewpoint": degrees(330, 0, 60)}), attributes) == "60 deg or 330-0 deg; any attribute1"


def test_values_may_be_listed_in_any_order() -> None:
    shuffled = replace(VIEWPOINT, values=("270deg", "-90.5deg", "0deg", "450deg", "180deg"))
    assert describe(Subset({"viewpoint": ["0deg", "450deg"]}), (shuffled,)) == "0-450 deg"
    assert describe(Subset({"viewpoint": ["270deg", "-90.5deg", "180deg"]}), (shuffled,)) == "180-270 deg"


def test_fixed_attributes_are_said_too() -> None:
    simulation = simulate((4, 3), seed=0)
    config = SpaceConfig(fixed={"attribute1": ("value1",)})
    space = Space(simulation.cells, simulation.identity, Budget(images=20), seed=0, config=config)
    everything, part = (space.subset(np.array(mask)) for mask in ([True] * 4, [True, True, False, False]))
    assert describe(everything, searched(space)) == "any viewpoint; value1"
    assert diff(everything, part, searched(space)) == "drops 180-270 deg"


def test_mixtures_are_said_with_their_weights() -> None:
    even = Mixture({"weather": {"sunny": 2, "foggy": 2}})
    tilted = Mixture({"weather": {"sunny": 3, "foggy": 1}})
    assert describe(even, (WEATHER,)) == "sunny or foggy"
    assert describe(tilted, (WEATHER,)) == "weather sunny 3, foggy 1"
    assert diff(even, tilted, (WEATHER,)) == "weighs weather sunny 3, foggy 1"
    assert diff(tilted, even, (WEATHER,)) == "weighs weather evenly"
    assert diff(Subset({"weather": ["sunny"]}), tilted, (WEATHER,)) == "adds foggy, weighs weather sunny 3, foggy 1"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="no attribute 'season'"):
        diff(Subset({}), Subset({"season": ["winter"]}), IMAGE)
    with pytest.raises(InputError, match="weather has no value 'hail'"):
        describe(Subset({"weather": ["hail"]}), IMAGE)


subsets = st.fixed_dictionaries(
    {
        attribute.name: st.sets(st.sampled_from(attribute.values), min_size=1)
        for attribute in (VIEWPOINT, WEATHER, ILLUMINATION, FINEGPR[5])
    }
).map(Subset)


@given(subsets, subsets)
@settings(max_examples=100, deadline=None)
def test_the_changes_lead_from_the_old_to_the_new(old: Subset, new: Subset) -> None:
    attributes = (VIEWPOINT, WEATHER, ILLUMINATION, FINEGPR[5])
    values = dict(old.values)
    for change in changes(old, new, attributes):
        assert change.added or change.dropped
        values[change.attribute.name] = (values[change.attribute.name] - change.dropped) | change.added
    assert Subset(values) == new
    assert (diff(old, new, attributes) == NO_CHANGE) == (old == new)


@given(st.sets(st.sampled_from(VIEWPOINT.values), min_size=1))
@settings(max_examples=200, deadline=None)
def test_ranges_can_be_read_back(chosen: set[str]) -> None:
    words = describe(Subset({"viewpoint": chosen}), (VIEWPOINT,))
    read: set[str] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))? deg", words):
        span = (int(last or first) - int(first)) % 360
        arc = {f"{(int(first) + step) % 360}deg" for step in range(0, span + 10, 10)}
        assert read.isdisjoint(arc)
        read |= arc
    assert read == (set() if words == "any viewpoint" else chosen)
    # Ranges are as long as can be: none begins where another ends.
    assert len(re.findall("deg", words)) == sum(
        value in chosen and f"{(int(value[:-3]) - 10) % 360}deg" not in chosen for value in VIEWPOINT.values
    )
