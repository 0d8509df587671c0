"""Whether an objective finds a target's own conditions again, with and without the gap between renderer and camera.

MiniGPR is the source. The targets of planted conditions show other people: photographs of MiniMarket, with its cameras
and streets (gap), these recorded once more by stronger cameras, or more images of the source's own renderer (no gap).
What the search chooses is compared with what was planted.

    python tests/benchmarks/recovery.py --world FOLDER [--network efficientnet_lite0 imagenet] [--per-cell 4]

The world is rendered and measured in FOLDER, and what was chosen is kept there: an interrupted run goes on, with what
is left to do. What was to be decided was decided on targets 100 to 111, not on those reported.
"""

import argparse
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from recovery_world import ATTRIBUTES, KINDS, SIZES, SOURCE, Look, World, make_world

from finegpr.atomic import write_atomic
from finegpr.storage import read_json, sha256, write_json
from finegpr.subset import Subset
from finegpr.weighing import Scale, Weighing
from search.analysis.compare import agreements, t_interval, total_variation, value_shares
from search.loop import search
from search.measured import Measured
from search.objectives import attribute_classifier, make_objective
from search.objectives.attribute_classifier import Classifier
from search.optimizers import make_optimizer
from search.space import Budget, Space

OBJECTIVES: tuple[tuple[str, Scale], ...] = (
    ("mean_distance", "standardised"),
    ("mmd_linear", "paper"),
    ("mmd_linear", "standardised"),
    ("mmd_rbf", "standardised"),
    ("frechet", "standardised"),
    ("mmd_posterior", "standardised"),
    ("attribute_shares", "standardised"),
    ("aligned_shares", "standardised"),
)
REFERENCE = "mmd_rbf, standardised"
ALIGNED, UNALIGNED = "aligned_shares, standardised", "attribute_shares, standardised"
LOOKS = (("vgg19", "random"), ("efficientnet_lite0", "imagenet"))
BUDGET = Budget(images=100, least=0.02, most=0.3)
STATISTICS = ("total_variation", "jaccard")
Row = dict[str, float]  # of one attribute: each statistic, and by chance


def train_once() -> None:
    """Classifiers do not depend on the target, so that one training serves all of them here."""
    train, trained = attribute_classifier.fit_classifier, dict[str, Classifier]()

    def fit(x: np.ndarray, labels: np.ndarray, num_values: int, **options: float) -> Classifier:
        key = sha256(x[:8].tobytes() + labels.tobytes())
        if key not in trained:
            trained[key] = train(x, labels, num_values, **options)
        return trained[key]

    attribute_classifier.fit_classifier = fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """The best subset of one search, and whether the planted one, which the search did not find, scores better.
    ``estimate``: the shares that the objective takes the target's for, by attribute; empty where it has none."""

    subset: Subset
    missed: bool
    estimate: dict[str, list[float]]


def choose(
    world: World, space: Space, objective: tuple[str, Scale], kind: str, number: int, evaluations: int
) -> Choice:
    """What the swarm finds."""
    name, scale = objective
    identity = world.source.identities
    scored = make_objective(
        name,
        space,
        Measured(
            measurements=world.measurements,
            cells=space.cells,
            identity=identity,
            target=f"{kind}{number}",
            weighing=Weighing(scale=scale),
        ),
    )
    optimizer = make_optimizer("swarm", space, seed=0, evaluations=evaluations)
    with tempfile.TemporaryDirectory() as folder:
        subset = search(space, scored, optimizer, Path(folder), evaluations=evaluations, config={}, num_random=0).subset
    found, planted = scored.score([subset, Subset(world.planted[number])])
    return Choice(
        subset=subset,
        missed=bool(planted < found - 1e-9 * abs(found)),
        estimate={each.attribute: list(each.shares) for each in scored.estimate},
    )


