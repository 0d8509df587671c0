"""The objective ``training``. Most trainings here are a stub (``stub_training.py``); one test trains truly."""

import errno
import json
import os
import random
import runpy
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, InputError, StateError, UnreachableError, UnreadableError, WriteError
from finegpr.reid.job import run_job
from finegpr.reid.label_free import MAX_PHOTOS, MIN_PHOTOS
from finegpr.reid.recipes import recipe
from finegpr.reid.train import Diverged
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from search.analysis.true_ranking import CheckConfig, rank_by_training
from search.journal import JOURNAL
from search.loop import search
from search.objectives.halving import halve, halving_cost
from search.objectives.training import TRAININGS, VALIDATION, run_in_turn, training_objective
from search.objectives.training_config import TrainingConfig
from search.optimizers import make_optimizer
from search.space import Budget, Space

Forked = runpy.run_path(str(Path(__file__).parents[1] / "forked.py"))["Forked"]
STUB_FILE = Path(__file__).parents[1] / "stub_training.py"
STUB = SimpleNamespace(**runpy.run_path(str(STUB_FILE)))
RUNGS = (0.25, 0.5, 1.0)


def in_turn(fit):
    def run(trainings):
        for training in trainings:
            run_job(training, fit=fit)

    return run


def in_threads(fit, workers):
    def run(trainings):
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(partial(run_job, fit=fit), reversed(trainings)))

    return run


def objective(folder, run=None, *, rungs=(1.0,), seed=0, **changes):
    config = TrainingConfig(train=STUB.train_config(**changes), rungs=rungs, seconds_per_image=0.01)
    return training_objective(
        config,
        STUB.space(),
        STUB.source(),
        STUB.target(),
        seed=seed,
        folder=folder,
        run=run or in_turn(STUB.stub_fit),
    )


def run_search(folder, run=None, *, rungs=(1.0,), evaluations=24):
    scored_by = objective(folder, run, rungs=rungs)
    optimizer = make_optimizer("numpy_swarm", scored_by.space, seed=1, evaluations=evaluations)
    return scored_by, search(
        scored_by.space,
        scored_by,
        optimizer,
        folder,
        evaluations=evaluations,
        config=scored_by.settings(),
        num_random=0,
    )


@pytest.mark.parametrize("rungs", [(1.0,), RUNGS])
def test_the_journal_does_not_tell_how_many_ran_at_once(tmp_path, rungs):
    runs = {"serial": None, "one": in_threads(STUB.stub_fit, 1), "two": in_threads(STUB.stub_fit, 2)}
    results = {name: run_search(tmp_path / name, run, rungs=rungs)[1] for name, run in runs.items()}
    assert len({(tmp_path / name / JOURNAL).read_bytes() for name in runs}) == 1
    result = results["serial"]
    assert result.num_evaluations == 24
    assert result.num_failed == 0


def test_a_score_is_what_the_manifest_is_worth(tmp_path):
    scored_by = objective(tmp_path)
    subsets = [scored_by.space.subset(mask) for mask in scored_by.space.decode(np.eye(9)[:4] - 0.5)]
    subsets = [subset for subset in subsets if scored_by.space.feasible(scored_by.space.mask(subset)[None])[0]]
    manifests = [scored_by.source.take(scored_by.space.sampler.draw(subset, seed=0)) for subset in subsets]
    expected = [STUB.truth(manifest) * (1 - 0.5**8) for manifest in manifests]
    np.testing.assert_allclose(scored_by.score(subsets), expected)
    assert all(len(manifest) == 16 for manifest in manifests)
    assert len(set(expected)) > 1


def test_nothing_is_trained_twice(tmp_path):
    _, first = run_search(tmp_path, rungs=RUNGS)

    def refuse(*_, **__):
        raise AssertionError("trained again")

    journal = (tmp_path / JOURNAL).read_bytes()
    lines = journal.splitlines(keepends=True)
    for kept in (1, 9, len(lines)):  # a header alone; a generation cut in its midst; all
        (tmp_path / JOURNAL).write_bytes(b"".join(lines[:kept]))
        _, again = run_search(tmp_path, in_turn(refuse), rungs=RUNGS)
        assert (tmp_path / JOURNAL).read_bytes() == journal
        assert again.subset == first.subset
    assert not list(tmp_path.rglob("manifest.parquet"))


