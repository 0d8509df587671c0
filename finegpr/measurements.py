"""Measurements: the distances of every measured image to every target, and the sketches. What search reads.

A measurement folder holds, in the order of writing:

    reference.safetensors   per term: basis and, per target, the mean vector; read by the meters only
    summary.safetensors     median (6,), and per target its sketch (m, S) and constant (6,)
    reference.json          finish marker of both: what they were made from, their SHA-256, weights, targets, warnings
    plan.safetensors        row and cell of every image to measure, and the offsets of the shards
    plan.json               finish marker of the plan: for every shard the hash of what it is made from
    shard-00012.parquet     columns of ``shard_schema``
    shard-00012.json        finish marker of a shard: its inputs' hash, its SHA-256, its bad images
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from finegpr import storage
from finegpr.errors import StateError
from finegpr.images import check_quarantine
from finegpr.perceptual import ALPHA, BETA, LAYER_WEIGHT, NUM_STYLE_TERMS, NUM_TERMS

FORMAT = 2
REFERENCE, SUMMARY, REFERENCE_MARKER = "reference.safetensors", "summary.safetensors", "reference.json"
PLAN, PLAN_MARKER = "plan.safetensors", "plan.json"

Scale = Literal["paper", "standardised"]


def shard_paths(folder: Path, index: int) -> tuple[Path, Path]:
    """Table and finish marker of one shard."""
    return folder / f"shard-{index:05d}.parquet", folder / f"shard-{index:05d}.json"


def shard_schema(targets: list[str], num_coordinates: int) -> pa.Schema:
    """Columns of a shard, one row per image; every number is zero where ``ok`` is False.

    norms: |u - mean|^2 per term; sketch: coordinates in units of each term's spread; terms/T: mean over target T.
    """
    per_term = pa.list_(pa.float32(), NUM_TERMS)
    return pa.schema(
        [
            ("row", pa.int64()),
            ("ok", pa.bool_()),
            ("reason", pa.string()),
            ("norms", per_term),
            ("off_basis", per_term),
            ("sketch", pa.list_(pa.float16(), num_coordinates)),
            *((f"terms/{target}", per_term) for target in targets),
        ]
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """All images that could be measured, in catalog order, with n images and S sketch coordinates.

    row, cell int64 (n,): catalog row and cell. terms[target] float32 (n, 6): unweighted style terms of relu1_1 to
    relu5_1, then content, mean over the target. median float64 (6,): median pair distance per term over a seeded
    source sample. sketch float32 (n, S) and target_sketch[target] (m, S): squared distance over blocks[l] estimates
    term l between two images. norms, off_basis float32 (n, 6): |u - mean|^2, and the share of it the sketch misses.
    target_constant[target] float64 (6,): the part of the terms that no image can change. num_target[target]: its images
    that could be read. quarantine: path, reason, of (``source`` or a target). num_catalog: rows of the sampled catalog.
    """

    row: NDArray[np.int64]
    cell: NDArray[np.int64]
    terms: Mapping[str, NDArray[np.float32]]
    median: NDArray[np.float64]
    sketch: NDArray[np.float32]
    blocks: list[slice]
    norms: NDArray[np.float32]
    off_basis: NDArray[np.float32]
    target_sketch: Mapping[str, NDArray[np.float32]]
    target_constant: Mapping[str, NDArray[np.float64]]
    num_target: Mapping[str, int]
    quarantine: pd.DataFrame
    weights: str
    warnings: list[str]
    num_catalog: int

    def fingerprint(self, target: str) -> str:
        """SHA-256 of what a score against ``target`` depends on: the images measured, their sketches and terms."""
        arrays: tuple[NDArray[Any], ...] = (
            self.row,
            self.sketch,
            self.terms[target],
            self.target_sketch[target],
            self.median,
        )
        return storage.canonical_hash([storage.sha256(np.ascontiguousarray(array).tobytes()) for array in arrays])

    @property
    def layer_weights(self) -> NDArray[np.float64]:
        """(6,): alpha w_l for the style terms, beta for content."""
        return np.array([ALPHA * LAYER_WEIGHT] * NUM_STYLE_TERMS + [BETA])

    def term_weights(self, scale: Scale) -> NDArray[np.float64]:
        """(6,) factors with D_total = terms @ factors; ``standardised`` divides each term by its median."""
        if scale == "paper":
            return self.layer_weights
        return self.layer_weights / np.where(self.median > 0, self.median, 1.0)

    def total(self, target: str, scale: Scale) -> NDArray[np.float64]:
        """D_total (n,) of every image to the target."""
        return self.terms[target].astype(np.float64) @ self.term_weights(scale)

    def style_share(self, target: str, scale: Scale) -> float:
        """Share of D_total, summed over all images, that comes from the style terms, in [0, 1]."""
        parts = self.terms[target].astype(np.float64).sum(axis=0) * self.term_weights(scale)
        return float(parts[:NUM_STYLE_TERMS].sum() / parts.sum()) if parts.sum() > 0 else 0.0

    def phi(self, scale: Scale) -> NDArray[np.float32]:
        """Embedding (n, S) with |phi_i - phi_j|^2 ~ D_total between two images."""
        return self.sketch * self._coordinate_weights(scale)

    def target_phi(self, target: str, scale: Scale) -> NDArray[np.float32]:
        """The same embedding of the target's images, (m, S)."""
        return self.target_sketch[target] * self._coordinate_weights(scale)

    def _coordinate_weights(self, scale: Scale) -> NDArray[np.float32]:
        sizes = [block.stop - block.start for block in self.blocks]
        return np.repeat(np.sqrt(self.term_weights(scale)), sizes).astype(np.float32)


