"""A 360 degree panorama and the painter that fills it: colour, depth, lamps and sky are painted together."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from finegpr.render.camera import View
from finegpr.render.places import RGB, Place

PIXELS_PER_DEGREE = 9
_LOWEST, _HIGHEST = -36.0, 18.0
# the last degrees repeat the first, so that every window is one box
_WRAP = 60
_WIDTH, _HEIGHT = 360 * PIXELS_PER_DEGREE, int((_HIGHEST - _LOWEST) * PIXELS_PER_DEGREE)
_FAR = 400.0


@dataclass(frozen=True, kw_only=True)
class Panorama:
    """Images over azimuth 0-360 (left to right) and elevation 24 to -40 degrees (top to bottom).

    ``colour``: sRGB albedo, and cloud noise where there is sky. ``layers``: R = depth code (``decode_depth``), G = light
    emitted, B = ground. ``sky``: 255 where nothing stands.
    """

    colour: Image.Image
    layers: Image.Image
    sky: Image.Image


def decode_depth(code: np.ndarray) -> np.ndarray:
    """Metres from the red channel of ``Panorama.layers`` scaled to 0-1."""
    return np.exp(code * math.log(_FAR))


def _encode_depth(metres: float) -> int:
    return round(255 * math.log(max(1.0, min(metres, _FAR))) / math.log(_FAR))


def window(surroundings: Panorama, view: View, azimuth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What ``view`` sees when its axis points at ``azimuth`` degrees: colour, layers and sky as uint8 (H, W, ...), and the
    elevation in degrees of every row. Columns are taken as azimuths, which is exact on the horizon."""
    pitch = math.asin(float(view.forward[1]))
    x, y = view.principal
    left, right = (azimuth + math.degrees(math.atan((edge - x) / view.focal)) for edge in (0, view.width))
    rows = np.degrees(pitch + np.arctan((y - np.arange(view.height) - 0.5) / view.focal))
    top, bottom = (math.degrees(pitch + math.atan((y - edge) / view.focal)) for edge in (0, view.height))
    turn = 360 * math.floor(left / 360)
    box = (
        (left - turn) * PIXELS_PER_DEGREE,
        max(0.0, (_HIGHEST - top) * PIXELS_PER_DEGREE),
        (right - turn) * PIXELS_PER_DEGREE,
        min(float(_HEIGHT), (_HIGHEST - bottom) * PIXELS_PER_DEGREE),
    )
    size = (view.width, view.height)
    seen = [
        np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
        for image in (surroundings.colour, surroundings.layers, surroundings.sky)
    ]
    return seen[0], seen[1], seen[2], rows


@functools.lru_cache(maxsize=2)
def _noise(seed: int) -> np.ndarray:
    """Tileable fractal noise (512, 512) in 0-1."""
    random = np.random.default_rng((seed, 77))
    total = np.zeros((512, 512), np.float32)
    for size, weight in ((4, 1.0), (16, 0.6), (64, 0.4), (256, 0.3)):
        small = random.random((size, size), dtype=np.float32)
        tiled = Image.fromarray(np.tile(small, (3, 3))).resize((1536, 1536), Image.Resampling.BICUBIC)
        total += weight * np.asarray(tiled)[512:1024, 512:1024]
    total -= total.min()
    return total / total.max()


