import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.numpy import save_file

from finegpr.catalog import Catalog
from finegpr.errors import AostError, ConfigError, InputError, StateError
from finegpr.reid.ahead import ahead
from finegpr.reid.checkpoint import read_checkpoint, read_embedder, write_checkpoint
from finegpr.reid.config import TrainConfig
from finegpr.reid.data import ImageStore, open_pixels
from finegpr.reid.distributed import Ranks
from finegpr.reid.evaluate import evaluate_checkpoint
from finegpr.reid.losses import LOSSES
from finegpr.reid.model import load_weights
from finegpr.reid.recipes import recipe
from finegpr.reid.sampler import identity_batches, share, shuffled_batches
from finegpr.reid.train import Diverged, fit
from finegpr.weights import find_weights

TINY = {"model": "small", "weights": "random", "height": 64, "width": 32, "loss": "softmax", "batch_size": 16}
TINY |= {"epochs": 3, "learning_rate": 1e-2, "milestones": (0.7,), "device": "cpu"}


def config(**changes):
    return TrainConfig(**(TINY | changes))


def draw(path, identity, camera, generator):
    """A person is a pair of colours, seen a little differently each time; a camera is a brightness."""
    colours = np.random.default_rng(identity).integers(40, 256, (2, 3)) + generator.normal(0, 35, (2, 3))
    pixels = np.empty((32, 16, 3))
    pixels[:16], pixels[16:] = colours * (1 - 0.1 * camera)
    noisy = (pixels + generator.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noisy).save(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Market-1501 layout: 8 people to train on, 6 others as query and gallery, 3 cameras."""
    root = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(0)
    for identity in range(1, 15):
        parts = ["bounding_box_train"] if identity <= 8 else ["query", "bounding_box_test"]
        for part in parts:
            for camera in (1, 2, 3):
                for frame in range(1 if part == "query" else 2):
                    name = f"{identity:04d}_c{camera}s1_{frame:06d}_00.jpg"
                    draw(root / part / name, identity, camera, generator)
    return Catalog.index(root, layout="market1501")


@pytest.fixture(scope="module")
def train(world):
    return world.part("train")


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    return fit(config(epochs=12), world.part("train"), validation=world.part("query", "gallery"), output=output, seed=0)


def test_learns_and_validates_at_the_end(world, trained):
    first, last = trained.history[0], trained.history[-1]
    assert last.loss < 0.5 * first.loss
    assert last.accuracy > 0.9
    assert (last.epoch, last.step) == (12, 36)
    assert last.learning_rate == pytest.approx(1e-3)
    assert first.metrics is None
    assert last.metrics["mAP"] > 0.5
    assert (trained.num_images, trained.num_identities, trained.device) == (48, 8, "cpu")
    assert trained.weights == "small, random weights"
    again = evaluate_checkpoint(trained.checkpoint, world.part("query"), world.part("gallery"), device="cpu")
    assert again.metrics == last.metrics


def test_flip_and_reranking_change_the_ranking_and_metrics_are_written(world, trained, tmp_path):
    query, gallery = world.part("query"), world.part("gallery")
    plain = evaluate_checkpoint(trained.checkpoint, query, gallery, device="cpu", batch_size=7)
    flipped = evaluate_checkpoint(trained.checkpoint, query, gallery, device="cpu", flip_test=True)
    reranked = evaluate_checkpoint(trained.checkpoint, query, gallery, device="cpu", rerank=True)
    for other in (flipped, reranked):
        assert not np.array_equal(plain.ranking.average_precision, other.ranking.average_precision)
        assert other.metrics["mAP"] > 0.5
    plain.write(tmp_path / "metrics.json")
    assert '"num_gallery": 36' in (tmp_path / "metrics.json").read_text()


def test_same_seed_same_history_and_bytes(train, tmp_path):
    results = [fit(config(), train, output=tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    files = [result.checkpoint.read_bytes() for result in results]
    assert results[0].history == results[1].history
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_the_global_random_state_is_left_alone(train, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(config(epochs=1), train, output=tmp_path, seed=0)
    assert torch.rand(1) == expected


def test_a_fixed_number_of_steps_ends_inside_an_epoch(train, tmp_path):
    result = fit(config(epochs=None, steps=7), train, output=tmp_path, seed=0)
    assert [epoch.step for epoch in result.history] == [3, 6, 7]


class _InterruptedError(Exception):
    pass


def interrupt_after(epoch):
    def report(record):
        if record.epoch == epoch:
            raise _InterruptedError

    return report


@pytest.mark.parametrize("loss", ["softmax", *(f"softmax+{name}" for name in LOSSES if name != "softmax")])
def test_an_interrupted_training_ends_with_the_same_bytes(train, tmp_path, loss):
    settings = config(loss=loss, epochs=4)
    whole = fit(settings, train, output=tmp_path / "whole", seed=3)
    with pytest.raises(_InterruptedError):
        fit(settings, train, output=tmp_path / "cut", seed=3, report=interrupt_after(3))
    seen = []
    resumed = fit(settings, train, output=tmp_path / "cut", seed=3, report=seen.append)
    assert [record.epoch for record in seen] == [3, 4]  # two epochs were saved
    assert resumed.history == whole.history
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["model.safetensors"]


def test_a_finished_training_is_not_repeated(train, tmp_path):
    first = fit(config(), train, output=tmp_path, seed=0)
    again = fit(config(save_seconds=9), train, output=tmp_path, seed=0, report=interrupt_after(1))
    assert (again.checkpoint, again.history) == (first.checkpoint, first.history)
    (tmp_path / "previous.safetensors").touch()  # what could not be dropped then is dropped now
    fit(config(), train, output=tmp_path, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(StateError, match=r"learning_rate 0.01 -> 0.02.*another output"):
        fit(config(learning_rate=0.02), train, output=tmp_path, seed=0)
    with pytest.raises(StateError, match="seed 0 -> 1"):
        fit(config(), train, output=tmp_path, seed=1)


def test_a_damaged_state_falls_back_to_the_one_before(train, tmp_path, caplog):
    whole = fit(config(epochs=4), train, output=tmp_path / "whole", seed=3)
    cut = tmp_path / "cut"
    with pytest.raises(_InterruptedError):
        fit(config(epochs=4), train, output=cut, seed=3, report=interrupt_after(4))
    last = cut / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-1000])
    seen = []
    with caplog.at_level(logging.WARNING):
        resumed = fit(config(epochs=4), train, output=cut, seed=3, report=seen.append)
    assert "last.safetensors is damaged" in caplog.text
    assert [record.epoch for record in seen] == [3, 4]
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_no_whole_state_is_an_error(train, tmp_path):
    with pytest.raises(_InterruptedError):
        fit(config(), train, output=tmp_path, seed=3, report=interrupt_after(2))
    last = tmp_path / "last.safetensors"
    data = bytearray(last.read_bytes())
    data[-5] ^= 1  # one flipped bit in a tensor
    last.write_bytes(data)
    with pytest.raises(StateError, match="no whole training state"):
        fit(config(), train, output=tmp_path, seed=3)


def test_divergence_is_told(train, tmp_path):
    with pytest.raises(Diverged, match="learning rate 1e\\+30"):
        fit(config(learning_rate=1e30, epochs=None, steps=30), train, output=tmp_path, seed=0)
    assert not (tmp_path / "model.safetensors").exists()


def test_too_few_identities_or_images(train, tmp_path):
    identity = train.frame["identity"].to_numpy()
    with pytest.raises(InputError, match="at least 2 identities, got 1 in 6 images"):
        fit(config(), train.take(np.flatnonzero(identity == 3)), output=tmp_path, seed=0)
    one_each = train.take(np.unique(identity, return_index=True)[1])
    with pytest.raises(InputError, match="8 identities, 0 of them with 2 images"):
        fit(config(loss="softmax+triplet"), one_each, output=tmp_path, seed=0)


def test_cuda_asked_for_and_absent_is_a_config_error(train, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device cuda was asked for"):
        fit(config(device="cuda"), train, output=tmp_path, seed=0)
    assert fit(config(device="auto", epochs=1), train, output=tmp_path, seed=0).device == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, "either epochs or steps"),
        ({"loss": "softmax+arc"}, "no loss 'arc'"),
        ({"loss": "triplet"}, "should contain softmax"),
        ({"model": "vit"}, "known models"),
        ({"height": 32}, "needs a height of at least 64"),
        ({"milestones": (1.5,)}, "fractions"),
        ({"loss": "softmax+triplet", "batch_size": 18}, "multiple of per_identity"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_recipes():
    paper = recipe("paper")
    assert [paper.rate(epoch, 120) for epoch in (0, 39, 40, 69, 70, 119)] == pytest.approx(
        [3.5e-4, 3.5e-4, 3.5e-5, 3.5e-5, 3.5e-6, 3.5e-6]
    )
    assert (paper.model, paper.height, paper.width, paper.batch_size) == ("resnet50", 256, 128, 128)
    with pytest.raises(ConfigError, match="known recipes: paper, quick, seconds"):
        recipe("fast")


# ---- images


def copy_with_bad(train, root, names):
    for path in train.frame["path"]:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"<html>" if path in names else (train.root / path).read_bytes())
    return Catalog.index(root, layout="market1501")


def test_memory_store_and_streams_give_the_same_training(train, tmp_path):
    bad = list(train.frame["path"][[5, 20]])
    catalog = copy_with_bad(train, tmp_path / "images", bad)
    store = ImageStore.create(tmp_path / "store", [catalog], height=64, width=32)
    cached = fit(config(), catalog, output=tmp_path / "cached", seed=0)
    stored = fit(config(), catalog, output=tmp_path / "stored", seed=0, images=ImageStore.open(store.folder))
    assert cached.checkpoint.read_bytes() == stored.checkpoint.read_bytes()
    assert cached.quarantined == tuple((path, "unidentified") for path in sorted(bad))
    assert cached.num_images == 46
    for workers in (0, 2):
        settings = config(cache_bytes=0, workers=workers)
        streamed = fit(settings, catalog, output=tmp_path / f"streamed{workers}", seed=0)
        assert streamed.quarantined == cached.quarantined
        assert streamed.checkpoint.read_bytes() == cached.checkpoint.read_bytes()


def test_a_resumed_training_leaves_out_the_images_it_began_without(train, tmp_path):
    bad = list(train.frame["path"][[5, 20]])
    catalog = copy_with_bad(train, tmp_path / "images", bad)
    for name, cache_bytes in (("cached", 1 << 20), ("streamed", 0)):
        settings = config(cache_bytes=cache_bytes, workers=1)
        whole = fit(settings, catalog, output=tmp_path / name / "whole", seed=0)
        with pytest.raises(_InterruptedError):
            fit(settings, catalog, output=tmp_path / name / "cut", seed=0, report=interrupt_after(2))
        broken = catalog.root / bad[0]
        broken.write_bytes((train.root / bad[0]).read_bytes())  # repaired meanwhile
        good = catalog.file_paths()[0]
        before = good.read_bytes()
        good.write_bytes(b"<html>")
        with pytest.raises(InputError, match=r"was good when this training began, and is bad now \(unidentified\)"):
            fit(settings, catalog, output=tmp_path / name / "cut", seed=0)
        good.write_bytes(before)
        resumed = fit(settings, catalog, output=tmp_path / name / "cut", seed=0)
        assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
        assert [path for path, _ in resumed.quarantined] == sorted(bad)
        broken.write_bytes(b"<html>")


def test_streaming_without_bad_images_equals_memory_whatever_the_workers(train, tmp_path):
    cached = fit(config(), train, output=tmp_path / "cached", seed=0)
    for workers in (None, 0, 1, 3):
        settings = config(cache_bytes=0, workers=workers)
        streamed = fit(settings, train, output=tmp_path / f"streamed {workers}", seed=0)
        assert cached.checkpoint.read_bytes() == streamed.checkpoint.read_bytes()


def _ends_its_process(rows):
    if rows[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if rows[0] == 2:
        raise InputError("one line")
    return rows


def test_what_goes_wrong_in_a_decoding_process_is_one_line():
    with pytest.raises(InputError, match=r"^one line$"):
        list(ahead(_ends_its_process, [np.array([0]), np.array([2])], workers=1))
    with pytest.raises(AostError, match="ended from outside.*choose fewer with train.workers"):
        list(ahead(_ends_its_process, [np.array([0]), np.array([1])], workers=1))


def test_too_many_bad_images_stop_training_and_evaluation(train, trained, tmp_path):
    catalog = copy_with_bad(train, tmp_path / "images", list(train.frame["path"][:6]))
    for cache_bytes in (0, 1 << 20):
        with pytest.raises(InputError, match="of 48 images"):
            fit(config(cache_bytes=cache_bytes), catalog, output=tmp_path / "out", seed=0)
    with pytest.raises(InputError, match="6 of 48 images"):
        evaluate_checkpoint(trained.checkpoint, catalog, catalog, device="cpu")


def test_a_store_is_kept_until_a_file_changes(train, tmp_path):
    catalog = copy_with_bad(train, tmp_path / "images", [])
    store = ImageStore.create(tmp_path / "store", [catalog], height=64, width=32)
    written = (store.folder / "pixels.npy").stat().st_mtime_ns
    ImageStore.create(tmp_path / "store", [catalog], height=64, width=32)
    assert (store.folder / "pixels.npy").stat().st_mtime_ns == written
    changed = catalog.file_paths()[0]
    Image.new("RGB", (16, 32), "white").save(changed)
    again = ImageStore.create(tmp_path / "store", [catalog], height=64, width=32)
    assert (store.folder / "pixels.npy").stat().st_mtime_ns != written
    assert again.pixels[0].min() == 255
    with pytest.raises(StateError, match="lacks"):
        open_pixels(train, height=64, width=32, images=again, cache_bytes=0)
    with pytest.raises(StateError, match="holds 64x32 pixels, expected 32x16"):
        open_pixels(catalog, height=32, width=16, images=again, cache_bytes=0)
    (store.folder / "pixels.npy").write_bytes(b"\x93NUMPY damaged")
    with pytest.raises(StateError, match=r"pixels\.npy"):
        ImageStore.open(store.folder)


def test_images_of_nobody_are_refused(world, tmp_path):
    frame = world.part("train").frame.copy()
    frame.loc[3, "identity"] = 0
    nobody = Catalog(frame=frame, root=world.root, title="t", layout="folder", attributes=(), rejected=world.rejected)
    with pytest.raises(InputError, match="1 of 48 training images show nobody"):
        fit(config(), nobody, output=tmp_path, seed=0)


# ---- weights and checkpoints


def test_weights_from_a_checkpoint_and_of_another_net(trained, train, tmp_path):
    started = fit(config(weights=str(trained.checkpoint), epochs=1), train, output=tmp_path / "out", seed=9)
    assert started.weights.startswith("small, model.safetensors weights (sha256")
    assert started.history[0].loss < trained.history[0].loss
    with pytest.raises(InputError, match="is not a resnet18: conv1.weight is missing"):
        load_weights(find_weights("resnet18", str(trained.checkpoint)))
    save_file({"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"expected finite floats of shape \(64, 3, 7, 7\)"):
        load_weights(find_weights("resnet18", str(tmp_path / "other.safetensors")))
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_weights(find_weights("small", str(tmp_path / "pickle.pth")))


def test_weights_are_checked_by_shape_kind_and_value(trained, tmp_path):
    whole = safetensors.torch.load_file(trained.checkpoint)
    path = tmp_path / "w.safetensors"

    def load(tensors):
        safetensors.torch.save_file(tensors, path)
        return load_weights(find_weights("small", str(path)))

    name = next(key for key in whole if key.startswith("backbone.") and whole[key].dim() == 4)
    weight = whole[name]
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        loaded = load(whole | {name: weight.to(dtype)})
        assert torch.equal(loaded[name.removeprefix("backbone.")], weight.to(dtype).float())
    broken = weight.clone()
    broken[0, 0, 0, 0] = torch.nan
    for other, message in [
        (weight.permute(1, 0, 2, 3).contiguous(), "expected finite floats of shape"),
        (weight.flatten(), "expected finite floats of shape"),
        (weight.to(torch.int32), "is int32"),
        (broken, "with NaN, infinity"),
        (broken.bfloat16(), "with NaN, infinity"),
        (weight.double() + 1e300, "a number that float32 cannot hold"),
        (torch.zeros(1, dtype=torch.complex64), "holds numbers of type C64"),
        (weight.to(torch.float8_e4m3fn), "holds numbers of type F8_E4M3, which are not read; convert it"),
    ]:
        with pytest.raises(InputError, match=message):
            load(whole | {name: other})
    bare = {key.removeprefix("backbone."): value for key, value in whole.items() if key.startswith("backbone.")}
    assert load(bare) is not None
    with pytest.raises(InputError, match=r"all its names begin with 'module\.'"):
        load({f"module.{key}": value for key, value in bare.items()})
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 574673361\n")
    with pytest.raises(InputError, match="a pointer of Git LFS"):
        load_weights(find_weights("small", str(path)))


def test_a_resnet_trains(train, tmp_path):
    result = fit(
        config(model="resnet18", height=32, width=16, batch_size=4, epochs=None, steps=1),
        train,
        output=tmp_path,
        seed=0,
    )
    embedder = read_embedder(result.checkpoint).eval()
    assert embedder(torch.zeros(2, 3, 32, 16, dtype=torch.uint8)).shape == (2, 512)


def test_a_checkpoint_knows_its_digest(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, {"a": torch.arange(6.0)}, {"x": 1})
    arrays, facts = read_checkpoint(path)
    np.testing.assert_array_equal(arrays["a"], np.arange(6))
    assert facts == {"x": 1}
    data = path.read_bytes()
    for place in (-1, data.index(b"facts") + 12):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises((StateError, InputError)):
            read_checkpoint(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(InputError, match="not a re-ID checkpoint"):
        read_embedder(path)


# ---- sampler


def test_an_epoch_has_every_image_once_and_depends_on_seed_and_epoch():
    batches = shuffled_batches(50, batch_size=16, seed=1)
    rows = np.concatenate(list(batches(0)))
    assert len(set(rows)) == 48
    np.testing.assert_array_equal(rows, np.concatenate(list(batches(0))))
    assert not np.array_equal(rows, np.concatenate(list(batches(1))))
    assert [len(batch) for batch in shuffled_batches(5, batch_size=16, seed=1)(0)] == [16]


def test_identity_batches_are_p_times_k():
    labels = np.repeat(np.arange(7), [9, 1, 4, 6, 8, 12, 4])
    for batch in identity_batches(labels, batch_size=12, per_identity=4, seed=0)(3):
        groups = labels[batch].reshape(3, 4)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == 3
        for group, label in zip(batch.reshape(3, 4), groups[:, 0], strict=True):
            assert len(set(group)) == min(4, (labels == label).sum())


def test_shares_put_together_are_the_batch():
    batch = np.arange(24)
    parts = [share(batch, rank=rank, num_ranks=3) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), batch)


# ---- several processes


def _fit_in_group(rank, num_ranks, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_ranks)
    catalog = Catalog.read(folder / "catalog.parquet")
    reports = []
    result = fit(
        config(epochs=4, batch_size=32, learning_rate=1e-3),
        catalog.part("train"),
        validation=catalog.part("query", "gallery"),
        output=folder / "group",
        seed=0,
        report=reports.append,
    )
    assert result.checkpoint.exists()
    assert len(reports) == 4
    streamed = fit(
        config(epochs=1, batch_size=32, cache_bytes=0, workers=1),
        Catalog.read(folder / "bad.parquet"),
        output=folder / "bad",
        seed=0,
    )
    assert len(streamed.quarantined) == 2
    np.save(folder / f"history{rank}.npy", [[epoch.loss, epoch.accuracy] for epoch in reports])
    np.save(folder / f"metrics{rank}.npy", list(reports[-1].metrics.values()))
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(world, tmp_path):
    world.write(tmp_path / "catalog.parquet")
    settings = config(epochs=4, batch_size=32, learning_rate=1e-3)
    single = fit(settings, world.part("train"), output=tmp_path / "single", seed=0)
    bad = copy_with_bad(world.part("train"), tmp_path / "images", list(world.part("train").frame["path"][[5, 20]]))
    bad.write(tmp_path / "bad.parquet")
    # This file is the program of each process: a test module cannot be imported by name.
    group = [subprocess.Popen([sys.executable, __file__, str(rank), "2", str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=200) for process in group] == [0, 0]
    histories = [np.load(tmp_path / f"history{rank}.npy") for rank in range(2)]
    np.testing.assert_array_equal(*histories)
    np.testing.assert_array_equal(*(np.load(tmp_path / f"metrics{rank}.npy") for rank in range(2)))
    # Not equal: each process normalises over its own half of a batch.
    np.testing.assert_allclose(histories[0][:, 0], [epoch.loss for epoch in single.history], rtol=0.1)
    assert Path(tmp_path / "group" / "model.safetensors").exists()


def test_a_batch_that_cannot_be_shared_is_a_config_error(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "current", lambda: Ranks(rank=0, num_ranks=3))
    with pytest.raises(ConfigError, match="batch_size 16 cannot be shared evenly by 3"):
        fit(config(), train, output=tmp_path, seed=0)
    monkeypatch.setattr(Ranks, "current", lambda: Ranks(rank=0, num_ranks=4))
    with pytest.raises(ConfigError, match="each with 2 or more identities of 4 images"):
        fit(config(loss="softmax+triplet"), train, output=tmp_path, seed=0)


if __name__ == "__main__":
    _fit_in_group(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
