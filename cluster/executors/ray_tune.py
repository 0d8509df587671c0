"""Ray Tune runs trials in actors that are used again: one Tune run for all generations of a search.

The search stays the master: it hands over a batch of trials and waits for all of them. Tune's searcher suggests what
was handed over, so that nothing of a search depends on how many trials run at once, or in which order they end.
"""

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from ray import tune
from ray.tune.search import Searcher

from cluster.executors.session import count_places, require_resources
from cluster.progress import Tick
from finegpr.errors import AostError

MAX_FAILURES = 2
CLOSING_SECONDS = 20.0

Report = Callable[[dict[str, float]], None]
Work = Callable[[dict[str, Any], Report], dict[str, Any]]
Told = Callable[[dict[str, Any], dict[str, Any]], str]


class TuneRun:
    """A Tune run that lasts as long as the context, and runs what it is called with.

    ``make_work`` is called once in every actor; what it gives does one trial, may report numbers on the way, commits
    its result to disk and is safe to run twice. Each trial has ``cpus`` and ``gpus`` to itself, which may be fractions.
    ``at_once`` bounds how many run at a time, None for as many as fit. ``storage`` is a folder for Tune's own files,
    removed at the end.

    Raises ConfigError at once when no node has the CPUs and GPUs of one trial.
    """

    attempts = MAX_FAILURES + 1

    def __init__(
        self,
        ray: Any,
        make_work: Callable[[], Work],
        *,
        what: str,
        cpus: float,
        gpus: float,
        storage: Path,
        at_once: int | None = None,
        loggers: Sequence[tune.Callback] = (),
    ) -> None:
        require_resources(ray, cpus=cpus, gpus=gpus, what=what)
        places = count_places(ray, cpus=cpus, gpus=gpus)
        self._storage = storage
        self._handover = _Handover(min(places, at_once or places))
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        # Tune's own handler would turn Ctrl-C into an ordinary end, with trials missing.
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        # Tune writes down the state of all trials again and again; ours is on the disk already.
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
        # With a searcher Tune starts one actor after another; with this as many as there is room for.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(places)
        self._tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_Trial, make_work=make_work), {"cpu": cpus, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=_Suggest(self._handover),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="run",
                storage_path=str(storage.resolve()),
                verbose=0,
                callbacks=[_Watch(self._handover), *loggers],
                stop=_Stop(self._handover),
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        self._thread = threading.Thread(target=self._fit, daemon=True, name="ray-tune")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._handover.close()
        # After a signal there is no time; after an error, Ray must not be shut down under Tune's feet.
        if self._thread.ident is not None and (kind is None or issubclass(kind, Exception)):
            self._thread.join(CLOSING_SECONDS)
        if kind is None:
            shutil.rmtree(self._storage, ignore_errors=True)

    def __call__(self, trials: Sequence[dict[str, Any]], tick: Tick, *, told: Told | None = None) -> list[str | None]:
        """Run every trial; a trial has a ``label``. ``tick`` is told how many are done, and what ``told`` makes of a
        trial and what it reports.

        A trial lost with its process or node is run again at most twice. Returns why each was lost for good, None for
        those that were done. Raises at once an AostError that a trial raised, and one when Tune itself ended.
        """
        if self._thread.ident is None and trials:
            # Not before: Tune fails when it is ended without a single trial.
            self._thread.start()
        return self._handover.run(trials, tick, told)

    def _fit(self) -> None:
        try:
            self._tuner.fit()
        except BaseException as error:
            self._handover.broken(error)
        else:
            self._handover.broken(None)


class _Handover:
    """What the search's thread and Tune's share: trials waiting, how many are on their way, and how each ended."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._changed = threading.Condition()
        self._waiting: deque[dict[str, Any]] = deque()
        self._running: set[int] = set()
        self._ended: dict[int, dict[str, Any]] = {}
        self._heard: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._num_trials = 0
        self.closed = False
        self._over: str | None = None

    def run(self, trials: Sequence[dict[str, Any]], tick: Tick, told_of: Told | None = None) -> list[str | None]:
        with self._changed:
            numbers = range(self._num_trials, self._num_trials + len(trials))
            self._num_trials += len(trials)
            self._waiting.extend({**trial, "number": number} for number, trial in zip(numbers, trials, strict=True))
            self._changed.notify_all()
            told = 0
            while len(self._ended) < len(trials) and self._over is None:
                self._changed.wait()
                for end in self._ended.values():
                    if "error" in end:
                        raise with_code(end["error"], end["exit_code"])
                while told < len(self._ended):
                    told += 1
                    tick(told, len(trials), trials[list(self._ended)[told - 1] - numbers.start]["label"])
                if self._heard is not None and told_of is not None and told < len(trials):
                    tick(told, len(trials), told_of(*self._heard))
                self._heard = None
            if len(self._ended) < len(trials):
                raise AostError(f"Ray Tune ended with trials missing: {self._over}; run the same command again")
            return [self._ended.pop(number).get("lost") for number in numbers]

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def broken(self, error: BaseException | None) -> None:
        with self._changed:
            self._over = "it stopped by itself" if error is None else _last_line(str(error))
            self._changed.notify_all()

    def suggest(self) -> dict[str, Any] | None:
        """The next trial, None while there is no room for one. Raises StopIteration when no more will come.

        It waits where nothing is on its way: Tune, told None, would sleep for a second.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self.closed)
            if self.closed:
                raise StopIteration
            if not self._waiting or len(self._running) >= self._at_once:
                return None
            trial = self._waiting.popleft()
            self._running.add(trial["number"])
            return trial

    def hear(self, trial: dict[str, Any], result: dict[str, Any]) -> None:
        with self._changed:
            self._heard = trial, result
            self._changed.notify_all()

    def end(self, trial: dict[str, Any], how: dict[str, Any]) -> None:
        with self._changed:
            self._running.discard(trial["number"])
            self._ended[trial["number"]] = how
            self._changed.notify_all()


