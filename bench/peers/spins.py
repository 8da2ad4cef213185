"""The annealer of dwave-samplers, for scale: what a flip costs where an energy is a sum of table entries."""

from __future__ import annotations

import importlib.util
import time

import numpy as np

MOST_SYSTEMS = 128  # a flip's cost does not depend on more
SWEEPS = 400


def why_not() -> str | None:
    """Why it cannot take part; None if it can."""
    if any(importlib.util.find_spec(name) is None for name in ("dwave", "dimod")):
        return "dwave-samplers is not installed (pip install dwave-samplers)"
    return None


def nanoseconds_per_flip(systems: int, entities: int, repetitions: int = 3) -> float:
    """Median over repetitions of a proposed flip's time, the set-up taken off; the annealer has one thread.

    A spin stands for an edge; spins of edges into one entity are coupled, as their messages are.
    """
    import dimod
    from dwave.samplers import SimulatedAnnealingSampler

    systems, degree = min(systems, MOST_SYSTEMS), entities - 1
    spins = systems * entities * degree
    rng = np.random.default_rng(0)
    first = np.arange(0, spins, degree)
    i, j = np.triu_indices(degree, 1)
    pairs = [(int(f + a), int(f + b)) for f in first for a, b in zip(i, j, strict=True)]
    couplings = dict(zip(pairs, rng.standard_normal(len(pairs)).tolist(), strict=True))
    model = dimod.BinaryQuadraticModel(dict(enumerate(rng.standard_normal(spins).tolist())), couplings, "SPIN")
    sampler = SimulatedAnnealingSampler()

    def seconds(sweeps: int) -> float:
        start = time.perf_counter()
        sampler.sample(model, beta_range=(0.1, 3.0), num_reads=1, num_sweeps=sweeps, seed=1)
        return time.perf_counter() - start

    taken = [seconds(SWEEPS) - seconds(1) for _ in range(repetitions)]
    return 1e9 * float(np.median(taken)) / (spins * (SWEEPS - 1))
