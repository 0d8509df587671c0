import errno
import os
import pickle
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finegpr import storage
from finegpr.atomic import flush_below, move, write_atomic, write_bytes
from finegpr.errors import BusyError, InputError, StateError, WriteError
from finegpr.storage import path_part


@pytest.fixture
def table() -> pa.Table:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, None], pa.int16()), pa.array(["foggy", "sunny"]))
    return pa.table({"row": pa.array([1, 2, 3, 4]), "weather": names}).replace_schema_metadata({"seed": "7"})


def test_table_round_trip_keeps_types_and_metadata(tmp_path, table):
    path = tmp_path / "lr=0.1" / "table.parquet"  # a folder that looks like a partition adds no column
    storage.write_table(path, table)
    assert storage.read_table(path, schema=table.schema).equals(table, check_metadata=True)
    assert storage.read_table(path, schema=table.schema, columns=["row"]).column_names == ["row"]


def test_every_flipped_byte_of_a_table_is_found(tmp_path, table):
    path = tmp_path / "table.parquet"
    storage.write_table(path, table)
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :])
        with pytest.raises(StateError, match=r"table\.parquet is damaged"):
            storage.read_table(path)


def test_other_parquet_readers_can_verify_the_pages(tmp_path):
    path = tmp_path / "table.parquet"
    storage.write_table(path, pa.table({"row": np.random.default_rng(0).integers(0, 2**62, 4000)}))
    assert pq.read_table(path).num_rows == 4000
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


@pytest.mark.parametrize("kept", [0, 3, 100, -9, -1])
def test_truncated_table_is_a_state_error(tmp_path, table, kept):
    path = tmp_path / "table.parquet"
    storage.write_table(path, table)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StateError, match=r"table\.parquet is damaged"):
        storage.read_table(path)


def test_missing_and_foreign_tables_are_state_errors(tmp_path, table):
    with pytest.raises(StateError, match="missing"):
        storage.read_table(tmp_path / "none.parquet")
    pq.write_table(table, tmp_path / "foreign.parquet")
    with pytest.raises(StateError, match="SHA-256"):
        storage.read_table(tmp_path / "foreign.parquet")


