"""The verb ``select``: a manifest, drawn from a subset or chosen image by image."""

from typing import Any

from cluster import options
from cluster.handover import hand_over
from cluster.inputs import good_images, only_target, read_subset
from cluster.outputs import replacing
from cluster.progress import say
from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measuring.results import read_measurements
from finegpr.subset import Subset
from finegpr.weighing import Weighing


def select(verb: options.Select) -> dict[str, Any]:
    catalog = Catalog.read(verb.catalog)
    manifest = catalog.take(_drawn(verb, catalog) if verb.selector is None else _selected(verb, catalog))
    with replacing(verb.output):
        manifest.write(verb.output)
    people = int(manifest.frame["identity"].nunique())
    say(f"{len(manifest)} images of {people} identities -> {verb.output}")
    told = {"manifest": str(verb.output), "num_images": len(manifest), "num_identities": people}
    return told | hand_over({"manifest": verb.output}, "aost", "train", verb.output, "--output", "model")


def _drawn(verb: options.Select, catalog: Catalog) -> Ints:
    """Rows of a manifest from a subset, or from everything."""
    from finegpr.manifest import Sampler

    if verb.target is not None:
        raise ConfigError("--target is for a --selector; a subset is drawn from without it")
    if verb.measurements is not None:
        catalog = good_images(catalog, read_measurements(verb.measurements))
    subset = read_subset(verb.subset) if verb.subset else Subset({})
    of_people = [each.name for each in catalog.identity_attributes if each.name in subset.values]
    names = {each.name for each in catalog.image_attributes if each.name != "scene"}
    sampler = Sampler(
        catalog.cells(sorted({*names, *subset.values}.difference(of_people))),
        catalog.identities,
        budget=verb.images,
        identities=verb.identities,
        seed=verb.seed,
        groups=catalog.cells(of_people) if of_people else None,
    )
    return sampler.draw(subset, seed=verb.seed)


def _selected(verb: options.Select, catalog: Catalog) -> Ints:
    """Rows of a manifest that a selector chose image by image."""
    from search.selectors import require_selector, select_images
    from search.space import Budget

    assert verb.selector is not None
    require_selector(verb.selector)
    if verb.subset is not None or verb.measurements is None:
        raise ConfigError("a --selector goes by --measurements, and takes no --subset")
    measurements = read_measurements(verb.measurements)
    catalog = good_images(catalog, measurements)
    budget = Budget(images=verb.images, identities=verb.identities)
    target = only_target(measurements, verb.target)
    return select_images(
        verb.selector, catalog, measurements, budget, target=target, weighing=Weighing(), seed=verb.seed
    )
