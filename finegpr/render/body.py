"""The articulated body: joints of a walking person, and the rounded cones that give them volume.

Person frame, in metres: x to the person's left, y up, z forward, the ground at y = 0. A primitive is the convex hull of
two spheres (a rounded cone), seen through an affine map so that torsos are wider than deep; equal ends make an
ellipsoid. Proportions are those of a 1.75 m adult and are scaled to the person's height.
"""

import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from finegpr.render.person import Person

_REFERENCE_HEIGHT = 1.75
_HIP = (0.0, 0.92, 0.0)
KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
Point = tuple[float, float, float]


class Material(IntEnum):
    """What a primitive is made of; the texture of each is in ``texture``."""

    SKIN = 0
    FACE = 1
    HAIR = 2
    UPPER = 3
    SLEEVE = 4
    LOWER = 5
    LEG = 6
    SHOE = 7
    BOOT = 8
    BAG = 9
    HAT = 10


@dataclass(frozen=True, kw_only=True)
class Body:
    """``num`` primitives in the person frame, float32, and the joints.

    A point x is mapped to ``frame @ (x - origin)``; there the primitive is the hull of a sphere of radius ``radius_a``
    at 0 and one of ``radius_b`` at (0, length, 0). A hit with y < ``cut_below``, or with z > ``window_z`` and
    y < ``window_y``, is cut away (hems, faces under hair).
    """

    origin: np.ndarray  # (num, 3)
    frame: np.ndarray  # (num, 3, 3)
    length: np.ndarray  # (num,)
    radius_a: np.ndarray
    radius_b: np.ndarray
    cut_below: np.ndarray
    window_z: np.ndarray
    window_y: np.ndarray
    material: np.ndarray  # (num,) uint8
    keypoints: np.ndarray  # (17, 3)
    scale: float


@dataclass
class _Parts:
    """Collects primitives in reference proportions."""

    rows: list[tuple[float, ...]] = field(default_factory=list)

    def cone(
        self,
        a: Point,
        b: Point,
        radius_a: float,
        radius_b: float,
        material: Material,
        *,
        wide: float = 1.0,
        deep: float = 1.0,
        cut_below: float = -9.0,
    ) -> None:
        self.rows.append((*a, *b, radius_a, radius_b, wide, deep, cut_below, 9.0, -9.0, material))

    def ellipsoid(
        self,
        centre: Point,
        axes: Point,
        material: Material,
        *,
        cut_below: float = -9.0,
        window: tuple[float, float] = (9.0, -9.0),
    ) -> None:
        """Half axes along x, y, z; cuts are in units of the half axes. Tilts with nothing."""
        x, y, z = centre
        # a sphere of radius axes[1] whose axis is vertical; the widths follow by the affine map
        self.rows.append(
            (x, y, z, x, y, z, axes[1], axes[1], axes[0] / axes[1], axes[2] / axes[1], cut_below, *window, material)
        )


def _tilt(point: Point, angle: float, pivot: Point = _HIP) -> Point:
    """Lean forward by ``angle`` radians about the left-right axis through ``pivot``."""
    y, z = point[1] - pivot[1], point[2] - pivot[2]
    cosine, sine = math.cos(angle), math.sin(angle)
    return (point[0], pivot[1] + y * cosine - z * sine, pivot[2] + y * sine + z * cosine)


def _swing(start: Point, length: float, forward: float, outward: float = 0.0) -> Point:
    """The end of a hanging limb of ``length`` swung by ``forward`` and ``outward`` (signed in x) radians."""
    down = math.cos(outward)
    return (
        start[0] + length * math.sin(outward),
        start[1] - length * down * math.cos(forward),
        start[2] + length * down * math.sin(forward),
    )


