"""What is the machine's fault is tried again, then ends the run by name, and is never kept as a property of a file."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from finegpr import faults, storage
from finegpr.catalog import Catalog
from finegpr.errors import AostError, StateError, UnreachableError, UnreadableError, WriteError
from finegpr.layouts.walk import walk
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure
from finegpr.measuring.retarget import RetargetConfig, retarget
from finegpr.pixels.decode import BadImage, decode, find_bad, load
from finegpr.reid.data import ImageStore

PASSING = ["EIO", "EMFILE", "ENFILE", "ESTALE", "EAGAIN", "EBUSY", "ETIMEDOUT", "ENETDOWN", "EREMOTEIO"]
MEASURE = MeasureConfig(
    network="vgg19", height=32, width=32, weights="random", basis_images=8, style_coordinates=4, content_coordinates=4
)

Fail = Callable[..., None]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "PAUSES_SECONDS", (0, 0, 0))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 12, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let a call on ``path`` (of any file, where it is None) fail so many ``times``."""

    def set_(owner: Any, name: str, error: Exception, *, path: Path | None = None, times: int = 10**9) -> None:
        left, real = [times], getattr(owner, name)

        def call(*given: Any, **more: Any) -> Any:
            if left[0] > 0 and (path is None or Path(given[0]) == path):
                left[0] -= 1
                raise error
            return real(*given, **more)

        monkeypatch.setattr(owner, name, call)

    return set_


def of(code: str) -> OSError:
    number = getattr(errno, code)
    return OSError(number, os.strerror(number))


@contextmanager
def limited(limit: int, most: int) -> Iterator[None]:
    """A limit of this process, while this lasts."""
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(limit, (soft, hard))


@pytest.mark.parametrize("code", PASSING)
@pytest.mark.parametrize("where", ["stat", "read_bytes"])
def test_what_passes_is_read_and_what_stays_ends_the_run_by_name(
    photo: Path, fail: Fail, code: str, where: str
) -> None:
    expected = decode(photo)
    fail(Path, where, of(code), path=photo, times=3)
    np.testing.assert_array_equal(decode(photo), expected)
    fail(Path, where, of(code), path=photo)
    for reader in (decode, lambda path: load([path], height=8, width=8), lambda path: find_bad([path])):
        with pytest.raises(UnreachableError, match=rf"cannot read {photo}: .*\({code}\), tried 4 times") as caught:
            reader(photo)
        assert caught.value.exit_code == 75


@pytest.mark.parametrize("code", ["EACCES", "EPERM"])
@pytest.mark.parametrize("where", ["stat", "read_bytes"])
def test_a_file_or_folder_without_permission_says_nothing_of_the_image(
    photo: Path, fail: Fail, code: str, where: str
) -> None:
    fail(Path, where, of(code), path=photo)
    with pytest.raises(UnreadableError, match=rf"cannot read {photo}: .*\({code}\); allow this user") as caught:
        load([photo], height=8, width=8)
    assert caught.value.exit_code == 3


def test_names_that_are_too_long_end_the_run_and_those_that_cannot_be_are_missing(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"\(ENAMETOOLONG\)"):
        decode(tmp_path / f"{'a' * 300}.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert [reason for _, reason in find_bad([tmp_path / "loop.jpg", photo / "below.jpg", tmp_path / "nul\0"])] == [
        "missing"
    ] * 3


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Image, "open"), (ImageFile.ImageFile, "load"), (Image.Image, "getexif"), (Image.Image, "resize")],
)
def test_no_memory_while_decoding_says_nothing_of_the_image(photo: Path, fail: Fail, owner: Any, name: str) -> None:
    fail(owner, name, MemoryError())
    with pytest.raises(WriteError, match=f"out of memory while decoding {photo}"):
        load([photo], height=8, width=8)


def test_a_decoder_that_cannot_say_that_memory_was_short_is_not_believed(photo: Path, fail: Fail) -> None:
    fail(ImageFile.ImageFile, "load", OSError("broken data stream when reading image file"))
    with pytest.raises(BadImage, match="truncated"):
        decode(photo)
    fail(np, "empty", MemoryError())
    with pytest.raises(WriteError, match="out of memory"):
        decode(photo)


