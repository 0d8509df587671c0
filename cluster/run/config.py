"""The config of a run: where the data is, how to measure, what to search, what to compare. Its YAML is the recipe."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from cluster.executors.loggers import Logger
from cluster.executors.session import RayConfig
from cluster.executors.training_config import TrainingVerbConfig
from cluster.recipes import TRAINING, with_recipe, with_recipe_of_training
from cluster.run.data import DataConfig, TargetConfig
from cluster.settings import validate
from finegpr.config import Config
from finegpr.errors import ConfigError, did_you_mean
from finegpr.home import from_home
from finegpr.measuring.config import MeasureConfig
from finegpr.reid.config import TrainConfig
from finegpr.render.minigpr import MiniGPRConfig
from finegpr.render.minimarket import MiniMarketConfig
from finegpr.storage import path_part
from search.adaptive.sampler import AdaptiveConfig
from search.analysis.fairness import FairnessConfig
from search.analysis.true_ranking import CheckConfig
from search.loop import SearchConfig
from search.objectives import OBJECTIVES
from search.report.data import Photos
from search.rounds import RoundsConfig
from search.selectors import SELECTORS
from search.space import Budget, SpaceConfig

RANDOM, EVERYTHING, TRUE = "random", "everything", "true_distribution"
WRONG, CHECKED, ALL = "wrong_", "checked_", "all_"
EVIDENCE = "evidence"


class WorldConfig(Config):
    """The embedded default: a rendered source and a rendered target of known distribution."""

    source: MiniGPRConfig = MiniGPRConfig()
    target: MiniMarketConfig = MiniMarketConfig()

    def seeded(self, seed: int) -> "WorldConfig":
        """The same world with ``seed`` added to both of its own."""
        source = self.source.model_copy(update={"seed": self.source.seed + seed})
        target = self.target.model_copy(update={"seed": self.target.seed + seed})
        return self.model_copy(update={"source": source, "target": target})


class AdaptiveVerbConfig(AdaptiveConfig):
    """Adaptive sampling outside a run: ``budget``, ``space`` and ``attributes`` are those of the search to come,
    ``target`` says which of several decides."""

    budget: Budget
    space: SpaceConfig = SpaceConfig()
    attributes: tuple[str, ...] | None = None
    target: str | None = None


class MeasureVerbConfig(MeasureConfig):
    """The settings of the verb ``measure``; with ``adaptive``, only the images that its objective's choice hangs on."""

    adaptive: AdaptiveVerbConfig | None = None

    @property
    def plain(self) -> MeasureConfig:
        """The settings of the measurement alone."""
        return MeasureConfig.model_validate(self.model_dump(exclude={"adaptive"}))


class RunTrainingConfig(TrainingVerbConfig):
    """The short trainings that score subsets in a run: how, where, and how many subsets the arm ``training`` tries."""

    evaluations: int = Field(default=24, gt=0)


class ReportConfig(Config):
    """What a run's report shows. ``photos``: how example images appear; None shows what this project has rendered, and
    blurs everything else, which may be photos of people."""

    photos: Photos | None = None


