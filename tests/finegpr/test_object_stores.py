"""Roots in a store, against an S3 server of this process: the same catalogs and measurements as from the disk."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from finegpr import object_stores as remote
from finegpr.catalog import Catalog, read_world
from finegpr.errors import ConfigError, InputError, UnreachableError
from finegpr.layouts.listing import build_frame, rejections
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.freshness import pending_shards
from finegpr.measuring.measure import measure, prepare
from finegpr.measuring.results import Measurements
from finegpr.object_stores import RemotePath, locate
from finegpr.pixels.decode import BadImage, decode, load
from finegpr.reid.data import FilePixels, ImageStore, read_ahead
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket

SOURCE = MiniGPRConfig(num_identities=4, images_per_identity=6, height=48, width=24, masks=True)
TARGET = MiniMarketConfig(
    num_train=6,
    train_identities=3,
    validation_identities=1,
    test_identities=2,
    num_distractors=1,
    num_junk=1,
    height=48,
    width=24,
)
SMALL = MeasureConfig(
    network="vgg19",
    height=32,
    width=32,
    weights="random",
    images_per_shard=10,
    basis_images=16,
    style_coordinates=8,
    content_coordinates=8,
)
CELLS = ["weather", "illumination"]
ODD = (
    ".hidden.jpg", "._0001.jpg", ".git/x.jpg", ".git/y/z.jpg", "Thumbs.db", "__MACOSX/0001/a.jpg", "notes.txt",
    "0001/video.xyz", "0001/0001_c99_w01_l01_p01.jpg", "keypoints/a.png", "deep/er/ü \U0001f642.PNG", "a..b.jpg",
)  # fmt: skip


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("worlds")
    render_minigpr(SOURCE, root / "source")
    render_minimarket(TARGET, root / "target")
    return root


@pytest.fixture(scope="module")
def bucket(store: Any, disk: Path) -> str:
    return store.put_folder(disk, "rendered")


def assert_same(one: Catalog, other: Catalog) -> None:
    pd.testing.assert_frame_equal(one.frame, other.frame)
    pd.testing.assert_frame_equal(one.rejected, other.rejected)
    assert one.attributes == other.attributes
    assert (one.title, one.num_ignored, one.fingerprint) == (other.title, other.num_ignored, other.fingerprint)


# --- what an address is


def test_addresses_and_paths(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == locate(tmp_path) == tmp_path
    assert locate("data") == locate(Path("data")) == Path.cwd() / "data"
    (tmp_path / "a b").mkdir()
    assert locate(f"file://{tmp_path}/a%20b/") == tmp_path / "a b"
    root = locate("s3://bucket/my%20photos//?region=eu-west-1")
    assert root == RemotePath("s3://bucket/my%20photos?region=eu-west-1")
    assert locate(str(root)) == locate(root) == root
    assert (root.name, locate("s3://bucket/").name) == ("my photos", "bucket")
    assert str(root / "0001" / "ü 1.jpg") == "s3://bucket/my%20photos/0001/%C3%BC%201.jpg?region=eu-west-1"
    assert (root / "0001").absolute() == (root / "0001").resolve() == root / "0001"
    assert pickle.loads(pickle.dumps(root / "a")) == root / "a"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "Missing bucket name"),
        ("s3://bucket/a b", "Cannot parse URI"),
        ("foo://bucket/a", "Unrecognized filesystem type"),
        ("file://elsewhere/a", "Unsupported hostname"),
        ("s3://[bucket/a", "Invalid IPv6 URL"),
    ],
)
def test_an_address_that_is_none_is_one_line(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"{message}.*s3://bucket/prefix") as caught:
        Catalog.index(address, layout="folder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["s3://key:hush@bucket/a", "abfs://box@account/a?client_secret=hush"])
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY") as caught:
        Catalog.index(address, layout="folder")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    ["endpoint_override=evil.example", "region=a&endpoint%5Foverride=x.y", "scheme=http", "region=evil.example/"],
)
@pytest.mark.parametrize("address", ["s3://worlds/a?{}", "gs://worlds/a?{}", "abfs://box@account/a?{}"])
def test_no_address_chooses_where_credentials_are_sent(address: str, setting: str, tmp_path: Path) -> None:
    message = f"may not set {setting.split('&')[-1].split('=')[0]}[; ].*AWS_ENDPOINT_URL"
    with pytest.raises(ConfigError, match=message):
        Catalog.index(address.format(setting), layout="folder")
    # A catalog that another program has written.
    listed = Catalog(
        frame=build_frame(pa.array(["a.jpg"]), identity=np.array([1])),
        root=RemotePath(address.format(setting)),
        title="theirs",
        layout="folder",
        attributes=(),
        rejected=rejections(),
    )
    listed.write(tmp_path / "theirs.parquet")
    with pytest.raises(InputError, match=rf"theirs\.parquet: the address .* {message}"):
        Catalog.read(tmp_path / "theirs.parquet")
    assert Catalog.read(tmp_path / "theirs.parquet", root="s3://mine/a?region=eu-west-1").root.name == "a"


# --- catalogs


@pytest.mark.parametrize(("world", "layout"), [("source", "finegpr"), ("target", "market1501")])
def test_rendered_worlds_give_the_same_catalogs(
    disk: Path, bucket: str, tmp_path: Path, world: str, layout: str
) -> None:
    here = Catalog.index(disk / world, layout=layout)
    there = Catalog.index(f"{bucket}/{world}/", layout=layout)
    assert_same(here, there)
    assert len(there) > 20
    assert there.root == RemotePath(f"{bucket}/{world}")
    assert (layout == "finegpr") == (len(there.identity_attributes) == 13)  # attributes.csv was read in the bucket

    there.write(tmp_path / "catalog.parquet")
    read = Catalog.read(tmp_path / "catalog.parquet")
    assert_same(read, there)
    assert read.root == there.root
    assert Catalog.read(tmp_path / "catalog.parquet", root=disk / world).file_paths() == here.file_paths()
    here.write(tmp_path / "here.parquet")
    moved = Catalog.read(tmp_path / "here.parquet", root=f"{bucket}/{world}")
    assert moved.file_paths() == there.file_paths()
    assert pickle.loads(pickle.dumps(there)).file_paths() == there.file_paths()


def test_a_file_address_is_the_disk(disk: Path) -> None:
    catalog = Catalog.index(f"file://{disk}/source", layout="finegpr")
    assert catalog.root == disk / "source"
    assert_same(catalog, Catalog.index(disk / "source", layout="finegpr"))


@pytest.mark.parametrize("layout", ["finegpr", "folder", "market1501"])
def test_odd_names_are_treated_alike(store: Any, tmp_path: Path, layout: str) -> None:
    root = tmp_path / "odd"
    for number in range(1, 121):  # so many that the odd ones are few enough
        name = f"0001/0001_c{number % 36 + 1:02}_w{number // 36 + 1:02}_l01_p01.jpg"
        plant(root, f"query/0900_c1s1_{number:06}_00.jpg" if layout == "market1501" else name)
    for name in ODD:
        plant(root, name)
        plant(root, f"query/{name}")
    address = store.put_folder(root, f"odd-{layout}")
    # A store has no empty folders; the markers that some programs leave for them are no files.
    store.put(f"odd-{layout}/0001/", b"")
    here = _outcome(root, layout)
    assert _outcome(address, layout) == here.replace(str(root), address)
    assert ("a..b.jpg" if layout == "market1501" else "video.xyz") in here
    assert here.splitlines()[-1] != "0"


def test_an_object_without_a_name_between_slashes_is_rejected(store: Any) -> None:
    for key in ("empty/a//b.jpg", "empty//c.jpg", *(f"empty/{number}.jpg" for number in range(40))):
        store.put(key, b"")
    catalog = Catalog.index(f"{store.address}/empty", layout="folder")
    assert len(catalog) == 40
    reason = "a part of its path is empty; rename the object"
    assert dict(catalog.rejected.itertuples(index=False)) == {"/c.jpg": reason, "a//b.jpg": reason}


def plant(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def _outcome(root: str | Path, layout: str) -> str:
    """Everything that an index says, or its refusal."""
    try:
        catalog = Catalog.index(root, layout=layout)
    except InputError as error:
        return str(error)
    return "\n".join((catalog.frame.to_csv(), catalog.rejected.to_csv(), str(catalog.num_ignored)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_may_lie_in_the_store_or_beside(store: Any, disk: Path, tmp_path: Path, suffix: str) -> None:
    paths = Catalog.index(disk / "source", layout="finegpr").frame["path"].tolist()
    labels = pd.DataFrame({"path": [*paths, "0001/gone.jpg", "nowhere/x.jpg"], "angle": "90"})
    (labels.to_csv if suffix == "csv" else labels.to_parquet)(tmp_path / f"labels.{suffix}", index=False)
    address = store.put_folder(disk / "source", "tables")
    store.put(f"tables/in/labels.{suffix}", (tmp_path / f"labels.{suffix}").read_bytes())
    here = Catalog.index(disk / "source", layout="table", table=str(tmp_path / f"labels.{suffix}"))
    for table in (f"in/labels.{suffix}", f"{address}/in/labels.{suffix}", tmp_path / f"labels.{suffix}"):
        assert_same(Catalog.index(address, layout="table", table=table), here)
    assert dict(here.rejected.itertuples(index=False)) == {
        "0001/gone.jpg": "no such file",
        "nowhere/x.jpg": "no such file",
    }
    full = labels.assign(path=[f"{address}/{path}" for path in labels["path"]])
    full.to_csv(tmp_path / "full.csv", index=False)
    assert_same(Catalog.index(address, layout="table", table=tmp_path / "full.csv"), here)
    with pytest.raises(InputError, match="no table none.csv"):
        Catalog.index(address, layout="table", table="none.csv")


def test_the_world_is_read_from_the_store(store: Any, disk: Path, bucket: str) -> None:
    assert read_world(locate(f"{bucket}/target")) == read_world(disk / "target")
    assert read_world(locate(bucket)) is None
    store.put("spoilt/a.jpg", b"")
    store.put("spoilt/world.json", b"{")
    with pytest.raises(InputError, match=r"s3://worlds/spoilt/world\.json should hold"):
        Catalog.index(f"{store.address}/spoilt", layout="folder")


# --- measuring


def assert_equal_measurements(one: Measurements, other: Measurements) -> None:
    for name in ("row", "cell", "median", "sketch", "norms", "off_basis"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("terms", "target_sketch", "target_constant"):
        np.testing.assert_array_equal(getattr(one, name)["market"], getattr(other, name)["market"])
    pd.testing.assert_frame_equal(one.quarantine, other.quarantine)
    assert one.fingerprint("market") == other.fingerprint("market")


def test_measurements_are_the_same(store: Any, disk: Path, tmp_path: Path) -> None:
    shutil.copytree(disk, tmp_path / "disk")
    broken = next((tmp_path / "disk/source").glob("0003/*.jpg"))
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-200])
    address = store.put_folder(tmp_path / "disk", "measured")
    found = {}
    for name, root in (("here", str(tmp_path / "disk")), ("there", address)):
        source = Catalog.index(f"{root}/source", layout="finegpr")
        targets = {"market": Catalog.index(f"{root}/target", layout="market1501").part("train")}
        cells = source.cells(CELLS)
        found[name] = measure(SMALL, source, targets, tmp_path / name, cells=cells)
    assert_equal_measurements(found["here"], found["there"])
    path = broken.relative_to(tmp_path / "disk/source").as_posix()
    assert found["there"].quarantine[["path", "reason"]].to_numpy().tolist() == [[path, "truncated"]]
    assert len(found["there"].row) == 23
    for shard in (tmp_path / "here").glob("shard-*.parquet"):
        assert shard.read_bytes() == (tmp_path / "there" / shard.name).read_bytes()

    # An object that was put there again holds the same; a repaired one does not.
    prepare(SMALL, source, targets, tmp_path / "there", cells=cells)
    store.put(f"measured/source/{path}", broken.read_bytes())
    assert pending_shards(tmp_path / "there", source) == {}
    store.put(f"measured/source/{path}", whole)
    assert len(pending_shards(tmp_path / "there", source)) == 1
    again = measure(SMALL, source, targets, tmp_path / "there", cells=cells)
    assert (len(again.row), len(again.quarantine)) == (24, 0)


def test_images_are_judged_alike(store: Any, disk: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next((disk / "source").glob("0001/*.jpg"))
    file = locate(bucket) / "source" / path.relative_to(disk / "source").as_posix()
    np.testing.assert_array_equal(decode(file), decode(path))
    for name, data in (("empty", b""), ("page", b"<html>"), ("cut", path.read_bytes()[:-50])):
        store.put(f"bad/{name}", data)
    root = locate(f"{store.address}/bad")
    _, bad = load([root / "empty", root / "page", root / "cut", root / "none"], height=8, width=8)
    assert [reason for _, reason in bad] == ["unidentified", "unidentified", "truncated", "missing"]
    monkeypatch.setattr("finegpr.pixels.decode.MAX_BYTES", file.stat().st_size)
    decode(file)
    monkeypatch.setattr("finegpr.pixels.decode.MAX_BYTES", file.stat().st_size - 1)
    with pytest.raises(BadImage, match="too large"):
        decode(file)


def test_training_reads_the_store_in_this_and_in_forked_processes(disk: Path, bucket: str, tmp_path: Path) -> None:
    here = Catalog.index(disk / "source", layout="finegpr")
    there = Catalog.index(f"{bucket}/source", layout="finegpr")
    stored = [
        ImageStore.create(tmp_path / str(index), [catalog], height=16, width=8)
        for index, catalog in enumerate((here, there))
    ]
    np.testing.assert_array_equal(stored[0].pixels, stored[1].pixels)
    rows = [np.arange(12), np.arange(12, 24)]
    for workers in (0, 2):
        read = read_ahead(FilePixels(there.file_paths(), height=16, width=8), rows, workers=workers)
        np.testing.assert_array_equal(np.concatenate([pixels for pixels, _ in read]), stored[1].pixels)


# --- what is not there, and what does not answer


def test_missing_folders_are_one_line(bucket: str) -> None:
    for address in (f"{bucket}/nothing", "s3://no-such-bucket", "s3://no-such-bucket/prefix"):
        with pytest.raises(InputError, match=rf"^no folder {address}; give the path of an image folder$"):
            Catalog.index(address, layout="finegpr")
    with pytest.raises(InputError, match=r"attributes\.csv is not a folder"):
        Catalog.index(f"{bucket}/source/attributes.csv", layout="finegpr")
    with pytest.raises(InputError, match="none of the folders .* got source, target"):
        Catalog.index(bucket, layout="market1501")
    with pytest.raises(FileNotFoundError):
        (locate(bucket) / "none").stat()


class Flaky:
    """A store that fails ``failures`` times before it answers."""

    def __init__(self, failures: int, reason: str = "SLOW_DOWN: reduce your request rate") -> None:
        self.failures = failures
        self.reason = reason
        self.calls = 0

    def get_file_info(self, path: str) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(f"AWS Error {self.reason}\nand more")
        return path


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_store_that_stumbles_is_asked_again_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    flaky, pauses = Flaky(failures), []
    monkeypatch.setattr(remote, "_open", lambda *_: (flaky, "bucket"))
    monkeypatch.setattr("time.sleep", pauses.append)
    file = RemotePath("s3://bucket", "a.jpg")
    if failures < 3:
        assert file._info() == "bucket/a.jpg"
    else:
        message = r"^cannot read s3://bucket/a\.jpg: AWS Error SLOW_DOWN[^\n]*rate; check"
        with pytest.raises(UnreachableError, match=message) as caught:
            file._info()
        assert caught.value.exit_code == 75
    assert flaky.calls == min(failures, 2) + 1
    assert pauses == sorted(pauses)
    assert len(pauses) == min(failures, 2)


def test_a_store_that_refuses_is_no_passing_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_open", lambda *_: (Flaky(9, "ACCESS_DENIED: no such key"), "bucket"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(InputError, match="ACCESS_DENIED") as caught:
        RemotePath("s3://bucket", "a.jpg")._info()
    assert caught.value.exit_code == 3
