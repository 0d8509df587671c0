"""From a finished run to its report: results table, agreement with the truth, samples, costs and provenance."""

import datetime
import json
import platform
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from cluster.executors.trial import METRICS
from cluster.progress import console, say
from cluster.run.adaptive import RECORD
from cluster.run.choice import make_choice, rank_arms
from cluster.run.config import RANDOM
from cluster.run.state import TARGET, Run
from finegpr.arrays import Ints
from finegpr.catalog import WORLD, Catalog
from finegpr.errors import InputError
from finegpr.measuring.results import TERMS, Measurements
from finegpr.measuring.results import read_marker as read_adaptive_marker
from finegpr.pixels.decode import BadImage, decode
from finegpr.storage import canonical_hash, read_json, read_marker, write_bytes, write_json
from search.analysis.compare import ArmSummary, jaccard, summarise
from search.analysis.explain import (
    distance_contour,
    distance_importances,
    distance_spreads,
    flip_effects,
    marginal_effects,
)
from search.analysis.fairness import identity_shifts
from search.analysis.health import Evidence, run_checks
from search.analysis.landscape import best_subsets, slices
from search.analysis.pareto import pareto_front
from search.analysis.records import Choice, Compromise, Importance, Round, StyleShare
from search.analysis.subset_diff import describe, searched
from search.objectives.mean_distance import embed_distance
from search.report.data import Dataset, Provenance, Quarantined, ReportData, SampleRow, StageCost, Thumbnail, Weights
from search.report.page import write_report

REPORT, REPORT_DATA, RESULTS = "report.html", "report.json", "results.json"
SAMPLES = 14
LIBRARIES = ("ray", "torch", "torchvision", "xgboost", "nevergrad", "numpy", "pandas", "pyarrow", "pillow")


def write_summary(run: Run) -> Path:
    """Write results.json, report.json and report.html, print the table, and return the report's path."""
    results = read_results(run)
    arms = summarise(results, baseline=RANDOM) if len(results) else ()
    data = make_report_data(run, results, arms)
    root = run.folder.root
    write_json(root / RESULTS, results.astype(object).where(results.notna(), None).to_dict(orient="records"))
    write_bytes(root / REPORT_DATA, data.to_json().encode())
    write_report(data, root / REPORT)
    print_results(arms)
    return root / REPORT


def read_results(run: Run) -> pd.DataFrame:
    """One row per arm and seed: every metric as a fraction. Empty when the target has no labels."""
    rows = []
    for trial in run.trials:
        label = {"target": run.target.title, "arm": trial["arm"], "seed": trial["seed"]}
        path = Path(trial["folder"]) / METRICS
        if path.exists():
            rows.append({**label, **{k: value for k, value in read_json(path).items() if isinstance(value, float)}})
        elif (marker := read_marker(Path(trial["folder"]))) and "diverged" in marker:
            rows.append({**label, "mAP": float("nan"), "rank-1": float("nan")})
            run.notes.append(f"{trial['label']} is left out: {marker['diverged']}")
    return pd.DataFrame(rows)


def make_report_data(run: Run, results: pd.DataFrame, arms: tuple[ArmSummary, ...]) -> ReportData:
    """Everything the report shows."""
    config = run.config
    main = config.keep if config.keep in run.objectives else next(reversed(run.objectives))
    assert main is not None
    choices = tuple(make_choice(run, objective) for objective in run.searches)
    return ReportData(
        source=_dataset(run.source),
        target=_dataset(run.target),
        budget=config.budget.images,
        baseline=RANDOM,
        choices=choices,
        main=main,
        results=arms,
        rank_agreements=(*(rank_arms(run, results) if len(results) else ()), *run.rankings),
        samples=_samples(run, main),
        surrogate=run.surrogate.scores if run.surrogate else (),
        style_shares=_style_shares(run),
        stages=tuple(_costs(run)),
        provenance=_provenance(run),
        notes=tuple(run.notes),
        **explanation(run, next(choice for choice in choices if choice.objective == main)),
    )


