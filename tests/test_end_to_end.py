"""The main job on a tiny rendered world: Ray equals serial, a kill changes nothing, a finished run is skipped."""

import contextlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from finegpr.storage import read_table

pytestmark = pytest.mark.processes

Forked = runpy.run_path(str(Path(__file__).parent / "forked.py"))["Forked"]

CONFIG = """
name: tiny
world:
  source: {num_identities: 14, images_per_identity: 49, viewpoints: [0deg, 90deg, 180deg], height: 64, width: 32}
  target:
    height: 64
    width: 32
    num_train: 30
    train_identities: 10
    validation_identities: 1
    test_identities: 6
    num_distractors: 4
    num_junk: 3
    distribution: {viewpoint: [0deg, 90deg], weather: [clouds, neutral], illumination: [dusk, afternoon]}
measure:
  {network: vgg19, weights: random, height: 64, width: 32, images_per_cell: 1, basis_images: 20, style_coordinates: 6,
   content_coordinates: 12, batch_size: 8, images_per_shard: 16}
budget: {images: 24, identities: 8}
search: {evaluations: 160}
arms: [random, mean_distance, mmd_rbf, true_distribution, wrong_illumination, everything]
keep: mmd_rbf
train: {recipe: seconds, steps: 6, batch_size: 16}
ray: {num_cpus: 2}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def serial(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run without Ray."""
    root = tmp_path_factory.mktemp("serial") / "run"
    assert cli.run(["run", str(config), "--output", str(root), "--serial"]) == 0
    return root


@pytest.fixture
def command(config: Path) -> Iterator[Callable[[Path], Any]]:
    """Starts the serial run in a process of its own."""
    started: list[Any] = []

    def start(root: Path) -> Any:
        process = Forked("cluster.cli", ["run", str(config), "--output", str(root), "--serial"])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def measured_rows(root: Path) -> dict[int, Any]:
    """Every measured image's columns, by catalog row."""
    rows: dict[int, Any] = {}
    for shard in sorted(root.glob("measure/*/shard-*.parquet")):
        for record in read_table(shard).to_pylist():
            rows[record["row"]] = record
    return rows


def assert_same_run(root: Path, reference: Path) -> None:
    """Same measurements, same journals byte for byte, same subsets, same metrics."""
    assert measured_rows(root) == measured_rows(reference)
    journals = sorted(path.relative_to(reference) for path in reference.glob("search/*/journal.jsonl"))
    assert len(journals) == 2
    for path in (*journals, *(journal.parent / "subset.json" for journal in journals), Path("results.json")):
        assert (root / path).read_bytes() == (reference / path).read_bytes(), path


def wait_for(condition: Callable[[], bool], process: Any) -> None:
    """Until ``condition`` holds; a process that ends before is an error."""
    while not condition():
        assert process.poll() is None, f"the run ended before it could be disturbed: {process.communicate()}"
        time.sleep(0.002)


def test_a_run_leaves_everything_a_person_needs(serial: Path) -> None:
    report = (serial / "report.html").read_text()
    assert "MiniGPR" in report
    arms = {row["arm"]: row["mAP"] for row in json.loads((serial / "results.json").read_text())}
    assert list(arms) == ["random", "mean_distance", "mmd_rbf", "true_distribution", "wrong_illumination", "everything"]
    assert all(0 < value <= 1 for value in arms.values())
    assert (serial / "config.yaml").exists()


def test_ray_gives_the_same_numbers_as_the_serial_form(serial: Path, config: Path, tmp_path: Path) -> None:
    """On a terminal, where bars are drawn: they must reach no worker and no file, and nothing else may write there."""
    root = tmp_path / "ray"
    code, shown = in_terminal([sys.executable, "-m", "cluster.cli", "run", str(config), "--output", str(root)])
    assert code == 0, shown
    assert_same_run(root, serial)
    for label in ("rendering MiniGPR", "measuring", "searching by mmd_rbf", "training"):
        assert f"{label} \x1b[" in shown, f"no bar for {label}"
    for noise in ("Traceback", "INFO", "logging.cc"):
        assert noise not in shown, shown