@pytest.mark.parametrize(("name", "type_"), [("row", pa.int32()), ("seconds", pa.float64())])
def test_schema_mismatch_names_the_column(tmp_path, table, name, type_):
    storage.write_table(tmp_path / "table.parquet", table)
    with pytest.raises(StateError, match=f"column {name} should be {type_}"):
        storage.read_table(tmp_path / "table.parquet", schema=pa.schema([(name, type_)]))


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "state.json"
    storage.write_json(path, {"version": 1})

    def fail_half_way(temporary: Path) -> None:
        temporary.write_bytes(b'{"vers')
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"state\.json: No space left"):
        write_atomic(path, fail_half_way)
    assert storage.read_json(path) == {"version": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_writer_killed_before_the_rename_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.json"
    storage.write_json(path, {"version": 1})
    code = (
        "import os, sys; from pathlib import Path; from finegpr.atomic import write_atomic\n"
        "def write(temporary):\n    temporary.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
        "write_atomic(Path(sys.argv[1]), write)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    assert storage.read_json(path) == {"version": 1}
    assert len(list(tmp_path.iterdir())) == 2
    with storage.locked(tmp_path):
        assert {entry.name for entry in tmp_path.iterdir()} == {"state.json", ".lock", ".lock.json"}


def test_locking_a_folder_leaves_what_is_not_left_behind(tmp_path):
    """A person's own files, those of a writer at work, and all that lies in a folder that another process holds."""
    own = [tmp_path / name for name in (".notes.tmp", ".state.json.17.tmp", ".aost-thesis.tmp", "sub/.x.1.tmp")]
    (tmp_path / "sub").mkdir()
    for path in own:
        path.write_text("mine")
    held = tmp_path / "sub" / "held"
    with subprocess.Popen([sys.executable, "-c", HOLD, held], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        left_behind = [folder / f".aost-{'0' * 32}.tmp" for folder in (tmp_path, tmp_path / "sub", held)]
        for path in left_behind:
            path.touch()

        def write(temporary: Path) -> None:
            temporary.write_bytes(b"half")
            with storage.locked(tmp_path):
                assert temporary.read_bytes() == b"half"

        write_atomic(tmp_path / "sub" / "state.json", write)
        assert [path.exists() for path in left_behind] == [False, False, True]
        holder.kill()
    assert all(path.read_text() == "mine" for path in own)
    assert (tmp_path / "sub" / "state.json").read_bytes() == b"half"


def test_writers_with_the_same_process_number_do_not_meet(tmp_path, monkeypatch):
    """Two containers on one disk, or two threads, that write the same file at the same time: one of both wins."""
    monkeypatch.setattr(os, "getpid", lambda: 17)
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        def half(temporary: Path) -> None:
            temporary.write_bytes(str(number).encode() * 5)
            barrier.wait()
            with temporary.open("ab") as stream:
                stream.write(str(number).encode() * 5)

        write_atomic(tmp_path / ("n" * 250), half)  # a name that leaves no room for a longer one

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    [written] = list(tmp_path.iterdir())
    assert len(written.read_bytes()) == 10
    assert len(set(written.read_bytes())) == 1


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of every file and folder that was flushed, in order."""
    names: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert path.is_dir() or path.stat().st_size, "what is flushed has been written"
        names.append(".tmp" if path.name.startswith(".aost-") else path.name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return names


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, flushed):
    storage.write_json(tmp_path / "a" / "b" / "state.json", {})
    assert flushed == ["a", tmp_path.name, ".tmp", "b"]
    flushed.clear()
    write_bytes(tmp_path / "a" / "picture.jpg", b"x", flush=False)
    assert flushed == []
    flush_below(tmp_path / "a")
    assert sorted(flushed) == ["a", "b", "picture.jpg", "state.json"]
    flushed.clear()
    move(tmp_path / "a" / "picture.jpg", tmp_path / "b.jpg")
    assert sorted(flushed) == sorted(["a", tmp_path.name])


@pytest.mark.parametrize(("number", "is_failure"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_flush_folders_is_let_off(tmp_path, monkeypatch, number, is_failure):
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    with pytest.raises(WriteError, match=os.strerror(number)) if is_failure else nullcontext():
        storage.write_json(tmp_path / "state.json", {})


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', "1" * 5000, "[" * 100_000, '"\udcff"']
)
def test_damaged_json_names_the_file(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StateError, match=r"state\.json is damaged"):
        storage.read_json(path)


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "state.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_arrays_round_trip_and_hash(tmp_path):
    path = tmp_path / "weights.safetensors"
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array([1, 2])}
    digest = storage.write_arrays(path, arrays, {"note": "x"})
    assert digest == storage.file_sha256(path)
    read = storage.read_arrays(path, expected_sha256=digest)
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(StateError, match=digest[:16]):
        storage.read_arrays(path, expected_sha256=digest)


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_called_safetensors_is_refused_and_not_executed(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(_Canary(tmp_path / "canary")))
    with pytest.raises(InputError, match="not a safetensors file"):
        storage.read_arrays(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}trailing",
        (77).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9999999999,999],"data_offsets":[0,4]}}'.ljust(77),
    ],
)
def test_lying_safetensors_headers_are_refused(tmp_path, data):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a safetensors file"):
        storage.read_arrays(path)


def test_marker_says_finished_and_damage_is_named(tmp_path):
    assert storage.read_marker(tmp_path) is None
    storage.write_marker(tmp_path, {"hash": "a"})
    assert storage.read_marker(tmp_path) == {"hash": "a"}
    (tmp_path / storage.MARKER).write_text("[]")
    with pytest.raises(StateError, match=r"done\.json is damaged"):
        storage.read_marker(tmp_path)


def test_every_flipped_byte_of_a_sealed_file_is_found(tmp_path):
    path = tmp_path / "marker.json"
    fields = {"hash": "0" * 64, "name": 'a "seal": "x" b', "notes": [1, 0.5, None]}
    storage.write_sealed(path, fields)
    assert storage.read_sealed(path) == fields
    data = path.read_bytes()
    for place in range(len(data)):
        for flip in (1, 32, 128, 0x2A):
            path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
            with pytest.raises(StateError, match=r"marker\.json"):
                storage.read_sealed(path)


HOLD = (
    "import sys, time; from pathlib import Path; from finegpr import storage\n"
    "with storage.locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
)


def test_second_writer_is_told_who_holds_and_a_dead_one_frees(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"process {holder.pid} on "), storage.locked(tmp_path):
            pass
        (tmp_path / f"{storage.LOCK}.json").write_text("{")
        with pytest.raises(BusyError, match="in use"), storage.locked(tmp_path):
            pass
        holder.kill()
    with storage.locked(tmp_path):
        assert storage.read_json(tmp_path / f"{storage.LOCK}.json")["process"] == os.getpid()


def test_the_same_process_cannot_lock_twice(tmp_path):
    with storage.locked(tmp_path), pytest.raises(BusyError, match="in use"), storage.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_a_write_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"), storage.locked(tmp_path / "file" / "run"):
        pass
    with pytest.raises(WriteError, match="cannot write"):
        storage.write_json(tmp_path / ("n" * 300), {})


def test_canonical_hash_ignores_key_order_only():
    assert storage.canonical_hash({"a": 1, "b": [1, 2]}) == storage.canonical_hash({"b": [1, 2], "a": 1})
    assert storage.canonical_hash({"a": 1}) != storage.canonical_hash({"a": 1.5})


def test_changed_fields_are_named_in_order_and_lists_are_compared_whole():
    old = {"b": {"x": 1, "y": [1, 2]}, "a": 1, "gone": True, "same": None}
    new = {"b": {"x": 2, "y": [1, 3]}, "a": 1.0, "came": {"z": 0}, "same": None}
    found = list(storage.changed_fields(old, new))
    assert found == [
        ("b.x", 1, 2),
        ("b.y", [1, 2], [1, 3]),
        ("came", None, {"z": 0}),
        ("gone", True, None),
    ]
    strict = list(storage.changed_fields(old, new, same=lambda one, other: one == other and type(one) is type(other)))
    assert strict == [("a", 1, 1.0), *found]
    assert list(storage.changed_fields(3, 4)) == [("", 3, 4)]


def test_the_first_free_name_is_beside_it_and_fills_a_gap(tmp_path):
    assert storage.first_free(tmp_path / "run.before") == tmp_path / "run.before-1"
    for number in (1, 2, 4):
        (tmp_path / f"run-{number}").mkdir()
    assert storage.first_free(tmp_path / "run") == tmp_path / "run-3"
    assert storage.first_free(tmp_path / "run", start=4) == tmp_path / "run-5"


# --- names that somebody chose


def test_ordinary_names_are_parts_of_a_path_as_they_are() -> None:
    for name in ("random", "wrong_weather", "Größe 天気", "a.b", ".hidden", "50%", "100% up", "~me", "x" * 200, "a:b"):
        assert path_part(name) == name


def test_no_name_leads_out_of_a_folder_and_no_two_share_one(tmp_path: Path) -> None:
    names = ["", ".", "..", "...", "/", "/../../x", "a/b", "a%2Fb", "a%2fb", "a%252Fb", "%", "%~", "..\\x"]
    names += ["a\0", "a\n"]
    names += ["\x1b[31m", "wrong_\u202ex", "\udcff", "ü" * 150, "ü" * 151, "x" * 300, "x" * 299 + "/", "." * 300]
    names += [path_part("x" * 300), path_part("")]
    for name in names:
        part = path_part(name)
        assert (tmp_path / part).parent == tmp_path
        (tmp_path / part / "file").parent.mkdir()  # refused where another name has it
        assert (tmp_path / part).resolve().parent == tmp_path.resolve()
    assert len(list(tmp_path.iterdir())) == len(names)
    assert unquote(path_part("/../../x")) == "/../../x"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_private_file_is_its_owners_from_the_first_byte_and_others_as_the_umask_has_it(
    tmp_path: Path, umask: int
) -> None:
    modes = []

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            stream.write(b"a face")
            modes.append(stat.S_IMODE(temporary.stat().st_mode))

    before = os.umask(umask)
    try:
        (tmp_path / "private").write_bytes(b"open before")
        write_atomic(tmp_path / "private", write, private=True)
        write_bytes(tmp_path / "new" / "private", b"a face", private=True)
        write_bytes(tmp_path / "public", b"a table")
    finally:
        os.umask(before)
    assert modes == [0o600]
    for name in ("private", "new/private"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~umask
