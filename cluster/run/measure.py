"""The stage ``measure``: distances and sketches of the sampled source images, against the target's photos."""

from dataclasses import replace
from pathlib import Path

from cluster.executors.base import MeasureJob
from cluster.progress import progress, say
from cluster.run.adaptive import measure_adaptively
from cluster.run.arms import searched_space
from cluster.run.checks import check_data
from cluster.run.folder import PLAN
from cluster.run.state import SOURCE, TARGET, Indexed, Run
from finegpr.errors import ConfigError
from finegpr.measuring.freshness import changed_images, in_words
from finegpr.measuring.known_bad import without_bad
from finegpr.measuring.reference import target_sample
from finegpr.weighing import Weighing
from search.measured import Measured


def measure(run: Run, indexed: Indexed) -> Measured:
    """Measure all that the config samples or, adaptively, what the choice hangs on."""
    config, space, photos = run.config.measure, indexed.space, indexed.photos
    inputs = {
        SOURCE: indexed.source.fingerprint,
        TARGET: photos.fingerprint,
        "photos": indexed.images_key(TARGET, target_sample(config, photos)),
        "index": indexed.key,
        "attributes": [attribute.name for attribute in space.cells.attributes],
        "weights": config.find_weights().sha256,
    }
    settings = config.model_dump(mode="json", exclude={"scale"})
    adaptive = run.config.adaptive
    if adaptive is not None:
        # What is measured hangs on the choice, so on all that a score depends on.
        inputs["space"] = space.fingerprint
        settings |= {"adaptive": adaptive.model_dump(mode="json"), "scale": config.scale}

    def changes(folder: Path) -> str | None:
        changed = changed_images(folder, indexed.source)
        return f"{in_words(changed)} changed since" if changed else None

    with run.folder.stage("measure", inputs=inputs, config=settings, changes=changes) as (stage, fields):
        searched = sorted(run.folder.root.glob(f"search/*/{PLAN}"))
        if searched and not stage.done and not run.folder.fresh:
            raise ConfigError(
                f"{searched[0].parent} was begun by other measurements, as settings or images changed; --fork starts "
                "a new run, --fresh sets its journal aside, or undo the change"
            )
        job = MeasureJob(
            source=indexed.source,
            source_path=indexed.path(SOURCE),
            cells=space.cells,
            targets={TARGET: photos},
            folder=stage.folder,
        )
        if adaptive is None:
            with progress("measuring", "images") as tick:
                measurements = run.executor.measure(config, job, tick)
        else:
            measurements, rounds = measure_adaptively(run.executor, config, job, adaptive, space, target=TARGET)
            run.note(rounds.summary)
        fields["num_images"] = len(measurements.row)
    for warning in measurements.warnings:
        run.note(warning)
    weighing = Weighing(scale=config.scale)
    share = measurements.style_share(TARGET, weighing)
    say(f"  {measurements.weights}; style is {share:.1%} of the {config.scale} distance")
    return Measured(
        measurements=measurements, cells=space.cells, identity=indexed.identity, target=TARGET, weighing=weighing
    )


def leave_out_bad(run: Run, indexed: Indexed, measured: Measured) -> tuple[Indexed, Measured]:
    """Source, space and measurements without the images that measuring found broken.

    Raises InputError when what is left does not hold the budget.
    """
    source, note = without_bad(indexed.source, measured.measurements)
    if note is None:
        return indexed, measured
    run.note(note[0].upper() + note[1:])
    space = searched_space(run.config, source)
    check_data(run.config, source, indexed.target, space, indexed.truth)
    indexed = replace(indexed, source=source, space=space)
    return indexed, replace(measured, cells=space.cells, identity=indexed.identity)
