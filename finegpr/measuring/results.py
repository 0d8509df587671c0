"""Measurements: the distances of every measured image to every target, and the sketches. What search reads.

The files they are read from are described in ``finegpr.measuring.files``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from finegpr import storage
from finegpr.arrays import Floats, Ints, Singles
from finegpr.catalog import Catalog
from finegpr.errors import InputError, StateError, write_anew
from finegpr.measuring.files import (
    DERIVED_MARKER,
    PLAN,
    PLAN_MARKER,
    REFERENCE_MARKER,
    SUMMARY,
    marker_hashes,
    read_record,
    read_verified,
    shard_paths,
    shard_schema,
    target_paths,
    terms_of,
)
from finegpr.measuring.networks import NETWORKS
from finegpr.pixels.decode import check_quarantine
from finegpr.weighing import Terms, Weighing

ROWS_AT_ONCE = 65_536  # of the estimated distances, which are computed in float64

MAX_OFF_BASIS = 0.25
"""Share of the source's squared norms off the basis, in any term, above which sketches are too coarse for new targets.

On MiniGPR (results/sketch-error.md) the error of distances to new targets grew with the content's share, the largest,
like this (95th percentile in standard deviations over images, lowest Spearman): 16 %: 1 %, 0.9995; 24 %: 5 %, 0.996;
29 %: 13 %, 0.977; 36 %: 21 %, 0.94.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """All images that could be measured, in catalog order, with n images, T terms and S sketch coordinates.

    of: the terms. row, cell int64 (n,): catalog row and cell. terms[target] float32 (n, T): unweighted terms of style,
    then of content, mean over the target. median float64 (T,): median pair distance per term over a seeded
    source sample. sketch float32 (n, S) and target_sketch[target] (m, S): squared distance over blocks[l] estimates
    term l between two images. norms, off_basis float32 (n, T): |u - mean|^2, and the share of it the sketch misses.
    target_constant[target] float64 (T,): the part of the terms that no image can change. num_target[target]: its images
    that could be read. quarantine: path, reason, of (``source`` or a target). num_catalog, catalog: rows and
    fingerprint of the sampled catalog.
    """

    of: Terms
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
    catalog: str

    def require_catalog(self, catalog: Catalog) -> None:
        """Raises InputError for another catalog than the measured one: other paths or labels."""
        if catalog.fingerprint != self.catalog:
            had = f"it had {self.num_catalog} images, this one {len(catalog)}"
            if self.num_catalog == len(catalog):
                had = f"both have {len(catalog)} images, but not the same paths and labels in the same order"
            raise InputError(
                f"the measurements are of another catalog ({had}); give the catalog that was measured, or measure this "
                "one"
            )

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
        """Share (T,) of all images' squared norms that lies off the basis, in [0, 1]."""
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
        """|u - t|^2 (n, T) estimated from sketches, t with coordinates ``mean`` (S,), and ``rest`` (T,) off the basis.

        See ``estimated_distances`` for the error.
        """
        estimated = np.empty((len(self.row), len(self.of)))
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

    def factors(self, weighing: Weighing) -> Floats:
        """(T,) factors with D_total = terms @ factors."""
        return weighing.factors(self.median, self.of)

    def total(self, target: str, weighing: Weighing) -> Floats:
        """D_total (n,) of every image to the target."""
        return self.terms[target].astype(np.float64) @ self.factors(weighing)

    def style_share(self, target: str, weighing: Weighing) -> float:
        """Share of D_total, summed over all images, that comes from the style terms, in [0, 1]."""
        parts = self.terms[target].astype(np.float64).sum(axis=0) * self.factors(weighing)
        return float(parts[: len(self.of.style)].sum() / parts.sum()) if parts.sum() > 0 else 0.0

    def phi(self, weighing: Weighing) -> Singles:
        """Embedding (n, S) with |phi_i - phi_j|^2 ~ D_total between two images."""
        return self.sketch * self._coordinate_weights(weighing)

    def target_phi(self, target: str, weighing: Weighing) -> Singles:
        """The same embedding of the target's images, (m, S)."""
        return self.target_sketch[target] * self._coordinate_weights(weighing)

    def _coordinate_weights(self, weighing: Weighing) -> Singles:
        sizes = [block.stop - block.start for block in self.blocks]
        return np.repeat(np.sqrt(self.factors(weighing)), sizes).astype(np.float32)


