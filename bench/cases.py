"""What is measured: cases, how much effort goes into them, and the problems that they stand for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import nri_fast as nf
from bench.flops import Shape
from nri_fast import ops

FEATURES = 4
STEPS_RECORDED = 49
ROLLOUT = 10
TRANSITIONS = 12  # of a system in a step of heat-bath training


@dataclass(frozen=True)
class Effort:
    """How much is measured, and for how long.

    Attributes
    ----------
    name : str
    seconds : float
        Of measuring a case.
    gflop : float
        Largest useful work of one repetition, in 1e9 operations; a case with more is cut down, and says so.
    widths, entities, systems, threads : tuple of int
        The cases.
    least : int
        Repetitions that every competitor gets, however long they take.
    """

    name: str
    seconds: float
    gflop: float
    widths: tuple[int, ...]
    entities: tuple[int, ...]
    systems: tuple[int, ...]
    threads: tuple[int, ...]
    least: int = 3

    @property
    def full(self) -> bool:
        """Whether this is for the record."""
        return self.name == "full"

    def cases(self) -> Iterator[Case]:
        """Every combination, small ones first."""
        for threads in self.threads:
            for entities in self.entities:
                for width in self.widths:
                    for systems in self.systems:
                        yield Case(width, entities, systems, threads)


def quick() -> Effort:
    """A minute's worth, all threads."""
    return Effort("quick", 0.7, 6.0, (64, 256), (5,), (1, 128), (ops.get_threads(),))


def full() -> Effort:
    """For the record: one thread and all."""
    threads = tuple(sorted({1, ops.get_threads()}))
    return Effort("full", 2.5, 12.0, (64, 128, 256), (5, 10), (1, 128, 4096), threads)


def device() -> Effort:
    """For a GPU: batches that fill it beside one that does not."""
    return Effort("device", 0.5, math.inf, (64, 256), (5,), (128, 4096), (ops.get_threads(),))


def tiny() -> Effort:
    """Problems of no meaning, for tests of :mod:`bench.device` on any machine."""
    return Effort("tiny", 0.0, math.inf, (8,), (3,), (1, 4), (ops.get_threads(),), least=2)


@dataclass(frozen=True)
class Case:
    """One problem size.

    Attributes
    ----------
    width : int
        Of messages and hidden layers.
    entities, systems : int
        Of a system; side by side.
    threads : int
        For us and for every peer.
    steps : int
        Recorded steps of a system.
    rollout : int
        Predicted steps between recorded ones (R).
    edge_types : int
        K.
    """

    width: int
    entities: int
    systems: int
    threads: int
    steps: int = STEPS_RECORDED
    rollout: int = ROLLOUT
    edge_types: int = 2

    @property
    def shape(self) -> Shape:
        """Of the paper's modules at this width: three edge layers, four node layers."""
        w = self.width
        edge, node = (2 * FEATURES, w, w, w), (w + FEATURES, w, w, w, FEATURES)
        return Shape(edge, node, self.entities, self.edge_types)

    @property
    def heat_bath_shape(self) -> Shape:
        """Of the heat bath's modules, a layer less each."""
        w = self.width
        return Shape((2 * FEATURES, w, w), (w + FEATURES, w, w, FEATURES), self.entities, self.edge_types)

    @property
    def transitions(self) -> int:
        """Predicted steps of a system: its graph-steps."""
        return self.steps - 1

    @property
    def rollouts(self) -> int:
        """Roll-outs of a system."""
        return -(-self.transitions // self.rollout)

    def fitted(self, gflop: float, passes: int = 1) -> Case:
        """The case, cut down until it takes at most so much work.

        The number of systems is what a case is about, so recordings are shortened first, to one roll-out, then to one
        of two steps; systems are left out last.
        """
        case = self
        for steps, rollout in ((self.steps, self.rollout), (ROLLOUT + 1, ROLLOUT), (3, 2)):
            case = dataclasses.replace(self, steps=min(steps, self.steps), rollout=min(rollout, self.rollout))
            if case.systems * case.shape.energy(case.transitions) * passes <= gflop * 1e9:
                return case
        each = case.shape.energy(case.transitions) * passes
        return dataclasses.replace(case, systems=max(1, int(gflop * 1e9 / each)))

    def library(self, shape: Shape) -> nf.ModuleLibrary:
        """Random modules of a shape, the same each time; roll-outs stay finite."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            library = nf.ModuleLibrary(
                FEATURES, self.edge_types, 1, shape.edge_sizes[-1], shape.edge_sizes[1:-1], shape.node_sizes[1:-1]
            )
        library.change_scale.fill_(0.3)
        return library

    def states(self, steps: int) -> Tensor:
        """[systems, steps, N, D] random numbers, the same each time."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.systems, steps, self.entities, FEATURES, generator=generator)

    def to_dict(self) -> dict[str, int]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class RolloutProblem:
    """Roll-out energies of one structure: what `energy` and `gradient` measure.

    Attributes
    ----------
    case : Case
    library : ModuleLibrary
    graph : MegaGraph
    states : Tensor
        [systems, steps, N, D].
    edge_types : Tensor
        [edges] uint8.
    error : ErrorMeasure
    """

    case: Case
    library: nf.ModuleLibrary
    graph: nf.MegaGraph
    states: Tensor
    edge_types: Tensor
    error: ops.ErrorMeasure

    @classmethod
    def of(cls, case: Case, device: torch.device | str = "cpu") -> RolloutProblem:
        """The problem that a case stands for, with the same numbers on every device."""
        graph = nf.MegaGraph.complete(case.systems, case.entities)
        generator = torch.Generator().manual_seed(2)
        types = torch.randint(case.edge_types, (graph.edges,), dtype=torch.uint8, generator=generator)
        library, states = case.library(case.shape).to(device), case.states(case.steps).to(device)
        error = ops.ErrorMeasure(torch.ones(FEATURES, device=device))
        return cls(case, library, graph.to(device), states, types.to(device), error)

    def energies(self, parameters: Tensor) -> Tensor:
        """[systems], by our kernels."""
        case, states = self.case, self.states.flatten()
        types = self.edge_types[None]
        return ops.rollout_energy(
            self.library, parameters, self.graph, states, case.steps, types, None, case.rollout, self.error
        )[0]

    def gradient(self) -> Tensor:
        """[systems] energies; the gradient of their mean is added to the library's parameters, by our kernels."""
        case, parameters = self.case, self.library.flat_parameters()
        cotangent = self.states.new_full((case.systems,), 1.0 / case.systems)
        energies, gradient, _ = ops.rollout_gradient(
            self.library,
            parameters.detach(),
            self.graph,
            self.states.flatten(),
            case.steps,
            self.edge_types,
            None,
            case.rollout,
            self.error,
            cotangent,
        )
        parameters.backward(gradient)
        return energies
