"""Stronger gaps for ``recovery.py``: photos of MiniMarket recorded once more, as by cameras nobody has described.

Every target has one camera of each kind for all of its photos; its number decides which colour or which extreme.

    colour    a strong colour cast, a blur of nearly two pixels and coarse JPEG
    make      another tone curve, contrast and saturation, half the resolution each way, and noise
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from finegpr.object_stores import AnyPath
from finegpr.pixels.decode import decode
from finegpr.render.camera import LUMA
from finegpr.render.world import is_whole, write_picture


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """How a photo is recorded once more: per-channel ``gain``, exponent ``gamma`` of the tone curve, ``contrast`` about
    middle grey, ``saturation``, ``blur`` (sigma as a share of the height), ``shrink`` (times fewer pixels each way),
    ``noise`` (sd in 0-255) and JPEG ``quality``."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    blur: float = 0.0
    shrink: int = 1
    noise: float = 0.0
    quality: int = 90

    def record(self, photo: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """uint8 (H, W, 3) to uint8 (H, W, 3)."""
        height, width = photo.shape[:2]
        code = 255 * (photo.astype(np.float32) / 255) ** np.float32(self.gamma) * np.array(self.gain, np.float32)
        grey = (code @ LUMA)[..., None]
        code = grey + (code - grey) * np.float32(self.saturation)
        code = (code - 118) * np.float32(self.contrast) + 118
        sigma = self.blur * height
        code = gaussian_filter(code, (sigma, sigma, 0), mode="nearest")
        seen = Image.fromarray(np.clip(np.rint(code), 0, 255).astype(np.uint8))
        small = seen.resize((width // self.shrink, height // self.shrink), Image.Resampling.BOX)
        large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noisy = large + random.normal(0, self.noise, large.shape)
        recorded: np.ndarray = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        return recorded


def colour(number: int) -> Recorder:
    """The strong cast: one of all hues, gains of 0.7 to 1.35."""
    hue = np.random.default_rng((number, 41)).uniform(0, 2 * np.pi)
    gain = np.exp(0.35 * np.cos(hue + np.arange(3) * 2 * np.pi / 3))
    return Recorder(gain=(float(gain[0]), float(gain[1]), float(gain[2])), blur=0.014, quality=20)


def make(number: int) -> Recorder:
    """Another make: lighter or darker, flatter or harder, dull or gaudy."""
    light, hard, gaudy = np.random.default_rng((number, 42)).random(3) < 0.5
    return Recorder(
        gamma=0.65 if light else 1.5,
        contrast=1.35 if hard else 0.65,
        saturation=2.0 if gaudy else 0.4,
        shrink=2,
        noise=9.0,
        quality=60,
    )


RECORDERS: Mapping[str, Callable[[int], Recorder]] = {"colour": colour, "make": make}


def record_again(photos: Sequence[AnyPath], recorder: Recorder, folder: Path, *, seed: int) -> None:
    """Write every photo to ``folder`` under its own name, as ``recorder`` records it."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, path in enumerate(photos):
        copy = folder / path.name
        if not is_whole(copy):
            random = np.random.default_rng((seed, 43, place))
            write_picture(copy, recorder.record(decode(path), random), quality=recorder.quality)
