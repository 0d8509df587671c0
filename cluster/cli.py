"""The command line ``aost``: one dataclass per verb. Heavy libraries are imported only when a verb runs."""

import difflib
import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import tyro

from finegpr.errors import AostError, ConfigError

EXIT_TERMINATED = 75
EXIT_INTERRUPTED = 130
# After SIGTERM a Ray job has three seconds before it is killed; whatever still hangs by then is left behind.
GRACE_SECONDS = 1.5


class _Terminated(BaseException):
    """SIGTERM arrived; everything finished so far is on disk."""


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Options that every verb has."""

    json: bool = False
    """Print one JSON object with the results as the last line of standard output."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> dict[str, Any]:
        """Do the work and return what ``--json`` prints."""
        from cluster.verbs.run import run as verbs

        result: dict[str, Any] = getattr(verbs, type(self).__name__.lower())(self)
        return result


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """The main job on the embedded default: render a source and a target, choose, train, compare, report.

    Example: aost demo --output runs/demo --seed 1
    """

    output: Path = Path("runs/demo")
    """Run folder. The same command resumes in it."""
    seed: int = 0
    set: tuple[str, ...] = ()
    """Settings to change, such as measure.images_per_cell=1 seeds=[0,1]."""
    serial: bool = False
    """Without Ray: one process, the reference."""
    fork: bool = False
    """Changed settings: start a new run folder beside this one, sharing what has not changed."""
    fresh: bool = False
    """Changed settings: set the journals they contradict aside and begin these stages again."""


@dataclass(frozen=True, kw_only=True)
class Run(Verb):
    """The main job on your own data, as a config file describes it. The same command resumes.

    Example: aost run my.yaml --set search.evaluations=4000 train.steps=2000
    """

    config: tyro.conf.Positional[Path]
    """YAML file; see cluster/configs/ for commented examples."""
    set: tuple[str, ...] = ()
    """Settings to change, such as measure.height=128 train.recipe=quick."""
    output: Path | None = None
    """Run folder; by default the config's `output`, or runs/<name of the config>."""
    serial: bool = False
    """Without Ray: one process, the reference."""
    fork: bool = False
    """Changed settings: start a new run folder beside this one, sharing what has not changed."""
    fresh: bool = False
    """Changed settings: set the journals they contradict aside and begin these stages again."""


@dataclass(frozen=True, kw_only=True)
class Render(Verb):
    """Draw MiniGPR (a synthetic source with labels) and MiniMarket (a photo-like target).

    Example: aost render --output worlds/one --set source.num_identities=200
    Example: aost render --sheet sheet.jpg
    """

    output: Path | None = None
    """Folder for `source/` and `target/`; the same command resumes."""
    sheet: Path | None = None
    """Write a contact sheet instead of, or beside, a world."""
    set: tuple[str, ...] = ()
    """Settings of the world, such as source.num_identities=200 target.seed=3."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Index(Verb):
    """List an image folder's images and labels in one catalog.

    Example: aost index data/FineGPR --layout finegpr --output finegpr.parquet
    Example: aost index s3://bucket/FineGPR --layout finegpr --output finegpr.parquet
    Example: aost index photos --layout table --set table=labels.csv path_column=file --output mine.parquet
    """

    root: tyro.conf.Positional[str]
    """A folder, or the address of one in a store, such as s3://bucket/prefix."""
    layout: str = "finegpr"
    """finegpr, market1501, table or folder."""
    set: tuple[str, ...] = ()
    """Options of the layout, such as identity_attributes=people.csv."""
    output: Path = Path("catalog.parquet")


