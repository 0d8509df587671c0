"""Targets that came after the measuring: their distances from the stored sketches, without an image of the source.

Only the target's images pass through the network. What their mean has off the basis of the sketches is known by its
length alone, so the distances are estimates; how good they are is tested on the targets that were measured directly.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, ValidationError

from finegpr import storage
from finegpr.arrays import Floats
from finegpr.atomic import withdraw
from finegpr.catalog import Catalog
from finegpr.config import Config
from finegpr.errors import ConfigError, InputError, StateError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.files import (
    DERIVED_MARKER,
    FORMAT,
    PLAN_MARKER,
    REFERENCE_MARKER,
    marker_hashes,
    read_record,
    target_paths,
)
from finegpr.measuring.freshness import photos_key
from finegpr.measuring.networks import load_network
from finegpr.measuring.networks.base import LoadedWeights
from finegpr.measuring.reference import (
    Reference,
    TargetStatistics,
    build_network,
    fit_target,
    load_reference,
    require_images,
    target_sample,
    target_warnings,
)
from finegpr.measuring.results import MAX_OFF_BASIS, Measurements, basis_advice, read_measurements, require_measurement
from finegpr.measuring.sketch import Basis
from finegpr.pixels.allocator import give_back_freed_blocks
from finegpr.weighing import Scale

Progress = Callable[[int, int], None]


class RetargetConfig(Config):
    """Settings of new targets; all others are those of the measurement they are added to.

    ``weights``: where the file with the measurement's weights is now, None = where it was then. ``scale``: as in
    MeasureConfig. A measurement is refused with more than ``max_off_basis`` of its images' squared norms off the basis,
    or when the distances to its own targets, estimated from the sketches, have an error whose 95th percentile exceeds
    ``max_error`` standard deviations over images, in any term.
    """

    weights: str | None = None
    scale: Scale = "standardised"
    max_off_basis: float = Field(default=MAX_OFF_BASIS, ge=0, le=1)
    max_error: float = Field(default=0.1, ge=0)


def retarget(
    config: RetargetConfig,
    base: Path,
    targets: Mapping[str, Catalog],
    folder: Path,
    *,
    progress: Progress | None = None,
) -> Measurements:
    """Measurements of the images of ``base``, a measurement folder, against new ``targets``, written to ``folder``.

    Finished targets are not read again; ``progress`` is told (images done, images in all) of the others. Raises
    InputError for no or empty targets, too many bad images and other weights than the base's, ConfigError for folders
    of another kind and for a base whose sketches are too coarse, StateError for an unfinished or damaged base.
    """
    if not targets:
        raise InputError("nothing to measure against; name at least one target")
    require_images(targets)
    _check_folders(base, folder)
    markers = marker_hashes(base)
    fitted = read_record(base / REFERENCE_MARKER)
    settings = fitted["settings"]
    measuring, weights = _settings(config, fitted, base)
    reference = load_reference(base)
    errors = _check_sketches(config, base, reference, settings)

    photos = {name: target_sample(measuring, catalog) for name, catalog in targets.items()}
    held = {name: photos_key(folder, name, sample) for name, sample in photos.items()}
    keys = {
        name: storage.canonical_hash([FORMAT, fitted["basis"], settings, name, catalog.fingerprint, held[name]])
        for name, catalog in targets.items()
    }
    pending = [name for name, key in keys.items() if not _is_finished(folder, key)]
    _fit(measuring, weights, reference, {name: photos[name] for name in pending}, folder, keys, progress)
    counts = {name: read_record(target_paths(folder, key)[1])["num_images"] for name, key in keys.items()}
    marker = {
        "format": FORMAT,
        "base": {
            "path": os.path.relpath(base.resolve(), folder.resolve()),
            "basis": fitted["basis"],
            "markers": markers,
        },
        "targets": {name: [key, storage.file_sha256(target_paths(folder, key)[1])] for name, key in keys.items()},
        "photos": held,
        "errors": errors,
        "warnings": [warning for name, count in counts.items() for warning in target_warnings(name, count)],
    }
    storage.write_sealed(folder / DERIVED_MARKER, marker)
    return read_measurements(folder)


def _check_folders(base: Path, folder: Path) -> None:
    require_measurement(base)
    if (base / DERIVED_MARKER).exists():
        origin = read_record(base / DERIVED_MARKER)["base"]["path"]
        raise ConfigError(
            f"{base} holds targets only, without sketches; give the measurement they belong to, "
            f"{os.path.normpath(base / origin)}"
        )
    for name in (REFERENCE_MARKER, PLAN_MARKER):
        if not (base / name).exists():
            raise InputError(f"{base} holds no finished measurement ({name} is missing); run `aost measure` to its end")
    if (folder / REFERENCE_MARKER).exists():
        raise ConfigError(f"{folder} holds a measurement of its own; choose another --output for the new targets")


def _settings(config: RetargetConfig, fitted: Mapping[str, Any], base: Path) -> tuple[MeasureConfig, LoadedWeights]:
    """The settings that the base was measured with, and its weights."""
    given = {**fitted["settings"], "weights": config.weights or fitted["weights_given"]}
    try:
        measuring = MeasureConfig.model_validate(given)
    except ValidationError:
        raise StateError(f"{base / REFERENCE_MARKER} was made by another version; measure anew") from None
    weights = load_network(measuring.find_weights())
    if weights.sha256 != fitted["settings"]["weights"]:
        raise InputError(
            f"{base} was measured with {fitted['weights']}, got {weights.description}; "
            "name the file it was measured with, as by --set weights=FILE.safetensors"
        )
    return measuring, weights


def _check_sketches(
    config: RetargetConfig, base: Path, reference: Reference, settings: Mapping[str, Any]
) -> dict[str, dict[str, list[float]]]:
    """Errors of the distances to the base's own targets; refuses a base whose sketches are too coarse."""
    measured = read_measurements(base)
    names = measured.of.names
    share = measured.off_basis_share
    worst = int(share.argmax())
    if share[worst] > config.max_off_basis:
        raise ConfigError(
            f"{share[worst]:.0%} of the images' {names[worst]} in {base} lies off the basis of its sketches, at most "
            f"{config.max_off_basis:.0%} is allowed for new targets; {basis_advice(settings, measured.of, worst)}"
        )
    errors = {name: sketch_errors(measured, reference, name) for name in reference.targets}
    for name, error in errors.items():
        worst = int(np.argmax(error["percentile_95"]))
        if error["percentile_95"][worst] > config.max_error:
            raise ConfigError(
                f"the sketches in {base} miss the {names[worst]} distances to its target {name} by "
                f"{error['percentile_95'][worst]:.1%} of their standard deviation (95th percentile), at most "
                f"{config.max_error:.1%} is allowed for new targets; {basis_advice(settings, measured.of, worst)}"
            )
    return errors


