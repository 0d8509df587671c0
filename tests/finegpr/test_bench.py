"""The benchmark's CPU form, at a tiny size."""

import numpy as np
import pytest
import torch

from finegpr.errors import AostError
from finegpr.measuring.bench import main, narrowed, operations, weights_of
from finegpr.measuring.networks import load_network
from finegpr.measuring.networks.vgg19 import VGG19
from finegpr.weights import find_weights

TINY = ["--height", "32", "--width", "32", "--files", "16", "--images", "20", "--rounds", "1", "--network", "cheap"]


def figures(text: str, label: str) -> list[float]:
    (line,) = (line for line in text.splitlines() if line.strip().startswith(label))
    return [float(word.rstrip("%,;")) for word in line.split(label)[1].split() if word[0].isdigit()]


def test_every_figure_is_there_and_a_missing_gpu_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "--precision", "bf16"])
    said = capsys.readouterr().out
    if not torch.cuda.is_available():
        assert "no GPU here: the network ran on the CPU" in said.splitlines()[0]
    whole = figures(said, "whole, from JPEG files:")[0]
    bare, share = figures(said, "bare network, resident images:")[0], figures(said, "whole / bare:")[0]
    assert min(whole, figures(said, "decoding alone:")[0]) > 0
    assert share == pytest.approx(100 * whole / bare, abs=100 * 0.1 / bare + 0.1)
    assert figures(said, "arithmetic:")[0] == 0.03
    for stage in ("decode", "resize", "copy", "network", "statistics", "projection", "distances", "write"):
        assert figures(said, stage)[0] >= 0
    errors = [figures(said, label) for label in ("median relative error", "Spearman of the ranks")]
    assert [len(each) for each in errors] == [6, 6]
    assert 1e-6 < min(errors[0]) < max(errors[0]) < 0.1
    assert min(errors[1]) > 0.9


def test_the_cheap_network_has_the_same_layers_and_far_less_work() -> None:
    full, cheap = (VGG19(weights_of(name)) for name in ("vgg19", "cheap"))
    assert [type(layer) for layer in full.features] == [type(layer) for layer in cheap.features]
    assert 25 < operations(full, height=64, width=32) / operations(cheap, height=64, width=32) < 30
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert [vector.shape[1] for vector in cheap(images)] == [
        filters * (filters + 1) // 2 for filters in (12, 24, 48, 96, 96)
    ] + [96 * 16]


def test_operations_are_those_of_the_convolutions() -> None:
    """relu1_1 alone: 2 x 27 x 64 a pixel; 23.7 GFLOP for the default size, as 13 convolutions at four scales give."""
    channels = [(3, 64), (64, 64)], [(64, 128), (128, 128)], [(128, 256)] + 3 * [(256, 256)]
    deep = [(256, 512)] + 3 * [(512, 512)], [(512, 512)]
    expected = sum(
        2 * 9 * a * b * 256 * 128 // 4**scale for scale, layers in enumerate((*channels, *deep)) for a, b in layers
    )
    assert operations(VGG19(load_network(find_weights("vgg19", "random", seed=0))), height=256, width=128) == expected


def test_narrowed_weights_are_seeded() -> None:
    first, again, other = narrowed(16), narrowed(16), narrowed(16, seed=1)
    assert torch.equal(first.state["5.weight"], again.state["5.weight"])
    assert first.sha256 == again.sha256 != other.sha256
    assert np.prod(first.state["28.weight"].shape) == 32 * 32 * 9


def test_wrong_settings_end_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--network", "resnet"])
    assert "invalid choice" in capsys.readouterr().err
    with pytest.raises((AostError, ValueError), match="height"):
        main(["--height", "8"])