def explanation(run: Run, choice: Choice) -> dict[str, Any]:
    """Why a search chose what it did, and how far to trust it: those fields of the report's data."""
    main = choice.objective
    config, result, objective = run.config, run.searches[main], run.objectives[main]
    seed, scale = config.seed, config.measure.scale
    identity = run.source.frame["identity"].to_numpy(dtype=np.int64)
    distance = embed_distance(run.measurements, run.space.cells, identity, target=TARGET, scale=scale)
    flips = flip_effects(
        objective, result.subset, quantity=f"{main} of the choice with this one value flipped", seed=seed
    )
    marginal = marginal_effects(
        distance, run.space.cells, quantity="D_total of the images with this value, against the mean", seed=seed
    )
    importances: tuple[Importance, ...] = ()
    if run.surrogate is not None:
        importances = distance_importances(
            run.space.cells, run.measurements, identity, run.surrogate, target=TARGET, scale=scale
        )
    manifest = Catalog.read(run.manifests[main, config.seeds[0]])
    chosen_cells = run.space.cell_masks(run.space.mask(result.subset)[None])[0]
    rounds, rounds_ended = _rounds(run)
    shifts = identity_shifts(run.source, manifest, seed=seed)
    evidence = Evidence(
        choice=choice,
        num_proposals=len(result.history),
        num_duplicates=result.num_duplicates,
        num_identities=tuple(distance.samples.num_identities[chosen_cells].tolist()),
        flips=flips,
        surrogate=objective.report or run.surrogate,
        style_shares=_style_shares(run),
        shifts=shifts,
        rounds=rounds,
        off_basis=dict(zip(TERMS, run.measurements.off_basis_share.tolist(), strict=True)),
        **_sizes(run, main),
    )
    return {
        "effects": (*flips, *marginal),
        "importances": importances,
        "spreads": distance_spreads(run.source, run.measurements, target=TARGET, scale=scale),
        "contour": distance_contour(run.source, run.measurements, importances, target=TARGET, scale=scale),
        "checks": run_checks(evidence),
        "shifts": shifts,
        "rounds": rounds,
        "rounds_ended": rounds_ended,
        "best_subsets": best_subsets(result.history, higher_is_better=objective.higher_is_better),
        "front": _front(run, main),
        "slices": slices(result.history, run.space),
    }


def _front(run: Run, main: str) -> tuple[Compromise, ...]:
    """The trials of the main search that none beats in both score and number of images."""
    points = pareto_front(run.searches[main].history, run.space, higher_is_better=run.objectives[main].higher_is_better)
    attributes = searched(run.space)
    return tuple(
        Compromise(score=point.score, num_images=point.num_images, words=describe(point.subset, attributes))
        for point in points
    )


def _style_shares(run: Run) -> tuple[StyleShare, ...]:
    scale = run.config.measure.scale
    return (StyleShare(target=run.target.title, scale=scale, share=run.measurements.style_share(TARGET, scale)),)


def _sizes(run: Run, main: str) -> dict[str, float]:
    """What the choice holds, may hold and must hold, as shares of the source's drawable images."""
    total = int(run.space.sampler.images(np.ones((1, len(run.space.cells)), dtype=bool))[0])
    chosen = run.space.mask(run.searches[main].subset)[None]
    budget = run.config.budget
    return {
        "share": int(run.space.num_images(chosen)[0]) / total,
        "least": budget.least,
        "most": budget.most,
        "budget_share": budget.images / total,
    }


def _rounds(run: Run) -> tuple[tuple[Round, ...], str | None]:
    """The rounds of adaptive measuring, and why they ended; none where everything was measured."""
    if run.config.adaptive is None:
        return (), None
    stage = next(stage for stage in run.folder.opened if stage.name == "measure")
    record = read_adaptive_marker(stage.folder / RECORD)
    subsets = [decided["subset"] for decided in record["rounds"]]
    rounds = tuple(
        Round(
            share=decided["share"],
            expected_regret=decided["expected_regret"],
            certainty=decided["certainty"],
            overlap=fmean(jaccard(subset[name], subsets[-1][name]) for name in subset),
        )
        for decided, subset in zip(record["rounds"], subsets, strict=True)
    )
    return rounds, record["stopped"]


