"""How state reaches the disk: temporary name, flush, rename, marker last; checksums written and verified; one writer.

Every file of a run goes through here, so that a kill or a power loss at any moment leaves the old or the new file,
never half of one, and a flipped byte is found by name when the file is read.
"""

import errno
import fcntl
import hashlib
import itertools
import json
import math
import operator
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_safetensors

from finegpr.errors import BusyError, InputError, StateError, WriteError, write_anew

MARKER = "done.json"
LOCK = ".lock"
DIGEST_KEY = b"file_sha256"
_NO_DIGEST = b"0" * 64
_SEAL = "seal"
_TEMPORARY = re.compile(r"\.aost-[0-9a-f]{32}\.tmp")
_FLUSHES_AT_ONCE = 16
# Numbers of safetensors by numpy's names.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"} | {
    f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)
}
# How Parquet's footer (Thrift, compact protocol) writes that key and announces a value of 64 bytes.
_DIGEST_FIELD = DIGEST_KEY + b"\x18\x40"


def sha256(data: bytes | str) -> str:
    """Hex SHA-256 of bytes or of UTF-8 text."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal to write ``path`` into one WriteError that names it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"cannot write {path}: {reason}; free space or choose another --output") from error


def write_atomic(path: Path, write: Callable[[Path], object], *, flush: bool = True) -> None:
    """Call ``write`` with the name of an empty file beside ``path``, flush it to the disk, then rename it into place.

    Without ``flush`` a kill still leaves the old or the new file; a power loss may leave an empty one, until
    ``flush_below`` has been called.
    """
    with writing(path):
        make_folder(path.parent)
        with _temporary(path.parent) as temporary:
            write(temporary)
            if flush:
                _flush(temporary)
            temporary.replace(path)
        if flush:
            flush_folder(path.parent)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """An empty file with a name of its own, removed at the end if it was not renamed.

    It is locked as long as it is written, which tells those who clean up, on any machine, that its writer lives.
    """
    while True:
        path = folder / f".aost-{uuid.uuid4().hex}.tmp"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink == 0:
                continue  # taken for left behind in the moment before it was locked
            yield path
            return
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Flush what is called how in ``folder``: without this a renamed file has its old name after a power loss.

    File systems that cannot do that for a folder are let off; a disk that fails or is full is an OSError.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


def flush_below(folder: Path) -> None:
    """Flush every file and folder below ``folder``: many together take less time than each when it is written."""
    with writing(folder), ThreadPoolExecutor(_FLUSHES_AT_ONCE) as pool:
        for place, _, names in os.walk(folder):
            list(pool.map(_flush, [Path(place, name) for name in names if not name.startswith(".")]))
            flush_folder(Path(place))


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, flushed to the disk, where they are missing. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        flush_folder(each.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file, and flush that to the disk. Raises OSError."""
    source.replace(target)
    for folder in {source.parent, target.parent}:
        flush_folder(folder)


def write_bytes(path: Path, data: bytes | bytearray, *, flush: bool = True) -> None:
    """Atomically write bytes; ``flush`` as for ``write_atomic``."""
    write_atomic(path, lambda temporary: temporary.write_bytes(data), flush=flush)


def write_json(path: Path, value: object) -> None:
    """Atomically write indented JSON; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON that we wrote. Raises StateError naming file, line and column."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, or a number out of range
        raise StateError(f"{path} is damaged ({error}); {write_anew(path)}") from None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}; {write_anew(path)}") from None


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
    text = path.read_text(encoding="utf-8")
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
        data = path.read_bytes()
    except FileNotFoundError:
        raise StateError(f"{path} is missing; {write_anew(path)}") from None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}; {write_anew(path)}") from None
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
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if expected_sha256 is not None and (got := sha256(data)) != expected_sha256:
        raise StateError(f"{path} has sha256 {got[:16]}, expected {expected_sha256[:16]}; {write_anew(path)}")
    if data.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a safetensors file ({str(error).splitlines()[0]}); pickled weights are never read"
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
        _remove_temporaries(folder)
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
    except StateError:
        return {}
    return who if isinstance(who, dict) else {}


def _remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left behind in ``folder``: files with our mark that nobody is writing.

    A folder below that has a lock is left to whoever locks it next.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not Path(place, name, LOCK).exists()]
        for temporary in (Path(place, name) for name in names if _TEMPORARY.fullmatch(name)):
            with suppress(OSError):  # that it is being written, among others
                descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    temporary.unlink()
                finally:
                    os.close(descriptor)
