"""Indexing FineGPR's 2,028,600 names: seconds, memory, file size; then subsets and cells of the catalog.

    python tests/benchmarks/index_rate.py [--identities 1150] [--output results/index-rate.md]

Empty files in nested folders of a temporary folder are listed, so it needs an inode for each. Every part runs in a
process of its own; the names are parsed in turns by ``finegpr.layouts`` and by plain Python, row by row.
"""

import argparse
import json
import multiprocessing
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finegpr.attributes import ILLUMINATION, VIEWPOINT, WEATHER
from finegpr.catalog import Catalog
from finegpr.layouts import finegpr
from finegpr.layouts.walk import walk
from finegpr.subset import Subset

ROUNDS = 5
CELLS = ("viewpoint", "weather", "illumination"), ("viewpoint", "weather", "illumination", "scene")
# 18 viewpoints, 1 weather, 6 illuminations: 108 images of each identity, as many as the published subset has.
SMALL = Subset(
    {"viewpoint": VIEWPOINT.values[::2], "weather": WEATHER.values[:1], "illumination": ILLUMINATION.values[:6]}
)
HALF = Subset({"viewpoint": VIEWPOINT.values[::2]})
NAME = re.compile(
    r"(?:(?P<folder>\d{4})/)?(?P<identity>\d{4})_c(?P<viewpoint>\d\d)_w(?P<weather>\d\d)_l(?P<illumination>\d\d)"
    r"_p(?P<scene>\d\d)\.jpg"
)
COLUMNS = ("identity", "viewpoint", "weather", "illumination", "scene")

Seconds = tuple[float, float]
"""On the clock, and of the processor."""


def timed(run: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


def median(times: Sequence[Seconds]) -> Seconds:
    return statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def create(root: Path, num_identities: int) -> None:
    """One empty file for each identity, viewpoint, weather and illumination, in a random scene."""
    random = np.random.default_rng(0)
    for identity in range(1, num_identities + 1):
        folder = root / f"{identity:04}"
        folder.mkdir(parents=True)
        scenes = iter(random.integers(1, 10, 36 * 7 * 7).tolist())
        for camera in range(1, 37):
            for weather in range(1, 8):
                for light in range(1, 8):
                    name = f"{folder}/{identity:04}_c{camera:02}_w{weather:02}_l{light:02}_p{next(scenes):02}.jpg"
                    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))


def index(root: Path, output: Path) -> dict[str, Any]:
    before = peak_megabytes()
    catalog, indexing = timed(lambda: Catalog.index(root, layout="finegpr"))
    peak = peak_megabytes()
    _, writing = timed(lambda: catalog.write(output))
    return {
        "images": len(catalog),
        "index": indexing,
        "write": writing,
        "imports_mb": before,
        "index_mb": peak,
        "write_mb": peak_megabytes(),
        "file_mb": output.stat().st_size / 1e6,
    }


def as_tuples(names: list[str]) -> pd.DataFrame:
    rows = []
    for name in names:
        match = NAME.fullmatch(name)
        if match is not None:
            rows.append((name, *map(int, match.group(*COLUMNS))))
    return pd.DataFrame(rows, columns=["path", *COLUMNS])


def as_dicts(names: list[str]) -> pd.DataFrame:
    rows = []
    for name in names:
        match = NAME.fullmatch(name)
        if match is not None:
            rows.append({"path": name} | {column: int(match[column]) for column in COLUMNS})
    return pd.DataFrame(rows)


def parse(root: Path) -> dict[str, Any]:
    files, listing = timed(lambda: walk(root))
    finegpr.walk = lambda *_, **__: files  # type: ignore[attr-defined]
    times: dict[str, list[Seconds]] = {"parse": [], "tuples": [], "dicts": []}
    for _ in range(ROUNDS):
        ours, seconds = timed(lambda: finegpr.index(root))
        times["parse"].append(seconds)
        for name, by_row in (("tuples", as_tuples), ("dicts", as_dicts)):
            frame, seconds = timed(partial(by_row, files.images))
            times[name].append(seconds)
            for column in ("weather", "illumination", "scene"):
                assert (ours.frame[column].cat.codes.to_numpy() + 1 == frame[column].to_numpy()).all()
            assert (ours.frame["identity"].to_numpy() == frame["identity"].to_numpy()).all()
    return {"walk": listing, **{name: median(each) for name, each in times.items()}}


