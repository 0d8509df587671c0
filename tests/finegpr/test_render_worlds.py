"""MiniGPR and MiniMarket on disk: layouts, balance, resumption, and the same bytes at any number of workers."""

import csv
import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from finegpr.attributes import IDENTITY_ATTRIBUTES, ILLUMINATION, VIEWPOINT, WEATHER
from finegpr.errors import InputError, StateError
from finegpr.layouts import finegpr as finegpr_layout
from finegpr.layouts import market1501 as market_layout
from finegpr.render.body import KEYPOINTS
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from finegpr.render.world import code, deal

SMALL = MiniGPRConfig(num_identities=3, images_per_identity=6, viewpoints=90, height=32, width=16, masks=True)
TARGET = MiniMarketConfig(
    num_train=18, train_identities=6, validation_identities=2, test_identities=3, num_distractors=4, num_junk=3,
    height=32, width=16, distribution={"illumination": ["dusk", "night"], "weather": ["foggy"], "scene": ["urban2"]},
)  # fmt: skip


def fingerprint(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "world"
    render_minigpr(SMALL, root)
    return root


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("target") / "world"
    render_minimarket(TARGET, root)
    return root


def test_minigpr_is_finegprs_layout(source: Path) -> None:
    listing = finegpr_layout.index(source)
    assert len(listing.frame) == 18
    assert len(listing.rejected) == 0
    table = rows(source / "attributes.csv")
    assert list(table[0]) == ["identity", *(attribute.name for attribute in IDENTITY_ATTRIBUTES)]
    assert [row["identity"] for row in table] == ["1", "2", "3"]
    world = json.loads((source / "world.json").read_text())
    assert (world["title"], world["seed"], world["height"], world["width"]) == ("MiniGPR", 0, 32, 16)
    assert MiniGPRConfig(**world["settings"]) == SMALL


def test_masks_and_keypoints_belong_to_the_pictures(source: Path) -> None:
    pictures = sorted(source.glob("0002/*.jpg"))
    keypoints = json.loads((source / "masks/0002/keypoints.json").read_text())
    assert sorted(keypoints) == [path.stem for path in pictures]
    for path in pictures:
        mask = np.asarray(Image.open(source / "masks/0002" / f"{path.stem}.png"))
        assert mask.shape == (32, 16)
        assert set(np.unique(mask)) == {0, 255}
        assert np.array(keypoints[path.stem]).shape == (len(KEYPOINTS), 3)


def test_codes_follow_finegpr() -> None:
    assert [code("viewpoint", f"{angle}deg") for angle in (90, 180, 270, 0, 80)] == [1, 10, 19, 28, 36]
    assert [code("weather", value) for value in ("sunny", "foggy", "snowlight")] == [1, 4, 7]
    assert [code("illumination", value) for value in ("midnight", "noon", "night")] == [1, 4, 7]


@pytest.mark.parametrize(("size", "step"), [(40, 10), (40, 30), (7, 30), (100, 90), (196, 90)])
def test_deal_is_balanced(size: int, step: int) -> None:
    factors = ([f"{angle}deg" for angle in range(0, 360, step)], WEATHER.values, ILLUMINATION.values)
    hands = deal(factors, 23, size, np.random.default_rng(0))
    cells = Counter(itertools.chain.from_iterable(hands))
    everything = list(itertools.product(*factors))
    counts = [cells[cell] for cell in everything]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 23 * size
    for hand in hands:
        assert len(set(hand)) == size
        for k, values in enumerate(factors):
            shares = Counter(cell[k] for cell in hand)
            assert max(shares.values()) <= 1.2 * size / len(values) + 3
    assert deal(factors, 23, size, np.random.default_rng(0)) == hands


def test_full_factorial_has_one_scene_per_condition(tmp_path: Path) -> None:
    config = MiniGPRConfig(
        num_identities=1, images_per_identity=None, viewpoints=["90deg", "270deg"], height=16, width=8
    )
    render_minigpr(config, tmp_path / "w")
    names = [path.stem for path in (tmp_path / "w/0001").iterdir()]
    assert len(names) == 2 * 7 * 7
    assert len({name.rsplit("_p", 1)[0] for name in names}) == len(names)
    assert len({name.rsplit("_p", 1)[1] for name in names}) == 9


def test_workers_do_not_change_a_byte(tmp_path: Path, source: Path) -> None:
    render_minigpr(SMALL, tmp_path / "w", workers=2)
    assert fingerprint(tmp_path / "w") == fingerprint(source)


def test_a_finished_world_returns_at_once_and_an_interrupted_one_is_continued(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"masks": False})
    root = tmp_path / "w"
    heard: list[tuple[int, int]] = []
    render_minigpr(config, root, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(6, 18), (12, 18), (18, 18)]
    before = fingerprint(root)
    render_minigpr(config, root, progress=lambda *_: pytest.fail("nothing is left to do"))
    kept = sorted((root / "0001").iterdir())[0]
    age = kept.stat().st_mtime_ns
    (root / "done.json").unlink()
    for path in (root / "0003").iterdir():
        path.unlink()
    lost = sorted((root / "0002").iterdir())
    lost[0].write_bytes(b"")  # as after a power loss
    lost[1].write_bytes(lost[1].read_bytes()[:-40])
    render_minigpr(config, root)
    assert fingerprint(root) == before
    assert kept.stat().st_mtime_ns == age


