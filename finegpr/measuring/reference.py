"""The reference of a measurement: the basis of the sketches and the statistics of every target, fitted once."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finegpr import storage
from finegpr.arrays import Floats, Ints, Singles
from finegpr.atomic import withdraw
from finegpr.catalog import Catalog
from finegpr.contents import Contents, look
from finegpr.errors import InputError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.files import (
    FORMAT,
    REFERENCE,
    REFERENCE_MARKER,
    SUMMARY,
    basis_contents,
    read_record,
    read_verified,
    terms_of,
)
from finegpr.measuring.freshness import photos_key
from finegpr.measuring.networks import NETWORKS, load_network
from finegpr.measuring.networks.base import Extractor, LoadedWeights
from finegpr.measuring.sketch import Basis, fit_basis
from finegpr.object_stores import AnyPath
from finegpr.pixels.allocator import give_back_freed_blocks, keep_freed_blocks
from finegpr.pixels.decode import check_quarantine
from finegpr.pixels.prefetch import Decoder
from finegpr.pixels.transfer import on_device
from finegpr.weights import Weights

LEAST_UNCHANGED = 0.5
"""The basis of the sketches stays while so many of the images it was fitted on hold what they did then: it need not be
theirs, and a new one would have every image measured anew. Of a fresh measurement's, coordinates and median differ."""


@dataclass(frozen=True, kw_only=True)
class TargetStatistics:
    """One target of m images: per term the mean vector and mean_j |v_j - mean|^2, and its sketch (m, S)."""

    mean: tuple[Tensor, ...]
    constant: Floats
    sketch: Singles


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What every image is measured against.

    ``settings`` are those it was fitted with; ``hash`` identifies its inputs and the fitted numbers.
    """

    bases: tuple[Basis, ...]
    targets: Mapping[str, TargetStatistics]
    settings: Mapping[str, Any]
    hash: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Vectors per term of the readable images; ``positions`` (k,) in the list of paths, and position, reason of bad."""

    positions: Ints
    vectors: list[Tensor]
    bad: list[tuple[int, str]]


def read_batches(network: Extractor, paths: Sequence[AnyPath], config: MeasureConfig) -> Iterator[Batch]:
    """Decode, resize and push images through the network, ``batch_size`` at a time."""
    with Decoder(
        height=config.height, width=config.width, batch_size=config.batch_size, device=network.device
    ) as decoder:
        for images in on_device(decoder.read(paths), network.device):
            vectors = network(images.pixels) if len(images.positions) else []
            yield Batch(positions=images.positions, vectors=vectors, bad=images.bad)


def priorities(catalog: Catalog, *, seed: int) -> NDArray[np.uint64]:
    """A seeded pseudo-random number per row that depends on its path alone, not on the order or number of rows."""
    key = seed.to_bytes(8, "little")
    digests = (hashlib.blake2b(os.fsencode(path), digest_size=8, key=key).digest() for path in catalog.frame["path"])
    return np.frombuffer(b"".join(digests), dtype="<u8")


def build_network(config: MeasureConfig, weights: LoadedWeights) -> Extractor:
    """The network on the GPU if there is one, else on ``config.threads`` threads of this process."""
    torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_blocks()
    return NETWORKS[weights.network].build(weights, config.precision).to(device)


