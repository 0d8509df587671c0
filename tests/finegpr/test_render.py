"""The renderer draws people that turn, wear what their attributes say, and stand in the light they should."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from finegpr.attributes import COLOURS, IDENTITY_ATTRIBUTES, ILLUMINATION, SCENE, WEATHER
from finegpr.errors import InputError
from finegpr.render.body import KEYPOINTS, build
from finegpr.render.camera import PHOTOS, SOURCE_RIG, TARGET_RIG, aim
from finegpr.render.light import make_light
from finegpr.render.person import Person, make_person
from finegpr.render.picture import Pictures, Shot, render, render_one
from finegpr.render.raycast import cast
from finegpr.render.scene import panorama
from finegpr.render.sheet import contact_sheet

GOLDEN = Path(__file__).parents[1] / "golden"
SHOT = Shot(viewpoint=90, weather="clouds", illumination="forenoon", scene="urban4", seed=(7,))
LUMA = np.array((0.299, 0.587, 0.114), np.float32)
PLAIN = {
    "gender": "male", "hair": "short", "age": "adult", "glasses": "no", "short_sleeves": "no", "top_length": "short",
    "dress": "no", "boots": "no", "hat": "no", "bag": "no", "shoes": "dark", "upper_colour": "gray",
    "lower_colour": "blue",
}  # fmt: skip
OTHER = {
    "gender": "female", "hair": "long", "age": "older", "glasses": "yes", "short_sleeves": "yes", "top_length": "long",
    "dress": "yes", "boots": "yes", "hat": "yes", "bag": "yes", "shoes": "light", "upper_colour": "red",
    "lower_colour": "yellow",
}  # fmt: skip


def one(person: Person, shot: Shot, height: int = 128, width: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return render_one(person, shot, SOURCE_RIG, height=height, width=width)


def test_same_shot_same_bytes_and_another_seed_another_picture() -> None:
    person = make_person(0, "minigpr", 1)
    first, again = one(person, SHOT), one(make_person(0, "minigpr", 1), SHOT)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], one(person, replace(SHOT, seed=(8,)))[0])


@pytest.mark.parametrize(("height", "width"), [(128, 64), (480, 200), (40, 33)])
def test_sizes_are_height_by_width(height: int, width: int) -> None:
    pictures = render([make_person(0, "minigpr", 2)], [SHOT], SOURCE_RIG, height=height, width=width)
    assert isinstance(pictures, Pictures)
    assert pictures.images.shape == (1, height, width, 3)
    assert pictures.images.dtype == np.uint8
    assert pictures.masks.shape == (1, height, width)
    assert pictures.keypoints.shape == (1, len(KEYPOINTS), 3)
    # a person stands upright in the frame: tall, whole, and between a tenth and a half of the pixels
    rows = np.flatnonzero(pictures.masks[0].any(1))
    assert 0.7 * height < rows[-1] - rows[0] < height
    assert 0.08 < pictures.masks.mean() < 0.5


def test_no_pose_leaves_the_frame_or_sinks_into_the_ground() -> None:
    for identity in range(1, 30):
        person = make_person(3, "minigpr", identity)
        for phase in (0.0, 1.1, 2.5, 4.4):
            body = build(person, phase)
            ends = np.concatenate((body.origin[:, 1] - body.radius_a, body.keypoints[:, 1]))
            assert ends.min() > -0.03
            assert 0.9 * person.height < body.keypoints[:, 1].max() < person.height


def test_cast_agrees_with_marching_the_solid() -> None:
    """An independent check of the intersections: a hit lies on a surface and nothing solid lies before it."""
    body = build(make_person(1, "minigpr", 4), 0.8)
    view = aim(SOURCE_RIG, 35.0, 1.7, 48, 24, np.random.default_rng(0))
    hits = cast(body, view, samples=1)
    uncut = (body.cut_below < -1) & (body.window_z > 1)

    def outside(points: np.ndarray) -> np.ndarray:
        """Signed distance-like value (parts, points): negative inside a primitive, in its own affine frame."""
        values = []
        for k in np.flatnonzero(uncut):
            local = (points - body.origin[k]) @ body.frame[k].T
            share = np.linspace(0, 1, 200)[:, None]
            radius = body.radius_a[k] + (body.radius_b[k] - body.radius_a[k]) * share
            centre_y = share * body.length[k]
            distance = np.sqrt(local[None, :, 0] ** 2 + (local[None, :, 1] - centre_y) ** 2 + local[None, :, 2] ** 2)
            values.append((distance - radius).min(0))
        return np.stack(values)

    on = uncut[hits.part]
    assert on.sum() > 100
    assert np.abs(outside(hits.point[on]).min(0)).max() < 2e-3
    rays = hits.point - view.position
    for share in (0.99, 0.985, 0.97, 0.95):
        assert outside(view.position + share * rays).min() > -2e-3
    facing = np.einsum("ni,ni->n", hits.normal, rays)
    assert (facing < 1e-3).mean() > 0.99


def test_viewpoints_turn_the_body() -> None:
    """Front, left, back and right by the joints alone: who faces the camera has the left arm on the picture's right."""
    person = make_person(0, "minigpr", 5)
    seen = {angle: one(person, replace(SHOT, viewpoint=float(angle)))[2] for angle in (0, 90, 180, 270)}
    left, right, nose = (KEYPOINTS.index(name) for name in ("left_shoulder", "right_shoulder", "nose"))
    assert seen[90][left, 0] > seen[90][right, 0] + 8
    assert seen[270][left, 0] < seen[270][right, 0] - 8
    assert abs(seen[0][left, 0] - seen[0][right, 0]) < 8
    middle = {angle: (joints[left, 0] + joints[right, 0]) / 2 for angle, joints in seen.items()}
    assert seen[0][nose, 0] < middle[0] - 1  # the left side is seen: the person walks to the left
    assert seen[180][nose, 0] > middle[180] + 1
    assert seen[90][nose, 2] == 2
    assert seen[270][nose, 2] == 1