def _between(a: Point, b: Point, share: float) -> Point:
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def _legs(parts: _Parts, person: Person, phase: float, joints: dict[str, Point]) -> float:
    """Thighs, shins, shoes and boots; returns the height of the lowest sole."""
    cloth = Material.LEG if person.has("dress") else Material.LOWER
    slack = 1.0 if person.has("dress") else person.trouser_width
    stout = 0.55 + 0.45 * person.build
    stride = math.radians(person.stride)
    floor = math.inf
    for side, name, angle in ((1, "left", phase), (-1, "right", phase + math.pi)):
        hip = (side * 0.085 * person.hips, 0.90, 0.0)
        thigh = stride * math.sin(angle)
        shin = thigh - math.radians(3) - 1.35 * stride * max(0.0, math.cos(angle))
        knee = _swing(hip, 0.42, thigh, side * 0.02)
        ankle = _swing(knee, 0.40, shin)
        pitch = 0.75 * min(0.0, shin) + 0.25 * max(0.0, thigh)
        toe = (ankle[0] + side * 0.025, ankle[1] - 0.045 + 0.16 * math.sin(pitch), ankle[2] + 0.155 * math.cos(pitch))
        heel = (ankle[0], ankle[1] - 0.035 - 0.05 * math.sin(pitch), ankle[2] - 0.045)
        parts.cone(hip, knee, 0.083 * stout, 0.056 * stout * slack, cloth, deep=1.08)
        parts.cone(knee, ankle, 0.055 * stout * slack, 0.037 * slack**2, cloth)
        shoe = Material.BOOT if person.has("boots") else Material.SHOE
        parts.cone(heel, toe, 0.046, 0.037, shoe, wide=1.1, deep=0.95)
        if person.has("boots"):
            parts.cone(ankle, _between(ankle, knee, 0.72), 0.056, 0.069 * stout * slack, shoe)
        else:
            parts.cone(heel, (ankle[0], ankle[1] + 0.01, ankle[2]), 0.046, 0.043, shoe)
        joints |= {f"{name}_hip": hip, f"{name}_knee": knee, f"{name}_ankle": ankle}
        floor = min(floor, toe[1] - 0.037, heel[1] - 0.046)
    return floor


def _arms(parts: _Parts, person: Person, phase: float, lean: float, joints: dict[str, Point]) -> None:
    stout = 0.5 + 0.5 * person.build
    swing = math.radians(person.arm_swing)
    for side, name, angle in ((1, "left", phase + math.pi), (-1, "right", phase)):
        shoulder = _tilt((side * 0.168 * person.shoulders, 1.405, -0.005), lean)
        forward = swing * math.sin(angle) + 0.04
        elbow = _swing(shoulder, 0.285, forward, side * (0.10 + 0.10 * (person.build - 0.9)))
        wrist = _swing(elbow, 0.25, forward + 0.30 + 0.5 * max(0.0, forward), side * 0.02)
        hand = _swing(wrist, 0.075, forward + 0.35, -side * 0.05)
        if person.has("short_sleeves"):
            parts.cone(shoulder, _between(shoulder, elbow, 0.68), 0.064 * stout, 0.062 * stout, Material.SLEEVE)
            parts.cone(shoulder, elbow, 0.047 * stout, 0.041 * stout, Material.SKIN)
            parts.cone(elbow, wrist, 0.041 * stout, 0.029, Material.SKIN)
        else:
            parts.cone(shoulder, elbow, 0.064 * stout, 0.053 * stout, Material.SLEEVE)
            parts.cone(elbow, wrist, 0.052 * stout, 0.043, Material.SLEEVE)
        parts.cone(wrist, hand, 0.029, 0.033, Material.SKIN, wide=0.75)
        joints |= {f"{name}_shoulder": shoulder, f"{name}_elbow": elbow, f"{name}_wrist": wrist}


