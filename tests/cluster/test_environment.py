"""What a process is given by its surroundings: locales, standard streams, places for temporary files."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import cli
from cluster.executors import session_folder as folders
from cluster.executors.session_folder import session_folder
from finegpr.catalog import Catalog
from finegpr.errors import WriteError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "bü ß"
    folder.mkdir()
    for name in ("a.jpg", "ö.jpg", "日本.jpg"):
        (folder / name).touch()
    return folder


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``aost`` is the command line, by its shell."""
    line = line.replace("aost", f"{shlex.quote(sys.executable)} -m cluster.cli")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_names_are_the_same_under_every_locale(environment: dict[str, str], images: Path) -> None:
    output = images.parent / "ü.parquet"
    done = shell(f"aost index {shlex.quote(str(images))} --layout folder --output {output} --json", **environment)
    assert done.returncode == 0, done.stderr
    assert Catalog.read(output).frame["path"].tolist() == ["a.jpg", "ö.jpg", "日本.jpg"]
    assert Catalog.read(output).root == images
    refused = shell(f"aost index {images.parent}/ä --layout folder --output {output}", **environment)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)


def test_a_name_that_is_no_utf8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/b\xff")
    Path(odd).mkdir()
    for arguments in (["index", odd, "--layout", "folder", "--output", str(tmp_path / "c.parquet")], ["demo"]):
        assert cli.run(arguments) == 2
        assert r"b\xff is not valid UTF-8; rename it" in capsys.readouterr().err
        monkeypatch.chdir(odd)
    Path(odd).rmdir()
    assert cli.run(["demo"]) == 2
    assert "change to another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        (">&-", 0),
        (">&- 2>&- <&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 6),
        (">/dev/full 2>/dev/full", 6),
        ("| true", 0),
        ("2>&1 | true", 0),
    ],
)
def test_work_is_done_whatever_becomes_of_the_streams(redirection: str, code: int, images: Path) -> None:
    output = images.parent / "c.parquet"
    done = shell(f"aost index {shlex.quote(str(images))} --layout folder --output {output} --json {redirection}")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(Catalog.read(output)) == 3
    if code and "2>" not in redirection:
        last = "aost: the work is done, but standard output cannot be written: No space left on device"
        assert done.stderr.splitlines()[-1] == last


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["demoo"], 2), (["index", "--nothing"], 2)])
def test_what_libraries_do_at_an_exit_does_not_change_the_code(arguments: list[str], code: int) -> None:
    program = f"import atexit, os; from cluster import cli; atexit.register(os.abort); cli.main({arguments})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout or done.stderr


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from cluster.environment import Streams\n"
        "Streams(); stream = open(sys.argv[1], 'w')\n"
        "os.write(1, b'x'); os.write(2, b'x'); print('x'); print('x', file=sys.stderr); input_ = sys.stdin.read()\n"
        "stream.write('whole')"
    )
    line = shlex.join([sys.executable, "-c", code, str(tmp_path / "file")])
    assert shell(f"{line} <&- >&- 2>&-").returncode == 0
    assert (tmp_path / "file").read_text() == "whole"


def test_standard_output_keeps_the_bytes_of_a_name(tmp_path: Path) -> None:
    code = "import os; from cluster.environment import Streams; Streams(); print(os.fsdecode(b'b\\xff'))"
    with (tmp_path / "out").open("wb") as stream:
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert (tmp_path / "out").read_bytes() == b"b\xff\n"


@pytest.fixture
def own_modules(tmp_path: Path) -> Path:
    """A working directory with modules of a person's own that have our names, and one of Python's."""
    folder = tmp_path / "own"
    for name in ("search.py", "finegpr/__init__.py", "random.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('their {name}')")
    return folder


@pytest.mark.processes
def test_modules_of_a_person_are_not_taken_for_ours(own_modules: Path) -> None:
    sides = ("source.num_identities=1", "source.images_per_identity=1", "target.num_train=1", "target.num_junk=0")
    people = ("train", "validation", "test")
    small = [f"target.{name}_identities=1" for name in people] + ["target.num_distractors=0", "target.gallery_images=1"]
    command = [sys.executable, "-m", "cluster.cli", "render", "--output", "world", "--set", *sides, *small]
    done = subprocess.run(command, cwd=own_modules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.processes
@pytest.mark.usefixtures("no_ray")
def test_a_private_ray_takes_nothing_from_the_working_folder_and_leaves_nothing_at_home(
    own_modules: Path, people: Catalog, tmp_path: Path
) -> None:
    (own_modules / "cluster.py").write_text("raise RuntimeError('their cluster.py')")
    script, home, place = tmp_path / "bin" / "aost", tmp_path / "home", tmp_path / ("t" * 80)
    for folder in (script.parent, home, place):
        folder.mkdir()
    script.write_text("from cluster.cli import main\nmain()\n")
    catalog = Path(str(people.root)) / "source.parquet"
    settings = ["network=vgg19", "weights=random", "height=32", "width=32", "basis_images=4", "images_per_cell=1"]
    measure = ["measure", str(catalog), "--targets", str(catalog), "--output", "m", "--set", *settings]
    command = shlex.join([sys.executable, str(script), *measure])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        ["bash", "-c", f"{command} <&- >&-"],
        cwd=own_modules,
        env={**kept, "HOME": str(home), "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (home / ".ray").exists()
    assert not list(place.glob("aost-*"))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /tmp; nothing else is there, and no setting."""
    for name in folders.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setattr(folders, "PLACES", (place,))
    monkeypatch.setattr(folders, "SHORT", (place,))
    monkeypatch.setattr(folders, "LONGEST", len(str(place)) + 20)
    return place


def test_a_session_lies_where_it_is_told_to(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with session_folder() as folder:
        assert folder.parent == places
    for name in ("a" * 80, "ä b"):
        place = tmp_path / name
        place.mkdir()
        monkeypatch.setenv("TMPDIR", str(place))
        with session_folder() as folder:
            (folder / "log").touch()
            assert folder.parent == places, "a link"
            assert folder.resolve().parent == place
        assert not list(place.iterdir())
        assert not list(places.iterdir())


def test_a_place_that_cannot_be_used_is_named_with_its_setting(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with session_folder() as folder:
        assert folder.parent == places
    assert f"lie in {places}: {tmp_path / 'none'} (TMPDIR): No such file or directory" in capsys.readouterr().err
    monkeypatch.setattr(folders, "NEEDED_BYTES", 1 << 80)
    said = rf"none \(TMPDIR\): No such file or directory, {places}: \d+ MB free; set TMPDIR to"
    with pytest.raises(WriteError, match=said), session_folder():
        pass


def test_what_a_killed_process_left_behind_is_removed_and_nothing_else(places: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cluster.executors import session_folder as folders\n"
        "folders.PLACES = (Path(sys.argv[1]),)\n"
        "with folders.session_folder() as folder:\n    print(folder, flush=True); time.sleep(60)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in folders.SETTINGS}
    command = [sys.executable, "-c", code, str(places)]
    others = [places / "aost-thesis", places / "aost-12345678"]  # the second without a lock: just being made
    for each in others:
        each.mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as killed:
        assert killed.stdout is not None
        left_behind = Path(killed.stdout.readline().strip())
        with session_folder():
            assert left_behind.is_dir()
        killed.kill()
    dangling = places / "aost-abcdefgh"
    dangling.symlink_to(places / "gone")
    with session_folder():
        assert not left_behind.exists()
        assert not dangling.is_symlink()
        assert all(each.is_dir() for each in others)
