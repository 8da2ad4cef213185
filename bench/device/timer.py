"""Times on a device: between two events around so many repetitions that asking for them costs nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from bench.timer import Times, Work

TURN = 0.02  # seconds between two events, at least
MOST_AT_ONCE = 1000  # repetitions between two events


@dataclass
class DeviceTimes(Times):
    """Seconds of a repetition on the device, and for the host to ask for one."""

    host: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """As a result file holds them."""
        return super().figures() | {"host_ms": float(f"{1e3 * float(torch.tensor(self.host).median()):.4g}")}


def timed(device: torch.device, work: Work, repetitions: int) -> tuple[float, float]:
    """Seconds of one of the repetitions: on the device from the first to the last, and for the host to ask."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repetitions):
            work()
        seconds = (time.perf_counter() - started) / repetitions
        return seconds, seconds
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    begin.record()
    for _ in range(repetitions):
        work()
    end.record()
    asked = (time.perf_counter() - started) / repetitions
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / repetitions, asked


def in_turns(
    device: torch.device, competitors: Mapping[str, Work], seconds: float, least: int = 3
) -> dict[str, DeviceTimes]:
    """Times pieces of work in turns, each for about so many seconds; long ones at least `least` times.

    Work that takes longer than `seconds` is warmed up once, and timed twice.
    """
    times: dict[str, DeviceTimes] = {}
    at_once: dict[str, int] = {}
    rounds: dict[str, int] = {}
    for name, work in competitors.items():
        timed(device, work, 1)
        once, _ = timed(device, work, 1)
        times[name] = DeviceTimes()
        at_once[name] = min(MOST_AT_ONCE, max(1, math.ceil(TURN / max(once, 1e-9)))) if seconds else 1
        wanted = math.ceil(seconds / max(once * at_once[name], 1e-9))
        rounds[name] = 2 if once > seconds > 0 else min(50, max(least, wanted))
    for turn in range(max(rounds.values())):
        for name, work in competitors.items():
            if turn < rounds[name]:
                measured, asked = timed(device, work, at_once[name])
                times[name].seconds.append(measured)
                times[name].host.append(asked)
    return times
