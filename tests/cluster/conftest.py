"""Ray on two nodes of one machine, and no Ray at all; the one that most tests share is in ``tests/conftest.py``."""

import os
from collections.abc import Iterator
from typing import Any

import pytest


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
