"""Trainings as trials of Ray Tune, and the verb. Those of the first tests are a stub (``stub_training.py``)."""

import json
import os
import runpy
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from cluster import cli
from cluster.executors.short_trainings import LATE, TuneTrainings, run_watched
from cluster.executors.training_config import TrainingVerbConfig
from finegpr.atomic import write_bytes
from finegpr.errors import ConfigError
from finegpr.reid.job import run_job
from finegpr.subset import Subset
from search.journal import JOURNAL
from search.loop import search
from search.objectives.training import training_objective
from search.objectives.training_config import TrainingConfig
from search.optimizers import make_optimizer

STUB = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "stub_training.py")))


def objective(folder, run):
    config = TrainingConfig(train=STUB.train_config(), rungs=(0.5, 1.0))
    return training_objective(config, STUB.space(), STUB.source(), STUB.target(), seed=0, folder=folder, run=run)


def run_search(folder, run):
    scored_by = objective(folder, run)
    options = {"population": 6}
    optimizer = make_optimizer("numpy_swarm", scored_by.space, seed=1, evaluations=7, options=options)
    return search(
        scored_by.space, scored_by, optimizer, folder, evaluations=7, config=scored_by.settings(), num_random=0
    )


def in_turn(fit):
    def run(trainings):
        for training in trainings:
            run_job(training, fit=fit)

    return run


def on_tune(ray, folder, fit, **settings):
    config = TrainingVerbConfig(train=STUB.train_config(), **settings)
    return TuneTrainings(ray, config, folder=folder, fit=fit)


def test_the_journal_through_tune_is_that_of_the_serial_loop(ray, tmp_path):
    stub_fit, log = STUB.stub_fit, str(tmp_path / "processes")

    def fit(config, train, **more):
        with open(log, "a") as stream:  # noqa: PTH123 (runs in another process, without this module)
            stream.write(f"{os.getpid()}\n")
        return stub_fit(config, train, **more)

    serial = run_search(tmp_path / "serial", in_turn(stub_fit))
    with on_tune(ray, tmp_path / "tuned", fit) as run:
        tuned = run_search(tmp_path / "tuned", run)
    assert tuned == serial
    assert serial.num_generations > 1
    assert (tmp_path / "tuned" / JOURNAL).read_bytes() == (tmp_path / "serial" / JOURNAL).read_bytes()
    processes = Path(log).read_text().split()
    assert str(os.getpid()) not in processes
    assert len(set(processes)) < len(processes)  # actors were used again
    assert not list((tmp_path / "tuned").glob(".tune-*"))
    runs = [events(folder) for folder in (tmp_path / "tuned" / "tensorboard").iterdir()]
    assert len(runs) == len(processes)
    scores = [value for run in runs for name, _, value in run if name == "mAP"]
    assert max(scores) == pytest.approx(serial.score, abs=1e-6)
    assert {step for run in runs for name, step, _ in run if name == "loss"} == {4, 8}
    assert any("red" in text for run in runs for name, _, text in run if name.startswith("trial"))


def events(folder):
    """What TensorBoard reads of one run: (name, step, number or text)."""
    found = []
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            for value in event.summary.value:
                text = "".join(each.decode() for each in value.tensor.string_val)
                found.append((value.tag, event.step, text or value.simple_value))
    return found


def test_trainings_that_hang_die_or_raise(ray, tmp_path):
    stub_fit, sleep, leave, died = STUB.stub_fit, time.sleep, os._exit, tmp_path / "died"

    def fit(config, train, **more):
        colours = set(train.frame["colour"])
        if colours == {"red"}:
            sleep(1e6)
        if colours == {"green"} and not died.exists():
            died.touch()
            leave(1)
        if colours == {"grey"}:
            raise ValueError("no such image")
        return stub_fit(config, train, **more)

    subsets = [Subset({"colour": [colour]}) for colour in ("red", "green", "grey", "blue")]
    with on_tune(ray, tmp_path, fit, timeout_seconds=3) as run:
        scored_by = objective(tmp_path, run)
        config = scored_by.config.train
        scored_by.run([written(scored_by, subset, config) for subset in subsets])
    results = [scored_by.training(subset, config).result() for subset in subsets]
    assert [result.failure for result in results] == ["took more than 3 s", None, "ValueError: no such image", None]
    assert died.exists()
    assert [not result.metrics for result in results] == [True, False, True, False]


