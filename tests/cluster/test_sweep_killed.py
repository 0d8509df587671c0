"""A sweep is killed again and again, alone and on Ray, and comes to the same table; no finished chunk is redone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.verbs.sweep import CHUNKS, TABLE
from finegpr.storage import MARKER

pytestmark = pytest.mark.processes

SETTINGS = (
    *("objectives=[mmd_linear,mmd_rbf]", "images=[20,40]", "optimizers=[numpy_swarm,random]", "seeds=[0,1,2,3]"),
    *("attributes=[viewpoint,weather]", "evaluations=200", "chunk=2"),
)


@pytest.fixture(scope="module")
def world(foggy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Catalog and measurements of about 6 images in each of 4 x 7 cells."""
    folder = tmp_path_factory.mktemp("sweep")
    for name in ("source.parquet", "measurements"):
        (folder / name).symlink_to(foggy / name)
    return folder


def start(world: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    places = ("--measurements", str(world / "measurements"), "--output", str(world / name))
    command = [sys.executable, "-m", "cluster.cli", "sweep", str(world / "source.parquet"), *places, *options]
    return subprocess.Popen([*command, "--set", *SETTINGS], stderr=subprocess.DEVNULL)


def finished(folder: Path) -> dict[str, int]:
    """The finish marker of every chunk, and when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / CHUNKS).glob("*.json")}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_points(world: Path) -> None:
    """KILLS gives another number than 50; every fourth process is on Ray."""
    kills, generator = int(os.environ.get("KILLS", "50")), random.Random(int(os.environ.get("SEED", "0")))
    lasts, killed, place = {}, 0, 0
    for options in (("--serial",), ()):
        begun = time.monotonic()
        assert start(world, f"whole{len(options)}", *options).wait() == 0
        lasts[options] = time.monotonic() - begun
    expected = (world / "whole1" / TABLE).read_bytes()
    assert (world / "whole0" / TABLE).read_bytes() == expected
    while killed < kills or (world / f"cut{place}").exists():
        name, options = f"cut{place}", () if killed % 4 == 3 else ("--serial",)
        before = finished(world / name)
        process = start(world, name, *options)
        if killed < kills:
            try:
                process.wait(generator.uniform(0.3, 1.0) * lasts[options])
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
        assert process.wait() in (0, -signal.SIGKILL)
        if process.returncode == 0:
            assert (world / name / TABLE).read_bytes() == expected
            place += 1
        elif not (world / name / MARKER).exists():  # the chunks go when the table is there
            after = finished(world / name)
            assert {chunk: after.get(chunk) for chunk in before} == before, "a finished chunk was searched again"
    assert place >= 1
