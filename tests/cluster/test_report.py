"""The verb ``report``: the page again, and its main figures as pictures."""

import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import cli
from cluster.run.results import REPORT, REPORT_DATA
from search.report.page import render

report_data = runpy.run_path(str(Path(__file__).parents[1] / "report_example.py"))["report_data"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with report data alone."""
    (tmp_path / REPORT_DATA).write_text(report_data().to_json())
    return tmp_path


def test_the_page_is_written_again_without_matplotlib(folder: Path) -> None:
    code = (
        "import sys; from cluster import cli\n"
        f"print(cli.run(['report', {str(folder)!r}]), 'matplotlib' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"  report  {folder / REPORT}", "0 False"]
    assert done.stdout.splitlines() == [str(folder / REPORT)]
    assert (folder / REPORT).read_text() == render(report_data())


def test_pictures_are_written_beside_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = folder / "pictures"
    assert cli.run(["report", str(folder), "--png", str(pictures)]) == 0
    names = ["arms.png", "importance.png", "distances-per-value.png"]
    assert capsys.readouterr().out.splitlines() == [str(folder / REPORT), *(str(pictures / name) for name in names)]
    assert all((pictures / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_a_picture_that_the_run_has_nothing_for_is_said_and_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = dataclasses.replace(report_data(seeds=()), importances=())
    (folder / REPORT_DATA).write_text(bare.to_json())
    assert cli.run(["report", str(folder), "--png", str(folder / "pictures"), "--json"]) == 0
    said = capsys.readouterr()
    assert "no importance.png: this run has no importances to draw" in said.err
    written = [folder / "pictures" / name for name in ("arms.png", "distances-per-value.png")]
    assert json.loads(said.out.splitlines()[-1])["pictures"] == [str(each) for each in written]
    assert sorted((folder / "pictures").iterdir()) == sorted(written)
