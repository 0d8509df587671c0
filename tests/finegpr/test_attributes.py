import pytest

from finegpr.attributes import FINEGPR, GPR_PLUS, IDENTITY_ATTRIBUTES, VIEWPOINT, Attribute, by_name
from finegpr.errors import InputError


def test_vocabularies_have_the_published_sizes():
    image_level = [attribute for attribute in FINEGPR if attribute.level == "image"]
    assert [len(attribute.values) for attribute in image_level] == [36, 7, 7, 9]
    assert [attribute.name for attribute in FINEGPR if attribute.circular] == ["viewpoint"]
    assert len(IDENTITY_ATTRIBUTES) == 13
    assert [len(attribute.values) for attribute in GPR_PLUS] == [12, 7, 7]


def test_degrees_reads_the_angle_with_and_without_unit():
    assert VIEWPOINT.degrees("130deg") == 130
    assert VIEWPOINT.degrees("-7.5") == -7.5


@pytest.mark.parametrize("value", ["north", "", "nan", "infdeg"])
def test_circular_attribute_refuses_values_that_are_no_angles(value):
    with pytest.raises(InputError, match="not an angle"):
        Attribute(name="heading", values=("0deg", value), circular=True)


@pytest.mark.parametrize("values", [(), ("a", "a")])
def test_values_must_be_distinct_and_present(values):
    with pytest.raises(InputError, match="distinct"):
        Attribute(name="hat", values=values)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match="no value 'sleet'.*sunny"):
        by_name(FINEGPR, "weather").index("sleet")
    with pytest.raises(InputError, match="no attribute 'wether'.*weather"):
        by_name(FINEGPR, "wether")
