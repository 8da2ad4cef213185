"""NRI's three simulated families: springs, charged particles, Kuramoto oscillators.

The physics, step sizes and units stand in ``csrc/ops/simulate.h``; they are those of the simulator of Kipf et al.,
"Neural Relational Inference for Interacting Systems" (ICML 2018).
"""

from __future__ import annotations

import math

import numpy as np
import torch

from nri_fast import ops
from nri_fast.formats import KURAMOTO_FEATURES
from nri_fast.trajectory_data import TrajectoryData

KINDS = ops.SIMULATORS
SPLITS = ops.SPLITS
BODY_FEATURES = ("x", "y", "vx", "vy")
MOST_ENTITIES = 65_535  # every pair of entities needs a draw index of its own, and those have 31 bits


def simulate(
    kind: str,
    systems: int,
    entities: int = 5,
    steps: int = 49,
    seed: int = 0,
    split: str = "train",
    first_system: int = 0,
    noise: float = 0.0,
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> TrajectoryData:
    """Simulate systems with random graphs and random initial states.

    System number s of a (kind, entities, seed, split) is always the same system, bit for bit: whatever the device, the
    number of threads, and the number of systems simulated with it.

    Parameters
    ----------
    kind : {'springs', 'charged', 'kuramoto'}
        Springs and charged particles move in a 2-D box of half-width 5; a step is 0.1 time units, and the first
        recorded one is 0.1 after the start. Features: ``x, y, vx, vy``; Kuramoto: ``dphi, sin_phi, phi, w``.
    systems : int, >= 1
    entities : int, 1 to 65,535
    steps : int, >= 1
        Recorded steps.
    seed : int, 0 to 2^64 - 1
    split : {'train', 'valid', 'test'}
        Each split has random numbers of its own: no seed repeats a system in another split.
    first_system : int, >= 0
        Number of the first system, to simulate a data set in pieces.
    noise : float, >= 0
        Standard deviation of Gaussian noise added to every recorded number, in the units of the feature.
    threads : int, optional
        Threads to use on the CPU; all processors if not given.
    device : str or torch.device
        Where to compute. The result lies in host memory.

    Returns
    -------
    TrajectoryData
        Edge types: springs and Kuramoto 1 where two entities interact; charged 0 for attraction and 1 for repulsion.
        All graphs are symmetric.

    Raises
    ------
    ValueError
        An argument out of its range.
    """
    _one_of("kind", kind, KINDS)
    _one_of("split", split, SPLITS)
    _in_range("systems", systems, 1, 2**48)
    _in_range("entities", entities, 1, MOST_ENTITIES)
    _in_range("steps", steps, 1, 2**40)
    _in_range("seed", seed, 0, 2**64 - 1)
    _in_range("first_system", first_system, 0, 2**48)
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise: expected a finite number that is not negative, got {noise}")
    states, edges = ops.simulate(
        kind,
        systems=systems,
        entities=entities,
        steps=steps,
        seed=seed,
        split=split,
        first_system=first_system,
        device=device,
        threads=threads,
    )
    states, edges = states.cpu(), edges.cpu()
    if noise > 0:
        _add_noise(states, noise, seed, split, first_system)
    names = KURAMOTO_FEATURES if kind == "kuramoto" else BODY_FEATURES
    return TrajectoryData(states, edges, names, name=f"{kind}{entities}", split=split)


def _one_of(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}: expected one of {', '.join(allowed)}, got {value!r}")


def _in_range(argument: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{argument}: expected {low} to {high}, got {value}")


def _add_noise(states: torch.Tensor, noise: float, seed: int, split: str, first_system: int) -> None:
    """Add to every system noise that depends on its number, not on the systems simulated with it."""
    for s in range(states.shape[0]):
        counter = [0, 0, first_system + s, 0]
        generator = np.random.Generator(
            np.random.Philox(key=np.array([seed, SPLITS.index(split)], np.uint64), counter=counter)
        )
        states[s] += noise * torch.from_numpy(generator.standard_normal(states[s].shape))
