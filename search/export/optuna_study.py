"""Trials as a study in a store of Optuna's. The only module that imports optuna; see ``search.export.optuna``."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from finegpr.atomic import writing
from finegpr.errors import InputError
from search.export.address import tells_password, without_password
from search.trial import Trial

URL = "://"
IN_OR_OUT = CategoricalDistribution((False, True))


def write(
    trials: Sequence[Trial], storage: str, study_name: str, *, higher_is_better: bool, about: Mapping[str, Any]
) -> None:
    """Write a new study, with the JSON-ready ``about`` as its attributes. A file is written in one piece, at the end.

    Raises InputError for a study that exists, and for a store that is none.
    """
    backend = None if URL in storage else _WholeStudy(storage)
    opened = _database(storage) if backend is None else optuna.storages.JournalStorage(backend)
    if study_name in [study.study_name for study in opened.get_all_studies()]:
        num = len(optuna.load_study(study_name=study_name, storage=opened).get_trials(deepcopy=False))
        raise InputError(
            f"{without_password(storage)} has a study {study_name!r} of {num} trials already; give another name"
        )
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        direction = optuna.study.StudyDirection.MAXIMIZE if higher_is_better else optuna.study.StudyDirection.MINIMIZE
        study = optuna.create_study(storage=opened, study_name=study_name, direction=direction)
    finally:
        optuna.logging.set_verbosity(verbosity)
    for name, value in about.items():
        study.set_user_attr(name, value)
    values = sorted({(name, value) for trial in trials for name, kept in trial.subset.values.items() for value in kept})
    study.add_trials([frozen(trial, values) for trial in trials])
    if backend is not None:
        backend.commit()


def frozen(trial: Trial, values: Sequence[tuple[str, str]]) -> FrozenTrial:
    """A trial for Optuna: a parameter ``weather: foggy`` for each (attribute, value) of ``values``, True if it is in.

    New scored subsets are COMPLETE, failed ones FAIL; infeasible ones and duplicates cost no evaluation and are PRUNED.
    User attributes are the status, generation, index in the journal, score (a duplicate's is its first's) and subset.
    """
    params = {f"{name}: {value}": value in trial.subset.values.get(name, ()) for name, value in values}
    return optuna.trial.create_trial(
        state={"scored": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(trial.status, TrialState.PRUNED),
        value=trial.score if trial.status == "scored" else None,
        params=params,
        distributions=dict.fromkeys(params, IN_OR_OUT),
        user_attrs={
            "status": trial.status,
            "generation": trial.generation,
            "index": trial.index,
            "score": trial.score,
            "subset": trial.subset.key,
        },
    )


class _WholeStudy(JournalFileBackend):
    """An Optuna journal file to which all that is appended is written at once, by ``commit``.

    Appending line by line costs a lock and an fsync each, and leaves half a study where it is killed.
    """

    def __init__(self, path: str) -> None:
        if Path(path).is_dir():
            raise _no_studies(path, "it is a folder")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:.*@", path):
            raise _no_studies(path, "an address of a database has :// in it")
        with writing(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path)
        try:
            self._logs = list(super().read_logs(0))
        except ValueError as error:
            raise _no_studies(path, str(error)) from None
        # A last line that is no JSON is passed over by Optuna, as one that is being written.
        if not all(isinstance(log, dict) and "op_code" in log for log in self._logs) or (
            not self._logs and Path(path).stat().st_size > 0
        ):
            raise _no_studies(path, "its lines are others")
        self._num_written = len(self._logs)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        yield from self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._logs += json.loads(json.dumps(logs))  # as they will be read

    def commit(self) -> None:
        """Append to the file."""
        with writing(Path(self._file_path)):
            super().append_logs(self._logs[self._num_written :])
        self._num_written = len(self._logs)


def _database(url: str) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(url)
    except (ImportError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise _no_studies(url, type(error).__name__ if tells_password(reason, url) else reason) from None
    except ValueError:  # its text is a piece of the address, perhaps of the password
        raise _no_studies(url, "host and port cannot be told from it; a password has @ as %40") from None


def _no_studies(storage: str, reason: str) -> InputError:
    return InputError(
        f"{without_password(storage)} holds no Optuna studies ({reason}); expected an Optuna journal file, a new file, "
        "or a URL such as sqlite:///studies.db"
    )
