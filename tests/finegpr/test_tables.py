"""A user's table: the same labels in any form give the same catalog, and what is not clear is refused by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, InputError
from finegpr.layouts.table_text import read_csv

NUM = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for row in range(64):
        (root / f"{row:02}.jpg").touch()
    return root


def index(root: Path, columns: dict[str, object], *, form: str = "csv", **options: object) -> Catalog:
    """The catalog of the first images with these columns of labels."""
    num = len(next(iter(columns.values())))
    table = pa.table({"path": [f"{row:02}.jpg" for row in range(num)], **columns})
    if form == "parquet":
        pq.write_table(table, root / "t.parquet")
    else:
        rows = [table.column_names, *zip(*(column.to_pylist() for column in table.columns), strict=True)]
        (root / "t.csv").write_text("\n".join(",".join("" if v is None else str(v) for v in row) for row in rows))
    return Catalog.index(root, layout="table", table=root / f"t.{form}", **options)


def csv(root: Path, content: bytes, **options: object) -> Catalog:
    (root / "t.csv").write_bytes(content)
    return Catalog.index(root, layout="table", table=root / "t.csv", **options)


# --- identities and cameras

PARTS = ["query", "gallery"] * (NUM // 2)


def spellings(numbers: list[int]) -> dict[str, tuple[str, list[object]]]:
    return {
        "int": ("parquet", numbers),
        "float": ("parquet", [float(number) for number in numbers]),
        "half": ("parquet", np.float16(numbers)),
        "text": ("parquet", [f" {number} " for number in numbers]),
        "categories": ("parquet", pa.array([float(number) for number in numbers]).dictionary_encode()),
        "decimal": ("parquet", pa.array(numbers, pa.int64()).cast(pa.decimal128(21, 2))),
        "csv": ("csv", numbers),
        "csv with points": ("csv", [float(number) for number in numbers]),
        "csv with zeros": ("csv", [f"{number:05}" for number in numbers]),
        "csv with blanks": ("csv", [f" {number}\t" for number in numbers]),
    }


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(numbers=st.lists(st.integers(-1, 6), min_size=NUM, max_size=NUM))
def test_the_same_ids_in_any_form_give_the_same_catalog(root, numbers):
    got = set()
    for form, column in spellings(numbers).values():
        try:
            catalog = index(root, {"pid": column, "part": PARTS}, form=form, identity_column="pid", part_column="part")
            got.add(tuple(catalog.frame["identity"]))
        except InputError as error:
            got.add(str(error).split("rows are wrong, ")[1].split(", got")[0])
    assert len(got) == 1
    is_clear = all(number > 0 for number in numbers[::2])
    assert (got == {tuple(numbers)}) == is_clear


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(numbers=st.lists(st.integers(-1, 6), min_size=NUM, max_size=NUM), kind=st.sampled_from(["", "circular", "bins"]))
def test_the_same_values_in_any_form_give_the_same_catalog(root, numbers, kind):
    options = {"": {}, "circular": {"circular": ["w"]}, "bins": {"bins": {"w": 3}}}[kind]
    got = [
        index(root, {"w": column}, form=form, **options)
        for name, (form, column) in spellings(numbers).items()
        if name != "csv with zeros" or kind  # names such as 01 stay as they are
    ]
    assert {catalog.fingerprint for catalog in got} == {got[0].fingerprint}


def test_junk_and_distractors_keep_their_meaning_beside_names(root):
    names = ["-1", "0.0", "P2", "P1"] * 6
    catalog = index(
        root, {"pid": names, "part": ["gallery", "gallery", "query", "gallery"] * 6},
        identity_column="pid", part_column="part",
    )  # fmt: skip
    assert catalog.frame["identity"].tolist() == [-1, 0, 2, 1] * 6


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([-1.0, 0.0, 1.0, 2.0], {}, "1 rows are wrong, 1: pid -1 is junk, which only a gallery has"),
        (["-1", "P1", "P2", "P3"], {}, "1 rows are wrong, 1: pid -1 is junk"),
        (["0", "P1", "P2", "P3"], {}, "pid 0 is a distractor, and the table has no gallery; .* a name"),
        (
            [0, 1, 2, 3],
            {"first_identity": 1},
            "pid 0 is a distractor, and the table has no gallery; .*first_identity=0",
        ),
        ([0, 1, 2, 3], {"first_identity": 2}, "first_identity should be 0 or 1, got 2"),
        ([1, 2, 3, 1.5], {}, "1 rows are wrong, 4: pid should be a whole number .*as in most rows, got '1.5'"),
        ([1, 2, 3, float("inf")], {}, "4: pid should be a whole number .*got 'inf'"),
        ([1, 2, 3, 1e20], {}, "4: pid should be a whole number .*got '1e"),
        (["1", "2", "3", "x"], {}, "4: pid should be a whole number .*got 'x'"),
        (["a", "b", "c", "3"], {}, "4: pid should be a name as in most rows; .*got '3'"),
        ([1, 2, 3, float("nan")], {}, "'pid' has 1 missing values, rows 4"),
        (["1", "2", "3", "NA"], {}, "'pid' has 1 missing values, rows 4"),
    ],
)
def test_ids_that_are_not_clear_are_refused(root, ids, options, message):
    with pytest.raises((InputError, ConfigError), match=message):
        index(root, {"pid": ids}, identity_column="pid", **options)


def test_persons_count_from_0_only_where_there_is_no_gallery(root):
    catalog = index(root, {"pid": [0, 0, 1, 7]}, identity_column="pid")
    assert catalog.frame["identity"].tolist() == [1, 1, 2, 8]
    assert "count from 0; each is listed one higher" in catalog.notes[0]
    with_parts = {"pid": [0, 0, 0, 1], "part": ["train", "query", "gallery", "train"]}
    with pytest.raises(InputError, match="2 rows are wrong, 1, 2: pid 0 is a distractor, which only a gallery has;"):
        index(root, with_parts, identity_column="pid", part_column="part")
    junk = {"pid": [0, 5, -1, 5], "part": ["query", "train", "gallery", "train"]}
    catalog = index(root, junk, identity_column="pid", part_column="part", first_identity=0)
    assert catalog.frame["identity"].tolist() == [1, 6, -1, 6]


def test_cameras_count_from_0_where_no_number_is_left_out(root):
    assert index(root, {"cam": [0, 1, 2, 1]}, camera_column="cam").frame["camera"].tolist() == [1, 2, 3, 2]
    assert index(root, {"cam": [0.0, 0.0]}, camera_column="cam").frame["camera"].tolist() == [0, 0]
    assert index(root, {"cam": ["b", "a"]}, camera_column="cam").frame["camera"].tolist() == [2, 1]
    with pytest.raises(InputError, match="cam has 0 beside 3, 6: is it unknown, or the first camera"):
        index(root, {"cam": [0, 3, 6]}, camera_column="cam")
    for lowest, cameras in ((1, [0, 3, 6]), (0, [1, 4, 7])):
        catalog = index(root, {"cam": [0, 3, 6]}, camera_column="cam", first_camera=lowest)
        assert catalog.frame["camera"].tolist() == cameras


# --- columns


def test_columns_that_nobody_asked_for_are_not_read(root):
    odd = {
        "box": [[1, 2]] * 4,
        "image": [{"bytes": b"x"}] * 4,
        "raw": [b"x"] * 4,
        "half": pa.array(np.float16([0.5, 1, 0.5, 1])),
    }
    columns = {"weather": ["wet", "dry", "wet", "dry"], **odd}
    catalog = index(root, columns, form="parquet", attributes=["weather"])
    assert [attribute.name for attribute in catalog.attributes] == ["weather"]
    catalog = index(root, columns, form="parquet")
    assert {attribute.name: attribute.values for attribute in catalog.attributes} == {
        "weather": ("dry", "wet"),
        "half": ("0.5", "1"),
    }
    assert catalog.notes[0].endswith("columns of lists, structs or bytes are no attributes: box, image, raw")
    for name, type_ in (
        ("box", r"lists \(type list"),
        ("image", r"structs \(type struct"),
        ("raw", r"bytes \(type bin"),
    ):
        with pytest.raises(InputError, match=f"column '{name}' holds {type_}"):
            index(root, columns, form="parquet", attributes=[name])


def test_damage_in_a_column_that_nobody_asked_for_does_not_matter(root):
    table = pa.table({"path": ["00.jpg", "01.jpg"], "caption": ["aaaaaaaa", "bbbbbbbb"], "w": ["x", "y"]})
    pq.write_table(table, root / "t.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    content = (root / "t.parquet").read_bytes()
    (root / "t.parquet").write_bytes(content.replace(b"aaaaaaaa\x08", b"acaaaaaa\x08"))
    catalog = Catalog.index(root, layout="table", table="t.parquet", attributes=["w"])
    assert catalog.frame["w"].tolist() == ["x", "y"]
    with pytest.raises(InputError, match="cannot read table"):
        Catalog.index(root, layout="table", table="t.parquet")


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("nothing", [None, float("nan"), "NA", "NaN", "  "])
def test_missing_values_are_named_or_ruled(root, form, nothing):
    values = ["1", "2", nothing, "1"] if isinstance(nothing, str) or nothing is None else [1.0, 2.0, nothing, 1.0]
    with pytest.raises(InputError, match=r"'w' has 1 missing values, rows 3; .*missing=own-value .*missing=leave-out"):
        index(root, {"w": values}, form=form)
    catalog = index(root, {"w": values}, form=form, missing="own-value")
    assert catalog.frame["w"].tolist() == ["1", "2", "missing", "1"]
    catalog = index(root, {"w": values}, form=form, missing="leave-out")
    assert catalog.frame["w"].tolist() == ["1", "2", "1"]
    assert catalog.frame["path"].tolist() == ["00.jpg", "01.jpg", "03.jpg"]
    assert catalog.notes[-1].endswith("1 of 4 images left out for a missing value")
    with pytest.raises(ConfigError, match="missing should be own-value or leave-out, got 'drop'"):
        index(root, {"w": values}, form=form, missing="drop")
    with pytest.raises(InputError, match="which have no place among 0, 1, 2|which have no place among 1, 2"):
        index(root, {"w": values}, form=form, missing="own-value", ordinal=["w"])


def test_equal_numbers_are_one_value(root):
    catalog = index(root, {"w": ["1", "1.0", "01", "-0", "0", "0.50", "1e2"]})
    assert catalog.attributes[0].values == ("0", "0.5", "1", "100")
    assert catalog.frame["w"].tolist() == ["1", "1", "1", "0", "0", "0.5", "100"]
    assert catalog.notes[0].endswith("7 spellings of w are 4 values: -0, 0 are 0")
    assert index(root, {"w": ["01", "02", "01", "02"]}).attributes[0].values == ("01", "02")
    assert index(root, {"w": [0.5, 2.0, 1e20]}, form="parquet").attributes[0].values == ("0.5", "2", "1e+20")
    with pytest.raises(InputError, match="'w' should have finite numbers, got 'inf'"):
        index(root, {"w": [0.5, 2.0, float("inf")]}, form="parquet")


def test_angles_are_taken_round_the_circle(root):
    angles = ["0deg", "360deg", "400deg", "-20", "340°", "-0", "40.0"]
    catalog = index(root, {"angle": angles}, circular=["angle"])
    assert catalog.attributes[0].values == ("0deg", "40deg", "340deg")
    assert catalog.frame["angle"].tolist() == ["0deg", "0deg", "40deg", "340deg", "340deg", "0deg", "40deg"]
    assert index(root, {"angle": [-90, 0, 270]}, circular=["angle"]).attributes[0].values == ("0", "270")
    for wrong in ("inf", "north", "1e300"):
        with pytest.raises(InputError, match=f"angle is circular, but its value '{wrong}' is not an angle"):
            index(root, {"angle": ["0", wrong]}, circular=["angle"])


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_value_for_every_image_is_refused_or_binned(root, form):
    exposure = np.random.default_rng(0).normal(size=60).tolist()
    with pytest.raises(InputError, match=r"'exposure' has 60 values in 60 images: .*bins: {exposure: 5}"):
        index(root, {"exposure": exposure}, form=form)
    catalog = index(root, {"exposure": exposure}, form=form, bins={"exposure": 5})
    (attribute,) = catalog.attributes
    assert attribute.ordinal
    assert catalog.frame["exposure"].value_counts().tolist() == [12] * 5
    for value, number in zip(catalog.frame["exposure"], exposure, strict=True):
        low, _, high = value.partition(" to ")
        assert float(low) - 0.01 <= number <= float(high) + 0.01
    catalog.write(root / "run" / "catalog.parquet")
    assert Catalog.read(root / "run" / "catalog.parquet").attributes == catalog.attributes


def test_dates_names_and_angles_that_do_not_come_back(root):
    days = [f"2024-0{1 + row // 20}-{1 + row % 20:02}" for row in range(60)]
    with pytest.raises(InputError, match=r"'day' has 60 values in 60 images: .*bins: {day: 5}"):
        index(root, {"day": days})
    assert index(root, {"day": days}, bins={"day": 3}).attributes[0].values == (
        "2024-01-01 to 2024-01-20", "2024-02-01 to 2024-02-20", "2024-03-01 to 2024-03-20",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"'note' has 60 values in 60 images: .*group them first"):
        index(root, {"note": [f"n{row}" for row in range(60)]})
    angles = [row * 6.1 for row in range(60)]
    catalog = index(root, {"angle": angles}, circular=["angle"], bins={"angle": 4})
    assert catalog.attributes[0].values == ("0deg", "90deg", "180deg", "270deg")
    assert catalog.attributes[0].circular
    assert catalog.frame["angle"].iloc[-1] == "0deg"
    assert len(index(root, {"few": ["a", "b", "c"]}).attributes[0].values) == 3


def test_bins_of_few_values_are_the_values(root):
    catalog = index(root, {"w": [1, 1, 1, 1, 2, 9]}, bins={"w": 4})
    assert catalog.attributes[0].values == ("1", "2", "9") or catalog.attributes[0].values == ("1", "2 to 9")
    with pytest.raises(InputError, match="w is binned, but its value 'x' is not a finite number"):
        index(root, {"w": ["1", "x"]}, bins={"w": 4})
    with pytest.raises(ConfigError, match=r"bins\.w should be a number from 2 to 100, got 1"):
        index(root, {"w": [1, 2]}, bins={"w": 1})
    with pytest.raises(InputError, match="bins names 'v', which is no attribute"):
        index(root, {"w": [1, 2]}, bins={"v": 3})


def test_ordinal_values_are_in_order(root):
    catalog = index(root, {"size": ["10", "9", "10"]}, ordinal=["size"])
    assert catalog.attributes[0].values == ("9", "10")
    assert catalog.attributes[0].ordinal
    sizes = {"size": ["small", "large", "medium"]}
    with pytest.raises(InputError, match="size is ordinal, but its value 'small' is no number; give the order"):
        index(root, sizes, ordinal=["size"])
    catalog = index(root, sizes, ordinal={"size": ["small", "medium", "large", "huge"]})
    assert catalog.attributes[0].values == ("small", "medium", "large")
    with pytest.raises(InputError, match=r"size has values that ordinal\.size does not list: large"):
        index(root, sizes, ordinal={"size": ["small", "medium"]})
    with pytest.raises(ConfigError, match="size is both circular and ordinal"):
        index(root, {"size": [1, 2]}, ordinal=["size"], circular=["size"])


# --- the text of a CSV

TEXT = "path;wetter;hell\n00.jpg;naß;0,5\n01.jpg;trocken;1,25\n02.jpg;naß;0,5\n"


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"])
@pytest.mark.parametrize("before", ["", "sep"])
def test_separators_encodings_and_decimal_commas(root, separator, encoding, before):
    text = TEXT.replace(";", separator)
    text = f"sep={separator}\n{text}" if before else text
    catalog = csv(root, text.encode(encoding))
    assert catalog.frame["wetter"].tolist() == ["naß", "trocken", "naß"]
    assert catalog.frame["hell"].tolist() == ["0.5", "1.25", "0.5"]
    (said,) = catalog.notes
    assert "t.csv: read as " in said
    assert "separated by" in said
    assert said.endswith("numbers with decimal commas in hell")
    assert ("Latin-1" in said) == (encoding == "latin-1")
    assert ("UTF-16" in said) == (encoding == "utf-16")


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("path,w\na.jpg,x;y\nb.jpg,z", ["path", "w"]),
        ("path\na.jpg\n", ["path"]),
        ('path,"a;b;c"\nx,"1;2;3"\n', ["path", "a;b;c"]),
        ("path;a, b\nx;1\ny;2,3\n", ["path", "a, b"]),
        ("path,w\r\n\r\na.jpg,x\r\n", ["path", "w"]),
    ],
)
def test_what_separates_columns(text, columns):
    assert read_csv(text.encode())[0].column_names == columns


def test_an_unambiguous_table_says_nothing_and_thousands_stay(root):
    assert csv(root, b"path,w\n00.jpg,x\n01.jpg,y\n").notes == ()
    assert csv(root, b"path;w\n00.jpg;1,000\n01.jpg;2,500\n").frame["w"].tolist() == ["1,000", "2,500"]
    assert csv(root, b"path;w\n00.jpg;0,125\n01.jpg;2,500\n").frame["w"].tolist() == ["0.125", "2.5"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "an Excel workbook"),
        (b"\x1f\x8brest", "compressed by gzip"),
        (b"p\0a\0t\0h\0", "holds zero bytes: no text, or UTF-16 without its mark"),
        (b"path,w\n00.jpg,\x81\x8d\n", "neither UTF-8 nor Latin-1"),
        (b"path:w\n00.jpg:x\n", "its columns are path:w; columns are told apart by commas, semicolons, tabs or bars"),
        (b"PAR1 is no table", "cannot read table"),
    ],
)
def test_what_is_no_csv_is_named(root, content, message):
    with pytest.raises(InputError, match=message):
        csv(root, content)


def test_a_parquet_table_needs_no_suffix(root):
    pd.DataFrame({"path": ["00.jpg"], "w": ["x"]}).to_parquet(root / "labels.tab")
    assert len(Catalog.index(root, layout="table", table=root / "labels.tab")) == 1


def test_junk_is_of_many_people(root):
    columns = {"pid": [1, 1, -1, -1, 0, 0], "sex": list("mmmfmf"), "part": ["query", *["gallery"] * 5]}
    catalog = index(root, columns, identity_column="pid", part_column="part", identity_level=["sex"])
    assert catalog.frame["sex"].tolist() == list("mmmfmf")


def test_more_of_the_same_kinds(root):
    long = ["100000000000000000001", "100000000000000000002", "7"]
    assert index(root, {"pid": long}, identity_column="pid").frame["identity"].tolist() == [1, 2, 3]
    for options in ({"identity_column": "who", "first_identity": 0}, {"camera_column": "who", "first_camera": 0}):
        with pytest.raises(ConfigError, match="is of numbers, but who holds names"):
            index(root, {"who": ["a", "b"]}, **options)
    spelled = index(root, {"wet": ["True", "False", "TRUE"]})
    typed = index(root, {"wet": [True, False, True]}, form="parquet")
    assert spelled.attributes == typed.attributes
    assert spelled.frame["wet"].tolist() == typed.frame["wet"].tolist()
    with pytest.raises(InputError, match="it is JSON; write it as CSV or Parquet"):
        csv(root, b'{"path": "00.jpg"}')
