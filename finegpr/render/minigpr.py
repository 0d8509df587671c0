"""MiniGPR: the rendered source, in exactly FineGPR's layout.

ROOT/0001/0001_c01_w01_l01_p01.jpg   identity, viewpoint (c01 = 90deg, then +10deg), weather, illumination, scene
ROOT/attributes.csv                  identity and its 13 attributes by name
ROOT/world.json                      title, seed, size, settings
ROOT/masks/0001/*.png                body masks, 255 = body (with ``masks``)
ROOT/masks/0001/keypoints.json       picture's name -> 17 x [x, y, visibility] in the order of body.KEYPOINTS
"""

import csv
import io
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from finegpr.atomic import write_bytes
from finegpr.attributes import IDENTITY_ATTRIBUTES, ILLUMINATION, SCENE, VIEWPOINT, WEATHER
from finegpr.config import Config
from finegpr.errors import InputError
from finegpr.render.camera import SOURCE_RIG
from finegpr.render.person import make_person
from finegpr.render.picture import Shot, render_one
from finegpr.render.world import Condition, Progress, claimed, code, deal, is_whole, run_units, silent, write_picture

TITLE = "MiniGPR"


class MiniGPRConfig(Config):
    """The rendered source. ``viewpoints``: a step in degrees (a multiple of 10 that divides 360) or the values by name;
    ``images_per_identity`` None renders every (viewpoint, weather, illumination) of every identity."""

    seed: int = Field(default=0, ge=0)
    num_identities: int = Field(default=100, ge=1, le=9999)
    images_per_identity: Annotated[int, Field(ge=1)] | None = 40
    viewpoints: int | list[str] = 10
    height: int = Field(default=128, ge=16, le=2048)
    width: int = Field(default=64, ge=8, le=2048)
    quality: int = Field(default=92, ge=50, le=100)
    masks: bool = False


@dataclass(frozen=True, kw_only=True)
class _Unit:
    config: MiniGPRConfig
    root: Path
    identity: int
    conditions: tuple[Condition, ...]


def _viewpoints(config: MiniGPRConfig) -> list[str]:
    if isinstance(config.viewpoints, list):
        for value in config.viewpoints:
            VIEWPOINT.index(value)
        if not config.viewpoints or len(set(config.viewpoints)) != len(config.viewpoints):
            raise InputError(f"viewpoints should be distinct and at least one, got {config.viewpoints}")
        return config.viewpoints
    step = config.viewpoints
    if step < 10 or step % 10 or 360 % step:
        raise InputError(f"viewpoints should be a step of 10deg that divides 360, or a list of values, got {step}")
    return [f"{angle}deg" for angle in range(0, 360, step)]


def _plan(config: MiniGPRConfig) -> list[tuple[Condition, ...]]:
    """The conditions of every identity's images; the scene follows from seed, identity and the other conditions."""
    factors = (_viewpoints(config), WEATHER.values, ILLUMINATION.values)
    cells = len(factors[0]) * len(WEATHER.values) * len(ILLUMINATION.values)
    wanted = config.images_per_identity
    if wanted is not None and wanted > cells:
        raise InputError(
            f"images_per_identity is {wanted}, but there are only {cells} conditions; lower it or set it to null"
        )
    if wanted is None:
        everything: list[tuple[str, ...]] = list(itertools.product(*factors))
        hands = [everything] * config.num_identities
    else:
        hands = deal(factors, config.num_identities, wanted, np.random.default_rng((config.seed, 11)))
    plan = []
    for identity, hand in enumerate(hands, start=1):
        random = np.random.default_rng((config.seed, 12, identity))
        scene_of = random.integers(len(SCENE.values), size=(36, len(WEATHER.values), len(ILLUMINATION.values)))
        conditions = []
        for viewpoint, weather, illumination in sorted(hand):
            cell = (VIEWPOINT.index(viewpoint), WEATHER.index(weather), ILLUMINATION.index(illumination))
            conditions.append((viewpoint, weather, illumination, SCENE.values[int(scene_of[cell])]))
        plan.append(tuple(conditions))
    return plan


def _name(identity: int, condition: Condition) -> str:
    viewpoint, weather, illumination, scene = condition
    return (
        f"{identity:04d}_c{code('viewpoint', viewpoint):02d}_w{code('weather', weather):02d}"
        f"_l{code('illumination', illumination):02d}_p{code('scene', scene):02d}"
    )


def _render_identity(unit: _Unit) -> int:
    config = unit.config
    folder = unit.root / f"{unit.identity:04d}"
    masks = unit.root / "masks" / folder.name
    names = [_name(unit.identity, condition) for condition in unit.conditions]
    pictures = [folder / f"{name}.jpg" for name in names]
    if config.masks:
        pictures += [masks / f"{name}.png" for name in names]
    if (not config.masks or (masks / "keypoints.json").exists()) and all(map(is_whole, pictures)):
        return len(names)
    person = make_person(config.seed, "minigpr", unit.identity)
    keypoints = {}
    for name, (viewpoint, weather, illumination, scene) in zip(names, unit.conditions, strict=True):
        shot = Shot(
            viewpoint=VIEWPOINT.degrees(viewpoint),
            weather=weather,
            illumination=illumination,
            scene=scene,
            seed=(
                config.seed,
                13,
                unit.identity,
                *(
                    code(*pair)
                    for pair in zip(
                        ("viewpoint", "weather", "illumination"), (viewpoint, weather, illumination), strict=True
                    )
                ),
            ),
        )
        image, mask, joints = render_one(person, shot, SOURCE_RIG, height=config.height, width=config.width)
        write_picture(folder / f"{name}.jpg", image, quality=config.quality)
        if config.masks:
            write_picture(masks / f"{name}.png", mask.astype(np.uint8) * 255)
            keypoints[name] = [[round(float(value), 2) for value in joint] for joint in joints]
    if config.masks:
        write_bytes(masks / "keypoints.json", json.dumps(keypoints).encode())
    return len(names)


def _attribute_table(config: MiniGPRConfig) -> bytes:
    stream = io.StringIO()
    names = [attribute.name for attribute in IDENTITY_ATTRIBUTES]
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["identity", *names])
    for identity in range(1, config.num_identities + 1):
        attributes = make_person(config.seed, "minigpr", identity).attributes
        table.writerow([identity, *(attributes[name] for name in names)])
    return stream.getvalue().encode()


def render_minigpr(config: MiniGPRConfig, root: Path, *, progress: Progress = silent, workers: int = 1) -> None:
    """Render MiniGPR into ``root``; the bytes do not depend on ``workers``.

    A finished world of the same config returns at once and an interrupted one is continued by identity. ``progress``
    hears (images done, images in all). Raises InputError for impossible settings, StateError when ``root`` holds
    something else.
    """
    plan = _plan(config)
    world = {"title": TITLE, "seed": config.seed, "height": config.height, "width": config.width}
    with claimed(root, config, world) as unfinished:
        if not unfinished:
            return
        write_bytes(root / "attributes.csv", _attribute_table(config))
        units = [
            _Unit(config=config, root=root, identity=identity, conditions=conditions)
            for identity, conditions in enumerate(plan, start=1)
        ]
        total = sum(len(conditions) for conditions in plan)
        run_units(_render_identity, units, total=total, workers=workers, progress=progress, root=root)
