"""The verb ``weights``: which networks' ImageNet weights are here, and the commands that bring the others.

Its options stand here, since nothing heavy is imported before it runs.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from cluster.outputs import replacing
from cluster.progress import answer
from cluster.shared_options import Verb
from finegpr.errors import AostError, ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Weights(Verb):
    """Say which networks' ImageNet weights are here, and for each that is not, the command that brings it.

    Example: aost weights
    Example: aost weights resnet50 --fetch
    Example: aost weights resnet50 --convert resnet50-0676ba61.pth

    They are looked for in Python packages that hold them, then as NETWORK.safetensors in $AOST_WEIGHTS, by default
    ~/.cache/aost. Such a file may also be copied there from another machine. Nothing is downloaded without --fetch.
    """

    network: tyro.conf.Positional[str | None] = None
    """One network, such as vgg19, resnet50 or efficientnet_lite0; by default all."""
    fetch: bool = False
    """Download torchvision's weights of this network."""
    convert: Path | None = None
    """The published .pth of this network, to be read if its SHA-256 is right and written where it is looked for."""


def weights(verb: Weights) -> dict[str, Any]:
    from finegpr.measuring.networks import NETWORKS
    from finegpr.reid.backbones import MODELS
    from finegpr.weights import PACKAGES, TIMM, convert, fetch, imagenet_path

    networks = list(dict.fromkeys([*NETWORKS, *PACKAGES, *MODELS]))
    if verb.network is None:
        if verb.fetch or verb.convert is not None:
            raise ConfigError("of which network? as in `aost weights resnet50 --fetch`")
        return {"networks": [_told(network, strict=False) for network in networks]}
    network = verb.network
    if network not in networks and not network.startswith(TIMM):
        hint = did_you_mean(network, networks, otherwise=f"networks: {', '.join(networks)}")
        raise ConfigError(f"unknown network {network!r}; {hint}")
    if verb.fetch and verb.convert is not None:
        raise ConfigError("--fetch and --convert are two ways to the same file; give one of them")
    if verb.fetch or verb.convert is not None:
        with replacing(imagenet_path(network)):
            convert(network, verb.convert) if verb.convert is not None else fetch(network)
    return {"networks": [_told(network, strict=True)]}


def _told(network: str, *, strict: bool) -> dict[str, Any]:
    """What is known of one network's weights, which is said too. Damage is raised if ``strict``, else said."""
    from finegpr.weights import imagenet_file, missing, origin, ways

    told: dict[str, Any] = {"network": network, "here": False}
    try:
        if (found := imagenet_file(network)) is not None:
            path, digest = found
            told |= {"here": True, "path": str(path), "bytes": path.stat().st_size, "sha256": digest}
            told["source"] = origin(path, digest)
            answer(f"{network}: {path} ({told['bytes'] / 1e6:.1f} MB, sha256 {digest[:12]}, {told['source']})")
            return told
    except AostError as error:
        if strict:
            raise
        told["error"] = str(error)
        answer(f"{network}: {error}")
        return told
    if (how := ways(network)) is None:
        answer(f"{network}: {missing(network)}")
        return told
    answer(f"{network}: not here")
    answer(f"    with internet:      {how.with_internet}")
    answer(f"    with a copied file: {how.without_internet}")
    return told | asdict(how)
