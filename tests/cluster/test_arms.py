"""Arms that take all images: of which values, of whom, and what a run says of arms that are not alike."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cluster import cli
from cluster.run.arms import known_truth, make_arm, searched_space
from cluster.run.config import RunConfig, run_config
from cluster.run.estimates import ArmSize, arm_sizes, trainings
from cluster.settings import load_mapping
from finegpr.catalog import Catalog
from finegpr.subset import Subset
from search.space import Space

RECIPE = "seconds"
BUDGET = 40
IDENTITIES = 10
ARMS = ["random", "all_mmd_rbf", "mean_distance", "all_mean_distance", "true_distribution", "all_true_distribution"]
ARMS += ["all_wrong_illumination", "all_daylight", "everything"]
CONFIG = f"""
name: arms
world:
  source:
    {{num_identities: 14, images_per_identity: 36, viewpoints: [0deg, 90deg, 180deg, 270deg], height: 48, width: 24}}
  target:
    {{height: 48, width: 24, num_train: 12, train_identities: 6, validation_identities: 1, test_identities: 4,
     num_distractors: 2, num_junk: 1, distribution: {{weather: [sunny, clouds, foggy], illumination: [noon, dusk]}}}}
measure: {{weights: random, height: 32, width: 32, images_per_cell: 1, basis_images: 16}}
budget: {{images: {BUDGET}, identities: {IDENTITIES}}}
search: {{evaluations: 60}}
arms: [{", ".join(ARMS)}]
subsets: {{daylight: {{illumination: [forenoon, noon, afternoon]}}}}
train: {{recipe: {RECIPE}, steps: 2, batch_size: 8}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "arms.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("arms") / "run"
    assert cli.run(["run", str(config), "--output", str(root), "--serial"]) == 0
    return root


def manifest(run: Path, arm: str) -> pd.DataFrame:
    return Catalog.read(next(run.glob(f"select/{arm}/*/seed0.parquet"))).frame


def source(run: Path) -> Catalog:
    return Catalog.read(next(run.glob("index/*/source.parquet")))


def people(frame: pd.DataFrame) -> set[int]:
    return set(frame["identity"].tolist())


def inside(frame: pd.DataFrame, subset: Subset) -> pd.DataFrame:
    for attribute, values in subset.values.items():
        frame = frame[frame[attribute].isin(values)]
    return frame


def searched(run: Path, objective: str) -> Subset:
    return Subset.from_json((run / "search" / objective / "subset.json").read_text())


def test_everything_is_every_image_of_the_people_that_random_draws(run: Path) -> None:
    frame, of_random = source(run).frame, people(manifest(run, "random"))
    assert len(of_random) == IDENTITIES
    expected = frame[frame["identity"].isin(of_random)]
    assert manifest(run, "everything")["path"].tolist() == expected["path"].tolist()


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.startswith("all_")])
def test_all_of_a_choice_is_every_image_of_its_values_of_the_people_of_the_arm(arm: str, run: Path) -> None:
    chosen = {
        "all_mmd_rbf": lambda: searched(run, "mmd_rbf"),
        "all_mean_distance": lambda: searched(run, "mean_distance"),
        "all_true_distribution": lambda: Subset(
            {"weather": ["sunny", "clouds", "foggy"], "illumination": ["noon", "dusk"]}
        ),
        "all_wrong_illumination": lambda: Subset(
            {"illumination": sorted(set(source(run).frame["illumination"]) - {"noon", "dusk"})}
        ),
        "all_daylight": lambda: Subset({"illumination": ["forenoon", "noon", "afternoon"]}),
    }[arm]()
    whole = manifest(run, arm)
    assert len(people(whole)) == IDENTITIES
    of_arm = run / "select" / arm.removeprefix("all_")
    if of_arm.exists():
        budgeted = manifest(run, of_arm.name)
        assert len(budgeted) == BUDGET
        assert people(budgeted) == people(whole)
        assert set(budgeted["path"]) < set(whole["path"])
    expected = inside(source(run).frame, chosen)
    expected = expected[expected["identity"].isin(people(whole))]
    assert whole["path"].tolist() == expected["path"].tolist()


def test_a_search_that_only_all_that_matches_asks_for_is_reported_like_any_other(run: Path) -> None:
    assert not (run / "select/mmd_rbf").exists()
    data = json.loads((run / "report.json").read_text())
    assert data["main"] == "mmd_rbf"
    choices = {choice["objective"]: choice["arm"] for choice in data["choices"]}
    assert choices == {"mmd_rbf": "all_mmd_rbf", "mean_distance": "mean_distance"}
    assert "/select/all_mmd_rbf/" in data["files"]["manifest"]
    assert data["files"]["subset"].endswith("search/mmd_rbf/subset.json")
    # Ranks are of arms at equal budget.
    assert {tuple(each["arms"]) for each in data["rank_agreements"]} == {
        ("random", "mean_distance", "true_distribution")
    }