def query(path: Path) -> dict[str, Any]:
    catalog, reading = timed(lambda: Catalog.read(path))
    peak = peak_megabytes()
    _, printing = timed(lambda: catalog.fingerprint)
    found: dict[str, Any] = {"read": reading, "read_mb": peak, "fingerprint": printing}
    cells = catalog.cells(CELLS[0])

    def shares() -> Any:
        chosen = cells.images * cells.mask(SMALL)
        return chosen / chosen.sum()

    for name, run in {
        "small": lambda: catalog.select(SMALL),
        "half": lambda: catalog.select(HALF),
        "cells": lambda: catalog.cells(CELLS[0]),
        "cells_scene": lambda: catalog.cells(CELLS[1]),
        "shares": shares,
    }.items():
        times = []
        for _ in range(2 * ROUNDS + 1):
            result, seconds = timed(run)
            times.append(seconds)
            found[f"num_{name}"] = len(result)
            del result  # as a caller does that goes through many subsets
        found[name] = median(times)
    return found


def alone(run: Callable[..., dict[str, Any]], *arguments: Path) -> dict[str, Any]:
    """In a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--identities", type=int, default=1150)
    parser.add_argument("--output", type=Path, default=Path("results/index-rate.md"))
    options = parser.parse_args(arguments)
    needed = options.identities * 36 * 7 * 7
    with tempfile.TemporaryDirectory() as name:
        free = os.statvfs(name).f_favail
        if free < 1.2 * needed:
            raise SystemExit(f"{name} has {free} free inodes, {needed} files are needed; choose fewer --identities")
        root, path = Path(name) / "FineGPR", Path(name) / "catalog.parquet"
        _, creating = timed(lambda: create(root, options.identities))
        print(f"{needed} files created in {creating[0]:.0f} s", flush=True)
        found = alone(index, root, path) | alone(parse, root) | alone(query, path)
    print(json.dumps(found))
    table = lines(found, options.identities)
    options.output.write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))


def lines(found: dict[str, Any], identities: int) -> list[str]:
    def row(what: str, name: str, *, unit: float = 1, digits: int = 2) -> str:
        wall, cpu = found[name]
        return f"| {what} | {unit * wall:.{digits}f} | {unit * cpu:.{digits}f} |"

    faster = {name: found[name][1] / found["parse"][1] for name in ("tuples", "dicts")}
    return [
        "# Rate of the index",
        "",
        f"`python tests/benchmarks/index_rate.py --identities {identities}`, {datetime.now(UTC):%Y-%m-%d}, CPU,",
        f"{os.cpu_count()} cores, pandas {pd.__version__}: {found['images']:,} empty files, named as FineGPR's are,",
        f"in {identities:,} folders of a disk that has just written them (scenes by seed 0). Other work was running",
        f"(load {os.getloadavg()[0]:.1f}), so trust the seconds of the processor.",
        "",
        "| part | clock, s | processor, s |",
        "| --- | --- | --- |",
        row("listing the folders", "walk"),
        row(f"names to catalog, median of {ROUNDS}", "parse"),
        row(f"plain Python, row by row: `re`, tuples, DataFrame; median of {ROUNDS}", "tuples"),
        row(f"the same with dicts, median of {ROUNDS}", "dicts"),
        row("`Catalog.index`, both and all checks", "index"),
        row("`Catalog.write`", "write"),
        row("`Catalog.read`", "read"),
        row("`Catalog.fingerprint`", "fingerprint"),
        "",
        f"Names to catalog is **{faster['tuples']:.1f} times** as fast as plain Python with tuples, and "
        f"{faster['dicts']:.1f} times as fast as with dicts",
        "(processor time; it also checks codes, folders and repeated labels, which the plain parse does not).",
        f"The file has {found['file_mb']:.1f} MB. Peak memory: {found['imports_mb']:.0f} MB after imports, "
        f"{found['index_mb']:.0f} MB indexing, {found['write_mb']:.0f} MB writing; {found['read_mb']:.0f} MB",
        "in a process that only reads.",
        "",
        f"| of the catalog in memory, median of {2 * ROUNDS + 1} | clock, ms | processor, ms |",
        "| --- | --- | --- |",
        row(f"`select` {found['num_small']:,} images by 18 viewpoints, 1 weather, 6 illuminations", "small",
            unit=1e3, digits=1),
        row(f"`select` {found['num_half']:,} images by 18 viewpoints", "half", unit=1e3, digits=1),
        row(f"`cells` of {', '.join(CELLS[0])}: {found['num_cells']:,} and their counts", "cells", unit=1e3, digits=1),
        row(f"`cells` with scene too: {found['num_cells_scene']:,}", "cells_scene", unit=1e3, digits=1),
        row("share per cell of a subset, its cells known", "shares", unit=1e3, digits=3),
    ]  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
