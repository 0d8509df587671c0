import inspect
import os
import re
import shutil
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegpr.attributes import FINEGPR, IDENTITY_ATTRIBUTES, ILLUMINATION, SCENE, VIEWPOINT, WEATHER
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, InputError
from finegpr.layouts import LAYOUTS, finegpr, listing, market1501
from finegpr.layouts.listing import PARTS, check_rejected, unsafe_paths
from finegpr.layouts.user_table import MISSING
from finegpr.layouts.walk import IMAGE_SUFFIXES, Files, walk


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def name(identity: int = 1, camera: int = 1, weather: int = 1, illumination: int = 1, scene: int = 1) -> str:
    return f"{identity:04}_c{camera:02}_w{weather:02}_l{illumination:02}_p{scene:02}.jpg"


def nested(identity: int = 1, **codes: int) -> str:
    return f"{identity:04}/{name(identity, **codes)}"


def many(num_images: int) -> list[str]:
    return [nested(1 + row // 36, camera=1 + row % 36) for row in range(num_images)]


# --- what every layout owes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contract(tmp_path, layout):
    plant(tmp_path, nested(2), nested(1), "bounding_box_train/0002_c1s1_000451_03.jpg")
    (tmp_path / "labels.csv").write_text(f"path,weather\n{nested(2)},foggy\n{nested(1)},sunny\n")
    options = {"table": "labels.csv"} if layout == "table" else {}
    if layout == "finegpr":
        (tmp_path / "bounding_box_train/0002_c1s1_000451_03.jpg").unlink()
    catalog = Catalog.index(tmp_path, layout=layout, **options)
    assert len(catalog) > 0
    assert catalog.root == tmp_path
    assert catalog.layout == layout
    paths = catalog.frame["path"].tolist()
    assert paths == sorted(paths)
    assert isinstance(catalog.frame.index, pd.RangeIndex)
    assert (catalog.frame.dtypes[["identity", "camera"]] == "int64").all()
    assert all(path.is_file() for path in catalog.file_paths())
    for attribute in catalog.attributes:
        assert tuple(catalog.frame[attribute.name].cat.categories) == attribute.values
    catalog.write(tmp_path / "run" / "catalog.parquet")
    assert Catalog.read(tmp_path / "run" / "catalog.parquet").fingerprint == catalog.fingerprint
    parameters = list(inspect.signature(LAYOUTS[layout]).parameters.values())
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[1:])

    with pytest.raises(InputError, match="no folder"):
        Catalog.index(tmp_path / "nowhere", layout=layout, **options)
    with pytest.raises(InputError, match="is not a folder"):
        Catalog.index(tmp_path / "labels.csv", layout=layout, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no images|has none of the folders|of 2 files|none of the 2 files"):
        Catalog.index(tmp_path / "empty", layout=layout, **({"table": tmp_path / "labels.csv"} if options else {}))


# --- walking


def test_junk_is_counted_and_the_order_is_bytewise(tmp_path):
    plant(tmp_path, "b.jpg", "B.PNG", "é.jpg", "a b/ü\n🙂.jpg", "z.jpeg", "\u05d0.jpg")
    plant(tmp_path, ".hidden.jpg", "._a.jpg", "Thumbs.db", ".git/x.jpg", "__MACOSX/a.jpg", "labels.csv", "a/readme.txt")
    os.mkfifo(tmp_path / "pipe.jpg")
    files = walk(tmp_path)
    assert files.images == sorted(files.images, key=str.encode)
    assert set(files.images) == {"b.jpg", "B.PNG", "é.jpg", "a b/ü\n🙂.jpg", "z.jpeg", "\u05d0.jpg"}
    assert files.rejected == []
    assert files.num_ignored == 8


def test_links_loops_and_strange_names(tmp_path):
    root = plant(tmp_path / "root", "real/a.jpg", "c.jpg")
    plant(tmp_path, "outside/secret.jpg")
    for link, to in {
        "real/loop": "..",
        "secret.jpg": "../outside/secret.jpg",
        "inside.jpg": "real/a.jpg",
        "broken.jpg": "nothing",
        "self.jpg": "self.jpg",
    }.items():
        (root / link).symlink_to(to)
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.jpg")).touch()
    plant(root, "video.xyz")
    files = walk(root)
    assert files.images == ["c.jpg", "inside.jpg", "real/a.jpg"]
    assert dict(files.rejected) == {
        "secret.jpg": "link leaves the root",
        "broken.jpg": "broken link",
        "self.jpg": "broken link",
        "\\xff.jpg": "name is not valid UTF-8; rename the file",
        "video.xyz": "not the name of an image file",
    }
    assert files.num_ignored == 1


def test_a_root_that_is_itself_a_link_is_fine(tmp_path):
    plant(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert Catalog.index(tmp_path / "link", layout="folder").frame["path"].tolist() == ["a.jpg"]


def test_a_folder_that_cannot_be_read_is_no_single_file(tmp_path, monkeypatch):
    plant(tmp_path, "a/x.jpg", *(f"b/{row}.jpg" for row in range(100)), "lost+found/z.jpg")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name in ("a", "lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"1 folders stand for an unknown number of images: a \(cannot be read: Perm"):
        Catalog.index(tmp_path, layout="folder")
    (tmp_path / "a").rename(tmp_path / ".a")
    assert len(walk(tmp_path).images) == 100


@pytest.mark.parametrize("link", ["../outside", "..", "../gone", ".hidden", "masks/0001"])
def test_a_link_to_a_folder_that_is_not_listed_is_no_single_file(tmp_path, link):
    root = plant(tmp_path / "root", *many(100), ".hidden/a.jpg", "masks/0001/a.jpg")
    plant(tmp_path, "outside/a.jpg")
    (root / "0001" / "inside").symlink_to("../0002")
    assert len(Catalog.index(root, layout="finegpr")) == 100
    (root / "9999").symlink_to(link)
    with pytest.raises(InputError, match=r"1 folders stand for an unknown number of images: 9999 \(.*link"):
        Catalog.index(root, layout="finegpr")


def test_a_folder_with_a_strange_name_is_no_single_file(tmp_path):
    plant(tmp_path, "a.jpg", "b.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).mkdir()
    with pytest.raises(InputError, match=r"unknown number of images: \\xff \(name is not valid UTF-8\)"):
        walk(tmp_path)


def test_names_that_are_unsafe_elsewhere_are_rejected(tmp_path):
    plant(tmp_path, "C:x.jpg", "a\\..\\x.jpg", *(f"{row}.jpg" for row in range(40)))
    catalog = Catalog.index(tmp_path, layout="folder")
    assert len(catalog) == 40
    assert sorted(catalog.rejected["path"]) == ["C:x.jpg", "a\\..\\x.jpg"]


UNSAFE = ["", "..", "../a", "a/..", "a/../b", "/a", "\\a", "\\\\host\\x", "..\\a", "a\\..\\b", "c:a", "C:\\a", "Z:/a",
          "http://x/a.jpg", "s3://b/k", "file:///etc/passwd", "a\0.jpg"]  # fmt: skip
SAFE = [
    "a.jpg",
    "a/b.jpg",
    "..a",
    "a..",
    "a..b/c",
    "...",
    "a b/ü.jpg",
    "a\nb.jpg",
    "~/a.jpg",
    "ab:c.jpg",
    "a//b",
    "./a",
]


def test_unsafe_paths():
    assert unsafe_paths(pa.array(UNSAFE)).all()
    assert not unsafe_paths(pa.array(SAFE)).any()


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="ab./\\:\0é", max_size=5), max_size=6),
    st.integers(1, 9),
    st.integers(0, 3),
    st.sampled_from([pa.string(), pa.large_string()]),
)
def test_what_is_seen_at_a_glance_to_be_safe_is_safe(paths, num_bytes, start, type_):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_BYTES_AT_A_TIME", num_bytes)
        got = unsafe_paths(pa.array(paths, type_).slice(start)).tolist()
    assert got == [re.search(listing._UNSAFE.replace("$", r"\Z"), path) is not None for path in paths[start:]]


@given(st.lists(st.sampled_from(["..", ".", "a", "b.jpg", ""]), max_size=6).map("/".join))
def test_paths_called_safe_stay_inside(path):
    resolved = os.path.normpath(f"/root/of/data/{path}")
    if not unsafe_paths(pa.array([path]))[0]:
        assert resolved == "/root/of/data" or resolved.startswith("/root/of/data/")


def test_which_suffixes_are_read_is_said(tmp_path):
    for number, suffix in enumerate(IMAGE_SUFFIXES):
        plant(tmp_path, f"{number}{suffix}", f"{number}{suffix.upper()}")
    assert len(walk(tmp_path).images) == 2 * len(IMAGE_SUFFIXES)
    plant(tmp_path / "others", "a.heic", "b.ppm", "c")
    with pytest.raises(InputError, match=r"none of the 3 files .* names of images end in \.avif, .*\.jfif, .*\.webp"):
        Catalog.index(tmp_path / "others", layout="folder")


# --- too many misfits


@pytest.mark.parametrize(
    ("num_good", "num_bad", "is_refused"),
    [(190, 20, False), (400, 20, False), (400, 21, True), (9, 1, False), (8, 1, True), (1, 1, True)],
)
def test_misfits_up_to_the_limit_are_listed(tmp_path, num_good, num_bad, is_refused):
    plant(tmp_path, *many(num_good), *(f"0001/bad{row:02}.jpg" for row in range(num_bad)))
    if is_refused:
        with pytest.raises(InputError, match=rf"^{num_bad} of {num_good + num_bad} files .*bad00.jpg: not a name"):
            Catalog.index(tmp_path, layout="finegpr")
    else:
        catalog = Catalog.index(tmp_path, layout="finegpr")
        assert (len(catalog), len(catalog.rejected)) == (num_good, num_bad)


def test_the_limit_grows_with_large_sets(monkeypatch, tmp_path):
    names = [f"{row:07}.jpg" for row in range(30_000)]
    for num_bad, is_refused in ((30, False), (31, True)):
        files = Files(images=names[num_bad:], rejected=[(bad, "why") for bad in names[:num_bad]], num_ignored=0)
        monkeypatch.setattr("finegpr.layouts.folder.walk", lambda *_, files=files: files)
        listing = LAYOUTS["folder"](tmp_path)
        if is_refused:
            with pytest.raises(InputError, match="at most 30 may"):
                check_rejected(listing, root=tmp_path, layout="folder")
        else:
            check_rejected(listing, root=tmp_path, layout="folder")


def test_a_wrong_layout_shows_what_was_got_and_expected(tmp_path):
    plant(tmp_path, "bounding_box_train/0002_c1s1_000451_03.jpg")
    with pytest.raises(
        InputError, match=r"fits layout finegpr: got 'bounding_box_train/0002_c1s1.*expected .*0001_c01_w01"
    ):
        Catalog.index(tmp_path, layout="finegpr")
    plant(tmp_path / "b", nested())
    with pytest.raises(InputError, match="none of the folders bounding_box_train.* got 0001"):
        Catalog.index(tmp_path / "b", layout="market1501")
    with pytest.raises(InputError, match="holds no images"):
        Catalog.index(plant(tmp_path / "c", "notes.txt"), layout="folder")


# --- FineGPR


def test_finegpr_codes_become_values(tmp_path):
    plant(tmp_path, nested(1, camera=1), nested(2, camera=28, weather=4, illumination=7, scene=9), nested(3, camera=36))
    plant(tmp_path, nested(12345, camera=10))
    catalog = Catalog.index(tmp_path, layout="finegpr")
    assert catalog.attributes == FINEGPR[:4]
    assert catalog.frame["viewpoint"].tolist() == ["90deg", "0deg", "80deg", "180deg"]
    assert catalog.frame["identity"].tolist() == [1, 2, 3, 12345]
    assert catalog.frame.loc[1, ["weather", "illumination", "scene"]].tolist() == ["foggy", "night", "urban9"]
    assert set(catalog.frame["part"]) == {"train"}
    assert catalog.frame["camera"].tolist() == [1, 28, 36, 10]


def test_finegpr_flat_form_gives_the_same_labels(tmp_path):
    plant(tmp_path / "nested", nested(1, camera=5), nested(2, weather=3))
    plant(tmp_path / "flat", name(1, camera=5), name(2, weather=3))
    one, other = (Catalog.index(tmp_path / form, layout="finegpr").frame for form in ("nested", "flat"))
    pd.testing.assert_frame_equal(one.drop(columns="path"), other.drop(columns="path"))
    plant(tmp_path / "flat", nested(1, camera=5))
    with pytest.raises(InputError, match="1 images repeat the labels of another"):
        Catalog.index(tmp_path / "flat", layout="finegpr")


@pytest.mark.parametrize("flags_per_row", [0, 10**6])
def test_finegpr_names_that_repeat_labels_are_named(tmp_path, monkeypatch, flags_per_row):
    monkeypatch.setattr(finegpr, "_FLAGS_PER_ROW", flags_per_row)
    plant(tmp_path, *many(60))
    assert len(Catalog.index(tmp_path, layout="finegpr")) == 60
    plant(tmp_path, nested(1, camera=7).replace("jpg", "png"), "00002/00002_c09_w01_l01_p01.jpg")
    with pytest.raises(InputError, match=r"2 images repeat the labels of another .*: 0001/0001_c07_w01_l01_p01\.png, "):
        Catalog.index(tmp_path, layout="finegpr")


def test_finegpr_rejects_impossible_names_with_a_reason(tmp_path):
    bad = {
        nested(1, camera=37): "unknown viewpoint code; known are 01 to 36",
        nested(1, camera=0): "unknown viewpoint code; known are 01 to 36",
        nested(1, weather=8): "unknown weather code; known are 01 to 07",
        nested(1, illumination=0): "unknown illumination code; known are 01 to 07",
        nested(1, scene=10): "unknown scene code; known are 01 to 09",
        "0001/" + name(2, camera=2): "lies in the folder of another identity",
        name(0): "its identity is 0000; identities count from 0001",
        "0001/deep/" + name(): f"not a name such as {finegpr.EXAMPLE}",
        nested() + ".jpg": f"not a name such as {finegpr.EXAMPLE}",
    }
    plant(tmp_path, *many(200), *bad, "masks/0001/whatever.png", "keypoints/a.png")
    catalog = Catalog.index(tmp_path, layout="finegpr")
    assert dict(zip(catalog.rejected["path"], catalog.rejected["reason"], strict=True)) == bad
    assert catalog.num_ignored == 2


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_finegpr_mutated_names_are_read_as_written_or_rejected(tmp_path, monkeypatch, data):
    text = nested(7, camera=12, weather=3, illumination=5, scene=2)
    place = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 3))
    inserted = data.draw(st.text(alphabet="0123456789cwlp_/. \n٣é-jpgJPG", max_size=3))
    mutant = text[:place] + inserted + text[place + removed :]
    monkeypatch.setattr(finegpr, "walk", lambda *_, **__: Files(images=[mutant], rejected=[], num_ignored=0))
    listing = finegpr.index(tmp_path)
    assert len(listing.frame) + len(listing.rejected) == 1
    if len(listing.frame):
        row = listing.frame.iloc[0]
        codes = [
            (VIEWPOINT.index(row["viewpoint"]) - 9) % 36 + 1,
            WEATHER.index(row["weather"]) + 1,
            ILLUMINATION.index(row["illumination"]) + 1,
            SCENE.index(row["scene"]) + 1,
        ]
        read = PurePosixPath(name(int(row["identity"]), *codes))
        written = PurePosixPath(mutant)
        assert written.stem == read.stem.rjust(len(written.stem), "0")
        assert written.suffix.lower() in (".jpg", ".jpeg", ".png")
        assert written.parent.name == "" or int(written.parent.name) == row["identity"]


def identity_csv(root: Path, text: str) -> Path:
    plant(root, nested(1), nested(2), nested(2, camera=2))
    (root / "attributes.csv").write_bytes(text.encode())
    return root


@pytest.mark.parametrize("prefix", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_identity_attributes_by_name_or_code(tmp_path, prefix, line_end):
    rows = ["hat,identity,upper_colour", "02,2,blue", "yes,0001,01", "no,3,09"]
    catalog = Catalog.index(identity_csv(tmp_path, prefix + line_end.join(rows) + line_end), layout="finegpr")
    assert [attribute.name for attribute in catalog.attributes[4:]] == ["hat", "upper_colour"]
    assert all(attribute in IDENTITY_ATTRIBUTES for attribute in catalog.attributes[4:])
    assert catalog.frame["hat"].tolist() == ["yes", "no", "no"]
    assert catalog.frame["upper_colour"].tolist() == ["black", "blue", "blue"]


def test_identity_attributes_from_parquet_elsewhere(tmp_path):
    plant(tmp_path / "root", nested(1), nested(2))
    pd.DataFrame({"identity": [1, 2], "age": pd.Categorical(["adult", "older"]), "bag": [1, 2]}).to_parquet(
        tmp_path / "people.parquet"
    )
    catalog = Catalog.index(tmp_path / "root", layout="finegpr", identity_attributes=tmp_path / "people.parquet")
    assert catalog.frame["age"].tolist() == ["adult", "older"]
    assert catalog.frame["bag"].tolist() == ["yes", "no"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("identity,hat\n1,yes\n", r"lacks 1 of 2 identities: 0002"),
        ("identity,hat\n1,yes\n2,maybe\n", r"1 rows are wrong, 2: hat should be one of yes, no .*got 'maybe'"),
        ("identity,hat\n1,yes\n2,03\n", r"rows are wrong, 2: hat .*got '03'"),
        ("identity,hat\n1,yes\n2,\n", r"'hat' has 1 missing values, rows 2"),
        ("identity,hatt\n1,yes\n", r"unknown column 'hatt' \(did you mean 'hat'"),
        ("person,hat\n1,yes\n", r"unknown column 'person'"),
        ("hat\nyes\n", r"no column 'identity'"),
        ("identity,hat\n1,yes\n1,no\n2,no\n", r"identities given twice: 1"),
        ("identity,hat\nx,yes\n2,no\n", r"1 rows are wrong, 1: identity should be an integer, got 'x'"),
        ("identity,hat\n1,yes,no\n", r"cannot read table .*Expected 2 columns, got 3"),
        ("identity,hat,hat\n1,yes,no\n", r"columns named twice: hat"),
        (",identity\n0,1\n", r"column 1 has no name"),
        ("identity,hat\n", r"has no rows"),
        ("", r"has no header"),
    ],
)
def test_wrong_identity_tables_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        Catalog.index(identity_csv(tmp_path, text), layout="finegpr")


def test_tables_that_cannot_be_read(tmp_path):
    plant(tmp_path, nested(1))
    with pytest.raises(InputError, match="no table people.csv"):
        Catalog.index(tmp_path, layout="finegpr", identity_attributes="people.csv")
    for file, content in (("binary.csv", b"identity,hat\n1,\0\xfe\n"), ("fake.parquet", b"identity\n1\n")):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(InputError, match=rf"cannot read table .*{file}"):
            Catalog.index(tmp_path, layout="finegpr", identity_attributes=file)


# --- Market-1501

TRAIN = "bounding_box_train/0002_c1s1_000451_03.jpg"


def test_market_parts_cameras_and_junk(tmp_path):
    expected = {
        TRAIN: (2, 1, "train"),
        "bounding_box_test/-1_c3s2_000451_00.jpg": (-1, 3, "gallery"),
        "bounding_box_test/0000_c6s1_000451_01.jpg": (0, 6, "gallery"),
        "bounding_box_test/0003_c6s1_000451_01.jpg.jpg": (3, 6, "gallery"),
        "query/0003_c2s1_000451_00.JPG": (3, 2, "query"),
        "validation_query/0004_c2s1_000451_00.png": (4, 2, "validation_query"),
        "validation_gallery/0004_c1s1_000451_00.jpg": (4, 1, "validation_gallery"),
    }
    plant(tmp_path, *expected, "bounding_box_train/Thumbs.db", "readme.txt", "gt_bbox/0002_c1s1_000451_00.jpg")
    catalog = Catalog.index(tmp_path, layout="market1501")
    frame = catalog.frame
    got = {row.path: (row.identity, row.camera, row.part) for row in frame.itertuples()}
    assert got == expected
    assert frame["path"].tolist() == sorted(expected)
    assert (catalog.attributes, catalog.num_ignored, catalog.notes) == ((), 1, ())
    assert tuple(frame["part"].cat.categories) == PARTS


def test_market_works_with_training_images_alone_and_duke_names(tmp_path):
    plant(tmp_path, "bounding_box_train/0001_c2_f0046182.jpg")
    assert Catalog.index(tmp_path, layout="market1501").frame["camera"].tolist() == [2]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("bounding_box_train/-1_c1s1_000001_00.jpg", "junk (-1) or distractor (0000) outside a gallery"),
        ("query/0000_c1s1_000001_00.jpg", "junk (-1) or distractor (0000) outside a gallery"),
        ("query/0900_c0s1_000001_00.jpg", "camera 0; cameras count from 1"),
        ("query/-2_c1s1_000001_00.jpg", f"not a name such as {market1501.EXAMPLE}"),
        ("query/0900_cam1.jpg", f"not a name such as {market1501.EXAMPLE}"),
    ],
)
def test_market_misfits(tmp_path, file, reason):
    plant(tmp_path, file, *(f"bounding_box_train/0002_c1s1_{row:06}_00.jpg" for row in range(20)))
    rejected = Catalog.index(tmp_path, layout="market1501").rejected
    assert rejected.to_dict("records") == [{"path": file, "reason": reason}]


