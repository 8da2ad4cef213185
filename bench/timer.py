"""The shared timer: competitors take turns, so that a busy moment hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Work = Callable[[], object]

TURN = 0.02  # seconds that a turn of a short piece of work is made of
PAUSE = 0.02  # seconds before a turn: threads of the one before must have stopped spinning, torch's after 10 ms


@dataclass
class Times:
    """Seconds that repetitions of one piece of work took."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """In seconds."""
        return float(np.median(self.seconds))

    def figures(self) -> dict[str, float]:
        """As a result file holds them, in milliseconds."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        milliseconds = {
            "median_ms": self.median,
            "lower_quartile_ms": float(low),
            "upper_quartile_ms": float(high),
            "fastest_ms": min(self.seconds),
            "slowest_ms": max(self.seconds),
        }
        return {name: float(f"{1e3 * value:.5g}") for name, value in milliseconds.items()} | {
            "repetitions": len(self.seconds)
        }


def interleaved(competitors: Mapping[str, Work], seconds: float, least: int = 3) -> dict[str, Times]:
    """Times pieces of work in turns, for about so many seconds in all.

    Long work runs once a turn. Short work runs for a fiftieth of a second a turn, the first time unmeasured: caches and
    threads are then as they are in a loop, which is where short work matters.

    Parameters
    ----------
    competitors : mapping of str to callable
    seconds : float
        After this, the round that has begun is the last.
    least : int
        Rounds that there are at any rate.

    Returns
    -------
    dict of str to Times
        One measured repetition a round at least.
    """
    times = {name: Times() for name in competitors}
    expected: dict[str, float] = {}
    for name, work in competitors.items():
        expected[name] = _timed(work)  # warms up: nothing of it is kept
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least or time.perf_counter() < end:
        for name, work in competitors.items():
            time.sleep(PAUSE)
            if expected[name] < TURN / 4:
                work()
                until = time.perf_counter() + TURN
                while True:
                    times[name].seconds.append(_timed(work))
                    if time.perf_counter() >= until:
                        break
            else:
                times[name].seconds.append(_timed(work))
            expected[name] = times[name].median if rounds < least else expected[name]
        rounds += 1
    return times


def _timed(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
