"""A made-up but plausible ReportData for the tests of the report; none of its numbers was measured."""

import numpy as np
import pandas as pd

from finegpr.attributes import Attribute
from finegpr.subset import Subset
from search.analysis.compare import agreements, rank_agreement, summarise
from search.analysis.records import (
    AttributeShares,
    Check,
    Choice,
    Compromise,
    Contour,
    Effect,
    IdentityShift,
    Importance,
    RankedSubset,
    Round,
    Slice,
    Spread,
    StyleShare,
)
from search.objectives.surrogate import SplitScore
from search.report.data import (
    ArmFacts,
    Dataset,
    Provenance,
    Quarantined,
    ReportData,
    SampleRow,
    StageCost,
    Thumbnail,
    Weights,
)

ATTRIBUTES = (
    Attribute(name="viewpoint", values=tuple(f"{angle}deg" for angle in range(0, 360, 10)), circular=True),
    Attribute(name="weather", values=("sunny", "clouds", "overcast", "foggy", "neutral", "blizzard", "snowlight")),
    Attribute(name="illumination", values=("midnight", "dawn", "forenoon", "noon", "afternoon", "dusk", "night")),
    Attribute(name="scene", values=("urban1", "urban2", "wild3")),
    Attribute(name="hair", values=("long", "short"), level="identity"),
    Attribute(name="upper_colour", values=("black", "white", "red", "purple", "gray"), level="identity"),
)
TRUE = {
    "viewpoint": tuple(f"{angle}deg" for side in (90, 270) for angle in range(side - 30, side + 31, 10)),
    "weather": ("overcast", "foggy"),
    "illumination": ("forenoon", "noon", "afternoon"),
}
CHOSEN = {
    "mmd_rbf": {
        "viewpoint": tuple(f"{angle}deg" for side in (80, 280) for angle in range(side - 30, side + 31, 10)),
        "weather": ("overcast", "foggy", "neutral"),
        "illumination": ("noon", "afternoon"),
    },
    "mean_distance": {"weather": ("blizzard",), "illumination": ("dusk",)},
    "mmd_linear": {"viewpoint": ("90deg", "270deg"), "weather": ("foggy",)},
}
ARMS = {"mmd_rbf": 0.342, "random": 0.291, "everything": 0.318, "mean_distance": 0.247, "mmd_linear": 0.301}
SCORES = {
    "mmd_rbf": {"mmd_rbf": 0.021, "random": 0.061, "everything": 0.048, "mean_distance": 0.113, "mmd_linear": 0.037},
    "mean_distance": {"mmd_rbf": 3.4, "random": 3.9, "everything": 3.8, "mean_distance": 2.1, "mmd_linear": 3.1},
}


def report_data(*, num_trials=400, seeds=(0, 1, 2), warning=""):
    """The example; ``warning`` is put wherever text from outside can reach the page."""
    random = np.random.default_rng(0)
    results = summarise(_results(random, seeds, warning)) if seeds else ()
    means = {each.arm: each.mean.mean for each in results if each.metric == "mAP"}
    choices = tuple(_choice(random, objective, num_trials, warning) for objective in CHOSEN)
    return ReportData(
        source=Dataset(title=f"MiniGPR{warning}", num_images=12_348, num_identities=150, rendered=True),
        target=Dataset(title="MiniMarket", num_images=600, num_identities=80, rendered=True),
        budget=900,
        baseline="random",
        choices=choices,
        main="mmd_rbf",
        results=results,
        rank_agreements=tuple(
            rank_agreement(scores, means, objective=objective, target="MiniMarket", higher_is_better=False)
            for objective, scores in SCORES.items()
            if means
        ),
        samples=tuple(
            SampleRow(title=title + warning, images=tuple(_thumbnail(random, hue, warning) for _ in range(10)))
            for title, hue in (("MiniGPR, whole", 0.55), ("Chosen images", 0.75), ("MiniMarket", 0.8))
        ),
        surrogate=tuple(
            SplitScore(
                quantity=quantity,
                split=split,
                r2=fit,
                spearman=0.9,
                ridge_r2=ridge,
                ridge_spearman=0.88,
                bias=-0.04,
                ceiling=ceiling,
                num_held_out=120,
            )
            for quantity, split, fit, ridge, ceiling in (
                ("D_total", "cells", 0.91, 0.84, 0.95),
                ("D_total", "value pairs", 0.72, 0.79, 0.95),
                ("D_total", "identities", 0.88, 0.83, None),
                ("mean embedding", "cells", 0.86, 0.71, 0.93),
            )
        ),
        style_shares=(StyleShare(target="MiniMarket", scale="standardised", share=0.81),),
        effects=_effects(random, warning),
        stages=(
            StageCost(stage="render", seconds=31.2, num_images=12_948, status="skipped"),
            StageCost(stage="index", seconds=0.7, num_images=12_948, status="done"),
            StageCost(stage="measure", seconds=96.4, num_images=7_600, status="resumed"),
            StageCost(stage="search", seconds=8.9, num_images=None, status="done"),
            StageCost(stage="train", seconds=412.0, num_images=22_500, status="done", wall_seconds=206.0),
            StageCost(stage="evaluate", seconds=14.3, num_images=3_000, status="done"),
        ),
        provenance=Provenance(
            command=f"aost run demo.yaml --set search.evaluations=400 --set measure.weights=random {warning}",
            created="2026-11-20 14:03",
            machine="Linux 6.1, 2 CPU cores, no GPU, 8 GiB",
            versions={"aost": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "ray": "2.60.0", "xgboost": "3.2.0"},
            seeds={"render": 0, "measure": 0, "search": 0, "train": 0},
            hashes={"catalog.parquet": "9f" * 32, "measurements": "3c" * 32, "subset.json": "a1" * 32},
            weights=(Weights(name="VGG-19, random He weights, seed 0", trained=False),),
            quarantine=(Quarantined(path=f"0007/0007_c03_w01_l02_p01{warning}.jpg", reason="truncated"),),
        ),
        notes=(warning,) if warning else (),
        arms=tuple(
            ArmFacts(
                arm=arm + warning if arm == "mean_distance" else arm,
                num_images=12_348 if arm == "everything" else 900,
                num_identities=150 if arm == "everything" else 80,
                seconds=61.0 if arm == "everything" else 20.0,
            )
            for arm in ARMS
        ),
        trained_for="300 steps",
        chosen_by=f"no check by true training, so the default, search.objective{warning}",
        files={
            "subset": f"runs/demo/search/mmd_rbf/subset.json{warning}",
            "manifest": "runs/demo/select/seed0.parquet",
        },
        next_command="aost train runs/demo/select/seed0.parquet --recipe seconds --output demo-model",
        **_explanation(random, choices[0], warning),
    )


