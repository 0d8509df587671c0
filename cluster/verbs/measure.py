"""The verb ``measure``: distances and sketches of a source against targets, in one pass, or from sketches."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import options
from cluster.executors.base import Executor, MeasureJob
from cluster.executors.make import make_executor
from cluster.executors.session import RayConfig
from cluster.handover import hand_over
from cluster.inputs import read_source
from cluster.outputs import ASKED, begin
from cluster.progress import progress, say
from cluster.run.config import AdaptiveVerbConfig, MeasureVerbConfig
from cluster.settings import override, validate
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.files import DERIVED_MARKER, REFERENCE_MARKER, basis_contents, read_record, target_contents
from finegpr.measuring.reference import LEAST_UNCHANGED, basis_sample, share_unchanged, target_sample
from finegpr.measuring.results import Measurements, basis_hash
from finegpr.storage import locked, read_json, write_json
from finegpr.weighing import Scale, Weighing


def measure(verb: options.Measure) -> dict[str, Any]:
    if verb.from_sketches is not None:
        return _measure_from_sketches(verb, verb.from_sketches)
    if verb.catalog is None:
        raise ConfigError(
            "nothing to measure; give the source's catalog, before --targets, which takes all that follows it, or "
            "--from-sketches and a measurement"
        )
    if (verb.output / DERIVED_MARKER).exists():
        raise ConfigError(f"{verb.output} holds targets that were added --from-sketches; choose another --output")
    settings = validate(MeasureVerbConfig, override({}, verb.set), "--set")
    config, adaptive = settings.plain, settings.adaptive
    source = read_source(verb.catalog)
    targets = _targets(verb)
    names = [attribute.name for attribute in source.image_attributes]
    job = MeasureJob(
        source=source,
        source_path=verb.catalog,
        cells=source.cells([name for name in names if name != "scene"]),
        targets=targets,
        folder=verb.output,
    )
    facts: dict[str, Any] = {}
    executor = make_executor(verb.serial, RayConfig())
    try:
        with locked(verb.output):
            _follow_roots(config, job)
            begin(verb.output, _asked(config, adaptive, job), fresh=verb.fresh)
            if adaptive is None:
                with progress("measuring", "images") as tick:
                    measured = executor.measure(config, job, tick)
            else:
                measured, facts = _measure_adaptively(executor, config, job, adaptive)
    finally:
        executor.close()
    return {**_tell(measured, verb.output, config.scale), **facts, **_next_search(verb, measured)}


def _asked(config: MeasureConfig, adaptive: AdaptiveVerbConfig | None, job: MeasureJob) -> dict[str, Any]:
    """All that a measurement depends on but the images' bytes: those that change are measured anew in it."""
    return {
        "settings": config.model_dump(mode="json", exclude={"scale"}),
        "weights": config.find_weights().sha256,
        "adaptive": None if adaptive is None else adaptive.model_dump(mode="json"),
        "source": job.source.fingerprint,
        "targets": {name: catalog.fingerprint for name, catalog in job.targets.items()},
        "images": {"source": str(job.source.root), **_images_of(job.targets)},
    }


def _images_of(targets: Mapping[str, Catalog]) -> dict[str, str]:
    return {f"target {name}": str(catalog.root) for name, catalog in targets.items()}


def _follow_roots(config: MeasureConfig, job: MeasureJob) -> None:
    """Write down of images that were copied or moved where they are now. What holds other images is another input."""
    asked = read_json(job.folder / ASKED) if (job.folder / ASKED).exists() else {}
    roots = dict(asked.get("images", {}))
    sampled = {"source": (basis_sample(config, job.source), basis_contents(job.folder))}
    for name, target in job.targets.items():
        sampled[f"target {name}"] = target_sample(config, target), target_contents(job.folder, name)
    for name, (sample, remembered) in sampled.items():
        before, now = roots.get(name), str(sample.root)
        if before not in (None, now) and share_unchanged(sample, remembered) >= LEAST_UNCHANGED:
            say(f"  the images of the {name} are now in {now}, before in {before}")
            roots[name] = now
    if roots != asked.get("images", {}):
        write_json(job.folder / ASKED, {**asked, "images": roots})


def _follow_base(folder: Path, base: str) -> None:
    """Write down of a base that was moved away where it is now. Whether it is the same one, its markers say."""
    asked = read_json(folder / ASKED) if (folder / ASKED).exists() else {}
    before = asked.get("base")
    if before is not None and not Path(before).exists():
        write_json(folder / ASKED, {**asked, "base": base})
        say(f"  the base was {before}, which is no more")


