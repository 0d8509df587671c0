"""The words of a report: headline, verdict, warnings and the rows of its result table."""

from dataclasses import dataclass
from statistics import fmean

from search.analysis.compare import ArmSummary, Estimate
from search.analysis.records import AttributeShares, Choice
from search.analysis.words import NONE, counted, decimals, duration, number, percent, signed
from search.report.comparison_text import cost_text, interval_text, larger_and_better, trained_on
from search.report.data import ArmFacts, ReportData

FEW_SEEDS = 3
FEW_ARMS = 8
LITTLE_STYLE = 0.01


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One of the four answers at the top; ``clear`` marks a difference whose interval excludes zero."""

    question: str
    answer: str
    detail: str
    clear: bool = False


@dataclass(frozen=True, kw_only=True)
class ResultCell:
    """One metric of one arm, as text: mean, per-seed values, paired difference with its interval."""

    metric: str
    mean: str
    per_seed: str
    difference: str
    clear: bool


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One arm on one target, ready for a table."""

    target: str
    arm: str
    is_main: bool
    num_seeds: int
    num_failed: int
    cells: tuple[ResultCell, ...]
    facts: ArmFacts | None


def difference_text(difference: Estimate | None) -> str:
    """A paired difference in percentage points with its interval, or why there is none."""
    if difference is None:
        return NONE
    mean = signed(100 * difference.mean)
    if difference.low is None or difference.high is None:
        return f"{mean} (one seed, no interval)"
    return f"{mean} [{signed(100 * difference.low)}, {signed(100 * difference.high)}]"


def chips(attribute: AttributeShares) -> list[tuple[str, bool]]:
    """(text, chosen) per value in order; neighbouring angles of a circular attribute are joined to ranges."""
    values = list(zip(attribute.values, attribute.chosen, strict=True))
    if not attribute.circular:
        return values
    turns = [at for at in range(len(values)) if values[at][1] != values[at - 1][1]]
    if not turns:
        return [(f"all {counted(len(values), 'angle')}", attribute.chosen[0])]
    joined = []
    for start, end in zip(turns, [*turns[1:], turns[0]], strict=True):
        first, last = (value.removesuffix("deg") for value in (values[start][0], values[end - 1][0]))
        joined.append((f"{first}°" if first == last else f"{first}°\N{EN DASH}{last}°", values[start][1]))
    return joined


def values_text(attribute: AttributeShares, limit: int = 4) -> str:
    """The chosen values of one attribute in a few words."""
    chosen = [text for text, chosen in chips(attribute) if chosen]
    if len(chosen) <= limit:
        return f"{attribute.name} {', '.join(chosen)}"
    return f"{sum(attribute.chosen)} of {counted(len(attribute.values), f'{attribute.name} value')}"


@dataclass(frozen=True, kw_only=True)
class MeanAgreement:
    """Means over the attributes with known truth, of the choice, of random choices and of everything."""

    jaccard: float
    jaccard_chance: float
    jaccard_any_size: float
    jaccard_everything: float
    total_variation: float
    total_variation_chance: float
    total_variation_any_size: float
    total_variation_everything: float


def mean_agreement(choice: Choice) -> MeanAgreement | None:
    """How near a choice is to the known truth; None when no attribute's truth is known."""
    if not choice.agreements:
        return None
    sets = [agreement.jaccard for agreement in choice.agreements]
    shares = [agreement.total_variation for agreement in choice.agreements]
    return MeanAgreement(
        jaccard=fmean(each.value for each in sets),
        jaccard_chance=fmean(each.same_size for each in sets),
        jaccard_any_size=fmean(each.any_size for each in sets),
        jaccard_everything=fmean(each.everything for each in sets),
        total_variation=fmean(each.value for each in shares),
        total_variation_chance=fmean(each.same_size for each in shares),
        total_variation_any_size=fmean(each.any_size for each in shares),
        total_variation_everything=fmean(each.everything for each in shares),
    )


def main_difference(data: ReportData) -> tuple[ArmSummary, Estimate] | None:
    """The main choice's first metric against the baseline, when it was trained and compared."""
    for summary in data.results:
        if summary.arm == data.main_choice.arm and summary.target == data.target.title and summary.difference:
            return summary, summary.difference
    return None


