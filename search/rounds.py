"""AOST's outer loop (Algorithm 1): search anew as the target's images arrive, until the choice is stable."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from finegpr.arrays import Ints
from finegpr.config import Config
from finegpr.storage import write_json
from finegpr.subset import Subset
from search.analysis.compare import jaccard
from search.analysis.subset_diff import diff, searched
from search.loop import NUM_RANDOM, Evaluate, Generation, SearchResult, search
from search.measured import Measured
from search.objectives.base import Objective
from search.optimizers.proposer import Optimizer
from search.space import Space
from search.trial import Proposal

ROUNDS = "rounds.json"
NUM_WARM = 20

Schedule = Literal["every-image", "geometric", "once"]


class RoundsConfig(Config):
    """After how many of the target's images the search is done: ``every-image``, ``geometric`` (1, 2, 4, ... and all)
    or ``once``, after all. It stops early when ``stable_rounds`` rounds in a row have not changed the choice."""

    rounds: Schedule = "geometric"
    stable_rounds: int = Field(default=3, ge=1)


@dataclass(frozen=True, kw_only=True)
class Round:
    """The choice after ``num_target_images`` images of the target.

    ``score`` is against those images, so scores of different rounds do not compare. ``jaccard_last`` (None in the first
    round) and ``jaccard_final``: values in this choice and in that of the round before, or of the last round, over
    values in either. ``num_stable``: rounds in a row, up to this one, that left the choice as it was. ``change``: what
    changed since the round before, in words.
    """

    index: int
    num_target_images: int
    subset: Subset
    score: float
    num_evaluations: int
    jaccard_last: float | None
    jaccard_final: float
    num_stable: int
    change: str

    def to_record(self) -> dict[str, Any]:
        """JSON-ready fields."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**facts, "subset": json.loads(self.subset.to_json())}


@dataclass(frozen=True, kw_only=True)
class RoundsResult:
    """All rounds; ``last`` is the search of the last one, whose subset is the choice, ``objective`` what it minimised.

    ``num_target_images``: all that there were. ``stopped``: why the loop ended.
    """

    rounds: tuple[Round, ...]
    last: SearchResult
    objective: Objective
    num_target_images: int
    stopped: str

    @property
    def num_evaluations(self) -> int:
        """New subsets that were scored, in all rounds."""
        return sum(done.num_evaluations for done in self.rounds)

    @property
    def stable_since(self) -> int:
        """The number of target images from which on the choice was the final one."""
        return self.rounds[-1 - self.rounds[-1].num_stable].num_target_images

    @property
    def summary(self) -> str:
        """Why it ended, and since when the choice stands, in words."""
        return f"{self.stopped}; the choice stands since {self.stable_since} of {self.num_target_images} photos"

    def to_record(self) -> dict[str, Any]:
        """JSON-ready: all rounds, and the properties."""
        return {
            "rounds": [done.to_record() for done in self.rounds],
            "stable_since": self.stable_since,
            "num_evaluations": self.num_evaluations,
            "num_target_images": self.num_target_images,
            "stopped": self.stopped,
            "summary": self.summary,
        }


class WarmStart:
    """An optimizer whose first generations are given subsets, each once; after them another optimizer goes on.

    That one is told the losses of its own proposals alone: what it is can not be taken over, but the best subset of a
    search is never worse than the best of those given.
    """

    def __init__(self, optimizer: Optimizer, subsets: Sequence[Subset]) -> None:
        self._optimizer = optimizer
        self._num_given = len(subsets)
        self._waiting = [Proposal(id=place, subset=subset) for place, subset in enumerate(subsets)]
        self._asked: list[Proposal] = []
        self._of_other: list[Proposal] = []

    @property
    def population(self) -> int:
        """That of the other optimizer."""
        return self._optimizer.population

    def ask(self, num: int) -> list[Proposal]:
        """Given subsets while there are any, then the other's, with ids after theirs."""
        if self._waiting:
            self._asked, self._waiting = self._waiting[:num], self._waiting[num:]
            self._of_other = []
        else:
            self._of_other = self._optimizer.ask(num)
            self._asked = [replace(proposal, id=proposal.id + self._num_given) for proposal in self._of_other]
        return self._asked

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """Passed on when they are the other's. Raises ValueError for any but those of the last ``ask``, in order."""
        if [proposal.id for proposal, _ in scored] != [proposal.id for proposal in self._asked]:
            raise ValueError(
                f"tell takes the {len(self._asked)} proposals of the last ask in its order, got {len(scored)} others"
            )
        other, self._asked, self._of_other = self._of_other, [], []
        if other:
            self._optimizer.tell([(proposal, loss) for proposal, (_, loss) in zip(other, scored, strict=True)])


def num_images(schedule: Schedule, num: int) -> list[int]:
    """After how many of ``num`` images of the target the rounds are: ascending, the last one after all."""
    if schedule == "once":
        return [num]
    if schedule == "every-image":
        return list(range(1, num + 1))
    return [*(2**power for power in range(num.bit_length()) if 2**power < num), num]


