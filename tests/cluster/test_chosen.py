"""Which search a run is about, whatever the order of its arms; and how long work took by the clock."""

from itertools import permutations

import pytest

from cluster.recipes import train_config
from cluster.run.checks import unbudgeted
from cluster.run.chosen import choose, train_command
from cluster.run.config import RunConfig, run_config
from cluster.run.folder import wall_seconds
from finegpr.errors import ConfigError
from search.analysis.compare import RankAgreement

RECIPE = "seconds"
SEARCHED = ("mean_distance", "mmd_rbf", "attribute_shares")


def config(*arms: str, **settings: object) -> RunConfig:
    folder = {"root": "x", "layout": "folder"}
    mapping = {"name": "x", "source": folder, "target": folder, "budget": {"images": 4}, "train": {"recipe": RECIPE}}
    return run_config({**mapping, "arms": ["random", *arms], **settings}, "x.yaml")


def ranking(objective: str, spearman: float | None, regret: float = 0.0) -> RankAgreement:
    return RankAgreement(
        objective=objective,
        target="short trainings",
        arms=("top 1", "top 2", "random 1"),
        scores=(1.0, 2.0, 3.0),
        truths=(0.3, 0.2, 0.1),
        spearman=spearman,
        kendall=spearman,
        p_value=None,
        best="top 1",
        best_rank=1,
        regret=regret,
    )


def test_the_order_of_the_arms_chooses_nothing() -> None:
    checked = [ranking("mean_distance", 0.2), ranking("mmd_rbf", 0.5), ranking("attribute_shares", 0.9)]
    for arms in permutations(SEARCHED):
        assert choose(config(*arms), ()).objective == "mmd_rbf"
        assert choose(config(*arms, keep=arms[0]), ()).objective == "mmd_rbf"
        assert choose(config(*arms), checked).objective == "attribute_shares"
        assert choose(config(*arms, choose_by="mean_distance"), checked).objective == "mean_distance"
    for arms in permutations(("mean_distance", "frechet", "mmd_posterior")):
        assert choose(config(*arms), ()).objective == "mmd_posterior"
    assert choose(config(*SEARCHED, search={"objective": "mean_distance"}), ()).objective == "mean_distance"


def test_the_reason_is_said() -> None:
    of_check = choose(config(*SEARCHED), [ranking("mmd_rbf", 0.5), ranking("mean_distance", 0.5, regret=0.1)])
    assert of_check.objective == "mmd_rbf"
    assert of_check.why == "the check by true training: best of 2 objectives, Spearman 0.50 over 3 subsets"
    assert "could not rank" in choose(config(*SEARCHED), [ranking("mmd_rbf", None)]).why
    assert "no check by true training" in choose(config(*SEARCHED), ()).why
    assert choose(config(*SEARCHED, choose_by="mmd_rbf"), ()).why == "choose_by names it"


def test_all_that_matches_is_of_a_search_whether_or_not_it_is_an_arm_itself() -> None:
    alone = config("all_mmd_rbf", "all_mean_distance", "mean_distance")
    assert alone.objectives == ("mmd_rbf", "mean_distance")
    assert (alone.arm_of("mmd_rbf"), alone.arm_of("mean_distance")) == ("all_mmd_rbf", "mean_distance")
    assert choose(alone, ()).objective == "mmd_rbf"
    whole = config("all_mean_distance", "mean_distance", "mmd_rbf", choose_by="all_mean_distance")
    assert choose(whole, ()).objective == "mean_distance"
    assert whole.arm_of("mean_distance") == "all_mean_distance"
    assert config("all_mmd_rbf", search={"objective": "mmd_rbf"}, keep="all_mmd_rbf").keep == "all_mmd_rbf"
    short = {"train": {"recipe": RECIPE}, "evaluations": 3}
    assert "training" in config("mmd_rbf", "all_training", training=short).choosers
    assert config("mmd_rbf", "all_checked_mmd_rbf", training=short, check={"top": 1}).objectives == ("mmd_rbf",)


@pytest.mark.parametrize(
    ("arms", "settings", "said"),
    [
        (("mmd_rbf", "all_random"), {}, "random chooses none; name everything, or all_"),
        (("mmd_rbf", "all_everything"), {}, "everything chooses none"),
        (("mmd_rbf", "all_importance"), {}, "importance chooses none"),
        (("all_mmd_rfb", "mmd_rbf"), {}, "unknown arm 'all_mmd_rfb'; did you mean 'all_mmd_rbf'"),
        (("all_all_mmd_rbf", "mmd_rbf"), {}, "unknown arm 'all_all_mmd_rbf'"),
        (("mmd_rbf", "all_training"), {}, "arm training needs short trainings"),
        (("all_true_distribution",), {}, "name an objective to search by"),
        (("mmd_rbf",), {"choose_by": "all_mmd_rbf"}, "choose_by should be evidence or .*got 'all_mmd_rbf'"),
        (("mmd_rbf",), {"keep": "all_mmd_rbf"}, "keep: 'all_mmd_rbf' is not one of the arms"),
        (("mmd_rbf",), {"subsets": {"all_day": {"sky": ["blue"]}}}, "does not begin with wrong_, checked_ or all_"),
    ],
)
def test_what_cannot_be_all_that_matches_is_one_line(
    arms: tuple[str, ...], settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        config(*arms, **settings)


def test_what_arms_that_take_all_differ_in_is_said() -> None:
    assert unbudgeted(config("mmd_rbf")) is None
    of_all = unbudgeted(config("mmd_rbf", "everything"))
    assert of_all == "Arm everything takes all images and identities instead of the budget, for as many training steps."
    budget = {"images": 4, "identities": 3}
    longer = unbudgeted(config("all_mmd_rbf", "everything", budget=budget, train={"recipe": RECIPE, "epochs": 2}))
    assert longer == (
        "Arms all_mmd_rbf, everything take all images of the 3 identities instead of 4, for as many epochs, so for "
        "more steps where there are more images."
    )


def test_an_objective_that_is_not_searched_cannot_be_chosen_by() -> None:
    with pytest.raises(
        ConfigError, match="choose_by should be evidence or one of .*, got 'mmd_rfb'; did you mean 'mmd_rbf'"
    ):
        config(*SEARCHED, choose_by="mmd_rfb")
    with pytest.raises(ConfigError, match="got 'frechet'"):
        config(*SEARCHED, choose_by="frechet")


def test_the_command_that_is_handed_over_trains_as_the_run_did() -> None:
    for changes in (
        {"recipe": "seconds"},
        {"recipe": "paper", "epochs": 2},
        {"recipe": "seconds", "epochs": 3, "flip": 0.0},
    ):
        train = train_config(changes, "x")
        words = [str(word) for word in train_command("m.parquet", train, seed=3, output="model")]  # type: ignore[arg-type]
        given = words[words.index("--set") + 1 :] if "--set" in words else []
        again = {"recipe": words[words.index("--recipe") + 1]} | {
            name: float(value) if name == "flip" else int(value) for name, value in (each.split("=") for each in given)
        }
        assert train_config(again, "x") == train


def test_work_at_the_same_time_is_counted_once() -> None:
    def marker(start: float, end: float) -> dict[str, float]:
        return {"seconds": end - start, "ended": end}

    assert wall_seconds([marker(10, 14), marker(11, 15), marker(20, 21)]) == 6
    assert wall_seconds([marker(10, 20), marker(12, 13)]) == 10
    assert wall_seconds([marker(0, 4), {"seconds": 3.0}]) is None
    assert wall_seconds([]) == 0
