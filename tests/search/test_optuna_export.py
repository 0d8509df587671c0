import builtins
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegpr.arrays import Floats
from finegpr.errors import ConfigError, InputError, StateError
from finegpr.subset import Subset
from search.export.address import without_password
from search.export.optuna import export
from search.journal import JOURNAL
from search.loop import search
from search.optimizers import make_optimizer
from search.space import Space
from search.testing import TableObjective
from search.trial import Proposal, Trial

optuna = pytest.importorskip("optuna")


class Maximised(TableObjective):
    """One in five subsets fails; higher is better."""

    higher_is_better = True

    def score(self, subsets: list[Subset]) -> Floats:
        scores = super().score(subsets)
        scores[[sum(subset.key.encode()) % 5 == 0 for subset in subsets]] = np.nan
        return scores


class OneThatDoesNotFit:
    """Random, but its first proposal has one value of each attribute."""

    def __init__(self, space: Space) -> None:
        self._random = make_optimizer("random", space, seed=0, evaluations=300)
        self.population = self._random.population
        mask = np.zeros(space.num_bits, dtype=bool)
        mask[[block.start for block in space.blocks]] = True
        self._first = [space.subset(mask)]

    def ask(self, num: int) -> list[Proposal]:
        proposals = self._random.ask(num)
        return [
            Proposal(id=proposal.id, subset=self._first.pop() if self._first else proposal.subset)
            for proposal in proposals
        ]

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        self._random.tell(scored)


@pytest.fixture(scope="module")
def history(space: Space, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Trial, ...]]:
    """A journal with trials of every status."""
    folder = tmp_path_factory.mktemp("search")
    objective = Maximised(space, np.ones(space.num_bits, dtype=bool))
    result = search(
        space, objective, OneThatDoesNotFit(space), folder, evaluations=300, config={"seed": 0}, num_random=0
    )
    assert {trial.status for trial in result.history} == {"scored", "failed", "infeasible", "duplicate"}
    return folder / JOURNAL, result.history


def load(storage: str, name: str) -> Any:
    if "://" in storage:
        return optuna.load_study(study_name=name, storage=storage)
    backend = optuna.storages.journal.JournalFileBackend(storage)
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_optuna_reads_back_every_trial(
    kind: str, history: tuple[Path, tuple[Trial, ...]], space: Space, tmp_path: Path
) -> None:
    path, trials = history
    if kind == "sqlite":  # slow: one generation will do
        lines = path.read_bytes().splitlines(keepends=True)
        end = next(place for place, line in enumerate(lines) if b'"kind":"generation"' in line)
        path, trials = tmp_path / JOURNAL, tuple(trial for trial in trials if trial.generation == 0)
        path.write_bytes(b"".join(lines[: end + 1]))
    before = path.read_bytes()
    storage = str(tmp_path / "new" / "optuna.log") if kind == "journal" else f"sqlite:///{tmp_path}/studies.db"
    by_status = Counter(trial.status for trial in trials)
    assert export(path, storage, "chosen") == by_status
    study = load(storage, "chosen")
    assert path.read_bytes() == before
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.user_attrs["objective"] == "table"
    assert study.user_attrs["unit"] == "values"
    assert study.user_attrs["config"]["seed"] == 0
    states = {"scored": "COMPLETE", "failed": "FAIL", "infeasible": "PRUNED", "duplicate": "PRUNED"}
    assert len(study.trials) == len(trials)
    for exported, trial in zip(study.trials, trials, strict=True):
        assert exported.state.name == states[trial.status]
        assert exported.values == ([trial.score] if trial.status == "scored" else None)
        assert exported.user_attrs["status"] == trial.status
        assert exported.user_attrs["generation"] == trial.generation
        assert Subset.from_json(exported.user_attrs["subset"]) == trial.subset
        assert len(exported.params) == space.num_bits
        values: dict[str, list[str]] = {}
        for name, held in exported.params.items():
            attribute, value = name.split(": ")
            values.setdefault(attribute, []).extend([value] * held)
        assert Subset(values) == trial.subset
    best = max((trial for trial in trials if trial.status == "scored"), key=lambda trial: trial.score or 0)
    assert study.best_value == best.score
    assert study.best_trial.user_attrs["index"] == best.index
    assert Counter(trial.state.name for trial in study.trials)["COMPLETE"] > len(trials) / 2


def test_a_second_export_is_refused_and_another_name_is_not(
    history: tuple[Path, tuple[Trial, ...]], tmp_path: Path
) -> None:
    path, trials = history
    storage = str(tmp_path / "optuna.log")
    export(path, storage, "one")
    with pytest.raises(InputError, match=f"has a study 'one' of {len(trials)} trials already; give another name"):
        export(path, storage, "one")
    export(path, storage, "two")
    assert len(load(storage, "one").trials) == len(load(storage, "two").trials) == len(trials)


