"""The comparison of arms on fresh worlds: five seeds x three targets, stated before they were looked at.

    python tests/benchmarks/comparison.py --seeds 11 12 13 14 15 --record results/2026-11-21-comparison-2

Each seed renders its own MiniGPR (other people, places and noise) and measures, searches, trains and scores anew, for
each target in turn; seeds run side by side, one core each. An interrupted comparison goes on where it was.
"""

import argparse
import concurrent.futures
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import yaml

from cluster.progress import say
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from search.analysis.compare import ArmSummary, Estimate, summarise, t_interval


def run_seed(seed: int, output: Path, file: Path) -> None:
    """Render one world and run every target on it."""
    settings = yaml.safe_load(file.read_text())
    folder = output / f"seed{seed}"
    source = MiniGPRConfig(**{**settings["source"], "seed": seed})
    render_minigpr(source, folder / "source")
    for name, distribution in settings["targets"].items():
        target = MiniMarketConfig(**{**settings["target"], "seed": seed, "distribution": distribution})
        render_minimarket(target, folder / name / "photos")
        config = {
            **settings["run"],
            "name": f"{name}-{seed}",
            "seed": seed,
            "source": {"root": str(folder / "source"), "layout": "finegpr"},
            "target": {"root": str(folder / name / "photos"), "layout": "market1501"},
        }
        path = folder / name / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        command = [
            sys.executable,
            "-m",
            "cluster.cli",
            "run",
            str(path),
            "--output",
            str(folder / name / "run"),
            "--serial",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.splitlines()[-1]}")
        say(f"seed {seed}, {name}: done")


def record(output: Path, seeds: list[int], folder: Path, commit: str, file: Path) -> None:
    """Write the summary, the table of every training, and the figure."""
    names = list(yaml.safe_load(file.read_text())["targets"])
    rows, agreements, ranks = [], [], []
    for seed in seeds:
        for name in names:
            run = output / f"seed{seed}" / name / "run"
            rows += [{**row, "target": name, "seed": seed} for row in json.loads((run / "results.json").read_text())]
            report = json.loads((run / "report.json").read_text())
            for choice in report["choices"]:
                for each in choice["agreements"]:
                    agreements.append({"target": name, "seed": seed, "objective": choice["objective"], **_flat(each)})
            ranks += [{"target": name, "seed": seed, **_known(each)} for each in report["rank_agreements"]]
    results = pd.DataFrame(rows)
    folder.mkdir(parents=True, exist_ok=True)
    results.to_csv(folder / "results.csv", index=False, lineterminator="\n")
    (folder / "config.yaml").write_text(file.read_text())
    summaries = summarise(results)
    _figure([each for each in summaries if each.metric == "mAP"], folder / "arms.png")
    head = (
        f"`python tests/benchmarks/comparison.py --seeds {' '.join(map(str, seeds))}`, commit {commit}, "
        f"{platform.machine()}, 2 cores, no GPU, {len(rows)} trainings."
    )
    (folder / "summary.md").write_text(_summary(head, summaries, pd.DataFrame(agreements), pd.DataFrame(ranks)))
    say(f"recorded: {folder}")


def _flat(agreement: dict[str, Any]) -> dict[str, Any]:
    flat = {"attribute": agreement["attribute"]}
    for statistic in ("jaccard", "total_variation"):
        flat |= {statistic: agreement[statistic]["value"], f"{statistic}_chance": agreement[statistic]["same_size"]}
    return flat


def _known(rank: dict[str, Any]) -> dict[str, Any]:
    return {name: rank[name] for name in ("objective", "spearman", "kendall", "best_rank", "regret")}


