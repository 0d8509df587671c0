import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegpr import storage
from finegpr.attributes import FINEGPR, VIEWPOINT, WEATHER, Attribute
from finegpr.catalog import Catalog, parquet_schema
from finegpr.errors import ConfigError, InputError, StateError
from finegpr.layouts.listing import PART_TYPE, build_frame, rejections
from finegpr.subset import Subset

HAT = Attribute(name="hat", values=("yes", "no"), level="identity")


def make(num_rows: int = 300, *, seed: int = 0, with_unknown: bool = True) -> Catalog:
    random = np.random.default_rng(seed)
    identity = random.integers(-1, 20, num_rows)
    least = -1 if with_unknown else 0
    codes = {
        VIEWPOINT: random.integers(least, 36, num_rows),
        WEATHER: random.integers(least, 7, num_rows),
        HAT: identity % 2,
    }
    paths = pa.array([f"{row:04}/ü {row}.jpg" for row in range(num_rows)])
    part = pd.Categorical.from_codes(random.integers(0, 5, num_rows), dtype=PART_TYPE)
    frame = build_frame(paths, identity=identity, camera=random.integers(0, 7, num_rows), part=part, attributes=codes)
    return Catalog(
        frame=frame,
        root=Path("/data/somewhere"),
        title="MiniGPR",
        layout="table",
        attributes=tuple(codes),
        rejected=rejections([("a\n.jpg", "not a name"), ("b.jpg", "no such file")]),
        num_ignored=3,
    )


def test_round_trip_restores_everything(tmp_path):
    catalog = make()
    catalog.write(tmp_path / "catalog.parquet")
    read = Catalog.read(tmp_path / "catalog.parquet")
    pd.testing.assert_frame_equal(read.frame, catalog.frame)
    np.testing.assert_array_equal(read.identities, catalog.frame["identity"])
    assert read.identities.dtype == np.int64
    pd.testing.assert_frame_equal(read.rejected, catalog.rejected)
    for field in ("root", "title", "layout", "attributes", "num_ignored", "fingerprint"):
        assert getattr(read, field) == getattr(catalog, field)
    assert Catalog.read(tmp_path / "catalog.parquet", root=Path("/moved")).file_paths()[0] == Path(
        "/moved/0000/ü 0.jpg"
    )


@pytest.mark.parametrize("num_rows", [0, 1])
def test_tiny_catalogs_round_trip(tmp_path, num_rows):
    catalog = make(num_rows)
    catalog.write(tmp_path / "catalog.parquet")
    pd.testing.assert_frame_equal(Catalog.read(tmp_path / "catalog.parquet").frame, catalog.frame)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        make().write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_file_has_the_documented_schema(tmp_path):
    catalog = make()
    catalog.write(tmp_path / "catalog.parquet")
    schema = storage.read_table(tmp_path / "catalog.parquet").schema
    assert schema.remove_metadata() == parquet_schema(catalog.attributes)


def test_other_tables_and_formats_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "catalog.parquet"
    storage.write_table(path, pa.table({"path": ["a.jpg"]}))
    with pytest.raises(InputError, match="not a catalog"):
        Catalog.read(path)
    monkeypatch.setattr("finegpr.catalog.FORMAT", 99)
    make().write(path)
    monkeypatch.undo()
    with pytest.raises(StateError, match="format 99, expected 1"):
        Catalog.read(path)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../b", "C:\\x", "http://x/y.jpg", "a\0b", "..\\x", ""]
)
def test_a_catalog_that_points_outside_its_root_is_refused(tmp_path, name):
    catalog = make(2)
    catalog.frame.loc[1, "path"] = name
    catalog.write(tmp_path / "catalog.parquet")
    with pytest.raises(StateError, match="outside its root"):
        Catalog.read(tmp_path / "catalog.parquet")


def test_a_value_that_is_not_the_attributes_is_a_state_error(tmp_path):
    catalog = make(50)
    catalog.write(tmp_path / "catalog.parquet")
    table = storage.read_table(tmp_path / "catalog.parquet")
    other = pa.array(["sleet"] * 50).dictionary_encode().cast(pa.dictionary(pa.int16(), pa.string()))
    place = table.column_names.index("weather")
    storage.write_table(tmp_path / "catalog.parquet", table.set_column(place, table.schema.field(place), other))
    with pytest.raises(StateError, match="column weather holds values that are not of .*foggy"):
        Catalog.read(tmp_path / "catalog.parquet")


