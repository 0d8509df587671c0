"""The figures of a report. A new one is a function in a module of this folder, and a line here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from search.report.data import ReportData
from search.report.figures import arms, explain, search, shares
from search.report.figures.base import Figure

Section = Literal["results", "choice", "why", "health", "people", "images", "search", "surrogate", "cost", "provenance"]
SECTIONS: tuple[Section, ...] = get_args(Section)
"""Of the page, in their order."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What ``draw`` makes of a report, each figure with a key of its own; nothing where the report has nothing for it.

    With a ``caption``, a sentence on how to read them, the figures are a card of their own at the end of ``section``,
    under ``heading`` if there is one. Without, the page's template places them by their keys.
    """

    section: Section
    draw: Callable[[ReportData], Iterable[Figure]]
    heading: str | None = None
    caption: str | None = None


FIGURES: tuple[Entry, ...] = (
    Entry(section="results", draw=arms.results),
    Entry(section="choice", draw=shares.all_shares),
    Entry(section="search", draw=arms.histories),
    Entry(section="results", draw=arms.rankings),
    Entry(section="why", draw=explain.all_effects),
    Entry(section="why", draw=explain.all_distances),
    Entry(section="why", draw=explain.importance),
    Entry(section="why", draw=explain.contour),
    Entry(section="people", draw=explain.shifts),
    Entry(section="health", draw=search.rounds),
    Entry(section="search", draw=search.best),
    Entry(section="search", draw=search.distribution),
    Entry(section="search", draw=search.front),
    Entry(section="search", draw=search.slices),
)
