"""The command line on a source and a target that lie in a store."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from finegpr import object_stores
from finegpr.catalog import Catalog
from finegpr.object_stores import RemotePath

SMALL = [
    "measure.network=vgg19",
    "measure.weights=random",
    "measure.height=32",
    "measure.width=32",
    "measure.basis_images=8",
]
SMALL += ["measure.images_per_cell=1", "search.evaluations=40", "train.recipe=seconds", "train.steps=2"]


@pytest.fixture(scope="module")
def world(store: Any, folders: Path) -> tuple[Path, str]:
    """A source and a target on the disk, and the address of their copies."""
    return folders, store.put_folder(folders, "command-line")


def test_index(world: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    disk, address = world
    output = tmp_path / "catalog.parquet"
    assert cli.run(["index", f"{address}/source", "--output", str(output), "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["num_images"] == 72
    assert Catalog.read(output).root == RemotePath(f"{address}/source")
    assert Catalog.read(output).fingerprint == Catalog.index(disk / "source", layout="finegpr").fingerprint


def test_run_gives_the_same_results(world: tuple[Path, str], tmp_path: Path) -> None:
    results = []
    for root in map(str, world):
        folder = tmp_path / str(len(results))
        config = tmp_path / "config.yaml"
        config.write_text(
            f"name: mine\nsource: {{root: '{root}/source', layout: finegpr}}\n"
            f"target: {{root: '{root}/target', layout: market1501}}\nbudget: {{images: 12}}\narms: [random, mmd_rbf]\n"
        )
        assert cli.run(["run", str(config), "--output", str(folder), "--serial", "--set", *SMALL]) == 0
        results.append(json.loads((folder / "results.json").read_text()))
    assert results[0] == results[1]
    assert {row["arm"] for row in results[0]} == {"random", "mmd_rbf"}


@pytest.mark.parametrize(
    ("address", "message", "exit_code"),
    [
        ("{}/nothing", "no folder {}/nothing; give the path of an image folder", 3),
        ("s3://no-such-bucket/a", "no folder s3://no-such-bucket/a; give the path of an image folder", 3),
        ("s3://bucket/a?region=nowhere", "Could not connect to server; check address, ", 75),
    ],
)
def test_what_cannot_be_read_is_one_line(
    world: tuple[Path, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    message: str,
    exit_code: int,
) -> None:
    monkeypatch.setattr(object_stores, "PAUSES_SECONDS", ())
    if exit_code == 75:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    code = cli.run(["index", address.format(world[1]), "--output", str(tmp_path / "x.parquet")])
    lines = capfd.readouterr().err.splitlines()
    assert code == exit_code
    assert len(lines) == 1
    assert lines[0].startswith("aost: ")
    assert message.format(world[1]) in lines[0]
    assert not (tmp_path / "x.parquet").exists()
