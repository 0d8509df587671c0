"""One picture of the whole world: viewpoints, weathers, illuminations, scenes, people and target cameras in rows."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from finegpr.attributes import ILLUMINATION, SCENE, WEATHER
from finegpr.render.camera import PHOTOS, SOURCE_RIG, TARGET_RIG
from finegpr.render.person import make_person
from finegpr.render.picture import Pictures, Shot, render, render_one

_COLUMNS = 14
_HEIGHT, _WIDTH = 160, 80
_CAPTION, _MARGIN, _GAP = 17, 8, 3
_INK, _PAPER = (40, 42, 46), (250, 250, 248)
_MAX_BYTES = 300_000
# fmt: off
_BONES = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13),
    (13, 15), (12, 14), (14, 16),
)
# fmt: on
Row = tuple[str, Sequence[np.ndarray], Sequence[str]]


def _shot(seed: int, viewpoint: float, weather: str, illumination: str, scene: str) -> Shot:
    return Shot(viewpoint=viewpoint, weather=weather, illumination=illumination, scene=scene, seed=(seed, 99))


def _source(seed: int, identities: Sequence[int], shots: Sequence[Shot]) -> Pictures:
    people = [make_person(seed, "minigpr", identity) for identity in identities]
    return render(people, shots, SOURCE_RIG, height=_HEIGHT, width=_WIDTH)


def _annotated(pictures: Pictures, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The body cut out by its mask, and the picture with its skeleton (hidden joints hollow)."""
    image, mask, joints = pictures.images[index], pictures.masks[index], pictures.keypoints[index]
    cut = np.where(mask[..., None], image, np.uint8(244))
    scale = 3
    canvas = Image.fromarray((image * 0.45 + 120).astype(np.uint8)).resize((_WIDTH * scale, _HEIGHT * scale))
    pen = ImageDraw.Draw(canvas)
    points = [(float(x) * scale, float(y) * scale) for x, y, _ in joints]
    for a, b in _BONES:
        pen.line((*points[a], *points[b]), fill=(30, 90, 190), width=scale + 1)
    for k, (x, y) in enumerate(points):
        fill = (220, 60, 40) if joints[k, 2] == 2 else (255, 255, 255)
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=fill, outline=(220, 60, 40), width=2)
    return cut, np.asarray(canvas.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS))


def _rows(seed: int) -> list[Row]:
    turn = [float(90 + 30 * k) % 360 for k in range(12)]
    days = ("forenoon", "noon", "afternoon")
    weathers, hours, places = WEATHER.values, ILLUMINATION.values, SCENE.values

    def row(title: str, identities: Sequence[int], shots: Sequence[Shot], labels: Sequence[str]) -> Row:
        return title, list(_source(seed, identities, shots).images), labels

    viewpoints = _source(seed, [20] * 12, [_shot(4, v, "clouds", "noon", "urban4") for v in turn])
    mask, skeleton = _annotated(viewpoints, 1)
    cameras = [1 + k % len(PHOTOS) for k in range(_COLUMNS)]
    return [
        (
            "36 viewpoints (every third), the body mask and 17 key points",
            [*viewpoints.images, mask, skeleton],
            [*(f"{v:.0f}°" for v in turn), "mask", "key points"],
        ),
        row(
            "7 weathers, in a city and in the wild",
            [19] * 7 + [40] * 7,
            [_shot(5, 120, w, "noon", "urban6") for w in weathers]
            + [_shot(6, 300, w, "forenoon", "wild3") for w in weathers],
            [*weathers, *weathers],
        ),
        row(
            "7 illuminations, on two streets",
            [9] * 7 + [22] * 7,
            [_shot(8, 60, "sunny", i, "urban1") for i in hours] + [_shot(7, 230, "clouds", i, "urban9") for i in hours],
            [*hours, *hours],
        ),
        row(
            "9 scenes, five of them after dark",
            range(31, 45),
            [_shot(k, 80, "sunny", days[k % 3], s) for k, s in enumerate(places)]
            + [_shot(k, 70, "clouds", "night", s) for k, s in enumerate(places[::2])],
            [*places, *places[::2]],
        ),
        row(
            "people: 13 identity attributes, and seeded traits that no attribute names",
            range(45, 59),
            [_shot(k, turn[5 * k % 12], "clouds", days[k % 3], places[4 * k % 9]) for k in range(45, 59)],
            [f"identity {k}" for k in range(45, 59)],
        ),
        (
            "MiniMarket, the photo-like target: other people and streets through six cameras",
            [_target(seed, k, camera, places[4 * k % 9]) for k, camera in enumerate(cameras)],
            [f"camera {camera}" for camera in cameras],
        ),
    ]


def _target(seed: int, column: int, camera: int, scene: str) -> np.ndarray:
    shot = Shot(
        viewpoint=(80.0, 250.0, 160.0)[column % 3],
        weather=("clouds", "overcast", "sunny", "neutral")[column % 4],
        illumination=("forenoon", "noon", "afternoon", "noon", "dusk")[column % 5],
        scene=scene,
        seed=(seed, 98, column),
        scene_seed=1_000_003,
    )
    person = make_person(seed, "minimarket", 1 + column // 3)
    return render_one(person, shot, TARGET_RIG, height=_HEIGHT, width=_WIDTH, photo=PHOTOS[camera - 1])[0]


def contact_sheet(seed: int = 0) -> bytes:
    """The contact sheet of the world of ``seed`` as JPEG of at most 300 KB."""
    rows = _rows(seed)
    title_font, label_font = ImageFont.load_default(12), ImageFont.load_default(9)
    width = 2 * _MARGIN + _COLUMNS * _WIDTH + (_COLUMNS - 1) * _GAP
    sheet = Image.new("RGB", (width, _MARGIN + len(rows) * (_HEIGHT + 2 * _CAPTION)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    y = _MARGIN // 2
    for title, images, labels in rows:
        pen.text((_MARGIN, y), title, fill=_INK, font=title_font)
        y += _CAPTION
        for column, (image, label) in enumerate(zip(images, labels, strict=True)):
            x = _MARGIN + column * (_WIDTH + _GAP)
            sheet.paste(Image.fromarray(image), (x, y))
            pen.text((x + 2, y + _HEIGHT + 1), label, fill=(110, 112, 116), font=label_font)
        y += _HEIGHT + _CAPTION
    for quality in (90, 86, 82, 78, 72, 64, 56):
        stream = io.BytesIO()
        sheet.save(stream, format="JPEG", quality=quality, optimize=True)
        if stream.tell() <= _MAX_BYTES:
            break
    return stream.getvalue()