def _explanation(random, main, warning):
    """The fields that say why, and how far to trust it."""
    image_level = [attribute for attribute in main.attributes if attribute.level == "image"]
    names = [attribute.name for attribute in image_level]
    weights = sorted(random.random(len(names)), reverse=True)
    bits = [(attribute.name, value) for attribute in main.attributes for value in attribute.values]
    return {
        "importances": tuple(
            Importance(quantity=quantity, attribute=name, importance=scale * weight, relative=True)
            for quantity, scale in (("D_total", 0.1), ("style", 0.13), ("content", 0.04))
            for name, weight in zip(names, weights, strict=True)
        ),
        "spreads": tuple(
            Spread(
                attribute=attribute.name,
                level=attribute.level,
                value=value,
                num_images=300,
                percentiles=tuple((3 + random.normal(0, 0.3) + np.array([-0.8, -0.3, 0.0, 0.4, 1.1])).tolist()),
            )
            for attribute in main.attributes
            for value in attribute.values
        ),
        "contour": Contour(
            quantity="D_total",
            row_attribute="weather",
            column_attribute="illumination",
            rows=ATTRIBUTES[1].values,
            columns=ATTRIBUTES[2].values,
            means=tuple(
                tuple(None if row == column == 3 else float(3 * np.exp(0.3 * random.normal())) for column in range(7))
                for row in range(7)
            ),
        ),
        "checks": (
            Check(name="Search", verdict="ok", sentence=f"It went well.{warning}", figure="12 of 12"),
            Check(name="Size of the choice", verdict="warn", sentence="It lies at a bound.", figure="8.2 %"),
            Check(name="People", verdict="fail", sentence="Not one chosen image shows hair short.", figure="0.40"),
        ),
        "shifts": tuple(
            IdentityShift(
                attribute=attribute.name,
                values=attribute.values,
                source=attribute.source,
                manifest=(*attribute.manifest[:-1], 0.0) if attribute.name == "hair" else attribute.manifest,
                low=tuple(0.9 * share for share in attribute.source),
                high=tuple(1.1 * share for share in attribute.source),
                total_variation=0.03,
                by_chance=0.05,
            )
            for attribute in main.attributes
            if attribute.level == "identity"
        ),
        "rounds": tuple(
            Round(
                share=0.1 + 0.02 * turn,
                expected_regret=0.2 / (1 + turn),
                certainty=turn / 8,
                overlap=min(1.0, 0.4 + turn / 8),
            )
            for turn in range(8)
        ),
        "rounds_ended": "the subset is the same for 3 more rounds",
        "best_subsets": tuple(
            RankedSubset(
                score=0.02 + 0.001 * rank,
                values={
                    attribute.name: tuple(
                        value
                        for value, inside in zip(attribute.values, attribute.chosen, strict=True)
                        if inside != (random.random() < 0.15)
                    )
                    for attribute in image_level
                },
            )
            for rank in range(20)
        ),
        "front": tuple(
            Compromise(score=0.2 - 0.00002 * images, num_images=images, words=f"any weather, {images} images")
            for images in (900, 1500, 2600, 5200)
        ),
        "slices": tuple(
            Slice(
                attribute=name,
                value=value,
                inside=(0.02, 0.03, 0.04, 0.05, 0.08),
                outside=None if value == "wild3" else (0.03, 0.04, 0.05, 0.07, 0.09),
            )
            for name, value in bits
        ),
    }


