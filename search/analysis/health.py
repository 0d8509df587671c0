"""Health checks: what would make a reader distrust a search. One small function each, in a registry.

A check reads the evidence and gives its verdict, or None where the run holds nothing to judge.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median, stdev

from finegpr.measuring.results import MAX_OFF_BASIS
from search.analysis.records import Check, Choice, Effect, IdentityShift, Round, StyleShare
from search.analysis.words import counted, number, percent
from search.objectives.attribute_shares import CameraGap
from search.objectives.surrogate import UNSEEN, SurrogateReport

MANY_AS_GOOD = 0.05  # of random subsets
WELL_PREDICTED = 0.5  # of the R2 that measurement noise allows
STYLE = (0.01, 0.99)
NEAR_A_BOUND = 0.02  # relative
MANY_DUPLICATES = 0.6
STILL_IMPROVING = 0.05  # of the evaluations
MANY_FAILED = 0.01
LITTLE_GAP, LARGE_GAP = 0.01, 0.1
NEARLY_ALL_PEOPLE = 0.95
CAMERA_GAP = (0.35, 0.8)
"""Shifts from which shares rest on the alignment, and from which they cannot be relied on. On the planted targets that
the method was chosen by (results/recovery.md), as a pretrained EfficientNet-Lite0 sees them, it was 0.1 to 0.3 with no
gap, 0.5 to 0.7 through other cameras, and 0.8 to 1.8 through much stronger ones, where the shares were about as wrong
as the source's own. An untrained VGG-19 sees less of a gap: 0.1 to 0.3, and 0.2 to 0.6."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the checks read, of the search that the report is about.

    ``num_evaluations`` subsets were scored or failed, out of ``num_proposals`` with ``num_duplicates``. ``share`` of
    the source's drawable images is in the choice, ``least`` and ``most`` are its bounds and ``budget_share`` what is
    trained on, all in [0, 1]. ``num_identities``: measured people in each cell of the choice. ``off_basis``: share of
    the images' squared norms that the sketches miss, by term. ``flips``: effects of single flips of the choice.
    ``camera_gap``: between the target's photos and the source, if an objective has looked.
    ``people``: the identities that every arm trains on, by its name.
    """

    choice: Choice
    num_proposals: int
    num_duplicates: int
    share: float
    least: float
    most: float
    budget_share: float
    num_identities: tuple[int, ...]
    off_basis: Mapping[str, float]
    flips: tuple[Effect, ...]
    surrogate: SurrogateReport | None
    style_shares: tuple[StyleShare, ...]
    shifts: tuple[IdentityShift, ...]
    rounds: tuple[Round, ...]
    people: Mapping[str, frozenset[int]]
    camera_gap: CameraGap | None = None


def surrogate_beats_ridge(evidence: Evidence) -> Check | None:
    """Trees should find what main effects cannot, or the ridge would do."""
    name, report = "Surrogate against a ridge", evidence.surrogate
    if report is None or not report.scores:
        return None
    trees, ridge = (fmean(report.mean_r2(split)[at] for split in UNSEEN) for at in (0, 1))
    figure = f"R² {trees:.2f}, ridge {ridge:.2f}"
    if report.num_unmeasured == 0:
        sentence = "Every cell was measured, so no score rests on a prediction."
        return Check(name=name, verdict="ok", sentence=sentence, figure=figure)
    rests = f"{counted(report.num_unmeasured, 'cell')} of {report.num_cells} are predicted"
    if max(trees, ridge) <= 0:
        sentence = f"{rests}, and no better than by the mean of all cells."
        return Check(name=name, verdict="fail", sentence=sentence, figure=figure)
    if not report.trusted:
        sentence = f"{rests}, by the ridge, because the trees do not beat it on unseen cells and pairs of values."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    held_out = [score for score in report.scores if score.split == "cells"]
    possible = fmean(1.0 if score.ceiling is None else score.ceiling for score in held_out)
    if report.mean_r2("cells")[0] < WELL_PREDICTED * possible:
        sentence = f"{rests}, with an R² on unseen cells below half of the {possible:.2f} that noise allows."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = f"{rests}, by trees that beat the ridge on unseen cells and pairs of values."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def better_than_random(evidence: Evidence) -> Check | None:
    """The choice should be better than random subsets under the same budget, most of which are no search at all."""
    choice = evidence.choice
    random = [score for score in choice.random_history if score is not None]
    if len(random) < 2 or (spread := stdev(random)) == 0:
        return None
    sign = 1 if choice.higher_is_better else -1
    lead = sign * (choice.score - fmean(random)) / spread
    as_good = sum(sign * score >= sign * choice.score for score in random)
    name = "Choice against random subsets"
    figure = f"{number(round(lead, 1))} standard deviations better"
    if as_good == 0:
        sentence = f"It is better than all {len(random)} random subsets under the same budget."
        return Check(name=name, verdict="ok", sentence=sentence, figure=figure)
    sentence = f"{as_good} of {len(random)} random subsets under the same budget are at least as good."
    many = as_good > MANY_AS_GOOD * len(random)
    return Check(name=name, verdict="fail" if many else "warn", sentence=sentence, figure=figure)


def values_have_effect(evidence: Evidence) -> Check | None:
    """An attribute of which no value can be told from having no effect was chosen by chance."""
    known = [effect for effect in evidence.flips if effect.holds_zero is not None]
    if not known:
        return None
    idle = [
        attribute
        for attribute, effects in groupby(known, key=lambda effect: effect.attribute)
        if all(effect.holds_zero for effect in effects)
    ]
    clear = sum(not effect.holds_zero for effect in known)
    name, figure = "Attributes without effect", f"{clear} of {counted(len(known), 'value')} clear of 0"
    if idle:
        sentence = f"No value of {', '.join(idle)} moves the score beyond the interval over people."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = "Every attribute has a value that moves the score beyond the interval over people."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def style_counts(evidence: Evidence) -> Check | None:
    """Style and content should both weigh something."""
    if not evidence.style_shares:
        return None
    worst = max(evidence.style_shares, key=lambda each: abs(each.share - 0.5))
    name, figure = "Share of style in the distance", percent(worst.share)
    if STYLE[0] <= worst.share <= STYLE[1]:
        sentence = "Style and content both count in the distance."
        return Check(name=name, verdict="ok", sentence=sentence, figure=figure)
    alone = "content" if worst.share < STYLE[0] else "style"
    sentence = f"At scale {worst.scale} the distance to {worst.target} is {alone} alone."
    return Check(name=name, verdict="warn", sentence=sentence, figure=figure)


def within_bounds(evidence: Evidence) -> Check | None:
    """A choice at a bound of the budget might be better without the bound."""
    name, figure = "Size of the choice", f"{percent(evidence.share)} of the source"
    if evidence.most < 1 and evidence.share >= evidence.most * (1 - NEAR_A_BOUND):
        sentence = f"It is as large as budget.most = {evidence.most:g} allows; a higher bound may give a better one."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    chosen = {
        (attribute.name, value)
        for attribute in evidence.choice.attributes
        for value, is_in in zip(attribute.values, attribute.chosen, strict=True)
        if is_in
    }
    out = [effect for effect in evidence.flips if (effect.attribute, effect.value) in chosen]
    if out and not any(effect.allowed for effect in out):
        sentence = "The budget lets no value leave it; fewer images or identities may give a better one."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    least = max(evidence.least, evidence.budget_share)
    if evidence.share <= least * (1 + NEAR_A_BOUND):
        bound = f"budget.least = {evidence.least:g}" if evidence.least > evidence.budget_share else "the images budget"
        sentence = f"It is as small as {bound} allows; a lower bound may give a better one."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = "It lies at no bound of the budget."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def enough_identities(evidence: Evidence) -> Check | None:
    """With one person a cell's mean is that person; with two its variance is known."""
    counts = evidence.num_identities
    if not counts:
        return None
    unmeasured = sum(count == 0 for count in counts)
    name = "Measured people per cell of the choice"
    figure = f"median {number(median(counts))}, fewest {min(counts)}"
    if max(counts) < 2:
        sentence = "No cell has two measured people, so nothing is known of the variance between people."
        return Check(name=name, verdict="fail", sentence=sentence, figure=figure)
    few = sum(count < 2 for count in counts)
    if median(counts) < 2:
        sentence = f"{few} of {counted(len(counts), 'cell')} have fewer than two, {unmeasured} of them none."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = f"{len(counts) - few} of {counted(len(counts), 'cell')} have two or more."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def sketches_hold(evidence: Evidence) -> Check | None:
    """What lies off the basis of the sketches is missed by every objective but the mean distance."""
    if not evidence.off_basis:
        return None
    term, share = max(evidence.off_basis.items(), key=lambda pair: pair[1])
    name, figure = "Sketches", f"{percent(share)} of {term} off the basis"
    if share > MAX_OFF_BASIS:
        sentence = f"More than {percent(MAX_OFF_BASIS)} of a term lies off the basis; measure with a larger one."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = "They hold enough of every term for distances to new targets."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def camera_gap(evidence: Evidence) -> Check | None:
    """Another camera looks like other attributes, so the target's shares are less certain the further it is off."""
    gap = evidence.camera_gap
    if gap is None:
        return None
    name = "Gap between photos and source"
    figure = f"the photos' mean {gap.shift:.2f} of the source's spread off, their own spread {gap.spread:.2f} of it"
    moved = f"aligning the photos moved the estimated shares of {gap.attribute} by {gap.moved:.2f}"
    if gap.shift < CAMERA_GAP[0]:
        sentence = f"A mixture of the source's images looks like the photos; {moved}."
        return Check(name=name, verdict="ok", sentence=sentence, figure=figure)
    if gap.shift < CAMERA_GAP[1]:
        sentence = f"No mixture of the source's images looks quite like the photos; {moved}, and no other by more."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = f"Nothing in the source looks like the photos, so the estimated shares are hardly known; {moved}."
    return Check(name=name, verdict="fail", sentence=sentence, figure=figure)


def search_converged(evidence: Evidence) -> Check | None:
    """A search that still improves should go on; one that proposes the same again has stagnated."""
    scores = evidence.choice.history
    known = [(at, score) for at, score in enumerate(scores) if score is not None]
    if not known or not evidence.num_proposals:
        return None
    best = max(known, key=lambda pair: (pair[1] if evidence.choice.higher_is_better else -pair[1], -pair[0]))[0]
    since = len(scores) - 1 - best
    duplicates = evidence.num_duplicates / evidence.num_proposals
    name = "Progress of the search"
    figure = f"best after {best + 1:,} of {len(scores):,}, {percent(duplicates)} duplicates"
    if duplicates > MANY_DUPLICATES:
        sentence = "Most proposals were known already: the search stagnated; try another optimizer or seed."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    if since < STILL_IMPROVING * len(scores):
        sentence = f"The best subset came only {counted(since, 'evaluation')} before the end; give it more evaluations."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = f"No better subset was found in the last {counted(since, 'evaluation')}."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def evaluations_succeeded(evidence: Evidence) -> Check | None:
    """Failed evaluations hide subsets that might be better."""
    choice = evidence.choice
    if not choice.num_evaluations:
        return None
    share = choice.num_failed / choice.num_evaluations
    name, figure = "Failed evaluations", f"{choice.num_failed:,} of {choice.num_evaluations:,}"
    if share > MANY_FAILED:
        sentence = "Subsets without a score can never be chosen; look into the journal for what they have in common."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = "Nearly every subset got a score." if choice.num_failed else "Every subset got a score."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def measured_enough(evidence: Evidence) -> Check | None:
    """How far the choice on a part of the images is expected to lie from the choice on all of them."""
    if not evidence.rounds:
        return None
    last = evidence.rounds[-1]
    name = "Gap to measuring everything"
    figure = f"{percent(max(last.expected_regret, 0.0))} of a random subset's regret"
    sentence = f"With {percent(last.share)} of the images measured, a better subset is expected to gain "
    if last.expected_regret > LITTLE_GAP:
        sentence += "that much; let adaptive.ceiling and adaptive.patience allow more rounds."
        large = last.expected_regret > LARGE_GAP
        return Check(name=name, verdict="fail" if large else "warn", sentence=sentence, figure=figure)
    return Check(name=name, verdict="ok", sentence=sentence + "next to nothing.", figure=figure)


