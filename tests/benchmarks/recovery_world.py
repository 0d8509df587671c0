"""The world of ``recovery.py``: MiniGPR as the source, and targets of planted conditions, through several cameras."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from recovery_cameras import RECORDERS, record_again

from finegpr.attributes import SCENE, VIEWPOINT
from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure
from finegpr.measuring.results import Measurements
from finegpr.render.camera import SOURCE_RIG
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from finegpr.render.person import make_person
from finegpr.render.picture import Shot, render_one
from finegpr.render.world import code, deal, is_whole, write_picture

ATTRIBUTES = ("viewpoint", "weather", "illumination")
SIZES = ((12, 1, 1), (12, 2, 2), (6, 3, 3), (4, 2, 2), (6, 1, 4))  # planted values of each, in turn over the targets
NUM_PEOPLE, PHOTOS_EACH = 60, 2
SOURCE = MiniGPRConfig(images_per_identity=60, viewpoints=30)
SIDES = {"vgg19": (64, 32), "efficientnet_lite0": (128, 64)}  # height and width that each network sees
KINDS = {
    "gap": "camera gap",
    "none": "no gap",
    "colour": "camera gap, then colour cast, blur and JPEG",
    "make": "camera gap, then another make of camera",
}


def planted_values(source: Catalog, number: int) -> dict[str, list[str]]:
    """The values that target ``number`` shows, by attribute; every condition of a single one, or mixed."""
    cells = source.cells(ATTRIBUTES)
    random = np.random.default_rng(number)
    return {
        attribute.name: [
            attribute.values[value]
            for value in sorted(random.permutation(np.unique(cells.codes[:, column]))[:size].tolist())
        ]
        for (column, attribute), size in zip(enumerate(cells.attributes), SIZES[number % len(SIZES)], strict=True)
    }


def render_with_gap(planted: dict[str, list[str]], number: int, folder: Path) -> Catalog:
    """MiniMarket's unlabelled photos: other people, other streets, another rig, six cameras."""
    photos = MiniMarketConfig(
        seed=number,
        distribution=planted,
        num_train=NUM_PEOPLE * PHOTOS_EACH,
        train_identities=NUM_PEOPLE,
        validation_identities=1,
        test_identities=1,
        num_distractors=0,
        num_junk=0,
    )
    render_minimarket(photos, folder)
    return Catalog.index(folder, layout="market1501").part("train")


def render_without_gap(planted: dict[str, list[str]], number: int, folder: Path) -> Catalog:
    """The same distribution by the source's own renderer: other people only."""
    random = np.random.default_rng((number, 31))
    hands = deal([planted[name] for name in ATTRIBUTES], NUM_PEOPLE, PHOTOS_EACH, random)
    for who, hand in enumerate(hands, start=1):
        person = make_person(10_000 + number, "minigpr", who)
        (folder / f"{who:04d}").mkdir(parents=True, exist_ok=True)
        for viewpoint, weather, illumination in hand:
            scene = SCENE.values[int(random.integers(len(SCENE.values)))]
            codes = zip((*ATTRIBUTES, "scene"), "cwlp", (viewpoint, weather, illumination, scene), strict=True)
            name = "_".join(f"{letter}{code(attribute, value):02d}" for attribute, letter, value in codes)
            path = folder / f"{who:04d}" / f"{who:04d}_{name}.jpg"
            if is_whole(path):
                continue
            shot = Shot(
                viewpoint=VIEWPOINT.degrees(viewpoint),
                weather=weather,
                illumination=illumination,
                scene=scene,
                seed=(
                    10_000 + number,
                    32,
                    who,
                    *(code(*pair) for pair in zip(ATTRIBUTES, (viewpoint, weather, illumination), strict=True)),
                ),
            )
            image, _, _ = render_one(person, shot, SOURCE_RIG, height=SOURCE.height, width=SOURCE.width)
            write_picture(path, image, quality=SOURCE.quality)
    return Catalog.index(folder, layout="finegpr")


def render_target(kind: str, planted: dict[str, list[str]], number: int, folder: Path) -> Catalog:
    """The photos of target ``number`` below ``folder``, as one of KINDS."""
    if kind == "none":
        return render_without_gap(planted, number, folder / f"none{number}")
    photos = render_with_gap(planted, number, folder / f"gap{number}")
    if kind == "gap":
        return photos
    record_again(photos.file_paths(), RECORDERS[kind](number), folder / f"{kind}{number}", seed=number)
    return Catalog.index(folder / f"{kind}{number}", layout="folder")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the world is seen: by which ``network`` with which ``weights``; at most ``per_cell`` images of every cell of
    the source, and ``photos`` of a target."""

    network: str = "vgg19"
    weights: str = "random"
    per_cell: int | None = None
    photos: int = NUM_PEOPLE * PHOTOS_EACH

    @property
    def name(self) -> str:
        """Of its folders."""
        few = "" if self.per_cell is None else f"-{self.per_cell}"
        return f"{self.network}-{self.weights}{few}-{self.photos}"

    @property
    def config(self) -> MeasureConfig:
        height, width = SIDES[self.network]
        return MeasureConfig(
            network=self.network,
            weights=self.weights,
            height=height,
            width=width,
            images_per_cell=self.per_cell,
            target_images=self.photos,
            images_per_shard=500,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """The source, and the measurement of it against planted targets of every kind, called ``gap7``, ``none7`` ..."""

    source: Catalog
    measurements: Measurements
    planted: dict[int, dict[str, list[str]]]


def make_world(folder: Path, numbers: range, look: Look = Look(), *, num_people: int = SOURCE.num_identities) -> World:
    """Render and measure what is not there yet."""
    render_minigpr(SOURCE.model_copy(update={"num_identities": num_people}), folder / "source")
    source = Catalog.index(folder / "source", layout="finegpr")
    planted = {number: planted_values(source, number) for number in numbers}
    targets = {
        f"{kind}{number}": render_target(kind, values, number, folder)
        for number, values in planted.items()
        for kind in KINDS
    }
    measured = measure(
        look.config,
        source,
        targets,
        folder / f"measured-{look.name}-{numbers.start}-{len(numbers)}",
        cells=source.cells(ATTRIBUTES),
    )
    return World(source=source, measurements=measured, planted=planted)
