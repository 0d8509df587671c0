"""One picture: a body cast, textured and lit, in front of its scene, through weather and a camera.

``render`` is deterministic: a picture depends on its person, its shot and the size alone.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finegpr.render import scene as scenes
from finegpr.render.body import Body, build
from finegpr.render.camera import LUMA, Photo, Rig, View, aim
from finegpr.render.light import Light, make_light
from finegpr.render.panorama import Panorama, decode_depth, window
from finegpr.render.person import Person, linear
from finegpr.render.raycast import Hits, cast
from finegpr.render.texture import albedo

_SAMPLES = 2
_LINEAR = linear(np.arange(256))
# measured renders show streets a third brighter than the people on them
_GROUND_GAIN = np.float32(1.35)
_GLOW = 0.0125
_SNOW = np.array((0.82, 0.84, 0.88), np.float32)
_ZENITH, _HORIZON = np.array((0.72, 0.92, 1.35), np.float32), np.array((1.05, 1.0, 0.98), np.float32)
_LAMP = np.array((1.0, 0.78, 0.45), np.float32)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """The conditions of one picture. ``viewpoint`` in degrees; ``seed`` fixes everything no attribute names (walking
    phase, framing, which way the street runs); ``heading`` fixes the camera's azimuth in the scene, or None for any."""

    viewpoint: float
    weather: str
    illumination: str
    scene: str
    seed: tuple[int, ...]
    scene_seed: int = 0
    heading: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """``images`` uint8 (n, H, W, 3) sRGB · ``masks`` bool (n, H, W), the body · ``keypoints`` float32 (n, 17, 3): x and
    y in pixels and COCO visibility (0 outside the image, 1 hidden, 2 visible), in the order of ``body.KEYPOINTS``."""

    images: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray


@functools.lru_cache(maxsize=1)
def _tone_curve() -> np.ndarray:
    """sRGB code of linear light quantised as sqrt(light) in 1024 steps; highlights roll off
    (extended Reinhard), and a mild S gives the contrast of game footage."""
    light = (np.arange(1024) / 1023) ** 2 * 2.0
    rolled = np.minimum(light * (1 + light / 6.25) / (1 + 0.8 * light), 1)
    encoded = np.where(rolled <= 0.0031308, rolled * 12.92, 1.055 * rolled ** (1 / 2.4) - 0.055)
    encoded += 0.6 * (encoded**2 * (3 - 2 * encoded) - encoded)
    curve: np.ndarray = np.clip(np.rint(encoded * 255), 0, 255).astype(np.uint8)
    return curve


def develop(light: np.ndarray) -> np.ndarray:
    """Linear light (0-2 and above) to sRGB uint8 through the tone curve."""
    index = np.sqrt(np.clip(light, 0, 2) * np.float32(0.5))
    index *= np.float32(1023)
    developed: np.ndarray = _tone_curve()[index.astype(np.int16)]
    return developed


def _illuminate(normal: np.ndarray, colour: np.ndarray, light: Light) -> np.ndarray:
    """Lambert under sun, sky and ground bounce; snow settles on what faces up."""
    up = normal[..., 1]
    if light.snow:
        settled = np.clip((up - 0.45) * 2.2, 0, 1)[..., None] * np.float32(0.75 * light.snow)
        colour = colour + (_SNOW - colour) * settled
    sun = np.clip((normal @ light.to_sun) * 0.9 + 0.1, 0, 1)
    sky = 0.5 + 0.5 * up
    received = sun[..., None] * light.sun + sky[..., None] * light.sky + (1 - sky)[..., None] * light.bounce
    lit: np.ndarray = colour * received
    return lit


