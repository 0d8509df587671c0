"""The verb ``check``: everything that a run checks before it works, and what it would do and take; nothing is run."""

import os
from dataclasses import asdict
from typing import Any

from cluster import options
from cluster.handover import hand_over
from cluster.progress import say
from cluster.settings import load_mapping, override


def check(verb: options.Check) -> dict[str, Any]:
    from cluster.executors.session import ray_session
    from cluster.run.checks import check_begun, check_config, check_data, check_output, unbudgeted, unscored
    from cluster.run.chosen import choose
    from cluster.run.config import run_config

    config = run_config(override(load_mapping(verb.config), verb.set), str(verb.config)).seeded()
    root = config.root(verb.output)
    check_output(root, needed=0)
    check_begun(config, root)
    check_config(config, serial=verb.serial, connect=lambda: ray_session(config.ray))
    say("weights, workers and loggers: as the config says")
    if config.world is not None:
        say("images: rendered first; there are none to check yet")
        return {"output": str(root), "rendered": True, **hand_over({"config": verb.config}, *_run(verb))}

    from cluster.run.arms import known_truth, searched_space
    from cluster.run.data import index_data, index_target
    from cluster.run.estimates import arm_sizes, disk_bytes, estimates
    from finegpr.parts import train_part

    assert config.source is not None
    assert config.target is not None
    (source, note), target = (
        train_part(index_data(config.source, what="source")),
        index_target(config.target, what="target"),
    )
    if note is not None:
        say(note)
    truth = known_truth(config, source, target)
    space = searched_space(config, source)
    said = check_data(config, source, target, space, truth)
    num_images, photos, scored = len(source.part("train")), target.part("train"), bool(len(target.part("query")))
    say(f"source {source.title}: {num_images} images in {len(space.cells)} cells, {len(source.rejected)} left out")
    say(f"target {target.title}: {len(photos)} photos, {'labelled' if scored else 'no query and gallery'}")
    for line in said:
        say(f"  {line}")
    if (note := unscored(config, target)) is not None:
        say(f"  {note}")
    arms = arm_sizes(config, source, space, truth)
    seeds = len(config.seeds)
    for name, size in arms.items():
        say(f"arm {name}: {size}, {seeds} training{'s' if seeds > 1 else ''}")
    if (note := unbudgeted(config)) is not None:
        say(note)
    if config.check is None:
        chosen = choose(config, ())
        say(f"the report is about the choice by {chosen.objective}: {chosen.why}")
    else:
        say("the report is about the choice by the objective that ranks best in the check")
    processes = 1 if verb.serial else config.ray.num_cpus or os.cpu_count() or 1
    found = estimates(config, source, target, space, arms, processes=processes)
    for each in found:
        say(f"{each.what}: {_words(each.amount, each.unit)} ({each.how})")
    check_output(root, needed=disk_bytes(config, source, target, space))
    say(f"output {root}: can be written, and has room. Nothing was run")
    return {
        "output": str(root),
        "source": {"num_images": num_images, "num_cells": len(space.cells), "num_rejected": len(source.rejected)},
        "target": {"num_images": len(target), "num_photos": len(photos), "scored": scored, "note": note},
        "arms": {name: size.num_images for name, size in arms.items()},
        "at_most": [name for name, size in arms.items() if size.at_most],
        "seeds": list(config.seeds),
        "estimates": [asdict(each) for each in found],
        **hand_over({"config": verb.config}, *_run(verb)),
    }


def _run(verb: options.Check) -> list[object]:
    """The command of the run that was looked into."""
    command: list[object] = ["aost", "run", verb.config]
    command += ["--output", verb.output] if verb.output else []
    command += ["--serial"] if verb.serial else []
    return [*command, "--set", *verb.set] if verb.set else command


def _words(amount: float, unit: str) -> str:
    if unit == "s":
        return f"about {amount:.0f} s" if amount < 600 else f"about {amount / 3600:.1f} hours"
    return f"about {amount / 1e6:,.0f} MB" if unit == "bytes" else f"{amount:,.0f}"
