"""Stages: skipped when nothing changed, computed anew beside the old ones, journals refuse."""

from pathlib import Path

import pytest

from cluster.outputs import differences
from cluster.run.folder import PLAN, RunFolder, fork
from finegpr.errors import ConfigError, StateError
from finegpr.storage import MARKER, write_sealed


def work(root: Path, height: int, *, name: str = "measure", journal: bool = False, fresh: bool = False) -> bool:
    """Run one stage; True when its body had work to do."""
    with RunFolder(root=root, fresh=fresh).stage(
        name, inputs={"source": "s"}, config={"height": height}, journal=journal
    ) as (stage, _):
        if stage.done:
            return False
        (stage.folder / "result").write_text(str(height))
        return True


def test_a_finished_stage_is_skipped_and_a_changed_one_stands_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work(tmp_path, 1)
    assert not work(tmp_path, 1)
    assert "skipped" in capsys.readouterr().err
    assert work(tmp_path, 2)
    assert "height: 1 -> 2" in capsys.readouterr().err
    assert not work(tmp_path, 1)
    assert sorted(path.read_text() for path in tmp_path.glob("measure/*/result")) == ["1", "2"]


def test_an_interrupted_stage_runs_again_in_its_own_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        RunFolder(root=tmp_path).stage("measure", inputs={}, config={}) as (stage, _),
    ):
        (stage.folder / "half").write_text("kept for the resume")
        raise KeyboardInterrupt
    with RunFolder(root=tmp_path).stage("measure", inputs={}, config={}) as (again, _):
        assert not again.done
        assert (again.folder / "half").exists()


def test_a_journal_refuses_a_changed_config_and_fresh_keeps_the_old_one(tmp_path: Path) -> None:
    assert work(tmp_path, 1, name="search/mmd", journal=True)
    with pytest.raises(ConfigError, match="height: 1 -> 2.*--fork.*--fresh"):
        work(tmp_path, 2, name="search/mmd", journal=True)
    assert work(tmp_path, 2, name="search/mmd", journal=True, fresh=True)
    assert (tmp_path / "search/mmd.before-1/result").read_text() == "1"
    assert (tmp_path / "search/mmd/result").read_text() == "2"


def test_damaged_or_foreign_markers_are_named(tmp_path: Path) -> None:
    work(tmp_path, 1)
    (marker,) = tmp_path.glob(f"measure/*/{MARKER}")
    write_sealed(marker, {"hash": "of something else"})
    with pytest.raises(StateError, match=str(marker.parent)):
        work(tmp_path, 1)
    marker.write_text('{"hash": ')
    with pytest.raises(StateError, match=str(marker)):
        work(tmp_path, 1)


def test_a_fork_shares_derived_stages_and_leaves_journals(tmp_path: Path) -> None:
    root = tmp_path / "run"
    work(root, 1)
    work(root, 1, name="search/mmd", journal=True)
    forked = fork(root)
    assert forked == tmp_path / "run-2"
    assert not work(forked, 1)
    assert work(forked, 2, name="search/mmd", journal=True)
    assert (root / "search/mmd" / PLAN).exists()


def test_differences_name_the_path() -> None:
    assert differences({"config": {"a": {"b": 1}, "c": 2}}, {"config": {"a": {"b": 3}, "c": 2, "d": 4}}) == [
        "a.b: 1 -> 3",
        "d: None -> 4",
    ]


def test_a_plan_whose_number_is_written_otherwise_is_the_same() -> None:
    assert differences({"config": {"a": 1, "b": [0.5, 2]}}, {"config": {"a": 1.0, "b": [0.5, 2.0]}}) == []


def test_whatever_it_is_of_a_stage_lies_in_the_run_folder(tmp_path: Path) -> None:
    root = tmp_path / "run"
    for journal in (False, True):
        for name in ("../../x", "/x", "..", "ordinary name"):
            stage = RunFolder(root=root).open("select", name, "seed0", inputs={}, config={}, journal=journal)
            assert stage.folder.resolve().is_relative_to(root / "select")
            assert (stage.folder / PLAN).exists()
    assert (root / "select" / "ordinary name" / "seed0" / PLAN).exists()
