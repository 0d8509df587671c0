"""The command line itself: help, examples, unknown verbs, JSON, pipes."""

import dataclasses
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
        (["demoo"], "did you mean 'demo'?"),
        (["render"], "--output"),
        (["index", "x", "--set", "a"], "key=value"),
        (["sweep", "--targets", "market", "s.parquet", "--serial"], "no catalog given; it comes before --targets"),
        (["measure", "--targets", "t.parquet", "s.parquet"], "the source's catalog, before --targets"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert all(f"  {verb} " in said.err for verb in NAMES)
    assert said.err.splitlines()[-1].startswith("aost: no verb given")


@pytest.mark.parametrize(
    ("arguments", "positional"),
    [
        (["search", "--set", "seed=1", "s.parquet", "--output", "o"], {"catalog": "s.parquet"}),
        (["search", "--set", "s.parquet", "seed=1", "--json"], {"catalog": "s.parquet"}),
        (["run", "--serial", "--set", "seed=1", "my.yaml", "--fresh"], {"config": "my.yaml"}),
        (["index", "--set", "a=1", "photos", "--layout", "table"], {"root": "photos"}),
        (["measure", "--set", "seed=1", "s.parquet", "--targets", "t.parquet"], {"catalog": "s.parquet"}),
        (["train", "--seed", "1", "--set", "seed=1", "m=1.parquet", "m.parquet"], {"manifest": "m.parquet"}),
    ],
)
def test_settings_swallow_no_positional_argument(arguments: list[str], positional: dict[str, str]) -> None:
    parsed = cli._parse(arguments)
    assert {name: str(vars(parsed)[name]) for name in positional} == positional
    assert "seed=1" in vars(parsed)["set"] or "a=1" in vars(parsed)["set"]


def test_what_is_no_setting_is_left_where_no_argument_is_missing() -> None:
    parsed = cli._parse(["search", "s.parquet", "--set", "seed=1", "other"])
    assert vars(parsed)["set"] == ("seed=1", "other")


@pytest.mark.parametrize("verb", NAMES)
def test_settings_are_listed_with_defaults_and_words(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the arguments that the verb needs."""
    kind = next(each for each in VERBS if each.name() == verb)
    if not any(field.name == "set" for field in dataclasses.fields(kind)):
        assert cli.run([verb, "--settings"]) == 2
        assert "no settings" in capsys.readouterr().err
        return
    with pytest.raises(SystemExit) as left:
        cli.run([verb, "--settings"])
    assert left.value.code == 0
    listed = capsys.readouterr().out
    one = {
        "measure": "images_per_cell=null  # of each cell of attribute values; null measures all",
        "search": "budget.images=...  # exactly this many are trained on",
        "sweep": "evaluations=300  # new subsets scored in each search",
        "train": "epochs=120  # passes over the images; or",
        "render": "source.num_identities=100",
        "index": "identity_column=null  # without it nobody is seen twice: fine to measure, not to train on",
    }.get(verb, "# images_per_cell: null # of each cell of attribute values; null measures all")
    assert " ".join(one.split()) in " ".join(listed.split())


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


def test_the_verbs_chain_by_the_commands_that_they_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """render, index, measure, search, select, train and evaluate: each is what the one before has named as next."""

    def aost(*arguments: str) -> dict[str, str]:
        assert cli.run([*arguments, "--json"]) == 0, capsys.readouterr().err
        said = capsys.readouterr()
        result: dict[str, str] = json.loads(said.out.splitlines()[-1])
        files = result["files"]
        assert isinstance(files, dict)
        assert files
        for path in files.values():
            assert Path(path).exists()
            assert path in said.err
        assert said.err.splitlines()[-1] == f"next: {result['next']}" if "next" in result else True
        return result

    def following(result: dict[str, str], *more: str, **words: str) -> list[str]:
        """The next command, its words in capitals filled in; what is given as ``more`` follows."""
        _, *command = shlex.split(result["next"])
        for word, value in words.items():
            command = [each.replace(word, value) for each in command]
        assert not [each for each in command if re.search(r"\b[A-Z]{4,}\b", each)]
        return [*command, *more]

    monkeypatch.chdir(tmp_path)
    sizes = [f"{which}.{side}" for which in ("source", "target") for side in ("height=48", "width=24")]
    people = ["source.num_identities=6", "source.images_per_identity=14", "source.viewpoints=[0deg, 180deg]"]
    photos = [
        "target.num_train=8",
        "target.train_identities=4",
        "target.validation_identities=1",
        "target.test_identities=3",
    ]
    rendered = aost("render", "--output", "my world", "--set", *sizes, *people, *photos)
    market = aost("index", "my world/target", "--layout", "market1501", "--output", "market.parquet")
    assert market["next"] == "aost measure SOURCE.parquet --targets market.parquet --output measurements"
    indexed = aost(*following(rendered))
    settings = ["network=vgg19", "weights=random", "height=32", "width=32", "basis_images=8", "images_per_cell=1"]
    measured = aost(*following(indexed, "--serial", "--set", *settings, TARGET="market"))
    assert measured["num_images"] == 84
    found = aost(*following(measured, "evaluations=60", "objective=mean_distance", IMAGES="12"))
    drawn = aost(*following(found))
    assert drawn["num_images"] == 12
    trained = aost(*following(drawn, "--recipe", "seconds", "--set", "steps=2", "batch_size=8"))
    scored = aost(*following(trained, TARGET="market"))
    assert 0 < float(scored["mAP"]) <= 1


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
        "budget: {images: 1}\ntrain: {recipe: seconds}\n"
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
