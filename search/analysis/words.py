"""Numbers as words, the same in every report, table and sentence."""

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, with a typographic minus."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def number(value: float | None) -> str:
    """Three significant digits without a needless exponent; a dash for None."""
    if value is None:
        return NONE
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", MINUS)


def decimals(value: float | None) -> str:
    """Two decimals, for correlations and shares; a dash for None."""
    return NONE if value is None else f"{value:.2f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A fraction as a percentage, with enough digits to tell a small one from none."""
    value = 100 * share
    digits = 0 if value >= 99.95 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{digits}f} %" if value == 0 or value >= 0.01 else f"{value:.0e} %".replace("-", MINUS)


def odds(share: float) -> str:
    """How often chance does as well, which a sample cannot tell from never below one in a thousand."""
    return "< 0.1 %" if share < 0.001 else percent(share)


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.8 s, 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``1 seed``, ``3 seeds``, ``2,000 images``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
