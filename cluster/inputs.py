"""What several verbs are given: a source, a subset in a file, one of the measured targets."""

import time
from collections.abc import Iterable
from pathlib import Path

from cluster.progress import progress, say
from finegpr.catalog import Catalog
from finegpr.contents import contents_key
from finegpr.errors import ConfigError, InputError, did_you_mean
from finegpr.measuring.freshness import require_unchanged
from finegpr.measuring.known_bad import without_bad
from finegpr.measuring.results import Measurements, measured_folder, read_measurements
from finegpr.mixture import choice_from_json
from finegpr.parts import train_part
from finegpr.storage import read_text
from finegpr.subset import Subset

SAID_AFTER_SECONDS = 2.0


def read_source(path: Path) -> Catalog:
    """A catalog to draw from and train on: where it has parts only the train part, in the same rows; says so."""
    source, note = train_part(Catalog.read(path))
    if note is not None:
        say(note)
    return source


def read_subset(path: Path) -> Subset:
    """The subset or mixture in a subset.json. Raises InputError."""
    written_by = "`aost search` writes one, subset.json"
    if path.is_dir():
        inside = path / "subset.json"
        advice = f"give {inside}" if inside.is_file() else written_by
        raise InputError(f"{path} is a folder, expected the file of a subset; {advice}")
    try:
        return choice_from_json(read_text(path))
    except FileNotFoundError:
        raise InputError(f"no subset {path}; {written_by}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; {written_by}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text, expected the JSON of a subset; {written_by}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}; {written_by}") from None


def only_target(measurements: Measurements, target: str | None) -> str:
    """The target that was named, or the only one. Raises ConfigError where there are several, or none of that name."""
    known = sorted(measurements.terms)
    if target is None and len(known) > 1:
        raise ConfigError(f"these measurements have several targets; choose one by --target: {', '.join(known)}")
    if target is not None:
        require_targets([target], measurements)
    return target or known[0]


def require_targets(targets: Iterable[str], measurements: Measurements) -> None:
    """Raises ConfigError for the first that was not measured."""
    known = sorted(measurements.terms)
    for target in targets:
        if target not in known:
            hint = did_you_mean(target, known, otherwise="a target is called by its catalog's file name")
            raise ConfigError(f"target {target!r} was not measured, only {', '.join(known)}; {hint}")


def read_measured(folder: Path, catalog: Catalog) -> tuple[Measurements, Catalog]:
    """The measurements of this catalog, and the catalog, in which what measuring found broken is not drawn; says so.

    Raises InputError for measurements of another catalog, and where images changed since. That is looked at where
    they lie on a disk of this machine; what lies in a store is looked at by ``aost measure``.
    """
    measurements = read_measurements(folder)
    good, note = without_bad(catalog, measurements)
    if isinstance(catalog.root, Path) and catalog.root.is_dir():
        require_unchanged(measured_folder(folder), catalog)
    elif isinstance(catalog.root, Path):
        say(f"  {catalog.root} is not here, so its images are taken to be as they were measured")
    if note is not None:
        say(note)
    return measurements, good


def images_key(catalog: Catalog, cache: Path) -> str:
    """Hash of what the images of ``catalog`` hold, remembered in ``cache``: those that are not known are read first."""
    started = time.monotonic()
    with progress("reading images", "images") as tick:

        def patiently(done: int, total: int) -> None:
            if time.monotonic() - started > SAID_AFTER_SECONDS:
                tick(done, total)

        return contents_key(catalog, cache, tick=patiently)
