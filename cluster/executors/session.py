"""The only place that starts or joins a Ray cluster, and that looks at what the cluster offers before work begins."""

import logging
import os
import re
import secrets
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from math import floor
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cluster.executors.session_folder import ADVICE, session_folder, unfit
from cluster.progress import say
from finegpr.config import Config
from finegpr.errors import AostError, ConfigError, WriteError
from finegpr.faults import of_machine

ANSWER_SECONDS = 10.0


class RayConfig(Config):
    """Where Ray runs: the cluster at ``address``, or at RAY_ADDRESS as Ray itself has it (in a job, that of the job);
    without either, a private one on this machine with ``num_cpus`` (None: all cores), its files where TMPDIR says."""

    address: str | None = None
    num_cpus: Annotated[int, Field(ge=1)] | None = None


@contextmanager
def ray_session(config: RayConfig) -> Iterator[Any]:
    """Yield ``ray``, connected. A private cluster is stopped at the end; one that was joined is left running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # How often Ray Train looks whether its workers are done; at its own 2 s a short training waits for the look.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    # A call after the end would otherwise start another cluster by itself.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    # Ray gives workers the lowest priority but three; beside any other program they would hardly start.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    import ray.data
    import ray.train
    import ray.tune

    # What a person should know comes through ``progress``. Importing sets these levels, so this comes after.
    for name in ("ray.data", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Its state of an experiment is read by nobody here, and a signal may end the writing of it.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)

    if (address := config.address or os.environ.get("RAY_ADDRESS")) is not None:
        _require_answer(address)
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        with _joined(ray, address):
            yield ray
        return
    # Without one Ray would write its own below the home folder, where the next `ray start --head` found it.
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with session_folder() as folder:
        # For whatever else Ray would put into a folder of its choice.
        os.environ["RAY_TMPDIR"] = str(folder.resolve().parent)
        try:
            _start(ray, folder, num_cpus=config.num_cpus, include_dashboard=False)
            yield ray
        except Exception:
            ray.shutdown()
            raise
        # After a signal there are seconds to leave in, and Ray takes some; its processes end with this one.
        ray.shutdown()


def _options(ray: Any, address: str) -> dict[str, Any]:
    """What every connection has: silence, and our packages on the path of the workers.

    Ray would put the working directory before them, with whatever ``search.py`` a person has there.
    """

    class OwnPath(ray.job_config.JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            """Asked before Ray adds the folders of the script and of the shell."""
            return True

    root = Path(__file__).parents[2]
    # Installed packages are found without it, and what lies beside them must not come before Python's own.
    path = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if not address.startswith("ray://"):  # there the server makes the connection, from a folder of its own
        options["job_config"] = OwnPath(_py_driver_sys_path=path)
    return options


def _start(ray: Any, folder: Path, **options: Any) -> None:
    try:
        with own_signals():
            ray.init(address="local", _temp_dir=str(folder), **_options(ray, "local"), **options)
    except Exception as error:
        if (lack := unfit(folder)) is not None:
            raise WriteError(f"Ray did not start, {folder}: {lack}; {ADVICE}") from error
        raise AostError(
            f"Ray did not start ({_first_line(error)}); try again when the machine is less busy, or --serial"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def own_signals() -> Iterator[None]:
    """Put our handlers back afterwards: Ray's would end the process with a code that is not ours."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    ours = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ours.items():
                signal.signal(number, handler)


def in_background(call: Callable[[], object], meanwhile: Callable[[], None]) -> None:
    """Run ``call`` in a thread and wait: Ray Train installs handlers of its own only in the main one.

    ``meanwhile`` is called every second, and once more at the end. Raises what ``call`` raises; a signal ends the
    waiting.
    """
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([future], timeout=1.0).done:
        meanwhile()
    meanwhile()
    future.result()


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    try:
        with own_signals():
            ray.init(address=address, **_options(ray, address))
    except Exception as error:  # a head of another version, or none of Ray's, may raise anything
        raise _not_joined(address, _why(error)) from error
    try:
        yield
    except Exception:
        ray.shutdown()
        raise
    ray.shutdown()


