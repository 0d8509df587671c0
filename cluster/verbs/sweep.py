"""Running a sweep: chunks of searches, each committed by the worker that did it, then one table and one page.

A sweep's folder holds, in the order of writing:

    plan.json               what is swept, and over what: the catalog's and the measurements' hashes
    chunks/00012.parquet    rows of ``config.chunk`` points, columns of ``search.sweep.SCHEMA``
    chunks/00012.json       finish marker of a chunk: the plan's hash, the table's SHA-256, seconds of the processor
    sweep.parquet           all of them, in the order of the points
    done.json               finish marker; the chunks are removed after it
    sweep.html              the report
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster import options
from cluster.executors.session import RayConfig, announce, ray_session
from cluster.handover import hand_over
from cluster.inputs import read_measured, read_source, require_targets
from cluster.outputs import begin
from cluster.progress import Tick, progress, say
from cluster.settings import override, validate
from finegpr.errors import AostError, StateError, write_anew
from finegpr.measuring.freshness import require_photos_unchanged
from finegpr.storage import (
    canonical_hash,
    file_sha256,
    locked,
    read_marker,
    read_sealed,
    read_table,
    write_marker,
    write_sealed,
    write_table,
)
from search.report.sweep_page import Cost, write_sweep_report
from search.sweep import SCHEMA, Grid, Ground, SweepConfig, Sweeper, read_sweep, to_table

FORMAT = 1
PLAN, CHUNKS, TABLE, REPORT, TUNE = "plan.json", "chunks", "sweep.parquet", "sweep.html", "tune"


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The chunks of a sweep in ``folder``; ``key`` is the hash of its plan. A finished one is never done again."""

    config: SweepConfig
    folder: Path
    key: str

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.config)

    def __len__(self) -> int:
        return -(-len(self.grid) // self.config.chunk)

    def do(self, number: int, sweeper: Sweeper, each: Callable[[], None] = lambda: None) -> None:
        """Search at every point of one chunk and commit it; ``each`` is called after every search."""
        size = self.config.chunk
        # The processor's, because what else ran on the machine is no cost of the searches.
        started = time.process_time()
        rows = []
        for point in range(number * size, min((number + 1) * size, len(self.grid))):
            rows.append(sweeper.row(point, self.grid[point]))
            each()
        table, marker = self._paths(number)
        write_table(table, to_table(rows))
        seconds = round(time.process_time() - started, 3)
        write_sealed(marker, {"plan": self.key, "sha256": file_sha256(table), "seconds": seconds})

    def pending(self) -> list[int]:
        """The chunks without a finish marker."""
        return [number for number in range(len(self)) if not self._paths(number)[1].exists()]

    def read(self) -> tuple[pa.Table, float]:
        """All rows in the order of their points, and the processor's seconds. Raises StateError naming a wrong file."""
        tables, seconds = [], 0.0
        for number in range(len(self)):
            path, marker_path = self._paths(number)
            marker = read_sealed(marker_path)
            if marker.get("plan") != self.key or not path.exists() or file_sha256(path) != marker["sha256"]:
                raise StateError(f"{path} is missing, damaged or of another sweep; {write_anew(self.folder)}")
            tables.append(read_table(path, schema=SCHEMA))
            seconds += float(marker["seconds"])
        return pa.concat_tables(tables), seconds

    def _paths(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"{number:05d}.parquet", self.folder / f"{number:05d}.json"


def sweep(verb: options.Sweep) -> dict[str, Any]:
    """The verb: do all searches that are not done yet, write table and report, and return what ``--json`` prints."""
    measurements, catalog = read_measured(verb.measurements, read_source(verb.catalog))
    settings = {
        "targets": list(verb.targets) or sorted(measurements.terms),
        "layer_weights": [measurements.of.even_weights],
    }
    config, output = validate(SweepConfig, override(settings, verb.set), "--set"), verb.output
    require_targets(config.targets, measurements)
    for target in config.targets:
        require_photos_unchanged(verb.measurements, target)
    ground = Ground.of(config, catalog, measurements)
    plan = {
        "format": FORMAT,
        "inputs": {
            "catalog": catalog.fingerprint,
            "measurements": {target: measurements.fingerprint(target) for target in config.targets},
        },
        "config": config.model_dump(mode="json"),
    }
    Grid(config)  # refuses what has too many points, before anything is written
    with locked(output):
        begin(output, plan, fresh=verb.fresh, record=PLAN)
        chunks = Chunks(config=config, folder=output / CHUNKS, key=canonical_hash(plan))
        grid = chunks.grid
        marker = read_marker(output)
        if marker is None:
            of = "" if len(grid) == grid.whole else f", a sample of {grid.whole:,}"
            say(f"sweep: {len(grid):,} searches{of}, in chunks of {config.chunk}")
            _search(chunks, ground, output, serial=verb.serial)
            marker = _finish(chunks, output)
        elif marker.get("plan") != chunks.key:
            raise StateError(f"{output} is finished, but for another plan; {write_anew(output / PLAN)}")
        else:
            say("sweep: done before, skipped")
        frame = read_sweep(output / TABLE)
        report = output / REPORT
        cost = Cost(seconds=marker["seconds"], num_searches=len(frame), num_of_grid=grid.whole, chunk=config.chunk)
        write_sweep_report(frame, report, config=config, ground=ground, cost=cost)
    num_failed = int(frame["error"].notna().sum())
    seconds = marker["seconds"]
    say(f"{len(frame):,} searches, {num_failed:,} failed, {seconds:.0f} s of the processor -> {output / TABLE}")
    told = {
        "table": str(output / TABLE),
        "report": str(report),
        "num_searches": len(frame),
        "num_failed": num_failed,
        "seconds": seconds,
    }
    command = ("aost", "search", verb.catalog, "--measurements", verb.measurements, "--target", config.targets[0])
    changes = ("--set", f"objective={config.objectives[0]}", f"budget.images={config.images[0]}")
    return told | hand_over({"table": output / TABLE, "report": report}, *command, *changes)


def _finish(chunks: Chunks, output: Path) -> dict[str, Any]:
    table, seconds = chunks.read()
    write_table(output / TABLE, table)
    marker = {"plan": chunks.key, "seconds": round(seconds, 3), "num_searches": table.num_rows}
    write_marker(output, marker)
    for name in (CHUNKS, TUNE):
        shutil.rmtree(output / name, ignore_errors=True)
    return marker


def _search(chunks: Chunks, ground: Ground, output: Path, *, serial: bool) -> None:
    pending = chunks.pending()
    total = len(chunks.grid)
    done = total - sum(min(chunks.config.chunk, total - number * chunks.config.chunk) for number in pending)
    if done:
        say(f"sweep: {done:,} searches done before, goes on")
    if not pending:
        return
    if serial:
        say("serial: one process, without Ray")
        sweeper = Sweeper(chunks.config, ground)
        with progress("sweeping", "searches") as tick:
            count = iter(range(done + 1, total + 1))
            for number in pending:
                chunks.do(number, sweeper, lambda: tick(next(count), total))
        return
    with ray_session(RayConfig()) as ray:
        announce(ray)
        with progress("sweeping", "chunks") as tick:
            _search_with_tune(ray, chunks, pending, ground, storage=output / TUNE, tick=tick)
    if left := chunks.pending():
        raise AostError(f"{len(left)} of {len(chunks)} chunks were not finished; run the same command again")


def _search_with_tune(
    ray: Any, chunks: Chunks, pending: list[int], ground: Ground, *, storage: Path, tick: Tick
) -> None:
    """One Tune trial per chunk, one core each, in actors that are used again and keep their objectives.

    Raises the first error of ours that a chunk had; a chunk that is lost with its node is done again at most twice.
    """
    from cluster.executors.ray_tune import Report, TuneRun, Work

    chunks = replace(chunks, folder=chunks.folder.resolve())
    done_before = len(chunks) - len(pending)

    def make_work() -> Work:
        sweeper = Sweeper(chunks.config, ground)

        def work(trial: dict[str, Any], report: Report) -> dict[str, Any]:
            del report
            chunks.do(trial["chunk"], sweeper)
            return {}

        return work

    shutil.rmtree(storage, ignore_errors=True)
    with TuneRun(ray, make_work, what="a chunk of searches", cpus=1, gpus=0, storage=storage) as run:
        trials = [{"label": f"chunk {number}", "chunk": number} for number in pending]
        lost = [
            reason for reason in run(trials, lambda done, _, __="": tick(done_before + done, len(chunks))) if reason
        ]
    if lost:
        raise AostError(f"{len(lost)} of {len(pending)} chunks failed; the first: {lost[0]}")
