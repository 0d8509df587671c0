"""A search by training through Ray Tune loses its process, its terminal or a node, and comes to the same end."""

import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest

from cluster import cli
from cluster.executors.loggers import TENSORBOARD
from cluster.executors.ray_train import fit_on_workers
from cluster.executors.session import RayConfig, ray_session
from cluster.executors.short_trainings import TuneTrainings
from cluster.executors.training_config import TrainingVerbConfig
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.reid.job import run_job
from finegpr.reid.recipes import recipe
from finegpr.reid.train import Epoch
from search.journal import JOURNAL
from search.loop import search
from search.objectives.training import TRAININGS, training_objective
from search.objectives.training_config import TrainingConfig
from search.optimizers import make_optimizer
from search.space import Budget, Space

pytestmark = pytest.mark.processes

STUB_FILE = Path(__file__).parents[1] / "stub_training.py"
STUB = SimpleNamespace(**runpy.run_path(str(STUB_FILE)))
FAST_STUB = {"STUB_SECONDS": "0.2"}
EVALUATIONS = 20

# The stub, through Tune, with the signals of the command line.
SCRIPT = """
import os, runpy, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from cluster.cli import _install_signals
from cluster.executors.session import RayConfig, ray_session
from cluster.executors.short_trainings import TrainingVerbConfig, TuneTrainings
import test_train_search_lost as module

stub_fit = module.STUB.stub_fit
with ray_session(RayConfig(num_cpus=2)) as ray:
    config = TrainingVerbConfig(train=module.STUB.train_config(), loggers=())
    with TuneTrainings(ray, config, folder=Path(sys.argv[1]), fit=stub_fit) as run:
        print("ready", flush=True)
        result = module.run_search(Path(sys.argv[1]), run)
print(result.subset.key, result.score, flush=True)
"""


def run_search(folder, run):
    objective = training_objective(
        TrainingConfig(train=STUB.train_config(), rungs=(0.5, 1.0)),
        STUB.space(),
        STUB.source(),
        STUB.target(),
        seed=0,
        folder=folder,
        run=run,
    )
    options = {"population": 6}
    optimizer = make_optimizer("numpy_swarm", objective.space, seed=1, evaluations=EVALUATIONS, options=options)
    config = objective.settings()
    return search(objective.space, objective, optimizer, folder, evaluations=EVALUATIONS, config=config, num_random=0)


def serial(folder):
    folder.mkdir()
    return run_search(folder, lambda trainings: [run_job(each, fit=STUB.stub_fit) for each in trainings])


def results(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob(f"{TRAININGS}/*/done.json")}


