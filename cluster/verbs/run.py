"""What each verb of the command line does. Imported only when a verb runs, because it imports everything else."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from cluster import cli
from cluster.executors.base import Executor, MeasureJob, RayExecutor, SerialExecutor
from cluster.executors.session import RayConfig
from cluster.progress import progress, say
from cluster.run.config import (
    AdaptiveVerbConfig,
    DataConfig,
    MeasureVerbConfig,
    WorldConfig,
    run_config,
    train_config,
)
from cluster.run.folder import RunFolder, fork
from cluster.run.pipeline import Run, index_data, run_all
from cluster.settings import load_mapping, override, parse, validate
from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, InputError
from finegpr.measuring.reference import MeasureConfig
from finegpr.measuring.results import (
    DERIVED_MARKER,
    TERMS,
    Measurements,
    Scale,
    basis_hash,
    read_marker,
    read_measurements,
)
from finegpr.mixture import choice_from_json
from finegpr.reid.train import fit
from finegpr.storage import locked, write_bytes, writing
from finegpr.subset import Subset

LISTED = ", ".join(TERMS)


def demo(verb: cli.Demo) -> dict[str, Any]:
    text = (resources.files("cluster") / "configs" / "demo.yaml").read_text(encoding="utf-8")
    mapping = {**parse(text, "demo.yaml"), "seed": verb.seed}
    return _main_job(verb, mapping, "demo.yaml", verb.output)


def run(verb: cli.Run) -> dict[str, Any]:
    mapping = load_mapping(verb.config)
    return _main_job(verb, mapping, str(verb.config), verb.output)


def _main_job(verb: cli.Demo | cli.Run, mapping: dict[str, Any], where: str, output: Path | None) -> dict[str, Any]:
    from cluster.run.report import outcome

    if verb.fork and verb.fresh:
        raise ConfigError("--fork and --fresh exclude each other: one starts a new run, the other changes this one")
    config = run_config(override(mapping, verb.set), where)
    root = output or Path(config.output or f"runs/{config.name}")
    _require_writable(root)
    if verb.fork:
        root = fork(root)
    job = Run(
        config=config,
        folder=RunFolder(root=root, fresh=verb.fresh),
        executor=_executor(verb.serial, config.ray, num_workers=config.workers, gpu=config.gpu),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )
    report = run_all(job)
    # The last line a person sees is where to look; with --json that line belongs to the machine.
    say(f"report: {report}") if verb.json else print(report)
    return outcome(job, report)


def _executor(serial: bool, ray: RayConfig, *, num_workers: int = 1, gpu: bool = False) -> Executor:
    if serial:
        say("serial: one process, without Ray")
        return SerialExecutor()
    return RayExecutor(ray, num_workers=num_workers, use_gpu=gpu)


def _require_writable(folder: Path) -> None:
    """Fail before any work when ``folder`` cannot be written."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.probe"
        probe.touch()
        probe.unlink()


def render(verb: cli.Render) -> dict[str, Any]:
    from finegpr.render.minigpr import render_minigpr
    from finegpr.render.minimarket import render_minimarket
    from finegpr.render.sheet import contact_sheet

    if verb.output is None and verb.sheet is None:
        raise ConfigError("nothing to do; give --output FOLDER for a world, or --sheet FILE for a contact sheet")
    result: dict[str, Any] = {}
    if verb.sheet is not None:
        write_bytes(verb.sheet, contact_sheet(seed=verb.seed))
        result["sheet"] = str(verb.sheet)
        say(f"contact sheet: {verb.sheet}")
    if verb.output is not None:
        settings = override({}, [f"source.seed={verb.seed}", f"target.seed={verb.seed}", *verb.set])
        world = validate(WorldConfig, settings, "--set")
        workers = os.cpu_count() or 1
        with locked(verb.output):
            with progress("rendering MiniGPR", "images") as tick:
                render_minigpr(world.source, verb.output / "source", progress=tick, workers=workers)
            with progress("rendering MiniMarket", "images") as tick:
                render_minimarket(world.target, verb.output / "target", progress=tick, workers=workers)
        result |= {"source": str(verb.output / "source"), "target": str(verb.output / "target")}
        say(f"world: {verb.output / 'source'} (layout finegpr), {verb.output / 'target'} (layout market1501)")
    return result


def index(verb: cli.Index) -> dict[str, Any]:
    settings = {"root": verb.root, "layout": verb.layout, "options": override({}, verb.set)}
    catalog = index_data(validate(DataConfig, settings, "--set"))
    catalog.write(verb.output)
    for row in catalog.rejected.head(10).itertuples():
        say(f"  left out: {row.path}: {row.reason}")
    say(f"{catalog.title}: {len(catalog)} images, {len(catalog.rejected)} files left out -> {verb.output}")
    return {"catalog": str(verb.output), "num_images": len(catalog), "num_rejected": len(catalog.rejected)}


