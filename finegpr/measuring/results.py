"""Measurements: the distances of every measured image to every target, and the sketches. What search reads.

A measurement folder holds, in the order of writing:

    reference.safetensors   per term: basis and, per target, the mean vector; read by the meters only
    summary.safetensors     median (6,), and per target its sketch (m, S) and constant (6,)
    reference.json          finish marker of both: what they were made from, their SHA-256, weights, targets, warnings
    plan.safetensors        row and cell of every image to measure, and the offsets of the shards
    plan.json               finish marker of the plan: for every shard the hash of what it is made from
    shard-00012.parquet     columns of ``shard_schema``
    shard-00012.json        finish marker of a shard: its inputs' hash, its SHA-256, its bad images

A derived folder (``finegpr.measuring.retarget``) holds new targets only, for the images of another folder, its base:

    target-0123456789ab.safetensors   sketch (m, S), constant (6,), mean (S,) and rest (6,): see ``distances``
    target-0123456789ab.json          finish marker of a target, named by the hash of what it is made from
    derived.json            finish marker: where the base lies, the SHA-256 of its markers, the targets by name
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from finegpr import storage
from finegpr.arrays import Floats, Ints, Singles
from finegpr.errors import StateError
from finegpr.measuring.sketch import estimated_distances
from finegpr.perceptual import ALPHA, BETA, LAYER_WEIGHT, NUM_STYLE_TERMS, NUM_TERMS, STYLE_LAYERS
from finegpr.pixels.decode import check_quarantine

FORMAT = 2
REFERENCE, SUMMARY, REFERENCE_MARKER = "reference.safetensors", "summary.safetensors", "reference.json"
PLAN, PLAN_MARKER = "plan.safetensors", "plan.json"
DERIVED_MARKER = "derived.json"

TERMS = (*STYLE_LAYERS, "content")
ROWS_AT_ONCE = 65_536  # of the estimated distances, which are computed in float64

MAX_OFF_BASIS = 0.25
"""Share of the source's squared norms off the basis, in any term, above which sketches are too coarse for new targets.

