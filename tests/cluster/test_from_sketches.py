"""``aost measure --from-sketches``: a new target, and a search for it, when the source's images are gone."""

import json
import shutil
from pathlib import Path

import pytest

from cluster import cli
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket

SIZE = {"height": 48, "width": 24}
PHOTOS = {
    "num_train": 8,
    "train_identities": 4,
    "validation_identities": 1,
    "test_identities": 1,
    "num_distractors": 0,
    "num_junk": 0,
}


def aost(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert cli.run([*arguments, "--json"]) == 0, capsys.readouterr().err
    result: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_a_new_target_without_an_image_of_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = MiniGPRConfig(num_identities=6, images_per_identity=14, viewpoints=["0deg", "180deg"], **SIZE)
    render_minigpr(world, tmp_path / "source")
    aost(capsys, "index", str(tmp_path / "source"), "--output", str(tmp_path / "source.parquet"))
    for seed, name in enumerate(("market", "duke")):
        render_minimarket(MiniMarketConfig(seed=seed, **PHOTOS, **SIZE), tmp_path / name)
        catalog = str(tmp_path / f"{name}.parquet")
        aost(capsys, "index", str(tmp_path / name), "--layout", "market1501", "--output", catalog)
    source, market, duke = (str(tmp_path / f"{name}.parquet") for name in ("source", "market", "duke"))
    base, derived, direct = (str(tmp_path / name) for name in ("base", "derived", "direct"))
    settings = ["--serial", "--set", "network=vgg19", "weights=random", "height=32", "width=32"]
    measured = aost(capsys, "measure", source, "--targets", market, "--output", base, *settings)
    aost(capsys, "measure", source, "--targets", duke, "--output", direct, *settings)
    shutil.rmtree(tmp_path / "source")

    new = ["measure", "--from-sketches", base, "--targets", duke, "--output", derived]
    added = aost(capsys, *new)
    assert added["basis"] == measured["basis"]
    assert added["off_basis"] == measured["off_basis"]
    assert max(added["errors"]["market"]["percentile_95"]) < 0.01  # type: ignore[index]
    assert added["num_images"] == 84
    assert aost(capsys, *new) == added
    budget = ["--set", "budget.images=12", "evaluations=60", "objective=mean_distance"]
    scores = [
        aost(capsys, "search", source, "--measurements", folder, "--output", f"{folder}-search", *budget)["score"]
        for folder in (derived, direct)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)

    def refused(*arguments: str, code: int, said: str) -> None:
        assert cli.run(["measure", *arguments]) == code
        assert said in capsys.readouterr().err

    sketches = ("--from-sketches", base, "--output", str(tmp_path / "other"))
    refused(*sketches, "--targets", duke, duke, code=2, said="two targets have the same file name")
    refused(source, *sketches, "--targets", duke, code=2, said="--from-sketches reads no source")
    refused(*sketches, "--targets", duke, "--set", "height=64", code=2, said="unknown key 'height'")
    refused(source, "--targets", duke, "--output", derived, code=2, said="choose another --output")
    refused(*sketches[2:], "--targets", duke, code=2, said="nothing to measure")
    refused(*sketches[2:], "--from-sketches", str(tmp_path / "none"), "--targets", duke, code=3, said="no measurements")
