"""The verbs ``train`` and ``evaluate``: a re-identification model from a manifest, and its mAP on a target."""

from typing import Any

from cluster import options
from cluster.handover import hand_over
from cluster.inputs import images_key, read_source
from cluster.outputs import begin, replacing
from cluster.progress import progress, say
from cluster.recipes import train_config
from cluster.settings import override
from finegpr.catalog import Catalog
from finegpr.reid.resume import INDIFFERENT
from finegpr.reid.train import Epoch, fit
from finegpr.storage import locked


def train(verb: options.Train) -> dict[str, Any]:
    config = train_config(override({"recipe": verb.recipe}, verb.set), "--set")
    config.require_shares(verb.workers)
    catalog = read_source(verb.manifest).part("train")
    asked = {
        "settings": config.model_dump(mode="json", exclude=set(INDIFFERENT)),
        "seed": verb.seed,
        "workers": verb.workers,
        "manifest": catalog.fingerprint,
    }
    with locked(verb.output):
        asked["images"] = images_key(catalog, verb.output / ".contents.parquet")
        begin(verb.output, asked, fresh=verb.fresh)
        with progress("training", "steps") as tick:

            def tell(epoch: Epoch) -> None:
                tick(epoch.step, config.whole(step=epoch.step, epoch=epoch.epoch), f"loss {epoch.loss:.3f}")

            if verb.workers > 1 or verb.gpu:
                from cluster.executors.ray_train import fit_on_workers
                from cluster.executors.session import RayConfig, ray_session

                with ray_session(RayConfig()) as ray:
                    result = fit_on_workers(
                        config,
                        catalog,
                        output=verb.output,
                        report=tell,
                        seed=verb.seed,
                        ray=ray,
                        num_workers=verb.workers,
                        use_gpu=verb.gpu,
                    )
            else:
                result = fit(config, catalog, output=verb.output, seed=verb.seed, report=tell)
    say(f"{result.num_images} images of {result.num_identities} identities, {result.weights} -> {result.checkpoint}")
    told = {"checkpoint": str(result.checkpoint), "loss": result.history[-1].loss, "num_images": result.num_images}
    evaluate = ("aost", "evaluate", result.checkpoint, "--target", "TARGET.parquet", "--output", "metrics.json")
    return told | hand_over({"model": result.checkpoint, "manifest": verb.manifest}, *evaluate)


def evaluate(verb: options.Evaluate) -> dict[str, Any]:
    from finegpr.reid.evaluate import evaluate_checkpoint

    target = Catalog.read(verb.target)
    prefix = "" if verb.part == "test" else "validation_"
    query, gallery = target.part(f"{prefix}query"), target.part(f"{prefix}gallery")
    evaluation = evaluate_checkpoint(
        verb.checkpoint, query, gallery, flip_test=verb.flip, rerank=verb.rerank, ap=verb.ap
    )
    with replacing(verb.output):
        evaluation.write(verb.output)
    metrics, queries = evaluation.metrics, evaluation.queries
    say(f"{target.title} {verb.part}: mAP {metrics['mAP']:.1%}, rank-1 {metrics['rank-1']:.1%} -> {verb.output}")
    if queries.sentence is not None:
        say(f"  {queries.sentence}")
    files = hand_over({"metrics": verb.output, "model": verb.checkpoint})
    return {"metrics": str(verb.output), **metrics, **queries.to_record()} | files