@pytest.mark.slow
def test_a_training_that_always_kills_its_process_fails(ray, tmp_path):
    leave = os._exit

    def fit(*_, **__):
        leave(1)

    subset = Subset({"colour": ["red"]})
    with on_tune(ray, tmp_path, fit) as run:
        scored_by = objective(tmp_path, run)
        assert not scored_by.score([subset]) > 0
    assert scored_by.failure(subset).startswith("lost with its process 3 times: ")


def written(scored_by, subset, config):
    """A training whose manifest is there."""
    training = scored_by.training(subset, config)
    scored_by.source.take(scored_by.space.sampler.draw(subset, seed=0)).write(training.manifest)
    return training


def test_an_error_that_befalls_every_training_keeps_its_kind(ray, tmp_path):
    error = ConfigError("device cuda was asked for")

    def fit(*_, **__):
        raise error

    with pytest.raises(ConfigError, match="device cuda"), on_tune(ray, tmp_path, fit) as run:
        objective(tmp_path, run).score([Subset({"colour": ["red"]})])


def test_a_cluster_that_lacks_what_a_training_needs_is_named_at_once(ray, tmp_path):
    started = time.monotonic()
    with pytest.raises(ConfigError, match="needs 3 CPU, the cluster has 2"):
        TuneTrainings(ray, TrainingVerbConfig(train=STUB.train_config(threads=3)), folder=tmp_path)
    gpus = ray.cluster_resources().get("GPU", 0.0) + 1
    with pytest.raises(ConfigError, match=f"needs {gpus:g} GPU"):
        on_tune(ray, tmp_path, STUB.stub_fit, gpus=gpus)
    assert time.monotonic() - started < 30


def test_a_training_in_time_is_left_alone(tmp_path):
    scored_by = objective(tmp_path, in_turn(STUB.stub_fit))
    subset = Subset({"colour": ["red"]})
    scored_by.score([subset])
    training = scored_by.training(subset, scored_by.config.train)
    write_bytes(training.work / LATE, b"5")  # the watchdog fired while the result was being written
    found = run_watched(training, fit=STUB.stub_fit, report=lambda _: None, timeout_seconds=5)
    assert found == training.result()
    assert training.result().failure is None


BUDGET = ["budget.images=12", "budget.identities=4"]
TRAIN = ["training.train.recipe=seconds", "training.train.steps=2", "training.train.batch_size=8"]


def aost(capsys, trainable, *arguments, code=0):
    command = ["search", str(trainable / "source.parquet"), "--measurements", str(trainable / "measurements"), "--json"]
    assert cli.run([*command, *arguments]) == code, capsys.readouterr().err
    shown = capsys.readouterr()
    return json.loads(shown.out.splitlines()[-1]), shown.err


@pytest.mark.usefixtures("ray")
def test_true_trainings_through_the_command_line(trainable, tmp_path, capsys):
    validation = ["--validation", str(trainable / "market.parquet")]
    settings = [*BUDGET, *TRAIN, "objective=training", "optimizer=random", "evaluations=3"]
    journals = []
    for name, serial in (("tune", []), ("serial", ["--serial"])):
        output = tmp_path / name
        found, said = aost(capsys, trainable, *validation, *serial, "--output", str(output), "--set", *settings)
        assert 0 < found["score"] <= 1
        assert "3 trainings, 48 images through the network" in said
        assert Subset.from_json((output / "subset.json").read_text()).values
        journals.append((output / JOURNAL).read_bytes())
    assert journals[0] == journals[1]


