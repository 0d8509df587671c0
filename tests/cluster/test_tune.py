"""The seam between a search and Ray Tune: what is handed over, how it ends, and what a cluster has room for."""

import importlib.util
import re
import threading
from types import SimpleNamespace

import pytest

from cluster.executors.loggers import require_installed
from cluster.executors.ray_tune import _Handover, reports
from cluster.executors.session import RayConfig, count_places, ray_session, require_resources
from finegpr.errors import AostError, ConfigError, InputError


def cluster(*nodes):
    """What Ray says of nodes, each (CPUs, GPUs); a node that is gone is still listed."""
    alive = [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in nodes]
    gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    total = {name: sum(node["Resources"][name] for node in alive) for name in ("CPU", "GPU")}
    return SimpleNamespace(nodes=lambda: [*alive, gone], cluster_resources=lambda: total)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "places"),
    [
        ([(4, 0)], 1, 0, 4),
        ([(4, 0), (3, 0)], 2, 0, 3),
        ([(16, 2)], 4, 0.5, 4),
        ([(16, 2)], 8, 0.25, 2),
        ([(2, 0), (2, 0)], 3, 0, 0),
        ([(8, 1), (8, 0)], 1, 1, 1),
        ([(0.3, 0)], 0.1, 0, 3),
    ],
)
def test_places_lie_on_one_node_each(nodes, cpus, gpus, places):
    assert count_places(cluster(*nodes), cpus=cpus, gpus=gpus) == places


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        ({"cpus": 5, "gpus": 0}, "x needs 5 CPU, the cluster has 4"),
        ({"cpus": 1, "gpus": 2}, "x needs 2 GPU, the cluster has 1"),
        ({"cpus": 3, "gpus": 0}, "each on one node, and there is room for 0"),
        ({"cpus": 1, "gpus": 0, "count": 5}, "x needs 5 CPU"),
        ({"cpus": 2, "gpus": 0, "count": 2, "beside": 0.01}, "x needs 4.01 CPU"),
    ],
)
def test_what_a_cluster_lacks_is_named(needed, reason):
    ray = cluster((2, 1), (2, 0))
    with pytest.raises(ConfigError, match=reason):
        require_resources(ray, what="x", **needed)
    require_resources(ray, what="x", cpus=2, gpus=0, count=2)


def trials(*labels):
    return [{"label": label} for label in labels]


def hand_over(handover, *labels, ticks=None):
    """The batch in a thread of its own, and what comes of it."""
    found = []

    def run():
        try:
            found.append(handover.run(trials(*labels), lambda *told: ticks.append(told) if ticks is not None else None))
        except AostError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def test_a_batch_ends_when_all_have_ended_in_any_order():
    handover, ticks = _Handover(at_once=2), []
    for _ in range(2):  # generation after generation
        thread, found = hand_over(handover, "a", "b", "c", ticks=ticks)
        first, second = handover.suggest(), handover.suggest()
        assert [first["label"], second["label"]] == ["a", "b"]
        assert handover.suggest() is None  # two are running
        handover.end(second, {"mAP": 1.0})
        third = handover.suggest()
        assert handover.suggest() is None
        handover.end(third, {"lost": "the node is gone"})
        assert thread.is_alive()
        handover.end(first, {})
        thread.join()
        assert found == [[None, None, "the node is gone"]]
        assert ticks == [(1, 3, "b"), (2, 3, "c"), (3, 3, "a")]
        ticks.clear()
    handover.close()
    with pytest.raises(StopIteration):
        handover.suggest()


def test_an_error_of_ours_ends_a_batch_at_once_and_keeps_its_kind():
    handover = _Handover(at_once=2)
    thread, found = hand_over(handover, "a", "b")
    handover.end(handover.suggest(), {"error": "no such file", "exit_code": 3})
    thread.join()
    assert [(type(error), str(error)) for error in found] == [(InputError, "no such file")]


@pytest.mark.parametrize(("error", "why"), [(ValueError("head\nis gone"), "is gone"), (None, "stopped by itself")])
def test_a_batch_does_not_wait_for_a_tune_that_is_over(error, why):
    handover = _Handover(at_once=2)
    thread, found = hand_over(handover, "a")
    handover.broken(error)
    thread.join()
    assert why in str(found[0])


def test_reports_come_before_the_result():
    def work(report):
        report({"loss": 2.0})
        report({"loss": 1.0})
        return {"mAP": 0.5}

    assert list(reports(work)) == [{"loss": 2.0}, {"loss": 1.0}, {"mAP": 0.5, "done": True}]

    def fails(report):
        report({"loss": 2.0})
        raise InputError("no such image")

    found = reports(fails)
    assert next(found) == {"loss": 2.0}
    with pytest.raises(InputError, match="no such image"):
        next(found)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed_is_named(name, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda each: None if each == name else found(each))
    require_installed(("tensorboard",))
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        require_installed(("tensorboard", name))


def test_ray_address_is_joined_as_ray_users_expect(monkeypatch):
    import ray

    asked = []

    def init(**options):
        asked.append(options["address"])
        raise ConnectionError("nobody answers\nat all")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("cluster.executors.session._require_answer", lambda _: None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    for config, address in ((RayConfig(), "10.0.0.1:6379"), (RayConfig(address="10.0.0.2:6379"), "10.0.0.2:6379")):
        reason = f"{address}' cannot be joined .nobody answers.; .*unset RAY_ADDRESS"
        with pytest.raises(ConfigError, match=reason), ray_session(config):
            pass
        assert asked.pop() == address


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (
            ["Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\nThis process on "
            "node 1:2 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"],
            "it runs Ray 2.9.0 on Python 3.10.1, this is Ray 2.60.0 on Python 3.11.7; both have to be the same",
        ),
        (["ray.exceptions.AuthenticationError: InvalidAuthToken", "Failed to connect"], "RAY_AUTH_TOKEN_PATH, as"),
        (["too old\nto be read"], "(too old);"),
        ([""], "(RuntimeError);"),
    ],
)  # fmt: skip
def test_whatever_joining_raises_is_one_line(monkeypatch, errors, said):
    import ray

    def init(**_):
        below = None
        for text in errors:
            try:
                raise RuntimeError(text) from below
            except RuntimeError as error:
                below = error
        raise below

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("cluster.executors.session._require_answer", lambda _: None)
    with pytest.raises(ConfigError, match=re.escape(said)), ray_session(RayConfig(address="10.0.0.1:6379")):
        pass


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    import ray

    def init(**_):
        raise Exception("The current node timed out during startup.\nThis could happen because")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    reason = "Ray did not start .The current node timed out during startup.*--serial"
    with pytest.raises(AostError, match=reason), ray_session(RayConfig()):
        pass