def measure(verb: cli.Measure) -> dict[str, Any]:
    if verb.from_sketches is not None:
        return _measure_from_sketches(verb, verb.from_sketches)
    if verb.catalog is None:
        raise ConfigError("nothing to measure; give the source's catalog, or --from-sketches and a measurement")
    if (verb.output / DERIVED_MARKER).exists():
        raise ConfigError(f"{verb.output} holds targets that were added --from-sketches; choose another --output")
    settings = validate(MeasureVerbConfig, override({}, verb.set), "--set")
    config, adaptive = settings.plain, settings.adaptive
    source = Catalog.read(verb.catalog)
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
    executor = _executor(verb.serial, RayConfig())
    try:
        with locked(verb.output):
            if adaptive is None:
                with progress("measuring", "images") as tick:
                    measured = executor.measure(config, job, tick)
            else:
                measured, facts = _measure_adaptively(executor, config, job, adaptive)
    finally:
        executor.close()
    return {**_tell(measured, verb.output, config.scale), **facts}


def _targets(verb: cli.Measure) -> dict[str, Catalog]:
    if len({path.stem for path in verb.targets}) < len(verb.targets):
        raise ConfigError("two targets have the same file name; a target is called by its file's name")
    return {path.stem: Catalog.read(path).part("train") for path in verb.targets}


def _measure_from_sketches(verb: cli.Measure, base: Path) -> dict[str, Any]:
    from finegpr.measuring.retarget import RetargetConfig, retarget

    if verb.catalog is not None:
        raise ConfigError(f"--from-sketches reads no source; leave {verb.catalog} out")
    config = validate(RetargetConfig, override({}, verb.set), "--set")
    targets = _targets(verb)
    say("from sketches: one process, without Ray")
    with locked(verb.output), progress("measuring targets", "images") as tick:
        measured = retarget(config, base, targets, verb.output, progress=tick)
    errors = read_marker(verb.output / DERIVED_MARKER)["errors"]
    for name, error in errors.items():
        say(f"  {name} was measured; its distances from sketches miss these by, in standard deviations, {LISTED}:")
        _say_rows(error)
    return {**_tell(measured, verb.output, config.scale), "errors": errors}


def _tell(measured: Measurements, folder: Path, scale: Scale) -> dict[str, Any]:
    """Say what came of measuring into ``folder``, and return it as facts."""
    shares = {name: measured.style_share(name, scale) for name in measured.terms}
    for warning in measured.warnings:
        say(f"  {warning}")
    for name, share in shares.items():
        say(f"  {name}: style is {share:.1%} of the {scale} distance")
    basis, off_basis = basis_hash(folder), measured.off_basis_summary()
    say(f"  basis of the sketches {basis[:12]}; share of the images off it, {LISTED}:")
    _say_rows(off_basis)
    say(f"{measured.weights}: {len(measured.row)} images measured, {len(measured.quarantine)} quarantined")
    return {
        "measurements": str(folder),
        "num_images": len(measured.row),
        "style_share": shares,
        "basis": basis,
        "off_basis": off_basis,
        "warnings": measured.warnings,
    }


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


def search(verb: cli.Search) -> dict[str, Any]:
    from cluster.verbs.search import search_verb

    return search_verb(verb)


def sweep(verb: cli.Sweep) -> dict[str, Any]:
    from cluster.verbs.sweep import sweep as sweep_measured

    return sweep_measured(verb)


def select(verb: cli.Select) -> dict[str, Any]:
    catalog = Catalog.read(verb.catalog)
    manifest = catalog.take(_drawn(verb, catalog) if verb.selector is None else _selected(verb, catalog))
    manifest.write(verb.output)
    people = int(manifest.frame["identity"].nunique())
    say(f"{len(manifest)} images of {people} identities -> {verb.output}")
    return {"manifest": str(verb.output), "num_images": len(manifest), "num_identities": people}


def _drawn(verb: cli.Select, catalog: Catalog) -> Ints:
    """Rows of a manifest from a subset, or from everything."""
    from finegpr.manifest import Sampler

    if verb.measurements is not None or verb.target is not None:
        raise ConfigError("--measurements and --target are for a --selector; a subset is drawn from without them")
    subset = read_subset(verb.subset) if verb.subset else Subset({})
    of_people = [each.name for each in catalog.identity_attributes if each.name in subset.values]
    names = {each.name for each in catalog.image_attributes if each.name != "scene"}
    sampler = Sampler(
        catalog.cells(sorted({*names, *subset.values}.difference(of_people))),
        catalog.frame["identity"].to_numpy(dtype=np.int64),
        budget=verb.images,
        identities=verb.identities,
        seed=verb.seed,
        groups=catalog.cells(of_people) if of_people else None,
    )
    return sampler.draw(subset, seed=verb.seed)


