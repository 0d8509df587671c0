"""Where the images are: a person's folders, or a world to be rendered."""

from pydantic import Field, JsonValue

from finegpr.catalog import Catalog
from finegpr.config import Config
from finegpr.errors import ConfigError
from finegpr.render.minigpr import MiniGPRConfig
from finegpr.render.minimarket import MiniMarketConfig


class DataConfig(Config):
    """An image folder, or the address of one (``s3://bucket/prefix``), its layout, and that layout's options."""

    root: str
    layout: str
    options: dict[str, JsonValue] = Field(default_factory=dict)


class WorldConfig(Config):
    """The embedded default: a rendered source and a rendered target of known distribution."""

    source: MiniGPRConfig = MiniGPRConfig()
    target: MiniMarketConfig = MiniMarketConfig()

    def seeded(self, seed: int) -> "WorldConfig":
        """The same world with ``seed`` added to both of its own."""
        source = self.source.model_copy(update={"seed": self.source.seed + seed})
        target = self.target.model_copy(update={"seed": self.target.seed + seed})
        return self.model_copy(update={"source": source, "target": target})


def index_data(data: DataConfig) -> Catalog:
    """List one folder. Raises ConfigError for options that its layout does not take."""
    try:
        return Catalog.index(data.root, layout=data.layout, **data.options)
    except TypeError as error:
        raise ConfigError(f"options {data.options} do not fit layout {data.layout}: {error}") from None
