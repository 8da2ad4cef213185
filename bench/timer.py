"""The shared timer: competitors take turns, so that a busy moment hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleaved(competitors: dict[str, Callable[[], object]], seconds: float = 10.0) -> dict[str, dict[str, float]]:
    """Times each competitor again and again, in turns, for about so many seconds in all.

    Returns
    -------
    dict
        For each competitor: ``median_ms``, ``fastest_ms``, ``slowest_ms``, ``repetitions``.
    """
    for run in competitors.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in competitors}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, run in competitors.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: {
            "median_ms": round(statistics.median(taken), 4),
            "fastest_ms": round(min(taken), 4),
            "slowest_ms": round(max(taken), 4),
            "repetitions": len(taken),
        }
        for name, taken in times.items()
    }
