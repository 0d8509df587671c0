"""One training on several workers, or for a model that is kept: Ray Train around the same ``fit``."""

import shutil
import uuid
from pathlib import Path
from typing import Any

from cluster.runtime import in_background, require_resources, unwrapped_errors
from finegpr.catalog import Catalog
from finegpr.reid.config import TrainConfig
from finegpr.reid.train import Epoch, fit
from finegpr.remote import AnyPath


def _worker(settings: dict[str, Any]) -> None:
    """Runs in every Ray Train worker, inside the process group that Ray Train made."""
    import ray.train

    def report(epoch: Epoch) -> None:
        ray.train.report({"epoch": epoch.epoch, "loss": epoch.loss, "accuracy": epoch.accuracy})

    fit(
        TrainConfig.model_validate_json(settings["config"]),
        Catalog.read(Path(settings["manifest"]), root=settings["root"]),
        output=Path(settings["output"]),
        seed=settings["seed"],
        report=report,
    )


def fit_with_ray_train(
    ray: Any,
    config: TrainConfig,
    manifest: Path,
    *,
    root: str | AnyPath,
    output: Path,
    seed: int,
    num_workers: int,
    use_gpu: bool,
) -> None:
    """``finegpr.reid.train.fit`` on ``num_workers`` workers (gloo on CPUs, nccl on GPUs); all share ``output``.

    ``root`` is where the manifest's images lie. It leaves the finished training in ``output``: ``fit`` with the same
    arguments then returns it at once. Raises what a worker raised.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    require_resources(
        ray, cpus=num_workers * config.threads, gpus=num_workers if use_gpu else 0, what=f"{num_workers} workers"
    )
    storage = output.with_name(f".ray-{uuid.uuid4().hex[:12]}")
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "config": config.model_dump_json(),
            "manifest": str(manifest.resolve()),
            "root": str(root),
            "output": str(output.resolve()),
            "seed": seed,
        },
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": config.threads}
        ),
        run_config=RunConfig(
            # A name and place used twice would silently return the first run's result.
            name="fit",
            storage_path=str(storage.resolve()),
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    with unwrapped_errors(f"training in {output}"):
        in_background(trainer.fit)
    shutil.rmtree(storage, ignore_errors=True)
