from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from finegpr.catalog import Catalog
from finegpr.errors import InputError
from finegpr.reid.checkpoint import read_embedder
from finegpr.reid.config import TrainConfig
from finegpr.reid.evaluate import embed
from finegpr.reid.label_free import (
    MAX_PHOTOS,
    METRICS,
    MIN_PHOTOS,
    NUM_MUTUAL,
    NUM_NEAREST,
    is_labelled,
    label_free,
    score_photos,
    unlabelled_photos,
)
from finegpr.reid.train import fit


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_loops(features):
    """The same two numbers, photo by photo and pair by pair, from sorted lists."""
    num = len(features)
    similarity = [[float(a @ b) for b in features] for a in features]
    ranked = [sorted((j for j in range(num) if j != i), key=lambda j, i=i: (-similarity[i][j], j)) for i in range(num)]
    spreads = [np.std([similarity[i][j] for j in ranked[i][:NUM_NEAREST]]) for i in range(num)]
    pairs = [similarity[i][j] for i in range(num) for j in range(i)]
    mutual = sum(i in ranked[j][:NUM_MUTUAL] for i in range(num) for j in ranked[i][:NUM_MUTUAL])
    return np.mean(spreads) / np.std(pairs), mutual / (num * NUM_MUTUAL)


def test_people_apart_in_closed_form():
    found = label_free(np.repeat(np.eye(12), 6, axis=0))
    # Of 20 nearest, 5 are the person's others at similarity 1 and 15 are strangers at 0; so are 5 and 66 of all 71.
    assert found.spread == pytest.approx(np.sqrt(5 * 15) / 20 / (np.sqrt(5 * 66) / 71))
    assert found.reciprocity == 1
    assert found.score == found.spread
    assert found.metrics() == dict(zip(METRICS, (found.score, found.spread, 1, 72), strict=True))


@pytest.mark.parametrize("dimension", [2, 3, 16])
def test_equals_loops_over_pairs_in_any_rotation_and_order(dimension):
    random = np.random.default_rng(dimension)
    features = unit(random.normal(size=(60, dimension)) * np.linspace(0.5, 2, dimension) + 0.5)
    found = label_free(features)
    assert (found.spread, found.reciprocity) == pytest.approx(by_loops(features))
    assert 0 < found.reciprocity < 1
    rotation, _ = np.linalg.qr(random.normal(size=(dimension, dimension)))
    moved = label_free((features @ rotation)[random.permutation(60)])
    assert (moved.spread, moved.reciprocity) == pytest.approx((found.spread, found.reciprocity))


def test_a_hub_that_is_near_to_all_is_not_mutual():
    around = unit(np.c_[np.eye(50), np.full(50, 2.0)])
    hub = unit(np.r_[np.zeros(50), 1.0][None])
    # All hold the hub, then the first 4 of their equals, which are tied. The first 5 and the hub hold one another.
    assert label_free(np.r_[around, hub]).reciprocity == 6 * 5 / (51 * 5)


def test_across_cameras():
    random = np.random.default_rng(1)
    features, cameras = unit(random.normal(size=(60, 3)) + 0.5), random.integers(1, 4, 60)
    similarity = features @ features.T

    def nearest(photo, camera):
        return max(np.flatnonzero(cameras == camera), key=lambda other: similarity[photo, other])

    asked = [(photo, camera) for photo in range(60) for camera in {1, 2, 3} - {cameras[photo]}]
    mutual = [nearest(nearest(photo, camera), cameras[photo]) == photo for photo, camera in asked]
    found = label_free(features, cameras)
    assert found.reciprocity == pytest.approx(np.mean(mutual))
    alone = label_free(features)
    assert found.spread == alone.spread
    assert found.reciprocity != alone.reciprocity
    one_unknown = np.where(np.arange(60) == 7, 0, cameras)
    assert label_free(features, one_unknown) == label_free(features, np.ones(60, dtype=int)) == alone


