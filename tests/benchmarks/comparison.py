"""The comparison of arms on fresh worlds: five seeds x six targets x three lengths, stated before they were looked at.

    python tests/benchmarks/comparison.py --record results/FOLDER
    python tests/benchmarks/comparison.py --seeds 21 --targets snow --steps 100 300

Each seed renders its own MiniGPR (other people, places and noise) and measures, searches, trains and scores anew, for
each target in turn; the lengths of a target share what was measured and chosen. Targets run side by side, one core
each. An interrupted comparison goes on where it was, and may be done in pieces, as in the second line; a record is
written of what is named, and what of it is not done yet is done first.
"""

import argparse
import concurrent.futures
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import yaml

from cluster.progress import say
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from finegpr.storage import path_part
from search.analysis.compare import ArmSummary, Estimate, summarise, t_interval

RANDOM, EVERYTHING = "random", "everything"
NOT_SHARED = ("train", "images", "results.json", "report.*", "config.yaml")  # by the lengths of one target


def render_source(seed: int, output: Path, settings: dict[str, Any]) -> None:
    """The seed's MiniGPR, which its targets share."""
    render_minigpr(MiniGPRConfig(**{**settings["source"], "seed": seed}), output / f"seed{seed}/source")


def run_target(seed: int, name: str, lengths: Sequence[int], output: Path, settings: dict[str, Any]) -> None:
    """Render one target, and train for each of ``lengths`` in turn; what is done already is passed over."""
    folder = target_folder(output, seed, name)
    photos = {**settings["target"], "seed": seed, "distribution": settings["targets"][name]}
    render_minimarket(MiniMarketConfig(**photos), folder / "photos")
    for steps in lengths:
        run = run_folder(output, seed, name, steps)
        config = {
            **settings["run"],
            "name": f"{name}-{seed}-{steps}",
            "seed": seed,
            "source": {"root": str(output / f"seed{seed}/source"), "layout": "finegpr"},
            "target": {"root": str(folder / "photos"), "layout": "market1501"},
            "arms": settings["steps"][steps],
            "train": {**settings["run"]["train"], "steps": steps},
        }
        text, path = yaml.safe_dump(config, sort_keys=False), folder / f"config-{steps}.yaml"
        if (run / "results.json").exists() and path.exists() and path.read_text() == text:
            continue
        path.write_text(text)
        others = [run_folder(output, seed, name, other) for other in settings["steps"] if other != steps]
        _share(run, others)
        command = [sys.executable, "-m", "cluster.cli", "run", str(path), "--output", str(run), "--serial"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.splitlines()[-1]}")
        say(f"seed {seed}, {name}, {steps} steps: done")
    for steps in lengths:  # 50 MB each, and made anew where they are asked for again
        shutil.rmtree(run_folder(output, seed, name, steps) / "images", ignore_errors=True)


def target_folder(output: Path, seed: int, name: str) -> Path:
    """All of one target and seed."""
    return output / f"seed{seed}" / path_part(name)


def run_folder(output: Path, seed: int, name: str, steps: int) -> Path:
    """The run of one target, seed and length."""
    return target_folder(output, seed, name) / f"run-{steps}"