On MiniGPR (results/sketch-error.md) the error of distances to new targets grew with the content's share, the largest,
like this (95th percentile in standard deviations over images, lowest Spearman): 16 %: 1 %, 0.9995; 24 %: 5 %, 0.996;
29 %: 13 %, 0.977; 36 %: 21 %, 0.94.
"""

Scale = Literal["paper", "standardised"]


def shard_paths(folder: Path, index: int) -> tuple[Path, Path]:
    """Table and finish marker of one shard."""
    return folder / f"shard-{index:05d}.parquet", folder / f"shard-{index:05d}.json"


def target_paths(folder: Path, key: str) -> tuple[Path, Path]:
    """Arrays and finish marker of a target of a derived folder, made from the inputs with hash ``key``."""
    return folder / f"target-{key[:12]}.safetensors", folder / f"target-{key[:12]}.json"


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

    row: Ints
    cell: Ints
    terms: Mapping[str, Singles]
    median: Floats
    sketch: Singles
    blocks: list[slice]
    norms: Singles
    off_basis: Singles
    target_sketch: Mapping[str, Singles]
    target_constant: Mapping[str, Floats]
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
    def off_basis_share(self) -> Floats:
        """Share (6,) of all images' squared norms that lies off the basis, in [0, 1]."""
        share: Floats = _share_off_basis(self, np.zeros_like(self.row))[0]
        return share

    def off_basis_summary(self) -> dict[str, list[float]]:
        """The share off the basis per term: ``off_basis_share``, and of single images, and in the worst cell."""
        cell = np.unique(self.cell, return_inverse=True)[1]
        return {
            "share": self.off_basis_share.tolist(),
            "median": np.median(self.off_basis, axis=0).tolist(),
            "percentile_95": np.percentile(self.off_basis, 95, axis=0).tolist(),
            "worst_cell": _share_off_basis(self, cell).max(axis=0).tolist(),
        }

    def distances(self, *, mean: Floats, rest: Floats) -> Floats:
        """|u - t|^2 (n, 6) estimated from sketches, t with coordinates ``mean`` (S,), and ``rest`` (6,) off the basis.

        See ``sketch.estimated_distances`` for the error.
        """
        estimated = np.empty((len(self.row), NUM_TERMS))
        for start in range(0, len(estimated), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            for term, block in enumerate(self.blocks):
                estimated[rows, term] = estimated_distances(
                    self.sketch[rows, block],
                    self.norms[rows, term],
                    self.off_basis[rows, term],
                    mean=mean[block],
                    rest=float(rest[term]),
                )
        return estimated

    @property
    def layer_weights(self) -> Floats:
        """(6,): alpha w_l for the style terms, beta for content."""
        return np.array([ALPHA * LAYER_WEIGHT] * NUM_STYLE_TERMS + [BETA])

    def term_weights(self, scale: Scale) -> Floats:
        """(6,) factors with D_total = terms @ factors; ``standardised`` divides each term by its median."""
        if scale == "paper":
            return self.layer_weights
        return self.layer_weights / np.where(self.median > 0, self.median, 1.0)

    def total(self, target: str, scale: Scale) -> Floats:
        """D_total (n,) of every image to the target."""
        return self.terms[target].astype(np.float64) @ self.term_weights(scale)

    def style_share(self, target: str, scale: Scale) -> float:
        """Share of D_total, summed over all images, that comes from the style terms, in [0, 1]."""
        parts = self.terms[target].astype(np.float64).sum(axis=0) * self.term_weights(scale)
        return float(parts[:NUM_STYLE_TERMS].sum() / parts.sum()) if parts.sum() > 0 else 0.0

    def phi(self, scale: Scale) -> Singles:
        """Embedding (n, S) with |phi_i - phi_j|^2 ~ D_total between two images."""
        return self.sketch * self._coordinate_weights(scale)

    def target_phi(self, target: str, scale: Scale) -> Singles:
        """The same embedding of the target's images, (m, S)."""
        return self.target_sketch[target] * self._coordinate_weights(scale)

    def _coordinate_weights(self, scale: Scale) -> Singles:
        sizes = [block.stop - block.start for block in self.blocks]
        return np.repeat(np.sqrt(self.term_weights(scale)), sizes).astype(np.float32)


def read_measurements(folder: Path) -> Measurements:
    """Read a finished measurement, or one derived from it for new targets, verifying every hash and checksum.

    Raises StateError naming the file for anything missing, damaged or of another run, InputError for too many bad
    images.
    """
    if not (folder / DERIVED_MARKER).exists():
        return _read_measured(folder)
    if (folder / REFERENCE_MARKER).exists():
        raise StateError(
            f"{folder} holds a measurement and the targets of another; delete {DERIVED_MARKER} or the rest"
        )
    return _read_derived(folder)


def _read_measured(folder: Path) -> Measurements:
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

    row = table["row"].to_numpy()
    if not np.array_equal(row, planned["row"]):
        raise StateError(f"{folder}: the shards hold other rows than the plan; delete the folder and measure again")
    # A plan that grew holds catalog order only batch by batch.
    kept: Any = np.argsort(row, kind="stable")
    kept = kept[table["ok"].to_numpy()[kept]]
    if np.array_equal(kept, np.arange(len(row))):
        kept = slice(None)  # no copy of what may be gigabytes
    units = np.repeat(np.sqrt(np.asarray(reference["spread"])), reference["num_coordinates"]).astype(np.float32)
    measured = Measurements(
        row=row[kept],
        cell=planned["cell"][kept],
        terms={target: _matrix(table, f"terms/{target}")[kept] for target in targets},
        median=summary["median"],
        sketch=_sketch(table["sketch"], units)[kept],
        blocks=blocks,
        norms=_matrix(table, "norms")[kept],
        off_basis=_matrix(table, "off_basis")[kept],
        target_sketch={target: summary[f"sketch/{target}"] for target in targets},
        target_constant={target: summary[f"constant/{target}"] for target in targets},
        num_target={target: len(summary[f"sketch/{target}"]) for target in targets},
        quarantine=pd.DataFrame(bad, columns=["path", "reason", "of"]),
        weights=reference["weights"],
        warnings=reference["warnings"],
        num_catalog=plan["num_catalog"],
    )
    return replace(measured, warnings=[*measured.warnings, *_off_basis_warnings(measured, reference["settings"])])


def _read_derived(folder: Path) -> Measurements:
    marker = read_marker(folder / DERIVED_MARKER)
    base = Path(os.path.normpath(folder.resolve() / marker["base"]["path"]))
    if not base.is_dir():
        raise StateError(
            f"{folder} belongs to the measurement {base}, which is not there; "
            "run `aost measure --from-sketches` again with its new place"
        )
    if changed := sorted(set(marker["base"]["markers"].items()) ^ set(marker_hashes(base).items())):
        raise StateError(
            f"{base / changed[0][0]} has changed since {folder} was derived from it; "
            "run the same `aost measure --from-sketches` command again"
        )
    measured = _read_measured(base)
    targets, bad = {}, []
    for name, (key, sha256) in marker["targets"].items():
        path, marker_path = target_paths(folder, key)
        if not marker_path.exists() or storage.file_sha256(marker_path) != sha256:
            raise StateError(f"{marker_path} is missing or damaged; delete it and run the same command again")
        target = read_marker(marker_path)
        targets[name] = read_verified(path, target["sha256"])
        bad += [(image, reason, name) for image, reason in target["quarantine"]]
    settings = read_marker(base / REFERENCE_MARKER)["settings"]
    of_source = measured.quarantine[measured.quarantine["of"] == "source"]
    return replace(
        measured,
        terms={
            name: (measured.distances(mean=target["mean"], rest=target["rest"]) + target["constant"]).astype(np.float32)
            for name, target in targets.items()
        },
        target_sketch={name: target["sketch"] for name, target in targets.items()},
        target_constant={name: target["constant"] for name, target in targets.items()},
        num_target={name: len(target["sketch"]) for name, target in targets.items()},
        quarantine=pd.concat([of_source, pd.DataFrame(bad, columns=of_source.columns)], ignore_index=True),
        warnings=[*marker["warnings"], *_off_basis_warnings(measured, settings)],
    )


def _off_basis_warnings(measured: Measurements, settings: Mapping[str, Any]) -> list[str]:
    worst = int(measured.off_basis_share.argmax())
    if measured.off_basis_share[worst] <= MAX_OFF_BASIS:
        return []
    advice = basis_advice(settings, worst)
    return [
        f"{measured.off_basis_share[worst]:.0%} of the images' {TERMS[worst]} lies off the basis of the sketches, more "
        f"than {MAX_OFF_BASIS:.0%}: too coarse for new targets; to use --from-sketches, {advice}"
    ]


def basis_advice(settings: Mapping[str, Any], term: int) -> str:
    """What makes sketches of ``term`` finer than those of these settings."""
    name = "style_coordinates" if term < NUM_STYLE_TERMS else "content_coordinates"
    images = min(2 * settings["basis_images"], 2000)
    return f"measure anew with a larger basis, as by --set basis_images={images} {name}={2 * settings[name]}"


def to_blocks(num_coordinates: list[int]) -> list[slice]:
    """The slice of the sketch that belongs to each term."""
    stops = np.cumsum(num_coordinates).tolist()
    return [slice(stop - size, stop) for stop, size in zip(stops, num_coordinates, strict=True)]


def basis_hash(folder: Path) -> str:
    """SHA-256 of the fitted numbers of a measurement's sketch basis, which new targets do not change."""
    if (folder / DERIVED_MARKER).exists():
        return str(read_marker(folder / DERIVED_MARKER)["base"]["basis"])
    return str(read_marker(folder / REFERENCE_MARKER)["basis"])


def shard_markers(folder: Path) -> list[Path]:
    """The finish markers of all shards of the plan."""
    return [shard_paths(folder, index)[1] for index in range(len(read_marker(folder / PLAN_MARKER)["shards"]))]


def marker_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every finish marker of a measurement, by name; each of them vouches for its file.

    Raises StateError when the measurement is unfinished.
    """
    paths = [folder / REFERENCE_MARKER, folder / PLAN_MARKER, *shard_markers(folder)]
    if missing := [path.name for path in paths if not path.exists()]:
        raise StateError(
            f"{folder} is unfinished: {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''} missing; "
            "run the `aost measure` command that began it again"
        )
    return {path.name: storage.file_sha256(path) for path in paths}


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


def _sketch(column: pa.ChunkedArray, units: Singles) -> Singles:
    """(n, S) in float32, shard by shard: float16 and float32 of all images never lie side by side with a copy."""
    values = np.empty((len(column), len(units)), dtype=np.float32)
    start = 0
    for chunk in column.chunks:
        halves = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(units))
        np.multiply(halves, units, out=values[start : start + len(chunk)])
        start += len(chunk)
    return values


def _matrix(table: pa.Table, column: str) -> NDArray[Any]:
    array = table[column].combine_chunks()
    flat: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), array.type.list_size)


def _share_off_basis(measured: Measurements, group: Ints) -> Floats:
    """Share of squared norms off the basis per group (n,) of images, (groups, 6); 0 where all norms are."""
    outside = measured.norms.astype(np.float64) * measured.off_basis
    sums, totals = (
        np.stack([np.bincount(group, weights=column) for column in values.T], axis=1)
        for values in (outside, measured.norms)
    )
    return np.asarray(np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0))
