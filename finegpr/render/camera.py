"""Cameras: where one stands and what it frames (``View``), and how a photographic one records light (``Photo``).

Viewpoint convention, in the person frame: 90deg sees the front, 0deg the left side, 180deg the right side and 270deg
the back; FineGPR's camera c01 is 90deg and the numbers go up in steps of 10deg.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

# weights of linear light in perceived luminance (Rec. 709)
LUMA = np.array((0.2126, 0.7152, 0.0722), np.float32)


@dataclass(frozen=True, kw_only=True)
class Rig:
    """How cameras of one world are placed: uniform ranges, lengths in metres, angles in degrees.

    ``fill`` is the share of the image height that the person's height takes; ``shift`` the largest offset of the
    person from the middle, as a share of the image height.
    """

    distance: tuple[float, float]
    height: tuple[float, float]
    fill: tuple[float, float]
    shift: float
    viewpoint_jitter: float

    @property
    def eye(self) -> float:
        """The eye height from which the surroundings are painted, metres."""
        return (self.height[0] + self.height[1]) / 2


# game-like: near, at chest height, centred
SOURCE_RIG = Rig(distance=(3.6, 4.6), height=(1.15, 1.5), fill=(0.82, 0.92), shift=0.02, viewpoint_jitter=2.0)
# surveillance-like: farther, above the heads, loosely cropped
TARGET_RIG = Rig(distance=(5.0, 7.0), height=(2.0, 2.6), fill=(0.78, 0.95), shift=0.05, viewpoint_jitter=5.0)


@dataclass(frozen=True, kw_only=True)
class View:
    """A perspective camera in the person frame; ``focal`` and ``principal`` (x, y) in pixels,
    the axes float32 units."""

    position: np.ndarray
    forward: np.ndarray
    right: np.ndarray
    up: np.ndarray
    focal: float
    principal: tuple[float, float]
    height: int
    width: int

    def zoomed(self, factor: int) -> "View":
        """The same camera with ``factor`` times as many pixels each way."""
        return View(
            position=self.position,
            forward=self.forward,
            right=self.right,
            up=self.up,
            focal=self.focal * factor,
            principal=(self.principal[0] * factor, self.principal[1] * factor),
            height=self.height * factor,
            width=self.width * factor,
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) points to (n, 3): x and y in pixels, and depth in metres."""
        offset = points - self.position
        depth = offset @ self.forward
        x = self.principal[0] + self.focal * (offset @ self.right) / depth
        y = self.principal[1] - self.focal * (offset @ self.up) / depth
        return np.stack((x, y, depth), axis=1).astype(np.float32)


def aim(rig: Rig, viewpoint: float, person_height: float, height: int, width: int, random: np.random.Generator) -> View:
    """A camera of ``rig`` that looks at a person of ``person_height`` metres from ``viewpoint`` degrees."""
    distance, eye = random.uniform(*rig.distance), random.uniform(*rig.height)
    angle = math.radians(viewpoint + random.uniform(-rig.viewpoint_jitter, rig.viewpoint_jitter))
    position = np.array((distance * math.cos(angle), eye, distance * math.sin(angle)))
    target = np.array((0.0, 0.5 * person_height, 0.0))
    forward = target - position
    reach = float(np.linalg.norm(forward))
    forward /= reach
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    fill = random.uniform(*rig.fill)
    focal = fill * height * reach / (person_height * float(up[1]))
    dx, dy = (float(offset) * height for offset in random.uniform(-rig.shift, rig.shift, 2))
    # float32 throughout: one float64 scalar would turn whole images into float64
    return View(
        position=position.astype(np.float32),
        forward=forward.astype(np.float32),
        right=right.astype(np.float32),
        up=up.astype(np.float32),
        focal=focal,
        principal=(width / 2 + dx, height / 2 + 0.4 * dy),
        height=height,
        width=width,
    )


@dataclass(frozen=True, kw_only=True)
class Photo:
    """How one photographic camera records linear light: per-channel ``gain``, ``saturation``, ``contrast`` about middle
    grey, ``lift`` of the blacks (share of full scale), ``blur`` (sigma as a share of the image height), ``noise``
    (sd in 0-255) and JPEG ``quality``."""

    gain: tuple[float, float, float]
    saturation: float
    contrast: float
    lift: float
    blur: float
    noise: float
    quality: int

    def record(self, light: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Linear light (H, W, 3) to sRGB uint8."""
        exposed = light * np.array(self.gain, np.float32)
        luma = (exposed @ LUMA)[..., None]
        exposed = luma + (exposed - luma) * np.float32(self.saturation)
        sigma = self.blur * light.shape[0] * random.uniform(0.8, 1.25)
        blurred: np.ndarray = gaussian_filter(exposed, (sigma, sigma, 0), mode="nearest", truncate=3)
        code = np.sqrt(np.clip(blurred, 0, None) / (1 + 0.25 * np.clip(blurred, 0, None))) * np.float32(255)
        code = (code - 110) * np.float32(self.contrast * random.uniform(0.94, 1.06)) + 110
        code = code * np.float32(1 - self.lift) + np.float32(255 * self.lift)
        code += random.normal(0, self.noise, light.shape).astype(np.float32)
        recorded: np.ndarray = np.clip(np.rint(code), 0, 255).astype(np.uint8)
        return recorded


# means, contrast and softness follow Market-1501's six cameras in daylight; the test's golden file states the figures
PHOTOS: tuple[Photo, ...] = (
    Photo(gain=(0.95, 0.94, 0.99), saturation=0.42, contrast=1.36, lift=0.03, blur=0.0016, noise=4.5, quality=88),
    Photo(gain=(1.02, 1.06, 1.13), saturation=0.43, contrast=1.40, lift=0.05, blur=0.0016, noise=5.0, quality=84),
    Photo(gain=(1.04, 1.03, 1.12), saturation=0.36, contrast=1.38, lift=0.02, blur=0.0014, noise=4.0, quality=90),
    Photo(gain=(1.04, 0.98, 0.96), saturation=0.46, contrast=1.36, lift=0.03, blur=0.0018, noise=5.0, quality=82),
    Photo(gain=(1.08, 1.05, 1.13), saturation=0.34, contrast=1.46, lift=0.04, blur=0.0032, noise=4.0, quality=78),
    Photo(gain=(1.00, 0.93, 1.06), saturation=0.52, contrast=1.56, lift=0.02, blur=0.0058, noise=4.5, quality=72),
)
