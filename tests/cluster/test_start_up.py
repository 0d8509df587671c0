"""A verb that reads files loads neither torch nor ray: nobody waits ten seconds for a table that is there already."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import cli
from cluster.verbs import VERBS

HEAVY = ("torch", "torchvision", "ray")
CONFIG = """
name: start-up
world:
  source: {num_identities: 8, images_per_identity: 12, viewpoints: 90, height: 32, width: 16}
  target: {height: 32, width: 16, num_train: 8, train_identities: 4, validation_identities: 1, test_identities: 2,
           num_distractors: 0, num_junk: 0}
measure: {network: vgg19, weights: random, height: 32, width: 32, basis_images: 8, images_per_cell: 1,
          style_coordinates: 2,
          content_coordinates: 4}
budget: {images: 16, identities: 4}
search: {evaluations: 30}
arms: [random, mean_distance]
train: {recipe: seconds, steps: 1, batch_size: 8}
"""
# Commands of one line each, in one process that was started for them; what each has loaded besides is printed.
LOADED = """
import json, os, sys
for line in sys.stdin:
    parent = os.fork()
    if parent:
        os.waitpid(parent, 0)
        continue
    from cluster import cli
    arguments = json.loads(line)
    with open(os.devnull, "w") as sys.stdout:
        try:
            code = cli.run(arguments)
        except SystemExit as left:
            code = left.code
    heavy = [name for name in HEAVY if name in sys.modules]
    print(json.dumps([code, heavy]), file=sys.__stdout__, flush=True)
    os._exit(0)
"""


def loaded(*commands: list[str]) -> list[list[str]]:
    """Which of HEAVY each command has loaded, in a process that had loaded nothing before it; each must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY}\n{LOADED}"],
        input="".join(f"{json.dumps(command)}\n" for command in commands),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, _ in found] == [0] * len(commands), done.stderr
    return [heavy for _, heavy in found]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("start-up")
    (folder / "run.yaml").write_text(CONFIG)
    assert cli.run(["run", str(folder / "run.yaml"), "--output", str(folder / "run"), "--serial"]) == 0
    return folder / "run"


def test_no_help_loads_torch_or_ray() -> None:
    verbs = [verb.name() for verb in VERBS]
    found = loaded(["--help"], *([verb, "--help"] for verb in verbs))
    assert dict(zip(("", *verbs), found, strict=True)) == {name: [] for name in ("", *verbs)}


def places(run: Path) -> dict[str, str]:
    """Where the run has put what the verbs take."""
    return {
        "images": str(next(run.glob("world/*/source"))),
        "source": str(next(run.glob("index/*/source.parquet"))),
        "target": str(next(run.glob("index/*/target.parquet"))),
        "measurements": str(next(path.parent for path in run.glob("measure/*/reference.json"))),
        "journal": str(run / "search/mean_distance/journal.jsonl"),
        "subset": str(run / "search/mean_distance/subset.json"),
        "run": str(run),
    }


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("index {images} --output {new}.parquet", id="index"),
        pytest.param("select {source} --subset {subset} --images 16 --output {new}.parquet", id="select-by-subset"),
        pytest.param(
            "select {source} --selector snp --measurements {measurements} --images 16 --output {new}.parquet",
            id="select-by-selector",
        ),
        pytest.param("diff {subset} {subset} --catalog {source}", id="diff"),
        pytest.param("export {journal} --storage {new}.log --study tiny", id="export"),
        pytest.param("compare {run}", id="compare"),
        pytest.param("weights", id="weights"),
        pytest.param("report {run}", id="report"),
        pytest.param(
            "search {source} --measurements {measurements} --output {new} --set budget.images=16 evaluations=20",
            id="search-by-measurements",
        ),
    ],
)
def test_a_verb_that_reads_files_loads_neither(command: str, run: Path, tmp_path: Path) -> None:
    names = {**places(run), "new": str(tmp_path / "new")}
    assert loaded([word.format(**names) for word in command.split()]) == [[]]


def test_measuring_in_this_process_does_not_load_ray(run: Path, tmp_path: Path) -> None:
    names = places(run)
    settings = ["network=vgg19", "weights=random", "height=32", "width=32", "basis_images=8", "images_per_cell=1"]
    command = ["measure", names["source"], "--targets", names["target"], "--serial", "--output", str(tmp_path / "new")]
    (heavy,) = loaded([*command, "--set", *settings])
    assert "torch" in heavy, "this test can see what was loaded"
    assert "ray" not in heavy
