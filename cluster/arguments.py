"""What a person typed, put in the order in which the parser reads it.

An option that takes several values takes all that follow it, up to the next option: ``--set a=1 source.parquet`` too.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from typing import get_origin

import tyro

from cluster.options import Verb
from finegpr.errors import ConfigError, did_you_mean

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


def parse(verb: type[Verb], arguments: Sequence[str]) -> Verb:
    """The verb with what was typed. Raises ConfigError in one line; --help prints the manual and leaves."""
    known = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(verb) if not _is_positional(field)]
    for typed in arguments:
        option = typed.partition("=")[0]
        if option.startswith("--") and option not in (*known, "--help"):
            hint = did_you_mean(option, known, otherwise=f"options: {', '.join(known)}")
            raise ConfigError(f"unknown option {option}; {hint}")
    with redirect_stderr(io.StringIO()) as said:
        try:
            return tyro.cli(
                verb,
                args=in_order(verb, arguments),
                prog=f"aost {verb.name()}",
                description="",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        except SystemExit as left:
            if not left.code:
                raise
    raise ConfigError(f"{_in_one_line(said.getvalue())}; `aost {verb.name()} --help` is its manual")


def _in_one_line(box: str) -> str:
    """The words of the parser's first box but the last lines, which name the manual."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    parts = " ".join("|" if set(line) == {"─"} else line for line in lines).split("|")
    return "; ".join(part.strip().rstrip(".") for part in parts[:-1] or parts)


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
