"""Where a catalog has query and gallery images, what draws or trains takes the others, and says which of them count."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cluster import cli
from finegpr.catalog import Catalog
from finegpr.measuring.results import read_measurements

MEASURE = [
    "network=vgg19",
    "weights=random",
    "height=32",
    "width=32",
    "basis_images=8",
    "style_coordinates=2",
    "content_coordinates=4",
]
SAID = "only the 36 images of its part train are used, not 6 of query, 18 of gallery"
CONFIG = """
name: x
source:
  root: {root}
  layout: table
  options: {{table: t.csv, identity_column: pid, attributes: [light, sky]{parts}}}
target:
  root: {root}
  layout: table
  options: {{table: t.csv, identity_column: pid, camera_column: cam, part_column: part}}
measure: {{network: vgg19, weights: random, height: 32, width: 32, basis_images: 8}}
budget: {{images: 12}}
arms: [random, mmd_rbf, everything]
search: {{evaluations: 20}}
train: {{recipe: seconds, steps: 1, height: 64, width: 32, batch_size: 8}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``c.parquet``: 10 persons with 6 images each, of which 6 are trained on; ``t.parquet``: 6 photos."""
    root = tmp_path_factory.mktemp("parts")
    random = np.random.default_rng(0)
    rows = ["path,pid,cam,part,light,sky"]
    for number in range(60):
        person, place = divmod(number, 6)
        part = "train" if person in (0, 2, 3, 5, 6, 9) else ("query" if place == 0 else "gallery")
        part = "query" if part == "gallery" and person == 1 and place in (3, 5) else part
        Image.fromarray(random.integers(0, 255, (48, 24, 3), dtype=np.uint8)).save(root / f"i{number:02}.png")
        rows.append(f"i{number:02}.png,{person + 1},{place % 2 + 1},{part},{'dn'[place % 2]},{'abc'[place % 3]}")
    (root / "t.csv").write_text("\n".join(rows) + "\n")
    options = {"identity_column": "pid", "camera_column": "cam", "part_column": "part"}
    catalog = Catalog.index(root, layout="table", table="t.csv", **options)
    catalog.write(root / "c.parquet")
    catalog.take(np.arange(6)).write(root / "t.parquet")
    return root


def test_the_verbs_take_the_train_part(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    catalog = f"{folder}/c.parquet"
    commands = [
        ["measure", catalog, "--targets", f"{folder}/t.parquet", "--output", "m", "--serial", "--set", *MEASURE],
        ["search", catalog, "--measurements", "m", "--output", "f", "--set", "budget.images=12", "evaluations=20"],
        ["sweep", catalog, "--measurements", "m", "--output", "w", "--serial", "--set", "images=[12]", "evaluations=9"],
        ["select", catalog, "--images", "36", "--output", "all.parquet"],
        ["select", catalog, "--images", "12", "--selector", "snp", "--measurements", "m", "--output", "snp.parquet"],
        ["train", catalog, "--recipe", "seconds", "--set", "steps=1", "batch_size=8", "--output", "model"],
    ]
    for command in commands:
        assert cli.run(command) == 0, capsys.readouterr().err
        said = capsys.readouterr().err
        assert SAID in said, command
    assert "36 images of 6 identities, small" in said
    whole = Catalog.read(folder / "c.parquet")
    assert whole.frame["part"].iloc[read_measurements(tmp_path / "m").row].tolist() == ["train"] * 36
    for name in ("all", "snp"):
        assert set(Catalog.read(tmp_path / f"{name}.parquet").frame["part"]) == {"train"}
    assert cli.run(["select", catalog, "--images", "37", "--output", "more.parquet"]) == 3


def test_a_run_draws_from_the_train_part_and_never_from_the_test(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = tmp_path / "c.yaml", tmp_path / "r"
    config.write_text(CONFIG.format(root=folder, parts=""))
    for verb in ("check", "run"):
        assert cli.run([verb, str(config), "--serial", "--output", str(run)]) == 3
        assert "24 of 60 images of the source" in (said := capsys.readouterr().err.splitlines()[-1])
        assert "are query or gallery images of the target" in said
    assert not (run / "measure").exists()
    config.write_text(CONFIG.format(root=folder, parts=", part_column: part"))
    assert cli.run(["run", str(config), "--serial", "--output", str(run)]) == 0
    assert SAID in capsys.readouterr().err
    assert SAID in (run / "report.json").read_text()
    manifests = [Catalog.read(path) for path in (run / "select").rglob("*.parquet")]
    assert sorted(len(manifest) for manifest in manifests) == [12, 12, 36]
    assert all((manifest.frame["part"] == "train").all() for manifest in manifests)


def test_which_queries_count_is_said_everywhere(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three of six queries have a match by another camera, one only by its own, and two have none."""
    root, config, run = tmp_path / "few", tmp_path / "c.yaml", tmp_path / "r"
    shutil.copytree(folder, root)
    table = pd.read_csv(folder / "t.csv")
    gallery = table["part"] == "gallery"
    table.loc[gallery & table["pid"].isin([8, 9]), "pid"] += 100
    table.loc[gallery & (table["pid"] == 5), "cam"] = 1
    table.to_csv(root / "t.csv", index=False)
    config.write_text(CONFIG.format(root=root, parts=", part_column: part"))
    said = "mAP of 3 of 6 queries: 2 have no match, 1 only by the same camera"
    options = ["--layout", "table", "--set", "table=t.csv", "identity_column=pid", "part_column=part"]
    target, model = ["--target", str(root / "c.parquet")], str(next_model(run))
    for command in (
        ["check", str(config), "--serial"],
        ["run", str(config), "--serial", "--output", str(run)],
        ["compare", str(run)],
        ["index", str(root), *options, "camera_column=cam", "--output", str(root / "c.parquet")],
        ["evaluate", model, *target, "--output", str(tmp_path / "e.json")],
    ):
        assert cli.run(command) == 0, capsys.readouterr().err
        if command[0] != "index":
            assert said in capsys.readouterr().err, command
    assert said in (run / "report.html").read_text()
    for record in (json.loads((run / "results.json").read_text())[0], json.loads((tmp_path / "e.json").read_text())):
        counts = [record[f"num_{name}"] for name in ("query", "valid", "no_match", "same_camera")]
        assert counts == [6, 3, 2, 1]

    # Without cameras nothing is scored unless it is said that they are ignored, and what that means.
    output = ["--output", str(root / "c.parquet")]
    assert cli.run(["index", str(root), *options, *output]) == 0
    assert cli.run(["evaluate", model, *target, "--output", str(tmp_path / "e.json")]) == 3
    assert "has no camera for 4 of 6 query and 8 of 18 gallery" in capsys.readouterr().err
    assert cli.run(["index", str(root), *options, "cameras=ignore", *output]) == 0
    assert cli.run(["evaluate", model, *target, "--output", str(tmp_path / "e.json")]) == 0
    assert "mAP of 4 of 6 queries: 2 have no match; cameras are ignored" in capsys.readouterr().err
    assert json.loads((tmp_path / "e.json").read_text())["cameras_ignored"] is True


def next_model(run: Path) -> Path:
    """Where a run leaves the model of its first arm."""
    return run / "train/random/seed0/model/model.safetensors"


def test_a_run_without_cameras_ends_before_its_first_stage_or_ignores_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = tmp_path / "c.yaml", tmp_path / "r"
    text = CONFIG.format(root=folder, parts=", part_column: part").replace(", camera_column: cam", "")
    config.write_text(text)
    for verb in ("check", "run"):
        assert cli.run([verb, str(config), "--serial", "--output", str(run)]) == 3
        assert "cannot score a training" in (said := capsys.readouterr().err.splitlines()[-1])
        assert "no camera for 6 of 6 query and 18 of 18 gallery images" in said
    assert not (run / "measure").exists()
    assert cli.run(["run", str(config), "--serial", "--output", str(run), "--set", "target.cameras=ignore"]) == 0
    assert capsys.readouterr().err.count("cameras are ignored") == 2
    assert "cameras are ignored" in (run / "report.html").read_text()
