"""What several verbs are given: a subset in a file, one of the measured targets."""

from collections.abc import Iterable
from pathlib import Path

from cluster.progress import say
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, InputError, did_you_mean
from finegpr.measuring.known_bad import without_bad
from finegpr.measuring.results import Measurements
from finegpr.mixture import choice_from_json
from finegpr.subset import Subset


def read_subset(path: Path) -> Subset:
    """The subset or mixture in a subset.json. Raises InputError."""
    written_by = "`aost search` writes one, subset.json"
    if path.is_dir():
        inside = path / "subset.json"
        advice = f"give {inside}" if inside.is_file() else written_by
        raise InputError(f"{path} is a folder, expected the file of a subset; {advice}")
    try:
        return choice_from_json(path.read_text(encoding="utf-8"))
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


def good_images(catalog: Catalog, measurements: Measurements) -> Catalog:
    """The catalog, in which what measuring found broken is not drawn; says so."""
    good, note = without_bad(catalog, measurements)
    if note is not None:
        say(note)
    return good
