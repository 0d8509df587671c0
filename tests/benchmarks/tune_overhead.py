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
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cluster.runtime import RayConfig, ray_session
from cluster.train_search import TuneTrainings
from finegpr.reid.train import FitResult
from search.training import Fit, RunAll, TrainingConfig, run_training, training_objective
from search.true_ranking import random_subsets

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


def gaps(log: Path) -> tuple[list[float], float, int]:
    """Seconds between two fits of the same process, when the first began, and the number of processes."""
    of_process: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        process, begun, ended = line.split()
        of_process[process].append((float(begun), float(ended)))
    found = [after[0] - before[1] for fits in map(sorted, of_process.values()) for before, after in pairwise(fits)]
    return found, min(begun for fits in of_process.values() for begun, _ in fits), len(of_process)


def train_all(folder: Path, num: int, run: RunAll) -> tuple[float, float]:
    """When the training of ``num`` subsets began, and what it took, in seconds."""
    config = TrainingConfig(train=STUB.train_config())
    objective = training_objective(config, STUB.space(), STUB.source(), STUB.target(), seed=0, folder=folder, run=run)
    subsets = random_subsets(objective.space, num, without=set())
    started = time.monotonic()
    assert np.isfinite(objective.score(subsets)).all()
    return started, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trainings", type=int, default=44)
    parser.add_argument("--output", type=Path, default=Path("results/tune-overhead.md"))
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, ray_session(RayConfig(num_cpus=2)) as ray:
        folder = Path(name)
        serial_fit = logged(folder / "serial-log")
        train_all(
            folder / "serial", given.trainings, lambda all_: [run_training(each, fit=serial_fit) for each in all_]
        )
        serial, _, _ = gaps(folder / "serial-log")
        tune = TuneTrainings(
            ray, cpus=1.0, gpus=0.0, storage=folder / "tune", timeout_seconds=60, fit=logged(folder / "tune-log")
        )
        started, seconds = train_all(folder / "tune", given.trainings, tune)
        tuned, first, processes = gaps(folder / "tune-log")
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

{given.trainings} trainings through Tune, two at a time in {processes} processes: {seconds:.1f} s, of which
{first - started:.1f} s passed before the first `fit` began (Tune starts, a process imports torch). That start is paid
by every generation, and by every rung of one.
"""
    given.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