def of_target_images(measured: Measured, images: Ints) -> Measured:
    """What was measured, had the target only these of its images (places in ``target_sketch``), and no other target.

    The terms are the measured ones plus what sketches say of the difference, so that all images give the measured ones;
    the length of what single images of the target have off the basis is not known, a constant that no image changes.
    """
    measurements, target = measured.measurements, measured.target
    sketch = measurements.target_sketch[target]
    few, rest = sketch[images].astype(np.float64), np.zeros(len(measurements.blocks))
    mean, mean_of_all = few.mean(axis=0), sketch.mean(axis=0, dtype=np.float64)
    starts = [block.start for block in measurements.blocks]
    spread = np.add.reduceat(few.var(axis=0) - sketch.var(axis=0, dtype=np.float64), starts)
    moved = measurements.distances(mean=mean, rest=rest) - measurements.distances(mean=mean_of_all, rest=rest)
    of_few = replace(
        measurements,
        terms={target: (measurements.terms[target] + moved + spread).astype(np.float32)},
        target_sketch={target: sketch[images]},
        target_constant={target: measurements.target_constant[target] + spread},
        num_target={target: len(images)},
    )
    return replace(measured, measurements=of_few)


def search_in_rounds(
    config: RoundsConfig,
    space: Space,
    measured: Measured,
    folder: Path,
    *,
    make_objective: Callable[[Measured], Objective],
    make_optimizer: Callable[[], Optimizer],
    evaluations: int,
    settings: Mapping[str, Any],
    seed: int,
    evaluate: Callable[[Objective], Evaluate] | None = None,
    num_random: int = NUM_RANDOM,
    progress: Callable[[int, Generation], None] | None = None,
) -> RoundsResult:
    """Search after more and more of the target's images, in an order shuffled by ``seed``; the same call resumes.

    Every round makes its objective, and with it the surrogate, from the measurements of its images, may have
    ``evaluations`` new subsets scored (so R rounds may cost R times as many), starts from the NUM_WARM best subsets of
    the round before, and keeps a journal in its own folder; ROUNDS is written last. ``settings`` are the config of
    ``search``, which must hold the fingerprint of ``measured``; ``evaluate`` turns an objective into what scores
    batches; ``progress`` is told the round too. Raises InputError for a target that was not measured.
    """
    measured.require_target()
    order = np.random.default_rng(seed).permutation(len(measured.measurements.target_sketch[measured.target]))
    done: list[tuple[int, SearchResult]] = []
    stopped = "all images of the target seen"
    num_stable = 0
    warm: list[Subset] = []
    for index, num in enumerate(num_images(config.rounds, len(order))):
        objective = make_objective(of_target_images(measured, np.sort(order[:num])))
        facts = {"index": index, "target_images": num, "seed": seed, "warm_start": [subset.key for subset in warm]}
        result = search(
            space,
            objective,
            WarmStart(make_optimizer(), warm),
            folder / f"round-{index:03d}",
            evaluations=evaluations,
            config={**settings, "round": facts},
            evaluate=None if evaluate is None else evaluate(objective),
            num_random=num_random,
            progress=None if progress is None else _of_round(progress, index),
        )
        num_stable = num_stable + 1 if done and result.subset == done[-1][1].subset else 0
        done.append((num, result))
        if num_stable >= config.stable_rounds and num < len(order):
            stopped = f"the choice was stable for {num_stable} rounds"
            break
        warm = _best(result)
    finished = RoundsResult(
        rounds=_rounds(space, done),
        last=result,
        objective=objective,
        num_target_images=len(order),
        stopped=stopped,
    )
    write_json(folder / ROUNDS, finished.to_record())
    return finished


def _of_round(progress: Callable[[int, Generation], None], index: int) -> Callable[[Generation], None]:
    return lambda generation: progress(index, generation)


def _best(result: SearchResult) -> list[Subset]:
    """The NUM_WARM best subsets of a search, best first, the first found of equal ones."""
    scored = [trial for trial in result.history if trial.status == "scored"]
    return [trial.subset for trial in sorted(scored, key=lambda trial: trial.loss)[:NUM_WARM]]


def _rounds(space: Space, done: Sequence[tuple[int, SearchResult]]) -> tuple[Round, ...]:
    attributes = searched(space)
    final = _chosen(done[-1][1].subset)
    rounds: list[Round] = []
    for index, (num, result) in enumerate(done):
        last = rounds[-1] if rounds else None
        same = last is not None and last.subset == result.subset
        rounds.append(
            Round(
                index=index,
                num_target_images=num,
                subset=result.subset,
                score=result.score,
                num_evaluations=result.num_evaluations,
                jaccard_last=None if last is None else jaccard(_chosen(last.subset), _chosen(result.subset)),
                jaccard_final=jaccard(_chosen(result.subset), final),
                num_stable=last.num_stable + 1 if last is not None and same else 0,
                change="" if last is None else diff(last.subset, result.subset, attributes),
            )
        )
    return tuple(rounds)


def _chosen(subset: Subset) -> list[str]:
    return [f"{name}: {value}" for name, values in subset.values.items() for value in values]