def test_a_budget_of_gpu_seconds_bounds_the_search(trainable, tmp_path, capsys):
    settings = [*BUDGET, *TRAIN, "objective=training", "optimizer=random", "evaluations=9"]
    cost = ["training.seconds_per_image=0.5", "training.gpu_seconds=17"]  # 2 steps of 8 images cost 8 s
    command = ["--validation", str(trainable / "market.parquet"), "--serial", "--output", str(tmp_path)]
    _, said = aost(capsys, trainable, *command, "--set", *settings, *cost)
    assert "gpu_seconds pays for 2 of 9 subsets" in said
    assert "2 trainings, 32 images through the network, 16 GPU-seconds by the cost model" in said


def test_the_best_of_a_surrogate_are_trained(trainable, tmp_path, capsys):
    chosen = ["evaluations=30", "check.top=2", "check.random=2"]
    command = ["--validation", str(trainable / "market.parquet"), "--serial", "--output", str(tmp_path)]
    found, said = aost(capsys, trainable, *command, "--set", *BUDGET, *TRAIN, *chosen)
    ranking = json.loads((tmp_path / "true-ranking.json").read_text())
    assert found["best"] == ranking["trained"][0]["arm"]
    assert found["mAP"] == max(each["mAP"] for each in ranking["trained"])
    assert {each["arm"] for each in ranking["trained"]} == {"top 1", "top 2", "random 1", "random 2"}
    assert "mmd_rbf against training: Spearman" in said
    best = Subset.from_json((tmp_path / "subset-trained.json").read_text())
    assert best.to_record() == ranking["trained"][0]["subset"]


def test_a_target_without_labels_leads_a_search_when_asked_to(trainable, tmp_path, capsys):
    settings = [*BUDGET, *TRAIN, "objective=training", "optimizer=random", "evaluations=2"]
    photos = tmp_path / "photos.parquet"
    assert (
        cli.run(
            ["index", str(trainable / "world/target/bounding_box_train"), "--layout", "folder", "--output", str(photos)]
        )
        == 0
    )
    command = ["--validation", str(photos), "--serial", "--output", str(tmp_path / "search"), "--set", *settings]
    found, _ = aost(capsys, trainable, *command, code=2)
    assert "training.score=label_free" in found["error"]
    found, said = aost(capsys, trainable, *command, "training.score=label_free")
    assert found["score"] > 0
    assert f"training: label_free {found['score']:.4g}" in said


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--set", *BUDGET, "objective=training"], "give --validation"),
        (["--set", *BUDGET, *TRAIN], "give --validation"),
        (["--validation", "market", "--set", *BUDGET, *TRAIN, "training.score=label_free"], "ranked by true mAP"),
        (["--validation", "market", "--set", *BUDGET], "say which by"),
        (["--validation", "market", "--set", *BUDGET, *TRAIN, "objective=training", "scale=paper"], "scale has no"),
        (["--validation", "market", "--set", *BUDGET, *TRAIN, "training.rungs=[0.5,1]"], "rungs is for"),
        (["--validation", "market", "--serial", "--set", *BUDGET, *TRAIN, "training.timeout_seconds=5"], "--serial"),
        (["--validation", "source", "--serial", "--set", *BUDGET, *TRAIN, "objective=training"], "validation_query"),
        (["--validation", "market", "--set", *BUDGET, *TRAIN, "objective=training", "training.gpus=99"], "99 GPU"),
    ],
)
def test_settings_without_meaning_are_refused(trainable, tmp_path, capsys, arguments, reason):
    arguments = [str(trainable / f"{each}.parquet") if each in ("market", "source") else each for each in arguments]
    found, _ = aost(capsys, trainable, "--output", str(tmp_path), *arguments, code=2)
    assert reason in found["error"]
