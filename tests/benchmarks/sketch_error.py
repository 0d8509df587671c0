"""What is lost when a target that came after the measuring is measured from sketches alone.

A rendered source is measured once; targets of other people, drawn as the source is (MiniGPR) and as photographs are
(MiniMarket), are added from its sketches. Distances, and the subsets that the objectives choose, are compared with
those of the full vectors, which are kept in memory for the purpose.

python tests/benchmarks/sketch_error.py [--network efficientnet_lite0] [--weights imagenet] [--size 128x64]
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy import stats
from search_regret import CellGram

from finegpr.attributes import ILLUMINATION, WEATHER
from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure
from finegpr.measuring.networks import NETWORKS, load_network
from finegpr.measuring.reference import build_network, load_reference, read_batches
from finegpr.measuring.results import MAX_OFF_BASIS, Measurements
from finegpr.measuring.retarget import RetargetConfig, retarget
from finegpr.measuring.sketch import SMALLEST_EIGENVALUE
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from finegpr.weighing import Weighing
from search.measured import Measured
from search.objectives import make_objective
from search.optimizers.baselines import enumerate_masks, random_masks
from search.space import Budget, Space

VIEWPOINTS = ["0deg", "120deg", "240deg"]
NUM_PHOTOS = 40
LEAST_SPEARMAN = 0.99  # that new targets' distances are to have, in every term
BUDGET = Budget(images=60, least=0.02, most=0.25)
OBJECTIVES = ("mmd_linear", "mmd_rbf")
LOOKS = ("inside", "outside")
KNOWN = "known"  # the target that the source is measured against
COLUMNS_AT_ONCE = 8192
DAY, NIGHT = ("forenoon", "noon", "afternoon"), ("night", "midnight")


def render(config: MeasureConfig, root: Path, num_targets: int, num_people: int) -> tuple[Catalog, dict[str, Catalog]]:
    """The source, and by name the targets: photographs, and pictures of other people, in a few planted conditions."""
    size: dict[str, Any] = {"height": config.height, "width": config.width}
    for name, seed, people in (("source", 1, num_people), ("others", 2, num_people * 4 // 3)):
        world = MiniGPRConfig(seed=seed, num_identities=people, images_per_identity=7, viewpoints=VIEWPOINTS, **size)
        render_minigpr(world, root / name)
    source, others = (Catalog.index(root / name, layout="finegpr") for name in ("source", "others"))
    targets = {}
    for index in range(num_targets + 1):
        planted = plant(index)
        name = f"outside{index:02d}" if index < num_targets else KNOWN
        photos = MiniMarketConfig(
            seed=index,
            distribution=planted,
            num_train=NUM_PHOTOS,
            train_identities=NUM_PHOTOS,
            validation_identities=1,
            test_identities=1,
            num_distractors=0,
            num_junk=0,
            **size,
        )
        render_minimarket(photos, root / name)
        targets[name] = Catalog.index(root / name, layout="market1501").part("train")
        if index < num_targets:
            fitting = np.all([others.frame[key].isin(values) for key, values in planted.items()], axis=0)
            rows = np.random.default_rng((index, 6)).permutation(np.flatnonzero(fitting))[:NUM_PHOTOS]
            targets[f"inside{index:02d}"] = others.take(np.sort(rows))
    return source, targets


def plant(seed: int) -> dict[str, list[str]]:
    """2 or 3 weathers and illuminations, 1 to 3 viewpoints."""
    random = np.random.default_rng((seed, 5))
    factors = {"weather": WEATHER.values, "illumination": ILLUMINATION.values, "viewpoint": VIEWPOINTS}
    planted = {}
    for name, values in factors.items():
        least = 1 if name == "viewpoint" else 2
        planted[name] = sorted(random.choice(values, size=int(random.integers(least, 4)), replace=False).tolist())
    return planted


def vectors_of(config: MeasureConfig, catalog: Catalog) -> list[torch.Tensor]:
    """The full vectors of every image, (n, d) per term."""
    network = build_network(config, load_network(config.find_weights()))
    parts = [batch.vectors for batch in read_batches(network, catalog.file_paths(), config)]
    return [torch.cat([part[term] for part in parts]) for term in range(len(config.terms))]


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Of a target's m images: distances (n, T) of the source's n images to its mean vectors, and per term the inner
    products of centred vectors, (n, m) with the source and (m, m) among themselves."""

    distances: np.ndarray
    with_source: list[np.ndarray]
    among: list[np.ndarray]


