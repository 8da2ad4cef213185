"""What this machine can do at best, measured by the same clock, in the same rounds and with the same threads.

- The FMA peak: multiply-adds between registers, compiled with the kernels (``csrc/cpu/fma_peak.cpp``).
- Memory: a copy by torch between two arrays of 64 MiB, counted as read and written once each.
- The library's product, for scale: ``torch.mm`` of 4,096 rows with a 256 x 256 weight (MKL on x86).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bench.timer import Times, Work
from nri_fast import _core

COPIED_BYTES = 64 << 20
BLOCKS = 64  # of multiply-adds a thread: a few milliseconds
ROWS, WIDTH = 4096, 256
PEAK = "peak_gflops"


@dataclass(frozen=True)
class Limit:
    """A piece of work that does nothing but reach a limit, and how much it does of it."""

    work: Work
    amount: float  # 1e9 operations or bytes


def limits(threads: int) -> dict[str, Limit]:
    """`PEAK`, ``copy_gb_per_s`` and ``library_product_gflops`` of so many threads."""
    operations = _core.fma_operations(threads, BLOCKS * threads)
    source, target = torch.zeros(COPIED_BYTES // 4), torch.zeros(COPIED_BYTES // 4)
    rows, weight, out = torch.rand(ROWS, WIDTH), torch.rand(WIDTH, WIDTH), torch.zeros(ROWS, WIDTH)
    return {
        PEAK: Limit(lambda: _core.fma_operations(threads, BLOCKS * threads), operations / 1e9),
        "copy_gb_per_s": Limit(lambda: target.copy_(source), 2 * COPIED_BYTES / 1e9),
        "library_product_gflops": Limit(lambda: torch.mm(rows, weight, out=out), 2e-9 * ROWS * WIDTH * WIDTH),
    }


def figures(floor: dict[str, Limit], times: dict[str, Times]) -> dict[str, float]:
    """Median rates, in 1e9 a second; of the peak, which everything is divided by, the quartiles too."""
    rates = {name: round(limit.amount / times[name].median, 1) for name, limit in floor.items()}
    low, high = np.quantile(times[PEAK].seconds, (0.75, 0.25))
    spread = {"lower_quartile": floor[PEAK].amount / low, "upper_quartile": floor[PEAK].amount / high}
    return rates | {f"{PEAK}_{name}": round(float(rate), 1) for name, rate in spread.items()}
