"""How many subsets a second one core scores, what the low rank costs, and what an optimizer costs beside it.

    python tests/benchmarks/search_speed.py [--output results/search-speed.md]

Spaces of FineGPR's shape: 1,150 identities with one image for each of 36 viewpoints, 7 weathers and 7 illuminations,
without scenes (1,764 cells) and with them (15,876; every image has one of nine). No images: embeddings are simulated.
Seconds are processor time of one thread, the fastest of several rounds: other work on the machine counts for little.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
from search_regret import cell_grams

from finegpr.attributes import ILLUMINATION, SCENE, VIEWPOINT, WEATHER, Attribute
from finegpr.catalog import Cells
from finegpr.errors import ConfigError
from search.loop import search
from search.objectives import CellObjective, make_objective
from search.objectives.embedding import CellEmbedding
from search.objectives.samples import Samples
from search.optimizers import OPTIMIZERS, make_optimizer
from search.optimizers.baselines import random_masks
from search.simulation import simulate
from search.space import Budget, Space, SpaceConfig

NUM_IDENTITIES = 1150
IMAGES = 124_200  # AOST's: 108 of an identity's 1,764
LEAST, MOST = 54 / 1764, 216 / 1764
RANK = 64
ROUNDS = 5
NUM_SUBSETS = 400


def finegpr_space(
    *, viewpoints: int = 36, scenes: bool = False, num_groups: int = 0, num_identities: int = NUM_IDENTITIES
) -> Space:
    """A space of FineGPR's shape, with people of ``num_groups`` groups by one identity-level attribute."""
    random = np.random.default_rng(0)
    attributes = [
        Attribute(name="viewpoint", values=VIEWPOINT.values[:: 36 // viewpoints], circular=True),
        WEATHER,
        ILLUMINATION,
    ]
    grid = viewpoints * 49
    of_row = np.tile(np.arange(grid), num_identities)
    if scenes:
        attributes.append(SCENE)
        of_row = of_row * 9 + random.integers(0, 9, len(of_row))
    codes = np.array(list(product(*(range(len(attribute.values)) for attribute in attributes))), dtype=np.int16)
    identity = np.repeat(np.arange(1, num_identities + 1), grid)
    cells = Cells(
        attributes=tuple(attributes), codes=codes, of_row=of_row, images=np.bincount(of_row, minlength=len(codes))
    )
    groups = None
    if num_groups:
        person = random.permutation(num_identities) % num_groups
        groups = Cells(
            attributes=(
                Attribute(
                    name="clothes", values=tuple(f"clothes{code}" for code in range(num_groups)), level="identity"
                ),
            ),
            codes=np.arange(num_groups, dtype=np.int16)[:, None],
            of_row=person[identity - 1],
            images=np.bincount(person) * grid,
        )
    budget = Budget(images=num_identities * grid * 108 // 1764, identities=num_identities, least=LEAST, most=MOST)
    if num_groups:
        budget = Budget(images=budget.images // 4, identities=num_identities // 4, least=LEAST / 4, most=MOST)
    config = SpaceConfig(identity_attributes=("clothes",) if num_groups else ())
    return Space(cells, identity, budget, seed=0, config=config, groups=groups)


def simulated_objective(space: Space) -> CellObjective:
    """An objective of rank 64 whose rows are random: what a score costs does not hang on their values."""
    random = np.random.default_rng(1)
    num = len(space.cells) + (0 if space.groups is None else len(space.groups))
    embedding = CellEmbedding(
        coordinates=random.normal(size=(num, RANK)),
        linear=random.normal(size=num),
        constant=0.0,
        beyond_rank=np.zeros(num),
        variance=np.ones(num),
        num_identities=np.full(num, 20),
        rank_error=0.0,
        samples=Samples(
            values=np.zeros((1, RANK + 1)),
            names=tuple(map(str, range(RANK + 1))),
            cell=np.zeros(1, dtype=np.int64),
            identity=np.ones(1, dtype=np.int64),
            num_cells=len(space.cells),
        ),
        readout=np.eye(RANK + 1),
    )
    return CellObjective(name="simulated", unit="D_total", space=space, form=embedding, report=None)


def seconds(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Processor time of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best


def feasible_masks(space: Space, num: int = NUM_SUBSETS) -> np.ndarray:
    """Random subsets that fit the budget, all different in general."""
    masks = random_masks(space, num, seed=0)
    return masks[space.feasible(masks)]


def scoring_costs(space: Space) -> dict[str, float]:
    """Microseconds per subset of a whole score, of its parts, and of decoding coordinates to a mask that fits."""
    objective = simulated_objective(space)
    masks = feasible_masks(space)
    cells, groups = space.cell_masks(masks), space.group_masks(masks)
    shares = space.sampler.expected_shares(cells, groups)
    x = np.random.default_rng(2).uniform(-1, 1, masks.shape)
    calls: dict[str, Callable[[], object]] = {
        "score_masks": lambda: objective.score_masks(masks),
        "cell_masks": lambda: space.cell_masks(masks),
        "expect": lambda: space.sampler.expect(cells, groups),
        "embedding.score": lambda: objective.embedding.score(shares),
        "feasible": lambda: space.feasible(masks),
        "decode": lambda: space.decode(x),
    }
    return {name: 1e6 * seconds(call) / len(masks) for name, call in calls.items()}


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Slope of the logarithm of the cost over that of the size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def rank_rows() -> Iterator[str]:
    """The error of rank 64 against the full Gram matrix, on 200 random subsets of 1,764 cells."""
    for interactions in (0.05, 0.3):
        simulation = simulate(
            (36, 7, 7), seed=0, identities_per_cell=2, coordinates_per_term=32, interactions=interactions
        )
        budget = Budget(images=12 * 54, identities=12, least=LEAST, most=MOST)
        space = Space(simulation.cells, simulation.identity, budget, seed=0)
        masks = feasible_masks(space, 220)[:200]
        shares = space.expected_shares(masks)
        grams = cell_grams(simulation)
        for name in ("mmd_linear", "mmd_rbf"):
            objective = make_objective(name, space, simulation.measured)
            exact, scores = grams[name].score(shares), objective.score_masks(masks)
            errors = np.abs(scores - exact) / exact.std()
            order = np.corrcoef(scores.argsort().argsort(), exact.argsort().argsort())[0, 1]
            yield (
                f"| {name} | {interactions:.0%} | {objective.embedding.rank_error:.3f} | {np.median(errors):.4f} | "
                f"{errors.max():.4f} | {order:.5f} |"
            )


def microseconds_per_proposal(name: str, space: Space, evaluations: int, most_seconds: float) -> tuple[float, int]:
    """What asking and telling cost per proposal, and over how many proposals; the scores between are not counted."""
    objective = simulated_objective(space)
    optimizer = make_optimizer(name, space, seed=0, evaluations=evaluations)
    spent, num = 0.0, 0
    while num < evaluations and spent < most_seconds:
        started = time.process_time()
        proposals = optimizer.ask(optimizer.population)
        spent += time.process_time() - started
        if not proposals:
            break
        losses = objective.score([proposal.subset for proposal in proposals])
        scored = [
            (proposal, float(loss)) for proposal, loss in zip(proposals, np.nan_to_num(losses, nan=1e12), strict=True)
        ]
        started = time.process_time()
        optimizer.tell(scored)
        spent += time.process_time() - started
        num += len(proposals)
    return 1e6 * spent / max(num, 1), num


def whole_search_seconds(objective: CellObjective, evaluations: int, *, optimizer: str = "swarm") -> float:
    """Seconds by the clock of one whole search, its journal included."""
    made = make_optimizer(optimizer, objective.space, seed=0, evaluations=evaluations)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        search(objective.space, objective, made, Path(folder), evaluations=evaluations, config={})
        return time.perf_counter() - started


def main(arguments: list[str]) -> None:
    """Measure everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=2000, help="of each optimizer; the whole search has 5 times")
    parser.add_argument("--seconds", type=float, default=8.0, help="for one optimizer at most")
    parser.add_argument("--output", type=Path, default=Path("results/search-speed.md"))
    given = parser.parse_args(arguments)
    plain = finegpr_space()
    spaces = {
        "no scenes": plain,
        "no scenes, 16 groups of people": finegpr_space(num_groups=16),
        "with scenes": finegpr_space(scenes=True),
    }
    lines = [
        "# Speed of scoring subsets",
        "",
        *__doc__.split("\n\n", 2)[2].strip().splitlines(),
        "",
        f"`python tests/benchmarks/search_speed.py`, {time.strftime('%Y-%m-%d')}, commit {commit()}, {machine()}, "
        f"NumPy {np.__version__}.",
        "",
        f"Microseconds a subset, in batches of about {NUM_SUBSETS} random subsets of {LEAST:.0%} to {MOST:.0%} of the",
        f"images, rank {RANK}; a score is its cell mask, the expected shares of its manifest, and a quadratic form.",
        "",
        "| space | cells | subsets/s | score | cell mask | shares | form | fits? | decode |",
        "| --- |" + " --- |" * 8,
    ]
    for title, space in spaces.items():
        of_part = scoring_costs(space)
        parts = " | ".join(f"{cost:.1f}" for cost in of_part.values())
        lines.append(f"| {title} | {len(space.cells):,} | {1e6 / of_part['score_masks']:,.0f} | {parts} |")
        print(lines[-1], flush=True)
    viewpoints = [4, 9, 18, 36]
    of_cells = [scoring_costs(finegpr_space(viewpoints=num))["score_masks"] for num in viewpoints]
    numbers = [2, 8, 32, 128, 512]
    of_groups = [scoring_costs(finegpr_space(num_groups=num))["score_masks"] for num in numbers]
    for title, sizes, costs in (
        ("Cells", [49 * num for num in viewpoints], of_cells),
        ("Groups of people (1,764 cells)", numbers, of_groups),
    ):
        lines += [
            "",
            f"| {title} | " + " | ".join(f"{size:,}" for size in sizes) + " | exponent |",
            "| --- |" + " --- |" * (len(sizes) + 1),
            "| score, microseconds | "
            + " | ".join(f"{cost:.1f}" for cost in costs)
            + f" | {exponent(sizes, costs):.2f} |",
        ]
        print("\n".join(lines[-3:]), flush=True)
    lines += [
        "",
        f"Rank {RANK} against the full Gram matrix between 1,764 simulated cells (192 dimensions; interactions spread",
        "evenly over all of them, which is hard on a low rank), on 200 random subsets. Error of the score in standard",
        "deviations of these subsets' scores.",
        "",
        "| objective | interactions | rank error of the kernel | median | worst | Spearman |",
        "| --- | --- | --- | --- | --- | --- |",
        *rank_rows(),
        "",
        f"Microseconds of asking and telling per proposal, no scenes, a search of {given.evaluations:,} subsets:",
        "",
        "| optimizer | microseconds | proposals |",
        "| --- | --- | --- |",
    ]
    for name in OPTIMIZERS:
        try:
            cost, num = microseconds_per_proposal(name, plain, given.evaluations, given.seconds)
        except ConfigError as error:
            lines.append(f"| {name} | refuses: {error} | |")
        else:
            lines.append(f"| {name} | {cost:.0f} | {num:,} |")
        print(lines[-1], flush=True)
    whole = whole_search_seconds(simulated_objective(plain), 5 * given.evaluations)
    lines += [
        "",
        f"A whole search of {5 * given.evaluations:,} subsets by the default optimizer, journal included: "
        f"{whole:.1f} s by the clock.",
        "",
    ]
    given.output.write_text("\n".join(lines))
    print("\n".join(lines))


def commit() -> str:
    """The commit that is checked out, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "finegpr", "search")
    return git("rev-parse", "--short", "HEAD") + (" with later changes" if changed else "")


def machine() -> str:
    """The processor's name."""
    names = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"one core of {names[0] if names else platform.machine()}"


if __name__ == "__main__":
    main(sys.argv[1:])