def estimated_distances(
    sketch: Singles,
    norms: Singles,
    off_basis: Singles,
    *,
    mean: Floats,
    rest: float,
) -> Floats:
    """|u - t|^2 (n,) from coordinates (n, k), norms and shares off the basis (n,) of images, as ``project`` gives.

    t is known by its coordinates ``mean`` (k,) and the squared length ``rest`` of what lies off the basis. There only
    the lengths of both are known, so -2 <u, t> is missing: at most 2 sqrt(norms off_basis rest). Stored coordinates are
    rounded to half precision while norms are not; brought back to their exact length, their error is almost orthogonal
    to u, which costs 1e-3 |u| times the distance of t from the line through u, and 1e-6 |u|^2 where t = u.
    """
    coordinates = sketch.astype(np.float64)
    outside = norms.astype(np.float64) * off_basis
    length = np.square(coordinates).sum(axis=1)
    scale = np.sqrt(np.divide(norms - outside, length, out=np.ones_like(length), where=length > 0))
    return np.asarray(np.square(coordinates * scale[:, None] - mean).sum(axis=1) + outside + rest)


def read_measurements(folder: Path) -> Measurements:
    """Read a finished measurement, or one derived from it for new targets, verifying every hash and checksum.

    Raises StateError naming the file for anything missing, damaged or of another run, InputError for a folder that is
    no measurement, and for too many bad images.
    """
    if (folder / DERIVED_MARKER).exists() and (folder / REFERENCE_MARKER).exists():
        raise StateError(
            f"{folder} holds a measurement and, by {DERIVED_MARKER}, the targets of another; move one of them to a "
            "folder of its own"
        )
    require_measurement(folder)
    return _read_derived(folder) if (folder / DERIVED_MARKER).exists() else _read_measured(folder)


def require_measurement(folder: Path) -> None:
    """Raises InputError where ``aost measure`` has not written ``folder``, or not to its end."""
    if any(
        (folder / name).exists() for name in (REFERENCE_MARKER, DERIVED_MARKER, PLAN, shard_paths(folder, 0)[1].name)
    ):
        for name in (REFERENCE_MARKER, DERIVED_MARKER):
            _require_sealed(folder / name)
        if (folder / REFERENCE_MARKER).exists() and not any((folder / name).exists() for name in (PLAN, PLAN_MARKER)):
            raise InputError(f"{folder} is an unfinished measurement; give the `aost measure` command of it again")
        return
    advice = "`aost measure SOURCE --targets TARGET` writes one"
    if not folder.exists():
        raise InputError(f"no measurements {folder}; {advice}")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, expected the folder of a measurement; {advice}")
    of_run = sorted(folder.glob(f"measure/*/{REFERENCE_MARKER}")) + sorted(folder.glob(f"*/{REFERENCE_MARKER}"))
    if of_run:
        raise InputError(f"{folder} holds no measurement, but {of_run[-1].parent} does; give that folder")
    raise InputError(f"{folder} holds no measurement ({REFERENCE_MARKER} is missing); {advice}")


def _require_sealed(path: Path) -> None:
    """Raises InputError where a JSON file of this name is somebody else's: it has neither of our fields."""
    if path.exists():
        found = storage.read_json(path)
        if not (isinstance(found, dict) and {"format", "seal"} & found.keys()):
            raise InputError(f"{path} was not written by `aost measure`; give the folder of a measurement")


def _read_measured(folder: Path) -> Measurements:
    reference = read_record(folder / REFERENCE_MARKER)
    summary = read_verified(folder / SUMMARY, reference["summary_sha256"])
    plan = read_record(folder / PLAN_MARKER)
    planned = read_verified(folder / PLAN, plan["sha256"])
    targets: list[str] = list(reference["targets"])
    blocks, terms = to_blocks(reference["num_coordinates"]), terms_of(reference)
    schema = shard_schema(targets, len(terms), blocks[-1].stop)
    tables, bad = [], []
    for index, inputs in enumerate(plan["shards"]):
        table, marker = _read_shard(folder, index, inputs, schema)
        tables.append(table)
        bad += [(path, reason, "source") for path, reason in marker["quarantine"]]
    table = pa.concat_tables(tables)
    check_quarantine([(path, reason) for path, reason, _ in bad], len(table), of="the source")
    bad += reference["quarantine"]

    row = table["row"].to_numpy()
    if not np.array_equal(row, planned["row"]):
        raise StateError(f"{folder}: the shards hold other rows than the plan; {write_anew(folder / PLAN)}")
    # A plan that grew holds catalog order only batch by batch.
    kept: Any = np.argsort(row, kind="stable")
    kept = kept[table["ok"].to_numpy()[kept]]
    if np.array_equal(kept, np.arange(len(row))):
        kept = slice(None)  # no copy of what may be gigabytes
    units = np.repeat(np.sqrt(np.asarray(reference["spread"])), reference["num_coordinates"]).astype(np.float32)
    measured = Measurements(
        of=terms,
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
        catalog=plan["catalog"],
    )
    return replace(measured, warnings=[*measured.warnings, *_off_basis_warnings(measured, reference["settings"])])


