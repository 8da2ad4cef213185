"""The operations as the kernels offer them: flat tensors in, flat tensors out, no gradients.

This is the only module that takes addresses. Every function allocates its results, hands pointers to the native core
and keeps the tensors alive meanwhile. Shapes are those of the headers in ``csrc/ops``: trajectories flat (each system's
[steps, entities, features] behind the other), types flat per edge and per entity. Arguments are trusted to have passed
:mod:`nri_fast.checks`; the public functions of :mod:`nri_fast.energies` do that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from nri_fast import _core
from nri_fast.graph import MegaGraph, to_device
from nri_fast.modules import ModuleLibrary

SIMULATORS = ("springs", "charged", "kuramoto", "springs3", "springs_mass", "kuramoto_directed")
SPLITS = ("train", "valid", "test")
PROPOSALS = ("edge", "node", "flip", "system")  # ProposalKind in csrc/ops/propose_from_table.h
COUNTS = ("proposed", "accepted", "accepted_worsening", "not_finite")

_threads = _core.hardware_threads()
_emulate_cuda = False
_precision = _core.Precision.fp32


def set_threads(threads: int) -> None:
    """Sets how many threads the CPU kernels use; no result depends on it. The default is every processor."""
    global _threads
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    _threads = threads


def get_threads() -> int:
    """How many threads the CPU kernels use."""
    return _threads


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keeps torch's own operations on the calling thread meanwhile.

    Around hot loops of small tensors: torch's OpenMP threads and the kernels' would otherwise take the processors from
    each other, which on busy cores costs more than all the work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def emulated_cuda() -> Iterator[None]:
    """Runs CPU tensors through the CUDA kernels as compiled for the host, where the build has them (for tests)."""
    global _emulate_cuda
    if _core.cuda_build() != "emulated":
        raise RuntimeError(f"the CUDA kernels were built as '{_core.cuda_build()}', expected 'emulated'")
    _emulate_cuda = True
    try:
        yield
    finally:
        _emulate_cuda = False


@contextmanager
def scoring_precision(precision: str) -> Iterator[None]:
    """Energies and heat-bath scores of float32 tensors from products of rounded numbers meanwhile, which is faster.

    Gradients, forecasts and float64 tensors are as always, and so are operations that have no such kernel. States,
    beside which a step's change is small, are never rounded. Scores in bf16 come out with relative errors of a percent
    or so, and near-ties between structures are decided differently: see ``python -m bench bf16``.

    Parameters
    ----------
    precision : str
        ``"fp32"``, as always: on a GPU products are made of three in TF32, as exact as plain ones or nearly so.
        ``"tf32"``: GPU only. Roll-out energies round factors to 11 bits of mantissa.
        ``"bf16"``: factors have 8 bits. On a processor with AVX-512 BF16: energies and scores, layers with at least 32
        inputs and more than four outputs. On a GPU: roll-out energies, all layers.

    Raises
    ------
    ValueError
        If there is no such precision.
    RuntimeError
        When a score is asked for and this processor, or this build, has no such instructions.
    """
    global _precision
    if precision not in ("fp32", "tf32", "bf16"):
        raise ValueError(f"precision: expected 'fp32', 'tf32' or 'bf16', got {precision!r}")
    before, _precision = _precision, getattr(_core.Precision, precision)
    try:
        yield
    finally:
        _precision = before


@dataclass(frozen=True)
class ErrorMeasure:
    """How a transition's error is measured.

    ``e`` is the mean over features of ``weight * (predicted - recorded)^2``; the energy averages ``e`` over transitions
    and entities, or, with ``scale_squared`` set, the robust ``log(scale_squared + e)``.

    Attributes
    ----------
    weight : Tensor
        [D] weights, same type and device as the trajectories.
    scale_squared : float or None
        s^2 of the robust error, positive.
    """

    weight: Tensor
    scale_squared: float | None = None

    @property
    def native(self) -> _core.ErrorMeasure:
        """What the kernels see."""
        return _core.ErrorMeasure(self.scale_squared is not None, self.scale_squared or 0.0, self.weight.data_ptr())


def _place(tensor: Tensor, precision: _core.Precision = _core.Precision.fp32) -> _core.Place:
    if tensor.is_cuda:
        index = tensor.device.index
        return _core.Place(True, 1, index, torch.cuda.current_stream(index).cuda_stream, precision)
    return _core.Place(_emulate_cuda, _threads, 0, 0, precision)


def _scoring_place(tensor: Tensor) -> _core.Place:
    """Of energies and scores, which :func:`scoring_precision` is about."""
    if tensor.dtype != torch.float32:
        return _place(tensor)
    if not (tensor.is_cuda or _emulate_cuda):
        if _precision == _core.Precision.tf32:
            raise RuntimeError("scoring_precision: tf32 expects CUDA tensors, got tensors on the CPU")
        if _precision == _core.Precision.bf16 and not _core.bf16_available():
            raise RuntimeError("scoring_precision: bf16 expects a processor (and a build) with AVX-512 BF16, got none")
    return _place(tensor, _precision)


def _address(tensor: Tensor | None) -> int:
    if tensor is None:
        return 0
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def rollout_energy(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    rollout: int,
    error: ErrorMeasure,
    observed: Tensor | None = None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """[structures, systems] energies of ``edge_types`` [structures, edges]. See ``csrc/ops/rollout_energy.h``.

    ``observed`` [nodes] uint8 is zero where an entity's predictions are not compared; ``present`` uint8, laid out as
    the states, where a state is absent; ``step_scale`` is [systems].
    """
    energy = states.new_empty(edge_types.shape[0], graph.systems)
    _core.rollout_energy(
        _scoring_place(states),
        states.dtype == torch.float64,
        library.layout,
        _address(parameters),
        graph.native,
        _core.Trajectories(steps, _address(states), _address(present), _address(step_scale)),
        error.native,
        rollout,
        _address(node_types),
        _address(observed),
        edge_types.shape[0],
        _address(edge_types),
        _address(energy),
    )
    return energy


def rollout_gradient(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    rollout: int,
    error: ErrorMeasure,
    cotangent: Tensor,
    with_states: bool = False,
    observed: Tensor | None = None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Energies [systems], parameter gradient [P] and, if wanted, the gradient of ``states``, for one structure.

    See ``csrc/ops/rollout_gradient.h``. Systems with a zero ``cotangent`` may go unevaluated: their energies come as 0.
    """
    energy = states.new_empty(graph.systems)
    parameter_gradient = torch.empty_like(parameters)
    state_gradient = torch.empty_like(states) if with_states else None
    _core.rollout_gradient(
        _place(states),
        states.dtype == torch.float64,
        library.layout,
        _address(parameters),
        graph.native,
        _core.Trajectories(steps, _address(states), _address(present), _address(step_scale)),
        error.native,
        rollout,
        _address(node_types),
        _address(observed),
        _address(edge_types),
        _address(cotangent),
        _address(energy),
        _address(parameter_gradient),
        _address(state_gradient),
    )
    return energy.masked_fill_(cotangent == 0, 0.0), parameter_gradient, state_gradient


