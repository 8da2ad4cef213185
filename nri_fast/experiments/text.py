"""Figures as the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

NONE = "-"


def percent(values: Sequence[float]) -> str:
    """Mean of shares in per cent, with the standard deviation over repetitions where there are several."""
    if not values:
        return NONE
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}"


def error(values: Sequence[float | None]) -> str:
    """Mean of squared errors."""
    there = [value for value in values if value is not None]
    return f"{mean(there):.2e}" if there else NONE


def seconds(values: Sequence[float | None]) -> str:
    """Mean of times; those of interrupted work are unknown."""
    there = [value for value in values if value is not None]
    return f"{mean(there):.1f}" if there else NONE


def seeds(count: int) -> str:
    """How many."""
    return "1 seed" if count == 1 else f"mean of {count} seeds"


def number(values: Sequence[float], digits: int = 4) -> str:
    """Mean."""
    return f"{mean(values):.{digits}f}" if values else NONE
