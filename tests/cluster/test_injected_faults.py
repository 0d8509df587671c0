"""The main job while calls of the system fail at random: a code, a line, and then what an undisturbed run gives."""

import errno
import json
import os
import runpy
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket

INJECTED = runpy.run_path(str(Path(__file__).parents[1] / "injected.py"))
OPEN, READ, WRITE, SYNC, NAME, STAT, MAP, LIST, EVER = (
    INJECTED[name] for name in ("OPEN", "READ", "WRITE", "SYNC", "NAME", "STAT", "MAP", "LIST", "EVER")
)
KINDS = (OPEN, READ, WRITE, SYNC, NAME, STAT, MAP, LIST)
# Which calls an error comes from, and the codes that a command may end with: what is read, what is written.
FAULTS = {
    "EIO": (KINDS, {75, 6}),
    "EMFILE": ((OPEN, LIST), {75, 6}),
    "ENOSPC": ((WRITE, SYNC, NAME), {6}),
    "ENOMEM": ((OPEN, READ, NAME, MAP), {6}),
    "ESTALE": (KINDS, {75, 6}),
    "EACCES": ((OPEN, NAME, STAT, LIST), {2, 3, 6}),  # 2: of the config
}
CONFIG = """
name: small
source: {{root: {data}/source, layout: finegpr}}
target: {{root: {data}/target, layout: market1501}}
measure: {{network: vgg19, weights: random, height: 32, width: 32, images_per_cell: 1, basis_images: 6,
          style_coordinates: 2,
  content_coordinates: 4, images_per_shard: 8}}
budget: {{images: 8, identities: 2}}
search: {{evaluations: 20, optimizer: numpy_swarm}}
train: {{recipe: seconds, steps: 1, batch_size: 8}}
arms: [random, mmd_rbf]
output: {run}
"""
FINISHED = ("done.json", "shard-*.json", "model.safetensors")
TIMES = ("seal", "seconds", "created", "ended", "stages")
Seen = dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``number`` calls of a ``kind``, from the ``first`` on, fail with the error of this ``name``."""

    name: str
    kind: int
    first: int
    number: int


@dataclass
class World:
    """A small run at one place: undisturbed once, then again and again with faults."""

    root: Path
    injected: Any
    whole: dict[str, object] = field(default_factory=dict)
    num_calls: dict[int, int] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return self.root / "run"

    def aost(self, **fault: int) -> Any:
        return self.injected.run(["run", str(self.root / "config.yaml"), "--serial"], below=self.root, **fault)

    def disturbed(self, fault: Fault) -> tuple[int, list[str]]:
        """The code of a run in which calls fail, and what was wrong with it."""
        before = _finished(self.run)
        code = getattr(errno, fault.name)
        outcome = self.aost(error=code, kinds=fault.kind, first=fault.first, number=fault.number)
        wrong = []
        last = (outcome.said.strip().splitlines() or [""])[-1]
        if outcome.code not in FAULTS[fault.name][1] | {0}:
            wrong.append(f"code {outcome.code}")
        if "Traceback" in outcome.said or (outcome.code and not last.startswith("aost: ")):
            wrong.append(f"no line of ours: {outcome.said[-500:]}")
        if outcome.code and str(self.root) not in last:
            wrong.append("the line names no file")
        if outcome.code == 2 and "config.yaml" not in last:
            wrong.append("code 2, but not of the config")
        wrong += _lost(before, _finished(self.run))
        return outcome.code, [f"{fault}: {each}; {last}" for each in wrong]

    def undisturbed(self) -> list[str]:
        """What is wrong with the same command afterwards: it keeps what was finished, and ends in the same files."""
        before = _finished(self.run)
        outcome = self.aost()
        if outcome.code != 0:
            return [f"then code {outcome.code}: {outcome.said[-500:]}"]
        got = _content(self.run)
        different = [name for name in sorted({*self.whole, *got}) if self.whole.get(name, 0) != got.get(name, 0)]
        wrong = [f"other than undisturbed: {different[:3]}"] if different else []
        return [*wrong, *_lost(before, _finished(self.run))]


def _finished(run: Path) -> Seen:
    """Inode and time of change of every file that is finished work."""
    found = [path for pattern in FINISHED for path in run.rglob(pattern)]
    return {str(path): ((status := path.stat()).st_ino, status.st_mtime_ns) for path in found}


def _content(run: Path) -> dict[str, object]:
    """All files of a run; of those that say how long things took, all else."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        # When an image was looked at differs, too.
        if path.is_dir() or name.startswith(".lock") or path.name == "timings.jsonl" or "contents" in name:
            continue
        if path.suffix == ".html":
            found[name] = None
        elif path.name in ("report.json", "done.json"):
            found[name] = _timeless(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {name: _timeless(each) for name, each in value.items() if name not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _lost(before: Seen, after: Seen) -> list[str]:
    lost = [path for path, state in before.items() if after.get(path) != state]
    return [f"finished and not kept: {lost[:3]}"] if lost else []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    root = tmp_path_factory.mktemp("faults")
    data = root / "data"
    source = MiniGPRConfig(num_identities=4, images_per_identity=8, viewpoints=["0deg", "180deg"], height=48, width=24)
    target = MiniMarketConfig(
        num_train=6,
        train_identities=2,
        validation_identities=1,
        test_identities=2,
        num_distractors=0,
        num_junk=0,
        height=48,
        width=24,
    )
    render_minigpr(source, data / "source")
    render_minimarket(target, data / "target")
    (root / "config.yaml").write_text(CONFIG.format(data=data, run=root / "run"))
    world = World(root, INJECTED["Injected"](root))
    outcome = world.aost(kinds=sum(KINDS))
    assert outcome.code == 0, outcome.said
    world.num_calls = outcome.counted
    world.whole = _content(world.run)
    yield world
    world.injected.close()


def _faults(world: World, num: int, *, seed: int) -> Iterator[Fault]:
    """Every error in turn, once for a moment and once for good, at any call of any kind that it comes from."""
    random = np.random.default_rng(seed)
    for turn in range(num):
        name = list(FAULTS)[turn % len(FAULTS)]
        kind = int(random.choice(FAULTS[name][0]))
        first = 1 + int(random.integers(world.num_calls[kind]))
        yield Fault(name=name, kind=kind, first=first, number=(1, EVER)[turn // len(FAULTS) % 2])


def test_a_run_survives_one_fault_after_the_other(world: World) -> None:
    shutil.rmtree(world.run)
    wrong = []
    for fault in _faults(world, 12, seed=0):
        wrong += world.disturbed(fault)[1]
    wrong += world.undisturbed()
    assert not wrong, "\n".join(wrong)


def test_decoded_images_are_kept_where_a_part_of_the_trainings_is_done(world: World) -> None:
    assert not world.undisturbed()
    before = world.run / "images" / "done.json"
    written = before.stat().st_mtime_ns
    shutil.rmtree(world.run / "train" / "mmd_rbf")
    assert not world.undisturbed()
    assert before.stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_hundred_runs_survive_a_fault_each(world: World) -> None:
    codes: Counter[tuple[str, int]] = Counter()
    wrong = []
    for fault in _faults(world, 500, seed=int(os.environ.get("AOST_FAULT_SEED", "1"))):
        shutil.rmtree(world.run)
        code, found = world.disturbed(fault)
        codes[fault.name, code] += 1
        wrong += [*found, *(f"{fault}: {each}" for each in world.undisturbed())]
    for (name, code), count in sorted(codes.items()):
        print(f"{name} {code}: {count}")
    assert not wrong, "\n".join(wrong)