def in_terminal(arguments: list[str]) -> tuple[int, str]:
    """Exit code of a command on a terminal of its own, and all that it wrote there."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = bytearray()
    with contextlib.suppress(OSError):  # how Linux says that the other end was closed
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    return process.wait(), shown.decode(errors="replace")


def test_a_finished_run_is_skipped(serial: Path, config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", str(config), "--output", str(serial), "--serial", "--json"]) == 0
    captured = capfd.readouterr()
    for stage in ("world", "index", "measure", "search/mmd_rbf", "select/random", "train/random/seed0"):
        assert f"{stage}: done before, skipped" in captured.err
    outcome = json.loads(captured.out.splitlines()[-1])
    assert set(outcome["subsets"]) == {"mean_distance", "mmd_rbf"}
    assert outcome["report"] == str(serial / "report.html")


def test_killed_while_measuring_and_while_searching(
    serial: Path, command: Callable[[Path], Any], tmp_path: Path
) -> None:
    root = tmp_path / "run"
    shutil.copytree(serial / "world", root / "world")
    first = command(root)
    wait_for(lambda: len(list(root.glob("measure/*/shard-*.json"))) >= 3, first)
    first.kill()
    first.wait()
    shards = {path: path.stat().st_mtime_ns for path in root.glob("measure/*/shard-*.json")}
    assert 3 <= len(shards) < len(list(serial.glob("measure/*/shard-*.json")))

    second = command(root)
    journal = root / "search/mean_distance/journal.jsonl"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 2000, second)
    second.kill()
    output = second.communicate()
    assert "world: done before, skipped" in output
    assert "measure: begun before, goes on" in output
    assert {path: path.stat().st_mtime_ns for path in shards} == shards, "a finished shard was measured again"

    third = command(root)
    output = third.communicate()
    assert third.returncode == 0, output
    assert "measure: done before, skipped" in output
    assert_same_run(root, serial)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_end_the_run_with_their_own_code(
    number: signal.Signals, code: int, command: Callable[[Path], Any], tmp_path: Path
) -> None:
    root = tmp_path / "run"
    process = command(root)
    wait_for(lambda: bool(list(root.glob("world/*/source/0001"))), process)
    process.send_signal(number)
    output = process.communicate()
    assert process.returncode == code, output
    assert "the same command resumes" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_a_second_writer_is_refused(serial: Path, config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from finegpr.storage import locked

    with locked(serial):
        assert cli.run(["run", str(config), "--output", str(serial), "--serial"]) == 5
    assert f"process {os.getpid()}" in capfd.readouterr().err


def test_a_changed_search_is_refused_with_the_difference(
    serial: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = ["run", str(config), "--output", str(serial), "--serial", "--set", "search.evaluations=90"]
    assert cli.run(changed) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "evaluations: 160 -> 90" in said
    assert "--fork" in said
    assert "--fresh" in said


def moved(serial: Path, tmp_path: Path) -> Path:
    """A copy of the run without what came after its searches; the images are found where they are now."""
    root = tmp_path / "moved"
    shutil.copytree(serial, root, ignore=shutil.ignore_patterns("train", "images", "results.json", "report.*"))
    return root


def goes_on_after(number: signal.Signals, code: int, process: Any, work: Path, root: Path, config: Path) -> None:
    """The signal, sent when ``work`` is there, ends the process with its code; without Ray the run comes to its end."""
    wait_for(work.exists, process)
    process.send_signal(number)
    output = process.communicate()
    assert process.returncode == code, output
    assert "Traceback" not in str(output)
    assert not (root / "results.json").exists()
    assert cli.run(["run", str(config), "--output", str(root), "--serial"]) == 0


def test_a_signal_among_trials_is_never_an_ordinary_end(serial: Path, config: Path, ray: Any, tmp_path: Path) -> None:
    """On a Ray that was there before and outlives the run."""
    root = moved(serial, tmp_path)
    address = ray.get_runtime_context().gcs_address
    process = Forked("cluster.cli", ["run", str(config), "--output", str(root)], {"RAY_ADDRESS": address})
    goes_on_after(signal.SIGTERM, 75, process, root / "train/random/seed0/done.json", root, config)
    assert_same_run(root, serial)
    assert ray.cluster_resources()["CPU"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "work"),
    [
        pytest.param(signal.SIGINT, 130, "train/mmd_rbf/seed0/model", id="ctrl-c-under-train"),
        pytest.param(signal.SIGTERM, 75, "train/random/seed0/done.json", id="sigterm-under-tune"),
    ],
)
def test_a_signal_ends_a_ray_of_ones_own_too(
    number: signal.Signals, code: int, work: str, serial: Path, config: Path, tmp_path: Path
) -> None:
    root = moved(serial, tmp_path)
    arguments = [sys.executable, "-m", "cluster.cli", "run", str(config), "--output", str(root)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    goes_on_after(number, code, process, root / work, root, config)
    assert_same_run(root, serial)


def test_a_fork_goes_on_without_the_folder_it_came_from(
    serial: Path, config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    shutil.copytree(serial, root, ignore=shutil.ignore_patterns("images"))
    changed = ["run", str(config), "--serial", "--set", "search.evaluations=90"]
    assert cli.run([*changed, "--output", str(root), "--fork"]) == 0
    assert "measure: done before, skipped" in capfd.readouterr().err
    shutil.rmtree(root)
    shutil.rmtree(tmp_path / "run-2/train")
    assert cli.run([*changed, "--output", str(tmp_path / "run-2")]) == 0
