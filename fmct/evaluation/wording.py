"""Numbers as a reader should see them: rounded, with signs, and never rounded into another meaning."""

from __future__ import annotations

from collections.abc import Sequence

MINUS = "−"


def share(value: float | None) -> str:
    """Write an AUROC, average precision or prevalence: 0.83; 0.998 rather than 1.00 when it isn't 1."""
    if value is None:
        return "n/a"
    for digits in (2, 3, 4):
        text = f"{value:.{digits}f}"
        if float(text) not in {0.0, 1.0} or value in {0.0, 1.0}:
            return text
    return "> 0.9999" if value > 0.5 else "< 0.0001"


def signed(value: float | None) -> str:
    """Write a difference with its sign: +0.12, −0.03; +0.001 rather than +0.00 when it isn't 0."""
    if value is None:
        return "n/a"
    digits = 2 if value == 0 or abs(value) >= 0.005 else 3
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    if value and abs(value) < 0.0005:
        return f"{sign}< 0.001"
    return f"{sign}{abs(value):.{digits}f}"


def interval(bounds: Sequence[float] | None) -> str:
    """Write an interval of shares, "0.74–0.91", or "no interval"."""
    return "no interval" if bounds is None else f"{share(bounds[0])}–{share(bounds[1])}"


def signed_interval(bounds: Sequence[float] | None) -> str:
    """Write an interval of differences, "+0.03 to +0.20", or "no interval"."""
    return "no interval" if bounds is None else f"{signed(bounds[0])} to {signed(bounds[1])}"


def p_value(value: float | None) -> str:
    """Write a p value: 0.031; < 0.001; a dash where there is none."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def percent(confidence: float) -> str:
    """Write a confidence level: 95 %."""
    return f"{100 * confidence:g} %"


def count(number: int, singular: str, plural: str = "") -> str:
    """Write a number of things: 1 scan, 1,200 scans."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Write a duration in the unit that fits: 42 s, 12 min, 3.4 h, 2.1 days."""
    for unit, length, below in (("s", 1.0, 100.0), ("min", 60.0, 100.0), ("h", 3600.0, 48.0)):
        if seconds / length < below:
            return f"{seconds / length:.{0 if unit != 'h' else 1}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def significant(value: float) -> str:
    """Write a loss or a rate to three significant digits."""
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def listing(items: Sequence[str]) -> str:
    """Join words: a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