def test_failed_trainings_are_told_named_and_never_best(tmp_path):
    def fit(config, train, **more):
        fitted = STUB.stub_fit(config, train, **more)
        reds = float((train.frame["colour"] == "red").mean())  # what training likes best
        if reds > 0.45:
            raise Diverged("the training loss became nan")
        if reds > 0.3:
            raise RuntimeError("out of\n memory")
        if reds > 0.24:
            last = replace(fitted.history[-1], metrics={"mAP": float("nan")})
            return replace(fitted, history=(last,))
        return fitted

    for name, run in (("serial", in_turn(fit)), ("two", in_threads(fit, 2))):
        scored_by, result = run_search(tmp_path / name, run)
        failed = [trial for trial in result.history if trial.status == "failed"]
        assert result.num_failed == len(failed) > 0
        assert all(trial.loss == 1e12 for trial in failed)
        assert result.subset not in [trial.subset for trial in failed]
        reasons = {scored_by.failure(trial.subset) for trial in failed}
        assert reasons == {"Diverged: the training loss became nan", "RuntimeError: out of memory", "its mAP is nan"}
        assert scored_by.failure(result.subset) is None
    assert (tmp_path / "serial" / JOURNAL).read_bytes() == (tmp_path / "two" / JOURNAL).read_bytes()


@pytest.mark.parametrize(
    ("error", "ends", "text"),
    [
        (ConfigError("device cuda was asked for"), ConfigError, "cuda"),
        (UnreadableError("cannot read a.jpg"), UnreadableError, "a.jpg"),
        (OSError(errno.EIO, "Input/output error", "a.jpg"), UnreachableError, "a.jpg"),
        (MemoryError(), WriteError, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), WriteError, "out of memory"),
    ],
)
def test_what_befalls_every_training_ends_the_search(tmp_path, error, ends, text):
    """A training that is recorded as failed is never tried again, so the machine's faults are none of its own."""

    def fit(*_, **__):
        raise error

    with pytest.raises(ends, match=text):
        run_search(tmp_path, in_turn(fit))
    assert not list(tmp_path.rglob("done.json"))


def test_all_that_decides_a_result_is_in_its_key(tmp_path):
    first = objective(tmp_path)
    subset = first.space.subset(np.ones(9, dtype=bool))
    others = [objective(tmp_path, seed=1), objective(tmp_path, learning_rate=0.5), objective(tmp_path, epochs=9)]
    assert len({each.training(subset, each.config.train).key for each in (first, *others)}) == 4
    training = first.training(subset, first.config.train)
    first.score([subset])
    with pytest.raises(StateError, match="another training"):
        replace(training, key="0" * 64).result()


def test_halving_keeps_the_better_half():
    lengths = TrainingConfig(train=STUB.train_config(), rungs=RUNGS).lengths
    assert [config.epochs for config in lengths] == [2, 4, 8]
    table = np.array([[5, 1, 4, 4, np.nan, 3, 2], [50, 0, 40, 60, 0, 30, 0], [500, 0, 400, 300, 0, 0, 0]])
    seen = []

    def train(places, config):
        seen.append((config.epochs, places))
        return table[lengths.index(config)][places]

    # Six have a score: places 0, 2 and 3 go on, then 0 and 3.
    assert halve(7, lengths, train).tolist()[:4] == [500, 1, 40, 300]
    assert seen == [(2, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 2, 3]), (8, [0, 3])]
    seen.clear()
    assert halve(1, lengths, train).tolist() == [500]
    assert seen == [(8, [0])]
    assert np.isnan(halve(2, lengths, lambda places, _: np.full(len(places), np.nan))).all()
    assert halve(0, lengths, train).size == 0


def test_halving_saves_epochs_at_the_same_best(tmp_path):
    (whole, best), (halved, same) = run_search(tmp_path / "whole"), run_search(tmp_path / "halved", rungs=RUNGS)
    # This stub ranks alike at every length, so the swarm is led to the same place, not by the same scores.
    assert same.subset == best.subset
    assert same.score == best.score
    passes = 16 * 8
    assert whole.spent().num_images == 24 * passes
    assert whole.spent().gpu_seconds == pytest.approx(24 * passes * 0.01)
    assert halved.spent().num_images < 0.8 * whole.spent().num_images


