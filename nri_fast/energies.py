"""Energies of structures, heat-bath scores and forecasts: the operations with checked, convenient arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nri_fast import ops, presence
from nri_fast.autograd import HeatBathScores, RolloutEnergy
from nri_fast.checks import check_tensor, check_types
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary
from nri_fast.recorded import dtype_of, flat_step_scale, joined, pack_trajectories

#: A receiver's incoming edges are scored jointly while they have at most this many assignments.
LARGEST_BLOCK = 4096


def flat_observed(graph: MegaGraph, observed: Tensor | None) -> Tensor | None:
    """Checks flags of observed entities, [systems, N] or flat [nodes]; lays them out as [nodes] uint8."""
    if observed is None:
        return None
    shape: tuple[int | None, ...] = (graph.nodes,)
    if isinstance(observed, Tensor) and observed.ndim == 2 and len(set(graph.sizes)) == 1:
        shape = (graph.systems, graph.sizes[0])
    check_tensor("observed", observed, shape, (torch.bool, torch.uint8), graph.device)
    flags = observed.flatten().bool()
    counts = torch.cat([flags.new_zeros(1, dtype=torch.int64), flags.long().cumsum(0)])[graph.node_offset].diff()
    if bool((counts == 0).any()):
        system = int((counts == 0).nonzero()[0])
        raise ValueError(f"observed: expected at least one entity of every system, got none of system {system}")
    return flags.to(torch.uint8)


def flat_edge_types(library: ModuleLibrary, graph: MegaGraph, edge_types: Tensor) -> tuple[Tensor, bool]:
    """Checks edge types and lays them out as [structures, edges]; tells whether several were given.

    Accepts adjacencies [systems, N, N] or [structures, systems, N, N] with A[b, i, j] on the edge i -> j, and flat
    types [edges] or [structures, edges] in the graph's order, of any integer type.
    """
    if not isinstance(edge_types, Tensor) or edge_types.is_floating_point() or edge_types.is_complex():
        kind = edge_types.dtype if isinstance(edge_types, Tensor) else type(edge_types).__name__
        raise TypeError(f"edge_types: expected an integer tensor, got {kind}")
    several = edge_types.ndim in (2, 4)
    if edge_types.ndim in (3, 4):
        flat = graph.flatten_types(edge_types)
    elif edge_types.ndim in (1, 2):
        check_tensor("edge_types", edge_types, (*[None] * (edge_types.ndim - 1), graph.edges), edge_types.dtype)
        flat = edge_types
    else:
        raise ValueError(f"edge_types: expected [systems, N, N] or [edges], got shape {[*edge_types.shape]}")
    checked = _checked_types("edge_types", flat, library.edge_types, graph, True)
    return checked if several else checked[None], several


def flat_node_types(library: ModuleLibrary, graph: MegaGraph, node_types: Tensor | None) -> Tensor | None:
    """Checks node types, [systems, N] or flat [nodes], and lays them out as [nodes]. None stands for all zero."""
    if node_types is None:
        return None
    if not isinstance(node_types, Tensor) or node_types.is_floating_point() or node_types.is_complex():
        kind = node_types.dtype if isinstance(node_types, Tensor) else type(node_types).__name__
        raise TypeError(f"node_types: expected an integer tensor, got {kind}")
    shapes = [[graph.nodes]]
    if len(set(graph.sizes)) == 1:
        shapes.append([graph.systems, graph.sizes[0]])
    if [*node_types.shape] not in shapes:
        raise ValueError(f"node_types: expected shape {' or '.join(map(str, shapes))}, got {[*node_types.shape]}")
    return _checked_types("node_types", node_types.flatten(), library.node_types, graph, False)


def _checked_types(name: str, types: Tensor, count: int, graph: MegaGraph, per_edge: bool) -> Tensor:
    if types.device != graph.device:
        raise ValueError(f"{name}: expected on {graph.device}, got {types.device}")
    if types.dtype not in (torch.uint8, torch.int64):
        types = types.long()  # every integer type compares with every count
    check_types(name, types, count, graph, per_edge)
    return types.to(torch.uint8, copy=True).contiguous()  # a copy: a backward pass reads it later


def error_measure(
    library: ModuleLibrary, error: str = "squared", scale_squared: float | None = None, weight: Tensor | None = None
) -> ops.ErrorMeasure:
    """Checks the choice of error.

    Parameters
    ----------
    library : ModuleLibrary
        Gives features, type and device.
    error : {"squared", "robust"}
        Mean squared error, or ``log(scale_squared + squared error)`` per transition and entity.
    scale_squared : float, optional
        Positive; needed for and only for "robust".
    weight : Tensor, optional
        [D] weights of the features' squared errors, ones if not given.
    """
    if error not in ("squared", "robust"):
        raise ValueError(f"error: expected 'squared' or 'robust', got {error!r}")
    if (error == "robust") != (scale_squared is not None):
        raise ValueError(f"scale_squared: expected with error='robust' only, got {scale_squared} with error={error!r}")
    if scale_squared is not None and not 0 < scale_squared < float("inf"):
        raise ValueError(f"scale_squared: expected a positive number, got {scale_squared}")
    scale = library.change_scale
    if weight is None:
        weight = torch.ones_like(scale)
    check_tensor("weight", weight, (library.features,), scale.dtype, scale.device)
    if not bool(((weight >= 0) & torch.isfinite(weight)).all()):
        raise ValueError(f"weight: expected finite numbers, at least 0, got {weight.tolist()}")
    return ops.ErrorMeasure(weight.contiguous(), scale_squared)


@torch.compiler.disable
def rollout_energy(
    library: ModuleLibrary,
    graph: MegaGraph,
    trajectories: Tensor | Sequence[Tensor],
    edge_types: Tensor,
    node_types: Tensor | None = None,
    rollout: int = 10,
    error: str = "squared",
    scale_squared: float | None = None,
    weight: Tensor | None = None,
    observed: Tensor | None = None,
    present: Tensor | Sequence[Tensor] | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """Energy of structures: how badly the modules, so wired, predict the recorded trajectories.

    The state restarts from the recorded one at steps 0, R, 2R, ... and rolls R steps each time; every predicted state
    is compared with the recorded one, and the errors are averaged. Differentiable in the library's parameters and in
    the trajectories (in both of their roles: a recorded state starts a roll-out, and predictions are compared with it).

    Parameters
    ----------
    library : ModuleLibrary
        The modules; its type (float32, or float64 after ``library.double()``) and device are those of the call.
    graph : MegaGraph
        Who may act on whom.
    trajectories : Tensor or sequence of Tensor
        [systems, steps, N, D], or one [steps_b, N_b, D] per system where systems differ in size or length.
    edge_types : Tensor
        Integers: an adjacency [systems, N, N], A[b, i, j] on the edge i -> j, or flat [edges] in the graph's order.
        Several structures of the same systems: [structures, ...].
    node_types : Tensor, optional
        Integers [systems, N] or flat [nodes]; all zero if not given.
    rollout : int
        R, at least 1; the recording must have at least R + 1 steps.
    error, scale_squared, weight
        See :func:`error_measure`. The default is the paper's mean squared error.
    observed : Tensor, optional
        [systems, N] or flat [nodes], bool or uint8: entities whose predictions are compared, at least one of every
        system; all if not given. Of an unobserved entity only the states that roll-outs start from are read (with
        ``rollout`` = steps - 1: its first); what else is recorded of it, NaN included, changes nothing.
    present : Tensor or sequence of Tensor, optional
        Shaped as ``trajectories`` without features, bool or uint8; everything is present if not given. An entity takes
        part in a roll-out if it is present where that starts: otherwise it sends and gets no message, under any type.
        Its prediction is compared where it takes part and is present at the predicted step. What stands in
        ``trajectories`` where it is absent, NaN included, changes nothing. A system without anything to compare has
        energy 0.
    step_scale : Tensor, optional
        [systems], positive: the system's time step over that which the modules are made for; predicted changes are
        multiplied by it. All 1 if not given.

    Returns
    -------
    Tensor
        [systems], or [structures, systems] where several structures were given; in the squared units of the
        trajectories ("squared"), or without unit ("robust").

    Raises
    ------
    TypeError, ValueError, IndexError
        Name the argument, what was expected and what came; a type out of range names its system and edge, a NaN or
        infinity its system, step and entity.

    Notes
    -----
    Energy as in Alet et al., NeurIPS 2019. An energy does not depend, to the bit, on the batch, its order or the number
    of threads.
    """
    if rollout < 1:
        raise ValueError(f"rollout: expected at least 1, got {rollout}")
    seen = flat_observed(graph, observed)
    recorded = pack_trajectories(library, graph, trajectories, present, rollout + 1, seen, rollout)
    scale = flat_step_scale(library, graph, step_scale)
    types, several = flat_edge_types(library, graph, edge_types)
    nodes = flat_node_types(library, graph, node_types)
    measure = error_measure(library, error, scale_squared, weight)
    energy: Tensor = RolloutEnergy.apply(
        library.flat_parameters(),
        recorded.states,
        library,
        graph,
        recorded.steps,
        types,
        nodes,
        rollout,
        measure,
        seen,
        recorded.present,
        scale,
    )
    return energy if several else energy[0]


def one_step_error(
    library: ModuleLibrary,
    judged: Sequence[int] | None,
    scale_squared: float | None,
    feature_weights: Sequence[float] = (),
) -> ops.ErrorMeasure:
    """The error that training and meta-test share, in units of the variance of one step's change.

    Parameters
    ----------
    library : ModuleLibrary
        Gives that unit.
    judged : sequence of int or None
        Places of the features that count; None: all.
    scale_squared : float or None
        s^2 of the robust error; None: squared error.
    feature_weights : sequence of float
        Of the judged features, in their order; all alike if empty.
    """
    weight = 1.0 / library.change_scale**2
    places = list(range(library.features)) if judged is None else list(judged)
    counts = torch.zeros_like(weight)
    counts[places] = library.features / len(places)
    if feature_weights:
        counts[places] *= weight.new_tensor(feature_weights)
    weight = weight * counts
    return ops.ErrorMeasure(weight.contiguous(), scale_squared)


def largest_block(graph: MegaGraph, edge_types_count: int, free: Tensor | None = None) -> int:
    """Assignments that the best-connected entity's incoming edges have, of those in ``free`` [edges]: K^(in-degree)."""
    degree = graph.in_offset.diff()
    if free is not None:
        degree = torch.zeros_like(degree).index_add(0, graph.receiver, free.long())
    return int(edge_types_count ** (int(degree.max()) if graph.nodes else 0))


