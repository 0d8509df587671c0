"""The words beside the explanation of a choice: what cannot change, health in a sentence, since when it is settled."""

from collections.abc import Sequence

from search.analysis.records import Check, Effect, Round
from search.analysis.words import counted, percent

SETTLED = 1.0  # Jaccard index of a subset with itself


def fixed_values(effects: Sequence[Effect]) -> str:
    """The values that cannot be changed alone because nothing would be left, by name; empty when all can."""
    return ", ".join(f"{effect.attribute} {effect.value}" for effect in effects if effect.effect is None)


def worst_first(checks: Sequence[Check]) -> list[Check]:
    """Failures, then warnings, then the rest, each in their order."""
    order = ("fail", "warn", "ok")
    return sorted(checks, key=lambda check: order.index(check.verdict))


def checks_summary(checks: Sequence[Check]) -> str:
    """How many of the checks are passed, in one sentence."""
    failed, warned = (sum(check.verdict == verdict for check in checks) for verdict in ("fail", "warn"))
    passed = f"{len(checks) - failed - warned} of {counted(len(checks), 'check')} of the search are passed"
    if not failed and not warned:
        return f"All {counted(len(checks), 'check')} of the search are passed."
    rest = [f"{failed} failed"] if failed else []
    rest += [f"{warned} {'asks' if warned == 1 else 'ask'} for a look"] if warned else []
    return f"{passed}; {' and '.join(rest)}."


def settled(rounds: Sequence[Round]) -> str:
    """How much was measured, and since when the choice is the same."""
    last = rounds[-1]
    same = 1
    while same < len(rounds) and rounds[-same - 1].overlap == SETTLED:
        same += 1
    since = len(rounds) - same + 1
    measured = f"{percent(last.share)} of the images were measured in {counted(len(rounds), 'round')}"
    if len(rounds) == 1:
        return f"{measured}."
    return f"{measured}; the choice is the same since round {since}."
