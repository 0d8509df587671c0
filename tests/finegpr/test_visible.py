"""Control characters in texts of others are spelt out, and nothing else is touched."""

import pytest

from finegpr.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07a\x1b[31mb", r"\x1b]0;title\x07a\x1b[31mb"),
        ("two\nlines\rover\ttab\x7f", r"two\nlines\rover\ttab\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("photo\u202egpj.exe\u2066\u200f\u2028", r"photo\u202egpj.exe\u2066\u200f\u2028"),
        ("a\udc9b", r"a\udc9b"),
        ("grün 天気 🙂 e\u0301 \\x1b [red] :smile:", "grün 天気 🙂 e\u0301 \\x1b [red] :smile:"),
    ],
)
def test_what_a_terminal_would_obey_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown
