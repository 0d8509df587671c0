"""The words on arms side by side: how sure a difference is, what more images brought and cost, what each trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.analysis.compare import Estimate, paired
from search.analysis.words import counted, duration, signed
from search.report.data import ArmFacts, ReportData


def interval_text(difference: Estimate) -> str:
    """The interval of a paired difference, or that there is none."""
    if difference.low is None or difference.high is None:
        return "one seed, so without an interval"
    low, high = (signed(100 * bound) for bound in (difference.low, difference.high))
    return f"{100 * difference.confidence:.0f} % interval {low} to {high}, {difference.n} paired seeds"


@dataclass(frozen=True, kw_only=True)
class Larger:
    """An arm that trains on more images than the choice and scored higher: its lead, and both arms' facts."""

    metric: str
    lead: Estimate
    arm: ArmFacts
    choice: ArmFacts

    def __str__(self) -> str:
        lead = f"{signed(100 * self.lead.mean)} {self.metric} points ({interval_text(self.lead)})"
        cost = f"{_images(self.arm)} instead of {_images(self.choice)}"
        if self.arm.seconds and self.choice.seconds:
            cost += f", and {duration(self.arm.seconds)} a training instead of {duration(self.choice.seconds)}"
        if self.lead.excludes_zero:
            return f"{self.arm.title} trains a better model than the choice: {lead}. That costs {cost}."
        return f"{self.arm.title} scored above the choice, no difference shown: {lead}. It costs {cost}."


def _images(facts: ArmFacts) -> str:
    return f"{counted(facts.num_images, 'image')} of {counted(facts.num_identities, 'identity', 'identities')}"


def larger_and_better(data: ReportData) -> Larger | None:
    """The best of the arms with more images than the choice, where it scored higher than the choice on the target."""
    facts = {each.arm: each for each in data.arms}
    arm = data.main_choice.arm
    own = next((each for each in data.results if each.arm == arm and each.target == data.target.title), None)
    if own is None or own.arm not in facts:
        return None
    found = []
    for each in data.results:
        larger = each.arm in facts and facts[each.arm].num_images > facts[own.arm].num_images
        if (
            larger
            and (each.target, each.metric) == (own.target, own.metric)
            and (lead := paired(each, own)) is not None
        ):
            found.append(Larger(metric=own.metric, lead=lead, arm=facts[each.arm], choice=facts[own.arm]))
    best = max(found, key=lambda each: each.lead.mean, default=None)
    return best if best is not None and best.lead.mean > 0 else None


def cost_text(data: ReportData) -> str:
    """By the clock, and what was done side by side."""
    text = duration(data.wall_seconds)
    if data.seconds > 1.05 * data.wall_seconds:
        return f"{text} by the clock, with {duration(data.seconds)} of work, some of it side by side"
    return f"{text} by the clock"


def arms_text(data: ReportData) -> str:
    """On how many images the arms train, and for how long."""
    same = [each.arm for each in data.arms if each.num_images == data.budget]
    others = [f"{each.title} on {each.num_images:,}" for each in data.arms if each.arm not in same]
    if not data.arms:
        return f"An arm draws {counted(data.budget, 'image')} with the same sampler."
    text = "Arms train on as many images as stands beside them"
    if same:
        whom = f"{_listed(same)} train" if others else "Every arm trains"
        text = "; ".join([f"{whom} on {counted(data.budget, 'image')}", *([", ".join(others)] if others else [])])
    return f"{text}. Each trains for {data.trained_for}; the identities are those among its images."


def trained_on(data: ReportData) -> str:
    """On how many images the arm of the choice trains."""
    facts = next((each for each in data.arms if each.arm == data.main_choice.arm), None)
    return f"{data.budget if facts is None else facts.num_images:,} are trained on"


def _listed(names: Sequence[str]) -> str:
    """The names as one lists them: a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
