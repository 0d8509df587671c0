"""The verb ``select``: a manifest, drawn from a subset or chosen image by image."""

from typing import Any

from cluster import options
from cluster.handover import hand_over
from cluster.inputs import only_target, read_measured, read_source, read_subset
from cluster.outputs import replacing
from cluster.progress import say
from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, InputError
from finegpr.layouts.listing import LABELS, first
from finegpr.measuring.freshness import require_photos_unchanged
from finegpr.subset import Subset
from finegpr.weighing import Weighing


def select(verb: options.Select) -> dict[str, Any]:
    catalog = read_source(verb.catalog)
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
    subset = read_subset(verb.subset) if verb.subset else Subset({})
    _require_values(verb, catalog, subset)
    if verb.measurements is not None:
        catalog = read_measured(verb.measurements, catalog)[1]
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


def _require_values(verb: options.Select, catalog: Catalog, subset: Subset) -> None:
    """Raises InputError where no image has a value of the subset: it was chosen of other images."""
    for name, chosen in subset.values.items():
        if name not in catalog.frame.columns[len(LABELS) :]:
            known = ", ".join(each.name for each in catalog.attributes) or "none"
            raise InputError(
                f"{verb.subset} is of another catalog: {verb.catalog} has no attribute {name!r}, but {known}"
            )
        has = catalog.frame[name].cat.remove_unused_categories().cat.categories.tolist()
        if strange := sorted(chosen.difference(has)):
            raise InputError(
                f"{verb.subset} is of another catalog: no image of {verb.catalog} has {name} {first(strange)}, but "
                f"{first(has)}; give the catalog that it was searched in, or a subset of this one"
            )


def _selected(verb: options.Select, catalog: Catalog) -> Ints:
    """Rows of a manifest that a selector chose image by image."""
    from search.selectors import require_selector, select_images
    from search.space import Budget

    assert verb.selector is not None
    require_selector(verb.selector)
    if verb.subset is not None or verb.measurements is None:
        raise ConfigError("a --selector goes by --measurements, and takes no --subset")
    measurements, catalog = read_measured(verb.measurements, catalog)
    budget = Budget(images=verb.images, identities=verb.identities)
    target = only_target(measurements, verb.target)
    require_photos_unchanged(verb.measurements, target)
    return select_images(
        verb.selector, catalog, measurements, budget, target=target, weighing=Weighing(), seed=verb.seed
    )