@pytest.mark.parametrize("folder", ["query", "bounding_box_test", "validation_query", "validation_gallery"])
def test_an_identity_in_training_and_elsewhere_is_leakage(tmp_path, folder):
    plant(tmp_path, TRAIN, f"{folder}/0002_c2s1_000001_00.jpg")
    with pytest.raises(InputError, match=r"1 identities are in both train and .*: 2;"):
        Catalog.index(tmp_path, layout="market1501")


@given(
    st.integers(0, 1501),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(0, 999_999),
    st.sampled_from([".jpg", ".jpg.jpg"]),
)
def test_market_names_are_read_as_written(identity, camera, sequence, frame, suffix):
    text = f"/{identity:04}_c{camera}s{sequence}_{frame:06}_01{suffix}"
    match = pa.compute.extract_regex(pa.array([text]), market1501._NAME)[0].as_py()
    assert match == {"identity": f"{identity:04}", "camera": str(camera)}


@pytest.mark.parametrize(
    ("num", "title"),
    [
        ((12_936, 3_368, 19_732), "Market-1501"),
        ((12_936, 3_368, 15_913), "Market-1501"),
        ((12_936, 0, 0), "Market-1501"),
        ((16_522, 2_228, 17_661), "DukeMTMC-reID"),
        ((12_936, 2_228, 19_732), "root in Market-1501's layout"),
        ((12_935, 3_368, 19_732), "root in Market-1501's layout"),
        ((1, 1, 1), "root in Market-1501's layout"),
    ],
)
def test_a_market_folder_is_called_by_its_counts(tmp_path, monkeypatch, num, title):
    root = tmp_path / "root"
    folders = ("bounding_box_train", "query", "bounding_box_test")
    for folder in folders:
        (root / folder).mkdir(parents=True)

    def listed(_, *, below, one_level):
        row = folders.index(below)
        names = [f"{below}/{1 + row:04}_c1s1_{image:06}_00.jpg" for image in range(num[row])]
        return Files(images=names, rejected=[], num_ignored=0, deeper=() if one_level else ("all",))

    monkeypatch.setattr(market1501, "walk", listed)
    assert Catalog.index(root, layout="market1501").title == title
    assert Catalog.index(root, layout="market1501", title="Mine").title == "Mine"