def test_a_budget_of_gpu_seconds_pays_for_so_many(tmp_path):
    lengths = TrainingConfig(train=STUB.train_config(), rungs=RUNGS).lengths
    for num in range(1, 40):
        spent = []

        def train(places, config, spent=spent):
            spent.extend([config.epochs] * len(places))
            return np.zeros(len(places))

        halve(num, lengths, train)
        assert halving_cost(num, [2.0, 4.0, 8.0]) == sum(spent)
    one = 16 * 8 * 0.01  # images x epochs x seconds

    def affordable(gpu_seconds, rungs=(1.0,)):
        scored_by = objective(tmp_path, rungs=rungs)
        config = TrainingConfig.model_validate(scored_by.config.model_dump() | {"gpu_seconds": gpu_seconds})
        return replace(scored_by, config=config).affordable(24)

    assert [affordable(factor * one) for factor in (1, 3, 3.9, 24, 99)] == [1, 3, 3, 24, 24]
    assert affordable(12 * one, RUNGS) == 12  # the dearest generation for a subset is that of a single one
    with pytest.raises(ConfigError, match="raise it"):
        affordable(0.9 * one)
    with pytest.raises(ValidationError, match="give seconds_per_image too"):
        TrainingConfig(train=STUB.train_config(), gpu_seconds=5)


def test_rungs_and_targets_that_cannot_be(tmp_path):
    for rungs in [(), (0.5,), (0.5, 0.5, 1.0), (0.0, 1.0), (1.0, 0.5)]:
        with pytest.raises(ValidationError, match="rise to 1"):
            TrainingConfig(train=STUB.train_config(), rungs=rungs)
    short = TrainingConfig(train=STUB.train_config(epochs=2), rungs=(0.1, 0.2, 1.0))
    assert [config.epochs for config in short.lengths] == [1, 2]
    unlabelled = STUB.target().part("validation_query", "query", "gallery")
    with pytest.raises(ConfigError, match="no images in its part validation_gallery"):
        training_objective(short, STUB.space(), STUB.source(), unlabelled, seed=0, folder=tmp_path)


def with_photos(num):
    """The stub target with ``num`` unlabelled training images, and a test part."""
    target = STUB.target()
    rows = target.frame.iloc[np.zeros(num + 2, dtype=int)].reset_index(drop=True)
    parts = pd.Categorical([*["train"] * num, "query", "gallery"], dtype=target.frame["part"].dtype)
    rows = rows.assign(part=parts, path=[f"photo{i}.jpg" for i in range(num + 2)])
    return replace(target, frame=pd.concat([target.frame, rows], ignore_index=True))


def label_free_objective(folder, target, fit=None, **changes):
    def stub(config, train, **more):
        fitted = STUB.stub_fit(config, train, **more)
        metrics = {"label_free": 0.5 * fitted.history[-1].metrics["mAP"]}
        return replace(fitted, history=(replace(fitted.history[-1], metrics=metrics),))

    config = TrainingConfig(train=STUB.train_config(), score="label_free", **changes)
    run = in_turn(fit or stub)
    return training_objective(config, STUB.space(), STUB.source(), target, seed=0, folder=folder, run=run)


def test_without_labels_a_score_must_be_asked_for(tmp_path):
    photos = with_photos(60).part("train", "query", "gallery")
    config = TrainingConfig(train=STUB.train_config())
    with pytest.raises(ConfigError, match=r"no images in its part validation_query.*training\.score=label_free"):
        training_objective(config, STUB.space(), STUB.source(), photos, seed=0, folder=tmp_path)
    few = with_photos(MIN_PHOTOS - 1)
    with pytest.raises(ConfigError, match=f"needs {MIN_PHOTOS} images in the part train.*got {MIN_PHOTOS - 1}"):
        label_free_objective(tmp_path, few)
    with pytest.raises(ValidationError, match="label_free"):
        TrainingConfig(train=STUB.train_config(), score="labels")