@dataclass(frozen=True, kw_only=True)
class Measure(Verb):
    """Measure every sampled image of a catalog against one or several targets, in one pass. The same command resumes.

    Example: aost measure source.parquet --targets market.parquet duke.parquet --output measurements
    Example: aost measure --from-sketches measurements --targets new.parquet --output measurements-new
    Example: aost measure source.parquet --targets market.parquet --set adaptive.budget.images=20000
    """

    catalog: tyro.conf.Positional[Path | None] = None
    """The source; not with --from-sketches."""
    targets: tuple[Path, ...]
    """Catalogs of the targets; each is called by its file's name."""
    from_sketches: Path | None = None
    """A finished measurement: add targets by its sketches, without an image of the source, in this process. Its
    settings hold; --set takes scale, weights (where that file is now), and max_off_basis=0.25 and max_error=0.1, above
    which the sketches are refused as too coarse."""
    output: Path = Path("measurements")
    set: tuple[str, ...] = ()
    """Settings, such as height=128 width=64 weights=vgg19.safetensors images_per_cell=2.

    With adaptive.budget.images=20000, only as many of these images, round by round, as a search under this budget
    needs for its choice to stand: adaptive.objective=mmd_rbf adaptive.target=market (where there are several)
    adaptive.ceiling=0.5 adaptive.batch=0.02 adaptive.seed_cells=0.5 adaptive.explore=0.1 (shares of all images, of
    all cells and of a batch) adaptive.patience=3 adaptive.tolerance=0.001. See adaptive.json in the output.
    """
    serial: bool = False
    """Without Ray: one process, the reference."""


@dataclass(frozen=True, kw_only=True)
class Search(Verb):
    """Search the subset of attribute values that is nearest to a target, by an objective. The same command resumes.

    Example: aost search source.parquet --measurements measurements --target market --set budget.images=20000
    """

    catalog: tyro.conf.Positional[Path]
    measurements: Path = Path("measurements")
    target: str | None = None
    """Which of the measured targets; not needed when there is one."""
    validation: Path | None = None
    """A target's catalog: objective=training searches by short trainings, scored on its labelled validation part, or by
    training.score=label_free on photos; after a search by any other objective its best subsets are trained and ranked
    by mAP (check.top=5 check.random=5 check.seeds=[0])."""
    serial: bool = False
    """Trainings in this process, without Ray."""
    output: Path = Path("search")
    set: tuple[str, ...] = ()
    """Settings, such as objective=mmd_rbf evaluations=2000 budget.images=20000 seed=1 training.train.recipe=quick."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Verb):
    """Search at every point of a grid, or at a sample of them: one table, one page. The same command resumes.

    Example: aost sweep source.parquet --output sweep --set images=[5000,20000] objectives=[mmd_rbf,mmd_linear]
    """

    catalog: tyro.conf.Positional[Path]
    measurements: Path = Path("measurements")
    targets: tuple[str, ...] = ()
    """Which of the measured targets; by default all."""
    output: Path = Path("sweep")
    set: tuple[str, ...] = ()
    """Lists: objectives scales alphas betas layer_weights images identities bounds seeds optimizers; sample=2000."""
    serial: bool = False
    """Without Ray: one process, the reference."""
    fresh: bool = False
    """Changed settings: set the old sweep aside and begin again."""


@dataclass(frozen=True, kw_only=True)
class Select(Verb):
    """Draw exactly the budgeted number of images from a subset.

    Example: aost select source.parquet --subset search/subset.json --images 20000 --output manifest.parquet
    Example: aost select source.parquet --selector snp --measurements measurements --images 20000
    """

    catalog: tyro.conf.Positional[Path]
    images: int
    """Budget: how many images the manifest holds."""
    subset: Path | None = None
    """A subset.json; without it, images are drawn from everything."""
    selector: Literal["importance", "snp"] | None = None
    """Instead of a subset, choose image by image: as often as the target shows their attributes (importance), or
    clusters of people grown by Frechet distance, then farthest points (snp)."""
    measurements: Path | None = None
    """What the selector goes by."""
    target: str | None = None
    """Which of the measured targets; not needed when there is one."""
    identities: int | None = None
    """How many identities the manifest holds; by default all of the subset's."""
    seed: int = 0
    output: Path = Path("manifest.parquet")


@dataclass(frozen=True, kw_only=True)
class Train(Verb):
    """Train a re-identification model on a manifest or a catalog. The same command resumes.

    Example: aost train manifest.parquet --recipe paper --workers 4 --output model
    """

    manifest: tyro.conf.Positional[Path]
    recipe: str = "paper"
    """A named recipe: paper or quick."""
    set: tuple[str, ...] = ()
    """Settings of the recipe to change, such as epochs=60 weights=resnet50.safetensors."""
    workers: int = 1
    """Ray Train workers; 1 trains in this process."""
    gpu: bool = False
    """Give every Ray Train worker one GPU."""
    seed: int = 0
    output: Path = Path("model")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Verb):
    """Score a trained model on a labelled target: mAP and CMC.

    Example: aost evaluate model/model.safetensors --target market.parquet
    """

    checkpoint: tyro.conf.Positional[Path]
    target: Path
    """Catalog with query and gallery parts."""
    part: Literal["test", "validation"] = "test"
    output: Path = Path("metrics.json")