class Painter:
    """Paints objects far to near on colour and layers at once; azimuths wrap."""

    def __init__(self, place: Place, seed: int, eye: float) -> None:
        self.place, self.eye = place, eye
        self.random = np.random.default_rng((seed, 31))
        self.noise = _noise(seed)
        self.colour, layers, sky = self._ground()
        self.layers, self.sky = layers, sky
        self._pens = [ImageDraw.Draw(image) for image in (self.colour, self.layers, self.sky)]

    def jitter(self, colour: RGB, amount: float = 10) -> RGB:
        shifted = np.clip(np.array(colour) * self.random.uniform(0.88, 1.12) + self.random.normal(0, amount * 0.4, 3), 4, 250)
        return (int(shifted[0]), int(shifted[1]), int(shifted[2]))

    def point(self, azimuth: float, height: float, distance: float) -> tuple[float, float]:
        elevation = math.degrees(math.atan2(height - self.eye, distance))
        return azimuth * PIXELS_PER_DEGREE, (_HIGHEST - elevation) * PIXELS_PER_DEGREE

    def rectangle(
        self, azimuth: float, width: float, low: float, high: float, distance: float, colour: RGB, *, light: int = 0,
        shape: str = "rectangle",
    ) -> None:
        """``azimuth`` is the left edge in degrees, ``width`` in degrees, heights in metres above ground."""
        left, top = self.point(azimuth, high, distance)
        right, bottom = self.point(azimuth + width, low, distance)
        fills: tuple[RGB | int, ...] = (colour, (_encode_depth(distance), light, 0), 0)
        for shift in (0, -_WIDTH, _WIDTH):
            if right + shift < 0 or left + shift > _WIDTH:
                continue
            box = (left + shift, top, max(left + 1, right) + shift, max(top + 1, bottom))
            for pen, fill in zip(self._pens, fills, strict=True):
                (pen.ellipse if shape == "ellipse" else pen.rectangle)(box, fill=fill)

    def polygon(self, points: list[tuple[float, float]], distance: float, colour: RGB) -> None:
        fills: tuple[RGB | int, ...] = (colour, (_encode_depth(distance), 0, 0), 0)
        for shift in (0, -_WIDTH, _WIDTH):
            moved = [(x + shift, y) for x, y in points]
            for pen, fill in zip(self._pens, fills, strict=True):
                pen.polygon(moved, fill=fill)

    def _ground(self) -> tuple[Image.Image, Image.Image, Image.Image]:
        place, noise = self.place, self.noise
        elevation = np.radians(_HIGHEST - (np.arange(_HEIGHT, dtype=np.float32) + 0.5) / PIXELS_PER_DEGREE)
        azimuth = np.radians((np.arange(_WIDTH, dtype=np.float32) + 0.5) / PIXELS_PER_DEGREE)
        below = elevation < -0.004
        distance = np.full(_HEIGHT, _FAR, np.float32)
        distance[below] = np.minimum(self.eye / np.tan(-elevation[below]), _FAR)
        x = distance[:, None] * np.sin(azimuth)
        z = -distance[:, None] * np.cos(azimuth)
        near = np.clip(1.6 - np.log10(np.maximum(distance, 1)), 0.05, 1)[:, None]

        def sample(scale: float) -> np.ndarray:
            return noise[(x * scale * 512).astype(np.int64) % 512, (z * scale * 512).astype(np.int64) % 512]

        rough = {"grass": 0.45, "forest": 0.6, "sand": 0.25, "lawn": 0.15}.get(place.ground, 0.14)
        grain = (sample(0.5) - 0.5) * near + (sample(0.06) - 0.5) * 0.7
        colour = np.array(place.ground_colour, np.float32) * (1 + rough * grain)[..., None]
        road = np.array(place.road_colour, np.float32) * (1 + 0.16 * grain)[..., None]
        if place.ground in ("road", "lawn"):
            strip = (x > 4.2) & (x < 9.5)
            colour[strip] = road[strip]
            colour[(np.abs(x - 4.2) < 0.12)] *= 1.2
            dash = (np.abs(x - 6.85) < 0.09) & (z % 4 < 2.2)
            colour[dash] = (214, 210, 196)
        if place.ground == "lawn":
            grass = (x < -3.0) | (x > 11.5)
            colour[grass] = (np.array((96, 124, 60), np.float32) * (1 + 0.4 * grain)[..., None])[grass]
        if place.ground in ("grass", "forest", "sand"):
            path = np.abs(x + 1.2 * np.sin(z * 0.25)) < 1.3
            mix = np.where(path, 0.75, 0.0) * (0.6 + 0.4 * sample(0.2))
            colour = colour * (1 - mix[..., None]) + road * mix[..., None]
        if place.tile:
            seam = ((x / place.tile) % 1 < 0.05) | ((z / place.tile) % 1 < 0.05)
            colour *= (1 - 0.22 * (seam * near**2))[..., None]
            check = ((np.floor(x / place.tile) * 7 + np.floor(z / place.tile) * 13) % 5) / 5 - 0.4
            colour *= (1 + 0.10 * check * near)[..., None]
        picture = np.clip(colour, 3, 250)
        u = (np.arange(_WIDTH) * 512 * 2 // _WIDTH) % 512
        v = (np.arange(_HEIGHT) * 3) % 512
        picture[~below] = (noise[np.ix_(v, u)][~below] * 255)[..., None]
        layers = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
        layers[..., 0] = np.rint(255 * np.log(np.maximum(distance, 1)) / math.log(_FAR))[:, None]
        layers[..., 2] = (below * 255)[:, None]
        sky = np.repeat(((~below) * 255).astype(np.uint8)[:, None], _WIDTH, axis=1)
        return Image.fromarray(picture.astype(np.uint8)), Image.fromarray(layers), Image.fromarray(sky)

    def panorama(self) -> Panorama:
        """What has been painted so far."""
        pixels = np.asarray(self.colour).astype(np.float32)
        standing = np.asarray(self.layers)[..., 2] == 0
        weather_stain = self.noise[np.arange(_HEIGHT)[:, None] * 2 % 512, np.arange(_WIDTH) * 3 % 512]
        grain = self.random.normal(0, 0.035, pixels.shape[:2]).astype(np.float32)
        pixels *= np.where(standing, 0.86 + 0.28 * weather_stain + grain, 1)[..., None]
        colour = Image.fromarray(np.where(np.asarray(self.sky)[..., None] > 0, self.colour, np.clip(pixels, 0, 255)).astype(np.uint8))
        return Panorama(colour=_wrapped(colour), layers=_wrapped(self.layers), sky=_wrapped(self.sky))


def _wrapped(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.concatenate((pixels, pixels[:, : _WRAP * PIXELS_PER_DEGREE]), axis=1))