def test_report_and_results_say_how_many_images_of_how_many_people_each_arm_has(run: Path) -> None:
    rows = {row["arm"]: row for row in json.loads((run / "results.json").read_text())}
    data = json.loads((run / "report.json").read_text())
    assert list(rows) == ARMS
    facts = {each["arm"]: each for each in data["arms"]}
    for arm in ARMS:
        frame = manifest(run, arm)
        counts = {"num_images": len(frame), "num_identities": len(people(frame))}
        assert {name: rows[arm][name] for name in counts} == counts
        assert {name: facts[arm][name] for name in counts} == counts
    page = (run / "report.html").read_text()
    for words in ("all that matches mmd_rbf&#39;s choice", "all that matches the truth", "all that matches daylight"):
        assert f"<small> {words}</small>" in page
    assert f"{len(manifest(run, 'all_mmd_rbf'))} are trained on" in page
    takes_all = ", ".join(arm for arm in ARMS if arm.startswith("all_") or arm == "everything")
    assert f"Arms {takes_all} take all images of the 10 identities instead of 40, for as many training steps." in page


def test_whether_arms_show_the_same_people_is_judged(run: Path) -> None:
    check = next(
        each for each in json.loads((run / "report.json").read_text())["checks"] if each["name"] == "People of the arms"
    )
    shown = [people(manifest(run, arm)) for arm in ARMS]
    alike = all(each == shown[0] for each in shown)
    assert check["verdict"] == ("ok" if alike else "warn")
    assert check["figure"].startswith(f"{IDENTITIES} in each arm")


def aost(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, object], str]:
    assert cli.run([*arguments, "--json", "--serial"]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out.splitlines()[-1]), shown.err


def test_the_same_command_draws_and_trains_nothing_again(
    run: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, said = aost(capsys, "run", str(config), "--output", str(run))
    for stage in ("search/mmd_rbf", "select/all_mmd_rbf", "train/all_mmd_rbf/seed0", "select/everything"):
        assert f"{stage}: done before, skipped" in said
    assert told["chosen"] == {"objective": "mmd_rbf", "arm": "all_mmd_rbf", "why": told["chosen"]["why"]}  # type: ignore[index]
    assert cli.run(["compare", str(run)]) == 0
    assert "all_mmd_rbf" in capsys.readouterr().err


def test_the_report_can_be_about_all_that_matches_and_its_model_be_kept(
    run: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    shutil.copytree(run, root)
    settings = ["choose_by=all_mean_distance", "keep=all_mean_distance"]
    told, said = aost(capsys, "run", str(config), "--output", str(root), "--set", *settings)
    assert told["chosen"] == {"objective": "mean_distance", "arm": "all_mean_distance", "why": "choose_by names it"}
    assert "/select/all_mean_distance/" in str(told["next"])
    assert "train/all_mean_distance/seed0: done before, skipped" in said


def test_without_random_and_without_a_budgeted_arm_there_is_nothing_to_rank(
    run: Path, config: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    shutil.copytree(run, root)
    assert (
        cli.run(["run", str(config), "--output", str(root), "--serial", "--set", "arms=[everything,all_mmd_rbf]"]) == 0
    )
    assert json.loads((root / "report.json").read_text())["rank_agreements"] == []


@pytest.fixture
def sizes(run: Path, config: Path) -> Callable[..., tuple[RunConfig, Space, Catalog, dict[str, tuple[int, bool]]]]:
    """Of a changed config: itself, its space, the source, and what ``aost check`` says of every arm's size."""

    def estimate(**changes: object) -> tuple[RunConfig, Space, Catalog, dict[str, tuple[int, bool]]]:
        changed = run_config({**load_mapping(config), **changes}, "arms.yaml")
        catalog = source(run)
        target = Catalog.read(next(run.glob("index/*/target.parquet")))
        space = searched_space(changed, catalog)
        found = arm_sizes(changed, catalog, space, known_truth(changed, catalog, target))
        return changed, space, catalog, {name: (size.num_images, size.at_most) for name, size in found.items()}

    return estimate


def test_estimates_know_the_arms_that_no_search_decides_and_bound_the_others(
    run: Path, sizes: Callable[..., tuple[RunConfig, Space, Catalog, dict[str, tuple[int, bool]]]]
) -> None:
    catalog, found = sizes()[2:]
    for arm, (number, at_most) in found.items():
        images = len(manifest(run, arm))
        assert at_most == (arm in ("all_mmd_rbf", "all_mean_distance"))
        assert images <= number if at_most else images == number, arm
    assert found["all_mmd_rbf"] == (IDENTITIES * 36, True)
    assert sizes(budget={"images": BUDGET, "most": 0.5})[3]["all_mmd_rbf"] == (len(catalog) // 2, True)
    epochs = sizes(train={"recipe": RECIPE, "epochs": 2, "batch_size": 8})[0]
    (small,), (large,) = (
        trainings(epochs, [ArmSize(num_images=number) for _ in ARMS]) for number in (BUDGET, 3 * BUDGET)
    )
    assert (small.number, large.steps) == (len(ARMS), 3 * small.steps)


def test_without_a_number_of_identities_all_arms_have_all_of_them(
    sizes: Callable[..., tuple[RunConfig, Space, Catalog, dict[str, tuple[int, bool]]]],
) -> None:
    config, space, catalog, found = sizes(budget={"images": BUDGET})
    assert found["everything"] == (len(catalog), False)
    truth = {"weather": ("sunny", "clouds", "foggy"), "illumination": ("noon", "dusk")}
    arm = make_arm("all_true_distribution", config, space, truth, {})
    rows = arm.draw(catalog, space, seed=0).frame
    expected = inside(catalog.frame, Subset(truth))
    assert rows["path"].tolist() == expected["path"].tolist()
    assert found["all_true_distribution"] == (len(expected), False)
    assert len(np.unique(rows["identity"])) == 14
