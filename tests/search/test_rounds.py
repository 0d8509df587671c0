import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from finegpr.errors import InputError, StateError
from finegpr.subset import Subset
from search.journal import JOURNAL
from search.loop import search
from search.measured import Measured
from search.objectives import CellObjective, make_objective
from search.optimizers import OPTIMIZERS, make_optimizer
from search.optimizers.proposer import Optimizer
from search.rounds import (
    NUM_WARM,
    ROUNDS,
    Round,
    RoundsConfig,
    RoundsResult,
    WarmStart,
    num_images,
    of_target_images,
    search_in_rounds,
)
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space
from search.testing import CHECKS, TableObjective

EVALUATIONS = 60


@pytest.fixture(scope="module")
def problem() -> tuple[Simulation, Space]:
    """A target of 40 images, and a space of 9 bits, 147 subsets."""
    simulation = simulate((4, 3, 2), seed=3, num_target=40)
    return simulation, Space(simulation.cells, simulation.identity, Budget(images=40, identities=10), seed=0)


def run(problem: tuple[Simulation, Space], folder: Path, **changes: Any) -> RoundsResult:
    simulation, space = problem

    def objective(measured: Measured) -> CellObjective:
        return make_objective("mmd_linear", space, measured)

    def optimizer() -> Optimizer:
        return make_optimizer("random", space, seed=0, evaluations=EVALUATIONS)

    options: dict[str, Any] = {
        "make_objective": objective,
        "make_optimizer": optimizer,
        "evaluations": EVALUATIONS,
        "settings": {"measurements": simulation.measurements.fingerprint(TARGET)},
        "seed": 0,
        "num_random": 0,
        **changes,
    }
    config = options.pop("config", RoundsConfig(stable_rounds=100))
    measured = options.pop("measured", simulation.measured)
    return search_in_rounds(config, space, measured, folder, **options)


@pytest.mark.parametrize(
    ("schedule", "num", "expected"),
    [
        ("once", 13, [13]),
        ("geometric", 13, [1, 2, 4, 8, 13]),
        ("geometric", 16, [1, 2, 4, 8, 16]),
        ("geometric", 1, [1]),
        ("every-image", 4, [1, 2, 3, 4]),
    ],
)
def test_when_the_rounds_are(schedule: Any, num: int, expected: list[int]) -> None:
    assert num_images(schedule, num) == expected


