"""Surrogate, then truth: the best subsets of a search are trained truly, and the two rankings compared."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from finegpr.config import Config
from finegpr.errors import InputError
from finegpr.subset import Subset
from search.analysis.compare import RankAgreement, rank_agreement
from search.objectives.base import Objective
from search.optimizers.baselines import random_masks
from search.space import Space
from search.trial import Trial

if TYPE_CHECKING:
    from search.objectives.training import TrainingObjective

MOST_DRAWS = 50  # for each random subset that is wanted, before a space is said to hold too few


class CheckConfig(Config):
    """Which subsets are trained truly: the ``top`` of the search, and ``random`` ones for reference, each with every
    one of ``seeds``."""

    top: int = Field(default=5, ge=1)
    random: int = Field(default=5, ge=0)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)


@dataclass(frozen=True, kw_only=True)
class TrainedSubset:
    """One subset with its surrogate ``score``, and its mAP for every seed, None where a training failed.

    ``mean_ap`` is the mean over the seeds, None where any of them failed: the others would be another sample.
    """

    arm: str
    subset: Subset
    score: float
    mean_aps: tuple[float | None, ...]

    @property
    def mean_ap(self) -> float | None:
        values = [value for value in self.mean_aps if value is not None]
        return sum(values) / len(values) if len(values) == len(self.mean_aps) else None


@dataclass(frozen=True, kw_only=True)
class TrueRanking:
    """The trained subsets, best mAP first and failed ones last, and how well the surrogate ranks them.

    ``top_agreement`` is over the search's own subsets alone, which lie closer together; None with fewer than two.
    """

    trained: tuple[TrainedSubset, ...]
    agreement: RankAgreement
    top_agreement: RankAgreement | None

    def to_record(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "trained": [
                {
                    "arm": each.arm,
                    "subset": each.subset.to_record(),
                    "score": each.score,
                    "mAP": each.mean_ap,
                    "mAPs": each.mean_aps,
                }
                for each in self.trained
            ],
            "agreement": asdict(self.agreement),
            "top_agreement": asdict(self.top_agreement) if self.top_agreement else None,
        }


def rank_by_training(
    config: CheckConfig, history: Sequence[Trial], surrogate: Objective, training: "TrainingObjective"
) -> TrueRanking:
    """Train the best subsets of ``history``, and random ones, and rank them by mAP.

    Raises InputError when not a single training got a mAP.
    """
    space = training.space
    best = sorted((trial for trial in history if trial.status == "scored"), key=lambda trial: trial.loss)[: config.top]
    subsets = {f"top {place}": trial.subset for place, trial in enumerate(best, 1)}
    others = random_subsets(space, config.random, without=set(subsets.values()))
    subsets |= {f"random {place}": subset for place, subset in enumerate(others, 1)}
    scores = surrogate.score(list(subsets.values())).tolist()
    by_seed = [replace(training, seed=seed).score(list(subsets.values())) for seed in config.seeds]
    mean_aps = [tuple(float(ap) if isfinite(ap) else None for ap in column) for column in np.stack(by_seed, axis=1)]
    trained = [
        TrainedSubset(arm=arm, subset=subset, score=score, mean_aps=aps)
        for (arm, subset), score, aps in zip(subsets.items(), scores, mean_aps, strict=True)
    ]
    top = [each for each in trained if each.arm.startswith("top") and each.mean_ap is not None]
    return TrueRanking(
        trained=tuple(sorted(trained, key=lambda each: -1.0 if each.mean_ap is None else each.mean_ap, reverse=True)),
        agreement=_agreement(trained, surrogate, training),
        top_agreement=_agreement(top, surrogate, training) if len(top) > 1 else None,
    )


def random_subsets(space: Space, num: int, *, without: set[Subset]) -> list[Subset]:
    """``num`` distinct random subsets that fit the budget, none of them in ``without``; drawn by the space's seed.

    Raises InputError when the space hardly holds that many.
    """
    masks = random_masks(space, num * MOST_DRAWS, seed=space.seed)
    drawn = dict.fromkeys(space.subset(mask) for mask in masks[space.feasible(masks)])
    found = [subset for subset in drawn if subset not in without][:num]
    if len(found) < num:
        raise InputError(
            f"only {len(found)} of {num} random subsets were found in {len(masks)} draws; set check.random to that"
        )
    return found


def _agreement(trained: Sequence[TrainedSubset], surrogate: Objective, training: "TrainingObjective") -> RankAgreement:
    return rank_agreement(
        {each.arm: each.score for each in trained},
        {each.arm: each.mean_ap for each in trained if each.mean_ap is not None},
        objective=surrogate.name,
        target=f"{training.validation.title}, short trainings",
        higher_is_better=surrogate.higher_is_better,
    )
