"""What a verb costs before it works: seconds of the processor and modules loaded, from start to end.

    python tests/benchmarks/start_up.py [--tree CHECKOUT] [--python PATH] [--output results/start-up.md]

Every verb's ``--help``, and those that only read files on a tiny world: a run of 360 small images that ``--tree``
itself renders, measures, searches, trains and reports first. ``--tree`` is another checkout, for before and after. A
verb is run several times in a process of its own; user and system time of the median run, by wait4.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
CONFIG = """
name: start-up
world:
  source: {{num_identities: 10, images_per_identity: {each}, viewpoints: 90, height: 32, width: 16}}
  target: {{height: 32, width: 16, num_train: 8, train_identities: 4, validation_identities: 1, test_identities: 2,
           num_distractors: 0, num_junk: 0}}
measure: {{network: vgg19, weights: random, height: 32, width: 32, basis_images: 8, images_per_cell: 1,
          style_coordinates: 2,
          content_coordinates: 4}}
budget: {{images: 24, identities: 6}}
search: {{evaluations: 40}}
arms: [random, mean_distance]
train: {{recipe: seconds, steps: 1, batch_size: 8}}
"""
# What a verb does, and then its modules, whether it ends by itself or by an exit code.
COUNTED = (
    "import sys\nfrom cluster import cli\ntry:\n    cli.main(sys.argv[2:])\n"
    "finally:\n    open(sys.argv[1], 'w').write(' '.join(sys.modules))\n"
)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each verb")
    parser.add_argument("--images", type=int, default=360, help="in the folder that is indexed, rounded up to tens")
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--output", type=Path, help="also write the table there")
    given = parser.parse_args(arguments)
    environment = {**os.environ, "PYTHONPATH": str(given.tree.resolve()), "COLUMNS": "120"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shell = Shell(given.python, environment, folder)
        commands = {"--help": ["--help"], **{f"{verb} --help": [verb, "--help"] for verb in verbs(shell)}}
        commands |= reading(shell, folder, -(-given.images // 10))
        rows = [
            f"| `aost {title}` | {seconds:.2f} | {modules:,} | {heavy} |"
            for title, command in commands.items()
            for seconds, modules, heavy in [shell.cost(command, given.runs)]
        ]
    lines = [
        f"Start-up of {given.tree.resolve().name}, commit {commit(given.tree)}, {time.strftime('%Y-%m-%d')}: median of "
        f"{given.runs} runs, {os.cpu_count()} cores of {platform.machine()}, load {os.getloadavg()[0]:.1f}.",
        "",
        f"`aost index` of {10 * -(-given.images // 10)} images.",
        "",
        "| command | processor, s | modules | of torch, ray, xgboost, nevergrad |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]
    if given.output:
        given.output.write_text("\n".join(lines))
    print("\n".join(lines))


class Shell:
    """Runs ``aost`` of one checkout, in a folder without one, as Python would search that first."""

    def __init__(self, python: str, environment: dict[str, str], folder: Path) -> None:
        self.python, self.environment, self.folder = python, environment, folder

    def aost(self, *arguments: str) -> str:
        """What a verb prints. Raises SystemExit with its last line when it fails."""
        command = [self.python, "-m", "cluster.cli", *arguments]
        done = subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"aost {' '.join(arguments)}: {done.stderr.splitlines()[-1:]}")
        return done.stdout

    def cost(self, arguments: Sequence[str], runs: int) -> tuple[float, int, str]:
        """Seconds of the processor (median), modules at the end, and which of the heavy ones."""
        seconds = []
        for _ in range(runs):
            process = subprocess.Popen(
                [self.python, "-m", "cluster.cli", *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"aost {' '.join(arguments)}: exit code {process.returncode}")
            seconds.append(usage.ru_utime + usage.ru_stime)
        listing = self.folder / "modules"
        command = [self.python, "-c", COUNTED, str(listing), *arguments]
        subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True)
        modules = listing.read_text().split()
        heavy = [name for name in ("torch", "ray", "xgboost", "nevergrad") if name in modules]
        return median(seconds), len(modules), ", ".join(heavy) or "none"


def verbs(shell: Shell) -> list[str]:
    """The verbs, by the first column of ``aost --help``."""
    lines = shell.aost("--help").splitlines()
    return [line.split()[0] for line in lines if line.startswith("  ") and line[2:3].isalpha()]


def reading(shell: Shell, folder: Path, each: int) -> dict[str, list[str]]:
    """The verbs that read what a run has left, by what they are called in the table."""
    (folder / "run.yaml").write_text(CONFIG.format(each=each))
    shell.aost("run", "run.yaml", "--output", "run", "--serial")
    source = str(next(folder.glob("run/index/*/source.parquet")))
    subset = str(next(folder.glob("run/search/mean_distance/subset.json")))
    world = str(next(folder.glob("run/world/*/source")))
    return {
        "index": ["index", world, "--output", "indexed.parquet"],
        "select": ["select", source, "--subset", subset, "--images", "24", "--output", "manifest.parquet"],
        "diff": ["diff", subset, subset, "--catalog", source],
        "compare": ["compare", "run"],
        "report": ["report", "run"],
    }


def commit(tree: Path) -> str:
    said = subprocess.run(["git", "-C", str(tree), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


if __name__ == "__main__":
    main(sys.argv[1:])