def verdict(data: ReportData) -> str:
    """How sure we are that the choice is better than the baseline, in one sentence."""
    compared = main_difference(data)
    if compared is None:
        return f"Whether it trains a better model than {data.baseline} was not tested in this run."
    summary, difference = compared
    change = f"{signed(100 * difference.mean)} {summary.metric} points ({interval_text(difference)})"
    if not difference.excludes_zero:
        return f"No difference from {data.baseline} is shown: {change}."
    return f"It trains a {'better' if difference.mean > 0 else 'worse'} model than {data.baseline}: {change}."


def headline(data: ReportData) -> str:
    """The report in one line: what part was chosen, for what, and what it brings, claiming no more than is known."""
    share = percent(data.main_choice.num_images / data.source.num_images)
    text = f"{share} of {data.source.title} for {data.target.title}"
    compared = main_difference(data)
    if compared is None:
        return text
    summary, difference = compared
    text += f": {signed(100 * difference.mean)} {summary.metric} points against {data.baseline}"
    if not difference.excludes_zero:
        text = f"{text.partition(': ')[0]}: no difference from {data.baseline} shown"
        text += ", on one seed" if difference.low is None else ""
    larger = larger_and_better(data)
    return f"{text}; {larger.arm.arm} is better" if larger is not None and larger.lead.excludes_zero else text


def chosen_by(data: ReportData) -> str:
    """Why the report is about this choice and no other, in one sentence."""
    if not data.chosen_by:
        return ""
    return f"Of {counted(len(data.choices), 'search', 'searches')} this is the one by {data.main}: {data.chosen_by}."


def lead(data: ReportData) -> str:
    """What was chosen, why, how it differs from the truth, how sure we are and what it cost."""
    choice = data.main_choice
    limited = [values_text(attribute) for attribute in choice.attributes if not attribute.whole]
    what = "; ".join(limited) if limited else "every value of every attribute"
    reason = "scored best in short trainings on" if choice.objective == "training" else "looks most like"
    sentences = [
        f"By {choice.objective}, the part of {data.source.title} that {reason} {data.target.title} is {what}, "
        f"out of {counted(choice.num_evaluations, 'subset')} tried."
    ]
    if agreement := mean_agreement(choice):
        sentences.append(
            f"Its values overlap the true ones by {decimals(agreement.jaccard)} "
            f"(Jaccard; random choices of that size: {decimals(agreement.jaccard_chance)})."
        )
    larger = larger_and_better(data)
    sentences += [verdict(data), *([] if larger is None else [str(larger)]), chosen_by(data)]
    sentences.append(f"The stages of the run took {cost_text(data)}.")
    return " ".join(filter(None, sentences))


def tiles(data: ReportData) -> tuple[Tile, ...]:
    """The four answers at a glance: what, why, how sure, at what cost."""
    choice = data.main_choice
    compared = main_difference(data)
    if compared is None:
        sure, why_sure = "Not tested", f"no training was compared with {data.baseline}"
    else:
        summary, difference = compared
        sure = f"{signed(100 * difference.mean)} {summary.metric}"
        if difference.low is None or difference.high is None:
            why_sure = "percentage points, one seed: no interval"
        else:
            why_sure = (
                f"points, {signed(100 * difference.low)} to {signed(100 * difference.high)} at "
                f"{100 * difference.confidence:.0f} %, {difference.n} paired seeds"
            )
    direction = "higher" if choice.higher_is_better else "lower"
    random = "" if choice.random_score is None else f"; a random subset {number(choice.random_score)}"
    return (
        Tile(
            question="What was chosen",
            answer=percent(choice.num_images / data.source.num_images),
            detail=f"{choice.num_images:,} of {data.source.num_images:,} images; {trained_on(data)}",
        ),
        Tile(
            question="Why",
            answer=f"{choice.objective} {number(choice.score)}",
            detail=f"{direction} is better{random}; {counted(choice.num_evaluations, 'evaluation')}",
        ),
        Tile(
            question="How sure",
            answer=sure,
            detail=why_sure,
            clear=compared is not None and compared[1].excludes_zero,
        ),
        Tile(
            question="What it cost",
            answer=duration(data.wall_seconds),
            detail=_dearest(data),
        ),
    )