def fit_reference(
    config: MeasureConfig,
    source: Catalog,
    targets: Mapping[str, Catalog],
    folder: Path,
    *,
    weights: LoadedWeights | None = None,
) -> Reference:
    """Fit the sketch basis on a sample of the source's train part, then pass once over every target, into ``folder``.

    Returns at once when the folder holds the reference of the same inputs, the images of the basis but for those that
    changed since (see ``LEAST_UNCHANGED``); ``weights`` are those of the config unless given. Raises InputError for an
    empty source or target, for no target, and for too many unreadable images.
    """
    if not targets:
        raise InputError("a measurement needs at least one target; name a folder of target images")
    require_images({"the source": source, **targets})
    found = weights or config.find_weights()
    settings = fit_settings(config, found)
    photos = {name: target_sample(config, catalog) for name, catalog in targets.items()}
    keys = {name: photos_key(folder, name, sample) for name, sample in photos.items()}
    fingerprints = [[name, catalog.fingerprint, keys[name]] for name, catalog in targets.items()]
    inputs = storage.canonical_hash([FORMAT, settings, source.fingerprint, fingerprints])
    sample = basis_sample(config, source)
    marker_path = folder / REFERENCE_MARKER
    if (
        marker_path.exists()
        and read_record(marker_path)["inputs"] == inputs
        and (folder / REFERENCE).exists()
        and share_unchanged(sample, basis_contents(folder)) >= LEAST_UNCHANGED
    ):
        return load_reference(folder)

    network = build_network(config, weights or load_network(found))
    looked = look(sample.root, sample.frame["path"].to_numpy(), Contents.read(basis_contents(folder)))
    bases = _fit_bases(config, network, sample)
    statistics, quarantine, warnings = {}, [], []
    for name, sampled in photos.items():
        statistics[name], bad = fit_target(config, network, sampled, bases, name)
        quarantine += [(path, reason, name) for path, reason in bad]
        warnings += target_warnings(name, len(statistics[name].sketch))
    facts = {
        "format": FORMAT,
        "inputs": inputs,
        "settings": settings,
        "network": config.network,
        "terms": {"style": config.terms.style, "content": config.terms.content},
        "weights": found.description,
        "weights_given": config.weights,
        "basis": storage.canonical_hash([basis.hash for basis in bases]),
        "photos": keys,
        "quarantine": quarantine,
        "warnings": warnings,
    }
    give_back_freed_blocks()
    withdraw(marker_path)
    looked.write(basis_contents(folder))
    _write(folder, bases, statistics, facts)
    return load_reference(folder)


def require_images(catalogs: Mapping[str, Catalog]) -> None:
    """Raises InputError naming the first catalog without an image."""
    for name, catalog in catalogs.items():
        if not len(catalog):
            raise InputError(f"{name} has 0 images; at least one is needed: check its folder and layout")


def target_warnings(name: str, num_images: int) -> list[str]:
    """What to say of a target of which so many images could be read."""
    if num_images > 1:
        return []
    return [f"target {name} has 1 image: its spread is unknown, and distances follow that image alone"]


def load_reference(folder: Path) -> Reference:
    """Read what ``fit_reference`` wrote. Raises StateError when it is missing or damaged."""
    marker = read_record(folder / REFERENCE_MARKER)
    arrays = {
        key: torch.from_numpy(array) for key, array in read_verified(folder / REFERENCE, marker["sha256"]).items()
    }
    summary = read_verified(folder / SUMMARY, marker["summary_sha256"])
    num_terms = len(terms_of(marker))
    return Reference(
        bases=tuple(
            Basis(
                mean=arrays[f"mean/{term}"],
                directions=arrays[f"directions/{term}"],
                spread=marker["spread"][term],
                median=float(summary["median"][term]),
            )
            for term in range(num_terms)
        ),
        targets={
            name: TargetStatistics(
                mean=tuple(arrays[f"target/{term}/{name}"] for term in range(num_terms)),
                constant=summary[f"constant/{name}"],
                sketch=summary[f"sketch/{name}"],
            )
            for name in marker["targets"]
        },
        settings=marker["settings"],
        hash=storage.canonical_hash([marker["inputs"], marker["sha256"]]),
    )


def fit_settings(config: MeasureConfig, weights: Weights) -> dict[str, Any]:
    """The settings that the reference depends on, with the weights named by their hash."""
    settings = config.model_dump(exclude={"scale", "images_per_cell", "images_per_shard"})
    return {**settings, "weights": weights.sha256}


def _sample(catalog: Catalog, size: int | None, *, seed: int) -> Ints:
    """Rows of a seeded sample, in catalog order."""
    if size is None or size >= len(catalog):
        return np.arange(len(catalog))
    return np.sort(np.argsort(priorities(catalog, seed=seed), kind="stable")[:size])


def basis_sample(config: MeasureConfig, source: Catalog) -> Catalog:
    """The images of the source's train part that the basis of the sketches is fitted on."""
    source = source.part("train")
    return source.take(_sample(source, config.basis_images, seed=config.seed))