def measured_folder(folder: Path) -> Path:
    """Where the images were measured: the base of targets that were added from sketches, else ``folder`` itself."""
    if not (folder / DERIVED_MARKER).exists():
        return folder
    return Path(os.path.normpath(folder.resolve() / read_record(folder / DERIVED_MARKER)["base"]["path"]))


def _read_derived(folder: Path) -> Measurements:
    marker = read_record(folder / DERIVED_MARKER)
    base = measured_folder(folder)
    if not base.is_dir():
        raise StateError(
            f"{folder} belongs to the measurement {base}, which is not there; "
            "run `aost measure --from-sketches` again with its new place"
        )
    if changed := sorted(set(marker["base"]["markers"].items()) ^ set(marker_hashes(base).items())):
        raise StateError(
            f"{base / changed[0][0]} has changed since {folder} was derived from it; "
            "run the `aost measure --from-sketches` command that wrote it again"
        )
    measured = _read_measured(base)
    targets, bad = {}, []
    for name, (key, sha256) in marker["targets"].items():
        path, marker_path = target_paths(folder, key)
        if not marker_path.exists() or storage.file_sha256(marker_path) != sha256:
            raise StateError(f"{marker_path} is missing or damaged; {write_anew(marker_path)}")
        target = read_record(marker_path)
        targets[name] = read_verified(path, target["sha256"])
        bad += [(image, reason, name) for image, reason in target["quarantine"]]
    settings = read_record(base / REFERENCE_MARKER)["settings"]
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
    name, advice = measured.of.names[worst], basis_advice(settings, measured.of, worst)
    return [
        f"{measured.off_basis_share[worst]:.0%} of the images' {name} lies off the basis of the sketches, more "
        f"than {MAX_OFF_BASIS:.0%}: too coarse for new targets; to use --from-sketches, {advice}"
    ]


def basis_advice(settings: Mapping[str, Any], terms: Terms, term: int) -> str:
    """What makes sketches of a term, by its place, finer than those of these settings."""
    name = "style_coordinates" if term < len(terms.style) else "content_coordinates"
    images = min(2 * settings["basis_images"], 2000)
    most = settings[name] or NETWORKS[settings["network"]].coordinates[term]
    return f"measure anew with a larger basis, as by --set basis_images={images} {name}={2 * most}"


def to_blocks(num_coordinates: list[int]) -> list[slice]:
    """The slice of the sketch that belongs to each term."""
    stops = np.cumsum(num_coordinates).tolist()
    return [slice(stop - size, stop) for stop, size in zip(stops, num_coordinates, strict=True)]


def basis_hash(folder: Path) -> str:
    """SHA-256 of the fitted numbers of a measurement's sketch basis, which new targets do not change."""
    if (folder / DERIVED_MARKER).exists():
        return str(read_record(folder / DERIVED_MARKER)["base"]["basis"])
    return str(read_record(folder / REFERENCE_MARKER)["basis"])


def _read_shard(folder: Path, index: int, inputs: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, Any]]:
    path, marker_path = shard_paths(folder, index)
    marker = read_record(marker_path)
    if marker["inputs"] != inputs:
        raise StateError(f"{path} was measured from other inputs; run the `aost measure` command of {folder} again")
    if not path.exists() or storage.file_sha256(path) != marker["sha256"]:
        raise StateError(f"{path} is missing or damaged; {write_anew(path)}")
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
    """Share of squared norms off the basis per group (n,) of images, (groups, T); 0 where all norms are."""
    outside = measured.norms.astype(np.float64) * measured.off_basis
    sums, totals = (
        np.stack([np.bincount(group, weights=column) for column in values.T], axis=1)
        for values in (outside, measured.norms)
    )
    return np.asarray(np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0))