def _targets(verb: options.Measure) -> dict[str, Catalog]:
    if len({path.stem for path in verb.targets}) < len(verb.targets):
        raise ConfigError("two targets have the same file name; a target is called by its file's name")
    return {path.stem: Catalog.read(path).part("train") for path in verb.targets}


def _measure_from_sketches(verb: options.Measure, base: Path) -> dict[str, Any]:
    from finegpr.measuring.retarget import RetargetConfig, retarget

    if verb.catalog is not None:
        raise ConfigError(f"--from-sketches reads no source; leave {verb.catalog} out")
    if (verb.output / REFERENCE_MARKER).exists():
        raise ConfigError(f"{verb.output} holds a measurement of its own; choose another --output for the new targets")
    config = validate(RetargetConfig, override({}, verb.set), "--set")
    targets = _targets(verb)
    say("from sketches: one process, without Ray")
    asked = {"targets": {name: catalog.fingerprint for name, catalog in targets.items()}, "base": str(base.resolve())}
    with locked(verb.output), progress("measuring targets", "images") as tick:
        _follow_base(verb.output, str(base.resolve()))
        begin(verb.output, asked, fresh=verb.fresh, may_grow=True)
        measured = retarget(config, base, targets, verb.output, progress=tick)
    errors = read_record(verb.output / DERIVED_MARKER)["errors"]
    listed = ", ".join(measured.of.names)
    for name, error in errors.items():
        say(f"  {name} was measured; its distances from sketches miss these by, in standard deviations, {listed}:")
        _say_rows(error)
    return {**_tell(measured, verb.output, config.scale), "errors": errors, **_next_search(verb, measured)}


def _tell(measured: Measurements, folder: Path, scale: Scale) -> dict[str, Any]:
    """Say what came of measuring into ``folder``, and return it as facts."""
    shares = {name: measured.style_share(name, Weighing(scale=scale)) for name in measured.terms}
    for warning in measured.warnings:
        say(f"  {warning}")
    for name, share in shares.items():
        say(f"  {name}: style is {share:.1%} of the {scale} distance")
    basis, off_basis = basis_hash(folder), measured.off_basis_summary()
    say(f"  basis of the sketches {basis[:12]}; share of the images off it, {', '.join(measured.of.names)}:")
    _say_rows(off_basis)
    for row in measured.quarantine.head(3).itertuples():
        say(f"  left out of {row.of}: {row.path}: {row.reason}")
    say(f"{measured.weights}: {len(measured.row)} images measured, {len(measured.quarantine)} quarantined")
    return {
        "measurements": str(folder),
        "num_images": len(measured.row),
        "style_share": shares,
        "basis": basis,
        "off_basis": off_basis,
        "warnings": measured.warnings,
    }


def _next_search(verb: options.Measure, measured: Measurements) -> dict[str, Any]:
    source = "SOURCE.parquet" if verb.catalog is None else verb.catalog
    search = ("aost", "search", source, "--measurements", verb.output, "--target", sorted(measured.terms)[0])
    settings = ("--output", "search", "--set", "budget.images=IMAGES")
    return hand_over({"measurements": verb.output}, *search, *settings)


def _say_rows(rows: Mapping[str, list[float]]) -> None:
    for name, values in rows.items():
        say(f"    {name.replace('_', ' '):14}{' '.join(f'{value:7.2%}' for value in values)}")


def _measure_adaptively(
    executor: Executor, config: MeasureConfig, job: MeasureJob, adaptive: AdaptiveVerbConfig
) -> tuple[Measurements, dict[str, Any]]:
    from cluster.run.adaptive import measure_adaptively
    from search.space import make_space

    target = adaptive.target or next(iter(job.targets))
    if target not in job.targets or (adaptive.target is None and len(job.targets) > 1):
        raise ConfigError(f"adaptive.target should say which target decides: one of {', '.join(job.targets)}")
    space = make_space(
        job.source, adaptive.budget, seed=config.seed, attributes=adaptive.attributes, config=adaptive.space
    )
    job = replace(job, cells=space.cells)
    measured, rounds = measure_adaptively(executor, config, job, adaptive, space, target=target)
    say(f"  {rounds.summary}")
    facts = {"share": rounds.share, "num_rounds": len(rounds.batches), "stopped": rounds.stopped}
    return measured, {"adaptive": facts | {"subset": rounds.decided[-1]["subset"]}}