def test_keypoints_lie_on_the_body() -> None:
    person = make_person(0, "minigpr", 6)
    _, mask, joints = one(person, replace(SHOT, viewpoint=60.0), 256, 128)
    on = [mask[int(y), int(x)] for x, y, visible in joints if visible]
    assert np.mean(on) > 0.9


@pytest.mark.parametrize("name", [attribute.name for attribute in IDENTITY_ATTRIBUTES])
def test_every_identity_attribute_shows(name: str) -> None:
    """Changing one attribute changes many pixels of the body, and nothing when it stays."""
    changed = PLAIN | {name: OTHER[name]}
    different = 0
    for viewpoint in (90.0, 250.0):
        shot = replace(SHOT, viewpoint=viewpoint)
        base = one(make_person(0, "minigpr", 9, PLAIN), shot)[0].astype(int)
        seen = one(make_person(0, "minigpr", 9, changed), shot)[0]
        different += int((np.abs(base - seen).max(2) > 24).sum())
    assert different > (6 if name == "glasses" else 25)


def test_colour_names_stay_readable() -> None:
    """The drawn shade of a name is nearer to that name's own shades than to any other's, nearly always."""
    shades = {
        name: np.stack(
            [make_person(k, "minigpr", 1, PLAIN | {"upper_colour": name}).upper ** (1 / 2.2) for k in range(30)]
        )
        for name in COLOURS
    }
    centres = np.stack([shades[name].mean(0) for name in COLOURS])
    for k, name in enumerate(COLOURS):
        nearest = np.argmin(((shades[name][:, None] - centres) ** 2).sum(2), axis=1)
        assert (nearest == k).mean() > 0.9, name


def test_identities_differ_beyond_their_attributes_and_streams_share_nobody() -> None:
    twins = [one(make_person(0, "minigpr", k, PLAIN), SHOT)[0].astype(int) for k in range(1, 7)]
    for i in range(len(twins)):
        for j in range(i):
            assert np.abs(twins[i] - twins[j]).max() > 40
    heights = {stream: {make_person(0, stream, k).height for k in range(1, 40)} for stream in ("minigpr", "minimarket")}
    assert not heights["minigpr"] & heights["minimarket"]


def test_attributes_cover_their_values() -> None:
    drawn = [make_person(0, "minigpr", k).attributes for k in range(1, 201)]
    for attribute in IDENTITY_ATTRIBUTES:
        shares = [np.mean([person[attribute.name] == value for person in drawn]) for value in attribute.values]
        assert min(shares) > 0.04, attribute.name


def _means() -> dict[str, list[np.ndarray]]:
    people = [make_person(0, "minigpr", k) for k in range(1, 6)]
    means: dict[str, list[np.ndarray]] = {name: [] for name in (*WEATHER.values, *ILLUMINATION.values)}
    for weather in WEATHER.values:
        for illumination in ILLUMINATION.values:
            shots = [
                Shot(
                    viewpoint=70.0 * k,
                    weather=weather,
                    illumination=illumination,
                    scene=SCENE.values[2 * k],
                    seed=(k, 4),
                )
                for k in range(5)
            ]
            images = render(people, shots, SOURCE_RIG, height=64, width=32).images.astype(np.float32)
            for name in (weather, illumination):
                means[name].append(np.array((*images.mean((0, 1, 2)), images.std((1, 2)).mean())))
    return means