@pytest.mark.parametrize(
    ("num_rows", "start"), [(0, "8d115baf6287cd76"), (1, "ed0aba757d8da00a"), (40, "a8728eed8d1be00a")]
)
def test_fingerprint_is_that_of_earlier_versions(num_rows, start):
    assert make(num_rows).fingerprint.startswith(start)


def test_fingerprint_changes_with_rows_and_labels_only():
    catalog = make(40)
    same = replace(make(40), root=Path("/x"), title="y", rejected=rejections())
    assert same.fingerprint == catalog.fingerprint
    prints = {
        catalog.fingerprint,
        catalog.take(np.arange(39)).fingerprint,
        catalog.take(np.arange(40)[::-1]).fingerprint,
    }
    for column, value in (("path", "q.jpg"), ("identity", 77), ("camera", 77), ("hat", None), ("part", None)):
        changed = make(40)
        changed.frame.loc[5, column] = value
        prints.add(changed.fingerprint)
    assert len(prints) == 8


def test_select_keeps_the_chosen_values():
    catalog = make()
    chosen = catalog.select(Subset({"weather": ["foggy", "sunny"], "hat": ["no"]}))
    frame = catalog.frame
    expected = frame[frame["weather"].isin(["foggy", "sunny"]) & (frame["hat"] == "no")]
    assert 0 < len(chosen) < len(catalog)
    pd.testing.assert_frame_equal(chosen.frame, expected.reset_index(drop=True))


def test_select_leaves_unknown_values_out_only_when_the_attribute_is_named():
    catalog = make()
    unknown = int(catalog.frame["weather"].isna().sum())
    assert unknown > 0
    assert len(catalog.select(Subset({"weather": WEATHER.values}))) == len(catalog) - unknown
    assert len(catalog.select(Subset({}))) == len(catalog)


@pytest.mark.parametrize(("chosen", "message"), [({"wether": ["foggy"]}, "wether"), ({"weather": ["sleet"]}, "sleet")])
def test_select_and_mask_refuse_unknown_names(chosen, message):
    catalog = make()
    with pytest.raises(InputError, match=message):
        catalog.select(Subset(chosen))
    with pytest.raises(InputError, match=message):
        catalog.cells(["weather"]).mask(Subset(chosen))


def test_part_and_take():
    catalog = make()
    both = catalog.part("query", "gallery")
    assert set(both.frame["part"]) == {"query", "gallery"}
    assert len(both) + len(catalog.part("train", "validation_query", "validation_gallery")) == len(catalog)
    assert both.frame["part"].dtype == PART_TYPE
    with pytest.raises(InputError, match="did you mean 'gallery'"):
        catalog.part("galery")
    assert catalog.take([5, 2]).frame["path"].tolist() == ["0005/ü 5.jpg", "0002/ü 2.jpg"]
    assert len(catalog.take([])) == 0
    with pytest.raises(ValueError, match="mask"):
        catalog.take(np.ones(len(catalog), dtype=bool))


def test_attributes_by_level():
    catalog = make()
    assert catalog.image_attributes == (VIEWPOINT, WEATHER)
    assert catalog.identity_attributes == (HAT,)


def test_a_frame_with_other_columns_is_refused():
    catalog = make(2)
    with pytest.raises(ValueError, match="columns should be"):
        Catalog(
            frame=catalog.frame.drop(columns="hat"), root=catalog.root, title="x", layout="table",
            attributes=catalog.attributes, rejected=rejections(),
        )  # fmt: skip


