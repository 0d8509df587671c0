"""The verb ``evaluate``: what it is asked for reaches the protocol, and metrics.json says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster import cli
from finegpr.catalog import Catalog
from finegpr.reid.recipes import recipe
from finegpr.reid.train import fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model hardly trained, and a target of 8 people seen by 3 cameras, noisy enough to be ranked wrongly."""
    root = tmp_path_factory.mktemp("evaluate")
    random = np.random.default_rng(0)
    for identity in range(1, 13):
        colours = random.integers(0, 256, (4, 1, 3))
        parts = ("bounding_box_train",) if identity <= 4 else ("query", "bounding_box_test")
        for camera in (1, 2, 3):
            for part in parts:
                seen = colours + random.normal(0, 60, colours.shape)
                pixels = np.repeat(seen, 16, axis=0) + random.normal(0, 20, (64, 32, 3))
                path = root / "market" / part / f"{identity:04d}_c{camera}s1_000001_00.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path.with_suffix(".jpg"))
    target = Catalog.index(root / "market", layout="market1501")
    target.write(root / "market.parquet")
    config = recipe("seconds").model_copy(update={"steps": 2, "batch_size": 8, "device": "cpu"})
    fit(config, target.part("train"), output=root / "model", seed=0)
    return root


def evaluated(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    output = folder / "metrics.json"
    verb = ["evaluate", str(folder / "model" / "model.safetensors"), "--target", str(folder / "market.parquet")]
    assert cli.run([*verb, "--output", str(output), *options]) == 0, capsys.readouterr().err
    metrics: dict[str, Any] = json.loads(output.read_text())
    return metrics


def test_each_option_moves_map_and_is_written_down(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = evaluated(folder, capsys)
    assert not {"rerank", "flip", "ap"} & plain.keys()
    for options, said in (
        (["--rerank"], {"rerank": True}),
        (["--flip"], {"flip": True}),
        (["--ap", "trapezoid"], {"ap": "trapezoid"}),
    ):
        other = evaluated(folder, capsys, *options)
        assert {name: value for name, value in other.items() if name not in plain} == said
        assert other["mAP"] != plain["mAP"], options
    every = evaluated(folder, capsys, "--rerank", "--flip", "--ap", "trapezoid")
    assert (every["rerank"], every["flip"], every["ap"]) == (True, True, "trapezoid")
    assert evaluated(folder, capsys, "--ap", "hits") == plain
