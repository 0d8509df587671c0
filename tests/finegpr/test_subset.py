import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegpr.errors import InputError
from finegpr.subset import Subset

values = st.dictionaries(st.text(max_size=8), st.sets(st.text(max_size=8), min_size=1, max_size=4), max_size=4)


@given(values)
def test_json_and_pickle_round_trips_keep_the_key(chosen):
    subset = Subset(chosen)
    for copy in (Subset.from_json(subset.to_json()), pickle.loads(pickle.dumps(subset))):
        assert copy == subset
        assert hash(copy) == hash(subset)
        assert copy.values == {name: frozenset(each) for name, each in chosen.items()}


def test_key_does_not_depend_on_order():
    one = Subset({"weather": ["foggy", "sunny"], "scene": ["urban1"]})
    other = Subset({"scene": ["urban1"], "weather": ["sunny", "foggy", "foggy"]})
    assert one.key == other.key == '{"scene":["urban1"],"weather":["foggy","sunny"]}'
    assert one != Subset({"weather": ["foggy"]})


def test_an_attribute_needs_a_value():
    with pytest.raises(InputError, match="none of weather"):
        Subset({"weather": []})


def test_a_text_is_not_taken_for_its_letters():
    with pytest.raises(InputError, match="one text for weather"):
        Subset({"weather": "foggy"})


def test_a_subset_cannot_be_changed():
    subset = Subset({"weather": ["foggy"]})
    with pytest.raises(TypeError):
        subset.values["weather"] = frozenset({"sunny"})  # type: ignore[index]
    with pytest.raises(AttributeError):
        subset.values = {}  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weather": "foggy"}', '{"weather": [1]}', "NaN", "[" * 100_000])
def test_from_json_refuses_anything_else(text):
    with pytest.raises(InputError, match="JSON object of lists"):
        Subset.from_json(text)