def has_rollout_choice(states: Tensor) -> bool:
    """Whether :func:`rollout_choice` runs where these states lie, in the precision that energies are asked for in."""
    exact = _precision == _core.Precision.fp32 or states.dtype != torch.float32
    return exact and not (states.is_cuda or _emulate_cuda)


def rollout_choice(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    rollout: int,
    error: ErrorMeasure,
    draws: Draws,
    temperature: Tensor,
    log_ratio: Tensor | None = None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Energies [2, systems] of the structures held and proposed, and the gradient [P] of the chosen ones' mean.

    ``edge_types`` is [2, edges], ``node_types`` [2, nodes]; draws, ``temperature`` and ``log_ratio`` as
    :func:`metropolis_decide` takes them, which comes to the same choice and updates structures. CPU only. See
    ``csrc/ops/rollout_choice.h``.
    """
    energy = states.new_empty(2, graph.systems)
    parameter_gradient = torch.empty_like(parameters)
    _core.rollout_choice(
        _place(states),
        states.dtype == torch.float64,
        library.layout,
        _address(parameters),
        graph.native,
        _core.Trajectories(steps, _address(states), _address(present), _address(step_scale)),
        error.native,
        rollout,
        _address(edge_types),
        _address(node_types),
        draws.seed,
        draws.step,
        _address(draws.system_ids),
        _address(temperature),
        _address(log_ratio),
        _address(energy),
        _address(parameter_gradient),
    )
    return energy, parameter_gradient


def forecast(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    initial: Tensor,
    horizon: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """Flat predicted trajectories of ``horizon`` steps from ``initial`` [nodes, D].

    Entities for which ``present`` [nodes] uint8 is zero take no part: NaN. ``step_scale`` is [systems].
    """
    states = initial.new_empty(horizon * initial.numel())
    _core.forecast(
        _place(initial),
        initial.dtype == torch.float64,
        library.layout,
        _address(parameters),
        graph.native,
        _address(initial),
        horizon,
        _address(edge_types),
        _address(node_types),
        _address(present),
        _address(step_scale),
        _address(states),
    )
    return states


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[rows, out] of ``rows`` [rows, in] times ``weight`` [out, in], plus ``bias``. CPU only: ``csrc/ops/linear.h``."""
    output = rows.new_empty(len(rows), len(weight))
    _core.linear(
        _place(rows),
        rows.dtype == torch.float64,
        len(rows),
        weight.shape[1],
        len(weight),
        _address(rows),
        _address(weight),
        _address(bias),
        _address(output),
    )
    return output


def linear_gradient(
    rows: Tensor, weight: Tensor, output_gradient: Tensor, with_rows: bool = True
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients in ``rows``, if wanted, in ``weight`` and in the bias."""
    row_gradient = torch.empty_like(rows) if with_rows else None
    weight_gradient, bias_gradient = torch.empty_like(weight), weight.new_empty(len(weight))
    _core.linear_gradient(
        _place(rows),
        rows.dtype == torch.float64,
        len(rows),
        weight.shape[1],
        len(weight),
        _address(rows),
        _address(weight),
        _address(output_gradient),
        _address(row_gradient),
        _address(weight_gradient),
        _address(bias_gradient),
    )
    return row_gradient, weight_gradient, bias_gradient


@dataclass(frozen=True)
class RowLayout:
    """Which alternatives a heat bath scores for each receiver. See ``csrc/ops/heat_bath.h``.

    Attributes
    ----------
    offset : Tensor
        [nodes + 1] int64: where each receiver's rows begin.
    stride : Tensor or None
        Blocks: [edges] int64, how many rows lie between two types of a free edge, 0 for an edge that is held.
        None: conditionals.
    host_offset : Tensor
        [systems + 1] int64, in host memory: where each system's rows begin, and their number.
    """

    offset: Tensor
    stride: Tensor | None
    host_offset: Tensor

    @property
    def rows(self) -> int:
        """How many there are, all systems together."""
        return int(self.host_offset[-1])

    @classmethod
    def conditionals(cls, graph: MegaGraph, edge_types_count: int) -> RowLayout:
        """Every type of each edge, the others staying as they are."""
        return cls(graph.in_offset * edge_types_count, None, graph.host_edge_offset * edge_types_count)

    @classmethod
    def blocks(cls, graph: MegaGraph, edge_types_count: int, free: Tensor | None = None) -> RowLayout:
        """Every assignment of a receiver's incoming edges; of those marked in ``free`` [edges], where it is given.

        Planned in host memory: a mask that lies there makes nobody wait for the device.
        """
        if free is None:
            return _whole_blocks(graph, edge_types_count)
        host, free = graph.host, free.cpu()
        before = _offsets(free.long())  # free edges in front of each edge
        count = before[host.in_offset].diff()
        later = before[host.in_offset[host.receiver + 1]] - before[1:]
        stride = torch.where(free, torch.pow(torch.full_like(later, edge_types_count), later), 0)
        offset = _offsets(torch.pow(torch.full_like(count, edge_types_count), count))
        moved = to_device(offset, graph.device), to_device(stride, graph.device)
        return cls(*moved, offset[host.node_offset])


@lru_cache(maxsize=4)
def _whole_blocks(graph: MegaGraph, edge_types_count: int) -> RowLayout:
    """All edges free: the same in every step whose batch has the same graph."""
    return RowLayout.blocks(graph, edge_types_count, torch.ones(graph.edges, dtype=torch.bool))


def _offsets(sizes: Tensor) -> Tensor:
    """Where each of consecutive ranges begins, and the end."""
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


class Room:
    """Memory in which scoring leaves its activations for the gradient.

    Whoever makes a room gets the memory of one that nobody holds any more: fresh pages would cost a small batch's step
    a tenth of its time.

    Parameters
    ----------
    like : Tensor
        Gives type and device, the processor's.
    values : int
        How many it must hold.
    """

    _spare: ClassVar[list[Tensor]] = []  # one at most

    def __init__(self, like: Tensor, values: int) -> None:
        try:
            spare = self._spare.pop()
        except IndexError:
            spare = like.new_empty(0)
        enough = spare.dtype == like.dtype and spare.numel() >= values
        self.memory = spare if enough else like.new_empty(values)

    def __del__(self) -> None:
        if not self._spare:
            self._spare.append(self.memory)


@dataclass(frozen=True)
class HeatBathProblem:
    """Arguments that heat-bath scores and their gradient share. See ``csrc/ops/heat_bath.h``.

    ``start`` is [systems, transitions] int64. Conditionals need ``edge_types`` [edges]; blocks that hold edges need
    ``held_weight`` [edges, K] float32, how much each type counts in a held edge's message. ``present`` and
    ``step_scale`` as for :func:`rollout_energy`.
    """

    library: ModuleLibrary
    graph: MegaGraph
    states: Tensor
    steps: int
    start: Tensor
    rows: RowLayout
    error: ErrorMeasure
    node_types: Tensor | None = None
    edge_types: Tensor | None = None
    held_weight: Tensor | None = None
    present: Tensor | None = None
    step_scale: Tensor | None = None

    def _call(
        self, parameters: Tensor, kept: Room | None, cotangent: Tensor | None = None, output: Tensor | None = None
    ) -> int:
        return _core.heat_bath(
            _scoring_place(self.states) if cotangent is None else _place(self.states),
            self.states.dtype == torch.float64,
            self.library.layout,
            _address(parameters),
            self.graph.native,
            _core.Trajectories(self.steps, _address(self.states), _address(self.present), _address(self.step_scale)),
            self.error.native,
            self.rows.stride is None,
            self.start.shape[1],
            _address(self.start),
            _address(self.node_types),
            _address(self.edge_types),
            _address(self.rows.offset),
            _address(self.rows.stride),
            _address(self.held_weight),
            _address(self.rows.host_offset),
            _address(None if kept is None else kept.memory),
            _address(cotangent),
            _address(output),
        )

    def room(self, parameters: Tensor) -> Room | None:
        """Room for what :meth:`scores` leaves for :meth:`gradient`; None where a batch is too large for that.

        At most 24 MiB. The gradient is the same to the bit with and without it.
        """
        values = self._call(parameters, None)
        return Room(self.states, values) if values else None

    def scores(self, parameters: Tensor, kept: Room | None = None) -> Tensor:
        """[rows] scores; fills ``kept``, which is :meth:`room`."""
        scores = self.states.new_empty(self.rows.rows)
        self._call(parameters, kept, None, scores)
        return scores

    def gradient(self, parameters: Tensor, cotangent: Tensor, kept: Room | None = None) -> Tensor:
        """[P] gradient of the sum of ``cotangent * scores``. Rows of zero cotangent cost nothing.

        ``kept`` is what :meth:`scores` has filled under the same parameters.
        """
        gradient = torch.empty_like(parameters)
        self._call(parameters, kept, cotangent, gradient)
        return gradient


@dataclass(frozen=True)
class Draws:
    """Names random draws: the same names give the same numbers on every device and in every batch.

    Attributes
    ----------
    seed : int
        0 to 2^64 - 1.
    step : int
        Which bounce of the run, 0 to 2^32 - 1.
    system_ids : Tensor
        [systems] int64: the systems' places in the whole data set.
    """

    seed: int
    step: int
    system_ids: Tensor


def _on_device(value: float | Tensor, device: torch.device) -> Tensor:
    """One float64 where the kernels read it."""
    if not isinstance(value, Tensor):
        return torch.full((1,), value, dtype=torch.float64, device=device)
    assert value.dtype == torch.float64
    assert value.numel() == 1
    return value


def metropolis_propose(
    graph: MegaGraph,
    draws: Draws,
    edge_types_count: int,
    node_types_count: int,
    edge_types: Tensor,
    node_types: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Copies of the types with one random edge or entity of every system changed. See ``csrc/ops/anneal.h``."""
    proposed_edges = torch.empty_like(edge_types)
    proposed_nodes = None if node_types is None else torch.empty_like(node_types)
    _core.metropolis_propose(
        _place(edge_types),
        graph.native,
        draws.seed,
        draws.step,
        _address(draws.system_ids),
        edge_types_count,
        node_types_count,
        _address(edge_types),
        _address(node_types),
        _address(proposed_edges),
        _address(proposed_nodes),
    )
    return proposed_edges, proposed_nodes


def metropolis_decide(
    graph: MegaGraph,
    draws: Draws,
    temperature: Tensor,
    proposed_energy: Tensor,
    proposed_edge_types: Tensor,
    proposed_node_types: Tensor | None,
    energy: Tensor,
    edge_types: Tensor,
    node_types: Tensor | None,
    counts: Tensor,
    log_ratio: Tensor | None = None,
) -> None:
    """Accepts or rejects every system's proposal in place.

    ``energy`` [systems] and the types are updated where accepted; ``counts`` [systems, 4] int64 is added to (columns:
    :data:`COUNTS`). ``temperature`` is one number in a tensor. ``log_ratio`` [systems] float64 is what
    :func:`propose_from_table` gives, None for the plain rule. See ``csrc/ops/anneal.h``.
    """
    _core.metropolis_decide(
        _place(energy),
        energy.dtype == torch.float64,
        graph.native,
        draws.seed,
        draws.step,
        _address(draws.system_ids),
        _address(temperature),
        _address(log_ratio),
        _address(proposed_energy),
        _address(proposed_edge_types),
        _address(proposed_node_types),
        _address(energy),
        _address(edge_types),
        _address(node_types),
        _address(counts),
    )


def propose_from_table(
    graph: MegaGraph,
    draws: Draws,
    kind: str,
    edge_probability: Tensor,
    node_probability: Tensor | None,
    edge_types: Tensor,
    node_types: Tensor | None = None,
    may_change: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Copies of the types with one proposal of ``kind`` (:data:`PROPOSALS`) a system, and its log ratio [systems].

    ``edge_probability`` is [edges, K] float64, ``node_probability`` [nodes, M] float64 or None for one node type,
    ``may_change`` [edges] uint8 or None. See ``csrc/ops/propose_from_table.h``.
    """
    proposed_edges = torch.empty_like(edge_types)
    proposed_nodes = None if node_types is None else torch.empty_like(node_types)
    log_ratio = torch.empty(graph.systems, dtype=torch.float64, device=edge_types.device)
    _core.propose_from_table(
        _place(edge_types),
        graph.native,
        draws.seed,
        draws.step,
        _address(draws.system_ids),
        PROPOSALS.index(kind),
        edge_probability.shape[1],
        1 if node_probability is None else node_probability.shape[1],
        _address(edge_probability),
        _address(node_probability),
        _address(may_change),
        _address(edge_types),
        _address(node_types),
        _address(proposed_edges),
        _address(proposed_nodes),
        _address(log_ratio),
    )
    return proposed_edges, proposed_nodes, log_ratio


@dataclass(frozen=True)
class ProposalSource:
    """Where the proposals of a run come from. See ``csrc/ops/metropolis_run.h``.

    Attributes
    ----------
    kind : str or None
        One of :data:`PROPOSALS`, drawn from the probabilities; None: random changes.
    edge_types, node_types : int
        How many types there are.
    edge_probability, node_probability : Tensor or None
        [edges, K], [nodes, M] float64, as :func:`propose_from_table` takes them.
    """

    kind: str | None
    edge_types: int
    node_types: int
    edge_probability: Tensor | None = None
    node_probability: Tensor | None = None

    @property
    def native(self) -> _core.ProposalSource:
        """What the kernels see."""
        return _core.ProposalSource(
            -1 if self.kind is None else PROPOSALS.index(self.kind),
            self.edge_types,
            1 if self.kind is not None and self.node_probability is None else self.node_types,
            _address(self.edge_probability),
            _address(self.node_probability),
        )


@dataclass(frozen=True)
class ChainArrays:
    """What a run of Metropolis chains changes in place.

    Attributes
    ----------
    energy : Tensor
        [chains, systems], in the run's units.
    edge_types : Tensor
        [chains, edges] uint8.
    node_types : Tensor or None
        [chains, nodes] uint8; None with one node type.
    counts : Tensor
        [chains, systems, 4] int64 (:data:`COUNTS`), added to.
    exchanged : Tensor or None
        [chains - 1] int64: swaps, added to.
    best_energy, best_edge_types, best_node_types : Tensor or None
        [systems], [edges], [nodes]: the structures of lowest energy that any chain of a system has held.
    """

    energy: Tensor
    edge_types: Tensor
    node_types: Tensor | None
    counts: Tensor
    exchanged: Tensor | None = None
    best_energy: Tensor | None = None
    best_edge_types: Tensor | None = None
    best_node_types: Tensor | None = None


MOST_SOURCES = 4  # kMostProposals in csrc/ops/metropolis_run.h


def metropolis_run(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    rollout: int,
    error: ErrorMeasure,
    draws: Draws,
    sources: Sequence[ProposalSource],
    chains: ChainArrays,
    temperature: Tensor | None = None,
    sweeps: int | None = None,
    stride: int | None = None,
    hastings: bool = True,
    exchange: bool = False,
    unit: Tensor | None = None,
    acceptance: Tensor | None = None,
    epoch_is_sweep: bool = False,
    ceiling: float = math.inf,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> None:
    """Many sweeps of Metropolis chains in one call, without a word from the host in between.

    ``temperature`` [sweeps, chains] float64, or ``acceptance``, the state of
    :class:`nri_fast.schedule.AcceptanceTemperature`, and ``sweeps``. ``draws`` names those of the first sweep's first
    chain; ``stride`` steps lie between sweeps, as many as there are chains by default. ``unit`` [systems] divides
    energies. See ``csrc/ops/metropolis_run.h``.
    """
    count = chains.edge_types.shape[0]
    if temperature is not None:
        sweeps = temperature.shape[0]
    assert sweeps is not None
    assert (temperature is None) != (acceptance is None)
    assert 1 <= len(sources) <= MOST_SOURCES
    _core.metropolis_run(
        _scoring_place(states),
        states.dtype == torch.float64,
        library.layout,
        _address(parameters),
        graph.native,
        _core.Trajectories(steps, _address(states), _address(present), _address(step_scale)),
        error.native,
        rollout,
        draws.seed,
        draws.step,
        _address(draws.system_ids),
        sweeps,
        count,
        count if stride is None else stride,
        [source.native for source in sources],
        hastings,
        exchange,
        _address(temperature),
        _address(acceptance),
        epoch_is_sweep,
        ceiling,
        _address(unit),
        _address(chains.energy),
        _address(chains.edge_types),
        _address(chains.node_types),
        _address(chains.counts),
        _address(chains.exchanged),
        _address(chains.best_energy),
        _address(chains.best_edge_types),
        _address(chains.best_node_types),
    )


def end_acceptance_epoch(state: Tensor, ceiling: Tensor) -> None:
    """Brings the state of a temperature that acceptance drives up to date; ``ceiling`` is one float64 in a tensor."""
    _core.end_acceptance_epoch(_place(state), _address(state), _address(_on_device(ceiling, state.device)))


def blur(graph: MegaGraph, draws: Draws, share: float, whole_entity: bool = False) -> Tensor:
    """[edges] uint8: 1 where a structure encoder must not see an edge's type.

    Each edge with probability ``share``, or all edges into one random entity of every system. See
    ``csrc/ops/propose_from_table.h``.
    """
    blurred = torch.empty(graph.edges, dtype=torch.uint8, device=graph.device)
    _core.blur(
        _place(blurred),
        graph.native,
        draws.seed,
        draws.step,
        _address(draws.system_ids),
        share,
        whole_entity,
        _address(blurred),
    )
    return blurred


def heat_bath_sample(
    graph: MegaGraph,
    draws: Draws,
    edge_types_count: int,
    rows: RowLayout,
    scores: Tensor,
    temperature: float | Tensor,
    edge_types: Tensor,
    node_types_count: int = 1,
    node_types: Tensor | None = None,
) -> None:
    """Draws types from softmax(-scores / temperature), in place. See ``csrc/ops/anneal.h``.

    ``rows`` are the blocks of one node type; ``scores`` has them for each node type, the receiver's own type slowest.
    ``temperature`` may be one float64 in a tensor: nobody waits for its value.
    """
    temperature = _on_device(temperature, scores.device)
    offset = rows.offset * node_types_count
    _core.heat_bath_sample(
        _place(scores),
        scores.dtype == torch.float64,
        graph.native,
        draws.seed,
        draws.step,
        _address(draws.system_ids),
        edge_types_count,
        node_types_count,
        _address(offset),
        _address(rows.stride),
        _address(scores),
        _address(temperature),
        _address(edge_types),
        _address(node_types),
    )


def responsibilities(row_offset: Tensor, scores: Tensor, temperature: float | Tensor, group: int = 0) -> Tensor:
    """[rows] softmax(-scores / temperature) over each receiver's rows, or over every ``group`` consecutive rows.

    Weights below 2^-24 of the largest are exactly zero. ``temperature`` may be one float64 in a tensor.
    """
    temperature = _on_device(temperature, scores.device)
    weights = torch.empty_like(scores)
    _core.responsibilities(
        _place(scores),
        scores.dtype == torch.float64,
        row_offset.numel() - 1,
        _address(row_offset),
        group,
        _address(scores),
        _address(temperature),
        _address(weights),
    )
    return weights


def simulate(
    kind: str,
    systems: int,
    entities: int,
    steps: int,
    seed: int,
    split: str = "train",
    first_system: int = 0,
    device: torch.device | str = "cpu",
    threads: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """States [systems, steps, entities, 4] float64, edges [systems, entities, entities] and node types, uint8.

    See ``csrc/ops/simulate.h``. ``threads`` overrides :func:`set_threads` for this call.
    """
    states = torch.empty(systems, steps, entities, 4, dtype=torch.float64, device=device)
    edges = torch.empty(systems, entities, entities, dtype=torch.uint8, device=device)
    node_types = torch.empty(systems, entities, dtype=torch.uint8, device=device)
    place = _place(states)
    if threads is not None and not states.is_cuda:
        place = _core.Place(_emulate_cuda, threads, 0, 0)
    _core.simulate(
        place,
        SIMULATORS.index(kind),
        systems,
        entities,
        steps,
        seed,
        SPLITS.index(split),
        first_system,
        _address(states),
        _address(edges),
        _address(node_types),
    )
    return states, edges, node_types
