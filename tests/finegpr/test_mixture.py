import pytest

from finegpr.errors import InputError
from finegpr.mixture import Mixture, choice_from_json, choice_from_record
from finegpr.subset import Subset


def test_only_ratios_within_an_attribute_matter() -> None:
    mixture = Mixture({"weather": {"sunny": 6, "foggy": 2, "snow": 0}, "light": {"noon": 4, "dusk": 4}})
    assert mixture == Mixture({"light": {"dusk": 1, "noon": 1}, "weather": {"foggy": 1, "sunny": 3}})
    assert mixture.key == '{"light":["dusk","noon"],"weather":{"foggy":1,"sunny":3}}'
    assert mixture.values == Subset({"weather": ["sunny", "foggy"], "light": ["noon", "dusk"]}).values
    assert mixture != Mixture({"weather": {"sunny": 2, "foggy": 1}, "light": {"noon": 1, "dusk": 1}})


def test_a_mixture_without_preference_is_a_subset() -> None:
    mixture = Mixture({"weather": {"sunny": 2, "foggy": 2}})
    assert mixture == Subset({"weather": ["foggy", "sunny"]})
    assert hash(mixture) == hash(Subset({"weather": ["foggy", "sunny"]}))


def test_it_is_read_back() -> None:
    mixture = Mixture({"weather": {"sunny": 3, "foggy": 1}, "light": {"noon": 1}})
    again = choice_from_json(mixture.to_json())
    assert isinstance(again, Mixture)
    assert again == mixture
    assert again.weights == mixture.weights
    plain = choice_from_json('{"weather":["sunny"]}')
    assert type(plain) is Subset


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"weather": {"sunny": -1}}, "should be a count, got -1"),
        ({"weather": {"sunny": 0.5}}, "should be a count, got 0.5"),
        ({"weather": {"sunny": True}}, "should be a count, got True"),
        ({"weather": {"sunny": 0}}, "at least one value"),
        ({"weather": "sunny"}, "list of values, or an object"),
        ({"weather": [1]}, "list of values, or an object"),
        ({"weather": []}, "at least one value"),
    ],
)
def test_what_is_none_is_refused(record: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choice_from_record(record)


@pytest.mark.parametrize("text", ["[]", "nonsense", "3"])
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="a JSON object of lists"):
        choice_from_json(text)
