"""What a verb is given that we did not write, or not as what it is given for: named, never called damaged."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import cli
from finegpr.catalog import Catalog
from finegpr.storage import write_arrays, write_json, write_table

# Every verb with one input left open, and the word of what writes it.
INPUTS = {
    "measure": ("measure {} --targets CATALOG --output OUT --serial", "aost index"),
    "measure --targets": ("measure CATALOG --targets {} --output OUT --serial", "aost index"),
    "measure --from-sketches": ("measure --from-sketches {} --targets CATALOG --output OUT", "aost measure"),
    "search": ("search {} --set budget.images=5 --output OUT", "aost index"),
    "search --measurements": ("search CATALOG --measurements {} --output OUT --set budget.images=5", "aost measure"),
    "search --validation": (
        "search CATALOG --validation {} --serial --output OUT "
        "--set budget.images=12 objective=training training.train.recipe=seconds",
        "aost index",
    ),
    "sweep": ("sweep {} --output OUT --set images=[5]", "aost index"),
    "sweep --measurements": ("sweep CATALOG --measurements {} --output OUT --set images=[5]", "aost measure"),
    "select": ("select {} --images 5 --output OUT", "aost index"),
    "select --subset": ("select CATALOG --images 5 --subset {} --output OUT", "aost search"),
    "select --measurements": (
        "select CATALOG --images 5 --selector snp --measurements {} --output OUT",
        "aost measure",
    ),
    "train": ("train {} --recipe seconds --output OUT", "aost index"),
    "evaluate": ("evaluate {} --target CATALOG --output OUT", "aost train"),
    "diff": ("diff {} {} --catalog CATALOG", "aost search"),
    "export": ("export {} --storage OUT --study one", "aost search"),
    "report": ("report {}", "finished run"),
    "compare": ("compare {}", "finished run"),
}


def csv(path: Path) -> None:
    path.write_text("file,person\na.jpg,1\n")


def table(path: Path) -> None:
    pq.write_table(pa.table({"file": ["a.jpg"], "person": [1]}), path)


def our_table(path: Path) -> None:
    write_table(path, pa.table({"score": [1.0]}))


def folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def folder_of_theirs(path: Path) -> None:
    """With files of the names that ours have."""
    path.mkdir()
    for name in ("reference.json", "report.json", "subset.json", "journal.jsonl", "plan.json", "done.json"):
        write_json(path / name, {"mine": 1})


GIVEN: dict[str, Callable[[Path], object]] = {
    "absent": lambda _: None,
    "empty": lambda path: path.touch(),
    "labels.csv": csv,
    "labels.parquet": table,
    "ours.parquet": our_table,
    "some.json": lambda path: write_json(path, [1, 2]),
    "some.yaml": lambda path: path.write_text("name: mine\n"),
    "photo.jpg": lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256))),
    "some.safetensors": lambda path: write_arrays(path, {"a": np.zeros(2)}),
    "folder": folder,
    "theirs": folder_of_theirs,
}


@pytest.mark.parametrize("verb", INPUTS)
def test_what_is_not_ours_is_named_and_left_alone(
    verb: str, people: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, written_by = INPUTS[verb]
    fills = {"CATALOG": str(Path(str(people.root)) / "source.parquet"), "OUT": str(tmp_path / "out")}
    for name, make in GIVEN.items():
        path = tmp_path / name
        make(path)
        code = cli.run([fills.get(word, word.replace("{}", str(path))) for word in line.split()])
        said = capsys.readouterr().err.splitlines()[-1]
        assert code == 3, (name, said)
        assert str(path) in said, said
        assert not re.search(r"damaged|delete|Traceback|same command", said), said
        if name == "absent":
            assert written_by in said, said


def test_where_the_right_one_lies_is_said(people: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(Path(str(people.root)) / "source.parquet")
    (tmp_path / "subset.json").write_text("{}")
    (tmp_path / "journal.jsonl").write_text("{}")
    (tmp_path / "config.yaml").write_text("name: mine")
    for words, code, said in (
        (["select", source, "--images", "5", "--subset", str(tmp_path)], 3, f"give {tmp_path}/subset.json"),
        (["export", str(tmp_path), "--storage", "x", "--study", "y"], 3, f"give {tmp_path}/journal.jsonl"),
        (["run", str(tmp_path)], 2, f"did you mean {tmp_path}/config.yaml?"),
        (["run", str(tmp_path / "none.yaml")], 2, "README shows"),
    ):
        assert cli.run(words) == code
        assert said in capsys.readouterr().err
    labels = tmp_path / "labels.csv"
    csv(labels)
    assert cli.run(["measure", str(labels), "--targets", source]) == 3
    assert f"--layout table --set table={labels}" in capsys.readouterr().err


def test_a_catalog_that_is_cut_off_is_damaged(
    people: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (Path(str(people.root)) / "source.parquet").read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[:-100])
    assert cli.run(["select", str(cut), "--images", "5"]) == 4
    assert "cut off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("subset", "said"),
    [
        ('{"weather": ["foggy", "moonlit"]}', "no image of {} has weather moonlit, but "),
        ('{"scene": ["urban1", "urban9"]}', "no image of {} has scene urban9, but urban1"),
        ('{"weather": {"foggy": 1, "moonlit": 2}}', "no image of {} has weather moonlit, but "),
        ('{"weather": ["foggy"], "gender": ["male"], "sky": ["blue"]}', "{} has no attribute 'sky', but viewpoint, "),
        ('{"gender": ["male", "other"]}', "no image of {} has gender other, but "),
    ],
)
def test_a_subset_of_another_catalog_is_refused(
    subset: str, said: str, people: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.flatnonzero(people.frame["scene"].to_numpy() == "urban1")
    people.take(rows).write(tmp_path / "source.parquet")
    (tmp_path / "subset.json").write_text(subset)
    select = ["select", str(tmp_path / "source.parquet"), "--images", "2", "--output", str(tmp_path / "m.parquet")]
    assert cli.run([*select, "--subset", str(tmp_path / "subset.json")]) == 3
    line = capsys.readouterr().err
    assert f"{tmp_path}/subset.json is of another catalog: " + said.format(tmp_path / "source.parquet") in line
    assert not (tmp_path / "m.parquet").exists()
    assert cli.run(select) == 0


def test_a_catalog_is_called_as_it_is_told(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "c.parquet")
    index = ["index", str(folders / "source"), "--output", output, "--set"]
    assert cli.run([*index, "title=Renders of May"]) == 0
    assert "Renders of May: 72 images" in capsys.readouterr().err
    assert Catalog.read(Path(output)).title == "Renders of May"
    assert cli.run([*index, "title="]) == 0  # none
    assert Catalog.read(Path(output)).title == "MiniGPR"
    assert cli.run([*index, "title=''"]) == 2
    assert "title: String should have at least 1 character" in capsys.readouterr().err
