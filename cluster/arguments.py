"""What a person typed, put in the order in which the parser reads it.

An option that takes several values takes all that follow it, up to the next option: ``--set a=1 source.parquet`` too.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import get_origin

import tyro

from cluster.options import Verb
from finegpr.errors import ConfigError

SET = "--set"


def in_order(verb: type[Verb], arguments: Sequence[str]) -> list[str]:
    """The arguments, with what is no setting after --set where the positional ones that are missing are read.

    Raises ConfigError where another option may have taken them.
    """
    fields = dataclasses.fields(verb)
    positional = [field for field in fields if _is_positional(field)]
    groups = list(_groups(fields, arguments))
    missing = len(positional) - sum(len(values) for option, values in groups if option is None)
    found: list[str] = []
    rest: list[str] = []
    for option, values in groups:
        if option is None:
            found += values
            continue
        strays = [value for value in values if "=" not in value][: max(missing, 0)] if option == SET else []
        missing -= len(strays)
        found += strays
        rest += [option, *(value for value in values if value not in strays)]
    required = [field.name for field in positional if field.default is dataclasses.MISSING]
    greedy = next((option for option, values in groups if option is not None and len(values) > 1), None)
    if len(found) < len(required) and greedy is not None:
        raise ConfigError(f"no {required[len(found)]} given; it comes before {greedy}, which takes all that follows it")
    return [*found, *rest]


def _groups(
    fields: Sequence[dataclasses.Field[object]], arguments: Sequence[str]
) -> Iterator[tuple[str | None, list[str]]]:
    """Every option with the values that it takes; None for the positional ones."""
    takes = {"--" + field.name.replace("_", "-"): _takes(field) for field in fields if not _is_positional(field)}
    at = 0
    while at < len(arguments):
        option = arguments[at] if arguments[at].startswith("-") else None
        start = at if option is None else at + 1
        # Of an option that is not known, nothing is: the parser will say so.
        most = 1 if option is None else takes.get(option, 0)
        at = start
        while at < len(arguments) and at - start < most and not arguments[at].startswith("--"):
            at += 1
        yield option, list(arguments[start:at])


def _takes(field: dataclasses.Field[object]) -> int:
    """How many values an option takes at most."""
    if field.type is bool:
        return 0
    return 1_000_000 if get_origin(field.type) is tuple else 1


def _is_positional(field: dataclasses.Field[object]) -> bool:
    return tyro.conf.Positional in getattr(field.type, "__metadata__", ())
