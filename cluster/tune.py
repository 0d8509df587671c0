"""Many trainings as one Ray Tune run: each trial is one real training in an actor that is used again for the next."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.progress import Tick
from cluster.runtime import require_resources
from cluster.trial import run_trial
from finegpr.errors import AostError

MAX_FAILURES = 2


def run_trials(
    ray: Any,
    trials: Sequence[dict[str, Any]],
    *,
    cpus: float,
    gpus: float,
    storage: Path,
    tick: Tick,
) -> None:
    """Run every trial by ``run_trial``. Raises AostError with the first failure's reason."""
    lost = try_trials(ray, trials, run_trial, cpus=cpus, gpus=gpus, storage=storage, tick=tick)
    if lost:
        raise AostError(f"{len(lost)} of {len(trials)} training trials failed; the first: {lost[0]}")


def try_trials(
    ray: Any,
    trials: Sequence[dict[str, Any]],
    run: Callable[[dict[str, Any]], dict[str, float]],
    *,
    cpus: float,
    gpus: float,
    storage: Path,
    tick: Tick,
) -> list[str]:
    """``run`` every trial; each commits its own result to disk and is safe to run twice. A trial has a ``label``.

    A trial lost with its process or node is run again at most twice. Returns why trials were lost for good, in one line
    each. Raises an AostError that ``run`` raised, and ConfigError when the cluster lacks the CPUs or GPUs.
    """
    from ray import tune

    require_resources(ray, cpus=cpus, gpus=gpus, what="a training trial")

    num_trials = len(trials)

    class _Trial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._trial = config["trial"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._trial = new_config["trial"]
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing: ``fit`` keeps its own states in the trial's folder, and goes on from them."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Nothing, see ``save_checkpoint``."""

        def step(self) -> dict[str, Any]:
            # An error of ours would come again however often Ray tried; a lost node would not.
            try:
                return {**run(self._trial), "done": True}
            except AostError as error:
                return {"error": str(error), "exit_code": error.exit_code, "done": True}

    class _Ticks(tune.Callback):
        def __init__(self, tick: Tick) -> None:
            self._tick = tick
            self._done = 0

        def __getstate__(self) -> dict[str, Any]:
            """Nothing: Tune saves its callbacks to the disk, and a bar on a terminal cannot be saved."""
            return {}

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            del iteration, trials, info
            self._done += 1
            self._tick(self._done, num_trials, trial.config["trial"]["label"])

    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune's own handler would turn Ctrl-C into an ordinary end, with trials missing.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    results = tune.Tuner(
        tune.with_resources(_Trial, {"cpu": cpus, "gpu": gpus}),
        param_space={"trial": tune.grid_search(list(trials))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(storage.resolve()),
            verbose=0,
            callbacks=[_Ticks(tick)],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    ).fit()
    for number in range(len(results)):
        result = results[number]
        if result.metrics and "error" in result.metrics:
            raise with_code(result.metrics["error"], result.metrics["exit_code"])
    lost = [str(error).strip().splitlines()[-1] for error in results.errors]
    if not lost:
        # What Tune wrote of a lost trial may say why.
        shutil.rmtree(storage, ignore_errors=True)
    return lost


def with_code(message: str, exit_code: int) -> AostError:
    """The error that a worker process had, by its exit code."""
    kinds = {kind.exit_code: kind for kind in AostError.__subclasses__()}
    return kinds.get(exit_code, AostError)(message)
