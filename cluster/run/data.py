"""Where the images are: a folder, or the address of one, and how it is listed."""

from typing import Literal

from pydantic import Field, JsonValue

from cluster.progress import say
from finegpr.catalog import Catalog
from finegpr.config import Config
from finegpr.errors import ConfigError, InputError
from finegpr.reid.queries import ignore_cameras


class DataConfig(Config):
    """An image folder, or the address of one (``s3://bucket/prefix``), its layout, and that layout's options.

    ``title`` is what outputs call it, by default what its renderer, its layout or its folder does.
    """

    root: str
    layout: str
    title: str | None = Field(default=None, min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict)


class TargetConfig(DataConfig):
    """A folder to be scored on: with ``cameras`` ignore no match is left out for its camera."""

    cameras: Literal["known", "ignore"] = "known"


def index_data(data: DataConfig, *, what: str = "") -> Catalog:
    """List one folder, and say what is not usual in it; ``what`` names it in errors.

    Raises ConfigError for options that its layout does not take, and what ``Catalog.index`` raises.
    """
    if "title" in data.options:
        raise ConfigError("title is no option of a layout; say it beside root and layout")
    try:
        catalog = Catalog.index(data.root, layout=data.layout, title=data.title, **data.options)
    except InputError as error:
        raise type(error)(f"{what}: {error}" if what else str(error)) from None
    except TypeError as error:
        raise ConfigError(f"options {data.options} do not fit layout {data.layout}: {error}") from None
    for note in catalog.notes:
        say(f"  {note}")
    return catalog


def index_target(data: TargetConfig, *, what: str = "") -> Catalog:
    """``index_data``, the cameras ignored where it says so."""
    catalog = index_data(data, what=what)
    return catalog if data.cameras == "known" else ignore_cameras(catalog)