def _torso(parts: _Parts, person: Person, lean: float) -> None:
    female = person.attributes["gender"] == "female"
    wide, build = person.shoulders, person.build
    depth = 0.45 + 0.55 * build

    def up(x: float, y: float, z: float) -> Point:
        return _tilt((x, y, z), lean)

    waist = (0.86 if female else 1.0) * build
    parts.cone(
        (0, 0.885, -0.005), (0, 0.99, -0.005), 0.108 * depth, 0.107 * depth, Material.LOWER, wide=1.42 * person.hips
    )
    parts.cone(up(0, 1.00, 0), up(0, 1.16, 0), 0.108 * depth, 0.104 * depth, Material.UPPER, wide=1.34 * waist / depth)
    parts.cone(up(0, 1.16, 0), up(0, 1.33, -0.01), 0.104 * depth, 0.113 * depth, Material.UPPER, wide=1.36 * wide)
    reach = 0.15 * wide
    parts.cone(up(-reach, 1.40, -0.01), up(reach, 1.40, -0.01), 0.066, 0.066, Material.UPPER)
    parts.cone(up(0, 1.40, -0.015), up(0, 1.475, -0.01), 0.08, 0.052, Material.UPPER, wide=1.35)
    for side in (-1, 1):
        if not person.has("dress"):
            parts.ellipsoid((side * 0.06 * person.hips, 0.915, -0.035), (0.085, 0.10, 0.076), Material.LOWER)
        if female:
            parts.ellipsoid(up(side * 0.068, 1.262, 0.082 * depth), (0.066, 0.07, 0.062), Material.UPPER)
    if person.has("dress"):
        flare = 0.215 + 0.3 * person.hem
        hem = 0.50 + person.hem
        parts.cone((0, hem, 0), (0, 1.03, 0), flare, 0.112 * depth, Material.LOWER, wide=1.12, deep=0.95, cut_below=0.0)
    if person.attributes["top_length"] == "long":
        parts.cone(
            (0, 0.73 + person.hem, 0),
            (0, 1.10, 0),
            0.166 * depth,
            0.115 * depth,
            Material.UPPER,
            wide=1.30 * person.hips,
            cut_below=0.0,
        )
    else:
        parts.cone(
            (0, 0.965 + 0.4 * person.hem, 0),
            (0, 1.13, 0),
            0.118 * depth,
            0.112 * depth,
            Material.UPPER,
            wide=1.38 * person.hips,
            cut_below=0.0,
        )


def _head(parts: _Parts, person: Person, lean: float, joints: dict[str, Point]) -> None:
    size = person.head

    def up(x: float, y: float, z: float) -> Point:
        # the face looks straight ahead however far the back leans
        pivot = _tilt((0.0, 1.50, 0.0), lean)
        return (x * size, pivot[1] + (y - 1.50) * size, pivot[2] + z * size + 0.01)

    axes = (0.077 * size, 0.115 * size, 0.095 * size)
    parts.cone(_tilt((0, 1.42, -0.01), lean), up(0, 1.56, 0), 0.055, 0.050, Material.SKIN)
    parts.ellipsoid(up(0, 1.625, 0.01), axes, Material.FACE)
    parts.ellipsoid(up(0, 1.612, 0.105), (0.014, 0.022, 0.018), Material.SKIN)
    for side in (-1, 1):
        parts.ellipsoid(up(side * 0.077, 1.622, 0.0), (0.012, 0.026, 0.018), Material.SKIN)
    shell = (axes[0] * 1.13, axes[1] * 1.08, axes[2] * 1.1)
    if person.attributes["hair"] == "long":
        length = 0.24 * person.hair_length
        parts.ellipsoid(up(0, 1.636, -0.008), shell, Material.HAIR, window=(0.18, 0.42))
        if person.ponytail:
            parts.cone(up(0, 1.67, -0.10), up(0, 1.62 - 1.2 * length, -0.145), 0.042, 0.03, Material.HAIR)
        else:
            parts.cone(
                up(0, 1.62, -0.035), up(0, 1.60 - length, -0.075), 0.088, 0.082, Material.HAIR, wide=1.08, deep=0.85
            )
            for side in (-1, 1):
                parts.cone(
                    up(side * 0.07, 1.63, 0.0), up(side * 0.083, 1.61 - 0.8 * length, 0.02), 0.034, 0.026, Material.HAIR
                )
    else:
        parts.ellipsoid(up(0, 1.64, -0.012), shell, Material.HAIR, cut_below=-0.45, window=(0.05, 0.46))
    if person.has("hat"):
        crown = (axes[0] * 1.22, axes[1] * (1.2 if person.brim else 1.12), axes[2] * 1.2)
        parts.ellipsoid(up(0, 1.645, -0.004), crown, Material.HAT, cut_below=0.3)
        if person.brim:
            parts.ellipsoid(up(0, 1.684, 0.0), (0.165 * size, 0.017, 0.175 * size), Material.HAT)
        else:
            parts.ellipsoid(up(0, 1.682, 0.105), (0.078 * size, 0.016, 0.085 * size), Material.HAT)
    joints |= {
        "nose": up(0, 1.612, 0.11),
        "left_eye": up(0.03, 1.64, 0.09),
        "right_eye": up(-0.03, 1.64, 0.09),
        "left_ear": up(0.077, 1.622, 0.0),
        "right_ear": up(-0.077, 1.622, 0.0),
    }


