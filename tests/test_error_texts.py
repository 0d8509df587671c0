"""What an error advises has to help: nothing is to be deleted, and no command is given again that would fail again."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DELETES = re.compile(r"\b(delete|erase|rm -|remove (it|the file|the folder|that))\b", re.IGNORECASE)
AGAIN = re.compile(r"\b(run|give|start|try)\b[^;.]*\bagain\b|the same command", re.IGNORECASE)

# Where giving a command again helps, and why; each as a piece of the text.
HELPS = {
    "aside and give the command that wrote it again": "the damaged folder is out of the way",
    "run the `aost measure` command of": "unfinished shards are measured, and those of other inputs anew",
    "give the `aost measure` command of it again": "it was not finished",
    "run the `aost measure` command that began it again": "it was not finished",
    "run the `aost measure --from-sketches` command that wrote it again": "targets of another base are fitted anew",
    "run `aost measure --from-sketches` again with its new place": "another command: with the new place",
    "check address, credentials and network, and run": "after the check",
    "were not finished; run the same command again": "a sweep does what is left",
    "with trials missing": "finished trials are not done again",
    "put it back as it was, and the same command goes on": "after it was put back",
    "did not finish; the same command resumes": "a training goes on where it was",
    "left no result in": "what Ray lost is trained anew",
    "saved, the same command resumes": "after a signal",
    "when the machine is less busy": "another time, and another way is named",
    "this run has": "a run without this figure is another run",
}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of every error made in a module, with {} for what is put in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name.endswith("Error") or name in ("_fail", "kind", "with_code"):
                yield node.lineno, " ".join(_joined(each) for each in node.args)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):  # a piece that errors are made with
            yield node.lineno, _joined(node.value)


def _joined(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(part, ast.FormattedValue) else _joined(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _joined(node.left) + _joined(node.right)
    return ""


@pytest.mark.parametrize("ring", ["finegpr", "search", "cluster"])
def test_no_error_advises_what_cannot_help(ring: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted((ROOT / ring).rglob("*.py"))
        for line, text in texts(path)
        if DELETES.search(text) or (AGAIN.search(text) and not any(piece in text for piece in HELPS))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_text_that_advises_to_delete_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('raise StateError(f"{path} is damaged; " "delete it and run the same command again")\n')
    [(line, text)] = texts(module)
    assert line == 1
    assert DELETES.search(text)
    assert AGAIN.search(text)
