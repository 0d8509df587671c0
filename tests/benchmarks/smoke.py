"""Every benchmark once, at its smallest size: that it still runs. Nothing is written outside a temporary folder.

    python tests/benchmarks/smoke.py [NAME ...]

What it prints of each is how long it took; the numbers of so small a benchmark mean nothing.
"""

import argparse
import contextlib
import importlib
import io
import sys
import tempfile
import time
import traceback
from pathlib import Path

# By module; {folder} is its own temporary folder, {world} one that those share which need the same world.
SMALLEST = {
    "adaptive_regret": "--targets 1 --orders 1 --noises 1 --sizes 4 3 3 --evaluations 100 --cache {folder}/cache",
    "comparison": "--seeds 1 2 --config {folder}/comparison.yaml --output {folder}/runs --record {folder}/record",
    "contents_rate": "--identities 2",
    "decoding": "--networks vgg19:random --sizes 32x32 --images 12",
    "index_rate": "--identities 2",
    "label_free": "--seeds 7 --people 40 --networks 3 --world {folder}/world",
    "mean_distance_scaling": "--rounds 1",
    "measure_memory": "--sizes 200 400",
    "measure_rate": "--sizes 32x32 --seconds 0.5",
    "optimizer_regret": "--problems 1 --long 0 --most 500 --cache {folder}/cache",
    "probe_attributes": "--identities 64 --tested 64 --epochs 1",
    "recovery": "--targets 2 --people 10 --evaluations 20 --world {world}",
    "reid_backbones": "--seeds 1 --seconds 0.2 --people 12 --world {folder}/world",
    "render_rate": "--share 0",
    "search_regret": "--spaces 1 --evaluations 20",
    "search_speed": "--evaluations 100 --seconds 0.2",
    "sketch_error": "--targets 2 --people 42",
    "start_up": "--runs 1 --images 60",
    "surrogate_error": "--targets 1 --measured 2 --people 10 --world {world}",
    "sweep_rate": "--searches 192",
    "tune_overhead": "--trainings 4",
    "tune_trial_each": "--trials 4 --evaluations 100",
    "unbiasedness": "--worlds 2 --large-worlds 0 --filled-worlds 2",
}
NO_RECORD = ("comparison", "render_rate")  # these have no --output of a record
COMPARISON = """
source: {num_identities: 10, images_per_identity: 36, viewpoints: 90, height: 48, width: 24}
targets: {fog: {weather: [foggy, blizzard]}, snow: {weather: [blizzard, snowlight]}}
target: {num_train: 12, train_identities: 6, test_identities: 3, num_distractors: 0, num_junk: 0,
         validation_identities: 1, height: 48, width: 24}
run:
  measure: {network: vgg19, weights: random, height: 32, width: 32, images_per_cell: 1, basis_images: 16}
  budget: {images: 40, identities: 10}
  search: {evaluations: 40}
  train: {recipe: seconds, batch_size: 8}
steps:
  2: [random, mean_distance, mmd_rbf, true_distribution, all_true_distribution, everything]
  3: [random, all_mmd_rbf, everything]
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SMALLEST)}; all of them")
    given = parser.parse_args(arguments)
    unlisted = {path.stem for path in Path(__file__).parent.glob("*.py") if "def main(" in path.read_text()}
    if unlisted := unlisted - {*SMALLEST, Path(__file__).stem}:
        raise SystemExit(f"no smallest size for {', '.join(sorted(unlisted))}")
    failed = []
    with tempfile.TemporaryDirectory() as root:
        for name in given.names or SMALLEST:
            started = time.monotonic()
            said = run(name, Path(root))
            print(f"{name:24}{time.monotonic() - started:6.0f} s{'  FAILED' if said else ''}", flush=True)
            if said:
                print(said, file=sys.stderr, flush=True)
                failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def run(name: str, root: Path) -> str:
    """What a benchmark said and raised if it failed, else nothing."""
    folder, world = root / name, root / "world"
    folder.mkdir()
    (folder / "comparison.yaml").write_text(COMPARISON)
    arguments = SMALLEST[name].format(folder=folder, world=world).split()
    if name not in NO_RECORD:
        arguments += ["--output", str(folder / "record.md")]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            importlib.import_module(name).main(arguments)
    except (Exception, SystemExit):
        return said.getvalue() + traceback.format_exc()
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
