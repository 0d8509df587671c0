"""Where the pixels of a catalog come from: an image store shared by many trainings, memory, or the files themselves."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finegpr.arrays import Ints
from finegpr.atomic import reserve, write_atomic
from finegpr.catalog import Catalog
from finegpr.contents import contents_key
from finegpr.errors import InputError, StateError, write_anew
from finegpr.faults import is_absent, patiently, unreadable
from finegpr.object_stores import AnyPath
from finegpr.pixels import decode as image_files
from finegpr.reid.ahead import ahead
from finegpr.storage import canonical_hash, file_sha256, read_marker, read_table, write_marker, write_table

_CHUNK = 1024
_SURVEYED = 64  # files that a process decodes at a time to see whether it can
_PIXELS = "pixels.npy"
_INDEX = "index.parquet"
_INDEX_SCHEMA = pa.schema([("path", pa.binary()), ("reason", pa.string())])

Bad = list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageStore:
    """Decoded images of one size in a memory-mapped file: decoded once, read by any number of processes.

    ``pixels`` is uint8 (n, 3, H, W); ``reasons`` says per image why it is bad, None for a good one. Images are found
    by their absolute path. The file can be read by its owner only. Open it in every process by ``open(folder)`` rather
    than sending it.
    """

    folder: Path
    pixels: NDArray[np.uint8]
    reasons: tuple[str | None, ...]
    row_of: dict[bytes, int] = field(repr=False)

    @classmethod
    def create(cls, folder: Path, catalogs: Iterable[Catalog], *, height: int, width: int) -> "ImageStore":
        """Decode every image of ``catalogs`` once; a finished store of the same files in ``folder`` is kept.

        A store of other images, or of files that hold something else by now, is made anew. Raises InputError when there
        are no images, and WriteError.
        """
        catalogs = list(catalogs)
        path_of = {_key(path): path for catalog in catalogs for path in catalog.file_paths()}
        if not path_of:
            raise InputError(f"there are no images to decode for {folder}; the catalogs are empty")
        keys = sorted(path_of)
        paths = [path_of[key] for key in keys]
        held = [contents_key(each, folder / f".contents-{number}.parquet") for number, each in enumerate(catalogs)]
        inputs = canonical_hash([[key.hex() for key in keys], sorted(held)])
        wanted = {"inputs": inputs, "height": height, "width": width}
        marker = read_marker(folder)
        is_same = marker is not None and {name: marker.get(name) for name in wanted} == wanted
        is_there = is_same and (folder / _PIXELS).exists()
        if marker is not None and is_there and marker["sha256"] == file_sha256(folder / _PIXELS):
            return cls.open(folder)
        reasons: list[str | None] = [None] * len(paths)

        def decode(temporary: Path) -> None:
            shape = (len(paths), 3, height, width)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            # Written, not mapped: on a full disk a mapped page has no place, and the process would be killed.
            with temporary.open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                reserve(stream, stream.tell() + math.prod(shape))
                for begin in range(0, len(paths), _CHUNK):
                    chunk, bad = image_files.load(paths[begin : begin + _CHUNK], height=height, width=width)
                    stream.write(chunk.data)
                    for index, reason in bad:
                        reasons[begin + index] = reason

        write_atomic(folder / _PIXELS, decode, private=True)  # it may hold photos of people
        write_table(folder / _INDEX, pa.table({"path": keys, "reason": reasons}, schema=_INDEX_SCHEMA))
        write_marker(folder, {**wanted, "num_images": len(paths), "sha256": file_sha256(folder / _PIXELS)})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "ImageStore":
        """Open a finished store for reading. Raises StateError when it is unfinished, or its files do not fit."""
        marker = read_marker(folder)
        if marker is None:
            raise StateError(f"{folder} is not a finished image store; {write_anew(folder / _PIXELS)}")
        index = read_table(folder / _INDEX, schema=_INDEX_SCHEMA)
        shape = (index.num_rows, 3, marker["height"], marker["width"])
        try:
            pixels = patiently(lambda: _mapped(folder / _PIXELS), folder / _PIXELS)
        except OSError as error:
            if not is_absent(error):
                raise unreadable(folder / _PIXELS, error) from None
            raise StateError(f"{folder / _PIXELS} is missing; {write_anew(folder / _PIXELS)}") from None
        except ValueError as error:
            raise StateError(f"cannot read {folder / _PIXELS} ({error}); {write_anew(folder / _PIXELS)}") from None
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise StateError(
                f"{folder / _PIXELS} should be uint8 {shape}, got {pixels.dtype} {pixels.shape}; "
                f"{write_anew(folder / _PIXELS)}"
            )
        row_of = {path: row for row, path in enumerate(index["path"].to_pylist())}
        return cls(folder=folder, pixels=pixels, reasons=tuple(index["reason"].to_pylist()), row_of=row_of)


def _mapped(path: Path) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return pixels


def _key(path: AnyPath) -> bytes:
    return os.fsencode(str(path.absolute()))


class Pixels(Protocol):
    """The pixels of a catalog's rows. ``bad`` is every bad row that is known before reading."""

    bad: Bad

    def read(self, rows: Ints) -> tuple[NDArray[np.uint8], Bad]:
        """uint8 (n, 3, H, W) of these rows, and the (row, reason) of the bad ones among them, whose pixels are zero."""


class StoredPixels:
    """Rows of an array that lies in memory or is mapped into it."""

    def __init__(self, pixels: NDArray[np.uint8], rows: Ints, bad: Bad) -> None:
        self._pixels, self._rows = pixels, rows
        self.bad = bad
        self._reasons = dict(bad)

    def read(self, rows: Ints) -> tuple[NDArray[np.uint8], Bad]:
        bad = [(int(row), self._reasons[int(row)]) for row in rows if int(row) in self._reasons] if self.bad else []
        return self._pixels[self._rows[rows]], bad


