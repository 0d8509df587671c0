"""Which search a run is about, by a rule that is stated, and the files of every arm by their paths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.run.arms import in_words
from cluster.run.config import ALL, EVIDENCE, RunConfig
from cluster.run.folder import RunFolder
from cluster.run.state import Manifest, Trained
from cluster.search_measured import SUBSET
from finegpr.reid.config import TrainConfig
from finegpr.reid.job import METRICS
from finegpr.reid.recipes import RECIPES
from search.analysis.compare import RankAgreement
from search.analysis.words import decimals
from search.report.data import ArmFacts

# In the order of results/: mmd_rbf ranks arms as training does, the next two see best what a target is made of, and
# the mean distance does harm. Objectives that no record holds come last.
STUDIED = ("mmd_rbf", "mmd_posterior", "attribute_shares", "mmd_linear", "frechet", "mean_distance")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The objective whose choice a run is about, and why it is this one."""

    objective: str
    why: str


def choose(config: RunConfig, rankings: Sequence[RankAgreement]) -> Chosen:
    """By ``choose_by``; the order of the arms has no say. ``rankings`` are of the checks by short trainings, which see
    the target's validation part: the scores of the arms themselves decide nothing."""
    if config.choose_by != EVIDENCE:
        return Chosen(objective=config.choose_by.removeprefix(ALL), why="choose_by names it")
    known = sorted(config.objectives, key=lambda name: (*_place(name), name))
    ranked = [each for each in rankings if each.spearman is not None and each.objective in known]
    if ranked:
        best = min(ranked, key=lambda each: (-(each.spearman or 0.0), each.regret, known.index(each.objective)))
        among = f"best of {len(ranked)} objectives" if len(ranked) > 1 else "the only objective in it"
        why = f"the check by true training: {among}, Spearman {decimals(best.spearman)} over {len(best.arms)} subsets"
        return Chosen(objective=best.objective, why=why)
    without = "the check by true training could not rank" if rankings else "no check by true training"
    if config.search.objective in known:
        return Chosen(objective=config.search.objective, why=f"{without}, so the default, search.objective")
    return Chosen(objective=known[0], why=f"{without}, so the first in the order of results/")


def _place(name: str) -> tuple[int]:
    return (STUDIED.index(name) if name in STUDIED else len(STUDIED),)


def arm_files(
    folder: RunFolder, manifests: Sequence[Manifest], trained: Sequence[Trained]
) -> dict[str, dict[str, Path]]:
    """Of every arm, for the run's first seed: subset, manifest, model and metrics, as far as it has them."""
    files: dict[str, dict[str, Path]] = {}
    for manifest in manifests:
        files.setdefault(manifest.arm.name, {"manifest": manifest.path})
    for name, found in files.items():
        if (subset := folder.root / "search" / name.removeprefix(ALL) / SUBSET).exists():
            files[name] = {"subset": subset, **found}
    for each in reversed(trained):  # the first seed's come last, and stay
        models = {"model": each.stage.folder / "model" / "model.safetensors", "metrics": each.stage.folder / METRICS}
        files[each.arm] |= {what: path for what, path in models.items() if path.exists()}
    return files


def arm_facts(config: RunConfig, manifests: Sequence[Manifest], trained: Sequence[Trained]) -> tuple[ArmFacts, ...]:
    """What every arm trains on, and what its trainings took, for the run's first seed."""
    seconds: dict[str, float] = {}
    for each in reversed(trained):
        seconds[each.arm] = float((each.stage.marker or {}).get("seconds", 0.0))
    facts: dict[str, ArmFacts] = {}
    for manifest in manifests:
        name = manifest.arm.name
        if name not in facts:
            facts[name] = ArmFacts(
                arm=name,
                num_images=manifest.num_images,
                num_identities=len(manifest.people),
                seconds=seconds.get(name),
                words=in_words(name, config),
            )
    return tuple(facts.values())


def train_command(manifest: Path, config: TrainConfig, *, seed: int, output: Path) -> list[object]:
    """The command that trains on a manifest as the run did, in this process."""
    given = config.model_dump(mode="json")
    changes = {name: _changes(recipe.model_dump(mode="json"), given) for name, recipe in RECIPES.items()}
    nearest = min(changes, key=lambda name: len(changes[name]))
    settings = [f"{name}={_written(value)}" for name, value in changes[nearest].items()]
    command = ["aost", "train", manifest, "--recipe", nearest, "--seed", seed, "--output", output]
    return [*command, "--set", *settings] if settings else command


def _changes(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What differs; of epochs and steps, the one that is given replaces the other."""
    changed = {name: value for name, value in given.items() if recipe[name] != value}
    return {name: value for name, value in changed.items() if name not in ("epochs", "steps") or value is not None}


def _written(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
