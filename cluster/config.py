"""The config of a run: where the data is, how to measure, what to search, what to compare. Its YAML is the recipe."""

from typing import Annotated, Any

from finegpr.reid.train import TrainConfig, recipe
from pydantic import Field, JsonValue, model_validator
from search.loop import SearchConfig
from search.objectives import OBJECTIVES

from cluster.runtime import RayConfig
from finegpr.config import Config
from finegpr.measure import MeasureConfig
from finegpr.render.world import MiniGPRConfig, MiniMarketConfig
from search.space import Budget

RANDOM, EVERYTHING, TRUE = "random", "everything", "true_distribution"
WRONG = "wrong_"


class DataConfig(Config):
    """An image folder, the layout it is in, and that layout's options."""

    root: str
    layout: str
    options: dict[str, JsonValue] = {}


class WorldConfig(Config):
    """The embedded default: a rendered source and a rendered target of known distribution."""

    source: MiniGPRConfig = MiniGPRConfig()
    target: MiniMarketConfig = MiniMarketConfig()


class RunConfig(Config):
    """Everything that decides a run's numbers; ``seed`` moves every random choice below it.

    Either ``world`` (rendered data) or both ``source`` and ``target`` (the user's folders). ``arms`` are compared at
    equal budget, identities and training steps: ``random``, ``everything``, any objective by name, a name in
    ``subsets``, and, where the target's distribution is known, ``true_distribution`` and ``wrong_<attribute>``.
    ``keep`` names the arm whose model is trained through Ray Train and kept.
    """

    name: str
    output: str | None = None
    seed: int = 0
    world: WorldConfig | None = None
    source: DataConfig | None = None
    target: DataConfig | None = None
    measure: MeasureConfig = MeasureConfig()
    budget: Budget
    search: SearchConfig = SearchConfig()
    arms: Annotated[tuple[str, ...], Field(min_length=1)] = (RANDOM, "mmd_rbf")
    subsets: dict[str, dict[str, tuple[str, ...]]] = {}
    truth: dict[str, tuple[str, ...]] | None = None
    keep: str | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    train: TrainConfig = TrainConfig()
    workers: Annotated[int, Field(ge=1)] = 1
    gpu: bool = False
    ray: RayConfig = RayConfig()

    @model_validator(mode="before")
    @classmethod
    def _expand_recipe(cls, data: Any) -> Any:
        """``train.recipe`` names the settings that the other ``train`` keys change."""
        if isinstance(data, dict) and isinstance(data.get("train"), dict) and "recipe" in data["train"]:
            changes = dict(data["train"])
            named = recipe(str(changes.pop("recipe")))
            return {**data, "train": {**named.model_dump(mode="json"), **changes}}
        return data

    @model_validator(mode="after")
    def _is_whole(self) -> "RunConfig":
        if (self.world is None) == (self.source is None and self.target is None):
            raise ValueError("give either world (rendered data) or source and target (your folders)")
        if self.world is None and (self.source is None or self.target is None):
            raise ValueError("source and target belong together; one of them is missing")
        known = {RANDOM, EVERYTHING, TRUE, *OBJECTIVES, *self.subsets}
        unknown = [arm for arm in self.arms if arm not in known and not arm.startswith(WRONG)]
        if unknown:
            raise ValueError(f"unknown arm {unknown[0]!r}; known: {', '.join(sorted(known))}, wrong_<attribute>")
        if len(set(self.arms)) != len(self.arms) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("arms and seeds should each be named once")
        if self.keep is not None and self.keep not in self.arms:
            raise ValueError(f"keep: {self.keep!r} is not one of the arms {', '.join(self.arms)}")
        return self

    @property
    def objectives(self) -> tuple[str, ...]:
        """The arms that are searched."""
        return tuple(arm for arm in self.arms if arm in OBJECTIVES)
