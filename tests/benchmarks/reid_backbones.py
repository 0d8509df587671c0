"""mAP of recipe ``quick`` (a pretrained EfficientNet-Lite0) and ``seconds`` (a small net) at equal seconds of a core.

    python tests/benchmarks/reid_backbones.py --world FOLDER --seeds 200 201 202 [--output results/reid-backbones.md]

On the demo's world, drawn anew for every seed: 1,000 images of all its people from the target's own conditions, and
all images. A recipe is given the steps that it does in so many CPU-seconds by a rate taken beforehand, and what it then
took is written down; images are decoded before. Worlds, networks and scores are kept in FOLDER: an interrupted run goes
on. Recipes were chosen on seeds 100 and 101.
"""

import argparse
import importlib.util
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from finegpr.atomic import write_bytes
from finegpr.catalog import Catalog
from finegpr.reid.config import TrainConfig
from finegpr.reid.data import ImageStore
from finegpr.reid.evaluate import evaluate_checkpoint
from finegpr.reid.model import Embedder
from finegpr.reid.recipes import recipe
from finegpr.reid.train import fit
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from finegpr.storage import read_json, write_json
from finegpr.subset import Subset
from search.analysis.compare import t_interval
from search.space import Budget, Space

RECIPES = ("seconds", "quick")
NUM_IMAGES = 1_000
RATED_STEPS = {"seconds": 100, "quick": 20}
TIMM = "import time, torch, torchvision; begun = time.process_time(); import timm; print(time.process_time() - begun)"


@dataclass(frozen=True, kw_only=True)
class World:
    """One seed's data: manifests by name, the photos to rank, and all pixels."""

    seed: int
    manifests: dict[str, Catalog]
    query: Catalog
    gallery: Catalog
    images: ImageStore


def training(name: str, steps: int) -> TrainConfig:
    """A recipe of so many steps; no state is saved on the way."""
    changes = {"steps": steps, "epochs": None, "device": "cpu", "threads": 1, "save_seconds": 1e9}
    return recipe(name).model_copy(update=changes)


