"""Seconds that a training costs beyond ``fit`` itself: in this process, and as a trial of Ray Tune in a reused actor.

    python tests/benchmarks/tune_overhead.py [--trainings 44] [--output results/tune-overhead.md]

``fit`` is a stub that sleeps for 0.2 s and reads no image. Beyond it, from the end of one to the beginning of the next
in the same process, are: writing the result, what Tune does, and reading the next manifest. Two run at a time.
"""

import argparse
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cluster.executors.session import RayConfig, ray_session
from cluster.executors.short_trainings import TuneTrainings
from cluster.executors.training_config import TrainingVerbConfig
from finegpr.reid.job import Fit, run_job
from finegpr.reid.train import FitResult
from search.analysis.true_ranking import random_subsets
from search.objectives.training import RunAll, ShortTraining, training_objective
from search.objectives.training_config import TrainingConfig

STUB = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "stub_training.py")))
FIT_SECONDS = 0.2


def logged(log: Path) -> Fit:
    """The stub, which leaves a line of process, beginning and end."""
    stub_fit, where, clock, sleep, process = STUB.stub_fit, str(log), time.monotonic, time.sleep, os.getpid

    def fit(*arguments: Any, **more: Any) -> FitResult:
        begun = clock()
        sleep(FIT_SECONDS)
        result: FitResult = stub_fit(*arguments, **more)
        with open(where, "a") as stream:  # noqa: PTH123 (runs in another process, without this module)
            stream.write(f"{process()} {begun} {clock()}\n")
        return result

    return fit


def gaps(log: Path) -> tuple[list[float], list[float]]:
    """Seconds between two fits of the same process, and when each fit began."""
    of_process: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        process, begun, ended = line.split()
        of_process[process].append((float(begun), float(ended)))
    found = [after[0] - before[1] for fits in map(sorted, of_process.values()) for before, after in pairwise(fits)]
    return found, [begun for fits in of_process.values() for begun, _ in fits]


def train_all(folder: Path, num: int, run: RunAll) -> list[tuple[float, float]]:
    """Twice: when a batch of ``num`` subsets began, and when it had ended."""
    config = TrainingConfig(train=STUB.train_config())
    objective = training_objective(config, STUB.space(), STUB.source(), STUB.target(), seed=0, folder=folder, run=run)
    subsets = random_subsets(objective.space, 2 * num, without=set())
    ends = []
    for batch in (subsets[:num], subsets[num:]):
        started = time.monotonic()
        assert np.isfinite(objective.score(batch)).all()
        ends.append((started, time.monotonic()))
    return ends


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trainings", type=int, default=44)
    parser.add_argument("--output", type=Path, default=Path("results/tune-overhead.md"))
    given = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    num = given.trainings // 2
    with tempfile.TemporaryDirectory() as name, ray_session(RayConfig(num_cpus=2)) as ray:
        folder = Path(name)
        serial_fit = logged(folder / "serial-log")

        def in_turn(trainings: Sequence[ShortTraining]) -> None:
            for each in trainings:
                run_job(each, fit=serial_fit)

        train_all(folder / "serial", num, in_turn)
        serial, _ = gaps(folder / "serial-log")
        config = TrainingVerbConfig(train=STUB.train_config(), timeout_seconds=60)
        opened = time.monotonic()
        with TuneTrainings(ray, config, folder=folder / "tune", fit=logged(folder / "tune-log")) as run:
            first, second = train_all(folder / "tune", num, run)
            closing = time.monotonic()
        closed = time.monotonic()
        tuned, begun = gaps(folder / "tune-log")
        before = first[0] - opened
        waits = [min(each for each in begun if each > started) - started for started, _ in (first, second)]
        took = [ended - started for started, ended in (first, second)]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    rows = "\n".join(
        f"| {what} | {np.median(found):.3f} | {np.percentile(found, 5):.3f} to {np.percentile(found, 95):.3f} "
        f"| {len(found)} |"
        for what, found in (("in this process", serial), ("Ray Tune, reused actor", tuned))
    )
    text = f"""# What a training costs beyond `fit`

`python tests/benchmarks/tune_overhead.py --trainings {given.trainings}`, after commit {commit},
{time.strftime("%Y-%m-%d")}, {os.cpu_count()} cores of {platform.machine()}, load {load:.1f} at the start.
`fit` is a stub of {FIT_SECONDS} s that reads no image; from its end to the next one's beginning in the same process:

| where | median seconds | 5 % to 95 % | pairs |
| --- | --- | --- | --- |
{rows}

Two generations of {num} trainings in one Tune run, two at a time, TensorBoard's files written: {took[0]:.1f} s and
{took[1]:.1f} s. Before the first `fit` of the first began, {before + waits[0]:.1f} s passed (Tune starts, a process
imports torch); before that of the second, {waits[1]:.2f} s. Of several idle actors Tune keeps one, so from the second
generation on the others start again while it works. Closing took {closed - closing:.1f} s, once.
"""
    given.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
