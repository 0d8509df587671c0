"""From a finished run to its report: results table, agreement with the truth, samples, costs and provenance."""

import datetime
import json
import platform
import shlex
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from cluster.handover import hand_over
from cluster.progress import say
from cluster.run.adaptive import RECORD
from cluster.run.choice import make_choice, rank_arms
from cluster.run.chosen import arm_facts, arm_files, choose, train_command
from cluster.run.config import RANDOM
from cluster.run.folder import Stage, wall_seconds
from cluster.run.results import REPORT, REPORT_DATA, RESULTS, print_results
from cluster.run.state import TARGET, Made, Run
from finegpr.arrays import Ints
from finegpr.atomic import write_bytes
from finegpr.catalog import WORLD, Catalog
from finegpr.measuring.files import read_record as read_adaptive_record
from finegpr.pixels.decode import BadImage, decode
from finegpr.reid.job import METRICS
from finegpr.reid.queries import Queries
from finegpr.storage import canonical_hash, read_json, write_json
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
from search.analysis.records import Choice, Compromise, Round, StyleShare
from search.analysis.subset_diff import describe, searched
from search.objectives.mean_distance import embed_distance
from search.report.data import Dataset, Provenance, Quarantined, ReportData, SampleRow, StageCost, Thumbnail, Weights
from search.report.page import write_report

SAMPLES = 14
LIBRARIES = ("ray", "torch", "torchvision", "xgboost", "nevergrad", "numpy", "pandas", "pyarrow", "pillow")


def write_summary(run: Run, made: Made) -> ReportData:
    """Write results.json, report.json and report.html, print the table and what it says; the report's data."""
    results = read_results(run, made)
    arms = summarise(results, baseline=RANDOM) if len(results) else ()
    data = make_report_data(run, made, results, arms)
    root = run.folder.root
    write_json(root / RESULTS, results.astype(object).where(results.notna(), None).to_dict(orient="records"))
    write_bytes(root / REPORT_DATA, data.to_json().encode(), private=data.holds_photos)
    write_report(data, root / REPORT)
    print_results(data)
    if data.holds_photos:
        say(f"{root / REPORT} holds example images, {_photos(data)}; report.photos: none leaves them out")
    return data


def _photos(data: ReportData) -> str:
    shown = any(row.kind == "shown" for row in data.samples)
    return f"{'as they are' if shown else 'blurred'}, and can be read by you only"


def read_results(run: Run, made: Made) -> pd.DataFrame:
    """One row per arm and seed: what it trained on, every metric as a fraction, and its queries. Empty when the target
    has no labels."""
    rows = []
    for each, manifest in zip(made.trained, made.manifests, strict=True):
        label = {
            "target": made.indexed.target.title,
            "arm": each.arm,
            "seed": each.job.seed,
            "num_images": manifest.num_images,
            "num_identities": len(manifest.people),
        }
        path = each.job.folder / METRICS
        if path.exists():
            metrics = read_json(path)
            queries = Queries.from_record(metrics)
            values = {name: value for name, value in metrics.items() if isinstance(value, float)}
            rows.append({**label, **values, **({} if queries is None else queries.to_record())})
        elif (marker := each.stage.marker) and "diverged" in marker:
            rows.append({**label, "mAP": float("nan"), "rank-1": float("nan")})
            run.notes.append(f"{each.job.label} is left out: {marker['diverged']}")
    return pd.DataFrame(rows)


def make_report_data(run: Run, made: Made, results: pd.DataFrame, arms: tuple[ArmSummary, ...]) -> ReportData:
    """Everything the report shows."""
    config, indexed = run.config, made.indexed
    chosen = choose(config, made.short.rankings)
    main = chosen.objective
    files = arm_files(run.folder, made.manifests, made.trained)[config.arm_of(main)]
    choices = tuple(make_choice(run, made, objective) for objective in made.searches)
    return ReportData(
        source=_dataset(indexed.source.part("train")),
        target=_dataset(indexed.target),
        budget=config.budget.images,
        baseline=RANDOM,
        choices=choices,
        main=main,
        results=arms,
        rank_agreements=(*(rank_arms(made, results) if len(results) else ()), *made.short.rankings),
        samples=_samples(run, made, main),
        surrogate=made.surrogate.scores,
        style_shares=_style_shares(made),
        stages=tuple(_costs(run)),
        provenance=_provenance(run, made),
        notes=tuple(run.notes),
        scored=_scored(results),
        arms=arm_facts(config, made.manifests, made.trained),
        trained_for=f"{config.train.steps} steps" if config.train.steps else f"{config.train.epochs} epochs",
        chosen_by=chosen.why,
        files={what: str(path) for what, path in files.items()},
        next_command=shlex.join(map(str, next_command(run, files["manifest"]))),
        **explanation(run, made, next(choice for choice in choices if choice.objective == main)),
    )


