"""NRI's three simulated families (springs, charged particles, Kuramoto oscillators) and variants with more types.

The physics, step sizes and units stand in ``csrc/ops/simulate.h``; they are those of the simulator of Kipf et al.,
"Neural Relational Inference for Interacting Systems" (ICML 2018). The variants are ours: ``springs3`` has three types
of edges, ``springs_mass`` two of edges and two of bodies, ``kuramoto_directed`` edges that need not be mutual.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch

from nri_fast import ops
from nri_fast.formats import KURAMOTO_FEATURES
from nri_fast.normalisation import feature_group
from nri_fast.trajectory_data import TrajectoryData

KINDS = ops.SIMULATORS
SPLITS = ops.SPLITS
BODY_FEATURES = ("x", "y", "vx", "vy")
NODE_TYPES = {"springs_mass": 2}  # types of entities, where there is more than one
SPREAD_SYSTEMS = 500  # systems that a spread is measured on
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
    noise_share: float = 0.0,
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> TrajectoryData:
    """Simulate systems with random graphs and random initial states.

    System number s of a (kind, entities, seed, split) is always the same system, bit for bit: whatever the device, the
    number of threads, and the number of systems simulated with it.

    Parameters
    ----------
    kind : {'springs', 'charged', 'kuramoto', 'springs3', 'springs_mass', 'kuramoto_directed'}
        Springs and charged particles move in a 2-D box of half-width 5; a step is 0.1 time units, and the first
        recorded one is 0.1 after the start. Features: ``x, y, vx, vy``; Kuramoto: ``dphi, sin_phi, phi, w``.
        ``springs3`` has no, weak (half as stiff) and strong springs; in ``springs_mass`` bodies of mass 1 and 3 move in
        a viscous medium; in ``kuramoto_directed`` an oscillator may act on another that does not act on it.
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
    noise_share : float, >= 0
        The same as a share of the feature's spread (:func:`spread`): 0.01 adds noise of 1 per cent of the standard
        deviation of positions to positions, and of velocities to velocities. Give this or `noise`.
    threads : int, optional
        Threads to use on the CPU; all processors if not given.
    device : str or torch.device
        Where to compute. The result lies in host memory.

    Returns
    -------
    TrajectoryData
        Edge types: springs and Kuramoto 1 where an entity acts on the other; charged 0 for attraction and 1 for
        repulsion; springs3 0, 1 and 2 for no, weak and strong springs. All graphs but those of ``kuramoto_directed``
        are symmetric. Node types: ``springs_mass`` 0 for light and 1 for heavy bodies; otherwise None.

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
    for name, value in (("noise", noise), ("noise_share", noise_share)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: expected a finite number that is not negative, got {value}")
    if noise and noise_share:
        raise ValueError(f"noise_share: expected noise or noise_share, got {noise} and {noise_share}")
    states, edges, node_types = ops.simulate(
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
    states = states.cpu()
    if noise > 0:
        _add_noise(states, [noise] * len(feature_names(kind)), seed, split, first_system)
    if noise_share > 0:
        deviations = [noise_share * s for s in spread(kind, entities, steps)]
        _add_noise(states, deviations, seed, split, first_system)
    types = node_types.cpu() if kind in NODE_TYPES else None
    return TrajectoryData(states, edges.cpu(), feature_names(kind), data_name(kind, entities), split, types)


def data_name(kind: str, entities: int) -> str:
    """What simulated data are called: ``springs5``, and ``springs3_5`` for five bodies of ``springs3``."""
    return f"{kind}_{entities}" if kind[-1].isdigit() else f"{kind}{entities}"


def feature_names(kind: str) -> tuple[str, ...]:
    """Names of a simulator's features, [4]."""
    return KURAMOTO_FEATURES if kind.startswith("kuramoto") else BODY_FEATURES


@functools.lru_cache(maxsize=64)
def spread(kind: str, entities: int = 5, steps: int = 49) -> tuple[float, ...]:
    """Standard deviation of each feature over systems, steps and entities, in the feature's units, [4].

    Positions share one and velocities share one. Measured once and for all on the training split of seed 0, so that a
    share of it is the same noise for any seed and any number of systems; rounded to six digits, so that the order of
    summation cannot show.

    Parameters
    ----------
    kind, entities, steps
        As for :func:`simulate`.
    """
    states = simulate(kind, SPREAD_SYSTEMS, entities, steps).states.numpy()
    groups = [feature_group(name) for name in feature_names(kind)]
    deviation = {
        group: float(f"{states[..., [d for d, g in enumerate(groups) if g == group]].std():.6g}")
        for group in set(groups)
    }
    return tuple(deviation[group] for group in groups)


def _one_of(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}: expected one of {', '.join(allowed)}, got {value!r}")


def _in_range(argument: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{argument}: expected {low} to {high}, got {value}")


def _add_noise(states: torch.Tensor, noise: Sequence[float], seed: int, split: str, first_system: int) -> None:
    """Add to every system noise (its standard deviation by feature) that depends on the system's number only."""
    deviation = torch.tensor(noise, dtype=states.dtype)
    for s in range(states.shape[0]):
        counter = [0, 0, first_system + s, 0]
        generator = np.random.Generator(
            np.random.Philox(key=np.array([seed, SPLITS.index(split)], np.uint64), counter=counter)
        )
        states[s] += deviation * torch.from_numpy(generator.standard_normal(states[s].shape))