def people_kept(evidence: Evidence) -> Check | None:
    """The choice of images should not change who is trained on."""
    if not evidence.shifts:
        return None
    gone = [f"{shift.attribute} {value}" for shift in evidence.shifts for value in shift.vanished]
    removed = [f"{shift.attribute} {value}" for shift in evidence.shifts for value in shift.removed]
    beyond = [shift.attribute for shift in evidence.shifts if shift.beyond_chance]
    worst = max(evidence.shifts, key=lambda shift: shift.total_variation)
    name, figure = "Shift of the people's attributes", f"at most {worst.total_variation:.2f} ({worst.attribute})"
    if removed:
        sentence = f"Not one chosen image shows {', '.join(removed)}, which drawing people at random would keep."
        return Check(name=name, verdict="fail", sentence=sentence, figure=figure)
    if gone:
        sentence = f"Not one chosen image shows {', '.join(gone)}; so few people show it that chance may do that."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    if beyond:
        sentence = f"{', '.join(beyond)} shifted further than drawing people at random would."
        return Check(name=name, verdict="warn", sentence=sentence, figure=figure)
    sentence = "No value vanished, and the shares moved no further than drawing people at random would move them."
    return Check(name=name, verdict="ok", sentence=sentence, figure=figure)


def same_people(evidence: Evidence) -> Check | None:
    """Arms that show other people differ in more than what was chosen."""
    people = evidence.people
    if len(people) < 2:
        return None
    name, counts = "People of the arms", {arm: len(each) for arm, each in people.items()}
    fewest, most = min(counts.values()), max(counts.values())
    if len(set(people.values())) == 1:
        sentence = "Every arm trains on the same people."
        return Check(name=name, verdict="ok", sentence=sentence, figure=f"{most} in each arm")
    if fewest < most:
        few, many = (", ".join(arm for arm in counts if counts[arm] == number) for number in (fewest, most))
        sentence = f"Fewer people in {few} than in {many}: what these differ by may be the people and not the images."
        nearly = fewest >= NEARLY_ALL_PEOPLE * most
        return Check(name=name, verdict="warn" if nearly else "fail", sentence=sentence, figure=f"{fewest} to {most}")
    shared = len(frozenset.intersection(*people.values()))
    sentence = "Who lacks images of an arm's values is replaced there; with fewer images a person nobody is."
    return Check(name=name, verdict="warn", sentence=sentence, figure=f"{most} in each arm, {shared} in all of them")


CHECKS: tuple[Callable[[Evidence], Check | None], ...] = (
    better_than_random,
    search_converged,
    evaluations_succeeded,
    within_bounds,
    values_have_effect,
    enough_identities,
    surrogate_beats_ridge,
    measured_enough,
    style_counts,
    sketches_hold,
    camera_gap,
    same_people,
    people_kept,
)


def run_checks(evidence: Evidence) -> tuple[Check, ...]:
    """The verdicts of all checks that have something to judge, in the order of the registry."""
    return tuple(check for judge in CHECKS if (check := judge(evidence)) is not None)