def _scored(results: pd.DataFrame) -> str | None:
    """Which queries the results are of, unless all: those of the first training, as all have the same."""
    rows = results.dropna(subset="num_query") if "num_query" in results else results.iloc[:0]
    queries = Queries.from_record({str(k): v for k, v in rows.iloc[0].dropna().items()}) if len(rows) else None
    return None if queries is None else queries.sentence


def next_command(run: Run, manifest: Path) -> list[object]:
    """The command that trains on the choice as the run did, with its first seed."""
    seed = run.config.sub_seed(run.config.seeds[0])
    return train_command(manifest, run.config.train, seed=seed, output=Path(f"{run.folder.root.name}-model"))


def explanation(run: Run, made: Made, choice: Choice) -> dict[str, Any]:
    """Why a search chose what it did, and how far to trust it: those fields of the report's data."""
    main, seed = choice.objective, run.config.seed
    indexed, measured = made.indexed, made.measured
    result, objective = made.found[main].result, made.found[main].objective
    space, cells = indexed.space, indexed.space.cells
    distance = embed_distance(measured)
    flips = flip_effects(
        objective, result.subset, quantity=f"{main} of the choice with this one value flipped", seed=seed
    )
    marginal = marginal_effects(
        distance, cells, quantity="D_total of the images with this value, against the mean", seed=seed
    )
    importances = distance_importances(measured, made.surrogate)
    off_basis = zip(measured.measurements.of.names, measured.measurements.off_basis_share.tolist(), strict=True)
    manifest = made.manifest(run.config.arm_of(main), run.config.seeds[0])
    chosen_cells = space.cell_masks(space.mask(result.subset)[None])[0]
    rounds, rounds_ended = _rounds(run)
    shifts = identity_shifts(indexed.source, manifest, seed=seed)
    evidence = Evidence(
        choice=choice,
        num_proposals=len(result.history),
        num_duplicates=result.num_duplicates,
        num_identities=tuple(distance.samples.num_identities[chosen_cells].tolist()),
        flips=flips,
        surrogate=objective.report or made.surrogate,
        style_shares=_style_shares(made),
        shifts=shifts,
        rounds=rounds,
        camera_gap=next((each.objective.gap for each in made.found.values() if each.objective.gap), None),
        people={
            each.arm.name: frozenset(each.people.tolist())
            for each in made.manifests
            if each.seed == run.config.seeds[0]
        },
        off_basis=dict(off_basis),
        **_sizes(run, made, main),
    )
    return {
        "effects": (*flips, *marginal),
        "importances": importances,
        "spreads": distance_spreads(indexed.source, measured),
        "contour": distance_contour(indexed.source, measured, importances),
        "checks": run_checks(evidence),
        "shifts": shifts,
        "rounds": rounds,
        "rounds_ended": rounds_ended,
        "best_subsets": best_subsets(result.history, higher_is_better=objective.higher_is_better),
        "front": _front(made, main),
        "slices": slices(result.history, space),
    }


def _front(made: Made, main: str) -> tuple[Compromise, ...]:
    """The trials of the main search that none beats in both score and number of images."""
    found, space = made.found[main], made.indexed.space
    points = pareto_front(found.result.history, space, higher_is_better=found.objective.higher_is_better)
    attributes = searched(space)
    return tuple(
        Compromise(score=point.score, num_images=point.num_images, words=describe(point.subset, attributes))
        for point in points
    )


def _style_shares(made: Made) -> tuple[StyleShare, ...]:
    measured = made.measured
    share = measured.measurements.style_share(TARGET, measured.weighing)
    return (StyleShare(target=made.indexed.target.title, scale=measured.weighing.scale, share=share),)


def _sizes(run: Run, made: Made, main: str) -> dict[str, float]:
    """What the choice holds, may hold and must hold, as shares of the source's drawable images."""
    space = made.indexed.space
    total = int(space.sampler.images(np.ones((1, len(space.cells)), dtype=bool))[0])
    chosen = space.mask(made.found[main].result.subset)[None]
    budget = run.config.budget
    return {
        "share": int(space.num_images(chosen)[0]) / total,
        "least": budget.least,
        "most": budget.most,
        "budget_share": budget.images / total,
    }