def test_catalog_survives_pickling_between_processes():
    catalog = make()
    assert pickle.loads(pickle.dumps(catalog)).fingerprint == catalog.fingerprint


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([["viewpoint", "weather"], ["weather", "viewpoint", "hat"], ["hat"]]),
    st.sampled_from([0, 1000]),
)
def test_cells_agree_with_groupby(seed, names, counted_per_row):
    catalog = make(60, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finegpr.catalog._COUNTED_PER_ROW", counted_per_row)
        cells = catalog.cells(names)
    assert cells.of_row.dtype == cells.images.dtype == np.int64
    assert cells.of_row.shape == (60,)
    frame = catalog.frame[names]
    known = frame.notna().all(axis=1).to_numpy()
    assert cells.codes.dtype == np.int16
    assert cells.codes.shape == (len(cells), len(names))
    assert ((cells.of_row >= 0) == known).all()
    pd.testing.assert_frame_equal(
        cells.frame.iloc[cells.of_row[known]].reset_index(drop=True), frame[known].reset_index(drop=True)
    )
    assert (cells.images == np.bincount(cells.of_row[known], minlength=len(cells))).all()
    assert (cells.images > 0).all()
    assert [tuple(row) for row in cells.codes] == sorted({tuple(row) for row in cells.codes})


def test_cell_mask_selects_the_same_rows_as_select():
    catalog = make()
    subset = Subset({"weather": ["foggy"], "viewpoint": ["0deg", "90deg", "180deg", "350deg"]})
    cells = catalog.cells(["viewpoint", "weather"])
    rows = np.flatnonzero(np.append(cells.mask(subset), False)[cells.of_row])
    assert len(rows) > 0
    assert catalog.take(rows).fingerprint == catalog.select(subset).fingerprint


def test_no_attributes_give_one_cell():
    cells = make().cells([])
    assert (cells.codes.shape, cells.images.tolist(), len(cells.frame)) == ((1, 0), [300], 1)


def test_cells_refuse_unknown_repeated_and_too_many():
    catalog = make()
    with pytest.raises(InputError, match="no attribute 'sky'"):
        catalog.cells(["sky"])
    with pytest.raises(InputError, match="distinct"):
        catalog.cells(["weather", "weather"])


def test_all_cells_of_the_full_set_are_numbered_without_gaps():
    codes = np.stack(np.meshgrid(*(np.arange(size) for size in (36, 7, 7, 9)), indexing="ij"), -1).reshape(-1, 4)
    codes = np.random.default_rng(0).permutation(codes)
    attributes = dict(zip(FINEGPR[:4], codes.T, strict=True))
    frame = build_frame(
        pa.array([str(row) for row in range(len(codes))]), identity=np.ones(len(codes), np.int64), attributes=attributes
    )
    catalog = Catalog(
        frame=frame, root=Path("/"), title="x", layout="table", attributes=tuple(attributes), rejected=rejections()
    )
    cells = catalog.cells([attribute.name for attribute in attributes])
    assert len(cells) == 15_876
    assert (cells.codes[cells.of_row] == codes).all()


def test_index_names_unknown_layouts_and_options(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'finegpr'"):
        Catalog.index(tmp_path, layout="fingpr")
    with pytest.raises(ConfigError, match="no option 'identity_attribute' .*did you mean 'identity_attributes'"):
        Catalog.index(tmp_path, layout="finegpr", identity_attribute="x")
    with pytest.raises(ConfigError, match="needs the option 'table'"):
        Catalog.index(tmp_path, layout="table")


def test_the_title_is_given_or_comes_from_the_world_the_layout_or_the_folder(tmp_path, monkeypatch):
    root = tmp_path / "photos"
    root.mkdir()
    (root / "0001_c01_w01_l01_p01.jpg").touch()
    assert Catalog.index(root, layout="finegpr").title == "photos in FineGPR's layout"
    with monkeypatch.context() as patch:
        patch.setattr("finegpr.layouts.finegpr._PUBLISHED", (1,))
        assert Catalog.index(root, layout="finegpr").title == "FineGPR"
    assert Catalog.index(root, layout="folder").title == "photos"
    storage.write_json(root / "world.json", {"title": "MiniGPR"})
    assert Catalog.index(root, layout="finegpr").title == "MiniGPR"
    assert Catalog.index(root, layout="finegpr", title="Mine").title == "Mine"
    storage.write_json(root / "world.json", {"name": "MiniGPR"})
    with pytest.raises(InputError, match=r"world\.json should hold"):
        Catalog.index(root, layout="finegpr")
