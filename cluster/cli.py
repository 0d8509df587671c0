"""The command line ``aost``: from arguments to a verb, and from what it raises to one line and an exit code."""

import importlib
import inspect
import json
import logging
import os
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from cluster.arguments import parse
from cluster.environment import Streams, keep_working_folder_out, require_utf8
from cluster.options import Verb
from cluster.verbs import VERBS
from finegpr.errors import AostError, ConfigError, WriteError, did_you_mean
from finegpr.faults import of_machine
from finegpr.home import from_home
from finegpr.visible import visible

EXIT_TERMINATED = 75
EXIT_INTERRUPTED = 130
# After SIGTERM a Ray job has three seconds before it is killed; whatever still hangs by then is left behind.
GRACE_SECONDS = 1.5


class _Visible(logging.Formatter):
    """What is logged, each line of it with its control characters made visible."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(visible, super().format(record).splitlines()))


class _Terminated(BaseException):
    """SIGTERM arrived; everything finished so far is on disk."""


def _help() -> str:
    lines = [f"  {verb.name():10}{(verb.__doc__ or '').splitlines()[0]}" for verb in VERBS]
    return "\n".join(
        (
            "usage: aost VERB [options]",
            "",
            "Choose which part of an attribute-labelled synthetic data set to train on, for a target you only have",
            "photos of. Start with: aost demo",
            "",
            *lines,
            "",
            "aost VERB --help shows a verb's options, with examples; aost VERB --settings what its --set takes.",
            'Completion on Tab: eval "$(aost --completion bash)" in ~/.bashrc, or zsh in ~/.zshrc.',
        )
    )


def _manual(verb: type[Verb]) -> str:
    """The text of a verb: examples and what is indented as they stand, paragraphs filled to the terminal's width."""
    width = min(shutil.get_terminal_size().columns, 100)
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    return "\n\n".join(
        text if text.startswith(("Example: ", " ")) else textwrap.fill(text, width, break_on_hyphens=False)
        for text in paragraphs
    )


def _parse(arguments: list[str]) -> Verb:
    name, *rest = arguments or [""]
    verbs = {verb.name(): verb for verb in VERBS}
    if name in ("-h", "--help"):
        print(_help())
        sys.exit(0)
    if name == "--completion":
        from cluster.completion import script

        print(script(" ".join(rest), list(VERBS)), end="")
        sys.exit(0)
    if not arguments:
        print(_help(), end="\n\n", file=sys.stderr)
        raise ConfigError("no verb given; the verbs are listed above")
    if name not in verbs:
        advice = did_you_mean(name, verbs, otherwise=f"verbs: {', '.join(verbs)}")
        raise ConfigError(f"unknown verb {name!r}; {advice}")
    if rest.count("--set") > 1:
        raise ConfigError("--set is there twice; give all settings after one --set")
    if {"-h", "--help"} & set(rest):
        print(_manual(verbs[name]), end="\n\n")
    elif "--settings" in rest:
        from cluster.manual import settings

        print(settings(verbs[name]), end="")
        sys.exit(0)
    parsed = parse(verbs[name], rest)
    return replace(parsed, **{field.name: _from_home(getattr(parsed, field.name)) for field in fields(parsed)})


def _require_text(arguments: list[str]) -> None:
    """Raises ConfigError for names that are not UTF-8: neither a table nor Ray could hold them."""
    try:
        working = str(Path.cwd())
    except OSError as error:
        raise ConfigError(f"the working directory cannot be read ({error.strerror}); change to another one") from None
    for name in (*arguments, working):
        if (given := os.fsencode(name).decode("utf-8", "backslashreplace")) != name:
            raise ConfigError(f"{given} is not valid UTF-8; rename it, or give a link to it that has another name")


def _from_home(given: Any) -> Any:
    """An option with ``~`` in its paths expanded: no shell does that in ``--output=~/x``."""
    if isinstance(given, tuple):
        return tuple(map(_from_home, given))
    return from_home(given) if isinstance(given, Path) else given


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of ``aost``; exits with the codes that README lists."""
    require_utf8()
    keep_working_folder_out()
    streams = Streams()
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as left:  # of a help, or of what is wrong with options
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    if code == 0 and (reason := streams.lost()) is not None:
        code = _fail(f"the work is done, but standard output cannot be written: {reason}", WriteError.exit_code, Verb())
    # Nothing of ours is left to do. What libraries do at an exit takes seconds, and now and then aborts the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors become one line on standard error."""
    _install_signals()
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Visible())
    verb = Verb(json="--json" in arguments, debug="--debug" in arguments)
    try:
        _require_text(arguments)
        verb = _parse(arguments)
        result = _do(verb)
        if verb.json:
            print(json.dumps(result, sort_keys=True, allow_nan=False))
        return 0
    except AostError as error:
        return _fail(str(error), error.exit_code, verb)
    except KeyboardInterrupt:
        return _fail("interrupted; finished work is saved, the same command resumes", EXIT_INTERRUPTED, verb)
    except _Terminated:
        return _fail("terminated; finished work is saved, the same command resumes", EXIT_TERMINATED, verb)
    except Exception as error:
        if (fault := of_machine(error)) is None:
            raise
        return _fail(str(fault), fault.exit_code, verb)


def _do(verb: Verb) -> dict[str, Any]:
    """Do the work of a verb and return what ``--json`` prints."""
    module, function = VERBS[type(verb)].split(":")
    result: dict[str, Any] = getattr(importlib.import_module(module), function)(verb)
    return result


def _fail(message: str, code: int, verb: Verb) -> int:
    if verb.debug:
        print("\n".join(map(visible, traceback.format_exc().splitlines())), file=sys.stderr)
    line = " ".join(message.split())
    print(f"aost: {visible(line)}", file=sys.stderr, flush=True)
    if verb.json:
        print(json.dumps({"error": line, "exit_code": code}), flush=True)
    return code


def _install_signals() -> None:
    """The first signal unwinds, so that files are closed; the second ends the process at once.

    After SIGTERM a hang ends it too, because whoever sends one kills soon; Ctrl-C waits for a second one.
    """

    def leave(code: int) -> None:
        timer = threading.Timer(GRACE_SECONDS, os._exit, (code,))
        timer.daemon = True
        timer.start()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        leave(EXIT_TERMINATED)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))
        raise _Terminated

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)


if __name__ == "__main__":
    main()