class _Suggest(Searcher):
    """Tune's view of the search."""

    def __init__(self, handover: _Handover) -> None:
        super().__init__()
        self._handover = handover

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its searcher to the disk, and ours is not where a search is kept."""
        return {}

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Nothing to set: which score is better, the search knows."""
        return True

    def suggest(self, trial_id: str) -> Any:
        del trial_id
        try:
            trial = self._handover.suggest()
        except StopIteration:
            return Searcher.FINISHED
        return None if trial is None else {"trial": trial}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: ``_Watch`` is told as well, and told why a trial was lost."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing, see ``__getstate__``."""


class _Stop(tune.Stopper):
    """Ends Tune, whatever still runs, when the search is over."""

    def __init__(self, handover: _Handover) -> None:
        self._handover = handover

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        return self._handover.closed


class _Watch(tune.Callback):
    """Tells the search what a trial reports, and how it ended."""

    def __init__(self, handover: _Handover) -> None:
        self._handover = handover

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks to the disk, and what waits for them cannot be saved."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        del iteration, trials, info
        if "loss" in result:  # not where it ends
            self._handover.hear(trial.config["trial"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, trials, info
        self._handover.end(trial.config["trial"], dict(trial.last_result or {}))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, trials, info
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        self._handover.end(trial.config["trial"], {"lost": _last_line(text)})


class _Trial(tune.Trainable):
    """An actor, and in it one trial after another; a step ends with each report, and with the trial."""

    def setup(self, config: dict[str, Any], make_work: Callable[[], Work] | None = None) -> None:
        assert make_work is not None
        self._work = make_work()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        trial = new_config["trial"]
        self._reports = reports(lambda report: self._work(trial, report))
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own states in its folder, and goes on from them."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, see ``save_checkpoint``."""

    def step(self) -> dict[str, Any]:
        # An error of ours would come again however often Ray tried; a lost node would not.
        try:
            return next(self._reports)
        except AostError as error:
            return {"error": str(error), "exit_code": error.exit_code, "done": True}


def reports(work: Callable[[Report], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What ``work`` reports while it runs in a thread, then what it returns, with ``done``. Raises what it raises."""
    queue: SimpleQueue[dict[str, Any] | BaseException] = SimpleQueue()

    def run() -> None:
        try:
            queue.put({**work(queue.put), "done": True})
        except BaseException as error:
            queue.put(error)

    threading.Thread(target=run, daemon=True).start()
    while True:
        found = queue.get()
        if isinstance(found, BaseException):
            raise found
        yield found
        if found.get("done"):
            return


def with_code(message: str, exit_code: int) -> AostError:
    """The error that a worker process had, by its exit code."""
    kinds = {kind.exit_code: kind for kind in AostError.__subclasses__()}
    return kinds.get(exit_code, AostError)(message)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was kept"])[-1]