def _why(error: Exception) -> str:
    """Why a cluster was not joined, in one line; Ray tells some of it only in the errors below its own."""
    text = " ".join(str(error).split())
    versions = re.findall(r"Ray: (\S+) Python: (\S+)", text)
    if len(versions) == 2:
        theirs, ours = (f"Ray {version} on Python {python}" for version, python in versions)
        return f"it runs {theirs}, this is {ours}; both have to be the same"
    told = traceback.format_exception(error)
    if any("AuthenticationError" in line or "no authentication token" in line for line in told):
        return "its token is another one; set RAY_AUTH_MODE, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as it has them"
    return _first_line(error)


def _require_answer(address: str) -> None:
    """Raises ConfigError at once where nobody listens at HOST:PORT, for which Ray would wait minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
        except OSError as error:
            raise _not_joined(address, error.strerror or str(error)) from None


def _not_joined(address: str, reason: str) -> ConfigError:
    return ConfigError(
        f"the Ray cluster at {address!r} cannot be joined ({reason}); leave out ray.address, or unset RAY_ADDRESS, "
        "to run here"
    )


def require_resources(ray: Any, *, cpus: float, gpus: float, what: str, count: int = 1, beside: float = 0.0) -> None:
    """Raise ConfigError at once when the cluster, were it idle, had no room for ``what``: ``count`` pieces of work,
    each of them on one node, and ``beside`` them so many CPUs. Ray would wait for ever."""
    offered = ray.cluster_resources()
    for name, needed in (("CPU", count * cpus + beside), ("GPU", count * gpus)):
        if needed > offered.get(name, 0.0):
            raise ConfigError(
                f"{what} needs {needed:g} {name}, the cluster has {offered.get(name, 0.0):g}; "
                "ask for fewer workers or threads"
            )
    places = count_places(ray, cpus=cpus, gpus=gpus)
    if places < count:
        nodes = ", ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in _nodes(ray))
        raise ConfigError(
            f"{what} needs {count} times {cpus:g} CPU and {gpus:g} GPU, each on one node, and there is room for "
            f"{places} (nodes: {nodes}); ask for fewer workers or threads"
        )


def count_places(ray: Any, *, cpus: float, gpus: float) -> int:
    """How many pieces of work of this size the cluster had room for, were it idle; each lies on one node."""
    needed = [(name, amount) for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount > 0]
    return sum(min(floor(node.get(name, 0.0) / amount + 1e-9) for name, amount in needed) for node in _nodes(ray))


def _nodes(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def unwrapped_errors(what: str) -> Iterator[None]:
    """Raise the error of ours that a worker raised, which Ray wraps; any other as one line that says what failed."""
    try:
        yield
    except AostError:
        raise
    except Exception as error:  # those of Ray Train have no other common base
        if (ours := _ours(error)) is not None:
            raise ours from None
        if (fault := next(filter(None, map(of_machine, _below(error))), None)) is not None:
            raise fault from None
        raise AostError(f"{what} failed in Ray: {str(error).strip().splitlines()[-1]}") from error


def _ours(error: BaseException) -> AostError | None:
    """The AostError at the bottom of what Ray raised: its causes, and the failures of Ray Train's workers."""
    for each in _below(error):
        if isinstance(each, AostError):
            # Ray's own copy of an error carries the worker's traceback in its text.
            last = str(each).strip().splitlines()[-1]
            kinds = [kind for kind in AostError.__subclasses__() if isinstance(each, kind)]
            return (kinds or [AostError])[0](last.rpartition("Error: ")[2])
    return None


def _below(error: BaseException) -> list[Any]:
    """An error and all that it came from, the outermost first."""
    waiting: list[Any] = [error]
    for each in waiting:
        below = [getattr(each, "cause", None), each.__cause__, *getattr(each, "worker_failures", {}).values()]
        waiting += [found for found in below if isinstance(found, BaseException) and found not in waiting]
    return waiting


def announce(ray: Any) -> None:
    """Say in one line what Ray offers."""
    offered = ray.cluster_resources()
    gpus = f", {offered['GPU']:g} GPU" if offered.get("GPU") else ""
    say(f"Ray {ray.__version__}: {offered.get('CPU', 0):g} CPU{gpus}, {len(ray.nodes())} node")
