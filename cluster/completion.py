"""Completion of verbs, options and their choices in a shell: ``eval "$(aost --completion bash)"``, or zsh.

What is neither is completed as the name of a file. The scripts run nothing of ours, so a Tab costs no start of Python.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

import tyro

from cluster.options import Verb
from finegpr.errors import ConfigError

BASH = """\
_aost() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" verb="${{COMP_WORDS[1]}}" words=""
    if (( COMP_CWORD == 1 )); then
        words={verbs}
    elif [[ $word == -* ]]; then
        case "$verb" in
{options}
        esac
    else
        case "$verb ${{COMP_WORDS[COMP_CWORD - 1]}}" in
{choices}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _aost aost
"""
ZSH = """\
whence compdef >/dev/null || {{ autoload -U compinit && compinit; }}
_aost() {{
    local words_=""
    if (( CURRENT == 2 )); then
        words_={verbs}
    elif [[ $words[CURRENT] == -* ]]; then
        case "$words[2]" in
{options}
        esac
    else
        case "$words[2] $words[CURRENT - 1]" in
{choices}
        esac
    fi
    if [[ -n $words_ ]]; then
        compadd -- ${{=words_}}
    else
        _files
    fi
}}
compdef _aost aost
"""
SHELLS = {"bash": (BASH, "words"), "zsh": (ZSH, "words_")}


def script(shell: str, verbs: Sequence[type[Verb]]) -> str:
    """The completion of ``aost`` for a shell to evaluate. Raises ConfigError for a shell that is not in SHELLS."""
    if shell not in SHELLS:
        raise ConfigError(f"--completion takes {' or '.join(SHELLS)}, got {shell!r}")
    template, variable = SHELLS[shell]

    def cases(words: dict[str, Sequence[str]]) -> str:
        return "\n".join(
            f"            {shlex.quote(when)}) {variable}={shlex.quote(' '.join(each))} ;;"
            for when, each in words.items()
        )

    return template.format(
        verbs=shlex.quote(" ".join([*(verb.name() for verb in verbs), "--help"])),
        options=cases({verb.name(): [*options(verb), "--help"] for verb in verbs}),
        choices=cases(
            {f"{verb.name()} {name}": words for verb in verbs for name, words in options(verb).items() if words}
        ),
    )


def options(verb: type[Verb]) -> dict[str, Sequence[str]]:
    """The options of a verb as they are typed, each with its choices, if it has a choice of words."""
    return {
        "--" + field.name.replace("_", "-"): _choices(field.type)
        for field in dataclasses.fields(verb)
        if tyro.conf.Positional not in getattr(field.type, "__metadata__", ())
    }


def _choices(kind: Any) -> Sequence[str]:
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [word for below in get_args(kind) for word in _choices(below)]
