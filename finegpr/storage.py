"""What state is on the disk: JSON, tables and arrays with checksums that are verified, marker last; one writer.

A flipped byte is found by name when a file is read.
"""

import hashlib
import itertools
import json
import math
import operator
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_safetensors

from finegpr.atomic import make_folder, remove_temporaries, write_bytes, writing
from finegpr.errors import AostError, BusyError, InputError, StateError, write_anew
from finegpr.faults import is_absent, patiently, unreadable

MARKER = "done.json"
ENDED = "ended"
"""Of a finish marker: when its work ended, in seconds since 1970."""
LOCK = ".lock"
DIGEST_KEY = b"file_sha256"
_NO_DIGEST = b"0" * 64
_SEAL = "seal"
# Numbers of safetensors by numpy's names.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"} | {
    f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)
}
# How Parquet's footer (Thrift, compact protocol) writes that key and announces a value of 64 bytes.
_DIGEST_FIELD = DIGEST_KEY + b"\x18\x40"
# Most file systems take 255 bytes, of which something is left for what is put to a name.
_MAX_NAME_BYTES = 200
# Control characters and separators; and a % that would be read as the beginning of an escape.
_NOT_OF_A_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028-\u202e\u2066-\u2069\ud800-\udfff]|%(?=~|[0-9A-Fa-f]{2})")


def sha256(data: bytes | str) -> str:
    """Hex SHA-256 of bytes or of UTF-8 text."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""

    def digest() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return patiently(digest, path)


def canonical_hash(value: object) -> str:
    """SHA-256 of a JSON-ready value with sorted keys: the identity of a config or of a stage's inputs."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False))


