"""A search that is killed at random points, again and again, ends with the bytes of one that was not."""

import json
import os
import random
import runpy
import signal
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from finegpr.subset import Subset
from search.journal import JOURNAL

pytestmark = pytest.mark.processes

Forked = runpy.run_path(str(Path(__file__).parents[1] / "forked.py"))["Forked"]

SCRIPT = """
import os, sys, time
from pathlib import Path
from search.loop import search
from search.objectives import make_objective
from search.optimizers import make_optimizer
from search.parallel import in_parallel
from search.simulation import simulate
from search.space import Budget, Space

EVALUATIONS = 300
folder, optimizer, workers, log = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
simulation = simulate((5, 4, 3), seed=0)
space = Space(simulation.cells, simulation.identity, Budget(images=90, identities=9, least=0.15, most=0.5), seed=0)
objective = make_objective("mmd_rbf", space, simulation.measured)
scored = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def evaluate(subsets):
    for subset in subsets:
        os.write(scored, f"{os.getpid()} {subset.key}\\n".encode())
    time.sleep(0.01)  # stands in for a dear score
    return objective.score(subsets)

print("ready", flush=True)
result = search(
    space, objective, make_optimizer(optimizer, space, seed=3, evaluations=EVALUATIONS), folder,
    evaluations=EVALUATIONS, config={},
    evaluate=in_parallel(evaluate, workers=workers), num_random=0,
)
print(result.subset.key, result.score, flush=True)
"""


def start(folder: Path, optimizer: str, *, workers: int = 1) -> Any:
    folder.mkdir(exist_ok=True)
    process = Forked(SCRIPT, [str(folder), optimizer, str(workers), str(folder / "scored")])
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: Any) -> str:
    out: str = process.communicate()
    assert process.returncode == 0
    return out


def generations_scored(folder: Path) -> dict[int, set[int]]:
    """The generations that each process scored something of, in the order of the processes."""
    lines = (folder / JOURNAL).read_text().splitlines()
    trials = [record for record in map(json.loads, lines) if record["kind"] == "trial" and record["status"] == "scored"]
    generation = {Subset(trial["subset"]).key: trial["generation"] for trial in trials}
    by_process: dict[int, set[int]] = {}
    for line in (folder / "scored").read_text().splitlines():
        process, key = line.split(" ", 1)
        by_process.setdefault(int(process), set()).add(generation[key])
    return by_process


def kill_again_and_again(folder: Path, optimizer: str, *, kills: int, seed: int) -> int:
    """Kills one search after another at random points until it has been killed ``kills`` times; how often it ended."""
    whole = folder / "whole"
    process = start(whole, optimizer)
    started = time.monotonic()
    expected = finish(process)
    lasts = time.monotonic() - started
    generator, ends, place = random.Random(seed), 0, 0
    for _ in range(kills):
        cut = folder / f"cut{place}"
        process = start(cut, optimizer, workers=generator.choice([1, 2, 4]))
        time.sleep(generator.uniform(0, 0.35 * lasts))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if generator.random() < 0.25:
            ends += check(cut, whole, optimizer, expected)
            place += 1
    if (folder / f"cut{place}").exists():
        ends += check(folder / f"cut{place}", whole, optimizer, expected)
    return ends


def check(cut: Path, whole: Path, optimizer: str, expected: str) -> int:
    """The killed search, let to its end: same journal and subset, at most one generation scored twice for each kill."""
    assert finish(start(cut, optimizer, workers=2)) == expected
    assert (cut / JOURNAL).read_bytes() == (whole / JOURNAL).read_bytes()
    scored = list(generations_scored(cut).values())
    for before, after in combinations(scored, 2):
        assert len(before & after) <= 1
    return 1


def test_killed_at_random_points(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path, "random", kills=3, seed=1) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_random_kills(tmp_path: Path) -> None:
    ends = kill_again_and_again(tmp_path, "swarm", kills=50, seed=int(os.environ.get("SEED", "0")))
    assert ends >= 5


def test_the_journal_does_not_tell_the_number_of_workers(tmp_path: Path) -> None:
    one, two, four = (finish(start(tmp_path / f"{num}", "random", workers=num)) for num in (1, 2, 4))
    assert one == two == four
    journals = {(tmp_path / f"{num}" / JOURNAL).read_bytes() for num in (1, 2, 4)}
    assert len(journals) == 1
