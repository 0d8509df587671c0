"""Perspective ray casting of rounded cones: nearest hit, normal and local coordinates of every pixel.

A ray is o + t (F + X R + Y U), so t is the depth along the optical axis and every coefficient of the intersection is a
polynomial in the image coordinates X and Y, evaluated on the bounding box of one primitive at a time.
"""

from dataclasses import dataclass

import numpy as np

from finegpr.render.body import Body
from finegpr.render.camera import View


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The visible surface, one row per covered sample.

    ``pixel`` indexes the flattened (height, width) image, in the order of ``part``, the primitive; ``weight`` is the
    share of the pixel that the row stands for, so that the weights of a covered pixel sum to 1. ``point`` and
    ``normal`` (unit) are in the person frame, ``local`` is the point in the primitive's own frame, ``distance`` the
    depth along the optical axis in metres. ``depth`` (height * samples, width * samples) is infinite where nothing is
    hit.
    """

    pixel: np.ndarray
    weight: np.ndarray
    part: np.ndarray
    point: np.ndarray
    normal: np.ndarray
    local: np.ndarray
    distance: np.ndarray
    depth: np.ndarray


def _bounds(body: Body, view: View) -> np.ndarray:
    """Pixel bounds (num, 4) = left, top, right, bottom of each primitive: exact for each end's ellipsoid.

    The outline of an ellipsoid under projection P is the dual conic P Q* P^T; its extremes are roots of a quadratic.
    """
    to_camera = np.stack((view.right, view.up, view.forward))
    inverse = np.linalg.inv(body.frame.astype(np.float64))
    shape = to_camera @ inverse
    low = np.full((len(body.length), 2), np.inf)
    high = np.full((len(body.length), 2), -np.inf)
    for along, radius in ((0.0, body.radius_a), (1.0, body.radius_b)):
        end = body.origin + inverse[:, :, 1] * (along * body.length)[:, None]
        centre = (end - view.position) @ to_camera.T
        dual = centre[:, :, None] * centre[:, None, :] - (shape @ shape.transpose(0, 2, 1)) * (radius**2)[:, None, None]
        w = dual[:, 2, 2]
        for axis in (0, 1):
            middle = dual[:, axis, 2] / w
            spread = np.sqrt(np.maximum(middle**2 - dual[:, axis, axis] / w, 0))
            low[:, axis] = np.minimum(low[:, axis], middle - spread)
            high[:, axis] = np.maximum(high[:, axis], middle + spread)
    columns = view.principal[0] + view.focal * np.stack((low[:, 0], high[:, 0]), axis=1)
    rows = view.principal[1] - view.focal * np.stack((high[:, 1], low[:, 1]), axis=1)
    edges = np.stack((columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]), axis=1)
    edges += np.array((-1, -1, 2, 2))
    return np.clip(edges, 0, (view.width, view.height, view.width, view.height)).astype(np.int64)


def _sphere(b: np.ndarray, a: np.ndarray, c: float) -> np.ndarray:
    """Entry depth of a t^2 + 2 b t + c = 0; infinite where the ray misses."""
    root: np.ndarray = b * b
    root -= a * np.float32(c)
    miss = root < 0
    np.maximum(root, 0, out=root)
    np.sqrt(root, out=root)
    root += b
    np.negative(root, out=root)
    root /= a
    root[miss] = np.inf
    return root


def cast(body: Body, image_view: View, *, samples: int) -> Hits:
    """Nearest hits of the body, tested at ``samples`` x ``samples`` rays a pixel."""
    view = image_view.zoomed(samples)
    x = ((np.arange(view.width, dtype=np.float32) + 0.5 - view.principal[0]) / view.focal)[None, :]
    y = ((view.principal[1] - np.arange(view.height, dtype=np.float32) - 0.5) / view.focal)[:, None]
    basis = np.stack((view.forward, view.right, view.up), axis=1).astype(np.float32)
    directions = body.frame @ basis  # (num, 3, 3): columns F, R, U in the primitive's frame
    offset = np.einsum("nij,nj->ni", body.frame, view.position.astype(np.float32) - body.origin)
    gram = np.einsum("nij,nik->njk", directions, directions)
    slope = np.einsum("ni,nij->nj", offset, directions)
    square = np.einsum("ni,ni->n", offset, offset)
    bounds = _bounds(body, view)

    depth = np.full((view.height, view.width), np.inf, np.float32)
    part = np.full((view.height, view.width), -1, np.int8)
    for k in range(len(body.length)):
        left, top, right, bottom = bounds[k]
        if right <= left or bottom <= top:
            continue
        u, v = x[:, left:right], y[top:bottom]
        g, s = gram[k], slope[k]
        a = (g[0, 0] + v * (2 * g[0, 2] + v * g[2, 2])) + u * (2 * g[0, 1] + u * g[1, 1])
        a += (v * (2 * g[1, 2])) * u
        b = (s[0] + v * s[2]) + u * s[1]
        ra, length = float(body.radius_a[k]), float(body.length[k])
        t = _sphere(b, a, square[k] - ra * ra)
        d, oy = directions[k, 1], float(offset[k, 1])
        if length > 1e-6:
            rb = float(body.radius_b[k])
            dy = (d[0] + v * d[2]) + u * d[1]
            np.minimum(
                t, _sphere(b - np.float32(length) * dy, a, square[k] - 2 * length * oy + length**2 - rb * rb), out=t
            )
            sine = (ra - rb) / length
            if abs(sine) < 0.999:
                np.minimum(t, _side(a, b, dy, float(square[k]), oy, ra, sine, length), out=t)
        if body.cut_below[k] > -1 or body.window_z[k] < 1:
            local_y = oy + t * ((d[0] + v * d[2]) + u * d[1])
            e = directions[k, 2]
            local_z = offset[k, 2] + t * ((e[0] + v * e[2]) + u * e[1])
            cut = (local_y < body.cut_below[k]) | ((local_z > body.window_z[k]) & (local_y < body.window_y[k]))
            t[cut] = np.inf
        window = depth[top:bottom, left:right]
        nearer = t < window
        np.copyto(window, t, where=nearer)
        np.copyto(part[top:bottom, left:right], np.int8(k), where=nearer)
    return _surface(body, view, samples, depth, part, x, y)


def _side(
    a: np.ndarray, b: np.ndarray, dy: np.ndarray, square: float, oy: float, ra: float, sine: float, length: float
) -> np.ndarray:
    """Entry depth on the cone between the two end spheres; infinite elsewhere."""
    cosine2 = np.float32(1 - sine * sine)
    w = np.float32(oy - sine * ra)
    quadratic = cosine2 * a
    quadratic -= dy * dy
    linear = cosine2 * b
    linear -= w * dy
    root = linear * linear
    root -= quadratic * np.float32(cosine2 * (square - ra * ra) - w * w)
    hit = root > 0
    hit &= quadratic > 1e-9
    np.maximum(root, 0, out=root)
    np.sqrt(root, out=root)
    root += linear
    np.negative(root, out=root)
    np.maximum(quadratic, 1e-9, out=quadratic)
    root /= quadratic
    along = root * dy
    along += w
    hit &= along > 0
    hit &= along < cosine2 * np.float32(length)
    return np.where(hit, root, np.float32(np.inf))


def _surface(
    body: Body, view: View, samples: int, depth: np.ndarray, part: np.ndarray, x: np.ndarray, y: np.ndarray
) -> Hits:
    # a pixel within one primitive is shaded once; only outlines and seams are shaded at every ray
    corner = part[::samples, ::samples]
    whole = np.ones(corner.shape, bool)
    for row in range(samples):
        for column in range(samples):
            whole &= part[row::samples, column::samples] == corner
    shaded = part >= 0
    for row in range(samples):
        for column in range(samples):
            if row or column:
                shaded[row::samples, column::samples] &= ~whole
    covered = np.flatnonzero(shaded)
    flat = part.ravel()
    # grouped by primitive, so that each is one small matrix product
    ray_index = covered[np.argsort(flat[covered], kind="stable")]
    parts = flat[ray_index]
    t = depth.ravel()[ray_index]
    rows, columns = np.divmod(ray_index, view.width)
    pixel = rows // samples * (view.width // samples) + columns // samples
    weight = np.where(whole.ravel()[pixel], np.float32(1), np.float32(1 / samples**2))
    ray = view.forward + x[0, columns, None] * view.right + y[rows] * view.up
    point = view.position + t[:, None] * ray
    local, normal = np.empty_like(point), np.empty_like(point)
    ends = np.searchsorted(parts, np.arange(len(body.length) + 1))
    for k in np.unique(parts):
        group = slice(ends[k], ends[k + 1])
        frame, length = body.frame[k], float(body.length[k])
        local[group] = (point[group] - body.origin[k]) @ frame.T
        outward = local[group].copy()
        if length > 1e-6:
            radius = float(body.radius_a[k])
            sine = min(0.999, max(-0.999, (radius - float(body.radius_b[k])) / length))
            outward[:, 1] -= np.clip((outward[:, 1] - sine * radius) / (1 - sine * sine), 0, length)
        normal[group] = outward @ frame
    normal /= np.maximum(np.sqrt(np.einsum("ni,ni->n", normal, normal)), 1e-6)[:, None]
    return Hits(
        pixel=pixel, weight=weight, part=parts, point=point, normal=normal, local=local, distance=t, depth=depth
    )
