"""The options that several verbs have."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Options that every verb has."""

    json: bool = False
    """Print one JSON object with the results as the last line of standard output."""
    debug: bool = False
    """Show the traceback of an error."""

    @classmethod
    def name(cls) -> str:
        """What a person types."""
        return cls.__name__.lower()


@dataclass(frozen=True, kw_only=True)
class Settable(Verb):
    """Options of the verbs that --set changes."""

    settings: bool = False
    """Print every setting that --set takes, with its default and what it does, and do nothing else."""


@dataclass(frozen=True, kw_only=True)
class MainJob(Settable):
    """Options of the verbs that do the main job."""

    set: tuple[str, ...] = ()
    """Settings to change, such as measure.images_per_cell=1 train.recipe=seconds seeds=[0,1]."""
    serial: bool = False
    """Without Ray: one process, the reference."""
    fork: bool = False
    """Changed settings: start a new run folder beside this one, sharing what has not changed."""
    fresh: bool = False
    """Changed settings: set the journals they contradict aside and begin these stages again."""


@dataclass(frozen=True, kw_only=True)
class Kept(Settable):
    """Options of the verbs whose output is a folder in which work goes on."""

    fresh: bool = False
    """Other settings or inputs than the output was begun with: set what it holds aside and begin again."""