def test_market_images_lie_in_the_part_folders_themselves(tmp_path):
    plant(tmp_path, TRAIN, "query/0003_c2s1_000451_00.jpg", "gt_bbox/a.jpg", "querys/b.jpg")
    once = Catalog.index(tmp_path, layout="market1501")
    shutil.copytree(tmp_path / "bounding_box_train", tmp_path / "bounding_box_train/backup")
    (tmp_path / "query/again").symlink_to("../bounding_box_train")
    twice = Catalog.index(tmp_path, layout="market1501")
    pd.testing.assert_frame_equal(once.frame, twice.frame)
    assert len(twice.rejected) == 0
    assert "bounding_box_train/backup, query/again" in twice.notes[0]
    assert [note.rpartition(": ")[2] for note in once.notes] == ["querys"]
    plant(tmp_path / "nested", "bounding_box_train/0002/0002_c1s1_000451_03.jpg")
    with pytest.raises(InputError, match=r"bounding_box_train holds no images itself, only folders \(.*0002\)"):
        Catalog.index(tmp_path / "nested", layout="market1501")


@pytest.mark.parametrize("to", ["elsewhere", "../elsewhere", "bounding_box_train", "gone"])
def test_a_part_that_is_a_link_or_no_folder_is_refused(tmp_path, to):
    root = plant(tmp_path / "root", TRAIN, "elsewhere/0003_c2s1_000451_00.jpg")
    plant(tmp_path, "elsewhere/0003_c2s1_000451_00.jpg")
    (root / "query").symlink_to(to)
    with pytest.raises(InputError, match=r"query is a link, and links to folders are not followed"):
        Catalog.index(root, layout="market1501")
    (root / "query").unlink()
    (root / "query").touch()
    with pytest.raises(InputError, match=r"query is not a folder"):
        Catalog.index(root, layout="market1501")


