"""What may be trained on, and that none of it is in a test."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegpr.catalog import Catalog
from finegpr.errors import InputError, StateError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import plan_shards
from finegpr.parts import refuse_overlap, train_part


def plant(root: Path, rows: list[tuple[str, int, str]]) -> Catalog:
    """A catalog of tiny images (path, person, part), the light of each by its row."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["path,pid,cam,split,light"]
    for number, (path, person, part) in enumerate(rows):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 4, 3), number, np.uint8)).save(root / path)
        lines.append(f"{path},{person},{number % 2 + 1},{part},{'day' if number % 3 else 'night'}")
    (root / "t.csv").write_text("\n".join(lines) + "\n")
    options = {"identity_column": "pid", "camera_column": "cam", "part_column": "split"}
    return Catalog.index(root, layout="table", table="t.csv", **options)


def split(number: int = 16) -> list[tuple[str, int, str]]:
    """Half of the persons are trained on, the others are tested on."""
    return [
        (
            f"i{row:03}.jpg",
            row // 4 % 2 * 10 + 1 + row % 2,
            ("train", "query", "gallery")[row % 2 + 1] if row // 4 % 2 else "train",
        )
        for row in range(number)
    ]


def test_a_source_with_parts_keeps_its_rows_and_gives_only_the_train_part(tmp_path: Path) -> None:
    catalog = plant(tmp_path, split())
    source, note = train_part(catalog)
    is_train = (catalog.frame["part"] == "train").to_numpy()
    assert note is not None
    assert "only the 8 images of its part train are used, not 4 of query, 4 of gallery" in note
    assert source.frame["path"].equals(catalog.frame["path"])
    assert np.array_equal(source.identities > 0, is_train)
    config = MeasureConfig(network="vgg19", weights="random")
    for names in ([], ["light"]):
        [rows] = plan_shards(config, source, source.cells(names))
        assert np.array_equal(rows, np.flatnonzero(is_train))
    whole = catalog.part("train")
    same, said = train_part(whole)
    assert (same, said) == (whole, None)
    with pytest.raises(InputError, match=r"no images in its part train \(4 of query, 4 of gallery\)"):
        train_part(catalog.part("query", "gallery"))


@pytest.mark.parametrize(
    ("one", "other"), [("train", "query"), ("train", "validation_gallery"), ("gallery", "validation_query")]
)
def test_nobody_of_a_table_is_trained_on_and_tested_on(tmp_path: Path, one: str, other: str) -> None:
    rows = [("a.jpg", 1, one), ("b.jpg", 2, one), ("c.jpg", 2, other), ("d.jpg", 3, other)]
    with pytest.raises(InputError, match=r"1 identities are in both .*: 2; b.jpg and c.jpg show one person"):
        plant(tmp_path, rows)


def test_an_image_of_the_source_is_no_test_image_whatever_it_is_called(tmp_path: Path) -> None:
    target = plant(tmp_path / "data/target", split())
    refuse_overlap(train_part(target)[0], target)
    refuse_overlap(target.part("train"), target)
    (tmp_path / "alias").symlink_to(tmp_path / "data/target")
    (tmp_path / "linked").mkdir()
    for path in target.file_paths():
        os.link(path, tmp_path / "linked" / path.name)
    for root in ("data/target", "data", "alias", "linked"):
        source = Catalog.index(tmp_path / root, layout="folder")
        with pytest.raises(InputError, match=r"8 of 16 images of the source .* such as .*i004.jpg"):
            refuse_overlap(source, target)
    other = plant(tmp_path / "other", [(path, person, "train") for path, person, _ in split()])
    refuse_overlap(other, target)


def test_a_catalog_whose_persons_count_from_0_is_indexed_again(tmp_path: Path) -> None:
    catalog = plant(tmp_path, split())
    old = catalog.frame.assign(identity=np.where(catalog.identities == 1, 0, catalog.identities))
    old = replace(catalog, frame=old)
    with pytest.raises(StateError, match=r"4 images of identity 0 or -1 in its part train, .* index the images again"):
        train_part(old)
