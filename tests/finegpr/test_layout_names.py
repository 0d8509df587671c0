"""Numbers read off many names at once, against the regular expression asked name by name."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegpr.layouts import finegpr, names
from finegpr.layouts.names import read_numbers

PATTERN = r"(?:(?P<folder>[0-9]{2,9})/)?(?P<identity>[0-9]{2,9})_c(?P<camera>[0-9]{2})\.(?i:jpg|jpeg)"
PARTS = st.sampled_from(
    ["0", "12", "345", "6789", "123456789", "/", "_c", "_c01", ".jpg", ".JPEG", "é", "\n", "٣", "x"]
)


def assert_read_as_one_by_one(texts: Sequence[str], pattern: str = PATTERN) -> None:
    matched, numbers = read_numbers(pa.array(texts, pa.string()), pattern)
    matches = [re.fullmatch(pattern, text, re.ASCII) for text in texts]
    assert matched.tolist() == [match is not None for match in matches]
    for group in re.compile(pattern).groupindex:
        expected = [int(match[group]) if match is not None and match[group] else -1 for match in matches]
        assert numbers[group].tolist() == expected


@settings(deadline=None)
@given(st.lists(st.lists(PARTS, max_size=6).map("".join), max_size=30))
def test_any_mixture_of_names(texts: list[str]) -> None:
    assert_read_as_one_by_one(texts)


@pytest.mark.parametrize("num_spellings", [0, 1, 3, 100])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_many_spellings_in_many_chunks(monkeypatch: pytest.MonkeyPatch, num_spellings: int, chunk: int) -> None:
    monkeypatch.setattr(names, "_MAX_SPELLINGS", num_spellings)
    monkeypatch.setattr(names, "_CHUNK", chunk)
    random = np.random.default_rng(0)
    texts = []
    for row in range(200):
        person = f"{random.integers(10, 10 ** random.integers(2, 10))}"
        folder = random.choice(["", f"{person}/", "99/", "a/"])
        texts.append(f"{folder}{person}_c{row % 100:02}{random.choice(['.jpg', '.jpeg', '.JPG', '.png', ''])}")
    assert_read_as_one_by_one(texts)
    matched, _ = read_numbers(pa.array(texts), PATTERN)
    assert 20 < matched.sum() < 180


def test_names_that_differ_from_a_good_one_by_one_byte() -> None:
    good = "0012/0012_c07_w04_l02_p09.jpg"
    mutants = [good[:place] + byte + good[place + 1 :] for place in range(len(good)) for byte in "09/_:cwlpjJ.\n"]
    assert_read_as_one_by_one([good, *mutants], finegpr._NAME)


def test_slices_and_wide_offsets() -> None:
    texts = ["11_c01.jpg", "", "22_c02.jpg", "33/33_c03.jpg", "no"]
    for paths in (pa.array(texts).slice(1, 3), pa.array(texts, pa.large_string()).slice(1, 3)):
        matched, numbers = read_numbers(paths, PATTERN)
        assert matched.tolist() == [False, True, True]
        assert numbers["identity"].tolist() == [-1, 22, 33]
        assert numbers["folder"].tolist() == [-1, -1, 33]
