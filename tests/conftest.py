"""For the tests of every ring: how they are dealt to two workers, and a Ray and an S3 server of each."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from finegpr.catalog import Catalog

# Two workers share two cores, and what a test starts inherits this; more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RAY_FIXTURES = ("ray", "nodes", "no_ray")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the tests into the groups of ``--dist loadgroup``, the one that takes longest first.

    * Tests that start Ray (a fixture with Ray, or the marker ``processes`` outside the rings that know none) are one
      group: two Rays at once would wait for each other's cores. Those that start a Ray of their own come last, and stop
      the one that the others share.
    * Tests of the other rings that kill processes (the marker ``processes``) are a group for the other worker.
    * Tests that need a GPU are another.
    * Tests that share a fixture of their module stay together, so that it is made once.
    """
    order = {id(item): _deal(item) for item in items}
    for item in items:
        group = order[id(item)][1]
        if group and getattr(config.option, "loadgroup", False):  # in a worker of pytest-xdist
            # The scheduler takes a group from the end of the id. pytest-xdist 3.8 itself writes that of its marker to
            # Item._nodeid, which pytest 9.2 no longer reads, so that the marker xdist_group does nothing.
            item._id = type(item.id).parse(f"{item.nodeid}@{group}")
    items.sort(key=lambda item: order[id(item)][0])


def _deal(item: pytest.Item) -> tuple[int, str]:
    """When a test's turn comes, and the group it belongs to, if any."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if item.get_closest_marker("processes") or fixtures.intersection(RAY_FIXTURES):
        if item.path.parent.name in ("finegpr", "search"):
            return 0, "killed"
        return 1 if fixtures.intersection(RAY_FIXTURES[1:]) else 0, "ray"
    if item.get_closest_marker("gpu"):
        return 2, "gpu"
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    if any(each.scope == "module" for found in definitions.values() for each in found):
        return 3, item.nodeid.split("::")[0]
    return 4, ""


@pytest.fixture(scope="session")
def start_ray() -> Iterator[Callable[[], Any]]:
    """Gives ray, with a local cluster of two CPUs that is started when none runs and stopped after the last test."""
    from cluster.executors.session import RayConfig, ray_session

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


class Store:
    """A bucket, and how to put things into it."""

    address = "s3://worlds"

    def __init__(self, client: Any) -> None:
        self.client = client
        client.create_bucket(Bucket="worlds")

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket="worlds", Key=key, Body=data)

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Copy a folder; returns the copy's address."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.address}/{prefix}"


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """The server is found through the environment, as a user's is."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield Store(boto3.client("s3", region_name="us-east-1"))
    server.stop()


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> "Catalog":
    """168 rendered images of 6 people, about 6 in each of 4 viewpoints x 7 weathers; ``source.parquet`` in its root."""
    from finegpr.catalog import Catalog
    from finegpr.render.minigpr import MiniGPRConfig, render_minigpr

    root = tmp_path_factory.mktemp("people")
    render_minigpr(MiniGPRConfig(num_identities=6, images_per_identity=28, viewpoints=90, height=32, width=16), root)
    catalog = Catalog.index(root, layout="finegpr")
    catalog.write(root / "source.parquet")
    return catalog


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``source``, 6 people with 12 images each, and ``target``, a small Market: folders as a user would have them."""
    from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
    from finegpr.render.minimarket import MiniMarketConfig, render_minimarket

    root = tmp_path_factory.mktemp("folders")
    source = MiniGPRConfig(num_identities=6, images_per_identity=12, viewpoints=["0deg", "180deg"], height=48, width=24)
    target = MiniMarketConfig(
        num_train=8,
        train_identities=4,
        validation_identities=1,
        test_identities=3,
        num_distractors=0,
        num_junk=0,
        height=48,
        width=24,
    )
    render_minigpr(source, root / "source")
    render_minimarket(target, root / "target")
    return root
