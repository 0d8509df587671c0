"""The stage ``measure``."""

from cluster.executors.base import MeasureJob
from cluster.progress import progress, say
from cluster.run.adaptive import measure_adaptively
from cluster.run.state import TARGET, Run, note
from finegpr.weighing import Weighing
from finegpr.weights import VGG, find_weights


def measure(run: Run) -> None:
    """Distances and sketches of the sampled source images, against the target's photos."""
    config = run.config.measure.model_copy(update={"seed": run.config.measure.seed + run.config.seed})
    photos = run.target_photos
    inputs = {
        "source": run.source.fingerprint,
        TARGET: photos.fingerprint,
        "index": run.keys["index"],
        "attributes": [attribute.name for attribute in run.space.cells.attributes],
        "weights": find_weights(VGG, config.weights, seed=config.seed).sha256,
    }
    settings = config.model_dump(mode="json", exclude={"scale"})
    adaptive = run.config.adaptive
    if adaptive is not None:
        # What is measured hangs on the choice, so on all that a score depends on.
        inputs["space"] = run.space.fingerprint
        settings |= {"adaptive": adaptive.model_dump(mode="json"), "scale": config.scale}
    with run.folder.stage("measure", inputs=inputs, config=settings) as (stage, fields):
        job = MeasureJob(
            source=run.source,
            source_path=run.catalog_path("source"),
            cells=run.space.cells,
            targets={TARGET: photos},
            folder=stage.folder,
        )
        if adaptive is None:
            with progress("measuring", "images") as tick:
                run.measurements = run.executor.measure(config, job, tick)
        else:
            run.measurements, rounds = measure_adaptively(run.executor, config, job, adaptive, run.space, target=TARGET)
            note(run, rounds.summary)
        fields["num_images"] = len(run.measurements.row)
    run.keys["measure"] = run.measurements.fingerprint(TARGET)
    for warning in run.measurements.warnings:
        note(run, warning)
    share = run.measurements.style_share(TARGET, Weighing(scale=config.scale))
    say(f"  {run.measurements.weights}; style is {share:.1%} of the {config.scale} distance")
