"""Whether files are still what they were: by size and times, else by their bytes."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from finegpr import contents as module
from finegpr.contents import Contents, look

NAMES = [f"{number}.jpg" for number in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five files of ten bytes each, an hour old by their own times."""
    root = tmp_path / "images"
    root.mkdir()
    for number, name in enumerate(NAMES):
        (root / name).write_bytes(bytes([number]) * 10)
        os.utime(root / name, (time.time() - 3600,) * 2)
    return root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, while the clock is an hour on: nothing is too young to be known."""
    names: list[str] = []
    whole = module._digest

    def counted(path: Path) -> bytes:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(module, "_digest", counted)
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(module.time, "time_ns", lambda: later)
    return names


def changed(folder: Path, known: Contents) -> list[int]:
    return np.flatnonzero(look(folder, NAMES, known).differs(known)).tolist()


def test_what_is_as_it_was_is_not_read(folder: Path, read: list[str]) -> None:
    known = look(folder, NAMES)
    assert sorted(read) == NAMES
    read.clear()
    assert changed(folder, known) == []
    assert read == []
    subset = look(folder, NAMES[3:1:-1], known)
    assert read == []
    np.testing.assert_array_equal(subset.digests, known.digests[3:1:-1])


def test_touched_copied_and_moved_files_hold_the_same(folder: Path, tmp_path: Path, read: list[str]) -> None:
    known = look(folder, NAMES)
    read.clear()
    (folder / "2.jpg").touch()
    assert changed(folder, known) == []
    assert read == ["2.jpg"], "only what was touched is read"
    for place in (shutil.copytree(folder, tmp_path / "copy"), shutil.move(folder, tmp_path / "moved")):
        found = look(Path(place), NAMES, known)
        assert found.key == known.key
        assert found.root == str(place)


@pytest.mark.usefixtures("read")
def test_other_bytes_of_the_same_size_and_time_are_seen(folder: Path) -> None:
    known = look(folder, NAMES)
    times = (folder / "1.jpg").stat()
    (folder / "1.jpg").write_bytes(b"repainted!")
    os.utime(folder / "1.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "4.jpg").unlink()
    assert changed(folder, known) == [1, 4]
    found = look(folder, NAMES, known)
    assert found.key != known.key
    assert not found.digests[4].any(), "what is missing has no contents"
    assert changed(folder, found) == [], "and is missing still"
    (folder / "4.jpg").write_bytes(bytes([4]) * 10)
    assert changed(folder, found) == [4]
    assert changed(folder, known) == [1]


def test_a_file_that_was_just_written_is_read_again(folder: Path) -> None:
    """Within one tick of its clock a file may change without a trace."""
    known = look(folder, NAMES)  # their entries are new
    assert (known.stamps == -1).all()
    (folder / "0.jpg").write_bytes(b"0123456789")
    assert changed(folder, known) == [0]


@pytest.mark.usefixtures("read")
def test_folders_with_one_name_after_another(folder: Path, tmp_path: Path) -> None:
    """Another folder of the same names, sizes and times takes the first one's place."""
    known = look(folder, NAMES)
    other = shutil.copytree(folder, tmp_path / "other")
    for number, name in enumerate(NAMES):
        times = (folder / name).stat()
        (other / name).write_bytes(bytes([number + 5]) * 10)
        os.utime(other / name, ns=(times.st_atime_ns, times.st_mtime_ns))
    folder.rename(tmp_path / "before")
    other.rename(folder)
    assert changed(folder, known) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("read")
def test_they_are_remembered_and_a_damaged_memory_is_none(folder: Path, tmp_path: Path) -> None:
    known, path = look(folder, NAMES), tmp_path / "contents.parquet"
    assert Contents.read(path) is None
    known.write(path)
    again = Contents.read(path)
    assert again is not None
    assert again.looks_as(known)
    assert again.key == known.key
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    assert Contents.read(path) is None
    path.write_bytes(b"anything")
    assert Contents.read(path) is None
