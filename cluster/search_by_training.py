"""Searching by true trainings, and ranking by them, for the verb ``search`` and for a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.progress import Tick, say
from search.analysis.true_ranking import TrueRanking
from search.loop import Generation, SearchConfig, SearchResult
from search.loop import search as search_space
from search.objectives.training import TrainingObjective
from search.optimizers import make_optimizer


def in_words(score: float, unit: str) -> str:
    """A score by training, with its name."""
    return f"mAP {score:.1%}" if unit == "mAP" else f"{unit} {score:.4g}"


class Shown:
    """What a person sees of a search by training: subsets done, the best, and how far its generation is."""

    def __init__(self, tick: Tick, evaluations: int, *, unit: str) -> None:
        self._tick = tick
        self._unit = unit
        self._evaluations = evaluations
        self._done = 0
        self._best = ""

    def generation(self, generation: Generation) -> None:
        self._done = generation.num_evaluations
        self._best = "" if generation.best is None else f"best {in_words(generation.best, self._unit)}"
        self._tick(self._done, self._evaluations, self._best)

    def batch(self, done: int, total: int, note: str = "") -> None:
        del note
        best = f"{self._best}, " if self._best else ""
        self._tick(self._done, self._evaluations, f"{best}{done} of {total} trainings of this generation")


def search_by_training(
    config: SearchConfig,
    settings: dict[str, Any],
    objective: TrainingObjective,
    folder: Path,
    show: Callable[[Generation], None],
) -> SearchResult:
    """Search by true trainings; the journal in ``folder`` and the trainings' results make the same call resume.

    ``settings`` is what the journal holds of the search, beside all that decides a training.
    """
    evaluations = objective.affordable(config.evaluations)
    if evaluations < config.evaluations:
        say(f"  gpu_seconds pays for {evaluations} of {config.evaluations} subsets")
    return search_space(
        objective.space,
        objective,
        make_optimizer(
            config.optimizer,
            objective.space,
            seed=config.seed,
            evaluations=evaluations,
            options=config.optimizer_options,
        ),
        folder,
        evaluations=evaluations,
        config={**settings, **objective.settings()},
        num_random=0,
        progress=show,
    )


def failures(objective: TrainingObjective, subsets: Sequence[Any]) -> dict[str, str]:
    """Say which subsets failed and why, and return it by subset."""
    reasons = {subset.key: objective.failure(subset) or "no reason was kept" for subset in subsets}
    for key, reason in reasons.items():
        say(f"  failed, so never the best: {key}: {reason}")
    return reasons


def tell_spent(objective: TrainingObjective) -> None:
    spent = objective.spent()
    cost = "" if spent.gpu_seconds is None else f", {spent.gpu_seconds:.0f} GPU-seconds by the cost model"
    say(f"  {spent.num_trainings} trainings, {spent.num_images} images through the network{cost}")


def tell_ranking(ranking: TrueRanking, objective: TrainingObjective) -> None:
    for each in ranking.trained:
        mean_ap = "failed" if each.mean_ap is None else f"mAP {each.mean_ap:.1%}"
        say(f"  {each.arm:10} {mean_ap:10} {ranking.agreement.objective} {each.score:.5g}")
    found = ranking.agreement
    if found.spearman is None or found.kendall is None:
        say("  no rank correlation: fewer than three subsets, or all alike")
    else:
        say(f"  {found.objective} against training: Spearman {found.spearman:.2f}, Kendall {found.kendall:.2f}")
    tell_spent(objective)