def _summary(head: str, summaries: Iterable[ArmSummary], agreements: pd.DataFrame, ranks: pd.DataFrame) -> str:
    lines = [
        "# Comparison of arms on MiniGPR -> MiniMarket",
        "",
        head,
        "Rendered data throughout: no number stands for FineGPR or Market-1501.",
        "Targets and settings (`config.yaml`) were chosen on seeds 100, 101 and committed before these were run.",
        "mAP in percent, mean over seeds; difference to random paired by seed, with a 95 % t interval.",
        "",
        "| target | arm | mAP | rank-1 | mAP - random |",
        "| --- | --- | --- | --- | --- |",
    ]
    rank1 = {(each.target, each.arm): each for each in summaries if each.metric == "rank-1"}
    for each in summaries:
        if each.metric == "mAP":
            first = rank1[each.target, each.arm].mean
            numbers = f"{_percent(each.mean)} | {_percent(first)} | {_interval(each.difference)}"
            lines.append(f"| {each.target} | {each.arm} | {numbers} |")
    lines += [
        "",
        "## Does the choice resemble the true distribution?",
        "",
        "Jaccard of the value sets (higher is nearer) and total variation of the shares (lower is nearer), mean over",
        "seeds; chance is the mean over random sets of the same size. The last column is paired over seeds.",
        "",
        "| target | objective | attribute | Jaccard | chance | total variation | chance | Jaccard - chance |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (target, objective, attribute), group in agreements.groupby(["target", "objective", "attribute"], sort=False):
        gain = t_interval((group["jaccard"] - group["jaccard_chance"]).tolist())
        mean = group.drop(columns=["target", "objective", "attribute", "seed"]).mean()
        lines.append(
            f"| {target} | {objective} | {attribute} | {mean['jaccard']:.2f} | {mean['jaccard_chance']:.2f} | "
            f"{mean['total_variation']:.2f} | {mean['total_variation_chance']:.2f} | "
            f"{gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f}) |"
        )
    lines += [
        "",
        "## Does an objective rank the arms as training does?",
        "",
        "Over the arms of equal budget; +1 is the same order. Regret: mAP given away by its favourite.",
        "",
        "| target | objective | Spearman | Kendall | rank of its favourite | regret |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (target, objective), group in ranks.groupby(["target", "objective"], sort=False):
        lines.append(
            f"| {target} | {objective} | {group['spearman'].mean():+.2f} | {group['kendall'].mean():+.2f} | "
            f"{group['best_rank'].mean():.1f} | {100 * group['regret'].mean():.1f} |"
        )
    return "\n".join([*lines, "", "![mAP of every arm](arms.png)", ""])


def _percent(estimate: Estimate | None) -> str:
    return "failed" if estimate is None else f"{100 * estimate.mean:.1f}"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:+.1f}"
    return f"{100 * estimate.mean:+.1f} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"


def _figure(summaries: list[ArmSummary], path: Path) -> None:
    """One panel per target: each training as a point, the mean as a bar."""
    matplotlib.use("Agg")
    targets = list(dict.fromkeys(each.target for each in summaries))
    figure, panels = plt.subplots(1, len(targets), figsize=(4 * len(targets), 3.2), sharey=True, squeeze=False)
    for panel, target in zip(panels[0], targets, strict=True):
        arms = [each for each in summaries if each.target == target][::-1]
        for place, each in enumerate(arms):
            panel.plot([100 * value for value in each.values], [place] * len(each.values), "o", color="#9aa4b2", ms=4)
            panel.plot(
                [100 * each.mean.mean] if each.mean else [],
                [place] if each.mean else [],
                "|",
                color="#0b57d0",
                ms=16,
                mew=2.5,
            )
        panel.set_yticks(range(len(arms)), [each.arm.replace("_", " ") for each in arms])
        panel.set_title(target, fontsize=11)
        panel.set_xlabel("mAP, percent")
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("comparison.yaml"))
    parser.add_argument("--output", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--commit", help="the commit that ran, when it is not this one")
    given = parser.parse_args(arguments)
    with concurrent.futures.ProcessPoolExecutor(max_workers=2) as pool:
        num = len(given.seeds)
        for _ in pool.map(run_seed, given.seeds, [given.output] * num, [given.config] * num):
            pass
    record(given.output, given.seeds, given.record, given.commit or _commit(), given.config)


if __name__ == "__main__":
    main(sys.argv[1:])
