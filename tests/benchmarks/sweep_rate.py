"""How many searches a sweep does in a second, whether a kill changes what it finds, and what 10^5 of them would take.

    python tests/benchmarks/sweep_rate.py [--searches 2400] [--output results/sweep-rate.md]

MiniGPR of 588 cells (12 viewpoints, 7 weathers, 7 illuminations; 16 people, 2,352 images), rendered and measured here
with an untrained VGG-19 at 32 x 32, against MiniMarket. All by the command line, on the cores there are. The sweep is
done once undisturbed, and once with kill -9 in the middle and the same command again; a sixth of it is done alone, and
the same part by one process. The cost model is fitted to the processor time of the two sizes.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.verbs.sweep import CHUNKS, TABLE
from finegpr.storage import read_marker
from search.sweep import read_sweep

AOST = (sys.executable, "-m", "cluster.cli")
WORLD = (
    *("source.num_identities=16", "source.images_per_identity=147", "source.viewpoints=30", "source.height=48"),
    *("source.width=24", "target.height=48", "target.width=24", "target.num_train=60", "target.train_identities=10"),
)
MEASURE = (
    *(
        "network=vgg19",
        "weights=random",
        "height=32",
        "width=32",
        "basis_images=64",
        "style_coordinates=8",
        "content_coordinates=16",
    ),
    "images_per_cell=2",
)
SWEEP = (
    *("objectives=[mean_distance,mmd_linear,mmd_rbf,frechet]", "alphas=[0.9,0.3]", "images=[150,300,600]"),
    *("identities=[null,8]", "bounds=[[0.0,1.0],[0.08,0.4]]", "optimizers=[numpy_swarm,swarm]", "evaluations=200"),
)
SEEDS = 40
NUM_ALL = (3 * 2 + 1) * 3 * 2 * 2 * 2 * SEEDS  # mmd_rbf sees no alpha
MANY = 100_000
CHUNK = 32  # the default
TUNE_TRIALS = 48  # a second, see results/tune-trial-each.md


def aost(*arguments: str) -> list[str]:
    return [*AOST, *arguments]


def sweep(folder: Path, name: str, num: int, *more: str) -> list[str]:
    seeds = f"seeds=[{','.join(map(str, range(SEEDS)))}]"
    return aost(
        *("sweep", str(folder / "source.parquet"), "--measurements", str(folder / "measurements")),
        *("--output", str(folder / name), *more, "--set", *SWEEP, seeds, f"sample={num}"),
    )


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def make(folder: Path) -> None:
    timed(aost("render", "--output", str(folder / "world"), "--set", *WORLD))
    source, market = str(folder / "source.parquet"), str(folder / "market.parquet")
    timed(aost("index", str(folder / "world" / "source"), "--layout", "finegpr", "--output", source))
    timed(aost("index", str(folder / "world" / "target"), "--layout", "market1501", "--output", market))
    measured = str(folder / "measurements")
    timed(aost("measure", source, "--targets", market, "--output", measured, "--serial", "--set", *MEASURE))


def killed(command: list[str], output: Path) -> tuple[int, float]:
    """Start it, kill everything of it by SIGKILL when half the chunks are done; finished chunks, seconds to the end of
    the same command given again."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    total = int(command[-1].removeprefix("sample=")) // CHUNK
    while len(list((output / CHUNKS).glob("*.json"))) < total // 2:
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(5)  # Ray's own processes see that their driver is gone
    done = len(list((output / CHUNKS).glob("*.json")))
    return done, timed(command)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def seconds_of(folder: Path) -> float:
    """Seconds of the processor that the searches took, by the finish marker."""
    marker = read_marker(folder)
    assert marker is not None
    return float(marker["seconds"])


def report(folder: Path, num: int) -> str:
    cores = len(os.sched_getaffinity(0))
    small = num // 6
    whole = timed(sweep(folder, "whole", num))
    part = timed(sweep(folder, "part", small))
    serial = timed(sweep(folder, "serial", small, "--serial"))
    done, resumed = killed(sweep(folder, "killed", num), folder / "killed")
    same = (folder / "whole" / TABLE).read_bytes() == (folder / "killed" / TABLE).read_bytes()
    same_serial = (folder / "part" / TABLE).read_bytes() == (folder / "serial" / TABLE).read_bytes()
    frame = read_sweep(folder / "whole" / TABLE)
    core, core_of_part = seconds_of(folder / "whole"), seconds_of(folder / "part")
    each = (core - core_of_part) / (num - small)
    start = part - core_of_part / cores
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    models = [(n, start + MANY * each / n) for n in (2, 16, 64, 256)]
    scored, failed = int(frame["num_evaluations"].sum()), int(frame["error"].notna().sum())
    return "\n".join(
        (
            "# Rate of a sweep",
            "",
            "MiniGPR of 588 cells (16 people, 2,352 images), an untrained VGG-19 at 32 x 32, against MiniMarket. Four",
            "objectives, two alphas, three budgets, with and without a number of identities, with and without",
            f"bounds, two optimizers, {SEEDS} seeds: {NUM_ALL:,} points, of which a seeded sample; at most 200 subsets",
            "a search.",
            "",
            f"`python tests/benchmarks/sweep_rate.py --searches {num}`, {time.strftime('%Y-%m-%d')}, commit {commit}",
            f"with later changes, {cores} cores of {processor()}, nice 10, other work on the machine; single runs.",
            "",
            "| what | searches | wall, s | searches/s |",
            "| --- | --- | --- | --- |",
            f"| Ray Tune, {cores} cores | {num:,} | {whole:.1f} | {num / whole:.1f} |",
            f"| Ray Tune, {cores} cores | {small:,} | {part:.1f} | {small / part:.1f} |",
            f"| one process, `--serial` | {small:,} | {serial:.1f} | {small / serial:.1f} |",
            f"| after kill -9 at {done} of {num // CHUNK} chunks, the same command | {num:,} | {resumed:.1f} | |",
            "",
            f"{scored:,} subsets scored, {failed} searches failed. The searches themselves took {core:.0f} s of",
            f"the processor, {1000 * core / num:.0f} ms each, the objectives they share included.",
            f"The table after the kill is {'the same' if same else 'NOT the same'} byte for byte; that of one",
            f"process is {'the same' if same_serial else 'NOT the same'} as that of Ray, byte for byte.",
            "",
            "## Cost model",
            "",
            "seconds = start-up + searches x processor seconds per search / cores. The seconds per search are fitted",
            f"to the two sizes through Ray: {1000 * each:.0f} ms. Start-up is what the smaller one took beyond its",
            f"searches: {start:.0f} s (Python, Ray, the first actors, the report), with what else ran here.",
            "",
            f"| cores of their own | {MANY:,} searches like these |",
            "| --- | --- |",
            *(f"| {n} | {seconds / 60:.1f} min |" for n, seconds in models),
            "",
            "By the clock, with the cores shared, it is the rates above that hold. The model says nothing of what was",
            "not measured: with more cores every core makes every objective that it meets once, and Tune does about",
            f"{TUNE_TRIALS} trials a second (tune-trial-each.md), each of {CHUNK} searches, so that beyond about",
            f"{TUNE_TRIALS * CHUNK * each:.0f} cores larger chunks are needed (`--set chunk=320`).",
            "",
        )
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=2400, help="a multiple of 32 x 6 is best")
    parser.add_argument("--folder", type=Path, help="keep, or find, the world and the sweeps here")
    parser.add_argument("--output", type=Path, default=Path("results/sweep-rate.md"))
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "measurements").exists():
            make(folder)
        text = report(folder, given.searches)
    given.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
