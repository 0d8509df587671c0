"""The executor that a command asks for."""

import os
from pathlib import Path

from cluster.executors.base import Executor
from cluster.executors.on_ray import RayExecutor
from cluster.executors.serial import SerialExecutor
from cluster.executors.session import RayConfig
from cluster.progress import say
from finegpr.storage import writing


def make_executor(serial: bool, ray: RayConfig, *, num_workers: int = 1, gpu: bool = False) -> Executor:
    if serial:
        say("serial: one process, without Ray")
        return SerialExecutor()
    return RayExecutor(ray, num_workers=num_workers, use_gpu=gpu)


def require_writable(folder: Path) -> None:
    """Fail before any work when ``folder`` cannot be written."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