def _dearest(data: ReportData) -> str:
    total = data.wall_seconds
    if not total:
        return "no time measured"
    stage = max(data.stages, key=lambda each: each.by_the_clock)
    text = f"by the clock; {100 * stage.by_the_clock / total:.0f} % of it {stage.stage}"
    if stage.num_images and stage.by_the_clock:
        text += f", {counted(stage.num_images, 'image')} at {number(stage.num_images / stage.by_the_clock)} a second"
    if data.seconds > 1.05 * total:
        text += f"; {duration(data.seconds)} of work"
    return text


def warnings(data: ReportData) -> tuple[str, ...]:
    """Everything that should lower a reader's trust, one sentence each, worst first."""
    found = list(data.notes)
    choice = data.main_choice
    if choice.beats_random is False:
        found.append(f"The chosen subset's {choice.objective} is no better than a random subset's: the search failed.")
    found += [f"{check.name}: {check.sentence}" for check in data.checks if check.verdict == "fail"]
    untrained = [weights.name for weights in data.provenance.weights if not weights.trained]
    if untrained:
        found.append(f"Untrained weights: {'; '.join(untrained)}. Distances compare random features.")
    lost = [score for score in data.surrogate if score.r2 <= score.ridge_r2]
    if lost:
        where = ", ".join(f"{score.quantity} on held-out {score.split}" for score in lost[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        found.append(f"The surrogate does not beat a ridge on main effects ({where}{more}): do not trust its fill-ins.")
    seeds = [len(summary.seeds) for summary in data.results]
    if seeds and min(seeds) < FEW_SEEDS:
        found.append(f"Only {counted(min(seeds), 'seed')} in an arm: its mean says little about other seeds.")
    failures = sum(each.num_failed for each in data.choices)
    if failures:
        found.append(f"{counted(failures, 'evaluation')} failed or gave no finite score; none of them can be chosen.")
    if data.rank_agreements and min(len(each.arms) for each in data.rank_agreements) < FEW_ARMS:
        fewest = min(len(each.arms) for each in data.rank_agreements)
        found.append(f"Rank correlation with training rests on {counted(fewest, 'arm')}: it is coarse and uncertain.")
    found += [
        f"At scale {style.scale}, style is {percent(style.share)} of the distance to {style.target}: "
        "it is content alone, and the style weights do nothing."
        for style in data.style_shares
        if style.share < LITTLE_STYLE
    ]
    if any(each.target_kind == "estimate" for each in choice.attributes):
        found.append(f"The shares of {data.target.title} are estimates, not known truth.")
    if data.source.rendered:
        found.append(
            f"{data.source.title} is drawn by this project's own renderer. It has FineGPR's layout, but it is not "
            "FineGPR: no number here stands for the published data set."
        )
    return tuple(found)


def metrics_of(data: ReportData) -> tuple[str, ...]:
    """The metrics of the results, in order of first appearance."""
    return tuple(dict.fromkeys(summary.metric for summary in data.results))


def result_rows(data: ReportData) -> tuple[ResultRow, ...]:
    """One row per target and arm, in the order of the results."""
    grouped: dict[tuple[str, str], list[ArmSummary]] = {}
    for summary in data.results:
        grouped.setdefault((summary.target, summary.arm), []).append(summary)
    facts = {each.arm: each for each in data.arms}
    return tuple(
        ResultRow(
            target=target,
            arm=arm,
            is_main=arm == data.main_choice.arm,
            num_seeds=len(summaries[0].seeds),
            num_failed=summaries[0].num_failed,
            cells=tuple(_cell(summary) for summary in summaries),
            facts=facts.get(arm),
        )
        for (target, arm), summaries in grouped.items()
    )


def _cell(summary: ArmSummary) -> ResultCell:
    return ResultCell(
        metric=summary.metric,
        mean=NONE if summary.mean is None else f"{100 * summary.mean.mean:.1f}",
        per_seed=", ".join(f"{100 * value:.1f}" for value in summary.values),
        difference=difference_text(summary.difference),
        clear=summary.difference is not None and summary.difference.excludes_zero,
    )
