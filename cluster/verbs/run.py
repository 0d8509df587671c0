"""The verbs ``demo`` and ``run``: the main job, on rendered data or on a person's own."""

import shlex
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from cluster import options
from cluster.executors.make import make_executor
from cluster.progress import answer, say
from cluster.run.config import run_config
from cluster.run.folder import RunFolder, fork
from cluster.run.pipeline import run_all
from cluster.run.report import outcome
from cluster.run.state import Run
from cluster.settings import load_mapping, override, parse
from finegpr.atomic import writing
from finegpr.errors import ConfigError


def demo(verb: options.Demo) -> dict[str, Any]:
    text = (resources.files("cluster") / "configs" / "demo.yaml").read_text(encoding="utf-8")
    mapping = {**parse(text, "demo.yaml"), "seed": verb.seed}
    return _main_job(verb, mapping, "demo.yaml", verb.output)


def run(verb: options.Run) -> dict[str, Any]:
    mapping = load_mapping(verb.config)
    return _main_job(verb, mapping, str(verb.config), verb.output)


def _main_job(
    verb: options.Demo | options.Run, mapping: dict[str, Any], where: str, output: Path | None
) -> dict[str, Any]:
    if verb.fork and verb.fresh:
        raise ConfigError("--fork and --fresh exclude each other: one starts a new run, the other changes this one")
    config = run_config(override(mapping, verb.set), where)
    root = config.root(output)
    _require_writable(root)
    if verb.fork:
        root = fork(root)
    job = Run(
        given=config,
        config=config.seeded(),
        folder=RunFolder(root=root, fresh=verb.fresh),
        executor=make_executor(verb.serial, config.ray, num_workers=config.workers, gpu=config.gpu),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )
    made, data = run_all(job)
    told = outcome(job, made, data)
    # The last line a person sees is where to look; with --json that line belongs to the machine.
    say(f"report: {told['report']}") if verb.json else answer(told["report"])
    return told


def _require_writable(folder: Path) -> None:
    """Fail before any work when ``folder`` cannot be written."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # has no name, so none is left behind
