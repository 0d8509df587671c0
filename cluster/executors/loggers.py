"""Where trials can be watched beside our own progress, by Ray Tune's callbacks: TensorBoard, MLflow, Weights & Biases.

TensorBoard's event files are written as trials report, to ``tensorboard/<trial>/`` of the output:

    tensorboard --logdir OUTPUT/tensorboard
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from finegpr.errors import ConfigError

Logger = Literal["tensorboard", "mlflow", "wandb"]

TENSORBOARD = "tensorboard"
MLFLOW = "mlflow.db"


def require_installed(names: Sequence[Logger]) -> None:
    """Raise ConfigError for a logger whose package is missing. TensorBoard's writer comes with Ray Tune."""
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ConfigError(f"logger {name} was asked for, and its package is not installed: pip install {name}")


def make_loggers(names: Sequence[Logger], output: Path) -> list[Any]:
    """Callbacks for ``TuneRun``; files go to ``output``, whose name is that of the MLflow experiment or W&B project."""
    require_installed(names)
    found: list[Any] = []
    for name in names:
        if name == "tensorboard":
            found.append(_tensorboard(output.resolve() / TENSORBOARD))
        elif name == "mlflow":
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            uri = f"sqlite:///{output.resolve() / MLFLOW}"
            found.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name=output.name))
        else:
            from ray.air.integrations.wandb import WandbLoggerCallback

            found.append(WandbLoggerCallback(project=output.name))
    return found


def _tensorboard(folder: Path) -> Any:
    """One run per trial, a curve for every number that it reports. Ray's own callback writes to a folder of Ray's that
    is copied when everything is over, and lost when it is killed."""
    from ray.tune.logger import LoggerCallback
    from ray.tune.result import AUTO_RESULT_KEYS
    from tensorboardX import SummaryWriter

    left_out = {*AUTO_RESULT_KEYS, "epoch"}

    class _TensorBoard(LoggerCallback):
        def __init__(self) -> None:
            self._writers: dict[Any, Any] = {}

        def __getstate__(self) -> dict[str, Any]:
            """Nothing: Tune saves its callbacks to the disk, and an open file cannot be saved."""
            return {}

        def log_trial_start(self, trial: Any) -> None:
            if trial not in self._writers:
                label = trial.config["trial"]["label"]
                self._writers[trial] = SummaryWriter(str(folder / _run_name(trial.config["trial"])))
                self._writers[trial].add_text("trial", label)

        def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
            del iteration
            step = result.get("epoch", result["training_iteration"])
            for name, value in result.items():
                if name not in left_out and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writers[trial].add_scalar(name, value, int(step))
            self._writers[trial].flush()

        def log_trial_end(self, trial: Any, failed: bool = False) -> None:
            del failed
            if trial in self._writers:
                self._writers.pop(trial).close()

    return _TensorBoard()


def _run_name(trial: dict[str, Any]) -> str:
    """A folder's name: readable, and unique by the trial's key."""
    return f"{re.sub(r'[^A-Za-z0-9_.+-]+', '_', trial['label']).strip('_')[:80]}-{trial['key'][:8]}"
