"""Health checks at both sides of their limits; fairness against counting and brute force; the landscape of a search."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from finegpr.attributes import Attribute
from finegpr.catalog import Catalog
from finegpr.subset import Subset
from search.analysis import health
from search.analysis.fairness import FairnessConfig, identity_shifts, too_few, violations
from search.analysis.health import CHECKS, Evidence, run_checks
from search.analysis.landscape import best_subsets, slices
from search.analysis.records import AttributeShares, Check, Choice, Effect, IdentityShift, Round, StyleShare
from search.objectives.attribute_shares import CameraGap
from search.objectives.surrogate import SplitScore, SurrogateReport
from search.report.explain_text import checks_summary, fixed_values, settled, worst_first
from search.space import Space
from search.trial import Trial

RANDOM = tuple(np.random.default_rng(0).normal(1.0, 0.1, 200).tolist())


def score(split: str, r2: float, ridge: float) -> SplitScore:
    return SplitScore(
        quantity="D",
        split=split,
        r2=r2,
        spearman=0.9,
        bias=0.0,
        ridge_r2=ridge,
        ridge_spearman=0.9,
        ceiling=0.9,
        num_held_out=10,
    )


def report(r2: float = 0.9, ridge: float = 0.8, *, num_unmeasured: int = 5, trusted: bool = True) -> SurrogateReport:
    scores = tuple(score(split, r2, ridge) for split in ("cells", "value pairs"))
    return SurrogateReport(scores=scores, trusted=trusted, warnings=(), num_cells=100, num_unmeasured=num_unmeasured)


def effect(attribute: str, value: str, low: float | None, high: float | None) -> Effect:
    middle = None if low is None or high is None else (low + high) / 2
    return Effect(quantity="q", attribute=attribute, value=value, effect=middle, low=low, high=high)


def shift(*, manifest: tuple[float, ...] = (0.5, 0.5), distance: float = 0.0) -> IdentityShift:
    return IdentityShift(
        attribute="hair",
        values=("long", "short"),
        source=(0.5, 0.5),
        manifest=manifest,
        low=(0.4, 0.4),
        high=(0.6, 0.6),
        total_variation=distance,
        by_chance=0.1,
    )


WEATHER = (
    AttributeShares(
        name="weather",
        values=("sunny", "foggy"),
        level="image",
        circular=False,
        chosen=(False, True),
        source=(0.5, 0.5),
        manifest=(0.0, 1.0),
        target=None,
        target_kind="unknown",
    ),
)
CHOICE = Choice(
    objective="mmd_rbf",
    unit="squared MMD",
    higher_is_better=False,
    optimizer="swarm",
    arm="mmd_rbf",
    score=0.2,
    random_score=1.0,
    num_images=100,
    num_evaluations=400,
    num_failed=0,
    attributes=(),
    agreements=(),
    history=(0.9,) * 99 + (0.2,) + (0.5,) * 300,
    random_history=RANDOM,
)
HEALTHY = Evidence(
    choice=CHOICE,
    num_proposals=500,
    num_duplicates=100,
    share=0.2,
    least=0.0,
    most=1.0,
    budget_share=0.05,
    num_identities=(2, 2, 3),
    off_basis={"relu1_1": 0.01, "content": 0.1},
    flips=(effect("weather", "sunny", 0.1, 0.2), effect("weather", "foggy", -0.1, 0.2)),
    surrogate=report(),
    style_shares=(StyleShare(target="t", scale="standardised", share=0.6),),
    shifts=(shift(),),
    rounds=(Round(share=0.3, expected_regret=0.001, certainty=0.9, overlap=1.0),),
    people={"random": frozenset({1, 2}), "mmd_rbf": frozenset({1, 2})},
    camera_gap=CameraGap(shift=0.2, spread=1.0, moved=0.05, attribute="weather"),
)


def test_a_healthy_search_passes_every_check() -> None:
    checks = run_checks(HEALTHY)
    assert len(checks) == len(CHECKS) == len({check.name for check in checks})
    assert [check.verdict for check in checks] == ["ok"] * len(checks)
    for check in checks:
        assert check.sentence.endswith(".")
        assert check.figure


def test_what_was_not_looked_into_is_not_judged() -> None:
    bare = replace(
        HEALTHY,
        choice=replace(CHOICE, history=(), random_history=(), num_evaluations=0),
        num_identities=(),
        off_basis={},
        flips=(),
        surrogate=None,
        style_shares=(),
        shifts=(),
        rounds=(),
        people={},
        camera_gap=None,
    )
    assert [check.name for check in run_checks(bare)] == ["Size of the choice"]


def choice(**changes: object) -> dict[str, object]:
    return {"choice": replace(CHOICE, **changes)}


def rounds(expected_regret: float) -> tuple[Round, ...]:
    return (Round(share=0.5, expected_regret=expected_regret, certainty=0.1, overlap=1.0),)


def gap(shift: float) -> dict[str, object]:
    return {"camera_gap": CameraGap(shift=shift, spread=0.8, moved=0.31, attribute="weather")}


def people(**of_arm: range) -> dict[str, object]:
    return {"people": {arm: frozenset(each) for arm, each in of_arm.items()}}


@pytest.mark.parametrize(
    ("judge", "changes", "verdict", "words"),
    [
        (health.better_than_random, choice(score=min(RANDOM)), "warn", "1 of 200"),
        (health.better_than_random, choice(score=sorted(RANDOM)[9]), "warn", "10 of 200"),
        (health.better_than_random, choice(score=sorted(RANDOM)[10]), "fail", "11 of 200"),
        (health.better_than_random, choice(score=2.0, higher_is_better=True), "ok", "all 200"),
        (health.better_than_random, choice(score=0.2, higher_is_better=True), "fail", "200 of 200"),
        (health.search_converged, {"num_duplicates": 301}, "warn", "stagnated"),
        (health.search_converged, {"num_duplicates": 300}, "ok", "last 300 evaluations"),
        (health.search_converged, choice(history=(0.9,) * 96 + (0.2,) + (None,) * 3), "warn", "3 evaluations before"),
        (health.search_converged, choice(history=(0.9,) * 94 + (0.2,) + (0.2,) * 5), "ok", "last 5 evaluations"),
        (health.evaluations_succeeded, choice(num_failed=5), "warn", "journal"),
        (health.evaluations_succeeded, choice(num_failed=4), "ok", "Nearly"),
        (health.camera_gap, gap(0.34), "ok", "looks like the photos; aligning the photos moved"),
        (health.camera_gap, gap(0.35), "warn", "shares of weather by 0.31"),
        (health.camera_gap, gap(0.79), "warn", "quite like"),
        (health.camera_gap, gap(0.8), "fail", "hardly known"),
        (health.within_bounds, {"most": 0.203}, "warn", "budget.most"),
        (health.within_bounds, {"most": 0.21}, "ok", "no bound"),
        (health.within_bounds, {"least": 0.198}, "warn", "budget.least"),
        (health.within_bounds, {"budget_share": 0.2}, "warn", "images budget"),
        (
            health.within_bounds,
            choice(attributes=WEATHER)
            | {"flips": (effect("weather", "sunny", 0, 1), replace(effect("weather", "foggy", 0, 1), allowed=False))},
            "warn",
            "no value leave",
        ),
        (health.values_have_effect, {"flips": (effect("scene", "a", -1, 1),)}, "warn", "scene"),
        (health.enough_identities, {"num_identities": (1, 1, 0)}, "fail", "No cell"),
        (health.enough_identities, {"num_identities": (1, 1, 2, 0)}, "warn", "3 of 4 cells"),
        (health.surrogate_beats_ridge, {"surrogate": report(0.7, 0.8, trusted=False)}, "warn", "by the ridge"),
        (health.surrogate_beats_ridge, {"surrogate": report(-0.2, -0.1, trusted=False)}, "fail", "no better"),
        (health.surrogate_beats_ridge, {"surrogate": report(0.1, 0.8, num_unmeasured=0)}, "ok", "Every cell"),
        (health.surrogate_beats_ridge, {"surrogate": report(0.44, 0.1)}, "warn", "below half of the 0.90"),
        (health.surrogate_beats_ridge, {"surrogate": report(0.46, 0.1)}, "ok", "5 cells of 100"),
        (health.measured_enough, {"rounds": rounds(0.05)}, "warn", "that much"),
        (health.measured_enough, {"rounds": rounds(0.2)}, "fail", "that much"),
        (
            health.style_counts,
            {"style_shares": (StyleShare(target="t", scale="paper", share=5e-6),)},
            "warn",
            "content alone",
        ),
        (
            health.style_counts,
            {"style_shares": (StyleShare(target="t", scale="paper", share=0.995),)},
            "warn",
            "style alone",
        ),
        (health.sketches_hold, {"off_basis": {"content": 0.3}}, "warn", "larger"),
        (health.same_people, people(a=range(20), b=range(18)), "fail", "Fewer people in b than in a"),
        (health.same_people, people(a=range(20), b=range(19), c=range(20)), "warn", "Fewer people in b than in a, c"),
        (health.same_people, people(a=range(20), b=range(1, 21)), "warn", "is replaced there"),
        (health.same_people, people(a=range(20), b=range(20)), "ok", "the same people"),
        (health.people_kept, {"shifts": (shift(manifest=(1.0, 0.0)),)}, "fail", "hair short, which"),
        (health.people_kept, {"shifts": (replace(shift(manifest=(1.0, 0.0)), low=(0.4, 0.0)),)}, "warn", "so few"),
        (health.people_kept, {"shifts": (shift(distance=0.2), shift(distance=0.2))}, "warn", "further"),
        (health.people_kept, {"shifts": (shift(distance=0.2), *(shift(),) * 12)}, "warn", "hair shifted further"),
        (health.people_kept, {"shifts": (shift(distance=0.09),) * 13}, "ok", "No value vanished"),
    ],
)
def test_each_check_on_either_side_of_its_limit(judge, changes, verdict, words) -> None:
    check = judge(replace(HEALTHY, **changes))
    assert (check.verdict, words in check.sentence) == (verdict, True), check


def test_the_lead_over_random_is_counted_in_their_standard_deviations() -> None:
    check = health.better_than_random(HEALTHY)
    assert check.figure == f"{(np.mean(RANDOM) - 0.2) / np.std(RANDOM, ddof=1):.1f} standard deviations better"


def test_the_words_beside_the_checks() -> None:
    ok, warn, fail = (Check(name=name, verdict=name, sentence=".", figure="") for name in ("ok", "warn", "fail"))
    assert worst_first((ok, warn, fail, ok)) == [fail, warn, ok, ok]
    assert checks_summary((ok, ok)) == "All 2 checks of the search are passed."
    assert checks_summary((ok, warn, fail)) == "1 of 3 checks of the search are passed; 1 failed and 1 asks for a look."
    assert checks_summary((warn, warn)) == "0 of 2 checks of the search are passed; 2 ask for a look."
    assert fixed_values((effect("a", "x", None, None), effect("a", "y", 0, 1))) == "a x"


def test_settled_says_since_when_the_choice_is_the_same() -> None:
    overlaps = (1.0, 0.5, 1.0, 1.0)
    found = tuple(
        Round(share=0.1 * (1 + turn), expected_regret=0, certainty=1, overlap=overlap)
        for turn, overlap in enumerate(overlaps)
    )
    assert settled(found).endswith("in 4 rounds; the choice is the same since round 3.")
    assert settled(found[:1]) == "10.0 % of the images were measured in 1 round."


HAIR = Attribute(name="hair", values=("long", "short", "none"), level="identity")
BAG = Attribute(name="bag", values=("yes", "no"), level="identity")


def people_catalog(hair: list[str | None], bag: list[str], images: list[int]) -> Catalog:
    """Person i + 1 has images[i] images; then a distractor and a junk image, which are never drawn."""
    identity = np.concatenate([np.repeat(np.arange(1, len(hair) + 1), images), [0, -1]])
    frame = pd.DataFrame({"path": [f"{row}.jpg" for row in range(len(identity))], "identity": identity})
    frame["camera"], frame["part"] = 0, "train"
    for attribute, values in ((HAIR, hair), (BAG, bag)):
        column = [value for value, num in zip(values, images, strict=True) for _ in range(num)] + [
            attribute.values[0]
        ] * 2
        frame[attribute.name] = pd.Categorical(column, categories=attribute.values)
    return Catalog(
        frame=frame,
        root=None,
        title="people",
        layout="made up",
        attributes=(HAIR, BAG),
        rejected=pd.DataFrame({"path": [], "reason": []}),
    )


def test_shares_and_total_variation_are_counted_by_hand() -> None:
    source = people_catalog(["long", "long", "short", None], ["yes", "no", "no", "no"], [4, 4, 2, 10])
    manifest = source.take(np.flatnonzero(source.frame["identity"].isin([1, 3])))
    found = {each.attribute: each for each in identity_shifts(source, manifest, seed=0, draws=50)}
    hair = found["hair"]
    assert hair.values == ("long", "short")
    assert hair.source == pytest.approx((0.8, 0.2))
    assert hair.manifest == pytest.approx((4 / 6, 2 / 6))
    assert hair.total_variation == pytest.approx(0.8 - 4 / 6)
    assert hair.vanished == ()
    only = source.take(np.flatnonzero(source.frame["identity"].isin([3])))
    assert {each.attribute: each.vanished for each in identity_shifts(source, only, seed=0, draws=5)} == {
        "hair": ("long",),
        "bag": ("yes",),
    }


def test_what_chance_gives_is_that_of_all_draws() -> None:
    """Four of eight people, one image each: all 70 sets by brute force."""
    has_bag = [True, True, False, False, False, False, False, False]
    source = people_catalog(["long"] * 8, ["yes" if each else "no" for each in has_bag], [3] * 8)
    rows = [3 * person for person in (0, 1, 2, 3)]
    (bag,) = identity_shifts(source, source.take(rows), seed=0, draws=4000)
    shares = np.array([np.mean([has_bag[person] for person in drawn]) for drawn in combinations(range(8), 4)])
    assert bag.by_chance == pytest.approx(np.percentile(np.abs(shares - 0.25), 95))
    assert (bag.low[0], bag.high[0]) == pytest.approx(tuple(np.percentile(shares, (2.5, 97.5))))
    assert bag.total_variation == pytest.approx(0.25)
    assert not bag.beyond_chance


def test_of_many_attributes_chance_shifts_any_of_them_in_one_draw_of_twenty() -> None:
    """Twelve attributes that have nothing to do with the choice; the table and the check go by the same rule."""
    random = np.random.default_rng(0)
    attributes = tuple(Attribute(name=f"a{number}", values=("x", "y", "z"), level="identity") for number in range(12))
    frame = people_catalog(["long"] * 60, ["yes"] * 60, [2] * 60).frame.drop(columns=["hair", "bag"])
    codes = random.integers(0, 3, (len(attributes), 200))
    for attribute, of in zip(attributes, codes, strict=True):
        people = frame["identity"].clip(lower=0).to_numpy()
        frame[attribute.name] = pd.Categorical.from_codes(of[people], list(attribute.values))
    source = replace(people_catalog(["long"] * 60, ["yes"] * 60, [2] * 60), frame=frame, attributes=attributes)
    found = 0
    for turn in range(100):
        drawn = random.choice(np.arange(1, 61), 20, replace=False)
        manifest = source.take(np.flatnonzero(frame["identity"].isin(drawn)))
        shifts = identity_shifts(source, manifest, seed=turn, draws=400)
        beyond = [each for each in shifts if each.beyond_chance]
        assert {each.attribute for each in beyond} == {
            each.attribute for each in shifts if each.total_variation > each.by_chance
        }
        check = health.people_kept(replace(HEALTHY, shifts=shifts))
        assert check is not None
        assert (check.verdict == "warn") == bool(beyond)
        found += bool(beyond)
    assert 0 <= found <= 11, "one rule at 5 %, not one of each attribute, of which 12 give 46 %"


def test_all_people_evenly_leaves_nothing_to_chance() -> None:
    source = people_catalog(["long", "short"] * 5, ["yes", "no"] * 5, [4] * 10)
    manifest = source.take(np.arange(0, 40, 2))
    for each in identity_shifts(source, manifest, seed=0, draws=50):
        assert (each.total_variation, each.by_chance) == pytest.approx((0, 0))
        assert not each.beyond_chance


def test_the_guard_asks_for_a_part_of_each_share_of_the_source() -> None:
    source = np.array([0.8, 0.2, 0.0])
    below = too_few(source, np.array([[0.99, 0.01, 0.0], [0.991, 0.009, 0.0]]), least_share=0.05)
    assert below.tolist() == [[False, False, False], [False, True, False]]
    found = violations((shift(manifest=(0.99, 0.01)), shift(), shift(manifest=(0.0, 1.0))), least_share=0.05)
    assert [(each.value, each.manifest) for each in found] == [("long", 0.0), ("short", 0.01)]
    assert str(found[1]) == "hair short has 1.00% of the images, at least 2.50% expected (50.00% of the source)"
    with pytest.raises(ValidationError):
        FairnessConfig(least_share=0.0)


def trial(index: int, subset: Subset, score: float | None, status: str = "scored") -> Trial:
    return Trial(index=index, generation=0, proposal=index, subset=subset, status=status, score=score, loss=0.0)


def test_best_subsets_are_distinct_and_in_order(space: Space) -> None:
    masks = space.decode(np.random.default_rng(0).uniform(-1, 1, (30, space.num_bits)))
    values = np.random.default_rng(1).permutation(30).astype(float)
    history = [
        trial(at, space.subset(mask), float(value)) for at, (mask, value) in enumerate(zip(masks, values, strict=True))
    ]
    history += [replace(history[3], status="duplicate"), trial(31, history[0].subset, None, "failed")]
    found = best_subsets(history, higher_is_better=False, num=5)
    assert [each.score for each in found] == [0, 1, 2, 3, 4]
    assert Subset(found[0].values) == history[int(values.argmin())].subset
    assert [each.score for each in best_subsets(history, higher_is_better=True, num=2)] == [29, 28]


def test_slices_split_the_scores_by_each_value(space: Space) -> None:
    masks = space.decode(np.random.default_rng(0).uniform(-1, 1, (40, space.num_bits)))
    masks[:, 0] = True
    scores = np.random.default_rng(1).random(40)
    history = [trial(at, space.subset(mask), float(scores[at])) for at, mask in enumerate(masks)]
    found = slices(history, space)
    assert len(found) == space.num_bits
    assert found[0].outside is None
    for bit, each in enumerate(found[1:], start=1):
        assert each.inside == pytest.approx(np.percentile(scores[masks[:, bit]], (5, 25, 50, 75, 95)))
        assert each.outside == pytest.approx(np.percentile(scores[~masks[:, bit]], (5, 25, 50, 75, 95)))
    assert slices([], space) == ()