def test_a_journal_that_is_being_written_keeps_its_last_bytes(
    history: tuple[Path, tuple[Trial, ...]], tmp_path: Path
) -> None:
    data = history[0].read_bytes()
    running = tmp_path / JOURNAL
    running.write_bytes(data[:-40])
    num = sum(export(running, str(tmp_path / "optuna.log"), "part").values())
    assert 0 < num < len(history[1])
    assert running.read_bytes() == data[:-40]


def test_a_damaged_journal_is_named(history: tuple[Path, tuple[Trial, ...]], tmp_path: Path) -> None:
    data = history[0].read_bytes()
    damaged = tmp_path / JOURNAL
    for text, match in (
        (data.replace(b'"scored"', b'"failed"', 1), f"{damaged} lines? .*is damaged|{damaged} line .* is damaged"),
        (b"{" + data, f"{damaged} line 1 is damaged"),
    ):
        damaged.write_bytes(text)
        with pytest.raises(StateError, match=match):
            export(damaged, str(tmp_path / "optuna.log"), "one")
    assert not (tmp_path / "optuna.log").exists()
    damaged.write_bytes(b"")
    with pytest.raises(InputError, match=f"{damaged} is not the journal"):
        export(damaged, str(tmp_path / "optuna.log"), "one")
    with pytest.raises(InputError, match="no journal"):
        export(tmp_path / "none", str(tmp_path / "optuna.log"), "one")


def test_a_file_that_holds_no_studies_is_refused_and_left_alone(
    history: tuple[Path, tuple[Trial, ...]], tmp_path: Path
) -> None:
    own = tmp_path / JOURNAL
    own.write_bytes(history[0].read_bytes())
    other = tmp_path / "notes.txt"
    other.write_text("nothing\n")
    for path in (own, other):
        before = path.read_bytes()
        with pytest.raises(InputError, match="holds no Optuna studies"):
            export(history[0], str(path), "one")
        assert path.read_bytes() == before
    with pytest.raises(InputError, match="nosuch://x holds no Optuna studies"):
        export(history[0], "nosuch://x", "one")


def test_a_journal_that_is_no_search_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text(
        json.dumps({"kind": "header", "format": 1, "config": {}}, separators=(",", ":")) + "\n"
    )
    with pytest.raises(InputError, match="is not the journal of a search"):
        export(tmp_path / JOURNAL, str(tmp_path / "optuna.log"), "one")


def test_without_optuna_the_extra_is_named(
    history: tuple[Path, tuple[Trial, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "search.export.optuna_study", raising=False)
    monkeypatch.delattr("search.export.optuna_study", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'aost-on-ray\[optuna\]'"):
        export(history[0], str(tmp_path / "optuna.log"), "one")


SECRET = "hush%20hush"
ADDRESSES = [
    f"nosuch://me:{SECRET}@127.0.0.1/x",
    f"nosuch://me@host:{SECRET}@127.0.0.1:1/x",
    f"nosuch://me:a@{SECRET}:b@127.0.0.1/x",
    f"nosuch://me:a/b?c={SECRET}@127.0.0.1/x",
    f"nosuch://127.0.0.1/x?user=me&password={SECRET}",
    f"nosuch:///?odbc_connect=UID%3Dme%3BPWD%3D{SECRET}",
    f"sqlite+pysqlcipher://:{SECRET}@/x.db",
    f"nosuch:/me:{SECRET}@127.0.0.1/x",
    f"nosuch://me:{SECRET}@127.0.0.1:port/x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_password_of_a_database_is_shown(address: str, history: tuple[Path, tuple[Trial, ...]]) -> None:
    assert "hush" not in without_password(address)
    with pytest.raises(InputError, match=r"\*\*\*.* holds no Optuna studies") as caught:
        export(history[0], address, "demo")
    assert "hush" not in str(caught.value)


def test_an_error_of_the_driver_that_repeats_a_password_is_not_shown(
    history: tuple[Path, tuple[Trial, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def fail(_: str) -> None:
        raise OperationalError("connect", {}, Exception("me:hush hush refused"))

    monkeypatch.setattr("optuna.storages.RDBStorage", fail)
    with pytest.raises(InputError, match=r"\(OperationalError\)"):
        export(history[0], ADDRESSES[0], "demo")


@pytest.mark.parametrize("storage", ["sqlite:///a:b@c/x.db", "studies.log", "a@b:c.log", "postgresql://me@host:5432/x"])
def test_what_holds_no_password_is_shown_as_it_is(storage: str) -> None:
    assert without_password(storage) == storage


def test_a_folder_is_no_store(history: tuple[Path, tuple[Trial, ...]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a folder"):
        export(history[0], str(tmp_path), "demo")
