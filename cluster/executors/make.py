"""The executor that a command asks for."""

from cluster.executors.base import Executor
from cluster.executors.on_ray import RayExecutor
from cluster.executors.serial import SerialExecutor
from cluster.executors.session import RayConfig
from cluster.progress import say


def make_executor(serial: bool, ray: RayConfig, *, num_workers: int = 1, gpu: bool = False) -> Executor:
    """This process alone, or Ray, which starts when it is first needed."""
    if serial:
        say("serial: one process, without Ray")
        return SerialExecutor()
    return RayExecutor(ray, num_workers=num_workers, use_gpu=gpu)
