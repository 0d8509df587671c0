"""MiniMarket: a rendered target that behaves like photographs, in Market-1501's layout, with known true attributes.

Six cameras, each with its own colours, blur, noise and compression, look at other people in other streets than
MiniGPR's.

    ROOT/bounding_box_train/0002_c1s1_000451_03.jpg      identity, camera and sequence, frame, box
    ROOT/query/  ROOT/bounding_box_test/                 test identities; -1_ is junk, 0000_ a distractor
    ROOT/validation_query/  ROOT/validation_gallery/     validation identities
    ROOT/truth.csv                                       path, identity, camera, every true attribute: for reports only
    ROOT/world.json                                      title, seed, size, distribution, settings
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from finegpr.atomic import write_bytes
from finegpr.attributes import IDENTITY_ATTRIBUTES, VIEWPOINT, by_name
from finegpr.config import Config
from finegpr.errors import InputError
from finegpr.render.camera import PHOTOS, TARGET_RIG, Rig
from finegpr.render.person import make_person
from finegpr.render.picture import Shot, render_one
from finegpr.render.world import (
    CONDITIONS,
    Condition,
    Progress,
    claimed,
    deal,
    is_whole,
    run_units,
    silent,
    write_picture,
)
from finegpr.subset import Subset

TITLE = "MiniMarket"
NUM_CAMERAS = len(PHOTOS)
JUNK, DISTRACTOR = -1, 0
# boxes that a person detector got wrong: half a person, or one far from the middle
_JUNK_RIG = Rig(distance=(5.0, 7.0), height=(2.0, 2.6), fill=(1.6, 2.4), shift=0.45, viewpoint_jitter=5.0)
_FOLDERS = ("bounding_box_train", "validation_query", "validation_gallery", "query", "bounding_box_test")
_IMAGES_PER_UNIT = 32


def _front_and_back_at_dusk() -> dict[str, list[str]]:
    return {
        "viewpoint": [f"{angle}deg" for angle in (*range(60, 130, 10), *range(240, 310, 10))],
        "weather": ["clouds", "foggy", "neutral"],
        "illumination": ["dusk", "night"],
    }


class MiniMarketConfig(Config):
    """The rendered target. ``distribution``: attribute -> its values, a Subset over viewpoint, weather, illumination
    and scene (an attribute not named keeps all values); images are spread evenly over its combinations.

    ``num_train`` unlabelled images; each validation and test identity has one query and ``gallery_images`` gallery
    images in each of six cameras; ``num_distractors`` and ``num_junk`` images join the test gallery.
    """

    seed: int = Field(default=0, ge=0)
    distribution: dict[str, list[str]] = Field(default_factory=_front_and_back_at_dusk)
    num_train: int = Field(default=300, ge=1)
    train_identities: int = Field(default=60, ge=1)
    validation_identities: int = Field(default=30, ge=1)
    test_identities: int = Field(default=60, ge=1)
    gallery_images: int = Field(default=1, ge=1)
    num_distractors: int = Field(default=60, ge=0)
    num_junk: int = Field(default=24, ge=0)
    height: int = Field(default=128, ge=16, le=2048)
    width: int = Field(default=64, ge=8, le=2048)


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One file: ``label`` is the identity in its name, ``person`` the one who is drawn."""

    folder: str
    label: int
    person: int
    camera: int
    frame: int
    condition: Condition

    @property
    def path(self) -> str:
        label = "-1" if self.label == JUNK else f"{self.label:04d}"
        return f"{self.folder}/{label}_c{self.camera}s1_{self.frame:06d}_{1 + self.frame % 4:02d}.jpg"


@dataclass(frozen=True, kw_only=True)
class _Unit:
    config: MiniMarketConfig
    root: Path
    pictures: tuple[_Picture, ...]


def _factors(config: MiniMarketConfig) -> list[list[str]]:
    """The values of each condition that the distribution lets in, in canonical order."""
    subset = Subset(config.distribution)
    for name, values in subset.values.items():
        attribute = by_name(CONDITIONS, name)
        for value in values:
            attribute.index(value)
    return [
        [value for value in attribute.values if value in subset.values.get(attribute.name, attribute.values)]
        for attribute in CONDITIONS
    ]