def _crevices(point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Share of the light (n,) that reaches surfaces turned towards the body's axis: the inside of arms and legs."""
    across = point[:, 0]
    inward = -np.sign(across) * normal[:, 0] * np.clip(np.abs(across) / 0.06, 0, 1)
    reached: np.ndarray = 1 - 0.45 * np.clip(inward, 0, 1)
    return reached


def _foggy(colour: np.ndarray, depth: np.ndarray, light: Light) -> np.ndarray:
    clear = np.exp(-light.fog * depth)[..., None]
    veiled: np.ndarray = colour * clear + light.fog_colour * (1 - clear)
    return veiled


def _shadow(body: Body, view: View, to_sun: np.ndarray, soft: float) -> tuple[slice, np.ndarray]:
    """Rows that see the ground, and how much sun reaches their pixels (rows, W): 1 minus the body's cast shadow."""
    x = ((np.arange(view.width, dtype=np.float32) + 0.5 - view.principal[0]) / view.focal)[None, :]
    y = ((view.principal[1] - np.arange(view.height, dtype=np.float32) - 0.5) / view.focal)[:, None]
    drop = view.forward[1] + y[:, 0] * view.up[1]
    rows = np.flatnonzero(drop < -0.02)
    start = int(rows[0]) if len(rows) else view.height
    y = y[start:]
    t = (-view.position[1] / drop[start:]).astype(np.float32)[:, None]
    east = np.float32(view.position[0]) + t * (view.forward[0] + x * view.right[0] + y * view.up[0]).astype(np.float32)
    north = np.float32(view.position[2]) + t * (view.forward[2] + x * view.right[2] + y * view.up[2]).astype(np.float32)
    joints = body.keypoints
    hips, shoulders = joints[11:13].mean(0), joints[5:7].mean(0)
    head = joints[3:5].mean(0)
    bones = [(joints[15], joints[13], 0.06), (joints[13], joints[11], 0.08), (joints[16], joints[14], 0.06)]
    bones += [
        (joints[14], joints[12], 0.08),
        (hips, shoulders, 0.16),
        (head, head + np.array((0, 0.06, 0), np.float32), 0.10),
    ]
    bones += [(joints[5], joints[9], 0.045), (joints[6], joints[10], 0.045)]
    nearest = np.full(east.shape, np.inf, np.float32)
    for a, b, radius in bones:
        ax, az = (a[0] - to_sun[0] * a[1] / to_sun[1], a[2] - to_sun[2] * a[1] / to_sun[1])
        bx, bz = (b[0] - to_sun[0] * b[1] / to_sun[1] - ax, b[2] - to_sun[2] * b[1] / to_sun[1] - az)
        px, pz = east - ax, north - az
        h = np.clip((px * bx + pz * bz) / max(bx * bx + bz * bz, 1e-6), 0, 1)
        px, pz = px - h * bx, pz - h * bz
        np.minimum(nearest, np.sqrt(px * px + pz * pz) - np.float32(radius), out=nearest)
    reached = np.clip(nearest / np.float32(soft) + 0.5, 0, 1)
    # contact: little light gets under the shoes, whatever the sun does
    left, right = (np.square(east - joints[k, 0]) + np.square(north - joints[k, 2] - 0.04) for k in (15, 16))
    feet = np.sqrt(np.minimum(left, right))
    return slice(start, view.height), np.stack((reached, np.clip(0.45 + feet * 2.2, 0, 1)))


def _background(surroundings: Panorama, body: Body, view: View, azimuth: float, light: Light) -> np.ndarray:
    """Linear light of everything but the person (H, W, 3). ``azimuth`` of the optical axis in the scene, degrees."""
    colour8, layers8, sky8, elevation = window(surroundings, view, azimuth)
    colour = _LINEAR[colour8] * _GROUND_GAIN
    layers = layers8.astype(np.float32) / 255
    sky = (sky8.astype(np.float32) / 255)[..., None]
    depth = decode_depth(layers[..., 0])
    ground = layers[..., 2]
    if light.snow:
        cover = np.float32(light.snow) * (0.15 + 0.8 * ground)[..., None]
        colour = colour + (_SNOW - colour) * cover
    # walls face the middle of the place
    facing = max(0.0, -float(light.to_sun @ np.array((view.forward[0], 0, view.forward[2])))) * 0.8 + 0.1
    sun = ground * max(0.0, float(light.to_sun[1])) + (1 - ground) * facing
    open_sky = 0.55 + 0.35 * ground
    rows, (reached, contact) = _shadow(body, view, light.to_sun, 0.05 + 0.25 * light.clouds)
    blocked = 1 - ground[rows] * (1 - reached)
    sun[rows] *= blocked
    open_sky[rows] *= 1 - ground[rows] * (1 - contact)
    lit: np.ndarray = colour * (sun[..., None] * light.sun + open_sky[..., None] * light.sky)
    lit += (layers[..., 1:2] * np.float32(0.30 * light.lamps)) * _LAMP * (0.3 + colour)
    lit = _foggy(lit, depth, light)
    if sky.any():
        height = np.clip(elevation / 30, 0, 1)[:, None, None]
        clear = light.sky * 1.5 * (_HORIZON + (_ZENITH - _HORIZON) * height) + light.sun * 0.25
        cloud = light.sky * 1.7 + light.sun * 0.35
        share = np.clip((colour8[..., :1] / np.float32(255) - 1 + light.clouds) * 3 + 0.3 * light.clouds, 0, 1)
        heavens = _foggy(clear + (cloud - clear) * share, np.full(sky.shape[:2], 60, np.float32), light)
        lit = lit + (heavens - lit) * sky
    return lit


@functools.lru_cache(maxsize=8)
def _flake_field(height: int, wind: float) -> np.ndarray:
    """Tileable density of falling snow, 0-1, twice the image height each way; the same for every picture."""
    random = np.random.default_rng((height, 5))
    size = 2 * height
    field = np.zeros((size, size), np.float32)
    for radius, count in ((0.004, 420), (0.007, 150), (0.012, 34)):
        r = radius * height
        reach = math.ceil(r * (1 + wind)) + 1
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        for cx, cy, bright in random.random((count, 3)):
            fx, fy = cx * size, cy * size
            ox, oy = dx - fx % 1, dy - fy % 1
            along = (ox * 0.8 + oy * 0.6) / (1 + wind)
            dot = np.exp(-((along / r) ** 2) - ((oy * 0.8 - ox * 0.6) / r) ** 2) * (0.5 + 0.5 * bright)
            rows, columns = (dy[:, 0] + int(fy)) % size, (dx[0] + int(fx)) % size
            patch = np.ix_(rows, columns)
            field[patch] = np.maximum(field[patch], dot)
    return field


def _snowfall(picture: np.ndarray, light: Light, random: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    field = _flake_field(height, light.wind)
    top, left = (int(k) for k in random.integers(0, 2 * height, 2))
    rows, columns = (np.arange(height) + top) % len(field), (np.arange(width) + left) % len(field)
    density = field[np.ix_(rows, columns)]
    flake = light.sky * 1.1 + light.sun * 0.4
    share = (density * np.float32(min(1.0, 0.55 + 0.4 * light.flakes)))[..., None]
    picture += (flake - picture) * share


def _composite(picture: np.ndarray, hits: Hits, shaded: np.ndarray) -> np.ndarray:
    """Lay the body's colours over ``picture`` in place, by the share of each pixel they cover; returns the mask."""
    size = picture.shape[0] * picture.shape[1]
    cover = np.bincount(hits.pixel, weights=hits.weight, minlength=size).astype(np.float32)
    picture *= 1 - cover.reshape(picture.shape[:2])[..., None]
    flat = picture.reshape(-1, 3)
    for channel in range(3):
        flat[:, channel] += np.bincount(hits.pixel, weights=shaded[:, channel] * hits.weight, minlength=size)
    mask: np.ndarray = cover.reshape(picture.shape[:2]) > 0.5
    return mask


def _visibility(points: np.ndarray, depth: np.ndarray, zoom: int) -> np.ndarray:
    """(17, 3) projected joints with metres in the third column -> COCO visibility; a joint lies up to 0.17 m inside."""
    height, width = depth.shape
    x, y = np.floor(points[:, 0] * zoom).astype(int), np.floor(points[:, 1] * zoom).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    front = depth[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return np.where(inside, np.where(points[:, 2] - front < 0.17, 2, 1), 0).astype(np.float32)


def render_one(
    person: Person, shot: Shot, rig: Rig, *, height: int, width: int, photo: Photo | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture: image uint8 (H, W, 3), mask bool (H, W), keypoints float32 (17, 3)."""
    random = np.random.default_rng(shot.seed)
    body = build(person, float(random.uniform(0, 2 * math.pi)))
    view = aim(rig, shot.viewpoint, person.height, height, width, random)
    low, high = shot.heading or (0.0, 360.0)
    azimuth = float(random.uniform(low, high))
    camera_azimuth = math.degrees(math.atan2(view.forward[0], -view.forward[2]))
    light = make_light(shot.weather, shot.illumination, azimuth_offset=camera_azimuth - azimuth)
    surroundings = scenes.panorama(shot.scene, shot.scene_seed, rig.eye)
    picture = _background(surroundings, body, view, azimuth, light)

    hits = cast(body, view, samples=_SAMPLES)
    surface = albedo(person, body, hits)
    surface *= _crevices(hits.point, hits.normal)[:, None]
    shaded = _illuminate(hits.normal, surface, light)
    # lamps and the city's glow come from the camera's side, or night would be black cut-outs
    shaded += surface * (np.clip(-(hits.normal @ view.forward), 0, 1) * np.float32(_GLOW * light.lamps))[:, None]
    shaded = _foggy(shaded, hits.distance, light)
    mask = _composite(picture, hits, shaded)
    if light.flakes:
        _snowfall(picture, light, random)
    if light.saturation != 1:
        luma = (picture @ LUMA)[..., None]
        picture = luma + (picture - luma) * np.float32(light.saturation)
    image = develop(picture) if photo is None else photo.record(picture, random)
    points = view.project(body.keypoints)
    points[:, 2] = _visibility(points, hits.depth, _SAMPLES)
    return image, mask, points


def render(
    people: Sequence[Person], shots: Sequence[Shot], rig: Rig, *, height: int, width: int, photo: Photo | None = None
) -> Pictures:
    """Pictures of ``people[i]`` under ``shots[i]``, all (height, width)."""
    made = [
        render_one(person, shot, rig, height=height, width=width, photo=photo)
        for person, shot in zip(people, shots, strict=True)
    ]
    images, masks, keypoints = zip(*made, strict=True)
    return Pictures(images=np.stack(images), masks=np.stack(masks), keypoints=np.stack(keypoints))