# --- tables


def index_table(root: Path, text: str, **options: object) -> Catalog:
    plant(root, "a.jpg", "b/c.jpg", "b/ü d.jpg")
    (root / "t.csv").write_text(text, encoding="utf-8", newline="")
    return Catalog.index(root, layout="table", table="t.csv", **options)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("prefix", ["", "\ufeff"])
def test_table_reads_labels(tmp_path, prefix, line_end):
    rows = [
        "file,who,cam,split,angle,size,sex",
        "b/ü d.jpg,tom,K2,query,270deg,10,m",
        "a.jpg,ann,K1,train,0deg,9,f",
        '"./b//c.jpg",ann,K2,train, 90deg,10,f',
    ]
    catalog = index_table(
        tmp_path, prefix + line_end.join(rows), path_column="file", identity_column="who", camera_column="cam",
        part_column="split", identity_level=["sex"], circular=["angle"],
    )  # fmt: skip
    frame = catalog.frame
    assert frame["path"].tolist() == ["a.jpg", "b/c.jpg", "b/ü d.jpg"]
    assert frame["identity"].tolist() == [1, 1, 2]
    assert frame["camera"].tolist() == [1, 2, 2]
    assert frame["part"].tolist() == ["train", "train", "query"]
    angle, size, sex = catalog.attributes
    assert angle.values == ("0deg", "90deg", "270deg")
    assert angle.circular
    assert size.values == ("9", "10")
    assert sex.level == "identity"
    assert frame["angle"].tolist() == ["0deg", "90deg", "270deg"]
    assert frame["size"].tolist() == ["9", "10", "10"]