def print_results(arms: tuple[ArmSummary, ...]) -> None:
    """The comparison as one table."""
    if not arms:
        say("the target has no query and gallery, so no arm was scored")
        return
    table = Table(title=f"{arms[0].target}: mAP and rank-1 in percent")
    for heading in ("arm", "mAP", "rank-1", "mAP - random", "95 % interval", "seeds"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    rank = {summary.arm: summary for summary in arms if summary.metric == "rank-1"}
    for summary in arms:
        if summary.metric == "mAP":
            difference = summary.difference
            interval = (
                f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
                if difference is not None and difference.low is not None and difference.high is not None
                else ""
            )
            table.add_row(
                summary.arm,
                _percent(summary),
                _percent(rank[summary.arm]),
                f"{100 * difference.mean:+.1f}" if difference is not None else "",
                interval,
                str(len(summary.seeds)),
            )
    console().print(table)


def _percent(summary: ArmSummary) -> str:
    return f"{100 * summary.mean.mean:.1f}" if summary.mean is not None else "failed"


def _dataset(catalog: Catalog) -> Dataset:
    people = catalog.frame["identity"]
    return Dataset(
        title=catalog.title,
        num_images=len(catalog),
        num_identities=int(people[people > 0].nunique()),
        rendered=(catalog.root / WORLD).exists(),
    )


def _samples(run: Run, main: str) -> tuple[SampleRow, ...]:
    manifest = Catalog.read(run.manifests[main, run.config.seeds[0]])
    return tuple(
        SampleRow(title=title, images=_thumbnails(catalog, run.config.seed))
        for title, catalog in (
            (f"Source: {run.source.title}", run.source),
            (f"Chosen by {main}", manifest),
            (f"Target: {run.target.title}", run.target_photos),
        )
    )


def _thumbnails(catalog: Catalog, seed: int) -> tuple[Thumbnail, ...]:
    """Random images with their values; one that cannot be read is passed over."""
    rows: Ints = np.random.default_rng(seed).permutation(len(catalog))[: 4 * SAMPLES]
    names = [attribute.name for attribute in catalog.image_attributes]
    thumbnails: list[Thumbnail] = []
    for row in rows:
        try:
            image = decode(catalog.root / str(catalog.frame["path"].iloc[row]))
        except BadImage:
            continue
        caption = ", ".join(str(catalog.frame[name].iloc[row]) for name in names)
        thumbnails.append(Thumbnail.from_array(image, caption=caption))
        if len(thumbnails) == SAMPLES:
            break
    return tuple(thumbnails)


def _costs(run: Run) -> list[StageCost]:
    """What each stage took, those of one name together."""
    ledger: dict[str, StageCost] = {}
    for stage in run.folder.opened:
        name = stage.name.split("/")[0]
        marker = stage.marker or {}
        before = ledger.get(name)
        images = marker.get("num_images")
        seconds = float(marker.get("seconds", 0.0))
        if before is not None:
            seconds += before.seconds
            images = (images or 0) + (before.num_images or 0) if images or before.num_images else None
        status = stage.status if before is None or before.status == stage.status else "resumed"
        ledger[name] = StageCost(stage=name, seconds=seconds, num_images=images, status=status)
    return list(ledger.values())


def _provenance(run: Run) -> Provenance:
    measurements: Measurements = run.measurements
    models = {marker["weights"] for stage in run.folder.opened if (marker := stage.marker) and "weights" in marker}
    weights = [(f"measuring: {measurements.weights}", "random" not in measurements.weights)]
    weights += [(f"training starts from: {name}", "random" not in name) for name in sorted(models)]
    return Provenance(
        command=run.command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=f"{platform.machine()}, {platform.system()}, {run.executor.processes} processes, {run.executor.name}",
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
        seeds={"run": run.config.seed, **{f"training {place}": seed for place, seed in enumerate(run.config.seeds)}},
        hashes={
            "source catalog": run.source.fingerprint,
            "target catalog": run.target.fingerprint,
            "config": canonical_hash(run.config.model_dump(mode="json")),
            "manifests": canonical_hash([run.keys[f"select/{arm}/{seed}"] for arm, seed in run.manifests]),
        },
        weights=tuple(Weights(name=name, trained=trained) for name, trained in weights),
        quarantine=tuple(
            Quarantined(path=str(row.path), reason=str(row.reason)) for row in measurements.quarantine.itertuples()
        ),
    )


def outcome(run: Run, report: Path) -> dict[str, Any]:
    """What ``--json`` prints of a run: mAP per arm, the choice, and where the report lies."""
    results = read_results(run)
    means = results.groupby("arm")["mAP"].mean().to_dict() if len(results) else {}
    return {
        "run": str(run.folder.root),
        "report": str(report),
        "mAP": {str(arm): float(value) for arm, value in means.items()},
        "subsets": {name: json.loads(result.subset.to_json()) for name, result in run.searches.items()},
        "scores": {name: result.score for name, result in run.searches.items()},
    }


def read_report_data(root: Path) -> ReportData:
    """The report data of a finished run. Raises InputError for a folder without, StateError for damaged ones."""
    path = root / REPORT_DATA
    try:
        return ReportData.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{root} has no readable {REPORT_DATA}; expected the folder of a finished run") from None
