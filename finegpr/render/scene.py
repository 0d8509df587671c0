"""Nine scenes: what stands in each place, painted far to near onto a panorama.

A panorama is a pure function of (scene, seed, eye height): the same scene painted from another seed is another street
of the same kind, with other buildings and other shades.
"""

import functools
import math

from finegpr.attributes import SCENE
from finegpr.errors import InputError
from finegpr.render.panorama import Painter, Panorama
from finegpr.render.places import PLACES, RGB


def _shade(colour: RGB, factor: float) -> RGB:
    return (min(255, int(colour[0] * factor)), min(255, int(colour[1] * factor)), min(255, int(colour[2] * factor)))


def _hills(painter: Painter) -> None:
    random = painter.random
    for distance, height, colour in (
        (320.0, 34.0, (116, 134, 138)),
        (180.0, 15.0, (98, 122, 86)),
        (90.0, 5.0, (84, 108, 60)),
    ):
        phases = random.uniform(0, 2 * math.pi, 4)
        points = []
        for azimuth in range(0, 361, 2):
            angle = math.radians(azimuth)
            wave = sum(math.sin(k * angle * 2 + phases[k - 1]) / k for k in (1, 2, 3, 4)) / 2
            points.append(painter.point(azimuth, height * (0.7 + 0.4 * wave), distance))
        base = painter.point(0, 0, distance)[1]
        painter.polygon([(0, base), *points, (points[-1][0], base)], distance, colour)


def _skyline(painter: Painter) -> None:
    random = painter.random
    azimuth = 0.0
    while azimuth < 360:
        width = random.uniform(4, 10)
        shade = painter.jitter((134, 140, 148))
        painter.rectangle(azimuth, width, -1, random.uniform(10, 30), 90, shade, light=int(random.integers(0, 18)))
        azimuth += width * random.uniform(0.8, 1.3)


def _windows(painter: Painter, left: float, width: float, height: float, distance: float, wall: RGB) -> None:
    """A facade's openings; widths in degrees, heights in metres."""
    random, kind = painter.random, painter.place.windows
    degrees = math.degrees(1 / distance)  # of one metre at this distance
    glass: RGB = (58, 70, 84)

    def opening(x: float, wide: float, low: float, high: float, colour: RGB, chance: float = 0.35) -> None:
        light = int(random.integers(110, 255)) if random.random() < chance else 0
        painter.rectangle(x, wide, low, high, distance, colour, light=light)

    if kind == "ribs":
        for i in range(int(width / (0.35 * degrees))):
            if i % 2:
                painter.rectangle(
                    left + i * 0.35 * degrees, 0.16 * degrees, 0.1, height - 0.1, distance, _shade(wall, 0.82)
                )
        painter.rectangle(left, width, height - 0.2, height, distance, _shade(wall, 0.7))
        return
    floor = 3.3 if kind in ("office", "shops") else 3.0
    bay = {"office": 1.5, "house": 2.6, "arcade": 3.2, "shops": 3.0}[kind] * degrees
    columns = max(1, int(width / bay))
    bay = width / columns
    for level in range(max(1, int(height / floor))):
        low = level * floor
        for column in range(columns):
            x = left + column * bay
            if level == 0 and kind in ("shops", "arcade"):
                opening(x + 0.08 * bay, 0.84 * bay, 0.25, 2.7, painter.jitter((86, 96, 104)), 0.85)
                if random.random() < 0.5:
                    painter.rectangle(
                        x + 0.2 * bay, 0.25 * bay, 0.3, 1.6, distance, painter.jitter((170, 130, 110), 60)
                    )
            elif level == 0 and kind == "house" and column == columns // 2:
                painter.rectangle(x + 0.3 * bay, 0.4 * bay, 0, 2.1, distance, painter.jitter((92, 66, 50), 30))
            else:
                size = 0.8 if kind == "office" else 0.45
                edge = (1 - size) / 2
                if kind != "office":
                    painter.rectangle(
                        x + (edge - 0.05) * bay, (size + 0.1) * bay, low + 0.8, low + 2.45, distance, _shade(wall, 1.22)
                    )
                opening(x + edge * bay, size * bay, low + 0.9, low + 2.35, painter.jitter(glass))
    if kind == "shops":
        sign = painter.jitter((196, 70, 60), 120)
        painter.rectangle(left + 0.06 * width, 0.88 * width, 2.75, 3.35, distance - 0.3, sign, light=170)
        for stripe in range(columns * 3):
            colour = sign if stripe % 2 else (226, 222, 214)
            painter.rectangle(
                left + stripe * width / (columns * 3), width / (columns * 3), 2.35, 2.75, distance - 0.6, colour
            )


