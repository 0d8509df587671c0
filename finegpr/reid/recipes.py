"""Named trainings: a run is one of these values, with a few fields changed."""

from finegpr.errors import ConfigError
from finegpr.reid.config import TrainConfig

RECIPES = {
    "paper": TrainConfig(
        model="resnet50",
        weights="imagenet",
        height=256,
        width=128,
        loss="softmax",
        batch_size=128,
        epochs=120,
        learning_rate=3.5e-4,
        milestones=(40 / 120, 70 / 120),
    ),
    "quick": TrainConfig(
        model="efficientnet_lite0",
        weights="imagenet",
        height=64,
        width=32,
        loss="softmax+triplet",
        batch_size=64,
        steps=300,
        learning_rate=3e-3,
        milestones=(0.75, 0.92),
        save_seconds=30,
    ),
    "seconds": TrainConfig(
        model="small",
        weights="random",
        height=64,
        width=32,
        loss="softmax+triplet",
        batch_size=64,
        steps=300,
        learning_rate=2e-3,
        milestones=(0.75, 0.92),
        save_seconds=30,
    ),
}


def recipe(name: str) -> TrainConfig:
    """A training by name. Raises ConfigError for another.

    ``paper``: AOST's, a ResNet-50 for 120 epochs. ``quick``: a pretrained EfficientNet-Lite0, half a minute on one CPU
    core. ``seconds``: a small net from random weights, seconds on one.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}; known recipes: {', '.join(RECIPES)}")
    return RECIPES[name]