def _flat_free(graph: MegaGraph, free: Tensor) -> Tensor:
    """Checks a choice of edges and lays it out as [edges]."""
    if not isinstance(free, Tensor) or free.dtype != torch.bool:
        raise TypeError(f"free: expected a bool tensor, got {free.dtype if isinstance(free, Tensor) else type(free)}")
    flat = graph.flatten_types(free) if free.ndim == 3 else free
    check_tensor("free", flat, (graph.edges,), torch.bool, graph.device)
    return flat.contiguous()


def all_transitions(graph: MegaGraph, steps: int) -> Tensor:
    """[systems, steps - 1] int64: every transition of a recording, by the step it starts from."""
    return torch.arange(steps - 1, device=graph.device).expand(graph.systems, -1).contiguous()


@torch.compiler.disable
def heat_bath_scores(
    library: ModuleLibrary,
    graph: MegaGraph,
    trajectories: Tensor | Sequence[Tensor],
    edge_types: Tensor | None = None,
    node_types: Tensor | None = None,
    transitions: Tensor | None = None,
    error: str = "squared",
    scale_squared: float | None = None,
    weight: Tensor | None = None,
    free: Tensor | None = None,
    held_weight: Tensor | None = None,
    present: Tensor | Sequence[Tensor] | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """One-step energies of all the structures that a heat-bath move chooses from, messages shared between them.

    With R = 1 the energy is a mean over receivers of terms that depend only on the types of a receiver's incoming
    edges. Without ``edge_types``, every assignment of each receiver's incoming edges is scored (blocks); with them,
    every type of each edge given the others' (conditionals), for receivers with too many assignments; with ``free``,
    every assignment of the edges that it marks, while the others send the mean of their messages under all types,
    weighted by ``held_weight``: mean field. Differentiable in the library's parameters.

    Parameters
    ----------
    library, graph, trajectories, node_types, error, scale_squared, weight, present, step_scale
        As for :func:`rollout_energy`.
    edge_types : Tensor, optional
        Current types, for conditionals.
    transitions : Tensor, optional
        [systems, L] int64: the steps that the scored transitions start from, 0 to steps - 2. All if not given.
    free : Tensor, optional
        bool, an adjacency [systems, N, N] or flat [edges]: the edges whose types vary.
    held_weight : Tensor, optional
        [edges, K] float32, at least 0: how much each type counts in the message of an edge that is not free.

    Returns
    -------
    Tensor
        Blocks on complete graphs of one size: [systems, N, K^(N-1)]; assignment ``a`` gives the i-th sender (ascending,
        the receiver left out) the type ``(a // K^(N-2-i)) % K``. Conditionals there: [systems, N, N-1, K]. On other
        graphs, and with ``free``, flat, with the offsets of :func:`nri_fast.ops.RowLayout`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`rollout_energy`; ValueError for blocks with more than 4,096 assignments.

    Notes
    -----
    The energy of a structure at R = 1 is the mean over receivers of the scores of its assignments. With `present`, a
    score is a mean over the transitions in which its receiver is compared, 0 if there is none, and a receiver weighs as
    many as there are of them (:func:`compared_transitions`).
    """
    recorded = pack_trajectories(library, graph, trajectories, present)
    scale = flat_step_scale(library, graph, step_scale)
    measure = error_measure(library, error, scale_squared, weight)
    nodes = flat_node_types(library, graph, node_types)
    current = None
    if (free is None) != (held_weight is None) or (free is not None and edge_types is not None):
        raise ValueError("free, held_weight: expected both or neither, and no edge_types beside them")
    if free is not None and held_weight is not None:
        free = _flat_free(graph, free)
        check_tensor("held_weight", held_weight, (graph.edges, library.edge_types), torch.float32, graph.device)
        if not bool(((held_weight >= 0) & torch.isfinite(held_weight)).all()):
            raise ValueError("held_weight: expected finite numbers, at least 0")
        held_weight = held_weight.contiguous().clone()
    if edge_types is not None:
        types, several = flat_edge_types(library, graph, edge_types)
        if several:
            raise ValueError(f"edge_types: expected one structure, got shape {[*edge_types.shape]}")
        current = types[0]
    blocks = current is None
    if blocks and (assignments := largest_block(graph, library.edge_types, free)) > LARGEST_BLOCK:
        raise ValueError(
            f"graph: an entity's incoming edges have {assignments} assignments, expected at most {LARGEST_BLOCK}; "
            "give edge_types to score one edge at a time, or free fewer"
        )
    start = _checked_transitions(graph, transitions, recorded.steps)
    layout = ops.RowLayout
    rows = layout.blocks(graph, library.edge_types, free) if blocks else layout.conditionals(graph, library.edge_types)
    problem = ops.HeatBathProblem(
        library,
        graph,
        recorded.states.detach(),
        recorded.steps,
        start,
        rows,
        measure,
        nodes,
        current,
        held_weight,
        recorded.present,
        scale,
    )
    scores: Tensor = HeatBathScores.apply(library.flat_parameters(), problem)
    if graph.entities is None or free is not None:
        return scores
    shape = (-1,) if current is None else (graph.entities - 1, library.edge_types)
    return scores.reshape(graph.systems, graph.entities, *shape)


def _checked_transitions(graph: MegaGraph, transitions: Tensor | None, steps: int) -> Tensor:
    if transitions is None:
        return all_transitions(graph, steps)
    check_tensor("transitions", transitions, (graph.systems, None), torch.int64, graph.device)
    outside = (transitions < 0) | (transitions > steps - 2)
    if bool(outside.any()):
        place = outside.nonzero()[0].tolist()
        raise IndexError(f"transitions{place}: {int(transitions[outside][0])}, expected 0 to {steps - 2}")
    if transitions.shape[1] == 0:
        raise ValueError("transitions: expected at least one per system, got none")
    return transitions.contiguous().clone()


def compared_transitions(graph: MegaGraph, present: Tensor | Sequence[Tensor], transitions: Tensor | None) -> Tensor:
    """In how many transitions each receiver's prediction is compared: what its heat-bath scores weigh.

    Parameters
    ----------
    graph, present, transitions
        As for :func:`heat_bath_scores`.

    Returns
    -------
    Tensor
        [nodes] int64.
    """
    masks = list(present)
    steps = max((len(mask) for mask in masks), default=0)
    start = _checked_transitions(graph, transitions, steps)
    return presence.compared_transitions(graph, joined(masks, steps), steps, start)


@torch.compiler.disable
def forecast(
    library: ModuleLibrary,
    graph: MegaGraph,
    initial: Tensor,
    edge_types: Tensor,
    node_types: Tensor | None = None,
    horizon: int = 20,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """Open-loop roll-out: what the modules, so wired, predict from one state on. Not differentiable.

    Parameters
    ----------
    library, graph, edge_types, node_types, step_scale
        As for :func:`rollout_energy`.
    initial : Tensor
        [systems, N, D], or flat [nodes, D].
    horizon : int
        Steps to predict, at least 1.
    present : Tensor, optional
        [systems, N] or flat [nodes], bool or uint8: who takes part; everybody if not given.

    Returns
    -------
    Tensor
        [systems, horizon, N, D] where all systems are of one size; otherwise flat, each system's [horizon, N_b, D]
        behind the other. NaN for entities that take no part.
    """
    if horizon < 1:
        raise ValueError(f"horizon: expected at least 1, got {horizon}")
    scale = library.change_scale
    if graph.device != scale.device:
        raise ValueError(f"graph: expected on {scale.device}, got {graph.device}")
    if graph.systems == 0:
        raise ValueError("initial: expected at least one system, got none")
    sizes = set(graph.sizes)
    shape: tuple[int | None, ...] = (graph.nodes, library.features)
    if initial.ndim == 3 and len(sizes) == 1:
        shape = (graph.systems, *sizes, library.features)
    check_tensor("initial", initial, shape, dtype_of(library), scale.device)
    part = None
    if present is not None:
        check_tensor("present", present, shape[:-1], (torch.bool, torch.uint8), scale.device)
        part = present.flatten().bool().to(torch.uint8)
    finite = torch.isfinite(initial)
    if part is not None:
        finite |= (part == 0).view(*initial.shape[:-1], 1)
    if not bool(finite.all()):
        place = (~finite).nonzero()[0].tolist()
        raise ValueError(f"initial{place}: expected finite numbers")
    types, several = flat_edge_types(library, graph, edge_types)
    if several:
        raise ValueError(f"edge_types: expected one structure, got shape {[*edge_types.shape]}")
    nodes = flat_node_types(library, graph, node_types)
    with torch.no_grad():
        parameters = library.flat_parameters()
        flat = initial.detach().contiguous()
        steps = flat_step_scale(library, graph, step_scale)
        states = ops.forecast(library, parameters, graph, flat, horizon, types[0], nodes, part, steps)
    return states.reshape(graph.systems, horizon, *sizes, library.features) if len(sizes) == 1 else states