def _rounds(run: Run) -> tuple[tuple[Round, ...], str | None]:
    """The rounds of adaptive measuring, and why they ended; none where everything was measured."""
    if run.config.adaptive is None:
        return (), None
    stage = next(stage for stage in run.folder.opened if stage.name == "measure")
    record = read_adaptive_record(stage.folder / RECORD)
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


def _dataset(catalog: Catalog) -> Dataset:
    people = catalog.frame["identity"]
    return Dataset(
        title=catalog.title,
        num_images=len(catalog),
        num_identities=int(people[people > 0].nunique()),
        rendered=_is_rendered(catalog),
    )


def _samples(run: Run, made: Made, main: str) -> tuple[SampleRow, ...]:
    """Example images; of what this project has not rendered, as ``report.photos`` says, or blurred."""
    indexed, manifest = made.indexed, made.manifest(run.config.arm_of(main), run.config.seeds[0])
    rows = []
    for title, catalog, whole in (
        (f"Source: {indexed.source.title}", indexed.source.part("train"), indexed.source),
        (f"Chosen by {main}", manifest, indexed.source),
        (f"Target: {indexed.target.title}", indexed.photos, indexed.target),
    ):
        rendered = _is_rendered(whole)
        photos = run.config.report.photos or ("shown" if rendered else "blurred")
        if photos != "none":
            images = _thumbnails(catalog, run.config.seed, blurred=photos == "blurred")
            rows.append(SampleRow(title=title, images=images, kind="rendered" if rendered else photos))
    return tuple(rows)


def _is_rendered(catalog: Catalog) -> bool:
    """Whether this project drew it."""
    return (catalog.root / WORLD).exists()


def _thumbnails(catalog: Catalog, seed: int, *, blurred: bool) -> tuple[Thumbnail, ...]:
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
        thumbnails.append(Thumbnail.from_array(image, caption=caption, blurred=blurred))
        if len(thumbnails) == SAMPLES:
            break
    return tuple(thumbnails)


def _costs(run: Run) -> list[StageCost]:
    """What each stage took, those of one name together."""
    opened: dict[str, list[Stage]] = {}
    for stage in run.folder.opened:
        opened.setdefault(stage.name.split("/")[0], []).append(stage)
    costs = []
    for name, stages in opened.items():
        markers = [stage.marker or {} for stage in stages]
        images = [marker["num_images"] for marker in markers if marker.get("num_images")]
        statuses = {stage.status for stage in stages}
        costs.append(
            StageCost(
                stage=name,
                seconds=sum(float(marker.get("seconds", 0.0)) for marker in markers),
                num_images=sum(images) if images else None,
                status=stages[0].status if len(statuses) == 1 else "resumed",
                wall_seconds=wall_seconds(markers),
            )
        )
    return costs


def _provenance(run: Run, made: Made) -> Provenance:
    measurements, indexed = made.measured.measurements, made.indexed
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
            "source catalog": indexed.source.fingerprint,
            "target catalog": indexed.target.fingerprint,
            "config": canonical_hash(run.given.model_dump(mode="json")),
            "manifests": canonical_hash([manifest.fingerprint for manifest in made.manifests]),
        },
        weights=tuple(Weights(name=name, trained=trained) for name, trained in weights),
        quarantine=tuple(
            Quarantined(path=str(row.path), reason=str(row.reason)) for row in measurements.quarantine.itertuples()
        ),
    )


def outcome(run: Run, made: Made, data: ReportData) -> dict[str, Any]:
    """What ``--json`` prints of a run: mAP per arm, the choice and why it is this one, and where everything lies."""
    results = read_results(run, made)
    means = results.groupby("arm")["mAP"].mean().to_dict() if len(results) else {}
    report = run.folder.root / REPORT
    files: dict[str, Path | str] = {**data.files, "report": report}
    return {
        "run": str(run.folder.root),
        "report": str(report),
        "mAP": {str(arm): float(value) for arm, value in means.items()},
        "subsets": {name: json.loads(result.subset.to_json()) for name, result in made.searches.items()},
        "scores": {name: result.score for name, result in made.searches.items()},
        "chosen": {"objective": data.main, "arm": run.config.arm_of(data.main), "why": data.chosen_by},
        "arms": {
            arm: {what: str(path) for what, path in found.items()}
            for arm, found in arm_files(run.folder, made.manifests, made.trained).items()
        },
        **hand_over(files, *next_command(run, Path(data.files["manifest"]))),
    }