def _plan(config: MiniMarketConfig) -> list[_Picture]:
    """Every picture of the world. People are numbered train, validation, test, distractors, junk, and share nothing."""
    parts: list[tuple[str, int, int, int]] = []  # folder, label, person, camera
    person = 0
    cameras = range(1, NUM_CAMERAS + 1)
    for image in range(config.num_train):
        who = 1 + image % config.train_identities
        parts.append(("bounding_box_train", who, who, 1 + (image // config.train_identities + who) % NUM_CAMERAS))
    person = config.train_identities
    for count, query, gallery in (
        (config.validation_identities, "validation_query", "validation_gallery"),
        (config.test_identities, "query", "bounding_box_test"),
    ):
        for who in range(person + 1, person + count + 1):
            for camera in cameras:
                parts.append((query, who, who, camera))
                parts += [(gallery, who, who, camera)] * config.gallery_images
        person += count
    if person > 9999:
        raise InputError(f"MiniMarket names at most 9999 identities, got {person}; lower the identity counts")
    for label, count in ((DISTRACTOR, config.num_distractors), (JUNK, config.num_junk)):
        for _ in range(count):
            person += 1
            parts.append(("bounding_box_test", label, person, 1 + person % NUM_CAMERAS))
    random = np.random.default_rng((config.seed, 21))
    pictures: list[_Picture] = []
    # dealt folder by folder, so that every folder follows the distribution and not only their union
    for folder in _FOLDERS:
        chosen = [part for part in parts if part[0] == folder]
        cards = deal(_factors(config), len(chosen), 1, random)
        order = random.permutation(len(chosen))
        pictures += [
            _Picture(
                folder=folder,
                label=label,
                person=who,
                camera=camera,
                frame=len(pictures) + i,
                condition=_condition(cards[int(order[i])][0]),
            )
            for i, (_, label, who, camera) in enumerate(chosen)
        ]
    return pictures


def _condition(card: tuple[str, ...]) -> Condition:
    viewpoint, weather, illumination, scene = card
    return viewpoint, weather, illumination, scene


def _render_unit(unit: _Unit) -> int:
    config = unit.config
    for picture in unit.pictures:
        path = unit.root / picture.path
        if is_whole(path):
            continue
        viewpoint, weather, illumination, scene = picture.condition
        photo = PHOTOS[picture.camera - 1]
        middle = 60.0 * picture.camera
        shot = Shot(
            viewpoint=VIEWPOINT.degrees(viewpoint),
            weather=weather,
            illumination=illumination,
            scene=scene,
            seed=(config.seed, 22, picture.frame),
            scene_seed=config.seed + 1_000_003,
            heading=(middle - 22, middle + 22),
        )
        person = make_person(config.seed, "minimarket", picture.person)
        rig = _JUNK_RIG if picture.label == JUNK else TARGET_RIG
        image, _, _ = render_one(person, shot, rig, height=config.height, width=config.width, photo=photo)
        write_picture(path, image, quality=photo.quality)
    return len(unit.pictures)


def _truth_table(config: MiniMarketConfig, pictures: list[_Picture]) -> bytes:
    stream = io.StringIO()
    names = [attribute.name for attribute in IDENTITY_ATTRIBUTES]
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["path", "identity", "camera", *(attribute.name for attribute in CONDITIONS), *names])
    worn = {k: make_person(config.seed, "minimarket", k).attributes for k in {picture.person for picture in pictures}}
    for picture in pictures:
        attributes = worn[picture.person]
        table.writerow(
            [picture.path, picture.label, picture.camera, *picture.condition, *(attributes[name] for name in names)]
        )
    return stream.getvalue().encode()


def render_minimarket(config: MiniMarketConfig, root: Path, *, progress: Progress = silent, workers: int = 1) -> None:
    """Render MiniMarket into ``root``; the bytes do not depend on ``workers``.

    A finished world of the same config returns at once and an interrupted one is continued. ``progress`` hears (images
    done, images in all). Raises InputError for an unknown attribute or value, StateError when ``root`` holds something
    else.
    """
    pictures = _plan(config)
    world = {
        "title": TITLE,
        "seed": config.seed,
        "height": config.height,
        "width": config.width,
        "distribution": {name: sorted(values) for name, values in Subset(config.distribution).values.items()},
    }
    with claimed(root, config, world) as unfinished:
        if not unfinished:
            return
        for folder in _FOLDERS:
            (root / folder).mkdir(exist_ok=True)
        write_bytes(root / "truth.csv", _truth_table(config, pictures))
        units = [
            _Unit(config=config, root=root, pictures=tuple(pictures[start : start + _IMAGES_PER_UNIT]))
            for start in range(0, len(pictures), _IMAGES_PER_UNIT)
        ]
        run_units(_render_unit, units, total=len(pictures), workers=workers, progress=progress, root=root)