def _walls(painter: Painter) -> None:
    place, random = painter.place, painter.random
    azimuth = float(random.uniform(0, 20))
    end = azimuth + 360
    while azimuth < end - 2:
        distance = float(random.uniform(*place.wall_distance))
        metres = float(random.uniform(7, 14) if place.windows in ("ribs", "house") else random.uniform(10, 20))
        width = min(math.degrees(metres / distance), end - azimuth)
        height = float(random.uniform(*place.wall_height))
        wall = painter.jitter(place.walls[int(random.integers(len(place.walls)))])
        painter.rectangle(azimuth, width, 0, height, distance, wall)
        painter.rectangle(azimuth, width, 0, 0.4, distance, _shade(wall, 0.62))
        painter.rectangle(azimuth + width * 0.97, width * 0.03, 0, height, distance, _shade(wall, 0.7))
        _windows(painter, azimuth, width * 0.97, height, distance, wall)
        if place.windows == "house":
            roof = painter.jitter((122, 74, 60))
            points = [
                painter.point(azimuth - 0.4, height, distance),
                painter.point(azimuth + width * 0.2, height + 2.4, distance),
                painter.point(azimuth + width * 0.8, height + 2.4, distance),
                painter.point(azimuth + width + 0.4, height, distance),
            ]
            painter.polygon(points, distance, roof)
        azimuth += width * (1.0 if random.random() < 0.75 else 1.15)


def _tree(painter: Painter, azimuth: float, distance: float) -> None:
    random = painter.random
    degrees = math.degrees(1 / distance)
    height = float(random.uniform(3.4, 7.0))
    trunk = painter.jitter((92, 72, 54))
    painter.rectangle(azimuth - 0.13 * degrees, 0.26 * degrees, -0.02, height * 0.6, distance, trunk)
    painter.rectangle(azimuth + 0.03 * degrees, 0.10 * degrees, -0.02, height * 0.6, distance, _shade(trunk, 0.7))
    # leaves from the dark inside and below to the bright outside and above
    for blob in range(46):
        share = blob / 45
        green = painter.jitter(_shade(painter.place.tree_colour, 0.55 + 0.75 * share), 14)
        radius = float(random.uniform(0.16, 0.42)) * (1.25 - 0.5 * share) * height / 5
        x = azimuth + float(random.normal(0, 0.75)) * height / 5 * degrees
        middle = height * (0.5 + 0.25 * share + 0.22 * float(random.random()))
        painter.rectangle(
            x - radius * degrees,
            2 * radius * degrees,
            middle - radius,
            middle + radius,
            distance,
            green,
            shape="ellipse",
        )


def _bush(painter: Painter, azimuth: float, distance: float, colour: RGB, size: float) -> None:
    random = painter.random
    degrees = math.degrees(1 / distance)
    for blob in range(18):
        radius = size * float(random.uniform(0.25, 0.6))
        x = azimuth + float(random.normal(0, size)) * degrees
        tone = painter.jitter(_shade(colour, 0.65 + 0.035 * blob), 12)
        painter.rectangle(
            x - radius * degrees, 2 * radius * degrees, -0.05, 1.5 * radius, distance, tone, shape="ellipse"
        )