def start(folder):
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, **FAST_STUB, "STUB_LOG": str(folder / "log"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(STUB_FILE), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_points(tmp_path):
    """50 kills take 20 minutes on two cores; KILLS gives another number."""
    kills, generator = int(os.environ.get("KILLS", "50")), random.Random(int(os.environ.get("SEED", "0")))
    expected = serial(tmp_path / "serial")
    whole = tmp_path / "whole"
    process, begun = start(whole), time.monotonic()
    out, _ = process.communicate()
    lasts = time.monotonic() - begun
    assert out == f"{expected.subset.key} {expected.score}\n"
    num_trainings = len((whole / "log").read_text().splitlines())
    killed = place = hits = 0
    while killed < kills or (tmp_path / f"cut{place}").exists():
        cut = tmp_path / f"cut{place}"
        process = start(cut)
        if killed < kills:
            try:
                process.wait(generator.uniform(0.2, 0.8) * lasts)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
                hits += 0 < len(results(cut)) < num_trainings
        again, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
        if process.returncode == 0:
            assert again == out
            assert (cut / JOURNAL).read_bytes() == (tmp_path / "serial" / JOURNAL).read_bytes()
            assert results(cut) == results(tmp_path / "serial")
            # A kill loses the two trainings that ran, and what had ended without having been written.
            assert len((cut / "log").read_text().splitlines()) <= num_trainings + 2 * killed
            place += 1
    assert hits > 0, "no kill came in the middle of a search"
    print(f"{killed} kills, {hits} of them in the middle, {place} searches that came to their end")


@pytest.mark.slow
def test_a_node_is_lost_during_a_generation(nodes, tmp_path):
    ray, cluster, second = nodes
    serial(tmp_path / "serial")
    notes, stub_fit, sleep, clock = tmp_path / "notes", STUB.stub_fit, time.sleep, time.time_ns
    notes.mkdir()
    doomed = second.node_id

    def fit(config, train, **more):
        import ray

        node, key = ray.get_runtime_context().get_node_id(), more["output"].parent.parent.name
        (notes / f"{clock()}-{node}-{key}-begun").touch()
        patience = clock() + 90 * 10**9
        while len({path.name.split("-")[1] for path in notes.glob("*-begun")}) < 2 and clock() < patience:
            sleep(0.1)  # until the other node has begun one too
        if node == doomed:
            while not list(notes.glob("*-ended")) and clock() < patience:
                sleep(0.1)
            (notes / f"{clock()}-{node}-{key}-doomed").touch()
            sleep(60)  # a worker would end what it has begun before it sees that its node is gone
        sleep(0.5)
        fitted = stub_fit(config, train, **more)
        (notes / f"{clock()}-{node}-{key}-ended").touch()
        return fitted

    def noted(what):
        return [path.name.split("-")[1:3] for path in sorted(notes.glob(f"*-{what}"))]

    folder, tuned = tmp_path / "tuned", []
    config = TrainingVerbConfig(train=STUB.train_config(), loggers=())
    with TuneTrainings(ray, config, folder=folder, fit=fit) as run:
        job = Thread(target=lambda: tuned.append(run_search(folder, run)))
        job.start()
        while not noted("doomed"):
            assert job.is_alive()
            sleep(0.02)
        cluster.remove_node(second, allow_graceful=False)
        lost = {key for _, key in noted("doomed")}
        job.join()
    begun = noted("begun")
    assert len({node for node, _ in begun}) == 2, "trainings ran on both nodes"
    for key in lost:
        homes = [node for node, begun_key in begun if begun_key == key]
        assert homes[0] == second.node_id
        assert homes[-1] != second.node_id, f"training {key} was not begun again elsewhere"
    assert (folder / JOURNAL).read_bytes() == (tmp_path / "serial" / JOURNAL).read_bytes()
    assert results(folder) == results(tmp_path / "serial")


def command(trainable, output):
    places = ["--validation", str(trainable / "market.parquet"), "--output", str(output)]
    settings = ["budget.images=12", "budget.identities=4", "objective=training", "optimizer=random", "evaluations=16"]
    settings += ["training.train.recipe=seconds", "training.train.steps=100", "training.train.batch_size=8"]
    return ["search", str(trainable / "source.parquet"), *places, "--set", *settings]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray")
def test_true_trainings_are_ended_by_signals_and_go_on(trainable, tmp_path, capsys):
    assert cli.run([*command(trainable, tmp_path / "serial"), "--serial"]) == 0
    folder, program = tmp_path / "cut", "import sys; from cluster.cli import main; main(sys.argv[1:])"
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGKILL, -9)):
        process = subprocess.Popen([sys.executable, "-c", program, *command(trainable, folder)], stderr=subprocess.PIPE)
        finished = len(results(folder))
        # Two train at a time, so one does while another has just ended.
        while len(results(folder)) == finished:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        process.send_signal(number)
        sent = time.monotonic()
        process.wait()
        took = time.monotonic() - sent
        said = process.stderr.read()  # closed only when Ray's own processes are gone too
        assert process.returncode == code, said.decode()
        assert len(results(folder)) >= finished
        with capsys.disabled():
            print(f"\n{signal.Signals(number).name}: exit {code} after {took:.2f} s", end="")
        assert b"Traceback" not in said
    assert cli.run(command(trainable, folder)) == 0
    for name in (JOURNAL, "subset.json"):
        assert (folder / name).read_bytes() == (tmp_path / "serial" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray")
def test_one_training_of_a_search_on_two_workers(trainable, tmp_path):
    source, market = (Catalog.read(trainable / f"{name}.parquet") for name in ("source", "market"))
    config = TrainingVerbConfig(train=recipe("seconds").model_copy(update={"steps": 4, "batch_size": 16}), workers=2)
    space = Space.of(source, Budget(images=24, identities=4), seed=0, attributes=["viewpoint"])
    with ray_session(RayConfig(num_cpus=2)) as ray, pytest.raises(ConfigError, match=r"needs 2.01 CPU"):
        TuneTrainings(ray, config, folder=tmp_path)
    with ray_session(RayConfig(num_cpus=3)) as ray:
        with TuneTrainings(ray, config, folder=tmp_path) as run:
            objective = training_objective(
                config.objective_config, space, source, market, seed=0, folder=tmp_path, run=run
            )
            subset = space.subset(np.ones(2, dtype=bool))
            (score,) = objective.score([subset])
        validation = market.part("validation_query", "validation_gallery")
        manifest = source.take(space.sampler.draw(subset, seed=0))
        places = {"validation": validation, "output": tmp_path / "again", "seed": 0}
        told: list[Epoch] = []
        again = fit_on_workers(
            config.train, manifest, **places, ray=ray, num_workers=2, use_gpu=False, report=told.append
        )
    assert tuple(told) == again.history
    assert score == pytest.approx(again.history[-1].metrics["mAP"], abs=1e-12)
    assert 0 < score <= 1
    assert (tmp_path / TENSORBOARD).is_dir()
