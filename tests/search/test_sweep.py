"""The sweep: its grid, its rows against searches by hand, its table, and what its page says of them."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from finegpr.errors import ConfigError, StateError
from finegpr.storage import write_table
from finegpr.weighing import Terms, Weighing
from search.loop import random_median, search
from search.objectives import OBJECTIVES, make_objective
from search.optimizers import make_optimizer
from search.report.figures import sweep as sweep_figures
from search.report.sweep_page import Cost, chosen_shares, render
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space, SpaceConfig
from search.sweep import SCHEMA, Grid, Ground, SweepConfig, Sweeper, gain, read_sweep, to_table


def make_config(**changes: Any) -> SweepConfig:
    settings: dict[str, Any] = {
        "targets": (TARGET,),
        "objectives": ("mean_distance", "mmd_rbf"),
        "images": (60, 90),
        "identities": (None, 9),
        "bounds": ((0.15, 0.5),),
        "optimizers": ("numpy_swarm", "random"),
        "seeds": (0, 1),
        "evaluations": 30,
        "layer_weights": ((0.2,) * 5,),
    }
    return SweepConfig(**(settings | changes))


def run(config: SweepConfig, ground: Ground) -> list[dict[str, Any]]:
    sweeper = Sweeper(config, ground)
    return [sweeper.row(number, point) for number, point in enumerate(Grid(config))]


@pytest.fixture(scope="module")
def ground(simulation: Simulation) -> Ground:
    return Ground(
        cells=simulation.cells, groups=None, identity=simulation.identity, measurements=simulation.measurements
    )


@pytest.fixture(scope="module")
def frame(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """24 searches with a score, of 36; the others ask for more images or people than there are."""
    path = tmp_path_factory.mktemp("table") / "sweep.parquet"
    write_table(path, to_table(run(make_config(images=(60, 90, 9000)), ground)))
    return read_sweep(path)


def test_grid_is_the_product_of_its_axes_and_objectives_without_weights_have_one_set_of_them() -> None:
    config = make_config(scales=("paper", "standardised"), alphas=(0.9, 0.1, 0.0))
    grid = Grid(config)
    points = list(grid)
    assert len(grid) == len(points) == len(set(points)) == 16 * (2 * 3 + 1)
    rbf = [point for point in points if point.objective == "mmd_rbf"]
    assert {(point.scale, point.alpha) for point in rbf} == {("standardised", 0.9)}
    assert len({replace(point, objective="") for point in points if point.objective != "mmd_rbf"}) == 16 * 6
    # Neighbours share an objective, the costliest thing to make.
    changes = sum(a.alpha != b.alpha or a.scale != b.scale for a, b in pairwise(points))
    assert changes == 6


def test_sample_is_seeded_ordered_and_from_the_grid() -> None:
    whole = list(Grid(make_config()))
    first, again, other = (list(Grid(make_config(sample=10, sample_seed=seed))) for seed in (1, 1, 2))
    assert first == again != other
    assert [whole.index(point) for point in first] == sorted({whole.index(point) for point in first})
    assert list(Grid(make_config(sample=len(whole)))) == whole
    with pytest.raises(ConfigError, match="at most the grid's 32 points, got 33"):
        Grid(make_config(sample=33))
    many = {"seeds": tuple(range(2000)), "images": tuple(range(1, 1001))}
    with pytest.raises(ConfigError, match="set sample"):
        Grid(make_config(**many))
    assert len(list(Grid(make_config(**many, sample=5)))) == 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objectives": ("mmd",)}, "no objective 'mmd'"),
        ({"seeds": (1, 1)}, "seeds should name each value once"),
        ({"optimizers": ("swram",)}, "no optimizer 'swram'"),
        ({"alphas": (0.9, 0.0), "betas": (0.0,)}, "leaves no distance"),
        ({"image": (5,)}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make_config(**changes)


def test_a_row_is_the_search_by_hand(simulation: Simulation, ground: Ground, tmp_path: Path) -> None:
    """With a journal, its own objective and space: what the sweep shares and leaves out changes nothing."""
    rows = run(make_config(), ground)
    for number, point in enumerate(Grid(make_config())):
        budget = Budget(images=point.images, identities=point.identities, least=0.15, most=0.5)
        space = Space(simulation.cells, simulation.identity, budget, seed=point.seed)
        objective = make_objective(point.objective, space, simulation.measured)
        optimizer = make_optimizer(point.optimizer, space, seed=point.seed, evaluations=30)
        expected = search(space, objective, optimizer, tmp_path / str(number), evaluations=30, config={})
        row = rows[number]
        assert (row["subset"], row["score"]) == (expected.subset.key, expected.score)
        assert row["random_median"] == random_median(space, objective.score, num=200, seed=point.seed)
        assert row["gain"] == pytest.approx((row["random_median"] - row["score"]) / abs(row["random_median"]))
        assert row["num_evaluations"] == expected.num_evaluations == 30
        assert row["num_images"] == simulation.cells.images[simulation.cells.mask(expected.subset)].sum()
        assert (row["stopped"], row["error"]) == (expected.stopped, None)


@pytest.mark.parametrize("measured", [1.0, 0.7])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_shared_between_seeds_only_where_the_seed_changes_nothing(name: str, measured: float) -> None:
    simulation = simulate((4, 3), seed=0, measured=measured, num_identities=20, identities_per_cell=4)
    ground = Ground(
        cells=simulation.cells, groups=None, identity=simulation.identity, measurements=simulation.measurements
    )
    shared: dict[str, Any] = {"objectives": (name,), "images": (20,), "identities": (None,), "bounds": ((0.0, 1.0),)}
    config = make_config(**shared, optimizers=("random",))
    alone = [
        Sweeper(make_config(**shared, optimizers=("random",), seeds=(point.seed,)), ground).row(number, point)
        for number, point in enumerate(Grid(config))
    ]
    assert run(config, ground) == alone
    assert all(row["error"] is None for row in alone)


def test_people_and_mixtures_are_swept_too() -> None:
    simulation = simulate((4, 3), seed=0, identity_sizes=(2,))
    ground = Ground(
        cells=simulation.cells,
        groups=simulation.groups,
        identity=simulation.identity,
        measurements=simulation.measurements,
    )
    small: dict[str, Any] = {"objectives": ("mmd_linear",), "images": (20,), "identities": (None,), "seeds": (0,)}
    people = make_config(**small, space=SpaceConfig(identity_attributes=("person0",)))
    assert all("person0" in json.loads(row["subset"]) for row in run(people, ground))
    mixtures = make_config(**small, space=SpaceConfig(levels=3), bounds=((0.0, 1.0),))
    rows = run(mixtures, replace(ground, groups=None))
    assert any(isinstance(of, dict) for row in rows for of in json.loads(row["subset"]).values())
    frame = to_table(rows).to_pandas()
    shares = chosen_shares(frame, mixtures, replace(ground, groups=None))[TARGET]["mmd_linear"]
    assert all(0 < max(of) <= 1 for of in shares.values())


def test_weights_are_those_of_the_paper_s_sum(simulation: Simulation) -> None:
    measurements, layers = simulation.measurements, (0.1, 0.2, 0.3, 0.4, 0.0)
    terms = measurements.terms[TARGET].astype(np.float64)
    expected = 0.7 * sum(weight * terms[:, place] for place, weight in enumerate(layers)) + 0.5 * terms[:, 5]
    changed = Weighing(scale="paper", alpha=0.7, beta=0.5, layer_weights=layers)
    np.testing.assert_allclose(measurements.total(TARGET, changed), expected, rtol=1e-12)
    medians = np.array([2.0, 1.0, 4.0, 0.0, 1.0, 0.5])
    for usual in (Weighing(), Weighing(alpha=0.9, beta=1.0, layer_weights=(0.2,) * 5)):
        found = usual.factors(medians, measurements.of)
        np.testing.assert_array_equal(found, [0.9 * 0.2 / each for each in (2, 1, 4, 1, 1)] + [2.0])


def test_weights_are_shared_evenly_where_nothing_is_said() -> None:
    terms = Terms(style=("a", "b", "c", "d"), content=("e", "f"))
    np.testing.assert_allclose(Weighing(alpha=2.0, beta=3.0).weights(terms), [0.5] * 4 + [1.5] * 2, rtol=1e-15)


def test_weights_of_other_layers_are_refused(ground: Ground) -> None:
    config = make_config(layer_weights=((0.2,) * 5, (0.2,) * 4))
    with pytest.raises(ConfigError, match="4 layer_weights for 5 layers of style; give one for each of style1, style2"):
        Ground.of(config, None, ground.measurements)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_objectives_that_say_so_do_not_see_the_weights(name: str, ground: Ground) -> None:
    config = make_config(objectives=(name,), images=(60,), identities=(None,), optimizers=("random",), seeds=(0,))
    point = Grid(config)[0]
    usual, changed = (
        Sweeper(config, ground).row(0, replace(point, layer_weights=weights))
        for weights in ((0.2,) * 5, (1.0, 0.0, 0.0, 0.0, 0.0))
    )
    assert (usual["random_median"] == changed["random_median"]) == (not OBJECTIVES[name].weighed)


def test_a_search_that_cannot_be_done_is_a_row_with_one_line(frame: pd.DataFrame, ground: Ground) -> None:
    failed = frame[frame["images"] == 9000]
    assert len(frame) == 48
    assert set(np.flatnonzero(frame["error"].notna())) == set(failed.index)
    assert failed["error"].str.contains("the budget asks for 9000 images").all()
    assert failed[["subset", "score", "gain", "num_images", "stopped"]].isna().all(axis=None)
    few = run(make_config(images=(5,), identities=(9,), seeds=(0,)), ground)
    assert {row["error"] for row in few} == {
        "the budget: Value error, identities should be at most images, got 9 and 5"
    }
    paper = run(make_config(scales=("paper",), objectives=("mmd_rbf",), images=(60,), seeds=(0,)), ground)
    assert all("mmd_rbf divides each term by its median" in row["error"] for row in paper)


def test_gain_is_above_0_where_better_in_either_direction() -> None:
    assert gain(1.0, 4.0, higher_is_better=False) == 0.75
    assert gain(1.0, -2.0, higher_is_better=False) == -1.5
    assert gain(6.0, 4.0, higher_is_better=True) == 0.5
    assert gain(1.0, None, higher_is_better=False) is gain(1.0, 0.0, higher_is_better=False) is None


def test_table_comes_back_and_another_schema_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    assert list(frame.columns) == SCHEMA.names
    assert frame["point"].tolist() == list(range(48))
    assert frame["layer_weights"][0] == (0.2,) * 5
    assert frame["identities"][:12].isna().sum() == 6
    for field, wrong in (("score", pa.string()), ("subset", None)):
        names = [each for each in SCHEMA if each.name != field]
        schema = pa.schema([*names, (field, wrong)] if wrong else names)
        write_table(tmp_path / "wrong.parquet", pa.Table.from_pylist([], schema=schema))
        with pytest.raises(StateError, match=f"wrong.parquet: column {field} should be"):
            read_sweep(tmp_path / "wrong.parquet")


def test_shares_of_searches_are_counted(frame: pd.DataFrame, ground: Ground) -> None:
    shares = chosen_shares(frame, make_config(images=(60, 90, 9000)), ground)
    assert list(shares) == [TARGET]
    for objective, of in shares[TARGET].items():
        keys = frame.loc[(frame["objective"] == objective) & frame["subset"].notna(), "subset"]
        for attribute in ground.cells.attributes:
            counted = [sum(value in json.loads(key)[attribute.name] for key in keys) for value in attribute.values]
            np.testing.assert_allclose(of[attribute.name], np.array(counted) / len(keys))


def test_heat_map_has_the_medians_and_its_texts_stand_where_their_colours_do(frame: pd.DataFrame) -> None:
    axes = {"objective": ["mean_distance", "mmd_rbf"], "images": ["60", "90", "9000"]}
    labelled = frame.assign(images=frame["images"].astype(str))
    figure = sweep_figures.gains(labelled, "objective", "images", axes, key="gain/0")
    assert figure is not None
    trace = figure.spec["data"][0]
    assert trace["x"] == ["mean_distance (D_total)", "mmd_rbf (squared MMD)"], "two kinds of score"
    for row, images in zip(trace["z"], trace["y"], strict=True):
        for value, objective in zip(row, axes["objective"], strict=True):
            part = frame[(frame["objective"] == objective) & (frame["images"] == int(images))]["gain"].dropna()
            assert value == (pytest.approx(100 * part.median(), abs=0.01) if len(part) else None)
    # Plotly writes texts by the order of the data: it has to be the order of the axis.
    assert trace["y"] == figure.spec["layout"]["yaxis"]["categoryarray"] == ["9000", "90", "60"]


def test_front_is_what_no_other_search_beats(frame: pd.DataFrame) -> None:
    figures = sweep_figures.fronts(frame)
    assert [figure.title for figure in figures] == [f"mean_distance, {TARGET}", f"mmd_rbf, {TARGET}"]
    for figure, objective in zip(figures, ("mean_distance", "mmd_rbf"), strict=True):
        part = frame[(frame["objective"] == objective) & frame["score"].notna()]
        pairs = set(zip(part["num_images"], part["score"], strict=True))
        beaten = {a for a in pairs for b in pairs if a != b and b[0] <= a[0] and b[1] <= a[1]}
        line = figure.spec["data"][1]
        assert list(zip(line["x"], line["y"], strict=True)) == sorted(pairs - beaten)


UNITS = {"mean_distance": "D_total", "mmd_rbf": "squared MMD"}


def test_page_says_what_was_swept_what_failed_and_asks_for_nothing(frame: pd.DataFrame, ground: Ground) -> None:
    config = make_config(images=(60, 90, 9000))
    page = render(
        frame, config=config, ground=ground, cost=Cost(seconds=75.0, num_searches=48, num_of_grid=96, chunk=32)
    )
    assert "48 searches: 2 objectives, 1 target, 2 optimizers" in page
    medians = frame.groupby("objective")["gain"].median()
    gains = [f"{name} {100 * medians[name]:.1f} % of {unit}" for name, unit in UNITS.items()]
    assert f"of the searches; median gain: {', '.join(gains)}" in page, "neither is called the larger one"
    assert all(f'<td data-label="its score is">{unit}</td>' in page for unit in UNITS.values())
    assert "16 of 48 searches ended without a subset" in page
    assert "the budget asks for 9000 images" in page
    assert "48 of the grid&#39;s 96" in page or "48 of the grid's 96" in page
    assert "1 min 15 s of the processor" in page
    drawn = set(re.findall(r'data-figure="([^"]+)"', page))
    specs = json.loads(page.split('id="figures">', 1)[1].split("</script>", 1)[0])
    assert drawn == set(specs)
    assert {key.split("/")[0] for key in drawn} == {"gain", "stable", "front"}
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page.split("<script")[0])


def test_page_of_a_sweep_in_which_all_failed(ground: Ground, tmp_path: Path) -> None:
    config = make_config(images=(9000,), seeds=(0,), objectives=("mmd_rbf",))
    write_table(tmp_path / "sweep.parquet", to_table(run(config, ground)))
    cost = Cost(seconds=0.1, num_searches=4, num_of_grid=4, chunk=32)
    page = render(read_sweep(tmp_path / "sweep.parquet"), config=config, ground=ground, cost=cost)
    assert "4 of 4 searches ended without a subset" in page
    assert 'data-figure="' not in page.split("<script")[0]