def _selected(verb: cli.Select, catalog: Catalog) -> Ints:
    """Rows of a manifest that a selector chose image by image."""
    from cluster.run.selecting import selected
    from search.space import Budget

    if verb.subset is not None or verb.measurements is None or verb.selector is None:
        raise ConfigError("a --selector goes by --measurements, and takes no --subset")
    measurements = read_measurements(verb.measurements)
    budget = Budget(images=verb.images, identities=verb.identities)
    target = only_target(measurements, verb.target)
    return selected(verb.selector, catalog, measurements, budget, target=target, scale="standardised", seed=verb.seed)


def read_subset(path: Path) -> Subset:
    """The subset or mixture in a subset.json. Raises InputError."""
    try:
        return choice_from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from None


def only_target(measurements: Measurements, target: str | None) -> str:
    """The target that was named, or the only one. Raises ConfigError where there are several."""
    known = sorted(measurements.terms)
    if target is None and len(known) > 1:
        raise ConfigError(f"these measurements have several targets; choose one by --target: {', '.join(known)}")
    return target or known[0]


def diff(verb: cli.Diff) -> dict[str, Any]:
    from search.analysis.subset_diff import describe
    from search.analysis.subset_diff import diff as in_words

    attributes = Catalog.read(verb.catalog).attributes
    old, new = read_subset(verb.old), read_subset(verb.new)
    named = [each for each in attributes if each.name in {*old.values, *new.values}]
    said = in_words(old, new, named)
    say(f"{describe(new, named)}\n  {said}") if verb.json else print(said)
    return {"diff": said, "old": describe(old, named), "new": describe(new, named)}


def export(verb: cli.Export) -> dict[str, Any]:
    from search.export.optuna import export as to_optuna

    num_trials = to_optuna(verb.journal, verb.storage, verb.study)
    say(f"{num_trials} trials -> study {verb.study} in {verb.storage}")
    return {"study": verb.study, "storage": verb.storage, "num_trials": num_trials}


def train(verb: cli.Train) -> dict[str, Any]:
    from cluster.executors.ray_train import fit_on_workers

    config = train_config(override({"recipe": verb.recipe}, verb.set), "--set")
    num_steps = config.steps or 0
    catalog = Catalog.read(verb.manifest)
    with locked(verb.output):
        if verb.workers > 1 or verb.gpu:
            from cluster.executors.session import ray_session

            with ray_session(RayConfig()) as ray:
                fit_on_workers(
                    config,
                    catalog,
                    output=verb.output,
                    seed=verb.seed,
                    ray=ray,
                    num_workers=verb.workers,
                    use_gpu=verb.gpu,
                )
        with progress("training", "steps") as tick:
            result = fit(
                config,
                catalog,
                output=verb.output,
                seed=verb.seed,
                report=lambda epoch: tick(epoch.step, num_steps or epoch.step, f"loss {epoch.loss:.3f}"),
            )
    say(f"{result.num_images} images of {result.num_identities} identities, {result.weights} -> {result.checkpoint}")
    return {"checkpoint": str(result.checkpoint), "loss": result.history[-1].loss, "num_images": result.num_images}


def evaluate(verb: cli.Evaluate) -> dict[str, Any]:
    from finegpr.reid.evaluate import evaluate_checkpoint

    target = Catalog.read(verb.target)
    prefix = "" if verb.part == "test" else "validation_"
    evaluation = evaluate_checkpoint(verb.checkpoint, target.part(f"{prefix}query"), target.part(f"{prefix}gallery"))
    evaluation.write(verb.output)
    metrics = evaluation.metrics
    say(f"{target.title} {verb.part}: mAP {metrics['mAP']:.1%}, rank-1 {metrics['rank-1']:.1%} -> {verb.output}")
    return {"metrics": str(verb.output), **metrics}


def compare(verb: cli.Compare) -> dict[str, Any]:
    from cluster.run.report import print_results, read_report_data

    data = read_report_data(verb.folder)
    print_results(data.results)
    return {
        "mAP": {each.arm: each.mean.mean for each in data.results if each.metric == "mAP" and each.mean is not None}
    }


def report(verb: cli.Report) -> dict[str, Any]:
    from cluster.run.report import REPORT, read_report_data
    from search.report.page import write_report

    path = verb.folder / REPORT
    write_report(read_report_data(verb.folder), path)
    say(f"report: {path}") if verb.json else print(path)
    return {"report": str(path)}
