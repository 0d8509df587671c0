"""The search: ask a generation, score what is new, write it down, tell the optimizer. Killed, it goes on as if not."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from finegpr.arrays import Floats
from finegpr.config import Config
from finegpr.errors import ConfigError, InputError, StateError
from finegpr.subset import Subset
from search.journal import Journal
from search.objectives.base import Objective
from search.optimizers import check_optimizer
from search.optimizers.baselines import random_masks
from search.optimizers.proposer import Optimizer
from search.space import Space
from search.trial import Proposal, Status, Trial

Evaluate = Callable[[list[Subset]], Floats]

PENALTY = 1e12  # the loss of a subset without a score: finite, because NaN makes a swarm forget
PATIENCE = 25  # generations without a new subset
MAX_FAILED_GENERATIONS = 3
NUM_RANDOM = 200
SIGNIFICANT_DIGITS = 12


class SearchConfig(Config):
    """What is searched and how. ``evaluations`` is the largest number of new subsets that are scored.

    ``optimizer_options`` are those of the optimizer, see the model beside it. ``attributes``: names of image-level
    attributes; None for all but the scene.
    """

    objective: str = "mmd_rbf"
    optimizer: str = "swarm"
    optimizer_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    evaluations: int = Field(default=2000, gt=0)
    attributes: tuple[str, ...] | None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_its_options(self) -> "SearchConfig":
        try:
            check_optimizer(self.optimizer, self.optimizer_options)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Progress of a search after one generation; ``replayed`` when it came from the journal."""

    index: int
    num_evaluations: int
    num_new: int
    best: float | None
    replayed: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best subset found, its score in the objective's unit, and all trials.

    ``num_evaluations`` counts new subsets that were scored or failed. ``random_median`` is the median score of random
    subsets under the same budget, None when none was asked for. ``stopped``: why the search ended. ``notice``: what a
    killed search had left half written, or None.
    """

    subset: Subset
    score: float
    history: tuple[Trial, ...]
    num_evaluations: int
    num_duplicates: int
    num_failed: int
    num_infeasible: int
    num_generations: int
    population: int
    random_median: float | None
    stopped: str
    notice: str | None


def search(
    space: Space,
    objective: Objective,
    optimizer: Optimizer,
    folder: Path | None,
    *,
    evaluations: int,
    config: Mapping[str, Any],
    evaluate: Evaluate | None = None,
    num_random: int = NUM_RANDOM,
    progress: Callable[[Generation], None] | None = None,
) -> SearchResult:
    """Score at most ``evaluations`` new subsets; the journal in ``folder`` makes the same call resume, None keeps none.

    ``config`` is JSON-ready and must hold all that decides a score; the space, objective and number of evaluations
    are added to it. ``evaluate`` scores a batch of subsets, in order, NaN for a failure (default
    ``objective.score``); put a parallel one here. ``optimizer`` must be fresh. ``num_random`` subsets are scored
    beside the search for comparison; 0 where a score is dear.

    Raises StateError when the journal is damaged or belongs to another search, InputError when no subset got a score.
    """
    evaluate = evaluate or objective.score
    journal = None if folder is None else Journal(folder, {**config, **_identity(space, objective, evaluations)})
    replay = [] if journal is None else list(journal.generations)
    state = _State(higher_is_better=objective.higher_is_better)
    stopped = "all evaluations spent"
    num_stale = num_failed_generations = 0
    while state.num_evaluations < evaluations:
        proposals = optimizer.ask(min(optimizer.population, evaluations - state.num_evaluations))
        if not proposals:
            stopped = "the optimizer has nothing new to propose"
            break
        started = time.monotonic()
        index = len(state.generations)
        replayed = index < len(replay)
        if journal is not None and replayed:
            trials = replay[index]
            _require_same(proposals, trials, journal.path)
        else:
            trials = state.score(proposals, space, evaluate)
            if journal is not None:
                journal.append(trials, seconds=time.monotonic() - started)
        state.add(trials)
        optimizer.tell([(proposal, trial.loss) for proposal, trial in zip(proposals, trials, strict=True)])
        new = [trial for trial in trials if trial.status in ("scored", "failed")]
        if progress is not None:
            best = state.best.score if state.best else None
            seconds = time.monotonic() - started
            progress(
                Generation(
                    index=index,
                    num_evaluations=state.num_evaluations,
                    num_new=len(new),
                    best=best,
                    replayed=replayed,
                    seconds=seconds,
                )
            )
        num_stale = 0 if new else num_stale + 1
        if num_stale >= PATIENCE:
            stopped = f"no new subset in {PATIENCE} generations"
            break
        if new:
            all_failed = all(trial.status == "failed" for trial in new)
            num_failed_generations = num_failed_generations + 1 if all_failed else 0
        if num_failed_generations >= MAX_FAILED_GENERATIONS:
            raise InputError(
                f"every evaluation of {MAX_FAILED_GENERATIONS} generations in a row failed; "
                f"{'' if journal is None else f'see {journal.path} for the subsets, and '}"
                f"check the objective {objective.name}"
            )
    if state.best is None or state.best.score is None:
        raise InputError(
            f"none of {state.num_proposals} proposed subsets got a score ({state.count('infeasible')} did not fit "
            "the budget); widen budget.least and budget.most"
        )
    return SearchResult(
        subset=state.best.subset,
        score=state.best.score,
        history=tuple(trial for generation in state.generations for trial in generation),
        num_evaluations=state.num_evaluations,
        num_duplicates=state.count("duplicate"),
        num_failed=state.count("failed"),
        num_infeasible=state.count("infeasible"),
        num_generations=len(state.generations),
        population=optimizer.population,
        random_median=random_median(space, evaluate, num=num_random, seed=space.seed) if num_random else None,
        stopped=stopped,
        notice=None if journal is None else journal.notice,
    )


def random_median(space: Space, evaluate: Evaluate, *, num: int, seed: int) -> float | None:
    """Median score of ``num`` random subsets that fit the budget; None when none got a score."""
    masks = random_masks(space, num, seed=seed)
    subsets = [space.subset(mask) for mask in masks[space.feasible(masks)]]
    scores = np.asarray(evaluate(subsets)) if subsets else np.empty(0)
    scores = scores[np.isfinite(scores)]
    return float(np.median(scores)) if len(scores) else None


def regret(score: float, *, best: float, random_median: float) -> float:
    """(score - best) / (random_median - best): 0 is the optimum, 1 a typical random subset, in either direction."""
    if random_median == best:
        return 0.0 if score == best else float("inf")
    return (score - best) / (random_median - best)


class _State:
    """All that was proposed so far."""

    def __init__(self, *, higher_is_better: bool) -> None:
        self.generations: list[tuple[Trial, ...]] = []
        self.best: Trial | None = None
        self.num_proposals = 0
        self.num_evaluations = 0
        self._sign = -1.0 if higher_is_better else 1.0
        self._first: dict[str, Trial] = {}

    def score(self, proposals: Sequence[Proposal], space: Space, evaluate: Evaluate) -> tuple[Trial, ...]:
        """The trials of one generation; only subsets that are new and fit the budget are evaluated."""
        fits = space.feasible(np.stack([space.mask(proposal.subset) for proposal in proposals]))
        new: dict[str, Subset] = {}
        for proposal, fit in zip(proposals, fits, strict=True):
            if fit and proposal.subset.key not in self._first:
                new.setdefault(proposal.subset.key, proposal.subset)
        scores = np.asarray(evaluate(list(new.values())), dtype=np.float64) if new else np.empty(0)
        if scores.shape != (len(new),):
            raise ValueError(f"evaluate should give {len(new)} scores, got an array of shape {scores.shape}")
        score_of = {key: _rounded(float(score)) for key, score in zip(new, scores, strict=True)}
        trials = []
        known = {key: trial.score for key, trial in self._first.items()}
        for place, (proposal, fit) in enumerate(zip(proposals, fits, strict=True)):
            key = proposal.subset.key
            status: Status
            if not fit:
                status, score = "infeasible", None
            elif key in known:
                status, score = "duplicate", known[key]
            else:
                score = known[key] = score_of[key]
                status = "failed" if score is None else "scored"
            trials.append(
                Trial(
                    index=self.num_proposals + place,
                    generation=len(self.generations),
                    proposal=proposal.id,
                    subset=proposal.subset,
                    status=status,
                    score=score,
                    loss=PENALTY if score is None else self._sign * score,
                )
            )
        return tuple(trials)

    def add(self, trials: tuple[Trial, ...]) -> None:
        self.generations.append(trials)
        self.num_proposals += len(trials)
        for trial in trials:
            if trial.status in ("scored", "failed"):
                self.num_evaluations += 1
                self._first[trial.subset.key] = trial
            if trial.status == "scored" and (self.best is None or trial.loss < self.best.loss):
                self.best = trial

    def count(self, status: Status) -> int:
        return sum(trial.status == status for generation in self.generations for trial in generation)


def _identity(space: Space, objective: Objective, evaluations: int) -> dict[str, Any]:
    return {
        "space": {
            "fingerprint": space.fingerprint,
            "budget": space.budget.model_dump(),
            "seed": space.seed,
            "values": {
                attribute.name: len(values) for attribute, values in zip(space.attributes, space.values, strict=True)
            },
        },
        "scored_by": {"name": objective.name, "unit": objective.unit, "higher_is_better": objective.higher_is_better},
        "num_evaluations": evaluations,
    }


def _require_same(proposals: Sequence[Proposal], trials: Sequence[Trial], path: Path) -> None:
    """The optimizer, told the same, must ask the same; otherwise its code, seed or version is another."""
    asked = [(proposal.id, proposal.subset.key) for proposal in proposals]
    written = [(trial.proposal, trial.subset.key) for trial in trials]
    if asked == written:
        return
    place = next(
        (i for i, (a, b) in enumerate(zip(asked, written, strict=False)) if a != b), min(len(asked), len(written))
    )
    generation = trials[0].generation
    got = asked[place] if place < len(asked) else "nothing"
    expected = written[place] if place < len(written) else "nothing"
    raise StateError(
        f"{path} belongs to another search: in generation {generation}, proposal {place}, the journal has {expected}, "
        f"this optimizer asks {got}; its seed, code or library versions differ. Start a new run"
    )


def _rounded(score: float) -> float | None:
    """Twelve digits, so that the last bits of a matrix product do not decide what a swarm does; None if not finite."""
    return float(f"{score:.{SIGNIFICANT_DIGITS}g}") if isfinite(score) else None
