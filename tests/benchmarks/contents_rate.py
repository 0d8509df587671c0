"""What it costs to know whether 2,028,600 images are still what they were when they were measured.

    python tests/benchmarks/contents_rate.py [--identities 1150] [--output results/data-identity.md]

Empty files with FineGPR's names are looked at where nothing changed, shard by shard as ``aost measure`` does; what it
costs to read files whose times are no help (a copied or touched folder) is timed on JPEG files of FineGPR's size.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from index_rate import Seconds, create, timed

from finegpr.catalog import Catalog
from finegpr.contents import Contents, digest_of, look, look_at_times
from finegpr.measuring.bench import draw_images
from finegpr.pixels.decode import load, read

SHARD, ROUNDS, JPEGS = 2000, 5, 160


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=1150, help="1,764 files of each")
    parser.add_argument("--output", type=Path, default=Path("results/data-identity.md"))
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        text = report(Path(name), given.identities, "python tests/benchmarks/contents_rate.py " + " ".join(arguments))
    given.output.write_text(text)
    print(text)


def report(folder: Path, identities: int, command: str) -> str:
    create(folder / "images", identities)
    catalog = Catalog.index(folder / "images", layout="finegpr")
    paths, root = catalog.frame["path"].to_numpy(), catalog.root
    starts = range(0, len(paths), SHARD)
    times = [timed(lambda: look_at_times(root, paths))[1] for _ in range(ROUNDS)]
    for number, start in enumerate(starts):
        found = look(root, paths[start : start + SHARD])
        # Empty files were made a moment ago, and what is young is never known by its times.
        stamps = look_at_times(root, paths[start : start + SHARD])
        known = Contents(root=found.root, paths=found.paths, stamps=stamps, digests=found.digests)
        known.write(folder / "contents" / f"{number:05}.parquet")

    def unchanged() -> int:
        changed = 0
        for number, start in enumerate(starts):
            known = Contents.read(folder / "contents" / f"{number:05}.parquet")
            assert known is not None
            changed += int(look(root, paths[start : start + SHARD], known).differs(known).sum())
        return changed

    whole = []
    for _ in range(ROUNDS):
        changed, seconds = timed(unchanged)
        assert changed == 0
        whole.append(seconds)
    size = sum(path.stat().st_size for path in (folder / "contents").iterdir()) / 1e6

    jpegs = draw_images(folder / "jpegs", JPEGS)
    names, place = jpegs.frame["path"].to_numpy(), jpegs.root
    files = [place / each for each in names]
    held = [read(file) for file in files]
    hashing, decoding, hashed = [], [], []
    for _ in range(ROUNDS):
        hashing.append(timed(lambda: look(place, names))[1])
        hashed.append(timed(lambda: [digest_of(data) for data in held])[1])
        decoding.append(timed(lambda: load(files, height=256, width=128))[1])
    each = 1e6 * median(hashing)[1] / JPEGS
    decode = 1e6 * median(decoding)[1] / JPEGS
    number = len(paths)
    kilobytes = float(np.mean([Path(str(file)).stat().st_size for file in files])) / 1000
    extra = 1e6 * median(hashed)[1] / JPEGS
    where = f"commit {commit()}, {platform.machine()}, {os.cpu_count()} cores (shared)"
    return f"""# Data identity: what it costs to know that images are what they were

{datetime.now(UTC):%Y-%m-%d}, `{command.strip()}`, {where}, files in the page cache.
Medians of {ROUNDS} turns: seconds on the clock, and of the processor.

| {number:,} files | seconds | of the processor |
| --- | ---: | ---: |
| size and times of all files, where nothing changed | {row(times)} |
| the whole look, in {len(starts):,} shards, with what is remembered, {size:.0f} MB (1) | {row(whole)} |

(1) The hashes of empty files are one; of others they take {16 * number / 1e6:.0f} MB more.

A file whose times are no help (copied, touched, another root) is read: {each:.0f} us of the processor for
{kilobytes:.0f} KB, {each * number / 1e6:.0f} s for {number:,}. To decode and resize it takes {decode:.0f} us.
Measuring reads nothing twice: the bytes that are decoded are hashed, {extra:.0f} us an image.
A disk that has not read its folders and files before adds what that takes.
"""


def median(times: list[Seconds]) -> Seconds:
    return statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times)


def row(times: list[Seconds]) -> str:
    wall, cpu = median(times)
    return f"{wall:.1f} | {cpu:.1f}"


def commit() -> str:
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


if __name__ == "__main__":
    main(sys.argv[1:])
