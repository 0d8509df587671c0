"""A run in which short trainings decide too: the arm ``training``, and the checked favourites of another search."""

import json
import shutil
from pathlib import Path

import pytest

from cluster import cli
from finegpr.reid.job import JobResult
from finegpr.subset import Subset
from search.journal import JOURNAL
from search.objectives.training import ShortTraining

CONFIG = """
name: tiny
world:
  source: {num_identities: 8, images_per_identity: 24, viewpoints: [0deg, 90deg], height: 48, width: 24}
  target:
    {height: 48, width: 24, num_train: 12, train_identities: 4, validation_identities: 3, test_identities: 3,
     num_distractors: 0, num_junk: 0}
measure:
  {network: vgg19, weights: random, height: 32, width: 32, images_per_cell: 1, basis_images: 8, style_coordinates: 2,
   content_coordinates: 4}
budget: {images: 16, identities: 4}
search: {evaluations: 60, optimizer: numpy_swarm}
train: {recipe: seconds, steps: 2, batch_size: 8}
training: {evaluations: 3, train: {recipe: seconds, steps: 2, batch_size: 8}}
check: {top: 2, random: 2}
arms: [random, mmd_rbf, checked_mmd_rbf, training]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run") / "run"
    assert cli.run(["run", str(config), "--output", str(root), "--serial"]) == 0
    return root


def test_short_trainings_choose_arms_and_stand_in_the_report(run: Path) -> None:
    data = json.loads((run / "report.json").read_text())
    assert {each["arm"] for each in data["results"]} == {"random", "mmd_rbf", "checked_mmd_rbf", "training"}
    assert {each["objective"] for each in data["choices"]} == {"mmd_rbf", "training"}
    assert data["main"] == "mmd_rbf"  # what is explained is what measurements decide
    (ranking,) = (run / "check" / "mmd_rbf").glob("*/true-ranking.json")
    record = json.loads(ranking.read_text())
    assert {each["arm"] for each in record["trained"]} == {"top 1", "top 2", "random 1", "random 2"}
    assert record["trained"][0]["mAP"] == max(each["mAP"] for each in record["trained"])
    (plan,) = (run / "select" / "checked_mmd_rbf").glob("*/plan.json")
    best = Subset(record["trained"][0]["subset"])
    assert json.loads(plan.read_text())["inputs"]["subset"] == best.key
    checked = [each for each in data["rank_agreements"] if "short trainings" in each["target"]]
    assert [each["arms"] for each in checked] == [record["agreement"]["arms"]]
    assert Subset.from_json((run / "search" / "training" / "subset.json").read_text()).values
    assert "short trainings" in (run / "report.html").read_text()


def test_the_same_command_trains_nothing_again_and_keeps_the_journal(
    run: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = (run / "search" / "training" / JOURNAL).read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("search.objectives.training.run_job", refuse)
    capsys.readouterr()
    assert cli.run(["run", str(config), "--output", str(run), "--serial"]) == 0
    assert "check/mmd_rbf: done before, skipped" in capsys.readouterr().err
    assert (run / "search" / "training" / JOURNAL).read_bytes() == journal


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["training=null", "check=null", "arms=[random,mmd_rbf,training]"], "describe them in training"),
        (["training=null", "arms=[random,mmd_rbf]"], "say how in training"),
        (["check=null"], "say by check how many"),
        (["check=null", "arms=[random,mmd_rbf]"], "training is not used"),
        (["arms=[random,training]"], "name an objective to search by"),
        (["arms=[random,mmd_rbf,checked_frechet]"], "unknown arm"),
        (["training.workers=2", "training.gpus=0.5"], "one whole GPU or none"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    changes: list[str], reason: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["run", str(config), "--output", str(tmp_path / "run"), "--serial", "--set", *changes]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_failed_trainings_are_named_in_the_report_and_never_best(
    run: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    shutil.copytree(run, root)
    for gone in ("search/training", "short-trainings", "check", "train/training", "train/checked_mmd_rbf"):
        shutil.rmtree(root / gone)
    journal = (run / "search" / "training" / JOURNAL).read_text().splitlines()
    scores = {json.loads(line)["score"] for line in journal[1:] if json.loads(line).get("score")}
    commit, failed = ShortTraining.commit, []

    def fails(training: ShortTraining, result: JobResult) -> None:
        if result.metrics.get("mAP", 0.0) >= max(scores) - 1e-12:
            failed.append(training.label)
            result = JobResult(failure="MemoryError: no memory for the batch")
        commit(training, result)

    monkeypatch.setattr(ShortTraining, "commit", fails)
    assert cli.run(["run", str(config), "--output", str(root), "--serial"]) == 0
    assert failed
    notes = json.loads((root / "report.json").read_text())["notes"]
    assert any("MemoryError: no memory for the batch" in note and failed[-1] in note for note in notes)
    chosen = Subset.from_json((root / "search" / "training" / "subset.json").read_text())
    assert chosen.key not in failed
