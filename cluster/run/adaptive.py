"""Measuring in rounds: the search says which images its choice hangs on, an executor measures them, until it stands.

Beside the measurements, in the order of writing:

    adaptive.safetensors    row and round (n,) of every image that was asked for
    adaptive.json           its finish marker: the settings, what each round decided, and why the last one stopped
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.executors.base import Executor, MeasureJob
from cluster.outputs import differences
from cluster.progress import progress, say
from finegpr.arrays import Ints
from finegpr.atomic import withdraw
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.files import FORMAT, read_record, read_verified
from finegpr.measuring.freshness import changed_images, in_words, photos_key
from finegpr.measuring.measure import cell_order
from finegpr.measuring.reference import fit_settings, target_sample
from finegpr.measuring.results import Measurements
from finegpr.mixture import choice_from_record
from finegpr.storage import write_arrays, write_sealed
from finegpr.subset import Subset
from finegpr.weighing import Weighing
from search.adaptive.sampler import AdaptiveConfig, AdaptiveSampler, Decision
from search.space import Space

ROWS, RECORD = "adaptive.safetensors", "adaptive.json"


@dataclass(kw_only=True)
class Rounds:
    """The rounds so far: ``batches`` of rows asked for, and what was decided after each but perhaps the last."""

    folder: Path
    settings: Mapping[str, Any]
    num_images: int
    batches: list[Ints] = field(default_factory=list)
    decided: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any], num_images: int) -> "Rounds":
        """What ``folder`` holds of a measurement with these settings; of another one, nothing, and what has changed.

        Raises StateError for damaged files.
        """
        rounds = cls(folder=folder, settings=settings, num_images=num_images)
        if not (folder / RECORD).exists():
            return rounds
        record = read_record(folder / RECORD)
        if changes := differences(record["settings"], settings):
            say(f"  other settings ({'; '.join(changes[:6])}): the rounds begin anew")
            return rounds
        asked = read_verified(folder / ROWS, record["sha256"])
        rounds.batches = [asked["row"][asked["round"] == turn] for turn in range(record["num_batches"])]
        rounds.decided, rounds.stopped = record["rounds"], record["stopped"]
        return rounds

    @property
    def chosen(self) -> list[Subset]:
        """The subset after every round."""
        return [choice_from_record(decided["subset"]) for decided in self.decided]

    @property
    def share(self) -> float:
        """Images asked for, of all that would be measured without adaptive sampling."""
        return sum(map(len, self.batches)) / self.num_images

    @property
    def summary(self) -> str:
        """How much was measured, and why it ended."""
        measured = f"{self.share:.1%} of {self.num_images} images in {len(self.batches)} rounds"
        return f"Adaptive sampling measured {measured}; it ended because {self.stopped}."

    def add(self, decision: Decision) -> None:
        """Record what was decided on the measurements of all batches, and the batch that follows."""
        self.decided.append(
            {
                "images": len(self.batches[-1]),
                "share": self.share,
                "subset": decision.subset.to_record(),
                "score": decision.score,
                "expected_regret": decision.expected_regret,
                "certainty": decision.certainty,
            }
        )
        self.stopped = decision.stopped
        if not self.stopped:
            self.batches.append(decision.rows)
        self.write()

    def write(self) -> None:
        """Commit the rounds, the record last."""
        withdraw(self.folder / RECORD)
        turns = [np.full(len(batch), turn, dtype=np.int64) for turn, batch in enumerate(self.batches)]
        arrays = {"row": np.concatenate(self.batches), "round": np.concatenate(turns)}
        write_sealed(
            self.folder / RECORD,
            {
                "format": FORMAT,
                "sha256": write_arrays(self.folder / ROWS, arrays),
                "settings": self.settings,
                "num_images": self.num_images,
                "num_batches": len(self.batches),
                "rounds": self.decided,
                "stopped": self.stopped,
            },
        )


def measure_adaptively(
    executor: Executor,
    config: MeasureConfig,
    job: MeasureJob,
    adaptive: AdaptiveConfig,
    space: Space,
    *,
    target: str,
) -> tuple[Measurements, Rounds]:
    """Measure round after round until the subset of ``space`` chosen for ``target`` is settled.

    Killed at any point, the same call goes on with the same rows: finished shards and decided rounds stay.
    """
    order = cell_order(config, job.source, space.cells)
    sampler = AdaptiveSampler(
        adaptive, space, job.source.identities, order, target=target, weighing=Weighing(scale=config.scale)
    )
    rounds = Rounds.open(job.folder, _settings(config, job, adaptive, space, target), len(order))
    if rounds.batches and (changed := changed_images(job.folder, job.source)):
        say(f"  {in_words(changed)} changed since: the rounds begin anew")
        rounds = replace(rounds, batches=[], decided=[], stopped=None)
    if not rounds.batches:
        rounds.batches.append(sampler.first())
        rounds.write()
    while True:
        with progress(f"measuring, round {len(rounds.batches)}", "images") as tick:
            measurements = executor.measure(config, replace(job, batches=rounds.batches), tick)
        if rounds.stopped is None:
            rounds.add(sampler.decide(measurements, rounds.batches, rounds.chosen))
            say(_told(rounds, space))
        if rounds.stopped is not None:
            return measurements, rounds


def _settings(
    config: MeasureConfig, job: MeasureJob, adaptive: AdaptiveConfig, space: Space, target: str
) -> dict[str, Any]:
    """All that decides which rows are asked for, JSON-ready."""
    return {
        "measure": {
            **fit_settings(config, config.find_weights()),
            **config.model_dump(include={"images_per_cell", "scale"}),
        },
        "adaptive": adaptive.model_dump(mode="json", include=set(AdaptiveConfig.model_fields)),
        "space": space.fingerprint,
        "source": job.source.fingerprint,
        "targets": {name: catalog.fingerprint for name, catalog in job.targets.items()},
        "photos": {
            name: photos_key(job.folder, name, target_sample(config, catalog)) for name, catalog in job.targets.items()
        },
        "target": target,
    }


def _told(rounds: Rounds, space: Space) -> str:
    """The last round in one line: what was measured, and what the choice is or how it changed."""
    last, chosen = rounds.decided[-1], rounds.chosen
    head = f"  round {len(chosen)}: {last['images']} images, {last['share']:.1%} of all so far; "
    return head + f"{_change(chosen, space)}; expected regret {last['expected_regret']:.2g}"


def _change(chosen: Sequence[Subset], space: Space) -> str:
    if len(chosen) == 1:
        values = chosen[0].values
        return ", ".join(f"{each.name} {len(values[each.name])} of {len(each.values)}" for each in space.attributes)
    before, after = chosen[-2].values, chosen[-1].values
    changes = [
        f"{sign} {name} {', '.join(sorted(values))}"
        for name in after
        for sign, values in (("with", after[name] - before[name]), ("without", before[name] - after[name]))
        if values
    ]
    return "; ".join(changes) if changes else "the same subset"
