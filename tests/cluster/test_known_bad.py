"""What measuring found broken is neither counted nor drawn by anything that comes after it."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from cluster import cli
from finegpr.catalog import Catalog


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """240 images in 24 cells, of which one is broken altogether; 12 photos."""
    root = tmp_path_factory.mktemp("broken")
    random = np.random.default_rng(0)
    rows = []
    for place in ("source", "target"):
        (root / place).mkdir()
    for number in range(240):
        angle, light, bag = number % 4, number // 4 % 3, number // 12 % 2
        path = root / "source" / f"s{number:03}.jpg"
        pixels = random.normal(90 + 40 * light, 30, (48, 24, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        if (angle, light, bag) == (1, 1, 1):
            path.write_bytes(b"broken")
        rows.append([path.name, number // 24 + 1, angle * 90, ("dark", "middle", "bright")[light], bag])
    with (root / "source" / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "pid", "angle", "light", "bag"], *rows])
    for number in range(12):
        Image.fromarray(random.integers(150, 200, (48, 24, 3), dtype=np.uint8)).save(root / "target" / f"{number}.png")
    return root


def broken(manifest):
    return sum(path.read_bytes() == b"broken" for path in Catalog.read(manifest).file_paths())


def test_a_run_draws_no_image_that_it_found_broken(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cluster.progress.PLAIN_EVERY_SECONDS", 0)
    (tmp_path / "c.yaml").write_text(
        f"""
name: x
source: {{root: {folder}/source, layout: table, options: {{table: t.csv, identity_column: pid, circular: [angle]}}}}
target: {{root: {folder}/target, layout: folder}}
measure: {{network: vgg19, weights: random, height: 32, width: 32, basis_images: 8}}
budget: {{images: 100}}
arms: [random, mmd_rbf, everything]
search: {{evaluations: 40}}
train: {{recipe: seconds, steps: 1, height: 64, width: 32}}
"""
    )
    assert cli.run(["run", "c.yaml", "--serial", "--output", "r"]) == 0
    said = capsys.readouterr()
    assert "as they could not be measured: s017.jpg (unidentified) and 9 more" in (said.out + said.err).replace(
        "Left", "left"
    )
    assert re.search(r"training: 0/3 trials, \d+ s, random, seed 0: loss \d\.\d+, step 1/1, about 0 s left", said.err)
    manifests = sorted((tmp_path / "r" / "select").rglob("*.parquet"))
    assert len(manifests) >= 3
    assert [broken(path) for path in manifests] == [0] * len(manifests)


def test_the_verbs_draw_none_either(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Catalog.index(folder / "source", layout="table", table="t.csv", identity_column="pid").write(tmp_path / "s.parquet")
    Catalog.index(folder / "target", layout="folder").write(tmp_path / "t.parquet")
    settings = ["--set", "network=vgg19", "weights=random", "height=32", "width=32", "basis_images=8"]
    measure = ["measure", "s.parquet", "--targets", "t.parquet", "--output", "m", "--serial", *settings]
    assert cli.run(measure) == 0
    search = ["search", "s.parquet", "--measurements", "m", "--output", "f", "--serial"]
    assert cli.run([*search, "--set", "budget.images=100", "evaluations=40"]) == 0
    select = ["select", "s.parquet", "--measurements", "m", "--images"]
    assert cli.run([*select, "230", "--output", "all.parquet"]) == 0
    assert broken(tmp_path / "all.parquet") == 0
    assert cli.run([*select, "231", "--output", "more.parquet"]) == 3
    assert cli.run([*select, "100", "--subset", "f/subset.json", "--output", "sub.parquet"]) == 0
    assert broken(tmp_path / "sub.parquet") == 0