def read_measurements(folder: Path) -> Measurements:
    """Read a finished measurement, verifying every hash and checksum.

    Raises StateError naming the file for anything missing, damaged or of another run, InputError for too many bad
    images.
    """
    reference = read_marker(folder / REFERENCE_MARKER)
    summary = read_verified(folder / SUMMARY, reference["summary_sha256"])
    plan = read_marker(folder / PLAN_MARKER)
    planned = read_verified(folder / PLAN, plan["sha256"])
    targets: list[str] = list(reference["targets"])
    blocks = to_blocks(reference["num_coordinates"])
    schema = shard_schema(targets, blocks[-1].stop)
    tables, bad = [], []
    for index, inputs in enumerate(plan["shards"]):
        table, marker = _read_shard(folder, index, inputs, schema)
        tables.append(table)
        bad += [(path, reason, "source") for path, reason, _ in marker["quarantine"]]
    table = pa.concat_tables(tables)
    check_quarantine([(path, reason) for path, reason, _ in bad], len(table), of="the source")
    bad += reference["quarantine"]

    ok = table["ok"].to_numpy()
    row = table["row"].to_numpy()
    if not np.array_equal(row, planned["row"]):
        raise StateError(f"{folder}: the shards hold other rows than the plan; delete the folder and measure again")
    units = np.repeat(np.sqrt(np.asarray(reference["spread"])), reference["num_coordinates"]).astype(np.float32)
    return Measurements(
        row=row[ok],
        cell=planned["cell"][ok],
        terms={target: _matrix(table, f"terms/{target}")[ok] for target in targets},
        median=summary["median"],
        sketch=_matrix(table, "sketch")[ok].astype(np.float32) * units,
        blocks=blocks,
        norms=_matrix(table, "norms")[ok],
        off_basis=_matrix(table, "off_basis")[ok],
        target_sketch={target: summary[f"sketch/{target}"] for target in targets},
        target_constant={target: summary[f"constant/{target}"] for target in targets},
        num_target={target: len(summary[f"sketch/{target}"]) for target in targets},
        quarantine=pd.DataFrame(bad, columns=["path", "reason", "of"]),
        weights=reference["weights"],
        warnings=reference["warnings"],
        num_catalog=plan["num_catalog"],
    )


def to_blocks(num_coordinates: list[int]) -> list[slice]:
    """The slice of the sketch that belongs to each term."""
    stops = np.cumsum(num_coordinates).tolist()
    return [slice(stop - size, stop) for stop, size in zip(stops, num_coordinates, strict=True)]


def read_marker(path: Path) -> dict[str, Any]:
    """A JSON marker of this folder. Raises StateError when it is missing, damaged or of another format."""
    marker = storage.read_sealed(path)
    if marker.get("format") != FORMAT:
        raise StateError(f"{path} is not of measurement format {FORMAT}; delete its folder and measure again")
    return marker


def withdraw(marker_path: Path) -> None:
    """Remove a finish marker before its file is replaced, so that it never vouches for the new one."""
    with storage.writing(marker_path):
        marker_path.unlink(missing_ok=True)


def read_verified(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Arrays of this folder. Raises StateError when the file is missing or has another SHA-256."""
    if not path.exists():
        raise StateError(f"{path} is missing; run the same command again")
    return storage.read_arrays(path, expected_sha256=sha256)


def _read_shard(folder: Path, index: int, inputs: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, Any]]:
    path, marker_path = shard_paths(folder, index)
    marker = read_marker(marker_path)
    if marker["inputs"] != inputs:
        raise StateError(f"{path} was measured from other inputs; run the same command again")
    if not path.exists() or storage.file_sha256(path) != marker["sha256"]:
        raise StateError(f"{path} is missing or damaged; delete it and run the same command again")
    return storage.read_table(path, schema=schema), marker


def _matrix(table: pa.Table, column: str) -> NDArray[Any]:
    array = table[column].combine_chunks()
    flat: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), array.type.list_size)