def sketch_errors(measured: Measurements, reference: Reference, target: str) -> dict[str, list[float]]:
    """Error of the distances (without the constant) to a target that was measured directly, per term: median and 95th
    percentile over images, in standard deviations over images (0 where they do not differ)."""
    exact = measured.terms[target] - measured.target_constant[target]
    mean, rest = project_mean(reference.bases, reference.targets[target])
    wrong = np.abs(measured.distances(mean=mean, rest=rest) - exact)
    spread = exact.std(axis=0)
    relative = np.divide(wrong, spread, out=np.zeros_like(wrong), where=spread > 0)
    return {
        "median": np.median(relative, axis=0).tolist(),
        "percentile_95": np.percentile(relative, 95, axis=0).tolist(),
    }


def project_mean(bases: tuple[Basis, ...], target: TargetStatistics) -> tuple[Floats, Floats]:
    """Coordinates (S,) of a target's mean vectors, and the squared lengths (T,) of what they have off the basis."""
    coordinates, rest = [], []
    for basis, mean in zip(bases, target.mean, strict=True):
        # In float32 a single vector is projected term by term, which loses three more digits than a batch does.
        projected, norm, off_basis = basis.to(torch.float64).project(mean[None].double())
        coordinates.append(projected[0].numpy())
        rest.append(float(norm * off_basis))
    return np.concatenate(coordinates), np.array(rest)


def _is_finished(folder: Path, key: str) -> bool:
    path, marker_path = target_paths(folder, key)
    return path.exists() and marker_path.exists() and read_record(marker_path)["inputs"] == key


def _fit(
    config: MeasureConfig,
    weights: LoadedWeights,
    reference: Reference,
    targets: Mapping[str, Catalog],
    folder: Path,
    keys: Mapping[str, str],
    progress: Progress | None,
) -> None:
    """One pass over the images of each target; each is committed when it is done."""
    report = progress or (lambda *_: None)
    total = sum(map(len, targets.values()))
    done = 0

    def tick(images: int) -> None:
        nonlocal done
        done += images
        report(done, total)

    tick(0)
    if not targets:
        return
    network = build_network(config, weights)
    bases = tuple(basis.to(network.device) for basis in reference.bases)
    for name, catalog in targets.items():
        statistics, bad = fit_target(config, network, catalog, bases, name, tick)
        mean, rest = project_mean(reference.bases, statistics)
        path, marker_path = target_paths(folder, keys[name])
        withdraw(marker_path)
        sha256 = storage.write_arrays(
            path, {"sketch": statistics.sketch, "constant": statistics.constant, "mean": mean, "rest": rest}
        )
        storage.write_sealed(
            marker_path,
            {
                "format": FORMAT,
                "inputs": keys[name],
                "sha256": sha256,
                "num_images": len(statistics.sketch),
                "quarantine": bad,
            },
        )
    give_back_freed_blocks()
