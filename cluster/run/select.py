"""The stage ``select``: every arm's manifest, one per seed."""

from collections.abc import Mapping

import numpy as np

from cluster.run.arms import Arm, make_arm
from cluster.run.config import EVERYTHING, RANDOM
from cluster.run.state import SOURCE, Indexed, Manifest, Run
from finegpr.catalog import Catalog
from finegpr.subset import Subset
from search.analysis.fairness import require_fair
from search.measured import Measured
from search.selectors import select_images


def select(run: Run, indexed: Indexed, measured: Measured, chosen: Mapping[str, Subset]) -> tuple[Manifest, ...]:
    """Draw all manifests; ``chosen`` are the subsets of the arms that a search or a check decided."""
    config, manifests = run.config, []
    for name in config.arms:
        arm = make_arm(name, config, indexed.space, indexed.truth, chosen)
        settings = {
            "budget": config.budget.model_dump(mode="json"),
            "takes_all": arm.takes_all,
            "seed": config.seed,
            "seeds": list(config.seeds),
        }
        if config.fairness is not None:
            settings["fairness"] = config.fairness.model_dump(mode="json")
        inputs = {
            "subset": arm.subset.key,
            SOURCE: indexed.source.fingerprint,
            "attributes": [attribute.name for attribute in indexed.space.cells.attributes],
        }
        if arm.selector:
            inputs["measure"] = measured.fingerprint
            settings["scale"] = measured.weighing.scale
        if config.space.identity_attributes:
            inputs["identity_attributes"] = list(config.space.identity_attributes)
        with run.folder.stage("select", name, inputs=inputs, config=settings) as (stage, fields):
            for seed in config.seeds:
                path = stage.folder / f"seed{seed}.parquet"
                if not stage.done:
                    drawn = _draw(run, indexed, measured, arm, seed=seed)
                    drawn.write(path)
                    fields["num_images"] = len(drawn)
                drawn = Catalog.read(path)
                manifests.append(
                    Manifest(
                        arm=arm,
                        seed=seed,
                        path=path,
                        fingerprint=drawn.fingerprint,
                        num_images=len(drawn),
                        people=np.unique(drawn.identities[drawn.identities > 0]),
                    )
                )
    return tuple(manifests)


def _draw(run: Run, indexed: Indexed, measured: Measured, arm: Arm, *, seed: int) -> Catalog:
    """One arm's images for one seed. Raises RefusedError where the config's guard does not hold."""
    config, source = run.config, indexed.source
    if arm.selector:
        rows = select_images(
            arm.name,
            source,
            measured.measurements,
            config.budget,
            target=measured.target,
            weighing=measured.weighing,
            seed=config.sub_seed(seed),
        )
        manifest = source.take(rows)
    else:
        manifest = arm.draw(source, indexed.space, seed=seed)
    if config.fairness is not None and arm.name not in (RANDOM, EVERYTHING):
        require_fair(config.fairness, source, manifest, what=f"arm {arm.name}, seed {seed}")
    return manifest
