"""Texts that somebody else chose (file names, labels, names of columns), as a terminal may show them."""

import re

# What a terminal obeys (C0, DEL, C1), what turns the order of the letters around or breaks a line (bidirectional marks,
# line and paragraph separators), and halves of a pair, which stand for bytes that were no text.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""One line in which every control character is spelt out, as in ``\x1b[31m``; all else is left as it is."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