def inner(x: torch.Tensor, y: torch.Tensor, centre: torch.Tensor) -> np.ndarray:
    """(x - centre) (y - centre)^T, summed in double precision."""
    total = torch.zeros(len(x), len(y), dtype=torch.float64)
    for start in range(0, x.shape[1], COLUMNS_AT_ONCE):
        columns = slice(start, start + COLUMNS_AT_ONCE)
        total += ((x[:, columns] - centre[columns]) @ (y[:, columns] - centre[columns]).T).double()
    return total.numpy()


def compare(source: list[torch.Tensor], target: list[torch.Tensor]) -> Exact:
    """Everything exact about one target."""
    means = [vectors.mean(dim=0, dtype=torch.float64).float() for vectors in target]
    distances = [
        torch.cat([torch.linalg.vector_norm(rows - mean, dim=1).square() for rows in vectors.split(64)]).numpy()
        for vectors, mean in zip(source, means, strict=True)
    ]
    centres = [vectors.mean(dim=0) for vectors in source]
    return Exact(
        distances=np.stack(distances, axis=1).astype(float),
        with_source=[inner(x, y, c) for x, y, c in zip(source, target, centres, strict=True)],
        among=[inner(y, y, c) for y, c in zip(target, centres, strict=True)],
    )


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Errors of estimated distances: relative to the standard deviation over images, of all images and targets
    (t, n, T); and per target and term the rank correlation (t, T)."""

    relative: np.ndarray
    spearman: np.ndarray

    @classmethod
    def of(cls, estimated: list[np.ndarray], exact: list[np.ndarray]) -> "Errors":
        pairs = list(zip(estimated, exact, strict=True))
        return cls(
            relative=np.stack([np.abs(guess - truth) / truth.std(axis=0) for guess, truth in pairs]),
            spearman=np.array(
                [
                    [stats.spearmanr(guess[:, term], truth[:, term])[0] for term in range(truth.shape[1])]
                    for guess, truth in pairs
                ]
            ),
        )

    def percentiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Median and 95th percentile per term."""
        return np.median(self.relative, axis=(0, 1)), np.percentile(self.relative, 95, axis=(0, 1))


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """One kernel between source images (n, n), source and target (n, m), target images (m, m)."""

    source: np.ndarray
    across: np.ndarray
    target: np.ndarray


def kernels(products: Callable[[int], tuple[np.ndarray, ...]], measured: Measurements) -> dict[str, Kernels]:
    """Both objectives' kernels from a term's inner products and squared lengths: source, across, target, and the part
    of source and target lengths that the products miss."""
    linear, rbf = ([np.zeros(1)] * 3 for _ in range(2))
    for term, (median, weight) in enumerate(zip(measured.median, measured.factors(Weighing()), strict=True)):
        source, across, target, of_source, of_target = products(term)
        x, y = np.diag(source) + of_source, np.diag(target) + of_target
        linear = [total + weight * part for total, part in zip(linear, (source, across, target), strict=True)]
        distances = [
            x[:, None] + x - 2 * source,
            x[:, None] + y - 2 * across,
            y[:, None] + y - 2 * target,
        ]
        np.fill_diagonal(distances[0], 0)
        np.fill_diagonal(distances[2], 0)
        for scale in (0.5, 1, 2):
            widths = [np.exp(-np.maximum(distance, 0) / (scale * median)) for distance in distances]
            rbf = [total + part for total, part in zip(rbf, widths, strict=True)]
    return {
        name: Kernels(source=parts[0], across=parts[1], target=parts[2])
        for name, parts in zip(OBJECTIVES, (linear, rbf), strict=True)
    }


