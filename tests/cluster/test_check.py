"""What a run needs is known before its first stage, and said by ``aost check`` with the run's own exit code."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cluster import cli
from finegpr.storage import write_arrays

MEASURE = [
    "measure.network=vgg19",
    "measure.weights=random",
    "measure.height=32",
    "measure.width=32",
    "measure.basis_images=8",
]
SMALL = [*MEASURE, "train.recipe=seconds"]
SHORT = ["training.train.recipe=seconds", "check.top=1"]
Said = Callable[..., tuple[int, str]]


@pytest.fixture
def config(folders: Path, tmp_path: Path) -> Path:
    shutil.copytree(folders, tmp_path / "data")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"name: mine\nsource: {{root: {tmp_path}/data/source, layout: finegpr}}\n"
        f"target: {{root: {tmp_path}/data/target, layout: market1501}}\n"
        f"budget: {{images: 12}}\narms: [random, mmd_rbf, everything]\noutput: {tmp_path}/run\n"
    )
    return path


@pytest.fixture
def said(config: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def run(verb: str, *settings: str) -> tuple[int, str]:
        code = cli.run([verb, str(config), "--serial", "--set", *SMALL, *settings])
        return code, capsys.readouterr().err

    return run


def test_what_would_be_done_is_listed_and_nothing_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(config.parent.rglob("*"))
    assert cli.run(["check", str(config), "--serial", "--json", "--set", *SMALL, "seeds=[0,1]", *SHORT]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["arms"] == {"random": 12, "mmd_rbf": 12, "everything": 72}
    assert result["source"]["num_images"] == 72
    assert result["target"]["num_photos"] == 8
    estimates = {each["what"]: each for each in result["estimates"]}
    assert estimates["images measured"]["amount"] == 72
    assert estimates["trainings of arms"]["how"].startswith("6, 1800 steps")
    assert estimates["short trainings, at most"]["how"].startswith("6, ")
    assert all(each["amount"] > 0 and each["how"] for each in result["estimates"])
    assert sorted(config.parent.rglob("*")) == before


def spoil_weights(config: Path) -> list[str]:
    write_arrays(config.parent / "w.safetensors", {"a": np.zeros(2, np.float32)})
    return [f"train.weights={config.parent}/w.safetensors"]


def spoil_gallery(config: Path) -> list[str]:
    for path in (config.parent / "data/target/bounding_box_test").glob("*.jpg"):
        path.unlink()
    return []


def spoil_cameras(config: Path) -> list[str]:
    """Every query's person is seen in the gallery by the query's own camera only."""
    for side in ("query", "bounding_box_test"):
        for number, path in enumerate(sorted((config.parent / f"data/target/{side}").glob("*.jpg"))):
            path.rename(path.with_name(f"{path.name.split('_')[0]}_c1s1_{number:06d}_00.jpg"))
    return []


def spoil_validation(config: Path) -> list[str]:
    for name in ("validation_query", "validation_gallery"):
        shutil.rmtree(config.parent / f"data/target/{name}", ignore_errors=True)
    return SHORT


def forget_cameras(config: Path) -> list[str]:
    """The target as a table without a camera column."""
    rows = ["path,pid,part"]
    folders = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    for folder, part in folders.items():
        for path in sorted((config.parent / f"data/target/{folder}").glob("*.jpg")):
            rows.append(f"{folder}/{path.name},{int(path.name.split('_')[0])},{part}")
    (config.parent / "data/target/t.csv").write_text("\n".join(rows) + "\n")
    return ["target.layout=table", "target.options={table: t.csv, identity_column: pid, part_column: part}"]


def leave_people(config: Path, number: int) -> list[str]:
    for folder in sorted((config.parent / "data/source").glob("0*"))[number:]:
        shutil.rmtree(folder)
    return []


SPOILT: dict[str, tuple[Callable[[Path], list[str]], int, str]] = {
    "weights of another net": (spoil_weights, 3, "is not a small"),
    "weights that are not there": (lambda _: ["train.weights=/none.safetensors"], 3, "/none.safetensors"),
    "weights of measuring": (lambda _: ["measure.weights=/none.safetensors"], 3, "/none.safetensors"),
    "no gallery": (spoil_gallery, 3, "none in gallery"),
    "one camera": (spoil_cameras, 3, "cannot score a training"),
    "no validation part": (spoil_validation, 2, "validation"),
    "a budget above the source": (lambda _: ["budget.images=5000"], 3, "5000"),
    "a selector's budget": (lambda _: ["arms=[random, mmd_rbf, snp]", "budget.images=73"], 3, "73"),
    "people nobody sees": (
        lambda _: ["space.identity_attributes=[gender]", "arms=[random, frechet]"],
        2,
        "identity_attributes",
    ),
    "no truth": (lambda _: ["arms=[random, mmd_rbf, wrong_sky]"], 2, "wrong_sky"),
    "a device that is not there": (lambda _: ["train.device=cuda"], 2, "device cuda"),
    "shares of a batch": (lambda _: ["workers=3"], 2, "shared evenly"),
    "one image a process": (
        lambda _: ["train.loss=softmax", "train.batch_size=4", "workers=4"],
        2,
        "leaves 1 of its images to each",
    ),
    "no query's camera": (forget_cameras, 3, "has no camera for"),
    "one person": (lambda path: leave_people(path, 1), 3, "shows 1 identities and a training needs at least 2"),
    "a budget of one person": (lambda _: ["budget.identities=1"], 2, "needs at least 2 identities"),
    "no pairs in the budget": (lambda _: ["budget={images: 6, identities: 6}"], 2, "needs 2 images of one identity"),
    "no pairs in an arm": (lambda _: ["budget.images=6"], 3, "arm random trains on 6 images of as many identities"),
    "no pairs in short trainings": (
        lambda _: ["budget.images=6", "train.loss=softmax", *SHORT],
        3,
        "loss softmax+triplet needs 2 images of one identity",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_cannot_work_is_known_before_the_first_stage(case: str, config: Path, said: Said) -> None:
    spoil, code, text = SPOILT[case]
    settings = spoil(config)
    checked, told = said("check", *settings)
    assert (checked, text in told) == (code, True), told
    ran, told_by_run = said("run", *settings)
    assert ran == code
    assert told_by_run.splitlines()[-1] == told.splitlines()[-1]
    assert not (config.parent / "run/measure").exists()


def test_more_workers_than_cores_and_an_output_that_is_a_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["check", str(config), "--set", *SMALL]
    assert cli.run([*line, "ray.num_cpus=1", "workers=2"]) == 2
    assert "needs 2 CPU" in capsys.readouterr().err
    (config.parent / "run").touch()
    assert cli.run(line) == 6
    assert f"cannot write {config.parent}/run" in capsys.readouterr().err


def test_a_disk_without_room_is_refused_before_the_measuring(
    config: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.run.checks.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    for verb in ("check", "run"):
        code, told = said(verb)
        assert code == 6
        assert "GB are needed" in told
    assert not (config.parent / "run/measure").exists()


def test_a_cluster_that_is_not_there_is_known_before_the_first_stage(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("check", "run"):
        assert cli.run([verb, str(config), "--set", *SMALL, "ray.address=127.0.0.1:1"]) == 2
        assert "cannot be joined" in capsys.readouterr().err
    assert not (config.parent / "run/index").exists()


def unlabelled(config: Path) -> None:
    """The target as photos without labels."""
    config.write_text(
        config.read_text().replace(
            "/data/target, layout: market1501", "/data/target/bounding_box_train, layout: folder"
        )
    )


def test_that_photos_score_no_arm_is_said_before_the_first_stage_with_what_can_be_done(
    config: Path, said: Said
) -> None:
    assert "scored" not in said("check")[1]
    unlabelled(config)
    for number in range(40):
        shutil.copy(
            next((config.parent / "data/target/bounding_box_train").glob("*.jpg")), f"{config.parent}/p{number}.jpg"
        )
        shutil.move(f"{config.parent}/p{number}.jpg", config.parent / "data/target/bounding_box_train")
    code, told = said("check")
    assert code == 0
    assert "the arms are trained and not scored" in told
    assert "add the arm training, and training: {score: label_free, train: {recipe: seconds}}" in told
    offered = ["arms=[random,mmd_rbf,training]", "training={score: label_free, train: {recipe: seconds}}"]
    code, told = said("check", *offered)
    assert code == 0, told
    assert "the arm training goes by a score without labels" in told
    code, told = said("run", "train.steps=2", "train.batch_size=8", "search.evaluations=40")
    assert code == 0, told
    assert told.index("not scored") < told.index("measure\n")


def test_a_run_hands_over_what_it_chose_and_how_to_train_on_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [
        *SMALL,
        "train.steps=2",
        "train.batch_size=8",
        "search.evaluations=40",
        "arms=[mmd_rbf,random,mean_distance]",
    ]
    assert cli.run(["run", str(config), "--serial", "--json", "--set", *small]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out.splitlines()[-1])
    assert result["chosen"]["objective"] == "mmd_rbf"
    assert result["chosen"]["why"] in shown.err
    assert set(result["files"]) == {"subset", "manifest", "model", "metrics", "report"}
    assert set(result["arms"]["random"]) == {"manifest", "model", "metrics"}
    page = Path(result["report"]).read_text()
    for path in result["files"].values():
        assert Path(path).is_file()
        assert path in shown.err
        assert path in page or path == result["report"]
    assert result["next"] in shown.err
    assert result["next"] in page
    _, *command = shlex.split(result["next"])
    assert cli.run(command) == 0
    assert (tmp_path / "run-model/model.safetensors").read_bytes() == Path(result["files"]["model"]).read_bytes()


def test_photos_that_are_not_rendered_are_blurred_unless_they_are_asked_for(config: Path, said: Said) -> None:
    """Rendered data is shown, and its report is as the umask has it; photos are their owner's."""
    small = ["train.steps=2", "train.batch_size=8", "search.evaluations=40", "arms=[mmd_rbf,random]"]
    root = config.parent / "run"
    umask = os.umask(0o022)
    try:
        pages, modes = {}, {}
        for name, settings in (
            ("rendered", []),
            ("photos", []),
            ("shown", ["report.photos=shown"]),
            ("none", ["report.photos=none"]),
        ):
            if name == "photos":
                (config.parent / "data/target/world.json").unlink()
            code, told = said("run", *small, *settings)
            assert code == 0, told
            assert ("can be read by you only" in told) == (name in ("photos", "shown"))
            pages[name] = re.findall(r"base64,([^\"]+)", (root / "report.html").read_text().split("<script")[0])
            modes[name] = {each: (root / each).stat().st_mode & 0o777 for each in ("report.html", "report.json")}
    finally:
        os.umask(umask)
    assert pages["none"] == []
    assert pages["rendered"][-8:] == pages["shown"][-8:]
    assert pages["photos"][:-8] == pages["shown"][:-8], "the source is rendered"
    assert not set(pages["photos"][-8:]) & set(pages["shown"][-8:])
    assert set(modes["photos"].values()) == set(modes["shown"].values()) == {0o600}
    assert set(modes["rendered"].values()) == set(modes["none"].values()) == {0o644}
    assert (root / "images/pixels.npy").stat().st_mode & 0o777 == 0o600
    assert (root / "results.json").stat().st_mode & 0o777 == 0o644
