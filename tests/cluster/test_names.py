"""Names that others chose, of files, columns and values: they lead out of no folder, and no terminal obeys them."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from cluster import cli
from cluster.progress import answer, progress, say
from finegpr.catalog import Catalog

COLUMN = "/../../x\x1b[31m\u202e"
VALUES = ("\x1b]0;pwned\x07one", "[red]two\n\x9b1m")
SMALL = [
    "measure.network=vgg19",
    "measure.weights=random",
    "measure.height=32",
    "measure.width=32",
    "measure.basis_images=8",
]
SMALL += ["search.evaluations=4", "train.recipe=seconds", "train.steps=2"]


def is_harmless(text: str) -> bool:
    return not any(each in text for each in "\x1b\x07\x9b\u202e")


@pytest.fixture
def config(folders: Path, tmp_path: Path) -> Path:
    """Of a source by a table of such names, beside which it lies; the run's name is another."""
    source = Catalog.index(folders / "source", layout="finegpr").frame
    number = range(len(source))
    table = {"path": source["path"], "identity": source["identity"], COLUMN: [VALUES[each % 2] for each in number]}
    pd.DataFrame(table).to_parquet(tmp_path / "labels.parquet", index=False)
    settings = {
        "name": "../../\x1b[2J",
        "source": {
            "root": str(folders / "source"),
            "layout": "table",
            "options": {"table": str(tmp_path / "labels.parquet"), "identity_column": "identity"},
        },
        "target": {"root": str(folders / "target"), "layout": "market1501"},
        "budget": {"images": 12},
        "truth": {COLUMN: [VALUES[0]]},
        "arms": ["random", "mmd_rbf", f"wrong_{COLUMN}"],
    }
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    return tmp_path / "config.yaml"


def test_a_run_writes_nothing_outside_its_folder_and_no_name_is_obeyed(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "a" / "b" / "c"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    before = {*tmp_path.rglob("*")}
    assert cli.run(["run", str(config), "--serial", "--json", "--set", *SMALL]) == 0
    captured = capfd.readouterr()
    assert is_harmless(captured.out + captured.err)
    assert "select/wrong_%2F..%2F..%2Fx%1B[31m%E2%80%AE" in captured.err
    assert any(each in captured.err for each in (r"\x1b]0;pwned\x07one", r"[red]two\n\x9b1m"))
    made = {*tmp_path.rglob("*")} - before
    [root] = (work / "runs").iterdir()
    assert all(path in (work / "runs", root) or root in path.parents for path in made)
    result = json.loads(captured.out.splitlines()[-1])
    assert f"wrong_{COLUMN}" in result["mAP"]
    assert (work / result["report"]).samefile(root / "report.html")
    assert cli.run(["compare", str(root)]) == 0
    assert is_harmless(capfd.readouterr().err)
    # Another title is shown, and nothing is done again for it.
    assert cli.run(["run", str(config), "--serial", "--set", *SMALL, "source.title=Our renders"]) == 0
    assert "index: done before" in capfd.readouterr().err
    assert json.loads((root / "report.json").read_text())["source"]["title"] == "Our renders"


def test_names_of_files_and_folders_are_not_obeyed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "photos\x1b[31m"
    root.mkdir()
    for number in range(40):
        (root / f"{number}.jpg").write_bytes(b"")
    (root / "\u202egpj.\x1b]0;pwned\x07").write_bytes(b"")
    index = ["index", str(root), "--layout", "folder", "--output"]
    assert cli.run([*index, str(tmp_path / "c.parquet")]) == 0
    assert cli.run([*index, str(tmp_path / "\x9b1m" / "c.parquet")]) == 0
    assert cli.run(["index", str(root), "--layout", "finegpr", "--debug"]) == 3
    assert cli.run(["index", str(tmp_path / "\x1bgone"), "--layout", "folder", "--json"]) == 3
    captured = capfd.readouterr()
    assert is_harmless(captured.out + captured.err)
    assert r"\u202egpj.\x1b]0;pwned\x07" in captured.err
    assert "\x1bgone" in json.loads(captured.out.splitlines()[-1])["error"]


def test_lines_answers_notes_and_the_log_are_shown_alike(capfd: pytest.CaptureFixture[str]) -> None:
    text = "\x1b[31m[bold]a :smile:\nb"
    shown = r"\x1b[31m[bold]a :smile:\nb"
    say(text)
    answer(text)
    with progress(text, "images") as tick:
        tick(1, 1, text)
    cli.run(["compare", "nowhere"])  # the command line sets up what shows the log
    record = logging.LogRecord("name", logging.WARNING, "path", 1, "%s", (text,), None)
    assert logging.lastResort is not None
    logging.lastResort.handle(record)
    captured = capfd.readouterr()
    assert captured.out.splitlines() == [shown]
    lines = captured.err.splitlines()
    assert lines[0] == shown
    assert lines[1].count(shown) == 2
    assert lines[-2:] == [r"\x1b[31m[bold]a :smile:", "b"]
