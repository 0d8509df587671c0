"""The settings of a measurement."""

from pydantic import Field, field_validator

from finegpr.config import Config
from finegpr.device import Precision
from finegpr.measuring.networks import NETWORKS
from finegpr.weighing import Scale, Terms
from finegpr.weights import Weights, find_weights


class MeasureConfig(Config):
    """Settings of the measurement.

    Sizes in pixels. ``network`` is one of NETWORKS. ``weights`` is ``imagenet``, ``random`` or a path (see
    ``finegpr.weights``). ``images_per_cell`` and ``target_images`` cap what is measured by a seeded sample, None = all.
    ``basis_images`` source images give at most ``style_coordinates`` per term of style and ``content_coordinates`` per
    one of content, None = what the network's need. ``scale`` says how search weighs the terms; it does not change what
    is measured. ``precision`` is that of the network's numbers; statistics and distances are float32 either way.
    ``threads`` are fixed because they change the last digits. A shard is what workers share and a kill can cost:
    ``images_per_shard``, None = a sixteenth of what is measured at once, at most 2000, in whole batches.
    """

    height: int = Field(default=256, ge=32, le=1024)
    width: int = Field(default=128, ge=32, le=1024)
    network: str = "efficientnet_lite0"
    weights: str = "imagenet"
    images_per_cell: int | None = Field(default=None, ge=1)
    target_images: int | None = Field(default=2000, ge=1)
    basis_images: int = Field(default=200, ge=2, le=2000)
    style_coordinates: int | None = Field(default=None, ge=1)
    content_coordinates: int | None = Field(default=None, ge=1)
    scale: Scale = "standardised"
    batch_size: int = Field(default=16, ge=1)
    images_per_shard: int | None = Field(default=None, ge=1)
    precision: Precision = "float32"
    threads: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("network")
    @classmethod
    def _known_network(cls, network: str) -> str:
        if network not in NETWORKS:
            raise ValueError(f"no network {network!r}; known networks: {', '.join(NETWORKS)}")
        return network

    @property
    def terms(self) -> Terms:
        """Those of the network's distance."""
        return NETWORKS[self.network].terms

    @property
    def num_coordinates(self) -> tuple[int, ...]:
        """The most coordinates that each term's sketch may have, (T,)."""
        usual, num_style = NETWORKS[self.network].coordinates, len(self.terms.style)
        given = [self.style_coordinates] * num_style + [self.content_coordinates] * (len(usual) - num_style)
        return tuple(own if each is None else each for own, each in zip(usual, given, strict=True))

    def find_weights(self) -> Weights:
        """Where the network's parameters are, and their hash; nothing is built. Raises as ``weights.find_weights``."""
        return find_weights(self.network, self.weights, seed=self.seed)