def changed_fields(
    old: object, new: object, *, same: Callable[[object, object], bool] = operator.eq, place: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Every field (``a.b``, old, new) in which two JSON values are not the ``same``, keys in order; missing is None.

    By default 1 and 1.0 are the same, as Python has it. Lists are compared as a whole.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            below = f"{place}.{name}" if place else name
            yield from changed_fields(old.get(name), new.get(name), same=same, place=below)
    elif not same(old, new):
        yield place, old, new


def first_free(path: Path, *, start: int = 1, suffix: str = "") -> Path:
    """The first of ``<path>-1<suffix>``, ``<path>-2<suffix>`` and so on, from ``start``, that does not exist."""
    places = (path.with_name(f"{path.name}-{number}{suffix}") for number in itertools.count(start))
    return next(place for place in places if not place.exists())


def path_part(name: str) -> str:
    """The name of a file or folder for a ``name`` that somebody chose: no other name has the same, and none leads out.

    What is no part of a path is percent-encoded, as are names of dots alone; ``urllib.parse.unquote`` reads it back. A
    name of no letter, or of more than 200 bytes, ends in its SHA-256 after ``%~``. All others stay as they are.
    """
    part = _NOT_OF_A_NAME.sub(_percent, name)
    if name and not name.strip("."):
        part = "%2E" * len(name)
    if part and len(part.encode()) <= _MAX_NAME_BYTES:
        return part
    digest = sha256(name.encode("utf-8", "surrogatepass"))[:32]
    kept = part.encode()[: _MAX_NAME_BYTES - 2 - len(digest)].decode(errors="ignore")
    return f"{kept}%~{digest}"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def write_json(path: Path, value: object) -> None:
    """Atomically write indented JSON; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_text(path: Path) -> str:
    """The UTF-8 text of a file. Raises OSError for what is wrong with it, and what ``patiently`` raises."""
    return patiently(lambda: path.read_text(encoding="utf-8"), path)


def read_json(path: Path) -> Any:
    """Read JSON that we wrote. Raises StateError naming file, line and column."""
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, or a number out of range
        raise StateError(f"{path} is damaged ({error}); {write_anew(path)}") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> AostError:
    """A file of ours that is lost, or lies there and cannot be read: then nothing is known against it."""
    if is_absent(error):
        return StateError(f"cannot read {path}: {error.strerror}; {write_anew(path)}")
    return unreadable(path, error)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is out of range")
    return value


def write_sealed(path: Path, fields: Mapping[str, object]) -> None:
    """Atomically write a JSON object that carries the SHA-256 of its own file, under ``seal``."""
    text = json.dumps({**fields, _SEAL: _NO_DIGEST.decode()}, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_bytes(path, text.replace(_seal(_NO_DIGEST.decode()), _seal(sha256(text))).encode())


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what ``write_sealed`` wrote, without the seal. Raises StateError that names the file."""
    value = read_json(path)
    seal = value.pop(_SEAL, None) if isinstance(value, dict) else None
    text = read_text(path)
    if not isinstance(seal, str) or sha256(text.replace(_seal(seal), _seal(_NO_DIGEST.decode()))) != seal:
        raise StateError(f"{path} is damaged (its SHA-256 is another); {write_anew(path)}")
    return dict(value)


def _seal(digest: str) -> str:
    return f'"{_SEAL}": "{digest}"'


def write_table(path: Path, table: pa.Table) -> None:
    """Atomically write Parquet (zstd) with a checksum on every page, and the SHA-256 of the file inside its footer.

    Page checksums do not cover the footer, where column names, types, metadata and the number of rows are.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({DIGEST_KEY: _NO_DIGEST})
    data = bytearray(sink.getvalue())
    place = data.rindex(_DIGEST_FIELD) + len(_DIGEST_FIELD)
    data[place : place + len(_NO_DIGEST)] = hashlib.sha256(data).hexdigest().encode()
    write_bytes(path, data)


def read_table(path: Path, *, schema: pa.Schema | None = None, columns: list[str] | None = None) -> pa.Table:
    """Read Parquet that ``write_table`` wrote, verifying every byte and, when given, that ``schema`` is part of its.

    ``columns`` limits what is returned. Raises StateError that names the file.
    """
    try:
        data = patiently(path.read_bytes, path)
    except FileNotFoundError:
        raise StateError(f"{path} is missing; {write_anew(path)}") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    place = data.rfind(_DIGEST_FIELD) + len(_DIGEST_FIELD)
    blanked = hashlib.sha256(data[:place] + _NO_DIGEST + data[place + len(_NO_DIGEST) :])
    if blanked.hexdigest().encode() != data[place : place + len(_NO_DIGEST)]:
        raise StateError(f"{path} is damaged (its SHA-256 is another); {write_anew(path)}")
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    if schema is not None:
        check_schema(path, file.schema_arrow, schema)
    table = file.read(columns=columns)
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != DIGEST_KEY}
    return table.replace_schema_metadata(metadata)


def check_schema(path: Path, got: pa.Schema, expected: pa.Schema) -> None:
    """Raises StateError naming the first column of ``expected`` that is missing from ``got`` or has another type."""
    for field in expected:
        type_ = got.field(field.name).type if field.name in got.names else "nothing"
        if type_ != field.type:
            raise StateError(
                f"{path}: column {field.name} should be {field.type}, got {type_}; was it made by another version?"
            )


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> str:
    """Atomically write named arrays as safetensors and return the file's SHA-256."""
    data = save_safetensors({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata or {}))
    write_bytes(path, data)
    return sha256(data)


def read_arrays(path: Path, *, expected_sha256: str | None = None) -> dict[str, np.ndarray]:
    """Read a safetensors file; bfloat16, which numpy lacks, as float32 of the same values.

    Raises InputError when it is not one or holds other numbers, StateError when its hash is not the expected.
    """
    try:
        data = patiently(path.read_bytes, path)
    except OSError as error:
        raise unreadable(path, error) from None
    if expected_sha256 is not None and (got := sha256(data)) != expected_sha256:
        raise StateError(f"{path} has sha256 {got[:16]}, expected {expected_sha256[:16]}; {write_anew(path)}")
    if data.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a safetensors file ({str(error).splitlines()[0]}); pickled weights are not read, "
            "and `aost weights NETWORK --convert FILE` converts published ones"
        ) from None
    if unread := sorted({tensor["dtype"] for _, tensor in tensors} - {*_DTYPES, "BF16"}):
        raise InputError(
            f"{path} holds numbers of type {unread[0]}, which are not read; convert it to one of BF16, "
            + ", ".join(_DTYPES)
        )
    return {name: _array(tensor) for name, tensor in tensors}


def _array(tensor: Mapping[str, Any]) -> np.ndarray:
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        halves = np.frombuffer(tensor["data"], dtype="<u2")
        return (halves.astype(np.uint32) << 16).view(np.float32).reshape(tensor["shape"])
    return np.frombuffer(tensor["data"], dtype=_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def write_marker(folder: Path, fields: Mapping[str, object]) -> None:
    """Commit ``folder``: its finish marker, always written last."""
    write_sealed(folder / MARKER, fields)


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The finish marker of ``folder``, or None when it was never finished. A damaged marker is a StateError."""
    path = folder / MARKER
    return read_sealed(path) if path.exists() else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` as its only writer. Raises BusyError naming the holder; the lock of a dead process is free."""
    with writing(folder):
        make_folder(folder)
        lock = filelock.FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            who = _holder(folder)
            raise BusyError(
                f"{folder} is in use by process {who.get('process', '?')} on {who.get('host', '?')} "
                f"since {who.get('since', '?')}; wait for it or choose another --output"
            ) from None
    try:
        remove_temporaries(folder, lock=LOCK)
        write_json(
            folder / f"{LOCK}.json",
            {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")},
        )
        yield
    finally:
        lock.release()


def _holder(folder: Path) -> dict[str, Any]:
    try:
        who = read_json(folder / f"{LOCK}.json")
    except AostError:
        return {}
    return who if isinstance(who, dict) else {}
