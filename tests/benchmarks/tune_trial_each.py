"""A whole search in one process against the same with one Ray Tune trial for every subset.

    python tests/benchmarks/tune_trial_each.py [--trials 50] [--evaluations 10000] [--output results/tune-trial-each.md]

A search of --evaluations subsets by the default optimizer is timed in one process. Then --trials of its subsets are
scored by Ray Tune, one trial each, with actors that are reused, two at a time; the time per trial, start-up apart, is
extrapolated to all of them. Both score the same subsets with the same objective of 1,764 cells.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cluster.executors.session import RayConfig, ray_session
from search.loop import SearchResult, search
from search.objectives import CellObjective, make_objective
from search.optimizers import make_optimizer
from search.simulation import simulate
from search.space import Budget, Space


def problem() -> CellObjective:
    """FineGPR's 36 x 7 x 7 cells, two of twelve people measured in each."""
    simulation = simulate((36, 7, 7), seed=0, identities_per_cell=2)
    space = Space(
        simulation.cells, simulation.identity, Budget(images=600, identities=10, least=0.03, most=0.12), seed=0
    )
    return make_objective("mmd_rbf", space, simulation.measured)


def whole_search(objective: CellObjective, evaluations: int) -> tuple[SearchResult, float]:
    """The result and its seconds, with the making of the optimizer and the journal's writing."""
    started = time.perf_counter()
    optimizer = make_optimizer("swarm", objective.space, seed=0, evaluations=evaluations)
    with tempfile.TemporaryDirectory() as folder:
        result = search(
            objective.space, objective, optimizer, Path(folder), evaluations=evaluations, config={}, num_random=0
        )
    return result, time.perf_counter() - started


def tune_trials(ray: Any, objective: CellObjective, result: SearchResult, num_trials: int) -> tuple[float, float]:
    """Seconds until the first trial has ended, and seconds per trial after it."""
    from ray import tune

    scored = [trial for trial in result.history if trial.status == "scored"][:num_trials]
    shared = ray.put(objective)
    ends: list[float] = []

    class Score(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._objective = ray.get(shared)
            self._subset = config["subset"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._subset = new_config["subset"]
            return True

        def step(self) -> dict[str, Any]:
            return {"score": float(self._objective.score([self._subset])[0]), "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None: ...

        def load_checkpoint(self, checkpoint: Any) -> None: ...

    class Ends(tune.Callback):
        def __getstate__(self) -> dict[str, Any]:
            return {}

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            del iteration, trials, trial, info
            ends.append(time.perf_counter())

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            Score,
            param_space={"subset": tune.grid_search([trial.subset for trial in scored])},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=2),
            run_config=tune.RunConfig(name="each", storage_path=folder, verbose=0, callbacks=[Ends()]),
        ).fit()
    scores = [(results[place].metrics or {})["score"] for place in range(len(results))]
    np.testing.assert_allclose(scores, np.array([trial.score for trial in scored], dtype=float), rtol=1e-9)
    return ends[0] - started, (ends[-1] - ends[0]) / (len(ends) - 1)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=Path("results/tune-trial-each.md"))
    given = parser.parse_args(arguments)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    objective = problem()
    result, seconds = whole_search(objective, given.evaluations)
    with ray_session(RayConfig(num_cpus=2)) as ray:
        startup, per_trial = tune_trials(ray, objective, result, given.trials)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    trials, proposals = result.num_evaluations, len(result.history)
    all_trials = startup + per_trial * trials
    text = f"""# A whole search against one Ray Tune trial for every subset

`python tests/benchmarks/tune_trial_each.py --trials {given.trials} --evaluations {given.evaluations}`, commit {commit},
{time.strftime("%Y-%m-%d")}, {os.cpu_count()} cores of {platform.machine()}, load {os.getloadavg()[0]:.1f}.

| what | seconds |
| --- | --- |
| one process, {trials} new subsets of {proposals} proposals, with its journal | {seconds:.1f} |
| one Tune trial, actors reused, two at a time (mean of {given.trials - 1} after the first) | {per_trial:.3f} |
| start of Tune until its first trial has ended | {startup:.1f} |
| all {trials} as Tune trials, **extrapolated** from {given.trials} | {all_trials:.0f} |

**{all_trials / seconds:.0f} times** as long. So a surrogate search is one trial of a sweep, not
ten thousand trials; a trial per subset is for real trainings.
"""
    given.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