def judge(
    space: Space, subset: Subset, planted: Mapping[str, list[str]], estimate: Mapping[str, list[float]]
) -> dict[str, Row]:
    """Per attribute, the statistics of the manifest's expected shares against the planted ones, and by chance: over all
    sets of values alike. Of ``estimate``, as far as there is one, its total variation to them."""
    attributes, codes = space.cells.attributes, space.cells.codes
    shares = space.expected_shares(space.mask(subset)[None])[0]
    true = {
        attribute.name: np.array([value in planted[attribute.name] for value in attribute.values], dtype=float)
        for attribute in attributes
    }
    true = {name: row / row.sum() for name, row in true.items()}
    found = agreements(
        subset,
        attributes,
        chosen=value_shares(codes, shares, attributes),
        source=value_shares(codes, space.cells.images.astype(float), attributes),
        true=true,
    )
    judged: dict[str, Row] = {
        each.attribute: {
            "total_variation": each.total_variation.value,
            "total_variation by chance": each.total_variation.any_size,
            "total_variation of everything": each.total_variation.everything,
            "jaccard": each.jaccard.value,
            "jaccard by chance": each.jaccard.any_size,
            "jaccard of everything": each.jaccard.everything,
        }
        for each in found
    }
    for name, estimated in estimate.items():
        judged[name]["total_variation of the estimate"] = total_variation(np.array(estimated), true[name])
    return judged


Judged = dict[tuple[str, str], list[dict[str, Row]]]  # by kind and objective, one per target


def play(world: World, cache: Path, evaluations: int) -> tuple[Judged, Judged]:
    """Judgements of what was found, and of the best known: the planted subset where it scores better."""
    space = Space.of(world.source, BUDGET, seed=0, attributes=ATTRIBUTES)
    judged: Judged = {}
    best: Judged = {}
    for number, planted in world.planted.items():
        for kind in KINDS:
            for objective in OBJECTIVES:
                path = cache / f"{kind}{number}-{'-'.join(objective)}-{evaluations}.json"
                if not path.exists():
                    choice = choose(world, space, objective, kind, number, evaluations)
                    values = {name: sorted(chosen) for name, chosen in choice.subset.values.items()}
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_json(path, {"subset": values, "missed": choice.missed, "estimate": choice.estimate})
                record = read_json(path)
                row = judge(space, Subset(record["subset"]), planted, record["estimate"])
                known = judge(space, Subset(planted), planted, record["estimate"]) if record["missed"] else row
                key = kind, ", ".join(objective)
                judged.setdefault(key, []).append(row)
                best.setdefault(key, []).append(known)
                print(path.stem, {name: round(each["total_variation"], 2) for name, each in row.items()}, flush=True)
    return judged, best


def over_attributes(rows: list[dict[str, Row]], statistic: str) -> np.ndarray:
    """The statistic of each target and attribute, (targets, attributes)."""
    return np.array([[row[name][statistic] for name in ATTRIBUTES] for row in rows])


def mean_variation(rows: list[dict[str, Row]], suffix: str = "") -> np.ndarray:
    """Total variation, mean over attributes, (targets,)."""
    return over_attributes(rows, "total_variation" + suffix).mean(axis=1)


