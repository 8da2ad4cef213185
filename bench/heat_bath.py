"""The heat bath: scores of every assignment, and the training step (scores, weights, gradient) that is made of them.

A step is hot at the beginning of a run, when every assignment has weight, and cold at its end, when few have; the
factors are the first and the last temperature of the presets, in units of the spread of a receiver's scores.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import nri_fast as nf
from bench.cases import TRANSITIONS, Case, Effort
from bench.peers.dense_heat_bath import DenseHeatBath
from bench.rows import OURS, Contest, Row, check_close, use_threads
from bench.timer import Work
from nri_fast import ops
from nri_fast.energies import all_transitions
from nri_fast.parameter_vector import ParameterVector

SCALE_SQUARED = 0.1
HOT, COLD = 0.3, 0.021
PEER_BYTES = 2 << 30  # that a peer's activations may take, kept for its gradient


def rows(effort: Effort) -> Iterator[Row]:
    """Three rows a case; ten entities, with 512 assignments a receiver, in the narrowest width only."""
    measured = set()
    for asked in effort.cases():
        case = fitted(asked, effort.gflop)
        wide = case.entities > min(effort.entities) and case.width > min(effort.widths)
        if wide or case in measured:  # or cut down to what another case was cut down to
            continue
        measured.add(case)
        use_threads(case.threads)
        problem = HeatBathStep.of(case)
        peer = DenseHeatBath(problem.library, case.entities, SCALE_SQUARED)
        check_close("dense scores", peer.scores(problem.states).flatten(), problem.scores())
        shape, transitions = case.heat_bath_shape, case.systems * case.transitions
        forward = transitions * shape.heat_bath_scores()
        competitors: dict[str, Work] = {OURS: problem.scores, "dense": functools.partial(peer.scores, problem.states)}
        name = "heat-bath scores"
        yield Contest("heat_bath", name, case, asked, forward, transitions, competitors).measure(effort)
        for work, factor in (("hot heat-bath step", HOT), ("cold heat-bath step", COLD)):
            ours = functools.partial(problem.step, factor)
            theirs = functools.partial(peer.step, problem.states, factor)
            check_close(work, gradient_of(problem, theirs), gradient_of(problem, ours))
            live_rows, live_messages = problem.live(factor)
            operations = forward + transitions * shape.heat_bath_gradient(live_rows, live_messages)
            facts = {"live_rows": round(live_rows, 2), "live_messages": round(live_messages, 2)}
            competitors = {OURS: ours, "dense": theirs}
            contest = Contest("heat_bath", work, case, asked, operations, transitions, competitors, facts=facts)
            yield contest.measure(effort)


def fitted(asked: Case, gflop: float) -> Case:
    """Fewer transitions first, then fewer systems; a training step's work and a peer's memory decide."""
    shape = asked.heat_bath_shape
    rows = asked.entities * asked.edge_types ** (asked.entities - 1)
    most = gflop * 1e9 / (3 * shape.heat_bath_scores())
    most = max(1, int(min(most, PEER_BYTES / (rows * asked.width * 4 * 6))))
    transitions = min(TRANSITIONS, max(2, most // asked.systems))
    systems = min(asked.systems, max(1, most // transitions))
    return dataclasses.replace(asked, steps=transitions + 1, rollout=1, systems=systems)


@dataclass(frozen=True)
class HeatBathStep:
    """What our kernels are asked for.

    Attributes
    ----------
    library : ModuleLibrary
    parameters : ParameterVector
        The library's, as training holds them.
    states : Tensor
        [systems, transitions + 1, N, D].
    problem : HeatBathProblem
    """

    library: nf.ModuleLibrary
    parameters: ParameterVector
    states: Tensor
    problem: ops.HeatBathProblem

    @classmethod
    def of(cls, case: Case, device: torch.device | str = "cpu") -> HeatBathStep:
        """All transitions of a case's systems."""
        library, states = case.library(case.heat_bath_shape).to(device), case.states(case.steps).to(device)
        graph = nf.MegaGraph.complete(case.systems, case.entities).to(device)
        layout = ops.RowLayout.blocks(graph, case.edge_types)
        start = all_transitions(graph, case.steps)
        # The peer's errors are in units of the library's change_scale.
        error = ops.ErrorMeasure(1.0 / library.change_scale**2, SCALE_SQUARED)
        problem = ops.HeatBathProblem(library, graph, states.flatten(), case.steps, start, layout, error)
        return cls(library, ParameterVector(library), states, problem)

    def scores(self) -> Tensor:
        """[rows]."""
        with torch.no_grad():
            return self.problem.scores(self.parameters.kernel())

    def weights(self, scores: Tensor, factor: float) -> Tensor:
        """[rows] of the mean over receivers."""
        graph, offset = self.problem.graph, self.problem.rows.offset
        temperature = factor * float(scores.view(graph.nodes, -1).std(-1).mean())
        return ops.responsibilities(offset, scores, temperature) / graph.nodes

    def step(self, factor: float) -> None:
        """Scores, their weights at a temperature, and the gradient of the weighted mean score.

        Torch's own threads stay out of it, as in training: the copy of a wide library's weights would wake one, which
        then spins where the kernels' second thread wants to run.
        """
        with ops.one_torch_thread():
            parameters = self.parameters.kernel()
            kept = self.problem.room(parameters)
            weights = self.weights(self.problem.scores(parameters, kept), factor)
            self.parameters.take_gradient(self.problem.gradient(parameters, weights, kept))

    def live(self, factor: float) -> tuple[float, float]:
        """Rows and messages of a system that have weight, a mean over systems."""
        graph, types = self.problem.graph, self.library.edge_types
        weights = self.weights(self.scores(), factor).view(graph.nodes, -1) > 0
        degree = graph.edges // graph.nodes
        alternatives = weights.view(graph.nodes, *[types] * degree)
        messages = 0
        for edge in range(degree):
            rest = [1 + other for other in range(degree) if other != edge]
            messages += int((alternatives.sum(rest) if rest else alternatives).gt(0).sum())
        return float(weights.sum()) / graph.systems, messages / graph.systems


def gradient_of(problem: HeatBathStep, step: functools.partial[None]) -> Tensor:
    """[P] what a step leaves in the parameters: the peer's in the modules', ours in the vector of all of them."""
    problem.library.zero_grad()
    problem.parameters.weights.grad = None
    step()
    places = [problem.parameters.weights, *problem.library.parameters()]
    return torch.cat([value.grad.flatten() for value in places if value.grad is not None])