class RunConfig(Config):
    """Everything that decides a run's numbers; ``seed`` moves every random choice below it.

    Either ``world`` (rendered data) or both ``source`` and ``target`` (the user's folders). ``arms`` are compared at
    equal budget, identities and training steps: ``random``, ``everything``, any objective or selector by name, a name
    in ``subsets``, and, where the target's distribution is known, ``true_distribution`` and ``wrong_<attribute>``.
    ``all_<arm>`` trains on every image of the values that the arm chose, whether or not it is compared itself. That and
    ``everything`` take no budget of images, and of identities those whom the sampler draws from the same values.
    ``space`` bounds what is searched; with ``rounds``, the search is done anew as the target's images arrive;
    ``fairness`` refuses manifests from which people of some value have all but gone.
    ``choose_by`` says which search the report is about: the name of an objective, or of an arm that takes all which
    matches its choice; or ``evidence``: where there is a
    ``check``, the objective that ranks best in it, else ``search.objective``, or the next best in the study's order.
    ``keep`` names the arm whose model is trained through Ray Train, by ``workers`` processes. Without ``arms``, the
    search's objective is compared with random and everything. ``train`` takes a ``recipe`` and changes to it. With
    ``adaptive``, no more of the source is measured than the choice by one objective needs. ``loggers`` show trainings
    elsewhere while they run on Ray.
    With ``training``, the arm ``training`` is searched by short trainings, scored on the target's validation part; with
    ``check`` too, so are the favourites of every other search, and ``checked_<objective>`` is the best of them.
    """

    name: str = Field(min_length=1)
    output: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    world: WorldConfig | None = None
    source: DataConfig | None = None
    target: TargetConfig | None = None
    measure: MeasureConfig = MeasureConfig()
    adaptive: AdaptiveConfig | None = None
    budget: Budget
    space: SpaceConfig = SpaceConfig()
    search: SearchConfig = SearchConfig()
    rounds: RoundsConfig | None = None
    fairness: FairnessConfig | None = None
    arms: tuple[str, ...] = ()
    subsets: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict)
    truth: dict[str, tuple[str, ...]] | None = None
    choose_by: str = EVIDENCE
    keep: str | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    train: TrainConfig
    workers: Annotated[int, Field(ge=1)] = 1
    gpu: bool = False
    training: RunTrainingConfig | None = None
    check: CheckConfig | None = None
    loggers: tuple[Logger, ...] = ("tensorboard",)
    report: ReportConfig = ReportConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _is_whole(self) -> "RunConfig":
        if (self.world is None) == (self.source is None and self.target is None):
            raise ValueError("give either world (rendered data) or source and target (your folders)")
        if self.world is None and (self.source is None or self.target is None):
            raise ValueError("source and target belong together; one of them is missing")
        reserved = {RANDOM, EVERYTHING, TRUE, TRAINING, *OBJECTIVES, *SELECTORS}
        for name in self.subsets:
            taken = name in reserved or name.startswith((WRONG, CHECKED, ALL))
            if taken or not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name):
                raise ValueError(
                    f"subsets: {name!r} should be a new name of letters, digits, - and _, which does not begin with "
                    f"{WRONG}, {CHECKED} or {ALL}"
                )
        known = {*reserved, *self.subsets}
        known |= {TRAINING, *(CHECKED + objective for objective in self.objectives)}
        no_values = {RANDOM, EVERYTHING, *SELECTORS}
        for arm in self.arms:
            if arm.startswith(ALL) and arm.removeprefix(ALL) in no_values:
                raise ValueError(
                    f"arm {arm!r} should take all images of the values that an arm chose, and {arm.removeprefix(ALL)} "
                    f"chooses none; name {EVERYTHING}, or {ALL} and an arm that does, such as {ALL}mmd_rbf"
                )
        known |= {ALL + arm for arm in known - no_values}
        unknown = [arm for arm in self.arms if arm not in known and not arm.removeprefix(ALL).startswith(WRONG)]
        if unknown:
            every = f"known: {', '.join(sorted(known))}, wrong_<attribute>, all_wrong_<attribute>"
            raise ValueError(f"unknown arm {unknown[0]!r}; {did_you_mean(unknown[0], sorted(known), otherwise=every)}")
        if len(set(self.arms)) != len(self.arms) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("arms and seeds should each be named once")
        if not self.objectives:
            raise ValueError(f"arms should name an objective to search by: {', '.join(OBJECTIVES)}")
        by_training = [arm for arm in self.choosers if arm == TRAINING or arm.startswith(CHECKED)]
        if by_training and self.training is None:
            raise ValueError(f"arm {by_training[0]} needs short trainings; describe them in training")
        if self.check is not None and (self.training is None or self.training.score != "mAP"):
            raise ValueError("check trains a search's favourites and ranks them by mAP; say how in training")
        if self.check is None and (checked := [arm for arm in by_training if arm != TRAINING]):
            raise ValueError(f"arm {checked[0]} is the best of a check; say by check how many are trained")
        if self.training is not None and self.check is None and TRAINING not in self.choosers:
            raise ValueError("training is not used: add the arm training, or check")
        choices = (*self.objectives, *(arm for arm in self.arms if arm.removeprefix(ALL) in self.objectives))
        if self.choose_by not in (EVIDENCE, *choices):
            advice = did_you_mean(self.choose_by, (EVIDENCE, *choices))
            raise ValueError(
                f"choose_by should be {EVIDENCE} or one of the searched objectives, "
                f"{', '.join(dict.fromkeys(choices))}, got {self.choose_by!r}{f'; {advice}' if advice else ''}"
            )
        if self.keep is not None and self.keep not in self.arms:
            raise ValueError(f"keep: {self.keep!r} is not one of the arms {', '.join(self.arms)}")
        return self

    @property
    def choosers(self) -> tuple[str, ...]:
        """The arms, and in place of each ``all_<arm>`` the arm whose values it takes; each once."""
        return tuple(dict.fromkeys(arm.removeprefix(ALL) for arm in self.arms))

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives that are searched by, of measurements."""
        return tuple(arm for arm in self.choosers if arm in OBJECTIVES)

    def arm_of(self, search: str) -> str:
        """The arm that trains on what a search chose; that with all of it, where ``choose_by`` or ``arms`` say so."""
        return ALL + search if self.choose_by == ALL + search or search not in self.arms else search

    def sub_seed(self, own: int) -> int:
        """What a part whose own seed is ``own`` draws by: the run's seed moves all of them."""
        return self.seed + own

    def root(self, output: Path | None) -> Path:
        """The run folder: ``output`` where it is given, else the config's own, else by its name under ``runs``."""
        return output or from_home(self.output or f"runs/{path_part(self.name)}")

    def search_settings(self, objective: str) -> dict[str, Any]:
        """All that the search by one objective depends on, but the measurements."""
        search = self.search.model_copy(update={"objective": objective})
        settings = {**search.model_dump(mode="json"), "budget": self.budget.model_dump(mode="json")}
        settings["scale"] = self.measure.scale
        if self.space != SpaceConfig():
            settings["space"] = self.space.model_dump(mode="json")
        if self.rounds is not None:
            settings["rounds"] = self.rounds.model_dump(mode="json")
        return settings

    def seeded(self) -> "RunConfig":
        """The same run with the seeds of its parts resolved: those of the world, the measuring and the search."""
        measure = self.measure.model_copy(update={"seed": self.sub_seed(self.measure.seed)})
        search = self.search.model_copy(update={"seed": self.sub_seed(self.search.seed)})
        world = None if self.world is None else self.world.seeded(self.seed)
        return self.model_copy(update={"measure": measure, "search": search, "world": world})


def run_config(mapping: dict[str, Any], where: str) -> RunConfig:
    """A run's config from what its YAML says; ``where`` names it in errors. Raises ConfigError."""
    train = mapping.get("train", {})
    if isinstance(train, dict):
        mapping = {**mapping, "train": with_recipe(train)}
    return validate(RunConfig, _with_arms(with_recipe_of_training(mapping, where)), where)


def _with_arms(mapping: dict[str, Any]) -> dict[str, Any]:
    """Without ``arms``, the search's objective is compared with random and everything."""
    search = mapping.get("search")
    objective = search.get("objective") if isinstance(search, dict) else None
    if not mapping.get("arms"):
        return {**mapping, "arms": [RANDOM, objective or SearchConfig().objective, EVERYTHING]}
    if objective is not None and objective not in OBJECTIVES:
        hint = did_you_mean(str(objective), OBJECTIVES, otherwise=f"known: {', '.join(OBJECTIVES)}")
        raise ConfigError(f"search.objective: no objective {objective!r}; {hint}")
    if objective is not None and not {objective, f"{ALL}{objective}"} & set(mapping["arms"]):
        raise ConfigError(f"search.objective {objective!r} is not among the arms; a run searches by its arms")
    return mapping
