"""Measure every image once: distances to all targets and a sketch, in shards that finish one by one.

``measure`` is the serial driver. A distributed one calls the same three pieces: ``prepare`` once, then ``Meter`` and
``measure_shard`` in any process and order; the numbers do not depend on who measured which shard.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from finegpr import storage
from finegpr.catalog import Catalog, Cells
from finegpr.errors import InputError, StateError
from finegpr.measurements import (
    FORMAT,
    PLAN,
    PLAN_MARKER,
    Measurements,
    read_marker,
    read_measurements,
    shard_paths,
    shard_schema,
    withdraw,
)
from finegpr.reference import (
    MeasureConfig,
    Reference,
    build_network,
    fit_reference,
    fit_settings,
    load_reference,
    priorities,
    read_batches,
)
from finegpr.vgg import find_weights

__all__ = [
    "MeasureConfig",
    "Meter",
    "fit_reference",
    "measure",
    "measure_shard",
    "pending_shards",
    "plan_shards",
    "prepare",
    "read_measurements",
]

Rows = NDArray[np.int64]


def plan_shards(config: MeasureConfig, catalog: Catalog, cells: Cells) -> list[Rows]:
    """Which catalog rows to measure, in catalog order, ``images_per_shard`` at a time.

    Rows of unknown cell are left out. With ``images_per_cell`` each cell gives that many: one of each identity before
    a second of any, identities and images in a seeded order that depends on paths alone.
    Raises InputError when no row has a cell.
    """
    rows = np.flatnonzero(cells.of_row >= 0)
    if not len(rows):
        raise InputError(f"no image of {catalog.title} has known values of all of {[a.name for a in cells.attributes]}")
    if config.images_per_cell is not None:
        rows = _sample_cells(config.images_per_cell, config.seed, catalog, cells, rows)
    return [rows[start : start + config.images_per_shard] for start in range(0, len(rows), config.images_per_shard)]


def _sample_cells(images_per_cell: int, seed: int, catalog: Catalog, cells: Cells, rows: Rows) -> Rows:
    cell = cells.of_row[rows]
    identity = catalog.frame["identity"].to_numpy()[rows]
    priority = priorities(catalog, seed=seed)[rows]
    by_identity = np.lexsort((priority, identity, cell))
    turn = np.empty(len(rows), dtype=np.int64)  # 0 for an identity's first image in the cell, 1 for its second, ...
    turn[by_identity] = _rank_in_group(cell[by_identity], identity[by_identity])
    by_turn = np.lexsort((priority, turn, cell))
    return np.sort(rows[by_turn[_rank_in_group(cell[by_turn]) < images_per_cell]])


def _rank_in_group(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Position of each entry within its run of equal keys."""
    changed = np.ones(len(keys[0]), dtype=bool)
    changed[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    starts = np.flatnonzero(changed)
    return np.arange(len(changed)) - np.repeat(starts, np.diff(np.append(starts, len(changed))))


class Meter:
    """The network and the reference of ``folder``, ready to measure rows of ``catalog``; sets the process's threads."""

    def __init__(self, config: MeasureConfig, folder: Path, catalog: Catalog) -> None:
        self.config = config
        self.catalog = catalog
        self.reference = load_reference(folder)
        weights = find_weights(config.weights, seed=config.seed)
        settings = fit_settings(config, weights)
        if different := [name for name in settings if settings[name] != self.reference.settings.get(name)]:
            raise StateError(f"{folder} was fitted with other settings ({', '.join(different)}); fit it again")
        self.network = build_network(config, weights)
        device = self.network.device
        self._bases = [basis.to(device) for basis in self.reference.bases]
        self._means = {
            name: [mean.to(device) for mean in target.mean] for name, target in self.reference.targets.items()
        }
        self._units = torch.tensor([basis.spread or 1.0 for basis in self._bases], device=device).sqrt()

    @torch.inference_mode()
    def measure(self, rows: Rows) -> pa.Table:
        """Columns of ``measurements.shard_schema``, in the order of ``rows``; an unreadable image is ok=False."""
        schema = shard_schema(list(self._means), sum(basis.directions.shape[1] for basis in self._bases))
        columns: dict[str, NDArray[Any]] = {
            field.name: np.zeros((len(rows), field.type.list_size), dtype=field.type.value_type.to_pandas_dtype())
            for field in schema
            if pa.types.is_fixed_size_list(field.type)
        }
        reasons: list[str | None] = [None] * len(rows)
        paths = [self.catalog.root / path for path in self.catalog.frame["path"].iloc[rows]]
        for batch in read_batches(self.network, paths, self.config):
            for position, reason in batch.bad:
                reasons[position] = reason
            if len(batch.positions):
                for name, values in self._measure_vectors(batch.vectors).items():
                    columns[name][batch.positions] = values.cpu().numpy()
        arrays = {
            "row": pa.array(rows),
            "ok": pa.array([reason is None for reason in reasons]),
            "reason": pa.array(reasons, pa.string()),
            **{
                name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
                for name, values in columns.items()
            },
        }
        return pa.table([arrays[field.name].cast(field.type) for field in schema], schema=schema)

    def _measure_vectors(self, vectors: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        sketch, norms, off_basis = [], [], []
        for basis, unit, vector in zip(self._bases, self._units, vectors, strict=True):
            coordinates, norm, off = basis.project(vector)
            sketch.append(coordinates / unit)
            norms.append(norm)
            off_basis.append(off)
        measured = {
            "sketch": torch.cat(sketch, dim=1),
            "norms": torch.stack(norms, dim=1),
            "off_basis": torch.stack(off_basis, dim=1),
        }
        for name, means in self._means.items():
            terms = [
                torch.linalg.vector_norm(vector - mean, dim=1).square()
                for vector, mean in zip(vectors, means, strict=True)
            ]
            constant = torch.from_numpy(self.reference.targets[name].constant).to(terms[0])
            measured[f"terms/{name}"] = torch.stack(terms, dim=1) + constant
        return measured


def shard_inputs(config: MeasureConfig, reference: Reference, rows: Rows) -> str:
    """Hash of everything a shard is made from, except the bytes of the images."""
    settings = config.model_dump(include={"batch_size", "threads"})
    return storage.canonical_hash([FORMAT, settings, reference.hash, storage.sha256(rows.astype("<i8").tobytes())])


def prepare(
    config: MeasureConfig, source: Catalog, targets: Mapping[str, Catalog], folder: Path, *, cells: Cells
) -> list[Rows]:
    """Fit the reference and write the plan; returns the rows of every shard. Cheap when nothing changed."""
    shards = plan_shards(config, source, cells)
    reference = fit_reference(config, source, targets, folder)
    rows = np.concatenate(shards)
    sha256 = storage.write_arrays(folder / PLAN, {"row": rows, "cell": cells.of_row[rows]})
    storage.write_sealed(
        folder / PLAN_MARKER,
        {
            "format": FORMAT,
            "sha256": sha256,
            "num_catalog": len(source),
            "shards": [shard_inputs(config, reference, shard) for shard in shards],
        },
    )
    return shards


def pending_shards(folder: Path, catalog: Catalog) -> list[int]:
    """Shards of the plan that are unfinished, of other inputs, or hold a bad image whose file has changed since."""
    return [
        index
        for index, inputs in enumerate(read_marker(folder / PLAN_MARKER)["shards"])
        if not _is_finished(folder, index, inputs, catalog)
    ]


def _is_finished(folder: Path, index: int, inputs: str, catalog: Catalog) -> bool:
    path, marker_path = shard_paths(folder, index)
    if not (path.exists() and marker_path.exists()):
        return False
    marker = read_marker(marker_path)
    return marker["inputs"] == inputs and all(
        _stamp(catalog.root / bad) == stamp for bad, _, stamp in marker["quarantine"]
    )


def _stamp(path: Path) -> list[int] | None:
    """Size and modification time, or None for a missing file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def measure_shard(meter: Meter, index: int, rows: Rows, folder: Path) -> None:
    """Measure one shard of the plan and commit it, the finish marker last."""
    path, marker_path = shard_paths(folder, index)
    table = meter.measure(rows)
    withdraw(marker_path)
    storage.write_table(path, table)
    bad = np.flatnonzero(~table["ok"].to_numpy())
    names = meter.catalog.frame["path"].iloc[rows[bad]]
    storage.write_sealed(
        marker_path,
        {
            "format": FORMAT,
            "inputs": shard_inputs(meter.config, meter.reference, rows),
            "sha256": storage.file_sha256(path),
            "num_images": len(rows),
            "quarantine": [
                [name, table["reason"][position].as_py(), _stamp(meter.catalog.root / name)]
                for name, position in zip(names, bad.tolist(), strict=True)
            ],
        },
    )


def measure(
    config: MeasureConfig,
    source: Catalog,
    targets: Mapping[str, Catalog],
    folder: Path,
    *,
    cells: Cells,
    progress: Callable[[int, int], None] | None = None,
) -> Measurements:
    """Measure in this process, skipping finished shards; ``progress`` is told (images done, images in all).

    Raises InputError for empty inputs and for too many bad images, StateError for damaged state.
    """
    shards = prepare(config, source, targets, folder, cells=cells)
    pending = pending_shards(folder, source)
    total = sum(map(len, shards))
    done = total - sum(len(shards[index]) for index in pending)
    report = progress or (lambda *_: None)
    report(done, total)
    if pending:
        meter = Meter(config, folder, source)
        for index in pending:
            measure_shard(meter, index, shards[index], folder)
            done += len(shards[index])
            report(done, total)
    return read_measurements(folder)
