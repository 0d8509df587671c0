"""Measured worlds, and Ray on two nodes of one machine; the Ray that tests share is that of ``tests/conftest.py``."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import cli
from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure


@pytest.fixture
def aost(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command line; gives the exit code and what is said."""

    def run(line: str, *more: str) -> tuple[int, str]:
        code = cli.run([*line.split(), *more])
        return code, capsys.readouterr().err

    return run


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


@pytest.fixture(scope="session")
def foggy(people: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``source.parquet`` of ``people``, and its ``measurements`` against 30 of its images of fog and snow light."""
    folder = tmp_path_factory.mktemp("foggy")
    people.write(folder / "source.parquet")
    rows = np.flatnonzero(people.frame["weather"].isin(["foggy", "snowlight"]).to_numpy())[:30]
    config = MeasureConfig(
        network="vgg19",
        height=32,
        width=32,
        weights="random",
        basis_images=20,
        style_coordinates=4,
        content_coordinates=8,
    )
    cells = people.cells(["viewpoint", "weather"])
    measure(config, people, {"foggy": people.take(rows)}, folder / "measurements", cells=cells)
    return folder


@pytest.fixture(scope="session")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``source.parquet`` and ``market.parquet`` of a tiny ``world``, and ``measurements`` of one against the other."""
    folder = tmp_path_factory.mktemp("trainable")
    source = ["num_identities=4", "images_per_identity=12", 'viewpoints=["0deg","90deg"]', "height=48", "width=24"]
    target = ["num_train=44", "train_identities=2", "validation_identities=2", "test_identities=1", "height=48"]
    target += ["width=24", "num_distractors=0", "num_junk=0"]
    settings = [f"source.{each}" for each in source] + [f"target.{each}" for each in target]
    small = ["network=vgg19", "weights=random", "height=32", "width=32", "basis_images=8", "style_coordinates=2"]
    measured = ["--output", f"{folder}/measurements", "--set", *small, "content_coordinates=4"]
    commands = [
        ["render", "--output", f"{folder}/world", "--set", *settings],
        ["index", f"{folder}/world/source", "--output", f"{folder}/source.parquet"],
        ["index", f"{folder}/world/target", "--layout", "market1501", "--output", f"{folder}/market.parquet"],
        ["measure", f"{folder}/source.parquet", "--targets", f"{folder}/market.parquet", "--serial", *measured],
    ]
    for command in commands:
        assert cli.run(command) == 0
    return folder
