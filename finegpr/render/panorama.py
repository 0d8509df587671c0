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
    """Images over azimuth (left to right, 0-360 and the first degrees again) and elevation (top to bottom).

    ``colour``: sRGB albedo, and cloud noise where there is sky. ``layers``: R = depth code (``decode_depth``), G =
    light emitted, B = ground. ``sky``: 255 where nothing stands.
    """

    colour: Image.Image
    layers: Image.Image
    sky: Image.Image


def decode_depth(code: np.ndarray) -> np.ndarray:
    """Metres from the red channel of ``Panorama.layers`` scaled to 0-1."""
    metres: np.ndarray = np.exp(code * math.log(_FAR))
    return metres


def _encode_depth(metres: float) -> int:
    return round(255 * math.log(max(1.0, min(metres, _FAR))) / math.log(_FAR))


def window(surroundings: Panorama, view: View, azimuth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What ``view`` sees when its axis points at ``azimuth`` degrees: colour, layers and sky as uint8 (H, W, ...), and
    the elevation in degrees of every row. Columns are taken as azimuths, which is exact on the horizon."""
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
    scaled: np.ndarray = total / total.max()
    return scaled


class Painter:
    """Paints objects far to near on colour and layers at once; azimuths wrap."""

    def __init__(self, place: Place, seed: int, eye: float) -> None:
        self.place, self.eye = place, eye
        self.random = np.random.default_rng((seed, 31))
        self.noise = _noise(seed)
        self.colour, self.layers, self.sky = self._ground()
        self._pens = [ImageDraw.Draw(image) for image in (self.colour, self.layers, self.sky)]

    def jitter(self, colour: RGB, amount: float = 10) -> RGB:
        """A shade near ``colour``: brightness within 12 %, each channel within about ``amount``."""
        bright, *noise = self.random.random(4).tolist()
        factor = 0.88 + 0.24 * bright
        red, green, blue = (
            min(250, max(4, int(channel * factor + (offset - 0.5) * 1.4 * amount)))
            for channel, offset in zip(colour, noise, strict=True)
        )
        return (red, green, blue)

    def point(self, azimuth: float, height: float, distance: float) -> tuple[float, float]:
        elevation = math.degrees(math.atan2(height - self.eye, distance))
        return azimuth * PIXELS_PER_DEGREE, (_HIGHEST - elevation) * PIXELS_PER_DEGREE

    def rectangle(
        self,
        azimuth: float,
        width: float,
        low: float,
        high: float,
        distance: float,
        colour: RGB,
        *,
        light: int = 0,
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
        """The empty place: ground by perspective from the eye's height, cloud noise above the horizon."""
        elevation = np.radians(_HIGHEST - (np.arange(_HEIGHT, dtype=np.float32) + 0.5) / PIXELS_PER_DEGREE)
        horizon = int(np.searchsorted(-elevation, 0.004))
        distance = np.full(_HEIGHT, _FAR, np.float32)
        distance[horizon:] = np.minimum(self.eye / np.tan(-elevation[horizon:]), _FAR)
        picture = np.empty((_HEIGHT, _WIDTH, 3), np.uint8)
        picture[horizon:] = self._ground_colour(distance[horizon:])
        u = (np.arange(_WIDTH) * 512 * 2 // _WIDTH) % 512
        v = (np.arange(horizon) * 3) % 512
        picture[:horizon] = (self.noise[np.ix_(v, u)] * 255)[..., None]
        layers = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
        layers[..., 0] = np.rint(255 * np.log(np.maximum(distance, 1)) / math.log(_FAR))[:, None]
        layers[horizon:, :, 2] = 255
        sky = np.zeros((_HEIGHT, _WIDTH), np.uint8)
        sky[:horizon] = 255
        return Image.fromarray(picture), Image.fromarray(layers), Image.fromarray(sky)

    def _ground_colour(self, distance: np.ndarray) -> np.ndarray:
        """sRGB (rows, width, 3) of the ground at ``distance`` metres per row."""
        place = self.place
        azimuth = np.radians((np.arange(_WIDTH, dtype=np.float32) + 0.5) / PIXELS_PER_DEGREE)
        x, z = distance[:, None] * np.sin(azimuth), -distance[:, None] * np.cos(azimuth)
        near = np.clip(1.6 - np.log10(np.maximum(distance, 1)), 0.05, 1)[:, None]

        def sample(scale: float) -> np.ndarray:
            rows, columns = ((axis * np.float32(scale * 512)).astype(np.int32) & 511 for axis in (x, z))
            return self.noise.take(rows * 512 + columns)

        grain = (sample(0.5) - 0.5) * near + (sample(0.06) - 0.5) * np.float32(0.7)
        rough = np.float32({"grass": 0.45, "forest": 0.6, "sand": 0.25, "lawn": 0.15}.get(place.ground, 0.14))
        ground, road = np.array(place.ground_colour, np.float32), np.array(place.road_colour, np.float32)
        shade = 1 + rough * grain
        colour = np.broadcast_to(ground, (*x.shape, 3)).copy()
        if place.ground in ("road", "lawn"):
            colour[(x > 4.2) & (x < 9.5)] = road
            colour[np.abs(x - 4.2) < 0.12] = ground * 1.2
            colour[(np.abs(x - 6.85) < 0.09) & (z % 4 < 2.2)] = (214, 210, 196)
        if place.ground == "lawn":
            grass = (x < -3.0) | (x > 11.5)
            colour[grass] = (96, 124, 60)
            shade = np.where(grass, 1 + np.float32(0.4) * grain, shade)
        if place.ground in ("grass", "forest", "sand"):
            path = np.abs(x + 1.2 * np.sin(z * 0.25)) < 1.3
            mix = np.where(path, 0.45 + 0.3 * sample(0.2), 0)[..., None].astype(np.float32)
            colour += (road - colour) * mix
        if place.tile:
            seam = ((x / place.tile) % 1 < 0.05) | ((z / place.tile) % 1 < 0.05)
            check = ((np.floor(x / place.tile) * 7 + np.floor(z / place.tile) * 13) % 5) / 5 - 0.4
            shade = shade * (1 - 0.22 * (seam * near**2)) * (1 + 0.10 * check * near)
        colour *= shade[..., None].astype(np.float32)
        painted: np.ndarray = np.clip(colour, 3, 250).astype(np.uint8)
        return painted

    def panorama(self) -> Panorama:
        """What has been painted so far."""
        pixels = np.asarray(self.colour).astype(np.float32)
        sky = np.asarray(self.sky) > 0
        standing = (np.asarray(self.layers)[..., 2] == 0) & ~sky
        stains = self.noise[np.arange(_HEIGHT)[:, None] * 2 % 512, np.arange(_WIDTH) * 3 % 512]
        grain = (self.random.random(sky.shape, dtype=np.float32) - np.float32(0.5)) * np.float32(0.12)
        pixels *= np.where(standing, np.float32(0.86) + np.float32(0.28) * stains + grain, np.float32(1))[..., None]
        colour = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        return Panorama(colour=_wrapped(colour), layers=_wrapped(self.layers), sky=_wrapped(self.sky))


def _wrapped(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.concatenate((pixels, pixels[:, : _WRAP * PIXELS_PER_DEGREE]), axis=1))
