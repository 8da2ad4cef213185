"""The operations once more in plain torch, from the method's equations and nothing of the kernels': their oracle.

One system at a time, one edge at a time, every structure evaluated by itself. Slow, and meant to be read.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary


def message_passing_step(
    library: ModuleLibrary,
    edges: list[tuple[int, int]],
    edge_types: Tensor,
    node_types: Tensor,
    state: Tensor,
    part: Tensor | None = None,
    step_scale: float = 1.0,
) -> Tensor:
    """[N, D] -> [N, D]: one step of one system, ``edges`` being (sender, receiver) pairs.

    ``edge_types`` are [E] types, or [E, K] weights of each type in an edge's message. Of those who take no ``part`` [N]
    nothing is asked, and what comes out for them means nothing.
    """
    entities = state.shape[0]
    sums = [state.new_zeros(library.message) for _ in range(entities)]
    weights = torch.nn.functional.one_hot(edge_types.long(), library.edge_types) if edge_types.ndim == 1 else edge_types
    there = [True] * entities if part is None else part.bool().tolist()
    for (i, j), weight in zip(edges, weights.tolist(), strict=True):
        if not (there[i] and there[j]):
            continue
        for k in range(int(library.silent), library.edge_types):
            if weight[k] != 0:
                sums[j] = sums[j] + weight[k] * library.edge_module(k)(torch.cat([state[i], state[j]]))
    changes = [library.node_module(int(node_types[j]))(torch.cat([sums[j], state[j]])) for j in range(entities)]
    return state + step_scale * torch.stack(changes)


def transition_errors(
    predicted: Tensor, recorded: Tensor, scale_squared: float | None = None, weight: Tensor | None = None
) -> Tensor:
    """[..., D] -> [...]: weighted mean squared error of each transition, or the robust error's logarithm of it."""
    error = (predicted - recorded) ** 2
    error = (error if weight is None else error * weight).mean(-1)
    return error if scale_squared is None else torch.log(scale_squared + error)


def systems_of(
    graph: MegaGraph, edge_types: Tensor, node_types: Tensor | None
) -> list[tuple[list[tuple[int, int]], Tensor, Tensor]]:
    """Cuts a mega-graph and flat types into systems: edges, edge types, node types of each."""
    result = []
    for b in range(graph.systems):
        first, last = int(graph.node_offset[b]), int(graph.node_offset[b + 1])
        mine = [e for e in range(graph.edges) if first <= int(graph.receiver[e]) < last]
        edges = [(int(graph.sender[e]) - first, int(graph.receiver[e]) - first) for e in mine]
        nodes = torch.zeros(last - first, dtype=torch.int64) if node_types is None else node_types[first:last]
        result.append((edges, edge_types[mine], nodes))
    return result


def rollout_energy(
    library: ModuleLibrary,
    graph: MegaGraph,
    trajectories: list[Tensor],
    edge_types: Tensor,
    node_types: Tensor | None = None,
    rollout: int = 10,
    scale_squared: float | None = None,
    weight: Tensor | None = None,
    observed: Tensor | None = None,
    present: list[Tensor] | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """[systems] energies of one structure, given flat types and one [steps, N_b, D] per system.

    With ``observed`` (flat booleans), only those entities' errors count; ``present`` is one [steps, N_b] per system.
    """
    counted = torch.ones(graph.nodes, dtype=torch.bool) if observed is None else observed.bool()
    each = counted.split(graph.sizes)
    energies = []
    for b, (edges, types, nodes) in enumerate(systems_of(graph, edge_types, node_types)):
        states, scale = trajectories[b], 1.0 if step_scale is None else float(step_scale[b])
        there = torch.ones(states.shape[:2], dtype=torch.bool) if present is None else present[b].bool()
        errors = [states.new_zeros(0)]
        for start in range(0, states.shape[0] - 1, rollout):
            state = states[start]
            for t in range(start + 1, min(start + rollout, states.shape[0] - 1) + 1):
                state = message_passing_step(library, edges, types, nodes, state, there[start], scale)
                compared = there[start] & there[t] & each[b]
                errors.append(transition_errors(state[compared], states[t][compared], scale_squared, weight))
        found = torch.cat(errors)
        energies.append(found.mean() if len(found) else found.sum())
    return torch.stack(energies)


def forecast(
    library: ModuleLibrary,
    graph: MegaGraph,
    initial: Tensor,
    edge_types: Tensor,
    node_types: Tensor | None = None,
    horizon: int = 20,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> list[Tensor]:
    """One [horizon, N_b, D] per system, from flat ``initial`` [nodes, D]; NaN where ``present`` [nodes] is false."""
    result = []
    for b, (edges, types, nodes) in enumerate(systems_of(graph, edge_types, node_types)):
        mine = slice(int(graph.node_offset[b]), int(graph.node_offset[b + 1]))
        state, scale = initial[mine], 1.0 if step_scale is None else float(step_scale[b])
        part = torch.ones(len(state), dtype=torch.bool) if present is None else present[mine].bool()
        states = []
        for _ in range(horizon):
            state = message_passing_step(library, edges, types, nodes, state, part, scale)
            states.append(torch.where(part[:, None], state, torch.nan))
        result.append(torch.stack(states))
    return result


def heat_bath_scores(
    library: ModuleLibrary,
    graph: MegaGraph,
    trajectories: list[Tensor],
    transitions: Tensor,
    edge_types: Tensor | None = None,
    node_types: Tensor | None = None,
    scale_squared: float | None = None,
    weight: Tensor | None = None,
    free: Tensor | None = None,
    held_weight: Tensor | None = None,
    present: list[Tensor] | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """Flat scores, each from a whole one-step evaluation of a system under a structure that contains the row."""
    scores = []
    current = torch.zeros(graph.edges, dtype=torch.int64) if edge_types is None else edge_types.long()
    for b, (edges, types, nodes) in enumerate(systems_of(graph, current, node_types)):
        states, first = trajectories[b], int(graph.in_offset[graph.node_offset[b]])
        there = torch.ones(states.shape[:2], dtype=torch.bool) if present is None else present[b].bool()
        scale = 1.0 if step_scale is None else float(step_scale[b])
        for receiver in range(states.shape[1]):
            incoming = [e for e, (_, j) in enumerate(edges) if j == receiver]
            if edge_types is None:
                varying = [e for e in incoming if free is None or free[first + e]]
                rows = list(itertools.product(range(library.edge_types), repeat=len(varying)))
                changes = [dict(zip(varying, row, strict=True)) for row in rows]
            else:
                changes = [{e: k} for e in incoming for k in range(library.edge_types)]
            for change in changes:
                wired = torch.nn.functional.one_hot(types, library.edge_types).double()
                if held_weight is not None:
                    wired = held_weight[first : first + len(edges)].double().clone()
                for e, k in change.items():
                    wired[e] = torch.nn.functional.one_hot(torch.tensor(k), library.edge_types)
                errors = []
                for t in transitions[b].tolist():
                    if not (there[t, receiver] and there[t + 1, receiver]):
                        continue
                    after = message_passing_step(library, edges, wired, nodes, states[t], there[t], scale)
                    errors.append(transition_errors(after[receiver], states[t + 1][receiver], scale_squared, weight))
                scores.append(torch.stack(errors).mean() if errors else states.new_zeros(()))
    return torch.stack(scores)