def test_an_empty_picture_or_mask_is_drawn_again(tmp_path: Path, source: Path, target: Path) -> None:
    for world, render, names in (
        (source, lambda root: render_minigpr(SMALL, root), ("0001/*.jpg", "masks/0002/*.png")),
        (target, lambda root: render_minimarket(TARGET, root), ("query/*.jpg", "bounding_box_test/-1*.jpg")),
    ):
        root = tmp_path / world.parent.name
        shutil.copytree(world, root)
        (root / "done.json").unlink()
        for name in names:
            next(root.glob(name)).write_bytes(b"")
        render(root)
        assert fingerprint(root) == fingerprint(world)


def test_a_world_is_flushed_before_it_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[str] = set()
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert not (tmp_path / "w" / "done.json").exists() or path == tmp_path / "w"
        flushed.add(path.name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    render_minigpr(SMALL.model_copy(update={"num_identities": 1, "images_per_identity": 2}), tmp_path / "w")
    assert {path.name for path in tmp_path.glob("w/0001/*")} < flushed
    assert {path.name for path in tmp_path.glob("w/masks/0001/*.png")} < flushed


def test_another_world_is_refused(tmp_path: Path, source: Path, target: Path) -> None:
    with pytest.raises(StateError, match="holds another rendered world"):
        render_minigpr(SMALL.model_copy(update={"seed": 1}), source)
    with pytest.raises(StateError, match="holds another rendered world"):
        render_minigpr(SMALL, target)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StateError, match="is not empty"):
        render_minigpr(SMALL, tmp_path)


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only 196 conditions"):
        render_minigpr(SMALL.model_copy(update={"images_per_identity": 197}), tmp_path / "a")
    with pytest.raises(InputError, match="divides 360"):
        render_minigpr(SMALL.model_copy(update={"viewpoints": 25}), tmp_path / "b")
    with pytest.raises(InputError, match="no value '95deg'"):
        render_minigpr(SMALL.model_copy(update={"viewpoints": ["95deg"]}), tmp_path / "c")
    with pytest.raises(InputError, match="no attribute 'mood'"):
        render_minimarket(TARGET.model_copy(update={"distribution": {"mood": ["gay"]}}), tmp_path / "d")
    with pytest.raises(ValidationError):
        MiniGPRConfig(num_identities=0)
    assert not list(tmp_path.iterdir())


def test_minimarket_is_market1501s_layout(target: Path) -> None:
    listing = market_layout.index(target)
    assert len(listing.rejected) == 0
    frame = listing.frame
    counts = frame.groupby("part", observed=True).size().to_dict()
    assert counts == {"train": 18, "validation_query": 12, "validation_gallery": 12, "query": 18, "gallery": 18 + 4 + 3}
    people = {part: set(group["identity"]) - {0, -1} for part, group in frame.groupby("part", observed=True)}
    assert people["query"] == people["gallery"]
    assert people["validation_query"] == people["validation_gallery"]
    assert not people["train"] & people["query"]
    assert not people["train"] & people["validation_query"]
    assert not people["validation_query"] & people["query"]
    gallery = frame[frame["part"] == "gallery"]
    assert (gallery["identity"] == 0).sum() == 4
    assert (gallery["identity"] == -1).sum() == 3
    assert set(frame["camera"]) == set(range(1, 7))


def test_minimarkets_truth_follows_its_distribution(target: Path) -> None:
    truth = rows(target / "truth.csv")
    pictures = {path.relative_to(target).as_posix() for path in target.rglob("*.jpg")}
    assert {row["path"] for row in truth} == pictures
    world = json.loads((target / "world.json").read_text())
    assert world["title"] == "MiniMarket"
    assert world["distribution"] == {"illumination": ["dusk", "night"], "scene": ["urban2"], "weather": ["foggy"]}
    assert {row["weather"] for row in truth} == {"foggy"}
    assert {row["scene"] for row in truth} == {"urban2"}
    assert {row["viewpoint"] for row in truth} <= set(VIEWPOINT.values)
    train = Counter(row["illumination"] for row in truth if row["path"].startswith("bounding_box_train"))
    assert train["dusk"] == train["night"] == 9
    # matching across cameras is matching across conditions
    assert all(
        len({row["illumination"] for row in truth if row["camera"] == str(camera)}) == 2 for camera in range(1, 7)
    )


def test_minimarket_repeats(tmp_path: Path, target: Path) -> None:
    render_minimarket(TARGET, tmp_path / "w")
    assert fingerprint(tmp_path / "w") == fingerprint(target)