def comparison(judged: Judged) -> list[str]:
    """Aligned shares against unaligned ones, paired over targets: of what was chosen, and of the estimates."""
    lines = [
        "| aligned against unaligned shares | estimate's TV | aligned | less by (95 %) | nearer on "
        "| choice's TV | aligned | less by (95 %) | nearer on |",
        f"|{' --- |' * 9}",
    ]
    for kind, title in KINDS.items():
        cells = []
        for suffix in (" of the estimate", ""):
            before, after = (mean_variation(judged[kind, name], suffix) for name in (UNALIGNED, ALIGNED))
            cells += [f"{before.mean():.2f}", f"{after.mean():.2f}", shown_gain(before - after)]
            cells.append(f"{int((after < before - 1e-9).sum())} of {len(after)}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def table(judged: Judged, best: Judged, kind: str) -> list[str]:
    names = [name for of_kind, name in judged if of_kind == kind]
    head = [f"{short} {name}" for short in ("TV", "Jaccard") for name in ATTRIBUTES]
    more = ["TV less than of `mmd_rbf` by (95 %)", "nearer on", "search failed on", "less by, had it not failed (95 %)"]
    lines = [f"| {' | '.join([KINDS[kind], *head, *more])} |", f"|{' --- |' * (1 + len(head) + len(more))}"]
    reference = mean_variation(judged[kind, REFERENCE])
    rows = [(name, judged[kind, name], "") for name in names]
    for label in (" by chance", " of everything"):
        rows.append((label.replace(" by chance", "random sets of values").strip(), judged[kind, REFERENCE], label))
    for name, judgements, suffix in rows:
        means = [over_attributes(judgements, statistic + suffix).mean(axis=0) for statistic in STATISTICS]
        values = mean_variation(judgements, suffix)
        cells = [f"{value:.2f}" for mean in means for value in mean]
        cells += [shown_gain(reference - values), f"{int((values < reference - 1e-9).sum())} of {len(values)}"]
        if suffix:
            cells += ["-", "-"]
        else:
            failed = [found is not known for found, known in zip(judged[kind, name], best[kind, name], strict=True)]
            gain = mean_variation(best[kind, REFERENCE]) - mean_variation(best[kind, name])
            cells += [f"{sum(failed)} of {len(failed)}", shown_gain(gain)]
        lines.append(f"| {name.replace('of everything', 'everything')} | {' | '.join(cells)} |")
    return lines


def shown_gain(gain: np.ndarray) -> str:
    estimate = t_interval(gain.tolist())
    return f"{estimate.mean:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})" if gain.any() else "-"


COLOURS = {"gap": "#1c2126", "none": "#0069b4", "colour": "#c2571a", "make": "#b58900"}


def draw(judged: Judged, path: Path) -> None:
    figure = Figure(figsize=(9.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(ATTRIBUTES), sharey=True)
    names = [name for kind, name in judged if kind == "gap"]
    width = 0.76 / len(KINDS)
    for column, (panel, attribute) in enumerate(zip(panels, ATTRIBUTES, strict=True)):
        for offset, (kind, colour) in enumerate(COLOURS.items()):
            values = [over_attributes(judged[kind, name], "total_variation")[:, column] for name in names]
            places = np.arange(len(names)) + width * (offset - (len(KINDS) - 1) / 2)
            panel.barh(places, [each.mean() for each in values], height=width, color=colour, label=KINDS[kind])
            errors = [each.std(ddof=1) / np.sqrt(len(each)) for each in values]
            panel.errorbar([each.mean() for each in values], places, xerr=errors, fmt="none", ecolor="#8a949e")
        chance = over_attributes(judged["gap", REFERENCE], "total_variation by chance")[:, column].mean()
        panel.axvline(chance, color="#8a949e", linestyle="--", linewidth=1, label="random sets of values")
        panel.set_title(attribute, fontsize=9, loc="left")
        panel.set_xlabel("TV to the planted shares")
        panel.set_yticks(range(len(names)), names)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--targets", type=int, default=22)
    parser.add_argument("--people", type=int, default=SOURCE.num_identities, help="in the source; 60 images of each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=4000)
    parser.add_argument(
        "--network", nargs=2, action="append", metavar=("NAME", "WEIGHTS"), help="several times for several; all"
    )
    parser.add_argument("--per-cell", type=int, help="images measured of every cell of the source; all, about 10")
    parser.add_argument("--photos", type=int, default=Look.photos, help="of every target")
    parser.add_argument("--output", type=Path, default=Path("results/recovery.md"))
    given = parser.parse_args(arguments)
    started = time.monotonic()
    train_once()
    numbers = range(given.first_seed, given.first_seed + given.targets)
    lines: list[str] = []
    for network, weights in given.network or LOOKS:
        look = Look(network=network, weights=weights, per_cell=given.per_cell, photos=given.photos)
        world = make_world(given.world, numbers, look, num_people=given.people)
        judged, best = play(world, given.world / "chosen" / look.name, given.evaluations)
        if not lines:
            lines = HEAD.format(
                targets=given.targets,
                sizes=", ".join(" x ".join(map(str, size)) for size in SIZES),
                evaluations=f"{given.evaluations:,}",
                images=len(world.measurements.row),
                photos=given.photos,
            ).split("\n")
        sides = f"{look.config.height}x{look.config.width}"
        lines += ["", f"## {network}, {weights} weights, {sides}", "", *comparison(judged)]
        for kind in KINDS:
            lines += ["", *table(judged, best, kind)]
        given.output.parent.mkdir(parents=True, exist_ok=True)
        draw(judged, given.output.with_name(f"{given.output.stem}-{network}.png"))
    lines += [
        "",
        *NOTES.split("\n"),
        "",
        f"`python tests/benchmarks/recovery.py {shlex.join(['--world', 'FOLDER', *shown(arguments)])}`, "
        f"{time.strftime('%Y-%m-%d')}, one of {os.cpu_count()} cores of {platform.machine()}, "
        f"{time.monotonic() - started:.0f} s in this run (what was chosen before is read again).",
        "",
    ]
    given.output.write_text("\n".join(lines))
    print("\n".join(lines))


def shown(arguments: list[str]) -> list[str]:
    """The command's options without its folders."""
    return [
        each
        for before, each in zip(["", *arguments], arguments, strict=False)
        if not {before, each} & {"--world", "--output"}
    ]


HEAD = """# Recovery of planted conditions

{images:,} MiniGPR images of 100 people in 588 cells; {targets} targets of {photos} images of 60 other people. The
numbers of their viewpoints x weathers x illuminations are, in turn, {sizes}. Each is
photographed once by MiniMarket's cameras in other streets (camera gap), and once by the source's own renderer (no gap);
the photos of the gap are recorded once more with a strong colour cast, blur and JPEG, and as by another make of camera
(`tests/benchmarks/recovery_cameras.py`). The swarm scores {evaluations} subsets;
100 images are trained on, of subsets that hold 2 to 30 % of the source. TV: total variation between the manifest's
shares and the planted ones, 0 the same and 1 disjoint; Jaccard: of the sets of values, 1 the same. Means over targets;
intervals are paired over targets, of the mean over the three attributes. Random sets of values are of any size.
Where the planted subset scores better than the one found, the search failed and not the objective; the last column
takes the planted one there."""

NOTES = """Under the gap both robust forms are nearer than `mmd_rbf`; weather and illumination remain wrong
on many targets all the same, and viewpoints on most. Without the gap they do not lose; most of their lead there is the
search's, which misses the planted subset of `mmd_rbf` on so many as the last column but one says. Where that one does
not score better, as under the gap, the search may have missed the best subset unseen: 2,000 evaluations gave other
subsets on many targets, but no other verdict.

## How the two robust forms were chosen

On targets 100 to 111 of either kind, by throwaway code, 1,000 evaluations (* 1,500); TV as above, mean over attributes.

| form | gap | no gap |
| --- | --- | --- |
| `mmd_rbf` (with 1,500 evaluations: 0.66, 0.30) | 0.66 | 0.38 |
| target moved back by 30 % of the gap between the means of source and target * | 0.67 | 0.43 |
| by 60 % * | 0.68 | 0.57 |
| by all of it * | 0.71 | 0.63 |
| only by what lies outside the 3 leading directions between cells * | 0.64 | 0.43 |
| each term whitened by the covariance within cells | 0.59 | 0.32 |
| the same, directions weighed by between-cell against within-cell variance | 0.63 | 0.33 |
| each term's sketch divided by its length (cosine kernel) | 0.59 | 0.41 |
| mean posteriors of attribute classifiers (`mmd_posterior`; without altered copies) | 0.41 | 0.21 |
| attribute shares by EM, total variation (`attribute_shares`; without altered copies) | 0.39 | 0.10 |
| the same, squared distance | 0.39 | 0.10 |
| `mmd_rbf` and attribute shares, in equal parts | 0.42 | 0.10 |
| the same, 1 to 3 | 0.39 | - |

The estimates themselves, TV to the planted shares with and without gap: mean posterior 0.42, 0.26; EM 0.41, 0.13; EM
of calibrated posteriors 0.44, 0.14; confusion matrix 0.46, 0.18; EM with altered copies (noise, differences between
images, contrast of a term) 0.40, 0.14. Moving the target by what no mixture of cells explains changed nothing: most of
the gap lies along what attributes do too. That part no form here can tell from another illumination.

## How aligned shares were chosen

On the same targets, by throwaway code: TV of the estimated shares, mean over attributes, of means and deviations of
the channels of EfficientNet-Lite0's seven stages (ImageNet weights, 128x64, 32 coordinates each, 128 of the pooled
features). Shares of everything: 0.57.

| form | no gap | gap | colour, blur, JPEG | another make |
| --- | --- | --- | --- | --- |
| attribute shares (logistic regressions, altered copies) | 0.10 | 0.44 | 0.78 | 0.65 |
| EM of a linear discriminant for each attribute | 0.11 | 0.43 | 0.73 | 0.64 |
| the same in turns with moment alignment, begun at even shares | 0.32 | 0.45 | 0.64 | 0.58 |
| moments of the source weighed by the shares of all attributes | 0.34 | 0.54 | 0.65 | 0.65 |
| EM of joint cells, sums of effects, not aligned | 0.09 | 0.40 | 0.72 | 0.63 |
| the same, aligned by a shift | 0.09 | 0.37 | 0.70 | 0.59 |
| and by all of the ratio of deviations | 0.10 | 0.39 | 0.63 | 0.60 |
| and by half of it, as a power | 0.10 | 0.38 | 0.64 | 0.56 |
| the same with 5 rounds in place of 20 (`aligned_shares`) | 0.09 | 0.37 | 0.63 | 0.55 |
| by all of it, weather x illumination with interactions, viewpoint by itself | 0.11 | 0.37 | 0.63 | 0.66 |
| by half of it, two starts, the likelier taken | 0.11 | 0.38 | 0.66 | 0.59 |
| by all of it, viewpoint by itself, mean over 10 resamples | 0.11 | 0.38 | 0.60 | 0.57 |
| late layers only (stages 5 to 7), by all of it, with interactions | 0.25 | 0.40 | 0.65 | 0.61 |
| `aligned_shares` from the hidden layers of stages in place of their outputs | 0.10 | 0.33 | 0.71 | 0.50 |

As measured (sketches of this project, both estimates made by it):

| estimate | no gap | gap | colour, blur, JPEG | another make |
| --- | --- | --- | --- | --- |
| EfficientNet-Lite0, ImageNet: `attribute_shares` | 0.067 | 0.425 | 0.693 | 0.680 |
| `aligned_shares` | 0.055 | 0.330 | 0.558 | 0.546 |
| VGG-19, untrained: `attribute_shares` | 0.140 | 0.412 | 0.646 | 0.671 |
| `aligned_shares` | 0.166 | 0.434 | 0.663 | 0.689 |

An untrained network tells cells apart too badly for a camera to be seen beside them; there nothing is won.
Moment alignment takes a target of a single weather for one of all weathers whose differences the camera has shrunk;
begun from the unaligned shares, and only as far as they are expected of a camera, a shift does not. Flatter
likelihoods, a camera's covariance measured from altered source images and heavier shrinkage helped one kind and cost
another. Begun at the planted shares, the estimate ends nearer to them under the two stronger gaps, but on 8 of 12
targets where it is less likely (with interactions): what is seen there does not tell. The intervals
are over photos alone: on four targets they held 78 % of the planted shares without a gap, and 57 % with one."""

if __name__ == "__main__":
    main(sys.argv[1:])