@dataclass(frozen=True, kw_only=True)
class Compare(Verb):
    """Print the comparison of a run's arms: mAP, paired differences, agreement with the true distribution.

    Example: aost compare runs/demo
    """

    folder: tyro.conf.Positional[Path]


@dataclass(frozen=True, kw_only=True)
class Diff(Verb):
    """Say in words how one subset differs from another: what it adds and what it drops.

    Example: aost diff old/subset.json new/subset.json --catalog source.parquet
    """

    old: tyro.conf.Positional[Path]
    new: tyro.conf.Positional[Path]
    catalog: Path
    """The source, whose attributes the subsets are of."""


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write the journal of a search as an Optuna study, for optuna-dashboard and Optuna's plots.

    Example: aost export runs/demo/search/mmd_rbf/journal.jsonl --storage study.log --study demo
    """

    journal: tyro.conf.Positional[Path]
    storage: str
    """An Optuna journal file, or a database such as sqlite:///studies.db (slower)."""
    study: str
    """Name of the new study."""


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Write a run's report.html again from what is in its folder.

    Example: aost report runs/demo
    """

    folder: tyro.conf.Positional[Path]


_VERBS = (Demo, Run, Render, Index, Measure, Search, Sweep, Select, Train, Evaluate, Compare, Diff, Export, Report)


def _help() -> str:
    lines = [f"  {verb.__name__.lower():10}{(verb.__doc__ or '').splitlines()[0]}" for verb in _VERBS]
    return "\n".join(
        (
            "usage: aost VERB [options]",
            "",
            "Choose which part of an attribute-labelled synthetic data set to train on, for a target you only have",
            "photos of. Start with: aost demo",
            "",
            *lines,
            "",
            "aost VERB --help shows a verb's options, with an example.",
        )
    )


def _parse(arguments: list[str]) -> Verb:
    name, *rest = arguments or [""]
    verbs = {verb.__name__.lower(): verb for verb in _VERBS}
    if name in ("-h", "--help"):
        print(_help())
        sys.exit(0)
    if name not in verbs:
        near = difflib.get_close_matches(name, verbs, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"verbs: {', '.join(verbs)}"
        raise ConfigError(f"{'unknown verb ' + repr(name) if name else 'no verb given'}; {advice}")
    if rest.count("--set") > 1:
        raise ConfigError("--set is there twice; give all settings after one --set")
    parsed: Verb = tyro.cli(verbs[name], args=rest, prog=f"aost {name}", config=(tyro.conf.FlagCreatePairsOff,))
    return parsed


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``aost``; exits with the codes that README lists."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code in (EXIT_TERMINATED, EXIT_INTERRUPTED):
        # Nothing of ours is left to do, and what Ray does at an exit takes seconds.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors become one line on standard error."""
    _install_signals()
    verb = Verb()
    try:
        verb = _parse(arguments)
        result = verb.run()
        if verb.json:
            print(json.dumps(result, sort_keys=True, allow_nan=False))
        sys.stdout.flush()
        return 0
    except AostError as error:
        return _fail(str(error), error.exit_code, verb)
    except MemoryError:
        return _fail("out of memory; use a smaller batch_size, or fewer workers", 6, verb)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted; finished work is saved, the same command resumes", EXIT_INTERRUPTED, verb)
    except _Terminated:
        return _fail("terminated; finished work is saved, the same command resumes", EXIT_TERMINATED, verb)


def _fail(message: str, code: int, verb: Verb) -> int:
    if verb.debug:
        traceback.print_exc()
    line = " ".join(message.split())
    print(f"aost: {line}", file=sys.stderr, flush=True)
    if verb.json:
        print(json.dumps({"error": line, "exit_code": code}), flush=True)
    return code


def _install_signals() -> None:
    """The first signal unwinds, so that files are closed; the second ends the process at once.

    After SIGTERM a hang ends it too, because whoever sends one kills soon; Ctrl-C waits for a second one.
    """

    def leave(code: int) -> None:
        timer = threading.Timer(GRACE_SECONDS, os._exit, (code,))
        timer.daemon = True
        timer.start()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        leave(EXIT_TERMINATED)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))
        raise _Terminated

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)


if __name__ == "__main__":
    main()