def test_a_file_of_ours_that_cannot_be_read_for_now_is_not_damaged(tmp_path: Path, fail: Fail) -> None:
    """And nobody is sent to restore it: all that reads state, and what lists folders."""
    path = tmp_path / "state.json"
    storage.write_sealed(path, {"a": 1})
    readers: list[Callable[[], object]] = [
        lambda: storage.read_json(path),
        lambda: storage.read_sealed(path),
        lambda: storage.read_table(path),
        lambda: storage.read_arrays(path),
        lambda: storage.file_sha256(path),
        lambda: walk(tmp_path),
        lambda: Catalog.read(path),
    ]
    with limited(resource.RLIMIT_NOFILE, 3):  # a process that has used up its files
        for reader in readers:
            with pytest.raises(UnreachableError, match=rf"{tmp_path}.*\(EMFILE\).*ulimit -n"):
                reader()
    fail(Path, "read_text", of("EACCES"))
    with pytest.raises(UnreadableError, match="allow this user to read it"):
        storage.read_json(path)
    with pytest.raises(StateError, match="none.json"):
        storage.read_table(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (MemoryError(), WriteError, "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), WriteError, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), WriteError, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/run/x"), WriteError, "cannot write /run/x.*free space"),
        (OSError(errno.EIO, "Input/output error", "/run/x"), UnreachableError, "/run/x.*EIO"),
        (PermissionError(errno.EACCES, "Permission denied", "/run/x"), UnreadableError, "/run/x.*allow this user"),
    ],
)
def test_what_nobody_expected_has_a_name_and_a_code(error: Exception, expected: type[AostError], text: str) -> None:
    found = faults.of_machine(error)
    assert type(found) is expected
    found.__cause__ = error
    with pytest.raises(expected, match=text):
        raise found
    assert faults.of_machine(RuntimeError("shapes do not fit")) is None
    assert faults.of_machine(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None


@pytest.fixture
def few(people: Catalog) -> Catalog:
    return people.take(np.arange(0, len(people), 8))


def test_a_full_disk_while_images_are_decoded_loses_nothing(
    few: Catalog, tmp_path: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ImageStore.create(tmp_path / "store", [few], height=32, width=16).pixels.copy()
    before = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}

    def refused() -> None:
        with pytest.raises(WriteError, match=r"cannot write .*pixels\.npy: .*free space") as caught:
            ImageStore.create(tmp_path / "store", [few], height=64, width=32)
        assert caught.value.exit_code == 6
        assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before

    with limited(resource.RLIMIT_FSIZE, kept.nbytes):
        refused()
        with monkeypatch.context() as patch:  # a file system, or a machine, that cannot take up space beforehand
            patch.delattr(os, "posix_fallocate")
            refused()
    fail(os, "posix_fallocate", of("EOPNOTSUPP"), times=1)
    larger = ImageStore.create(tmp_path / "store", [few], height=64, width=32)
    assert larger.pixels.shape == (len(few), 3, 64, 32)
    fail(os, "posix_fallocate", of("ENOSPC"))
    with pytest.raises(WriteError, match=r"pixels\.npy: No space left on device \(ENOSPC\)"):
        ImageStore.create(tmp_path / "store", [few], height=32, width=16)
    np.testing.assert_array_equal(ImageStore.open(tmp_path / "store").pixels, larger.pixels)


def test_a_repaired_photo_of_a_target_is_read_again(few: Catalog, tmp_path: Path) -> None:
    names = [f"photos/{index}.png" for index in range(12)]
    (tmp_path / "photos").mkdir()
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    target = Catalog.index(tmp_path / "photos", layout="folder")
    photo = tmp_path / names[3]
    whole = photo.read_bytes()

    def run(folder: str) -> tuple[int, int]:
        cells = few.cells(["viewpoint"])
        measured = measure(MEASURE, few, {"photos": target}, tmp_path / folder, cells=cells)
        derived = retarget(
            RetargetConfig(max_off_basis=1, max_error=1e9),
            tmp_path / folder,
            {"new": target},
            tmp_path / f"{folder}-new",
        )
        return measured.num_target["photos"], derived.num_target["new"]

    photo.write_bytes(whole[:60])
    assert run("once") == (11, 11)
    marker = (tmp_path / "once/reference.json").read_bytes()
    assert run("once") == (11, 11)
    assert (tmp_path / "once/reference.json").read_bytes() == marker
    photo.write_bytes(whole)
    assert run("once") == run("fresh") == (12, 12)
    for name in ("reference.json", "shard-00000.parquet"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
