"""Measure every image once: distances to all targets and a sketch, in shards that finish one by one.

``measure`` is the serial driver. A distributed one calls the same three pieces: ``prepare`` once, then ``Meter`` and
``measure_shard`` in any process and order; the numbers do not depend on who measured which shard.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finegpr import storage
from finegpr.arrays import Ints
from finegpr.atomic import withdraw
from finegpr.catalog import Catalog, Cells
from finegpr.contents import Contents
from finegpr.errors import InputError, StateError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.files import FORMAT, PLAN, PLAN_MARKER, shard_contents, shard_paths
from finegpr.measuring.freshness import pending_shards
from finegpr.measuring.meter import Meter
from finegpr.measuring.reference import Reference, fit_reference, priorities
from finegpr.measuring.results import Measurements, read_measurements

SHARDS, MOST_IN_SHARD = 16, 2000


def plan_shards(
    config: MeasureConfig, catalog: Catalog, cells: Cells, *, batches: Sequence[Ints] | None = None
) -> list[Ints]:
    """Which catalog rows to measure, in catalog order, ``images_per_shard`` at a time, or as many as suit their number.

    Rows of unknown cell, and junk, are left out. With ``images_per_cell`` each cell gives that many, as ``cell_order``
    says. With ``batches`` these rows are measured instead, batch after batch: such a plan may grow, its first shards
    stay valid.
    Raises InputError when no row has a cell.
    """
    if batches is None:
        everything = config.images_per_cell is None
        batches = [_measurable(catalog, cells) if everything else cell_order(config, catalog, cells)]
    if not sum(map(len, batches)):
        raise InputError(f"no image of {catalog.title} has known values of all of {[a.name for a in cells.attributes]}")
    return [shard for batch in batches for shard in _in_shards(config, np.sort(batch))]


def _in_shards(config: MeasureConfig, rows: Ints) -> Iterator[Ints]:
    step = config.images_per_shard
    if step is None:
        num_batches = -(-len(rows) // (SHARDS * config.batch_size))
        step = max(config.batch_size, min(num_batches * config.batch_size, MOST_IN_SHARD))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def cell_order(config: MeasureConfig, catalog: Catalog, cells: Cells) -> Ints:
    """The measurable rows, cell by cell, each in the order it is sampled in, up to ``images_per_cell``.

    One image of each identity comes before a second of any, identities and images in a seeded order that depends on
    paths alone.
    """
    rows = _measurable(catalog, cells)
    cell = cells.of_row[rows]
    identity = catalog.identities[rows]
    priority = priorities(catalog, seed=config.seed)[rows]
    by_identity = np.lexsort((priority, identity, cell))
    turn = np.empty(len(rows), dtype=np.int64)  # 0 for an identity's first image in the cell, 1 for its second, ...
    turn[by_identity] = _rank_in_group(cell[by_identity], identity[by_identity])
    order = rows[np.lexsort((priority, turn, cell))]
    if config.images_per_cell is None:
        return order
    return order[_rank_in_group(cells.of_row[order]) < config.images_per_cell]


def _measurable(catalog: Catalog, cells: Cells) -> Ints:
    """The rows of known cell that may be drawn, or of a distractor."""
    return np.flatnonzero((cells.of_row >= 0) & (catalog.identities >= 0))


def _rank_in_group(*keys: NDArray[Any]) -> Ints:
    """Position of each entry within its run of equal keys."""
    if not len(keys[0]):
        return np.empty(0, dtype=np.int64)
    changed = np.ones(len(keys[0]), dtype=bool)
    changed[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    starts = np.flatnonzero(changed)
    return np.arange(len(changed)) - np.repeat(starts, np.diff(np.append(starts, len(changed))))


def shard_inputs(config: MeasureConfig, reference: Reference, rows: Ints) -> str:
    """Hash of everything a shard is made from, except the bytes of the images."""
    settings = config.model_dump(include={"batch_size", "threads"})
    return storage.canonical_hash([FORMAT, settings, reference.hash, storage.sha256(rows.astype("<i8").tobytes())])


def prepare(
    config: MeasureConfig,
    source: Catalog,
    targets: Mapping[str, Catalog],
    folder: Path,
    *,
    cells: Cells,
    batches: Sequence[Ints] | None = None,
) -> list[Ints]:
    """Fit the reference and write the plan; returns the rows of every shard. Cheap when nothing changed."""
    shards = plan_shards(config, source, cells, batches=batches)
    reference = fit_reference(config, source, targets, folder)
    rows = np.concatenate(shards)
    sizes = np.array([len(shard) for shard in shards])
    sha256 = storage.write_arrays(folder / PLAN, {"row": rows, "cell": cells.of_row[rows], "size": sizes})
    storage.write_sealed(
        folder / PLAN_MARKER,
        {
            "format": FORMAT,
            "sha256": sha256,
            "num_catalog": len(source),
            "catalog": source.fingerprint,
            "shards": [shard_inputs(config, reference, shard) for shard in shards],
        },
    )
    return shards


def measure_shard(
    meter: Meter,
    index: int,
    rows: Ints,
    folder: Path,
    *,
    positions: Ints | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> None:
    """Measure one shard of the plan and commit it, the finish marker last; of a shard that was measured before, only
    the images at ``positions``. ``tick`` is told the images of each batch."""
    path, marker_path = shard_paths(folder, index)
    old = None if positions is None else _read_old(folder, index)
    at = np.arange(len(rows)) if positions is None or old is None else positions
    table, contents = meter.look(rows[at], tick)
    if old is not None:
        table, contents = _replaced(old[0], at, table), old[1].replaced(at, contents)
    withdraw(marker_path)
    storage.write_table(path, table)
    contents.write(shard_contents(folder, index))
    bad = np.flatnonzero(~table["ok"].to_numpy())
    storage.write_sealed(
        marker_path,
        {
            "format": FORMAT,
            "inputs": shard_inputs(meter.config, meter.reference, rows),
            "sha256": storage.file_sha256(path),
            "num_images": len(rows),
            "contents": contents.key,
            "quarantine": [[contents.paths[row], table["reason"][row].as_py()] for row in bad.tolist()],
        },
    )


def _read_old(folder: Path, index: int) -> tuple[pa.Table, Contents] | None:
    """What was measured of a shard before, and of which contents; None where it is damaged: then all of it is anew."""
    try:
        table = storage.read_table(shard_paths(folder, index)[0])
    except StateError:
        return None
    contents = Contents.read(shard_contents(folder, index))
    return None if contents is None or len(contents) != len(table) else (table, contents)


def _replaced(old: pa.Table, positions: Ints, new: pa.Table) -> pa.Table:
    """``old`` with the rows of ``new`` at these positions."""
    order = np.arange(len(old))
    order[positions] = len(old) + np.arange(len(new))
    return pa.concat_tables([old.cast(new.schema), new]).take(pa.array(order)).combine_chunks()


def measure(
    config: MeasureConfig,
    source: Catalog,
    targets: Mapping[str, Catalog],
    folder: Path,
    *,
    cells: Cells,
    batches: Sequence[Ints] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measurements:
    """Measure in this process, skipping finished shards; ``progress`` is told (images done, images in all).

    Raises InputError for empty inputs and for too many bad images, StateError for damaged state.
    """
    shards = prepare(config, source, targets, folder, cells=cells, batches=batches)
    pending = pending_shards(folder, source)
    total = sum(map(len, shards))
    done = total - sum(map(len, pending.values()))
    report = progress or (lambda *_: None)
    report(done, total)
    if pending:
        with closing(Meter(config, folder, source)) as meter:
            for index, following in zip_longest(pending, list(pending)[1:]):
                if following is not None:
                    meter.expect(pending[following].measured)
                todo = pending[index]
                end = done + len(todo)

                def tick(images: int) -> None:
                    nonlocal done
                    done += images
                    report(done, total)

                measure_shard(meter, index, todo.rows, folder, positions=todo.positions, tick=tick)
                if done < end:  # bad images are in no batch
                    tick(end - done)
    return read_measurements(folder)