def target_sample(config: MeasureConfig, target: Catalog) -> Catalog:
    """The photos of a target that are measured against: all, or ``target_images`` of them."""
    return target.take(_sample(target, config.target_images, seed=config.seed))


def share_unchanged(sample: Catalog, remembered: Path) -> float:
    """The share of a sample's images that hold what they did when ``remembered`` was written; 0 where it is lost."""
    known = Contents.read(remembered)
    if known is None or len(known) != len(sample):
        return 0.0
    return 1.0 - float(look(sample.root, sample.frame["path"].to_numpy(), known).differs(known).mean())


def _fit_bases(config: MeasureConfig, network: Extractor, sample: Catalog) -> tuple[Basis, ...]:
    batches = [batch.vectors for batch in read_batches(network, sample.file_paths(), config) if batch.vectors]
    if not batches:
        raise InputError(f"none of the {len(sample)} sampled source images below {sample.root} can be read")
    bases = []
    for term, wanted in enumerate(config.num_coordinates):
        vectors = torch.cat([vectors[term] for vectors in batches])
        for batch in batches:
            batch[term] = torch.empty(0)  # the next term needs the memory
        bases.append(fit_basis(vectors, wanted))
    return tuple(bases)


def fit_target(
    config: MeasureConfig,
    network: Extractor,
    target: Catalog,
    bases: Sequence[Basis],
    name: str,
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[TargetStatistics, list[tuple[str, str]]]:
    """Statistics of a target's photos, and path, reason of the bad ones, in one pass.

    Means and squared deviations are merged (Chan, Golub and LeVeque 1979) in float64. ``tick`` is told how many images
    each step has read. Raises InputError for too many bad images.
    """
    count = 0
    mean = [torch.zeros_like(basis.mean, dtype=torch.float64) for basis in bases]
    deviations = np.zeros(len(bases))
    coordinates, bad = [], []
    for batch in read_batches(network, target.file_paths(), config):
        bad += [(target.frame["path"].iloc[position], reason) for position, reason in batch.bad]
        size = len(batch.positions)
        tick(size + len(batch.bad))
        if not size:
            continue
        for term, vectors in enumerate(batch.vectors):
            batch_mean = vectors.mean(dim=0, dtype=torch.float64)
            step = batch_mean - mean[term]
            within = (vectors - batch_mean.float()).square().sum(dtype=torch.float64)
            deviations[term] += float(within + step.square().sum() * (count * size / (count + size)))
            mean[term] += step * (size / (count + size))
        count += size
        projected = [basis.project(vectors)[0] for basis, vectors in zip(bases, batch.vectors, strict=True)]
        coordinates.append(torch.cat(projected, dim=1).cpu().numpy())
    check_quarantine(bad, len(target), of=f"target {name}")
    return TargetStatistics(
        mean=tuple(vector.float().cpu() for vector in mean),
        constant=deviations / count,
        sketch=np.concatenate(coordinates),
    ), bad


def _write(
    folder: Path, bases: Sequence[Basis], statistics: Mapping[str, TargetStatistics], facts: Mapping[str, object]
) -> None:
    arrays = {f"mean/{term}": basis.mean for term, basis in enumerate(bases)}
    arrays |= {f"directions/{term}": basis.directions for term, basis in enumerate(bases)}
    summary = {"median": np.array([basis.median for basis in bases])}
    for name, target in statistics.items():
        arrays |= {f"target/{term}/{name}": vector for term, vector in enumerate(target.mean)}
        summary |= {f"sketch/{name}": target.sketch, f"constant/{name}": target.constant}
    storage.write_sealed(
        folder / REFERENCE_MARKER,
        {
            **facts,
            "sha256": storage.write_arrays(folder / REFERENCE, {key: x.cpu().numpy() for key, x in arrays.items()}),
            "summary_sha256": storage.write_arrays(folder / SUMMARY, summary),
            "targets": list(statistics),
            "num_coordinates": [basis.directions.shape[1] for basis in bases],
            "spread": [basis.spread for basis in bases],
        },
    )