def _bag(parts: _Parts, person: Person, lean: float) -> None:
    if not person.has("bag"):
        return
    size = person.bag_size
    if person.backpack:
        parts.cone(
            _tilt((0, 1.09, -0.185), lean),
            _tilt((0, 1.34, -0.175), lean),
            0.105 * size,
            0.095 * size,
            Material.BAG,
            wide=1.35,
        )
        parts.ellipsoid(_tilt((0, 1.13, -0.28), lean), (0.10 * size, 0.085 * size, 0.05), Material.BAG)
    else:
        x = person.bag_side * (0.2 + 0.04 * person.build) * person.hips
        parts.cone((x, 0.86, 0.02), (x * 0.97, 0.98, 0.02), 0.06 * size, 0.05 * size, Material.BAG, deep=2.3)


def build(person: Person, phase: float) -> Body:
    """The body of ``person`` at walking ``phase`` (radians; 0 and pi are mid-stance)."""
    parts = _Parts()
    joints: dict[str, Point] = {}
    lean = math.radians(person.stoop)
    floor = _legs(parts, person, phase, joints)
    _torso(parts, person, lean)
    _arms(parts, person, phase, lean, joints)
    _head(parts, person, lean, joints)
    _bag(parts, person, lean)

    rows = np.array(parts.rows, np.float32)
    scale = person.height / _REFERENCE_HEIGHT
    ground = np.array((0, floor, 0), np.float32)
    a, b = (rows[:, 0:3] - ground) * scale, (rows[:, 3:6] - ground) * scale
    axis = b - a
    length = np.linalg.norm(axis, axis=1)
    round_ = length < 1e-6
    y = np.where(round_[:, None], np.array((0, 1, 0), np.float32), axis / np.maximum(length, 1e-6)[:, None])
    # x along the shoulders unless the primitive itself lies that way
    sideways = np.abs(y[:, 0]) > 0.9
    across = np.stack((np.zeros_like(length), -y[:, 2], y[:, 1]), axis=1)  # (1, 0, 0) x y
    z = np.where(sideways[:, None], np.array((0, 0, 1), np.float32), across)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    (y0, y1, y2), (z0, z1, z2) = y.T, z.T
    frame = np.stack((np.stack((y1 * z2 - y2 * z1, y2 * z0 - y0 * z2, y0 * z1 - y1 * z0), axis=1), y, z), axis=1)
    frame[:, 0] /= rows[:, 8:9]
    frame[:, 2] /= rows[:, 9:10]
    # cuts of ellipsoids are given in half axes, those of cones in metres above end a
    unit = np.where(round_, rows[:, 6] * scale, 1.0).astype(np.float32)
    return Body(
        origin=a,
        frame=frame,
        length=length,
        radius_a=rows[:, 6] * scale,
        radius_b=rows[:, 7] * scale,
        cut_below=rows[:, 10] * unit,
        window_z=rows[:, 11] * unit,
        window_y=rows[:, 12] * unit,
        material=rows[:, 13].astype(np.uint8),
        keypoints=((np.array([joints[name] for name in KEYPOINTS], np.float32) - ground) * scale),
        scale=scale,
    )