def test_table_from_parquet_with_types(tmp_path):
    plant(tmp_path, "a.jpg", "b.jpg")
    frame = pd.DataFrame(
        {"path": ["a.jpg", "b.jpg"], "pid": [7, -1], "cam": [3.0, 0.0], "part": ["query", "gallery"],
         "wet": [True, False], "light": pd.Categorical(["dim", "dim"]), "speed": [0.5, 2.0]}, index=[5, 9],
    )  # fmt: skip
    frame.to_parquet(tmp_path / "t.parquet")
    catalog = Catalog.index(
        tmp_path, layout="table", table="t.parquet", identity_column="pid", camera_column="cam", part_column="part",
        first_camera=1,
    )  # fmt: skip
    assert catalog.frame["identity"].tolist() == [7, -1]
    assert catalog.frame["camera"].tolist() == [3, 0]
    values = {attribute.name: attribute.values for attribute in catalog.attributes}
    assert values == {"wet": ("false", "true"), "light": ("dim",), "speed": ("0.5", "2")}


def test_without_an_identity_column_every_image_is_its_own(tmp_path):
    catalog = index_table(tmp_path, "path,weather\nb/c.jpg,wet\na.jpg,dry\n")
    assert sorted(catalog.frame["identity"]) == [1, 2]


def test_absolute_paths_inside_the_root_become_relative(tmp_path):
    assert index_table(tmp_path, f"path\n{tmp_path}/b/c.jpg\n").frame["path"].tolist() == ["b/c.jpg"]


