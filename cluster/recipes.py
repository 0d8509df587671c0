"""A training from a recipe by its name, and changes to it."""

from typing import Any

from cluster.settings import validate
from finegpr.reid.config import TrainConfig
from finegpr.reid.recipes import recipe

DEFAULT_RECIPE = "paper"
TRAINING = "training"


def with_recipe_of_training(mapping: dict[str, Any], where: str) -> dict[str, Any]:
    """``training.train`` filled in from its recipe. Raises ConfigError."""
    training = mapping.get(TRAINING)
    if not isinstance(training, dict) or not isinstance(train := training.get("train", {}), dict):
        return mapping
    filled = train_config(train, f"{where} training.train").model_dump(mode="json")
    return {**mapping, TRAINING: {**training, "train": filled}}


def train_config(changes: dict[str, Any], where: str) -> TrainConfig:
    """A training from a ``recipe`` by name and changes to its settings. Raises ConfigError."""
    return validate(TrainConfig, with_recipe(changes), where)


def with_recipe(changes: dict[str, Any]) -> dict[str, Any]:
    named = recipe(str(changes.get("recipe", DEFAULT_RECIPE))).model_dump(mode="json")
    if {"epochs", "steps"} & set(changes):
        # Giving one of the two lengths of a training replaces the recipe's, whichever that was.
        named |= {"epochs": None, "steps": None}
    return {**named, **{key: value for key, value in changes.items() if key != "recipe"}}
