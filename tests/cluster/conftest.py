"""Ray for the tests: one of this process that most share, two nodes of one machine, and none at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cluster.executors.session import RayConfig, ray_session


@pytest.fixture(scope="session")
def start_ray() -> Iterator[Callable[[], Any]]:
    """Gives ray, with a local cluster of two CPUs that is started when none runs and stopped after the last test."""
    with ExitStack() as running:

        def start() -> Any:
            import ray

            if not ray.is_initialized():
                running.close()  # of one that another test has stopped
                running.enter_context(ray_session(RayConfig(num_cpus=2)))
            return ray

        yield start


@pytest.fixture
def ray(start_ray: Callable[[], Any]) -> Any:
    """ray, connected to a cluster of two CPUs that all tests share; a command that is run here joins it."""
    return start_ray()


@pytest.fixture
def no_ray() -> None:
    """For a test that starts a Ray of its own: the shared one is stopped."""
    import ray

    ray.shutdown()


@pytest.fixture
def nodes(no_ray: None) -> Iterator[tuple[Any, Any, Any]]:  # noqa: ARG001 (only asked for)
    """ray, the cluster, and its second node; each node has two CPUs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    yield ray, cluster, second
    ray.shutdown()
    cluster.shutdown()