def test_distances_to_some_of_the_target_are_means_over_those(problem: tuple[Simulation, Space]) -> None:
    """Against all pairs: the simulation's sketches are the whole of its images."""
    whole = problem[0].measurements
    images = np.array([3, 4, 11, 30])
    part = of_target_images(problem[0].measured, images).measurements
    for term, block in enumerate(whole.blocks):
        pairs = whole.sketch[:, None, block] - whole.target_sketch[TARGET][None, images, block]
        np.testing.assert_allclose(part.terms[TARGET][:, term], np.square(pairs).sum(axis=2).mean(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(part.target_sketch[TARGET], whole.target_sketch[TARGET][images])
    assert part.num_target == {TARGET: 4}
    # What no image changes: here the spread of the target's images, of which the simulation states none.
    spread = [whole.target_sketch[TARGET][:, block].var(axis=0).sum() for block in whole.blocks]
    of_part = [part.target_sketch[TARGET][:, block].var(axis=0).sum() for block in whole.blocks]
    np.testing.assert_allclose(part.target_constant[TARGET], np.subtract(of_part, spread), rtol=1e-4, atol=1e-5)


def test_all_of_the_target_is_what_was_measured(problem: tuple[Simulation, Space]) -> None:
    """Whatever the sketches miss: terms that they do not explain stay as they were."""
    whole = replace(
        problem[0].measurements,
        target_constant={TARGET: np.arange(6.0)},
        terms={
            TARGET: problem[0].measurements.terms[TARGET] + np.arange(6, dtype=np.float32),
            "other": problem[0].measurements.terms[TARGET],
        },
    )
    same = of_target_images(replace(problem[0].measured, measurements=whole), np.arange(40)).measurements
    np.testing.assert_array_equal(same.terms[TARGET], whole.terms[TARGET])
    np.testing.assert_array_equal(same.target_constant[TARGET], np.arange(6.0))
    assert list(same.terms) == [TARGET]


def test_once_is_a_plain_search(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    simulation, space = problem
    result = run(problem, tmp_path / "rounds", config=RoundsConfig(rounds="once"))
    objective = make_objective("mmd_linear", space, simulation.measured)
    optimizer = make_optimizer("random", space, seed=0, evaluations=EVALUATIONS)
    plain = search(space, objective, optimizer, tmp_path / "plain", evaluations=EVALUATIONS, config={}, num_random=0)
    assert len(result.rounds) == 1
    assert (result.last.subset, result.last.score) == (plain.subset, plain.score)
    assert result.rounds[0].jaccard_last is None
    assert result.rounds[0].jaccard_final == 1
    assert result.num_evaluations == plain.num_evaluations


def test_the_record_says_how_the_choice_moves(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    result = run(problem, tmp_path)
    assert [done.num_target_images for done in result.rounds] == [1, 2, 4, 8, 16, 32, 40]
    assert result.stopped == "all images of the target seen"
    masks = [problem[1].mask(done.subset) for done in result.rounds]
    for place, done in enumerate(result.rounds):
        assert done.jaccard_final == (masks[place] & masks[-1]).sum() / (masks[place] | masks[-1]).sum()
        if place:
            before = masks[place - 1]
            assert done.jaccard_last == (masks[place] & before).sum() / (masks[place] | before).sum()
            assert (done.change == "no change") == (done.jaccard_last == 1) == (done.num_stable > 0)
    assert len({done.subset for done in result.rounds}) > 1
    assert result.rounds[-1].subset == result.last.subset
    assert result.num_evaluations == sum(done.num_evaluations for done in result.rounds)
    first = next(
        place
        for place, done in enumerate(result.rounds)
        if all(later.subset == done.subset for later in result.rounds[place:])
    )
    assert result.stable_since == result.rounds[first].num_target_images
    written = json.loads((tmp_path / ROUNDS).read_text())
    assert written == json.loads(json.dumps(result.to_record()))
    assert Subset(written["rounds"][-1]["subset"]) == result.last.subset
    assert written["stable_since"] == result.stable_since


def test_a_choice_with_more_of_the_target_is_nearer_to_that_with_all(tmp_path: Path) -> None:
    """Mean over 6 problems of the Jaccard index to the last choice, exhaustively searched, grows along the rounds."""
    curves = []
    for seed in range(6):
        simulation = simulate((4, 3, 2), seed=seed, num_target=256)
        space = Space(simulation.cells, simulation.identity, Budget(images=40), seed=0)
        result = run(
            (simulation, space),
            tmp_path / str(seed),
            make_objective=lambda measured, space=space: make_objective("mmd_linear", space, measured),
            make_optimizer=lambda space=space: make_optimizer("exhaustive", space, seed=0, evaluations=1000),
            evaluations=1000,
        )
        curves.append([done.jaccard_final for done in result.rounds])
    mean = np.mean(curves, axis=0)
    assert mean[:3].mean() < mean[3:6].mean() < mean[6:].mean()
    assert mean[7] > 0.8


class Constant(TableObjective):
    """An objective that the target does not change."""


def test_a_stable_choice_ends_the_rounds(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    space = problem[1]
    seen: list[int] = []

    def objective(measured: Measured) -> Constant:
        seen.append(measured.measurements.num_target[TARGET])
        return Constant(space, np.arange(space.num_bits) % 2 == 0)

    options = {"make_objective": objective, "config": RoundsConfig(rounds="every-image", stable_rounds=3)}
    exhaustive: Callable[[], Optimizer] = lambda: make_optimizer("exhaustive", space, seed=0, evaluations=500)  # noqa: E731
    result = run(problem, tmp_path, make_optimizer=exhaustive, evaluations=500, **options)
    assert seen == [1, 2, 3, 4]
    assert [done.num_stable for done in result.rounds] == [0, 1, 2, 3]
    assert result.stopped == "the choice was stable for 3 rounds"
    assert result.stable_since == 1


def test_a_round_starts_from_the_best_of_the_last(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    """With the optimum among what the first round saw, 20 evaluations later find it again."""
    result = run(problem, tmp_path, evaluations=NUM_WARM)
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == [f"round-{index:03d}" for index in range(7)]
    lines = [(tmp_path / name / JOURNAL).read_text().splitlines() for name in folders[:2]]
    first, second = ([json.loads(line) for line in text if '"kind":"trial"' in line] for text in lines)
    best = sorted((trial for trial in first if trial["status"] == "scored"), key=lambda trial: trial["loss"])
    assert [trial["subset"] for trial in second] == [trial["subset"] for trial in best]
    assert all(done.num_evaluations == NUM_WARM for done in result.rounds)


def test_a_search_cut_anywhere_is_resumed_to_the_same_bytes(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    whole = run(problem, tmp_path / "whole")
    files = {path.relative_to(tmp_path / "whole"): path.read_bytes() for path in (tmp_path / "whole").rglob("*.json*")}
    again = run(problem, tmp_path / "whole")
    assert again.to_record() == whole.to_record()
    cut = tmp_path / "cut"
    for index in range(3):
        (cut / f"round-{index:03d}").mkdir(parents=True)
        data = files[Path(f"round-{index:03d}") / JOURNAL]
        (cut / f"round-{index:03d}" / JOURNAL).write_bytes(data if index < 2 else data[: len(data) // 2])
    run(problem, cut)
    for name, data in files.items():
        if name.name in (JOURNAL, ROUNDS):
            assert (cut / name).read_bytes() == data
    with pytest.raises(StateError, match=r"round.seed: was 0, now 1"):
        run(problem, tmp_path / "whole", seed=1)
    other = {"settings": {"measurements": "other"}}
    with pytest.raises(StateError, match=r"measurements: was .* now \"other\""):
        run(problem, tmp_path / "whole", **other)


def test_rounds_report_progress_and_can_be_scored_elsewhere(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    ticks: list[int] = []
    batches: list[int] = []

    def evaluate(objective: Any) -> Any:
        def score(subsets: list[Subset]) -> np.ndarray:
            batches.append(len(subsets))
            return np.asarray(objective.score(subsets))

        return score

    run(problem, tmp_path / "one", evaluate=evaluate, progress=lambda index, _: ticks.append(index))
    assert sorted(set(ticks)) == list(range(7))
    assert sum(batches) == 7 * EVALUATIONS
    run(problem, tmp_path / "two")
    assert (tmp_path / "one" / ROUNDS).read_bytes() == (tmp_path / "two" / ROUNDS).read_bytes()


def test_another_target_is_refused(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target 'duke' was not measured; measured targets: target"):
        run(problem, tmp_path, measured=replace(problem[0].measured, target="duke"))


@pytest.mark.parametrize("settings", [{"rounds": "twice"}, {"stable_rounds": 0}, {"patience": 3}])
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    assert RoundsConfig().rounds == "geometric"
    with pytest.raises(ValidationError):
        RoundsConfig(**settings)


@pytest.mark.parametrize("name", ["random", "swarm"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_warm_start_is_an_optimizer(check: str, name: str, space: Space, tmp_path: Path) -> None:
    if check == "survives_duplicates":
        simulation = simulate((4, 2), seed=0)
        space = Space(simulation.cells, simulation.identity, Budget(images=20), seed=0)
    masks = space.decode(np.random.default_rng(7).normal(size=(7, space.num_bits)))
    given = list(dict.fromkeys(space.subset(mask) for mask in masks))

    def make(space: Space, *, seed: int, evaluations: int) -> WarmStart:
        return WarmStart(OPTIMIZERS[name](space, seed=seed, evaluations=evaluations), given)

    CHECKS[check](make, space, tmp_path)


def test_a_warm_start_leaves_the_other_its_own_proposals(space: Space) -> None:
    given = [space.subset(mask) for mask in space.decode(np.random.default_rng(7).normal(size=(3, space.num_bits)))]
    warm = WarmStart(OPTIMIZERS["pso"](space, seed=0, evaluations=100), given)
    bare = OPTIMIZERS["pso"](space, seed=0, evaluations=100)
    first = warm.ask(2)
    assert [proposal.subset for proposal in first] == given[:2]
    warm.tell([(proposal, 1.0) for proposal in first])
    second = warm.ask(20)
    assert [proposal.subset for proposal in second] == given[2:]
    warm.tell([(proposal, 1.0) for proposal in second])
    for _ in range(3):
        mine, theirs = warm.ask(20), bare.ask(20)
        assert [proposal.subset for proposal in mine] == [proposal.subset for proposal in theirs]
        assert [proposal.id for proposal in mine] == [proposal.id + 3 for proposal in theirs]
        for optimizer, proposals in ((warm, mine), (bare, theirs)):
            optimizer.tell([(p, float(space.mask(p.subset).sum())) for p in proposals])


def test_a_round_is_frozen(problem: tuple[Simulation, Space], tmp_path: Path) -> None:
    done = run(problem, tmp_path, config=RoundsConfig(rounds="once")).rounds[0]
    assert isinstance(done, Round)
    with pytest.raises(AttributeError):
        done.score = 0.0  # type: ignore[misc]