class Choice:
    """The subset of least score, among all that fit the budget, and its regret under the full vectors' score."""

    def __init__(self, catalog: Catalog) -> None:
        self.space = Space.of(catalog, BUDGET, seed=0)
        self.identity = catalog.frame["identity"].to_numpy()
        masks = [
            batch[self.space.feasible(batch)]
            for start in range(0, self.space.num_subsets, 4096)
            for batch in [enumerate_masks(self.space, np.arange(start, min(start + 4096, self.space.num_subsets)))]
        ]
        self.shares = np.concatenate([self.space.expected_shares(batch) for batch in masks if len(batch)])
        self.random = self.space.expected_shares(random_masks(self.space, 200, seed=0))
        cell, num_cells = self.space.cells.of_row, len(self.space.cells)
        self._people = np.bincount(cell, minlength=num_cells).astype(float)
        self._average = np.zeros((num_cells, len(cell)))
        self._average[cell, np.arange(len(cell))] = 1 / self._people[cell]  # a cell shows each of its people once

    def gram(self, kernel: Kernels) -> CellGram:
        """Means of a kernel over cells and target, with nothing truncated."""
        own = self._average @ np.diag(kernel.source)
        gram = self._average @ kernel.source @ self._average.T
        return CellGram(
            gram=gram,
            to_target=self._average @ kernel.across.mean(axis=1),
            constant=float(kernel.target.mean()),
            noise=(own - np.diag(gram)) / (self._people - 1),
        )

    def best(self, score: Callable[[np.ndarray], np.ndarray]) -> int:
        """Place of the feasible subset with the least score."""
        return int(np.argmin(self.scores(score)))

    def scores(self, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Scores of all feasible subsets."""
        return np.concatenate([score(part) for part in np.array_split(self.shares, 16)])

    def regrets(self, exact: CellGram, chosen: dict[str, int]) -> dict[str, float]:
        """Regret of the chosen places: 0 is the exact choice, 1 the median of 200 random subsets."""
        scores = self.scores(exact.score)
        unit = np.median(exact.score(self.random)) - scores.min()
        return {name: float((scores[place] - scores.min()) / unit) for name, place in chosen.items()}


def regrets_of(
    choice: Choice, exact: Exact, among: list[np.ndarray], measured: Measurements, target: str, rest: np.ndarray
) -> dict[tuple[str, str], float]:
    """Regret per objective and way of scoring, ``rest`` (m, T) being the target images' squared lengths off the basis;
    and as ``variance`` the share of the exact correction for variance within cells that the search subtracts.
    """
    outside = measured.norms.astype(float) * measured.off_basis
    x, y = measured.sketch.astype(float), measured.target_sketch[target].astype(float)

    def full(term: int) -> tuple[np.ndarray, ...]:
        return among[term], exact.with_source[term], exact.among[term], np.zeros(1), np.zeros(1)

    def sketched(term: int) -> tuple[np.ndarray, ...]:
        left, right = x[:, measured.blocks[term]], y[:, measured.blocks[term]]
        return left @ left.T, left @ right.T, right @ right.T, np.zeros(1), np.zeros(1)

    def with_lengths(term: int) -> tuple[np.ndarray, ...]:
        return (*sketched(term)[:3], outside[:, term], rest[:, term])

    truth = kernels(full, measured)
    ways = {"sketches in the same formula": sketched, "and the lengths off the basis": with_lengths}
    guesses = {way: kernels(products, measured) for way, products in ways.items()}
    regrets = {}
    for name in OBJECTIVES:
        against = Measured(
            measurements=measured,
            cells=choice.space.cells,
            identity=choice.identity,
            target=target,
            weighing=Weighing(),
        )
        searched = make_objective(name, choice.space, against).embedding
        correct = choice.gram(truth[name])
        regrets[name, "variance"] = float((searched.variance / searched.num_identities).sum() / correct.noise.sum())
        chosen = {"as searched": choice.best(searched.score)}
        chosen |= {way: choice.best(choice.gram(guess[name]).score) for way, guess in guesses.items()}
        for way, regret in choice.regrets(correct, chosen).items():
            regrets[name, way] = regret
    return regrets


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A basis from some source images and how well it serves others: the worst share of squared norms off the basis
    and its term; errors to all new targets, and to the known one."""

    name: str
    share: float
    term: str
    new: Errors
    known: Errors


def try_basis(
    config: MeasureConfig,
    name: str,
    sample: np.ndarray,
    images: np.ndarray,
    among: list[np.ndarray],
    targets: dict[str, Exact],
) -> Trial:
    """Fit a basis by inner products alone and estimate the distances of ``images``."""
    shares = []
    estimates: dict[str, list[np.ndarray]] = {target: [] for target in targets}
    for term, products in enumerate(among):
        wanted = config.num_coordinates[term]
        to_mean = products[:, sample].mean(axis=1)
        of_mean = products[np.ix_(sample, sample)].mean()
        centred = products - to_mean[:, None] - to_mean + of_mean
        values, vectors = np.linalg.eigh(centred[np.ix_(sample, sample)])
        kept = np.flatnonzero(values > SMALLEST_EIGENVALUE * values[-1])[::-1][:wanted]
        directions = vectors[:, kept] / np.sqrt(values[kept])
        coordinates = centred[np.ix_(images, sample)] @ directions
        norms = np.diag(centred)[images]
        rest = np.maximum(norms - np.square(coordinates).sum(axis=1), 0)
        shares.append(rest.sum() / norms.sum())
        for target, exact in targets.items():
            mean = exact.with_source[term].mean(axis=1)
            residual = mean[sample] - to_mean[sample] - mean[sample].mean() + of_mean
            goal = residual @ directions
            length = exact.among[term].mean() - 2 * mean[sample].mean() + of_mean
            distance = np.square(coordinates - goal).sum(axis=1) + rest + max(length - goal @ goal, 0)
            estimates[target].append(distance)
    stacked = {target: np.stack(columns, axis=1) for target, columns in estimates.items()}
    new = [target for target in targets if target != KNOWN]
    return Trial(
        name=name,
        share=float(np.max(shares)),
        term=config.terms.names[int(np.argmax(shares))],
        new=Errors.of([stacked[target] for target in new], [targets[target].distances[images] for target in new]),
        known=Errors.of([stacked[KNOWN]], [targets[KNOWN].distances[images]]),
    )


def trials(
    config: MeasureConfig, source: Catalog, among: list[np.ndarray], targets: dict[str, Exact]
) -> Iterator[Trial]:
    """Bases that are too small, and bases of other images than those measured."""
    random = np.random.default_rng(0).permutation(len(source))
    for size in (4, 8, 16, 32, 64, 100, 200, 400):
        yield try_basis(
            config, f"{size} images of the source", np.sort(random[:size]), np.arange(len(source)), among, targets
        )
    light = source.frame["illumination"]
    day, night = (np.flatnonzero(light.isin(values)) for values in (DAY, NIGHT))
    yield try_basis(config, f"{len(day)} images by day, for those by night", day, night, among, targets)
    yield try_basis(config, f"{len(night)} images by night, for those by day", night, day, among, targets)


def stored_bytes(folder: Path) -> tuple[float, float]:
    """Bytes per image on the disk: of the columns sketch, norms and off_basis, and of whole shards."""
    columns, whole, images = 0, 0, 0
    for path in sorted(folder.glob("shard-*.parquet")):
        metadata = pq.ParquetFile(path).metadata
        images += metadata.num_rows
        whole += path.stat().st_size
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                column = metadata.row_group(group).column(place)
                if column.path_in_schema.split(".")[0] in ("sketch", "norms", "off_basis"):
                    columns += column.total_compressed_size
    return columns / images, whole / images


def percent(values: np.ndarray) -> str:
    """Cells of a table."""
    return " | ".join(f"{100 * value:.2f} %" for value in values)


def main(arguments: list[str]) -> None:
    """Render, measure, add the targets, compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--people", type=int, default=126, help="in the source; 7 images of each")
    parser.add_argument("--network", choices=list(NETWORKS), default="vgg19")
    parser.add_argument("--weights", default="random", help="or imagenet, or a path")
    parser.add_argument("--size", default="64x32", help="height x width, of pictures and measuring")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="as style_coordinates=64")
    parser.add_argument("--output", type=Path, help="default: results/sketch-error-NETWORK.md, without -vgg19")
    given = parser.parse_args(arguments)
    height, width = map(int, given.size.split("x"))
    settings: dict[str, Any] = {name: int(value) for name, value in (each.split("=") for each in given.set)}
    config = MeasureConfig(network=given.network, height=height, width=width, weights=given.weights, **settings)
    suffix = "" if given.network == "vgg19" else f"-{given.network.replace('_', '-')}"
    output = given.output or Path(f"results/sketch-error{suffix}.md")
    started = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        source, targets = render(config, root, given.targets, given.people)
        tell(f"rendered {len(source)} images and {len(targets)} targets")
        cells = source.cells(["viewpoint", "weather", "illumination"])
        measure(config, source, {KNOWN: targets[KNOWN]}, root / "base", cells=cells)
        tell("measured the source")
        new = {name: catalog for name, catalog in targets.items() if name != KNOWN}
        measured = retarget(RetargetConfig(), root / "base", new, root / "new")
        tell("added the targets from sketches")
        bases = load_reference(root / "base").bases
        in_bytes = stored_bytes(root / "base")
        vectors = vectors_of(config, source)
        among = [inner(part, part, part.mean(dim=0)) for part in vectors]
        tell("full vectors of the source")
        exact, rest = {}, {}
        for name, catalog in targets.items():
            of_target = vectors_of(config, catalog)
            exact[name] = compare(vectors, of_target)
            projected = [basis.project(part) for basis, part in zip(bases, of_target, strict=True)]
            rest[name] = np.stack([(norms * off).numpy() for _, norms, off in projected], axis=1).astype(float)
        tell("full vectors of the targets")
    errors, regrets = {}, {}
    choice = Choice(source)
    tell(f"{len(choice.shares):,} feasible subsets of {len(cells)} cells")
    for look in LOOKS:
        names = [name for name in new if name.startswith(look)]
        estimated = [measured.terms[name].astype(float) - measured.target_constant[name] for name in names]
        errors[look] = Errors.of(estimated, [exact[name].distances for name in names])
        regrets[look] = [regrets_of(choice, exact[name], among, measured, name, rest[name]) for name in names]
        tell(f"compared the targets {look} the source's look")
    tested = list(trials(config, source, among, exact))
    lines = [*report(config, measured, errors, regrets, choice, in_bytes, tested), "", command(given, started)]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def command(given: argparse.Namespace, started: float) -> str:
    """How the record was made."""
    return (
        f"`python tests/benchmarks/sketch_error.py --network {given.network} --weights {given.weights} "
        f"--size {given.size}{' '.join([' --set', *given.set]) if given.set else ''} "
        f"--targets {given.targets} --people {given.people}`, {time.strftime('%Y-%m-%d')}, "
        f"one core of {platform.machine()}, torch {torch.__version__}, {time.monotonic() - started:.0f} s."
    )


def report(
    config: MeasureConfig,
    measured: Measurements,
    errors: dict[str, Errors],
    regrets: dict[str, list[dict[tuple[str, str], float]]],
    choice: Choice,
    in_bytes: tuple[float, float],
    tested: list[Trial],
) -> list[str]:
    """The record, in Markdown."""
    num_targets = len(regrets["inside"])
    coordinates = measured.sketch.shape[1]
    share_of_variance = {
        name: np.median([row[name, "variance"] for rows in regrets.values() for row in rows]) for name in OBJECTIVES
    }
    head, rule = " | ".join(config.terms.names), " --- |" * (len(config.terms) + 1)
    summary = measured.off_basis_summary()
    lines = [
        "# New targets from sketches, against full measurement",
        "",
        f"MiniGPR: {len(measured.row)} source images in {len(choice.space.cells)} cells,",
        f"{config.height}x{config.width}, {measured.weights};",
        f"basis of {config.basis_images} source images. {num_targets} targets of other people inside the source's look",
        f"(MiniGPR) and {num_targets} outside (MiniMarket: other streets, six cameras), {NUM_PHOTOS}",
        "images each, in 2 to 3 planted weathers and illuminations and 1 to 3 viewpoints, added by",
        "`aost measure --from-sketches`: no image of the source was opened for them.",
        "",
        f"Sketch: {coordinates} coordinates in half precision; a norm and a share off the basis for each of",
        f"{len(config.terms)} terms:",
        f"{2 * coordinates + 8 * len(config.terms)} bytes an image. On the disk (Parquet, zstd) {in_bytes[0]:.0f}, and "
        f"{in_bytes[1]:.0f} with row, reason and the terms of",
        "one target.",
        "",
        "## Distances",
        "",
        "Error of |G - mean A|^2 and |F - mean P|^2, without the target's constant, in standard deviations over",
        "images: median and 95th percentile over all images and targets. Spearman over images: the lowest of the",
        "targets.",
        "",
        f"| target | figure | {head} |",
        f"| --- |{rule}",
    ]
    for look, error in errors.items():
        median, high = error.percentiles()
        lines += [
            f"| {look} | median | {percent(median)} |",
            f"| {look} | 95th percentile | {percent(high)} |",
            f"| {look} | lowest Spearman | {' | '.join(f'{value:.5f}' for value in error.spearman.min(axis=0))} |",
        ]
    least = {look: error.spearman.min() for look, error in errors.items()}
    lines += [
        "",
        f"At least {LEAST_SPEARMAN} is wanted: "
        + ", ".join(
            f"{look} {value:.5f}, {'held' if value >= LEAST_SPEARMAN else 'MISSED'}" for look, value in least.items()
        )
        + ".",
    ]
    lines += ["", "Share of the source's images off the basis:", "", f"| figure | {head} |", f"|{rule}"]
    lines += [f"| {name.replace('_', ' ')} | {percent(np.array(values))} |" for name, values in summary.items()]
    lines += [
        "",
        "## Choice of a subset",
        "",
        f"Every one of {len(choice.shares):,} feasible subsets (budget {BUDGET.images} images, {BUDGET.least:.0%} to "
        f"{BUDGET.most:.0%} of all) is scored",
        "with the kernel of the full vectors, nothing truncated. Regret of the subset with the least score from",
        "sketches: 0 is the exact choice, 1 the median of 200 random subsets.",
        "",
        "* as searched: by the objective of `aost search`, which subtracts",
        f"  {share_of_variance['mmd_linear']:.0%} (mmd_linear) and {share_of_variance['mmd_rbf']:.0%} (mmd_rbf) of the "
        "exact correction for variance within cells: the rest lies off",
        "  the basis;",
        "* sketches in the same formula: only the kernel is from sketches, all else is as in the exact score;",
        "* and the lengths off the basis: the same, with both images' squared lengths off the basis in every squared",
        "  distance of mmd_rbf, which `aost search` leaves out.",
        "",
        "| objective | target | scored | same subset | regret below 1 % | median | worst |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for objective in OBJECTIVES:
        for look, rows in regrets.items():
            for way in (way for name, way in rows[0] if name == objective):
                if way == "variance" or (objective == "mmd_linear" and way.startswith("and")):
                    continue
                values = np.array([row[objective, way] for row in rows])
                counts = f"{(values < 1e-9).sum()} of {len(values)} | {(values < 0.01).sum()} of {len(values)}"
                lines.append(
                    f"| {objective} | {look} | {way} | {counts} | {np.median(values):.4f} | {values.max():.4f} |"
                )
    lines += [
        "",
        "## When a basis is too coarse",
        "",
        "Bases of fewer source images, and of other images than those they serve. Share: of squared norms off the",
        "basis, in the worst term. Errors: 95th percentile in the worst term, for all new targets, and for one that",
        f"was measured directly. `--from-sketches` refuses a share above {MAX_OFF_BASIS:.0%}, or an error above "
        f"{RetargetConfig().max_error:.0%} on a",
        "measured target: the share alone does not see a basis of other images than those measured.",
        "",
        "| basis | share off it | term | error, new targets | lowest Spearman | error, measured target |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {trial.name} | {trial.share:.1%} | {trial.term} | {trial.new.percentiles()[1].max():.1%} | "
        f"{trial.new.spearman.min():.4f} | {trial.known.percentiles()[1].max():.1%} |"
        for trial in tested
    ]
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