def _share(run: Path, others: Iterable[Path]) -> None:
    """What was measured and chosen for another length is copied, and the decoded images are taken over."""
    finished = [other for other in others if (other / "results.json").exists()]
    if finished and not run.exists():
        unfinished = run.with_name(f".{run.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(finished[0], unfinished, ignore=shutil.ignore_patterns(*NOT_SHARED))
        unfinished.rename(run)
    for other in finished:
        if (other / "images").exists() and run.exists() and not (run / "images").exists():
            (other / "images").rename(run / "images")


def record(
    output: Path,
    seeds: Sequence[int],
    names: Sequence[str],
    lengths: Sequence[int],
    folder: Path,
    *,
    head: str,
    file: Path,
) -> None:
    """Write the summary, the table of every training, and the figure."""
    rows, agreements, ranks = [], [], []
    for seed in seeds:
        for name in names:
            for steps in lengths:
                run, of = run_folder(output, seed, name, steps), {"steps": steps, "target": name, "seed": seed}
                rows += [{**row, **of} for row in json.loads((run / "results.json").read_text())]
                report = json.loads((run / "report.json").read_text())
                ranks += [{**of, **_known(each)} for each in report["rank_agreements"]]
                if steps != lengths[0]:  # what is chosen does not depend on the length of trainings
                    continue
                for choice in report["choices"]:
                    for each in choice["agreements"]:
                        agreements.append({**of, "objective": choice["objective"], **_flat(each)})
    results = pd.DataFrame(rows)
    results = results[["steps", *results.columns.drop("steps")]]
    folder.mkdir(parents=True, exist_ok=True)
    results.to_csv(folder / "results.csv", index=False, lineterminator="\n")
    (folder / "config.yaml").write_text(file.read_text())
    summaries = {steps: summarise(results[results["steps"] == steps]) for steps in lengths}
    _figure(summaries, folder / "arms.png")
    lines = [
        "# Comparison of arms on MiniGPR -> MiniMarket",
        "",
        f"{head}, {platform.machine()}, 2 cores, no GPU, {len(rows)} trainings.",
        "Rendered data throughout: no number stands for FineGPR or Market-1501.",
        "Settings: `config.yaml`, committed before these seeds were run. Every length is a training of its own.",
        *_together(results),
        *_each_target(summaries),
        *_choices(pd.DataFrame(agreements)),
        *_ranks(pd.DataFrame(ranks)),
        "",
        "![mAP of every arm](arms.png)",
        "",
    ]
    (folder / "summary.md").write_text("\n".join(lines))
    say(f"recorded: {folder}")


def _flat(agreement: dict[str, Any]) -> dict[str, Any]:
    flat = {"attribute": agreement["attribute"]}
    for statistic in ("jaccard", "total_variation"):
        flat |= {statistic: agreement[statistic]["value"], f"{statistic}_chance": agreement[statistic]["same_size"]}
    return flat


def _known(rank: dict[str, Any]) -> dict[str, Any]:
    return {name: rank[name] for name in ("objective", "spearman", "kendall", "best_rank", "regret")}


def _together(results: pd.DataFrame) -> list[str]:
    lines = [
        "",
        "## All targets together",
        "",
        "mAP in percent, mean over targets and seeds. Differences are paired by target and seed; their 95 % t interval",
        "is over the seeds' means, because the targets of a seed share its world.",
        "",
        "| steps | arm | images | people | mAP | mAP - random | mAP - everything |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for steps, group in results.groupby("steps"):
        of_arm = group.pivot_table(index=["seed", "target"], columns="arm", values="mAP")
        for arm in group["arm"].unique():
            rows = group[group["arm"] == arm]
            numbers = f"{rows['num_images'].mean():.0f} | {rows['num_identities'].mean():.0f} | "
            numbers += f"{100 * rows['mAP'].mean():.1f}"
            for baseline in (RANDOM, EVERYTHING):
                numbers += f" | {_interval(lead(of_arm, arm, baseline))}"
            lines.append(f"| {steps} | {arm} | {numbers} |")
    return lines


def lead(of_arm: pd.DataFrame, arm: str, baseline: str) -> Estimate | None:
    """Mean difference of two arms, in a table of (seed, target) by arm; its interval is over seeds."""
    if arm == baseline or not {arm, baseline} <= set(of_arm.columns):
        return None
    paired = (of_arm[arm] - of_arm[baseline]).dropna()
    return t_interval(paired.groupby("seed").mean().tolist()) if len(paired) else None


def _each_target(summaries: dict[int, tuple[ArmSummary, ...]]) -> list[str]:
    lines = [
        "",
        "## Each target",
        "",
        "| steps | target | arm | mAP | rank-1 | mAP - random |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for steps, of_steps in summaries.items():
        rank1 = {(each.target, each.arm): each for each in of_steps if each.metric == "rank-1"}
        for each in of_steps:
            if each.metric == "mAP":
                first = rank1[each.target, each.arm].mean
                numbers = f"{_percent(each.mean)} | {_percent(first)} | {_interval(each.difference)}"
                lines.append(f"| {steps} | {each.target} | {each.arm} | {numbers} |")
    return lines


def _choices(agreements: pd.DataFrame) -> list[str]:
    lines = [
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
        interval = "" if gain.low is None or gain.high is None else f" ({gain.low:+.2f} to {gain.high:+.2f})"
        lines.append(
            f"| {target} | {objective} | {attribute} | {mean['jaccard']:.2f} | {mean['jaccard_chance']:.2f} | "
            f"{mean['total_variation']:.2f} | {mean['total_variation_chance']:.2f} | {gain.mean:+.2f}{interval} |"
        )
    return lines


def _ranks(ranks: pd.DataFrame) -> list[str]:
    lines = [
        "",
        "## Does an objective rank the arms as training does?",
        "",
        "Over the arms of equal budget; +1 is the same order. Regret: mAP given away by its favourite.",
        "",
        "| steps | target | objective | Spearman | Kendall | rank of its favourite | regret |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    numbers = ranks.astype({"spearman": float, "kendall": float})  # None where there are fewer than three arms
    for (steps, target, objective), group in numbers.groupby(["steps", "target", "objective"], sort=False):
        lines.append(
            f"| {steps} | {target} | {objective} | {group['spearman'].mean():+.2f} | {group['kendall'].mean():+.2f} | "
            f"{group['best_rank'].mean():.1f} | {100 * group['regret'].mean():.1f} |"
        )
    return lines


def _percent(estimate: Estimate | None) -> str:
    return "failed" if estimate is None else f"{100 * estimate.mean:.1f}"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:+.1f}"
    return f"{100 * estimate.mean:+.1f} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"


def _figure(summaries: dict[int, tuple[ArmSummary, ...]], path: Path) -> None:
    """One row of panels per length and one panel per target: each training as a point, the mean as a bar."""
    matplotlib.use("Agg")
    shown = {steps: [each for each in found if each.metric == "mAP"] for steps, found in summaries.items()}
    targets = list(dict.fromkeys(each.target for found in shown.values() for each in found))
    heights = [len({each.arm for each in found}) for found in shown.values()]
    figure, panels = plt.subplots(
        len(shown),
        len(targets),
        figsize=(2.6 * len(targets) + 1.5, 0.26 * sum(heights) + 0.7 * len(shown)),
        gridspec_kw={"height_ratios": heights},
        sharex="col",
        sharey="row",
        squeeze=False,
    )
    for row, (steps, found) in zip(panels, shown.items(), strict=True):
        for panel, target in zip(row, targets, strict=True):
            arms = [each for each in found if each.target == target][::-1]
            for place, each in enumerate(arms):
                values = [100 * value for value in each.values]
                panel.plot(values, [place] * len(values), "o", color="#9aa4b2", ms=3)
                if each.mean is not None:
                    panel.plot([100 * each.mean.mean], [place], "|", color="#0b57d0", ms=12, mew=2.2)
            panel.set_yticks(range(len(arms)), [each.arm.replace("_", " ") for each in arms], fontsize=8)
            panel.set_title(f"{target}, {steps} steps", fontsize=8)
            panel.tick_params(axis="x", labelsize=8)
            panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("mAP, percent", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--targets", nargs="+", help="by name; all of the config")
    parser.add_argument("--steps", type=int, nargs="+", help="lengths of trainings; all of the config")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("comparison.yaml"))
    parser.add_argument("--output", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--record", type=Path, help="folder of the record; none is written without it")
    parser.add_argument("--commit", help="the commit that ran, when it is not this one")
    parser.add_argument("--workers", type=int, default=2, help="targets at a time, one core each")
    given = parser.parse_args(arguments)
    settings = yaml.safe_load(given.config.read_text())
    names, lengths = given.targets or list(settings["targets"]), given.steps or list(settings["steps"])
    for what, asked, known in (("target", names, settings["targets"]), ("length", lengths, settings["steps"])):
        if unknown := [each for each in asked if each not in known]:
            raise SystemExit(f"no {what} {unknown[0]!r} in {given.config}; known: {', '.join(map(str, known))}")
    with concurrent.futures.ProcessPoolExecutor(max_workers=given.workers) as pool:
        for rendered in [pool.submit(render_source, seed, given.output, settings) for seed in given.seeds]:
            rendered.result()
        started = [
            pool.submit(run_target, seed, name, lengths, given.output, settings)
            for seed in given.seeds
            for name in names
        ]
        for finished in concurrent.futures.as_completed(started):
            finished.result()
    if given.record is not None:
        head = f"`python tests/benchmarks/comparison.py {' '.join(arguments)}`, commit {given.commit or _commit()}"
        record(given.output, given.seeds, names, lengths, given.record, head=head, file=given.config)


if __name__ == "__main__":
    main(sys.argv[1:])
