"""The stage ``select``: every arm's manifest, one per seed."""

from collections.abc import Mapping

from cluster.run.arms import Arm, make_arm
from cluster.run.config import EVERYTHING, RANDOM
from cluster.run.state import TARGET, Run
from finegpr.catalog import Catalog
from finegpr.subset import Subset


def select(run: Run) -> None:
    """Draw every arm's manifest, one per seed."""
    found: Mapping[str, Subset] = {name: result.subset for name, result in run.searches.items()} | run.checked
    for name in run.config.arms:
        arm = make_arm(name, run.config, run.space, run.truth, found)
        run.arms[name] = arm
        settings = {
            "budget": run.config.budget.model_dump(mode="json"),
            "takes_all": arm.takes_all,
            "seed": run.config.seed,
            "seeds": list(run.config.seeds),
        }
        if run.config.fairness is not None:
            settings["fairness"] = run.config.fairness.model_dump(mode="json")
        inputs = {
            "subset": arm.subset.key,
            "source": run.source.fingerprint,
            "attributes": [attribute.name for attribute in run.space.cells.attributes],
        }
        if arm.selector:
            inputs["measure"] = run.keys["measure"]
            settings["scale"] = run.config.measure.scale
        if run.config.space.identity_attributes:
            inputs["identity_attributes"] = list(run.config.space.identity_attributes)
        with run.folder.stage(f"select/{name}", inputs=inputs, config=settings) as (stage, fields):
            for seed in run.config.seeds:
                path = stage.folder / f"seed{seed}.parquet"
                run.manifests[name, seed] = path
                if not stage.done:
                    manifest = _manifest(run, arm, seed=seed)
                    manifest.write(path)
                    fields["num_images"] = len(manifest)
            for seed in run.config.seeds:
                run.keys[f"select/{name}/{seed}"] = Catalog.read(run.manifests[name, seed]).fingerprint


def _manifest(run: Run, arm: Arm, *, seed: int) -> Catalog:
    """One arm's images for one seed. Raises RefusedError where the config's guard does not hold."""
    from cluster.run.selecting import require_fair, selected

    config = run.config
    if arm.selector:
        rows = selected(
            arm.name,
            run.source,
            run.measurements,
            config.budget,
            target=TARGET,
            scale=config.measure.scale,
            seed=config.seed + seed,
        )
        manifest = run.source.take(rows)
    else:
        manifest = arm.draw(run.source, run.space, seed=seed)
    if config.fairness is not None and arm.name not in (RANDOM, EVERYTHING):
        require_fair(config.fairness, run.source, manifest, what=f"arm {arm.name}, seed {seed}")
    return manifest