def test_falls_as_people_are_confused():
    random = np.random.default_rng(0)
    people, noise = np.repeat(random.normal(size=(40, 32)), 5, axis=0), random.normal(size=(200, 32))
    scores = [label_free(unit(people + amount * noise)).score for amount in (0.3, 0.6, 1.0, 1.5, 2.5)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 3 * scores[-1]


def test_what_cannot_be_scored():
    alike = np.tile(unit(np.ones((1, 8), dtype=np.float32)), (MIN_PHOTOS, 1))
    assert label_free(alike).score == 0
    with pytest.raises(InputError, match=f"{MIN_PHOTOS} photos or more"):
        label_free(alike[1:])
    alike[3, 3] = np.nan
    with pytest.raises(InputError, match="did the training diverge"):
        label_free(alike)


# ---- networks and catalogs


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Market-1501 layout: 8 people with 6 photos each to train on, 2 others as query and gallery."""
    root, random = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    for part, people, frames in (("bounding_box_train", range(1, 9), 6), ("query", (9, 10), 1)):
        for person in people:
            for frame in range(frames):
                colours = np.random.default_rng(person).integers(40, 200, (2, 1, 3)) + random.integers(0, 50, (2, 1, 3))
                path = root / part / f"{person:04d}_c{1 + frame % 3}s1_{frame:06d}_00.jpg"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(np.repeat(np.tile(colours, (1, 16, 1)), 16, axis=0).astype(np.uint8)).save(path)
    return Catalog.index(root, layout="market1501")


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    config = TrainConfig(
        model="small", weights="random", height=64, width=32, loss="softmax", batch_size=16, epochs=2,
        learning_rate=1e-2, milestones=(0.7,), device="cpu", validate_epochs=1,
    )  # fmt: skip
    photos = world.part("train")
    return config, fit(config, photos, validation=photos, output=tmp_path_factory.mktemp("trained"), seed=0)


def test_fit_scores_photos_that_have_no_labels(world, trained):
    _, fitted = trained
    first, last = (epoch.metrics for epoch in fitted.history)
    assert tuple(last) == METRICS
    assert last["num_photos"] == 48
    assert last["label_free"] == last["spread"] * last["reciprocity"] > 0
    assert first != last
    embedder = read_embedder(fitted.checkpoint)
    features, _, _ = embed(embedder, world.part("train"), images=None, batch_size=7, flip=False)
    cameras = world.part("train").frame["camera"].to_numpy()
    assert last == pytest.approx(label_free(features, cameras).metrics(), rel=1e-4)
    assert last != pytest.approx(label_free(features).metrics(), rel=1e-4)


def test_neither_identities_nor_other_parts_are_looked_at(world, trained, tmp_path):
    config, fitted = trained
    photos = world.part("train")
    frame = photos.frame.assign(identity=np.arange(1, 49))
    blind = fit(config, photos, validation=replace(photos, frame=frame), output=tmp_path, seed=0)
    assert blind.history == fitted.history
    embedder = read_embedder(fitted.checkpoint)
    assert score_photos(embedder, world, images=None) == score_photos(embedder, photos, images=None)
    assert is_labelled(world)
    assert not is_labelled(photos)


def test_a_folder_of_photos_is_scored(world, trained):
    embedder = read_embedder(trained[1].checkpoint)
    folder = Catalog.index(world.root / "bounding_box_train", layout="folder")
    assert not is_labelled(folder)
    features, _, _ = embed(embedder, folder, images=None, batch_size=256, flip=False)
    assert score_photos(embedder, folder, images=None) == label_free(features)


def test_of_a_large_target_the_same_photos_are_taken(world):
    photos = world.part("train")
    large = photos.take(np.arange(3 * MAX_PHOTOS) % len(photos))
    large = replace(large, frame=large.frame.assign(camera=np.arange(3 * MAX_PHOTOS)))
    taken = unlabelled_photos(large).frame["camera"].to_numpy()
    assert len(np.unique(taken)) == MAX_PHOTOS
    assert (np.diff(taken) > 0).all()
    assert abs(taken.mean() / (1.5 * MAX_PHOTOS) - 1) < 0.1
    np.testing.assert_array_equal(taken, unlabelled_photos(large).frame["camera"])
    assert len(unlabelled_photos(world)) == 48
