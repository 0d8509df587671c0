"""What bounds a search, selectors as arms, rounds and the guard: through the command line, on a tiny rendered world."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cluster import cli
from finegpr.catalog import Catalog

CONFIG = """
name: settings
world:
  source:
    {num_identities: 12, images_per_identity: 36, viewpoints: [0deg, 90deg, 180deg, 270deg], height: 48, width: 24}
  target:
    {height: 48, width: 24, num_train: 12, train_identities: 6, validation_identities: 1, test_identities: 4,
     num_distractors: 2, num_junk: 1}
measure: {network: vgg19, weights: random, height: 32, width: 32, basis_images: 16, style_coordinates: 4,
          content_coordinates: 8}
budget: {images: 24, identities: 6}
search: {evaluations: 80, optimizer: numpy_swarm+polish, optimizer_options: {population: 20}}
arms: [random, mmd_rbf, importance, snp]
train: {recipe: seconds, steps: 2, batch_size: 8}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose measurements the others share."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "run.yaml").write_text(CONFIG)
    assert cli.run(["run", str(folder / "run.yaml"), "--output", str(folder / "run"), "--serial"]) == 0
    return folder


def aost(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[dict[str, object], str]:
    assert cli.run([*arguments, "--json"]) == code, capsys.readouterr().err
    shown = capsys.readouterr()
    return json.loads(shown.out.splitlines()[-1]), shown.err


def paths(world: Path) -> tuple[str, str]:
    """Catalog and measurements of the finished run."""
    source = next(world.glob("run/index/*/source.parquet"))
    return str(source), str(next(path.parent for path in world.glob("run/measure/*/reference.json")))


def test_selectors_are_arms(world: Path) -> None:
    results = {row["arm"]: row["mAP"] for row in json.loads((world / "run" / "results.json").read_text())}
    assert list(results) == ["random", "mmd_rbf", "importance", "snp"]
    manifests = {
        arm: Catalog.read(next(world.glob(f"run/select/{arm}/*/seed0.parquet")))
        for arm in ("importance", "snp", "random")
    }
    for manifest in manifests.values():
        assert len(manifest) == 24
        assert manifest.frame["identity"].nunique() == 6
    assert len({tuple(manifest.frame["path"]) for manifest in manifests.values()}) == 3
    assert "snp" in (world / "run" / "report.html").read_text()


def test_bounds_of_the_space_hold(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, measurements = paths(world)
    settings = ["budget.images=24", "evaluations=60", "space.arcs=[viewpoint]", "space.least_values={weather: 2}"]
    settings += ["space.fixed={illumination: [noon, dusk]}", "optimizer=descent"]
    output = world / "bounded"
    found, said = aost(
        capsys, "search", source, "--measurements", measurements, "--output", str(output), "--set", *settings
    )
    assert str(found["choice"]) in said, "in words too"
    assert f"(median random {found['random_median']:.5g}, lower is better)" in said
    subset = json.loads((output / "subset.json").read_text())
    assert subset["illumination"] == ["dusk", "noon"]
    assert len(subset["weather"]) >= 2
    assert sorted(subset["viewpoint"]) not in (["0deg", "180deg"], ["270deg", "90deg"])
    words, _ = aost(
        capsys, "diff", str(world / "run" / "search" / "mmd_rbf" / "subset.json"), str(output / "subset.json"),
        "--catalog", source,
    )  # fmt: skip
    assert "noon" in str(words["new"])
    _, said = aost(
        capsys, "search", source, "--measurements", measurements, "--output", str(world / "no"),
        "--set", "budget.images=24", "space.arcs=[weather]", code=2,
    )  # fmt: skip
    assert "weather: neither circular nor ordinal" in said


def test_weights_are_searched_and_drawn(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, measurements = paths(world)
    output = world / "weighted"
    settings = ["budget.images=48", "evaluations=150", "space.levels=3"]
    aost(capsys, "search", source, "--measurements", measurements, "--output", str(output), "--set", *settings)
    subset = json.loads((output / "subset.json").read_text())
    weighted = [name for name, values in subset.items() if isinstance(values, dict)]
    assert weighted
    manifest = world / "weighted.parquet"
    aost(capsys, "select", source, "--subset", str(output / "subset.json"), "--images", "48", "--output", str(manifest))
    drawn = Catalog.read(manifest).frame[weighted[0]].value_counts()
    weights = {name: subset[weighted[0]].get(name, 0) for name in drawn.index}
    assert all(drawn[name] == 0 for name, weight in weights.items() if weight == 0)
    assert np.corrcoef(list(weights.values()), [drawn[name] for name in weights])[0, 1] > 0.3


def test_rounds_record_how_the_choice_moves(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, measurements = paths(world)
    output = world / "rounds"
    command = ["search", source, "--measurements", measurements, "--output", str(output), "--set"]
    command += ["budget.images=24", "evaluations=40", "rounds.rounds=geometric", "optimizer=random"]
    first, said = aost(capsys, *command)
    record = json.loads((output / "rounds.json").read_text())
    assert [each["num_target_images"] for each in record["rounds"]][:3] == [1, 2, 4]
    assert json.loads((output / "subset.json").read_text()) == record["rounds"][-1]["subset"]
    assert "the choice stands since" in said
    assert aost(capsys, *command)[0] == first


def test_a_journal_becomes_a_study(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optuna = pytest.importorskip("optuna")
    journal = str(world / "run" / "search" / "mmd_rbf" / "journal.jsonl")
    storage = str(world / "study.log")
    told, said = aost(capsys, "export", journal, "--storage", storage, "--study", "tiny")
    by_status = told["by_status"]
    assert isinstance(by_status, dict)
    assert sum(by_status.values()) == told["num_trials"]
    assert f"{by_status['scored']} evaluations of new subsets" in said
    assert f"{by_status.get('duplicate', 0)} proposed before" in said or by_status == {"scored": told["num_trials"]}
    backend = optuna.storages.journal.JournalFileBackend(storage)
    study = optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == told["num_trials"]
    _, said = aost(capsys, "export", journal, "--storage", storage, "--study", "tiny", code=3)
    assert "tiny" in said


def test_a_manifest_without_some_people_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["fairness.least_share=1", "arms=[random,mmd_rbf]"]
    done = world / "run"
    shutil.copytree(done, world / "fair", ignore=lambda folder, _: ["select", "train"] if folder == str(done) else [])
    _, said = aost(
        capsys, "run", str(world / "run.yaml"), "--output", str(world / "fair"), "--serial", "--set", *settings,
        code=7,
    )  # fmt: skip
    assert "arm mmd_rbf, seed 0: " in said
    assert "lower fairness.least_share" in said


def test_select_takes_a_subset_or_a_selector(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, measurements = paths(world)
    output = str(world / "picked.parquet")
    picked = ["select", source, "--selector", "snp", "--images", "20", "--output", output]
    assert aost(capsys, *picked, "--measurements", measurements)[0]["num_images"] == 20
    assert "--selector goes by --measurements" in aost(capsys, *picked, code=2)[1]


def test_a_target_that_was_not_measured_is_named_by_every_verb_that_takes_one(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, measurements = paths(world)
    of = ["--measurements", measurements, "--output", str(tmp_path / "o")]
    for verb, rest in (
        ("search", ["--target", "targt", "--set", "budget.images=24"]),
        ("search", ["--target", "targt", "--set", "budget.images=24", "objective=mean_distance", "rounds.rounds=once"]),
        ("select", ["--target", "targt", "--selector", "snp", "--images", "24"]),
        ("sweep", ["--targets", "target", "targt", "--set", "images=[24]"]),
    ):
        _, said = aost(capsys, verb, source, *of, *rest, code=2)
        assert said.splitlines()[-1] == "aost: target 'targt' was not measured, only target; did you mean 'target'?"