@pytest.mark.parametrize("path", [path for path in UNSAFE if path not in ("", "a\0.jpg")] + ["/etc/passwd"])
def test_table_paths_must_stay_inside(tmp_path, path):
    with pytest.raises(InputError, match=r"1 rows are wrong, 2: path should be a path inside"):
        index_table(tmp_path, f"path,w\na.jpg,1\n{path},1\n")


def test_table_links_out_of_the_root_are_rejected(tmp_path):
    root = tmp_path / "root"
    plant(tmp_path, "outside/s.jpg")
    plant(root, *(f"{row}.jpg" for row in range(40)))
    (root / "link.jpg").symlink_to("../outside/s.jpg")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "folder").symlink_to("../outside")
    names = [*(f"{row}.jpg" for row in range(40)), "link.jpg", "self.jpg", "folder/s.jpg", "gone/x.jpg"]
    (root / "t.csv").write_text("path\n" + "\n".join(names) + "\n")
    catalog = Catalog.index(root, layout="table", table="t.csv")
    assert len(catalog) == 40
    assert dict(catalog.rejected.itertuples(index=False)) == {
        "link.jpg": "link leaves the root",
        "self.jpg": "no such file",
        "folder/s.jpg": "no such file",
        "gone/x.jpg": "no such file",
    }


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file\na.jpg\n", {}, r"no column 'path'.*its columns are file"),
        ("path\na.jpg\n", {"identity_column": "pth"}, r"no column 'pth' \(did you mean 'path'"),
        ("path,w\na.jpg,x\nb/c.jpg,\n", {}, r"'w' has 1 missing values, rows 2"),
        (
            "path,w\n" + "".join(f"{row}.jpg,\n" for row in range(15)),
            {},
            r"15 missing values, rows 1, 2, .*, 10, \.\.\.",
        ),
        ("path\na.jpg\n./a.jpg\n", {}, r"1 rows are wrong, 2: path repeats"),
        ("path\na.jpg\nx.jpg\n", {}, r"1 of 2 files .* x\.jpg: no such file"),
        ("path,w\na.jpg,x\n", {"circular": ["w"]}, r"attribute w is circular, but its value 'x'"),
        ("path,w\na.jpg,x\n", {"circular": ["v"]}, r"circular names 'v', which is no attribute"),
        ("path,w\na.jpg,x\n", {"attributes": ["w"], "identity_level": ["path"]}, r"identity_level names 'path'"),
        ("path,p\na.jpg,x\n", {"part_column": "p"}, r"p should be one of train, query, .*got 'x'"),
        ("path,p\na.jpg,-2\n", {"identity_column": "p"}, r"p should be at least -1, got '-2'"),
        ("path,p\na.jpg,-1\n", {"camera_column": "p"}, r"p should be at least 0, got '-1'"),
        ("path,identity\na.jpg,1\n", {}, r"column called 'identity' cannot be an attribute"),
        (
            "path,p,w\na.jpg,1,x\nb/c.jpg,1,y\n",
            {"identity_column": "p", "identity_level": ["w"]},
            r"1 of 1 identities have several values: 1",
        ),
    ],
)
def test_wrong_tables_are_named(tmp_path, text, options, message):
    with pytest.raises(InputError, match=message):
        index_table(tmp_path, text, **options)