class FilePixels:
    """Rows decoded from their files whenever they are read."""

    def __init__(self, paths: Sequence[AnyPath], *, height: int, width: int) -> None:
        self._paths, self._height, self._width = paths, height, width
        self.bad: Bad = []

    def read(self, rows: Ints) -> tuple[NDArray[np.uint8], Bad]:
        paths = [self._paths[row] for row in rows]
        pixels, bad = image_files.load(paths, height=self._height, width=self._width)
        return pixels, [(int(rows[index]), reason) for index, reason in bad]

    def find_bad(self, rows: Ints) -> Bad:
        """The (row, reason) of those of these rows that cannot be decoded."""
        bad = image_files.find_bad([self._paths[row] for row in rows])
        return [(int(rows[index]), reason) for index, reason in bad]


def open_pixels(catalog: Catalog, *, height: int, width: int, images: ImageStore | None, cache_bytes: int) -> Pixels:
    """The catalog's pixels: from ``images`` where given, else decoded now if they fit ``cache_bytes``, else streamed.

    Raises StateError when ``images`` has another size or lacks an image of the catalog.
    """
    paths = catalog.file_paths()
    if images is not None:
        if images.pixels.shape[2:] != (height, width):
            got = "x".join(map(str, images.pixels.shape[2:]))
            raise StateError(f"image store {images.folder} holds {got} pixels, expected {height}x{width}; make it anew")
        rows = np.array([images.row_of.get(_key(path), -1) for path in paths], dtype=np.int64)
        if (rows < 0).any():
            missing = paths[int(np.argmin(rows))]
            raise StateError(f"image store {images.folder} lacks {missing}; make it anew from this catalog")
        reasons = [(index, images.reasons[row]) for index, row in enumerate(rows.tolist())]
        return StoredPixels(images.pixels, rows, [(index, reason) for index, reason in reasons if reason is not None])
    if len(paths) * 3 * height * width > cache_bytes:
        return FilePixels(paths, height=height, width=width)
    pixels, bad = image_files.load(paths, height=height, width=width)
    return StoredPixels(pixels, np.arange(len(paths)), bad)


def read_ahead(pixels: Pixels, batches: Sequence[Ints], *, workers: int) -> Iterator[tuple[NDArray[np.uint8], Bad]]:
    """``pixels.read`` of each batch, in order; files are decoded by ``workers`` processes ahead of their use."""
    return ahead(pixels.read, batches, workers=workers if isinstance(pixels, FilePixels) else 0)


def find_bad(pixels: Pixels, rows: Ints, *, workers: int) -> Bad:
    """Those of ``rows`` that are bad; files are decoded once for it, by ``workers`` processes."""
    if not isinstance(pixels, FilePixels):
        wanted = set(rows.tolist())
        return [(row, reason) for row, reason in pixels.bad if row in wanted]
    chunks = [rows[begin : begin + _SURVEYED] for begin in range(0, len(rows), _SURVEYED)]
    return [found for bad in ahead(pixels.find_bad, chunks, workers=workers) for found in bad]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSet:
    """What a training reads: its good ``rows`` (n,), a class 0 .. num_classes - 1 for each, and their pixels.

    ``quarantined`` is every bad image, known before the first batch: catalog row -> reason.
    """

    catalog: Catalog
    pixels: Pixels
    rows: Ints
    labels: Ints
    identities: Ints
    quarantined: Mapping[int, str]

    @classmethod
    def open(cls, catalog: Catalog, pixels: Pixels, quarantined: Mapping[int, str]) -> "TrainingSet":
        """Raises InputError for images of a test or of nobody, fewer than 2 identities, or too many bad images."""
        identity = catalog.identities
        if num_tests := int((catalog.frame["part"] != "train").sum()):
            raise InputError(
                f"{num_tests} of {len(catalog)} training images of {catalog.title} are of query and gallery parts; "
                "scores would be inflated, train on its part train"
            )
        if num_nobody := int((identity <= 0).sum()):
            raise InputError(
                f"{num_nobody} of {len(catalog)} training images show nobody (identity 0 or -1); leave them out; of a "
                "table, first_identity=0 says that 0 is a person"
            )
        rows = np.setdiff1d(np.arange(len(catalog)), list(quarantined))
        identities, labels = np.unique(identity[rows], return_inverse=True)
        training = cls(
            catalog=catalog,
            pixels=pixels,
            rows=rows,
            labels=labels.astype(np.int64),
            identities=identities,
            quarantined=quarantined,
        )
        image_files.check_quarantine(training.bad_files, len(catalog), of=catalog.title)
        if len(identities) < 2:
            raise InputError(f"training needs at least 2 identities, got {len(identities)} in {len(rows)} images")
        return training

    def batches(self, order: Sequence[Ints], *, workers: int) -> Iterator[NDArray[np.uint8]]:
        """The pixels of each batch of ``order``, which counts the good rows.

        Raises InputError for an image that was good when the training began: leaving it out would be another training.
        """
        for pixels, bad in read_ahead(self.pixels, [self.rows[batch] for batch in order], workers=workers):
            self.require_good(bad)
            yield pixels

    def require_good(self, bad: Bad) -> None:
        """Raises InputError for a bad row that was good when the training began."""
        for row, reason in bad:
            if row not in self.quarantined:
                raise InputError(
                    f"{self.catalog.file_paths()[row]} was good when this training began, and is bad now ({reason}); "
                    "put it back as it was, and the same command goes on, or train anew into another output"
                )

    @property
    def bad_files(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of every image known to be bad."""
        paths = self.catalog.frame["path"]
        return tuple((str(paths[row]), reason) for row, reason in sorted(self.quarantined.items()))
