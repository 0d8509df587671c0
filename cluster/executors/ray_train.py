"""One training on several workers: Ray Train around the same ``fit``, for models that are kept and for large trials."""

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.executors.session import in_background, require_resources, unwrapped_errors
from finegpr.catalog import Catalog
from finegpr.reid.config import TrainConfig
from finegpr.reid.data import ImageStore
from finegpr.reid.train import Epoch, FitResult, fit


def _worker(settings: dict[str, Any]) -> None:
    """Runs in every Ray Train worker, inside the process group that Ray Train made."""
    import ray
    import ray.train

    # Nothing is reported through Ray Train: it takes one report per look at its workers, so that an epoch of our small
    # trainings would last as long as the pause between two looks (2 s). ``fit`` keeps its own state and history, and
    # the first worker tells of its epochs by lines of a file.
    train, validation = ray.get(settings["catalogs"])
    images = settings["images"]
    told = Path(settings["told"])

    def tell(epoch: Epoch) -> None:
        with told.open("a") as stream:
            stream.write(json.dumps(asdict(epoch)) + "\n")

    fit(
        TrainConfig.model_validate_json(settings["config"]),
        train,
        validation=validation,
        output=Path(settings["output"]),
        seed=settings["seed"],
        images=None if images is None else ImageStore.open(Path(images)),
        report=tell if ray.train.get_context().get_world_rank() == 0 else None,
    )


def fit_on_workers(
    config: TrainConfig,
    train: Catalog,
    *,
    validation: Catalog | None = None,
    output: Path,
    report: Callable[[Epoch], None] | None = None,
    seed: int,
    images: ImageStore | None = None,
    ray: Any,
    num_workers: int,
    use_gpu: bool,
) -> FitResult:
    """``finegpr.reid.train.fit`` on ``num_workers`` workers (gloo on CPUs, nccl on GPUs), which all see ``output``.

    ``report`` is called for every epoch, soon after it is done. Batch statistics are those of each worker, so a model
    depends on their number. Raises what a worker raised, and ConfigError where the cluster has no room for them.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config.require_shares(num_workers)
    what = f"a training on {num_workers} worker{'s' if num_workers > 1 else ''}"
    require_resources(ray, cpus=config.threads, gpus=1 if use_gpu else 0, count=num_workers, what=what)
    output = output.resolve()
    storage = output.with_name(f".ray-{uuid.uuid4().hex[:12]}")
    storage.mkdir(parents=True)
    told, heard = storage / "epochs.jsonl", 0

    def hear() -> None:
        """Tell ``report`` of the epochs that are new; those that were done again after a loss are not."""
        nonlocal heard
        lines = told.read_text().splitlines(keepends=True) if told.exists() else []
        for epoch in (Epoch(**json.loads(line)) for line in lines if line.endswith("\n")):
            if epoch.epoch > heard and report is not None:
                heard = epoch.epoch
                report(epoch)

    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "config": config.model_dump_json(),
            "catalogs": ray.put((train, validation)),
            "output": str(output),
            "seed": seed,
            "told": str(told),
            "images": None if images is None else str(images.folder.resolve()),
        },
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": config.threads}
        ),
        run_config=RunConfig(
            # A name and place used twice would silently return the first run's result.
            name="fit",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    with unwrapped_errors(f"training in {output}"):
        in_background(trainer.fit, hear)
    shutil.rmtree(storage, ignore_errors=True)
    result = fit(config, train, validation=validation, output=output, seed=seed, images=images)
    if report is not None:
        for epoch in result.history[heard:]:
            report(epoch)
    return result