def _results(random, seeds, warning):
    rows = []
    for seed in seeds:
        shared = random.normal(0, 0.008)
        for arm, level in ARMS.items():
            mean_ap = level + shared + random.normal(0, 0.006)
            rows.append((arm + warning if arm == "mean_distance" else arm, "MiniMarket", seed, mean_ap, 1.6 * mean_ap))
    return pd.DataFrame(rows, columns=["arm", "target", "seed", "mAP", "rank-1"])


def _choice(random, objective, num_trials, warning):
    values = CHOSEN[objective]
    attributes, source, manifest, true = [], {}, {}, {}
    for attribute in ATTRIBUTES:
        name, count = attribute.name, len(attribute.values)
        inside = np.isin(attribute.values, values.get(name, attribute.values))
        source[name] = np.full(count, 1 / count) if name != "scene" else np.array([0.5, 0.3, 0.2])
        weights = inside * source[name] * random.uniform(0.9, 1.1, count)
        manifest[name] = weights / weights.sum()
        if name in TRUE:
            present = np.isin(attribute.values, TRUE[name]) * random.uniform(0.6, 1.4, count)
            true[name] = present / present.sum()
        shares = AttributeShares(
            name=name + (warning if name == "scene" else ""),
            values=tuple(value + (warning if value == "wild3" else "") for value in attribute.values),
            level=attribute.level,
            circular=attribute.circular,
            chosen=tuple(bool(each) for each in inside),
            source=tuple(source[name].tolist()),
            manifest=tuple(manifest[name].tolist()),
            target=tuple(true[name].tolist()) if name in true else None,
            target_kind="true" if name in true else "unknown",
        )
        attributes.append(shares)
    spread = np.abs(random.normal(0, 0.02, num_trials)) + 0.02 + 0.06 * np.exp(-np.arange(num_trials) / 60)
    history = [float(score) for score in spread]
    for failed in range(17, num_trials, max(1, num_trials // 2)):
        history[failed] = None
    finite = [score for score in history if score is not None]
    return Choice(
        objective=objective,
        unit="",
        higher_is_better=False,
        optimizer="Nevergrad PSO, 20 particles",
        arm=objective,
        score=min(finite, default=0.05),
        random_score=0.061,
        num_evaluations=int(0.9 * num_trials),
        num_failed=sum(score is None for score in history),
        num_images=1_016 if objective == "mmd_rbf" else 2_205,
        attributes=tuple(attributes),
        agreements=agreements(Subset(values), ATTRIBUTES, chosen=manifest, source=source, true=true),
        history=tuple(history),
        random_history=tuple(float(score) for score in np.abs(random.normal(0.06, 0.012, num_trials)) + 0.012),
    )


def _effects(random, warning):
    found = []
    for quantity in ("mmd_rbf", "style relu1_1", "content relu4_2"):
        for attribute in ATTRIBUTES:
            for value in attribute.values:
                wanted = value in TRUE.get(attribute.name, ())
                effect = float(random.normal(-0.012 if wanted else 0.004, 0.004))
                name = value + (warning if value == "wild3" else "")
                known = value != "short"
                found.append(
                    Effect(
                        quantity=quantity,
                        attribute=attribute.name,
                        value=name,
                        effect=effect if known else None,
                        low=effect - 0.003 if known else None,
                        high=effect + 0.003 if known else None,
                        allowed=value not in ("short", "foggy"),
                    )
                )
    return tuple(found)


def _thumbnail(random, hue, warning):
    """A crude figure in front of a wall and a floor."""
    image = np.empty((128, 64, 3))
    image[:] = np.array([hue, 0.72, 0.85 - 0.2 * random.random()]) * 255
    image[88:] = np.array([0.45, 0.43, 0.40]) * 255
    coat, legs, skin = random.uniform(30, 220, 3), random.uniform(20, 120, 3), np.array([205, 165, 140])
    shift = int(random.integers(-6, 7))
    image[34:74, 20 + shift : 44 + shift] = coat
    image[74:116, 24 + shift : 40 + shift] = legs
    rows, columns = np.mgrid[:128, :64]
    image[(rows - 24) ** 2 + (columns - 32 - shift) ** 2 < 81] = skin
    image += random.normal(0, 6, image.shape)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    angle = 30 * int(random.integers(12))
    return Thumbnail.from_array(pixels, caption=f"{angle}deg, foggy, noon{warning}")
