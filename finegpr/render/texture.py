"""What surfaces look like before light falls on them: prints on clothes, straps, logos, and the face.

All patterns live in body coordinates (the person frame in reference proportions, or a primitive's own frame), so they
turn with the body.
"""

import numpy as np

from finegpr.render.body import Body, Material
from finegpr.render.person import Pattern, Person, linear
from finegpr.render.raycast import Hits

_EYE = linear((38, 30, 28))
_FRAME = linear((20, 18, 20))
_LIP = np.array((0.62, 0.38, 0.38), np.float32)


def _print(pattern: Pattern, across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Where a garment shows its second colour: bool (n,), from metres across and up the garment."""
    period = 1 / pattern.frequency
    rows = (up / period + pattern.phase) % 1 < 0.42
    if pattern.kind == "stripes":
        return rows
    columns = (across / period + pattern.phase) % 1 < 0.36
    if pattern.kind == "columns":
        return columns
    if pattern.kind == "check":
        return rows ^ columns
    if pattern.kind == "block":
        return up < 1.13 + 0.14 * pattern.phase
    return np.zeros(len(up), bool)


def _torso(person: Person, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    across, up, front = point[:, 0], point[:, 1], normal[:, 2] > 0.1
    colour = np.broadcast_to(person.upper, (len(point), 3)).copy()
    pattern = person.upper_pattern
    colour[_print(pattern, across, up)] = pattern.colour
    if pattern.kind == "zip":
        colour[front & (np.abs(across) < 0.014)] = pattern.colour
    if person.logo != "none":
        centre = {"chest": (0.075, 1.31), "front": (0.0, 1.24), "back": (0.0, 1.25)}[person.logo]
        size = person.logo_size * (0.6 if person.logo == "chest" else 1.3)
        inside = (across - centre[0]) ** 2 + ((up - centre[1]) * 1.25) ** 2 < size**2
        colour[inside & (front != (person.logo == "back"))] = person.logo_colour
    if person.has("bag"):
        if person.backpack:
            strap = front & (np.abs(np.abs(across) - 0.105) < 0.021) & (up > 1.1)
        else:
            # from the shoulder opposite the bag down to it
            strap = np.abs(across * person.bag_side + (up - 1.16) * 0.62) < 0.024
        colour[strap] = person.bag
    return colour


def _legs(person: Person, hits: Hits, point: np.ndarray, rows: np.ndarray, body: Body) -> np.ndarray:
    colour = np.broadcast_to(person.lower, (len(rows), 3)).copy()
    pattern = person.lower_pattern
    across = hits.local[rows, 0] / body.scale
    if pattern.kind == "side" and not person.has("dress"):
        outside = np.sign(point[:, 0]) * hits.normal[rows, 0] > 0.8
        colour[outside] = pattern.colour
    elif pattern.kind == "check":
        colour[_print(pattern, across, point[:, 1])] = pattern.colour
    if not person.has("dress"):
        colour[np.abs(point[:, 0]) < 0.012] *= 0.6
        colour[np.abs(point[:, 1] - 0.985) < 0.02] = person.shoes * 0.5
    return colour


def _face(person: Person, local: np.ndarray) -> np.ndarray:
    """Colours on the head ellipsoid; ``local`` in half axes, z forward."""
    x, y, z = np.abs(local[:, 0]), local[:, 1], local[:, 2]
    colour = np.broadcast_to(person.skin, (len(local), 3)).copy()
    front = z > 0.2
    eye = ((x - 0.40) / 0.17) ** 2 + ((y - 0.10) / 0.09) ** 2 < 1
    colour[eye & front] = _EYE
    brow = (np.abs(y - 0.29) < 0.045) & (np.abs(x - 0.40) < 0.24)
    colour[brow & front] = person.hair * 0.8
    lips = (np.abs(y + 0.50) < 0.055) & (x < 0.27)
    colour[lips & front] = person.skin * _LIP
    if person.has("glasses"):
        ring = np.sqrt(((x - 0.42) / 0.40) ** 2 + ((y - 0.10) / 0.26) ** 2)
        if person.sunglasses:
            colour[(ring < 1) & front] = _FRAME * 0.7
        else:
            colour[(ring < 0.72) & front] = colour[(ring < 0.72) & front] * 0.55 + 0.12
            colour[(ring >= 0.72) & (ring < 1.08) & front] = _FRAME
        bridge = (np.abs(y - 0.13) < 0.07) & ((x < 0.1) | (x > 0.76)) & (z > -0.15)
        colour[bridge] = _FRAME
    elif person.attributes["age"] == "older":
        colour[(np.abs(y + 0.22) < 0.03) & (x < 0.45) & (x > 0.22) & front] *= 0.7
    return colour


def _shoe(person: Person, point: np.ndarray, boot: bool) -> np.ndarray:
    colour = np.broadcast_to(person.shoes, (len(point), 3)).copy()
    colour[point[:, 1] < 0.022] = person.soles
    if boot:
        colour[np.abs(point[:, 1] - 0.36) < 0.012] *= 0.6
    return colour


def albedo(person: Person, body: Body, hits: Hits) -> np.ndarray:
    """Linear RGB reflectance (n, 3) of every hit."""
    material = body.material[hits.part]
    plain = np.zeros((len(Material), 3), np.float32)
    plain[Material.SKIN] = person.skin
    plain[Material.HAIR] = person.hair
    plain[Material.SLEEVE] = person.sleeves
    plain[Material.LEG] = person.tights
    plain[Material.BAG] = person.bag
    plain[Material.HAT] = person.hat
    colour: np.ndarray = plain[material]
    point = hits.point / body.scale

    def rows(kind: Material) -> np.ndarray:
        return np.flatnonzero(material == kind)

    upper = rows(Material.UPPER)
    colour[upper] = _torso(person, point[upper], hits.normal[upper])
    sleeve = rows(Material.SLEEVE)
    if person.upper_pattern.kind in ("stripes", "check"):
        along = hits.local[sleeve, 1] / body.scale
        colour[sleeve[_print(person.upper_pattern, hits.local[sleeve, 0] / body.scale, along)]] = (
            person.upper_pattern.colour
        )
    lower = rows(Material.LOWER)
    colour[lower] = _legs(person, hits, point[lower], lower, body)
    face = rows(Material.FACE)
    axes = body.radius_a[hits.part[face]][:, None]
    colour[face] = _face(person, hits.local[face] / axes)
    hair = rows(Material.HAIR)
    strands = np.sin(hits.local[hair, 0] * 190 + 3 * np.sin(hits.local[hair, 1] * 40))
    colour[hair] *= (1 + 0.18 * strands)[:, None]
    for kind in (Material.SHOE, Material.BOOT):
        shoe = rows(kind)
        colour[shoe] = _shoe(person, point[shoe], kind is Material.BOOT)
    bag = rows(Material.BAG)
    colour[bag[np.abs(hits.local[bag, 1] / body.scale - 0.19) < 0.009]] *= 0.5
    hat = rows(Material.HAT)
    band = (hits.local[hat, 1] / body.scale > 0.03) & (hits.local[hat, 1] / body.scale < 0.052)
    colour[hat[band]] *= 0.55
    return colour