def draw(folder: Path, seed: int, people: int) -> World:
    """The demo's world of a seed, rendered and decoded once."""
    text = (resources.files("cluster") / "configs" / "demo.yaml").read_text(encoding="utf-8")
    world = yaml.safe_load(text)["world"]
    source_config, target_config = {**world["source"], "num_identities": people}, world["target"]
    render_minigpr(MiniGPRConfig(seed=seed, **source_config), folder / "source")
    render_minimarket(MiniMarketConfig(seed=seed, **target_config), folder / "target")
    source = Catalog.index(folder / "source", layout="finegpr")
    target = Catalog.index(folder / "target", layout="market1501")
    exam = target.part("query", "gallery")
    sizes = {(recipe(name).height, recipe(name).width) for name in RECIPES}
    assert len(sizes) == 1, f"one store of pixels for recipes of sizes {sizes}"
    ((height, width),) = sizes
    images = ImageStore.create(folder / "images", [source, exam], height=height, width=width)
    num_images = min(NUM_IMAGES, len(source) // 8)
    space = Space.of(source, Budget(images=num_images, identities=people), seed=seed)
    true = source.take(space.sampler.draw(Subset(target_config["distribution"]), seed=seed))
    return World(
        seed=seed,
        manifests={f"{len(true):,} images of the target's conditions": true, f"all {len(source):,} images": source},
        query=target.part("query"),
        gallery=target.part("gallery"),
        images=images,
    )


def timed_fit(name: str, steps: int, manifest: Catalog, world: World, output: Path) -> tuple[float, Path]:
    """CPU-seconds of a training, and its checkpoint."""
    begun = time.process_time()
    fitted = fit(training(name, steps), manifest, output=output, seed=world.seed, images=world.images)
    return time.process_time() - begun, fitted.checkpoint


def steps_a_second(name: str, world: World, output: Path) -> float:
    """Steps of a training in a CPU-second: of two lengths the difference, so that what comes first is left out."""
    manifest, few = next(iter(world.manifests.values())), 3
    rates = []
    for again in range(3):
        spent = [
            timed_fit(name, steps, manifest, world, output / f"{again}-{steps}")[0]
            for steps in (few, few + RATED_STEPS[name])
        ]
        rates.append(RATED_STEPS[name] / (spent[1] - spent[0]))
    return float(np.median(rates))


def play(world: World, folder: Path, rates: dict[str, float], seconds: list[float]) -> Iterator[dict[str, Any]]:
    """Train and score what is not there yet; one record per manifest, recipe and length."""
    for number, (title, manifest) in enumerate(world.manifests.items()):
        for budget in seconds:
            for name in RECIPES:
                place = folder / f"{number}-{budget:g}-{name}"
                if not (place / "score.json").exists():
                    steps = max(1, round(budget * rates[name]))
                    spent, checkpoint = timed_fit(name, steps, manifest, world, place)
                    found = evaluate_checkpoint(
                        checkpoint, world.query, world.gallery, images=world.images, device="cpu", threads=1
                    )
                    record = {"manifest": title, "budget": budget, "recipe": name, "steps": steps, "spent": spent}
                    write_json(place / "score.json", {**record, "mAP": 100 * found.metrics["mAP"]})
                record = read_json(place / "score.json")
                print(world.seed, {key: value for key, value in record.items() if key != "seal"}, flush=True)
                yield record


def rows(records: list[dict[str, Any]], seconds: list[float]) -> Iterator[str]:
    for title in dict.fromkeys(record["manifest"] for record in records):
        for budget in seconds:
            of = {
                name: [r for r in records if (r["manifest"], r["budget"], r["recipe"]) == (title, budget, name)]
                for name in RECIPES
            }
            means = {name: np.mean([r["mAP"] for r in found]) for name, found in of.items()}
            spent = {name: np.median([r["spent"] for r in found]) for name, found in of.items()}
            gain = [r["mAP"] - before["mAP"] for before, r in zip(of["seconds"], of["quick"], strict=True)]
            each = " ".join(f"{value:+.1f}" for value in gain)
            if len(gain) > 1:
                interval = t_interval(gain)
                each = f"{interval.mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f}): {each}"
            ran = [f"{of[name][0]['steps']:,} in {spent[name]:.1f}" for name in RECIPES]
            scored = [f"{means[name]:.1f}" for name in RECIPES]
            yield f"| {title} | {budget:g} | {' | '.join((*ran, *scored, each))} |"


def timm_seconds() -> float:
    """CPU-seconds that importing timm takes beyond torch and torchvision, median of 3 processes."""
    told = [subprocess.run([sys.executable, "-c", TIMM], capture_output=True, text=True, check=True) for _ in range(3)]
    return float(np.median([float(each.stdout) for each in told]))


def timm_bytes() -> int:
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.submodule_search_locations
    return sum(path.stat().st_size for path in Path(spec.submodule_search_locations[0]).rglob("*.py"))


def size_of(name: str) -> str:
    """Parameters and features of a recipe's network, and images a second that it embeds on one thread."""
    config = recipe(name)
    embedder = Embedder(model=config.model, size=(config.height, config.width)).eval()
    batch = torch.randint(0, 256, (256, 3, config.height, config.width), dtype=torch.uint8)
    spent = []
    with torch.inference_mode():
        for _ in range(4):
            begun = time.process_time()
            embedder(batch)
            spent.append(time.process_time() - begun)
    parameters = sum(each.numel() for each in embedder.parameters())
    return f"{parameters:,} | {embedder.dimension} | {len(batch) / min(spent):,.0f}"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="folder for worlds, networks and scores")
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202])
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 20, 40])
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("results/reid-backbones.md"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    worlds = [draw(given.world / str(seed), seed, given.people) for seed in given.seeds]
    rated = given.world / "rates.json"
    if not rated.exists():
        write_json(rated, {name: steps_a_second(name, worlds[0], given.world / "rated" / name) for name in RECIPES})
    rates = {name: read_json(rated)[name] for name in RECIPES}
    records = [
        record
        for world in worlds
        for record in play(world, given.world / str(world.seed) / "trained", rates, given.seconds)
    ]
    where, command = Path(__file__).parent, ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, cwd=where)
    batch = {name: recipe(name).batch_size for name in RECIPES}
    nets = [
        f"| `{name}`: {recipe(name).model}, {recipe(name).weights} | {size_of(name)} | "
        f"{rates[name] * batch[name]:,.0f} | {(recipe(name).steps or 0) / rates[name]:.0f} |"
        for name in RECIPES
    ]
    text = TEXT.format(
        seeds=" ".join(map(str, given.seeds)),
        num=len(given.seeds),
        date=time.strftime("%Y-%m-%d"),
        commit=commit.stdout.strip() or "unknown",
        machine=platform.machine(),
        nets="\n".join(nets),
        rows="\n".join(rows(records, given.seconds)),
        timm_seconds=timm_seconds(),
        timm_bytes=timm_bytes() / 1e6,
        faster=rates["seconds"] * batch["seconds"] / (rates["quick"] * batch["quick"]),
    )
    write_bytes(given.output, text.encode())
    print(text)


TEXT = """# A pretrained network against a small one, at equal seconds of a core

`python tests/benchmarks/reid_backbones.py --world FOLDER --seeds {seeds}`, {date}, commit {commit}, one thread of a
shared 2-core {machine} without GPU. Rendered data (MiniGPR, MiniMarket): no number stands for the published data sets.

Recipe `quick` fine-tunes the first four stages of an ImageNet EfficientNet-Lite0 with four stripes and a norm,
`seconds` trains four convolutions from random weights; both at 64x32, softmax and triplet loss, batches of 64. Images a
second of training hold all of a step (forward, backward, losses, Adam), decoding left out:

| recipe | parameters | features | images/s embedded | images/s trained | CPU-seconds of the recipe's 300 steps |
| --- | --- | --- | --- | --- | --- |
{nets}

The small net trains {faster:.1f} times as many images a second. mAP on MiniMarket's query and gallery, mean of {num}
worlds (another world, target and training seed each), and `quick` minus `seconds`: mean with its 95 % interval (t,
paired), then each world:

| trained on | CPU-seconds | `seconds`: steps in CPU-seconds | `quick` | mAP of `seconds` | of `quick` | gain |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

timm, from which the pretrained network is built: {timm_bytes:.1f} MB of Python, {timm_seconds:.2f} CPU-seconds to
import beyond torch and torchvision (median of 3 processes), and only where such a network is named.
"""


if __name__ == "__main__":
    main(sys.argv[1:])
