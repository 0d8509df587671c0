"""The files of a measurement folder: their names, formats and finish markers.

A measurement folder holds, in the order of writing:

    reference.safetensors   per term: basis and, per target, the mean vector; read by the meters only
    summary.safetensors     median (T,), and per target its sketch (m, S) and constant (T,); T terms
    reference.json          finish marker of both: what they were made from, their SHA-256, network, weights, names of
                            the terms, targets, warnings
    plan.safetensors        row and cell of every image to measure, and the sizes of the shards
    shards.json             finish marker of the plan: for every shard the hash of what it is made from
    shard-00012.parquet     columns of ``shard_schema``
    shard-00012.json        finish marker of a shard: its inputs' hash, its SHA-256, its images' contents, the bad ones
    contents/               what the images of each shard, of the basis and of each target held, and when: what is lost
                            of it is read again, see ``finegpr.contents``; markers say of which images the numbers are

A derived folder (``finegpr.measuring.retarget``) holds new targets only, for the images of another folder, its base:

    target-0123456789ab.safetensors   sketch (m, S), constant (T,), mean (S,) and rest (T,): see ``distances``
    target-0123456789ab.json          finish marker of a target, named by the hash of what it is made from
    derived.json            finish marker: where the base lies, the SHA-256 of its markers, the targets by name
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from finegpr import storage
from finegpr.errors import StateError, write_anew
from finegpr.weighing import Terms

FORMAT = 4
REFERENCE, SUMMARY, REFERENCE_MARKER = "reference.safetensors", "summary.safetensors", "reference.json"
PLAN, PLAN_MARKER = "plan.safetensors", "shards.json"
DERIVED_MARKER = "derived.json"


def shard_paths(folder: Path, index: int) -> tuple[Path, Path]:
    """Table and finish marker of one shard."""
    return folder / f"shard-{index:05d}.parquet", folder / f"shard-{index:05d}.json"


def shard_contents(folder: Path, index: int) -> Path:
    """What the images of one shard held when they were measured."""
    return folder / "contents" / f"shard-{index:05d}.parquet"


def basis_contents(folder: Path) -> Path:
    """What the images that the basis was fitted on held."""
    return folder / "contents" / "basis.parquet"


def target_contents(folder: Path, name: str) -> Path:
    """What the images of the target ``name`` held."""
    return folder / "contents" / f"target-{storage.canonical_hash(name)[:12]}.parquet"


def target_paths(folder: Path, key: str) -> tuple[Path, Path]:
    """Arrays and finish marker of a target of a derived folder, made from the inputs with hash ``key``."""
    return folder / f"target-{key[:12]}.safetensors", folder / f"target-{key[:12]}.json"


def shard_schema(targets: list[str], num_terms: int, num_coordinates: int) -> pa.Schema:
    """Columns of a shard, one row per image; every number is zero where ``ok`` is False.

    norms: |u - mean|^2 per term; sketch: coordinates in units of each term's spread; terms/T: mean over target T.
    """
    per_term = pa.list_(pa.float32(), num_terms)
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


def terms_of(reference: dict[str, Any]) -> Terms:
    """The terms of a measurement, from its reference's marker."""
    return Terms(style=tuple(reference["terms"]["style"]), content=tuple(reference["terms"]["content"]))


def shard_markers(folder: Path) -> list[Path]:
    """The finish markers of all shards of the plan."""
    return [shard_paths(folder, index)[1] for index in range(len(read_record(folder / PLAN_MARKER)["shards"]))]


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


def read_record(path: Path) -> dict[str, Any]:
    """A JSON marker of this folder. Raises StateError when it is missing, damaged or of another format."""
    marker = storage.read_sealed(path)
    if marker.get("format") != FORMAT:
        raise StateError(f"{path} is not of measurement format {FORMAT}; {write_anew(path)}")
    return marker


def read_verified(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Arrays of this folder. Raises StateError when the file is missing or has another SHA-256."""
    if not path.exists():
        raise StateError(f"{path} is missing; {write_anew(path)}")
    return storage.read_arrays(path, expected_sha256=sha256)