def test_a_label_free_score_sees_photos_alone_and_says_so(tmp_path):
    scored_by = label_free_objective(tmp_path, with_photos(3 * MAX_PHOTOS))
    seen = Catalog.read(tmp_path / VALIDATION)
    assert len(seen) == MAX_PHOTOS
    assert set(seen.frame["part"]) == {"train"}
    labelled = objective(tmp_path / "labelled")
    assert (scored_by.unit, labelled.unit) == ("label_free", "mAP")
    assert scored_by.settings()["training"]["score"] == "label_free"
    assert scored_by.settings()["validation"] != labelled.settings()["validation"]
    subset = scored_by.space.subset(np.ones(9, dtype=bool))
    config = scored_by.config.train
    assert (
        scored_by.training(subset, config).key
        != replace(scored_by, config=labelled.config).training(subset, config).key
    )
    np.testing.assert_allclose(scored_by.score([subset]), 0.5 * labelled.score([subset]))
    result = scored_by.training(subset, config).result()
    assert (set(result.metrics), result.failure) == ({"label_free"}, None)
    assert result.metrics["label_free"] == scored_by.score([subset])[0]


def test_a_search_by_a_label_free_score(tmp_path):
    scored_by = label_free_objective(tmp_path, with_photos(60), rungs=RUNGS)
    optimizer = make_optimizer("numpy_swarm", scored_by.space, seed=1, evaluations=24)
    settings = scored_by.settings()
    found = search(scored_by.space, scored_by, optimizer, tmp_path, evaluations=24, config=settings, num_random=0)
    _, by_labels = run_search(tmp_path / "labelled", rungs=RUNGS)
    assert found.subset == by_labels.subset  # this stub's label-free score is half of its mAP
    assert found.score == pytest.approx(by_labels.score / 2)
    assert b'"score":"label_free"' in (tmp_path / JOURNAL).read_bytes().replace(b" ", b"")


def test_a_fit_that_gives_another_score_is_a_failed_training(tmp_path):
    scored_by = label_free_objective(tmp_path, with_photos(60), fit=STUB.stub_fit)
    subset = scored_by.space.subset(np.ones(9, dtype=bool))
    assert np.isnan(scored_by.score([subset])).all()
    assert scored_by.failure(subset) == "its label_free is nan"


class Surrogate:
    """The worth of red alone, as a distance."""

    name, unit, higher_is_better = "redness", "share", False

    def __init__(self, space):
        self.space = space

    def score(self, subsets):
        return np.array([-("red" in subset.values["colour"]) / len(subset.values["colour"]) for subset in subsets])


def test_the_best_of_a_surrogate_are_trained_and_ranked(tmp_path):
    scored_by = objective(tmp_path / "true")
    surrogate = Surrogate(scored_by.space)
    optimizer = make_optimizer("random", scored_by.space, seed=1, evaluations=60)
    found = search(scored_by.space, surrogate, optimizer, tmp_path, evaluations=60, config={}, num_random=0)
    ranking = rank_by_training(CheckConfig(top=4, random=5, seeds=(0, 3)), found.history, surrogate, scored_by)
    assert sorted(each.arm for each in ranking.trained) == [f"random {i}" for i in range(1, 6)] + [
        f"top {i}" for i in range(1, 5)
    ]
    assert len({each.subset for each in ranking.trained}) == 9
    for each in ranking.trained:
        draws = [scored_by.source.take(scored_by.space.sampler.draw(each.subset, seed=seed)) for seed in (0, 3)]
        assert each.mean_ap == pytest.approx(np.mean([STUB.truth(draw) * (1 - 0.5**8) for draw in draws]))
    means = [each.mean_ap for each in ranking.trained]
    assert means == sorted(means, reverse=True)
    top = {each.arm: each.score for each in ranking.trained if each.arm.startswith("top")}
    assert max(top.values()) <= sorted(trial.score for trial in found.history if trial.status == "scored")[3]
    assert ranking.agreement.spearman > 0.3
    assert len(ranking.top_agreement.arms) == 4
    json.dumps(ranking.to_record(), allow_nan=False)
    with pytest.raises(InputError, match="check.random"):
        rank_by_training(CheckConfig(random=500), found.history, surrogate, scored_by)


