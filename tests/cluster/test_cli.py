"""The command line itself: help, examples, unknown verbs, JSON, pipes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import cli, completion
from cluster.options import Verb
from cluster.verbs import VERBS

NAMES = [verb.name() for verb in VERBS]
HEAVY = ("ray", "torch", "pandas", "xgboost", "nevergrad", "plotly")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cluster import cli\n"
        "try: cli.run(['--help'])\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(f"  {verb} " in done.stdout for verb in NAMES)


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.run([verb, "--help"])
    assert left.value.code == 0
    assert f"Example: aost {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no verb given"),
        (["demoo"], "did you mean 'demo'?"),
        (["render"], "--output"),
        (["index", "x", "--set", "a"], "key=value"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_an_error_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", str(tmp_path), "--json"]) == 3
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["exit_code"] == 3
    assert str(tmp_path) in last["error"]


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["compare", str(tmp_path), "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_not_an_error() -> None:
    script = f"set -o pipefail; {sys.executable} -m cluster.cli --help | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_the_verbs_chain_by_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """render, index, measure, search, select, train and evaluate, each on what the one before has written."""

    def aost(*arguments: str) -> dict[str, object]:
        assert cli.run([*arguments, "--json"]) == 0, capsys.readouterr().err
        result: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return result

    world = tmp_path / "world"
    source, target = tmp_path / "source.parquet", tmp_path / "market.parquet"
    sizes = [f"{which}.{side}" for which in ("source", "target") for side in ("height=48", "width=24")]
    people = ["source.num_identities=6", "source.images_per_identity=14", "source.viewpoints=[0deg, 180deg]"]
    photos = [
        "target.num_train=8",
        "target.train_identities=4",
        "target.validation_identities=1",
        "target.test_identities=3",
    ]
    aost("render", "--output", str(world), "--set", *sizes, *people, *photos)
    aost("index", str(world / "source"), "--layout", "finegpr", "--output", str(source))
    assert aost("index", str(world / "target"), "--layout", "market1501", "--output", str(target))["num_rejected"] == 0
    settings = ["weights=random", "height=32", "width=32", "basis_images=8", "images_per_cell=1"]
    measured = ["measure", str(source), "--targets", str(target), "--output", str(tmp_path / "measured"), "--serial"]
    assert aost(*measured, "--set", *settings)["num_images"] == 84
    budget = ["--set", "budget.images=12", "evaluations=60", "objective=mean_distance"]
    found = aost(
        "search", str(source), "--measurements", str(tmp_path / "measured"), "--output", str(tmp_path / "s"), *budget
    )
    manifest = tmp_path / "manifest.parquet"
    drawn = aost("select", str(source), "--subset", str(found["subset"]), "--images", "12", "--output", str(manifest))
    assert drawn["num_images"] == 12
    quick = ["--recipe", "quick", "--set", "steps=2", "batch_size=8", "--output", str(tmp_path / "model")]
    trained = aost("train", str(manifest), *quick)
    scored = aost(
        "evaluate", str(trained["checkpoint"]), "--target", str(target), "--output", str(tmp_path / "metrics.json")
    )
    assert 0 < float(str(scored["mAP"])) <= 1


TYPED = [
    (["aost", "se"], ["search", "select"]),
    (["aost", "search", "--val"], ["--validation"]),
    (["aost", "measure", "x.parquet", "--set", "a=1", "--ser"], ["--serial"]),
    (["aost", "evaluate", "--part", ""], ["test", "validation"]),
    (["aost", "run", "my"], []),  # the shell's own names of files
]


@pytest.mark.parametrize(("words", "offered"), TYPED)
def test_bash_completes_verbs_options_and_choices(words: list[str], offered: list[str]) -> None:
    line = f"""
        eval "$({sys.executable} -m cluster.cli --completion bash)"
        [[ "$(complete -p aost)" == "complete -o default -F _aost aost" ]] || exit 1
        COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}
        _aost; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert _lines(["bash", "--norc", "-c", line]) == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(("words", "offered"), TYPED)
def test_zsh_completes_verbs_options_and_choices(words: list[str], offered: list[str]) -> None:
    """With stand-ins for the functions of zsh's completion, which lives in a terminal only."""
    line = f"""
        compdef() {{ [[ "$*" == "_aost aost" ]] || exit 1 }}
        compadd() {{ shift; for word in "$@"; do [[ $word == ${{words[CURRENT]}}* ]] && print -r -- $word; done; true }}
        _files() {{ true }}
        eval "$({sys.executable} -m cluster.cli --completion zsh)"
        words=({shlex.join(words)}); CURRENT={len(words)}
        _aost
    """
    assert _lines(["zsh", "-f", "-c", line]) == offered


def _lines(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_completed_is_what_the_help_lists(verb: type[Verb], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run([verb.name(), "--help"])
    listed = set(re.findall(r"(?m)^. (?:-h, )?(--[a-z-]+)", capsys.readouterr().out))
    assert set(completion.options(verb)) | {"--help"} == listed


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--completion", "fish"]) == 2
    assert "bash or zsh, got 'fish'" in capsys.readouterr().err


def test_home_is_found_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    parsed = cli._parse(["measure", "~/a.parquet", "--targets", "~/b.parquet", "c.parquet", "--output=~/m"])
    home = tmp_path / "home"
    assert vars(parsed)["catalog"] == home / "a.parquet"
    assert vars(parsed)["targets"] == (home / "b.parquet", Path("c.parquet"))
    assert vars(parsed)["output"] == home / "m"
    (home / "my.yaml").write_text(
        "name: x\noutput: ~/runs/x\nsource: {root: ~/none, layout: folder}\ntarget: {root: ~/none, layout: folder}\n"
        "budget: {images: 1}\ntrain: {recipe: quick}\n"
    )
    assert cli.run(["check", "~/my.yaml", "--serial"]) == 3
    assert cli.run(["run", "~/my.yaml", "--serial"]) == 3
    assert (home / "runs" / "x").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_what_a_table_was_read_as_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "t.csv").write_text("path;pid\na.jpg;0\n")
    options = [f"table={tmp_path / 't.csv'}", "identity_column=pid"]
    output = str(tmp_path / "out" / "c.parquet")
    done = cli.run(["index", str(tmp_path), "--layout", "table", "--json", "--output", output, "--set", *options])
    assert done == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["num_images"] == 1
    assert "t.csv: read as separated by semicolons" in said.err
    assert "count from 0; each is listed one higher" in said.err
