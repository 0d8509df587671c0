"""EfficientNet-Lite: the published network's numbers, its names, and the folded form that computes the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from finegpr.efficientnet import NETWORKS, build, by_timms_names
from finegpr.folding import StridedSame, folded
from finegpr.weights import find_weights, read_state

GOLDEN = Path(__file__).parents[1] / "golden" / "efficientnet_lite0.npz"
SIZES = [(64, 32), (65, 33), (97, 64), (32, 1)]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {
        key: torch.from_numpy(array)
        for key, array in read_state(find_weights("efficientnet_lite0", "imagenet")).items()
    }


@pytest.fixture(scope="module")
def network(state: dict[str, torch.Tensor]) -> nn.Module:
    network = build("efficientnet_lite0")
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    return network.eval()


@pytest.mark.parametrize("form", ["as built", "folded"])
def test_logits_are_those_of_the_package_that_the_weights_were_published_for(
    form: str, state: dict[str, torch.Tensor], network: nn.Module
) -> None:
    """The golden logits are efficientnet_lite_pytorch 0.1.0's, with the weights of the data package, on this noise."""
    noise = np.random.RandomState(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        pooled = (network if form == "as built" else folded(network))(torch.from_numpy(noise))
        logits = pooled @ state["classifier.weight"].T + state["classifier.bias"]
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(logits.numpy(), golden["logits"], atol=1e-4, rtol=0)


def test_folding_leaves_the_maps_as_they_are_at_even_and_odd_sizes(network: nn.Module) -> None:
    fast = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert sum(isinstance(module, StridedSame) for module in fast.modules()) == 5
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    for height, width in SIZES:
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            expected, got = (each.forward_features(images) for each in (network, fast))  # type: ignore[operator]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_strided_same_is_a_convolution_of_the_padded_input(kernel: int, height: int, width: int) -> None:
    """TensorFlow pads so that the output has ceil(side / 2); what is odd of that comes after the image."""
    generator = torch.Generator().manual_seed(kernel)
    conv = nn.Conv2d(4, 4, kernel, stride=2, groups=4)
    images = torch.randn(2, 4, height, width, generator=generator)
    pads = []
    for side in (width, height):
        total = max((-(-side // 2) - 1) * 2 + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    torch.testing.assert_close(StridedSame(conv)(images), conv(nn.functional.pad(images, pads)))


@pytest.mark.parametrize("name", NETWORKS)
def test_names_of_every_network_are_translated(name: str) -> None:
    """From a state by the package's names, made here of timm's, blocks numbered through."""
    with torch.device("meta"):
        built = build(name)
    wanted = {key: np.zeros(value.shape, np.float32) for key, value in built.state_dict().items()}
    assert by_timms_names(wanted).keys() == wanted.keys()
    theirs, number = {}, -1
    for stage in built.blocks:  # type: ignore[union-attr]
        for block in stage:
            number += 1
            parts = ["_expand_conv", "_bn0"] if hasattr(block, "conv_pwl") else []
            parts += ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
            for part, (_, module) in zip(
                parts, [each for each in block.named_children() if list(each[1].parameters())], strict=True
            ):
                theirs |= {f"_blocks.{number}.{part}.{key}": value for key, value in module.state_dict().items()}
    for part, module in {"_conv_stem": built.conv_stem, "_bn0": built.bn1}.items():
        theirs |= {f"{part}.{key}": value for key, value in module.state_dict().items()}
    for part, module in {"_conv_head": built.conv_head, "_bn1": built.bn2}.items():
        theirs |= {f"{part}.{key}": value for key, value in module.state_dict().items()}
    arrays = {key: np.zeros(value.shape, np.float32) for key, value in theirs.items()}
    got = by_timms_names(arrays)
    assert {key: array.shape for key, array in got.items()} == {key: array.shape for key, array in wanted.items()}
