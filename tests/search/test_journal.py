import json
from pathlib import Path

import pytest

from finegpr.errors import StateError, WriteError
from finegpr.subset import Subset
from search.journal import JOURNAL, TIMINGS, Journal
from search.trial import Trial

CONFIG = {"seed": 1, "budget": {"images": 100, "most": 0.5}}


def make_trials(generation: int, num: int = 3) -> list[Trial]:
    return [
        Trial(
            index=generation * num + place,
            generation=generation,
            proposal=generation * num + place,
            subset=Subset({"weather": ["foggy", "sunny"][: 1 + place % 2]}),
            status="failed" if place == 2 else "scored",
            score=None if place == 2 else 0.1 + generation,
            loss=1e12 if place == 2 else 0.1 + generation,
        )
        for place in range(num)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal(tmp_path, CONFIG)
    for generation in range(3):
        journal.append(make_trials(generation), seconds=0.5)
    return tmp_path / JOURNAL


def test_what_is_appended_is_read_back(path: Path) -> None:
    journal = Journal(path.parent, CONFIG)
    assert journal.generations == [tuple(make_trials(generation)) for generation in range(3)]
    assert journal.notice is None
    assert "seconds" not in path.read_text()
    timings = [json.loads(line) for line in (path.parent / TIMINGS).read_text().splitlines()]
    assert timings == [{"generation": generation, "seconds": 0.5} for generation in range(3)]


def test_a_journal_cut_anywhere_after_the_header_loses_only_the_last_generation(path: Path) -> None:
    data = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(data) if byte == ord("\n")]
    header, closes = ends[0], ends[4::4]
    for cut in [*range(header, len(data), 5), *closes[:-1], *range(len(data) - 8, len(data))]:
        path.write_bytes(data[:cut])
        journal = Journal(path.parent, CONFIG)
        whole = sum(close <= cut for close in closes)
        assert len(journal.generations) == whole
        assert (journal.notice is None) == (cut in (header, *closes))
        for generation in range(whole, 3):
            journal.append(make_trials(generation), seconds=0)
        assert path.read_bytes() == data


@pytest.mark.parametrize("flip", [1, 2, 128])
def test_a_changed_byte_is_found_with_its_line(path: Path, flip: int) -> None:
    data = path.read_bytes()
    for place in range(0, len(data) - 1, 7):
        damaged = bytearray(data)
        damaged[place] ^= flip
        path.write_bytes(damaged)
        with pytest.raises(
            StateError, match=rf"{JOURNAL}( line \d+ is damaged| belongs to another| has journal format)"
        ):
            Journal(path.parent, CONFIG)


def test_a_missing_line_is_found(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(len(lines) - 1):
        path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
        with pytest.raises(StateError):
            Journal(path.parent, CONFIG)
    path.write_bytes(b"")
    with pytest.raises(StateError, match="line 1 is damaged"):
        Journal(path.parent, CONFIG)


@pytest.mark.parametrize("text", ["[1]", "{", '{"kind": "trial", "index": NaN}', '{"kind":"trial"}', "[" * 100_000])
def test_other_lines_are_refused(path: Path, text: str) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], text, *lines[2:]]) + "\n")
    with pytest.raises(StateError, match="line 3 is damaged"):
        Journal(path.parent, CONFIG)


def test_another_config_is_refused_with_a_field_diff(path: Path) -> None:
    changed = {"seed": 2, "budget": {"images": 100, "most": 0.6}, "new": True}
    with pytest.raises(StateError) as error:
        Journal(path.parent, changed)
    message = str(error.value)
    assert "budget.most: was 0.5, now 0.6; new: was null, now true; seed: was 1, now 2" in message
    assert "images" not in message


def test_another_type_is_another_config(path: Path) -> None:
    with pytest.raises(StateError, match="seed: was 1, now 1.0"):
        Journal(path.parent, CONFIG | {"seed": 1.0})


def test_the_order_of_config_keys_does_not_matter(path: Path) -> None:
    Journal(path.parent, {"budget": {"most": 0.5, "images": 100}, "seed": 1})


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        Journal(tmp_path / "file", CONFIG)


@pytest.mark.parametrize(
    ("field", "value"),
    [("index", -1), ("status", "fine"), ("loss", None), ("score", "1"), ("subset", {"weather": []}), ("extra", 1)],
)
def test_a_wrong_record_is_no_trial(field: str, value: object) -> None:
    record = make_trials(0)[0].to_record()
    assert Trial.from_record(json.loads(json.dumps(record))) == make_trials(0)[0]
    with pytest.raises(ValueError):
        Trial.from_record({**record, field: value})