def test_an_attribute_with_too_many_values_says_how_to_group(tmp_path):
    rows = "".join(f"{row}.jpg,{row / 7}\n" for row in range(1001))
    with pytest.raises(InputError, match=r"'speed' has 1001 values in 1001 images, at most 1000 .*bins: {speed: 5}"):
        index_table(tmp_path, "path,speed\n" + rows)


def test_a_text_is_no_list_of_columns(tmp_path):
    with pytest.raises(ConfigError, match="identity_level should be a list"):
        index_table(tmp_path, "path,w\na.jpg,x\n", identity_level="w")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 39), st.text(min_size=1, max_size=6).map("x{}".format) | st.sampled_from(["", " NA"])),
        min_size=1,
        max_size=8,
        unique_by=lambda r: r[0],
    )
)
def test_any_text_survives_a_table(tmp_path, rows):
    plant(tmp_path, *(f"{row:02}.jpg" for row in range(40)))
    pq.write_table(
        pa.table({"path": [f"{row:02}.jpg" for row, _ in rows], "w": [text for _, text in rows]}),
        tmp_path / "t.parquet",
    )
    if not any(text.strip() in MISSING for _, text in rows):
        catalog = Catalog.index(tmp_path, layout="table", table="t.parquet")
        assert catalog.frame["w"].tolist() == [text.strip() for _, text in sorted(rows)]
    else:
        with pytest.raises(InputError, match="missing"):
            Catalog.index(tmp_path, layout="table", table="t.parquet")


