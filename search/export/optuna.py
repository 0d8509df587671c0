"""A journal as an Optuna study, so that optuna-dashboard and Optuna's plots show a search. Optuna is optional."""

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from finegpr.errors import ConfigError, InputError, StateError
from finegpr.faults import patiently
from finegpr.storage import file_sha256
from search.journal import JOURNAL, Journal
from search.trial import Status, Trial

_HEAD_BYTES = 4096
# A journal of which a byte is damaged still has one of them.
_WORDS = (b'"kind"', b'"header"', b'"format"', b'"config"')


def export(journal_path: Path, storage: str, study_name: str) -> dict[Status, int]:
    """Write the trials of a journal as a new study; returns how many there are of each status. The journal stays as is.

    ``storage``: path of an Optuna journal file, or a database URL such as ``sqlite:///studies.db`` (far slower).
    Trials are as ``optuna_study.frozen`` says; a search that is running gives its finished generations. Raises
    ConfigError without Optuna, InputError for a study that exists or a store that is none, StateError for a damaged
    journal.
    """
    try:
        from search.export import optuna_study
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError(
            "a study needs Optuna, which is not installed; run pip install 'aost-on-ray[optuna]'"
        ) from None
    config, trials = _read(journal_path)
    scored_by = config["scored_by"]
    optuna_study.write(
        trials,
        storage,
        study_name,
        higher_is_better=scored_by["higher_is_better"],
        about={
            "objective": scored_by["name"],
            "unit": scored_by["unit"],
            "journal": str(journal_path),
            "sha256": file_sha256(journal_path),
            "config": config,
        },
    )
    return dict(Counter(trial.status for trial in trials))


def _read(path: Path) -> tuple[dict[str, Any], list[Trial]]:
    """Config and finished generations. Of a copy: opening a journal cuts off what a running search has half written."""
    if path.is_dir():
        inside = path / JOURNAL
        advice = f"give {inside}" if inside.is_file() else f"`aost search` writes {JOURNAL}"
        raise InputError(f"{path} is a folder, expected the {JOURNAL} of a search; {advice}")
    if not path.is_file():
        raise InputError(f"no journal {path}; `aost search` writes {JOURNAL}")
    try:
        head = patiently(lambda: _head(path), path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected the {JOURNAL} of a search") from None
    if not any(word in head for word in _WORDS):
        raise InputError(f"{path} is not the {JOURNAL} of a search, which `aost search` writes")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / JOURNAL
        shutil.copyfile(path, copy)
        try:
            journal = Journal(Path(folder), config := _config(copy))
        except StateError as error:
            raise StateError(str(error).replace(str(copy), str(path))) from None
    if "scored_by" not in config:
        raise InputError(f"{path} is not the journal of a search: it does not say what scored its subsets")
    return config, [trial for generation in journal.generations for trial in generation]


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)


def _config(path: Path) -> dict[str, Any]:
    """The config that a journal was written under; empty where its header is damaged, which Journal will say."""
    try:
        header = json.loads(path.read_bytes().split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return {}
    config = header.get("config") if isinstance(header, dict) else None
    return config if isinstance(config, dict) else {}