SCRIPT = """
import runpy, sys
from pathlib import Path
from types import SimpleNamespace
from search.loop import search
from search.optimizers import make_optimizer
from search.objectives.training import TrainingConfig, run_job, training_objective

STUB = SimpleNamespace(**runpy.run_path(sys.argv[2]))
folder = Path(sys.argv[1])

def run(trainings):
    for training in trainings:
        run_job(training, fit=STUB.stub_fit)

objective = training_objective(
    TrainingConfig(train=STUB.train_config(), rungs=(0.25, 0.5, 1.0)), STUB.space(), STUB.source(), STUB.target(),
    seed=0, folder=folder, run=run,
)
print("ready", flush=True)
result = search(
    objective.space, objective, make_optimizer("numpy_swarm", objective.space, seed=1, evaluations=24), folder,
    evaluations=24, config=objective.settings(), num_random=0,
)
print(result.subset.key, result.score, flush=True)
"""


def start(folder):
    folder.mkdir(exist_ok=True)
    environment = {"STUB_LOG": str(folder / "log"), "STUB_SECONDS": "0.05"}
    process = Forked(SCRIPT, [str(folder), str(STUB_FILE)], environment)
    assert process.stdout.readline() == "ready\n"
    return process


def kill_at_random(folder, *, kills, seed):
    """Kills one search ``kills`` times, beginning anew whenever it ends; each one that ended must equal the whole."""
    whole, generator = folder / "whole", random.Random(seed)
    begun = time.monotonic()
    expected = start(whole).communicate()
    lasts = time.monotonic() - begun
    num_trainings = len((whole / "log").read_text().splitlines())
    killed = place = 0
    while killed < kills or (folder / f"cut{place}").exists():
        cut = folder / f"cut{place}"
        process = start(cut)
        if killed < kills and process.wait(generator.uniform(0, 0.4 * lasts)) is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        out = process.communicate()
        if process.returncode == 0:
            assert out == expected
            assert (cut / JOURNAL).read_bytes() == (whole / JOURNAL).read_bytes()
            # At most the training that ran is begun again after a kill.
            assert len((cut / "log").read_text().splitlines()) <= num_trainings + killed
            results = {path.parent.name: path.read_bytes() for path in cut.glob(f"{TRAININGS}/*/done.json")}
            assert results == {path.parent.name: path.read_bytes() for path in whole.glob(f"{TRAININGS}/*/done.json")}
            place += 1
    return place


@pytest.mark.processes
def test_killed_at_random_points(tmp_path):
    assert kill_at_random(tmp_path, kills=1, seed=0) >= 1


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_random_kills(tmp_path):
    assert kill_at_random(tmp_path, kills=50, seed=int(os.environ.get("SEED", "0"))) >= 3


@pytest.mark.parametrize("score", ["mAP", "label_free"])
def test_true_trainings_lead_a_search(tmp_path, score):
    viewpoints = ["0deg", "90deg"]
    people = MiniGPRConfig(num_identities=4, images_per_identity=12, viewpoints=viewpoints, height=48, width=24)
    photos = MiniMarketConfig(
        height=48, width=24, num_train=MIN_PHOTOS, train_identities=8, validation_identities=2, test_identities=1,
        num_distractors=0, num_junk=0,
    )  # fmt: skip
    render_minigpr(people, tmp_path / "source")
    render_minimarket(photos, tmp_path / "target")
    source = Catalog.index(tmp_path / "source", layout="finegpr")
    target = Catalog.index(tmp_path / "target", layout="market1501")
    space = Space.of(source, Budget(images=12, identities=4), seed=0, attributes=["viewpoint", "weather"])
    train = recipe("seconds").model_copy(update={"steps": 2, "batch_size": 8, "device": "cpu"})
    journals = []
    for name in ("a", "b"):
        folder = tmp_path / name
        scored_by = training_objective(
            TrainingConfig(train=train, score=score),
            space,
            source,
            target,
            seed=0,
            folder=folder,
            run=run_in_turn,
        )
        optimizer = make_optimizer("random", space, seed=1, evaluations=2)
        result = search(space, scored_by, optimizer, folder, evaluations=2, config=scored_by.settings(), num_random=0)
        journals.append((folder / JOURNAL).read_bytes())
        assert 0 < result.score <= 1
        assert not list(folder.rglob("*.safetensors"))
    assert journals[0] == journals[1]