# --- folders


def test_folder_lists_any_tree(tmp_path):
    plant(tmp_path, "x/y/1.jpg", "2.PNG", "notes.txt")
    catalog = Catalog.index(tmp_path, layout="folder")
    assert catalog.frame["path"].tolist() == ["2.PNG", "x/y/1.jpg"]
    assert catalog.frame["identity"].tolist() == [1, 2]
    assert np.array_equal(catalog.frame["camera"], [0, 0])
    assert (catalog.attributes, catalog.title) == ((), tmp_path.name)


@pytest.mark.parametrize("below", ["", "Market/", "a/b/"])
def test_a_market_folder_is_no_pile_of_photos(tmp_path, below):
    plant(tmp_path, f"{below}bounding_box_train/a.jpg", "photo.jpg")
    assert len(Catalog.index(tmp_path, layout="folder")) == 2
    plant(tmp_path, f"{below}Query/b.jpg")
    with pytest.raises(
        InputError, match=rf"{below.rstrip('/')} is in the layout of Market-1501 \(Query, bounding_box_tr"
    ):
        Catalog.index(tmp_path, layout="folder")
    assert Catalog.index(tmp_path / below / "bounding_box_train", layout="folder").notes == ()


def test_parts_of_other_names_are_said(tmp_path):
    plant(tmp_path, "set/train/a.jpg", "set/test/b.jpg", "set/cam1/c.jpg")
    catalog = Catalog.index(tmp_path, layout="folder")
    assert catalog.notes == (
        f"{tmp_path}/set: all of test, train are photos to imitate; give one of them to leave the others",
    )