def test_light_follows_measured_renders() -> None:
    """Luminance order and tint of FineGPR's 14 conditions, as measured on its published figure."""
    with (GOLDEN / "photometry.csv").open() as stream:
        measured = {
            row["condition"].split("=")[1]: np.array([float(row[c]) for c in "RGB"])
            for row in csv.DictReader(stream)
            if row["set"] == "FineGPR render"
        }
    drawn = {name: np.mean(rows, axis=0) for name, rows in _means().items()}
    assert set(drawn) == set(measured)
    ours = [float(drawn[name][:3] @ LUMA) for name in measured]
    theirs = [float(colour @ LUMA) for colour in measured.values()]
    assert spearmanr(ours, theirs).statistic >= 0.9

    def warmth(colour: np.ndarray) -> float:
        return float(np.log(colour[0] / colour[2]))

    tint = spearmanr([warmth(drawn[name]) for name in measured], [warmth(colour) for colour in measured.values()])
    assert tint.statistic >= 0.75
    assert warmth(drawn["foggy"]) < -0.1 < 0.2 < warmth(drawn["dusk"])
    assert warmth(drawn["night"]) < -0.2
    # fog flattens, sun and snow do the opposite
    contrast = {name: values[3] for name, values in drawn.items()}
    assert contrast["foggy"] < 0.6 * contrast["clouds"] < 0.6 * contrast["sunny"]


def test_market_cameras_follow_measured_photos() -> None:
    with (GOLDEN / "photometry.csv").open() as stream:
        measured = [row for row in csv.DictReader(stream) if row["set"] == "Market-1501 photo"]
    people = [make_person(0, "minimarket", k) for k in range(1, 13)]
    for camera, (photo, row) in enumerate(zip(PHOTOS, measured, strict=True)):
        shots = [
            Shot(
                viewpoint=70.0 * k,
                weather=("clouds", "overcast", "sunny", "neutral")[k % 4],
                illumination=("forenoon", "noon", "afternoon")[k % 3],
                scene=("urban1", "urban4", "wild3")[k // 4],
                seed=(k, 4),
                scene_seed=5,
                heading=(60.0 * camera, 60.0 * camera + 40),
            )
            for k in range(12)
        ]
        images = render(people, shots, TARGET_RIG, height=128, width=64, photo=photo).images.astype(np.float32)
        assert images.mean((0, 1, 2)) == pytest.approx([float(row[c]) for c in "RGB"], abs=18)
        assert images.std((1, 2)).mean() == pytest.approx(np.mean([float(row[f"sd{c}"]) for c in "RGB"]), abs=14)
        saturation = ((images.max(3) - images.min(3)) / np.maximum(images.max(3), 1)).mean()
        assert saturation == pytest.approx(float(row["saturation"]), abs=0.1)


def test_a_low_sun_casts_a_long_shadow_and_an_overcast_sky_none() -> None:
    person = make_person(0, "minigpr", 8)
    dark = {}
    for weather in ("sunny", "overcast"):
        shot = replace(SHOT, weather=weather, illumination="noon", seed=(2,))
        image, mask, _ = one(person, shot, 128, 96)
        luma = image @ LUMA
        ground = luma[110:][~mask[110:]]
        dark[weather] = np.percentile(ground, 3) / np.median(ground)
    assert dark["sunny"] < 0.75 * dark["overcast"]


def test_scenes_differ_and_repeat() -> None:
    eye = SOURCE_RIG.eye
    thumbnails = [np.asarray(panorama(name, 0, eye).colour.resize((60, 16)), float) for name in SCENE.values]
    for i in range(len(thumbnails)):
        for j in range(i):
            assert np.abs(thumbnails[i] - thumbnails[j]).mean() > 6
    other = np.asarray(panorama("urban1", 1, eye).colour.resize((60, 16)), float)
    assert np.abs(other - thumbnails[0]).mean() > 3
    again = panorama.__wrapped__("urban1", 0, eye)
    assert np.array_equal(np.asarray(again.colour), np.asarray(panorama("urban1", 0, eye).colour))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="known scenes: urban1"):
        panorama("mars", 0, 1.3)
    with pytest.raises(InputError, match="weathers: sunny"):
        make_light("hail", "noon")
    with pytest.raises(InputError, match="no value 'pink'"):
        make_person(0, "minigpr", 1, PLAIN | {"upper_colour": "pink"})
    with pytest.raises(InputError, match="needs the attributes"):
        make_person(0, "minigpr", 1, {"gender": "male"})


def test_contact_sheet_is_small() -> None:
    data = contact_sheet()
    assert data[:2] == b"\xff\xd8"
    assert 50_000 < len(data) <= 300_000