def _car(painter: Painter, azimuth: float, distance: float) -> None:
    degrees = math.degrees(1 / distance)
    shades: tuple[RGB, ...] = ((178, 40, 42), (46, 74, 130), (206, 206, 204), (48, 48, 52), (132, 136, 140))
    body = painter.jitter(shades[painter.random.integers(5)])

    def at(metres: float, height: float) -> tuple[float, float]:
        return painter.point(azimuth + metres * degrees, height, distance)

    painter.rectangle(azimuth - 0.1 * degrees, 4.5 * degrees, -0.05, 0.3, distance, (34, 34, 36))
    painter.polygon([at(0.5, 0.9), at(1.2, 1.45), at(2.9, 1.45), at(3.6, 0.9)], distance, _shade(body, 0.85))
    painter.polygon([at(0.8, 0.92), at(1.3, 1.36), at(1.95, 1.36), at(1.95, 0.92)], distance, (56, 66, 76))
    painter.polygon([at(2.05, 0.92), at(2.05, 1.36), at(2.8, 1.36), at(3.3, 0.92)], distance, (56, 66, 76))
    painter.polygon(
        [at(0, 0.3), at(0.02, 0.8), at(0.5, 0.94), at(3.8, 0.94), at(4.3, 0.78), at(4.3, 0.3)], distance, body
    )
    painter.rectangle(azimuth, 0.18 * degrees, 0.62, 0.78, distance, (230, 220, 180), light=160)
    for x in (0.55, 3.1):
        painter.rectangle(azimuth + x * degrees, 0.62 * degrees, 0.0, 0.62, distance, (26, 26, 28), shape="ellipse")
        painter.rectangle(
            azimuth + (x + 0.17) * degrees, 0.28 * degrees, 0.17, 0.45, distance, (140, 140, 142), shape="ellipse"
        )


def _lamp(painter: Painter, azimuth: float, distance: float) -> None:
    degrees = math.degrees(1 / distance)
    painter.rectangle(azimuth, 0.12 * degrees, 0, 3.6, distance, (58, 60, 62))
    painter.rectangle(
        azimuth - 0.15 * degrees, 0.42 * degrees, 3.5, 3.9, distance, (226, 214, 176), light=255, shape="ellipse"
    )


def _extras(painter: Painter) -> None:
    random, kind = painter.random, painter.place.extras
    if kind == "cars":
        for azimuth in range(10, 360, 40):
            _car(painter, azimuth + float(random.uniform(0, 25)), float(random.uniform(9.5, 12)))
        for azimuth in range(0, 360, 72):
            _lamp(painter, azimuth + float(random.uniform(0, 40)), 7.0)
    elif kind == "lamps":
        for azimuth in range(0, 360, 40):
            _lamp(painter, azimuth + float(random.uniform(0, 25)), float(random.uniform(5.5, 7.5)))
    elif kind == "planters":
        for azimuth in range(0, 360, 36):
            at, distance = azimuth + float(random.uniform(0, 22)), float(random.uniform(6, 9))
            degrees = math.degrees(1 / distance)
            _bush(painter, at + 0.7 * degrees, distance, painter.place.tree_colour, 0.7)
            painter.rectangle(at, 1.5 * degrees, 0, 0.5, distance - 0.2, painter.jitter((150, 128, 104)))
    elif kind == "fence":
        for post in range(0, 360, 2):
            painter.rectangle(post, 1.5, 0.1, 0.85, 8.2, painter.jitter((206, 202, 194), 5))
        painter.rectangle(0, 360, 0.55, 0.64, 8.1, (186, 182, 172))
    elif kind == "barrels":
        for azimuth in range(0, 360, 30):
            colour = painter.jitter(((176, 92, 40), (60, 88, 120), (120, 120, 118))[random.integers(3)])
            painter.rectangle(
                azimuth + float(random.uniform(0, 22)), 6.0, 0, 0.95, float(random.uniform(5.5, 7)), colour
            )
    else:
        rock = kind == "rocks"
        stuff: RGB = (150, 132, 106) if rock else _shade(painter.place.tree_colour, 1.15)
        for azimuth in range(0, 360, 14 if kind == "bushes" else 24):
            distance = float(random.uniform(5.5, 16))
            _bush(painter, azimuth + float(random.uniform(0, 12)), distance, stuff, float(random.uniform(0.35, 0.8)))


@functools.lru_cache(maxsize=18)
def panorama(scene: str, seed: int, eye: float) -> Panorama:
    """The surroundings of ``scene`` seen from ``eye`` metres above ground. Raises InputError for an unknown scene."""
    if scene not in PLACES:
        raise InputError(f"no scene {scene!r}; known scenes: {', '.join(SCENE.values)}")
    painter = Painter(PLACES[scene], seed, eye)
    place, random = painter.place, painter.random
    if place.walls:
        _skyline(painter)
        _walls(painter)
    else:
        _hills(painter)
    for distance in sorted((float(random.uniform(*place.tree_distance)) for _ in range(place.trees)), reverse=True):
        _tree(painter, float(random.uniform(0, 360)), distance)
    _extras(painter)
    return painter.panorama()
