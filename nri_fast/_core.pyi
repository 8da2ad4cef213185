"""Kernels of nri_fast: addresses in, addresses out.

Every ``int`` named after an array is the address of its first element, on the device that ``place`` names; 0 stands for
none where the contract in ``csrc/ops/`` allows it. Nothing is checked here: `nri_fast.ops` is the only caller. The
interpreter lock is released while an operation runs.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, overload

import numpy as np
import numpy.typing as npt

class Precision:
    """What products of fp32 numbers are made of where energies and scores are computed."""

    fp32: ClassVar[Precision]
    tf32: ClassVar[Precision]
    bf16: ClassVar[Precision]
    __members__: ClassVar[dict[str, Precision]]
    def __init__(self, value: int) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __int__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Place:
    """Where to run: CPU threads, or a CUDA device and stream; and how exactly."""
    def __init__(
        self,
        cuda: bool,
        threads: int,
        ordinal: int,
        stream: int,
        precision: Precision = Precision.fp32,
        fused: bool = True,
    ) -> None: ...

class Layout:
    """A module library without its weights (LibraryView in csrc/common/views.h)."""
    def __init__(
        self,
        features: int,
        edge_types: int,
        node_types: int,
        silent: bool,
        edge_sizes: Sequence[int],
        node_sizes: Sequence[int],
    ) -> None: ...

class Graph:
    """A mega-graph (GraphView in csrc/common/views.h)."""
    def __init__(
        self,
        systems: int,
        nodes: int,
        edges: int,
        node_offset: int,
        in_offset: int,
        sender: int,
        receiver: int,
        host_node_offset: int,
        host_edge_offset: int,
    ) -> None: ...

class Trajectories:
    """Recorded states (TrajectoryView in csrc/common/views.h)."""
    def __init__(self, steps: int, states: int, present: int = 0, step_scale: int = 0) -> None: ...

class ErrorMeasure:
    """How one transition's error is measured (ErrorView in csrc/common/views.h)."""
    def __init__(self, robust: bool, scale_squared: float, weight: int) -> None: ...

class ProposalSource:
    """Where proposals of a run come from (ProposalSource in csrc/ops/metropolis_run.h); `kind` -1: random changes."""
    def __init__(
        self, kind: int, edge_types: int, node_types: int, edge_probability: int, node_probability: int, reverse: int
    ) -> None: ...

def rollout_energy(
    place: Place,
    float64: bool,
    layout: Layout,
    parameters: int,
    graph: Graph,
    trajectories: Trajectories,
    error: ErrorMeasure,
    rollout: int,
    node_types: int,
    observed: int,
    structures: int,
    edge_types: int,
    energy: int,
) -> None: ...
def rollout_gradient(
    place: Place,
    float64: bool,
    layout: Layout,
    parameters: int,
    graph: Graph,
    trajectories: Trajectories,
    error: ErrorMeasure,
    rollout: int,
    node_types: int,
    observed: int,
    edge_types: int,
    cotangent: int,
    energy: int,
    parameter_gradient: int,
    state_gradient: int,
) -> None: ...
def rollout_choice(
    place: Place,
    float64: bool,
    layout: Layout,
    parameters: int,
    graph: Graph,
    trajectories: Trajectories,
    error: ErrorMeasure,
    rollout: int,
    edge_types: int,
    node_types: int,
    seed: int,
    step: int,
    system_ids: int,
    temperature: int,
    log_ratio: int,
    energy: int,
    parameter_gradient: int,
) -> None: ...
def forecast(
    place: Place,
    float64: bool,
    layout: Layout,
    parameters: int,
    graph: Graph,
    initial: int,
    horizon: int,
    edge_types: int,
    node_types: int,
    present: int,
    step_scale: int,
    states: int,
) -> None: ...
def heat_bath(
    place: Place,
    float64: bool,
    layout: Layout,
    parameters: int,
    graph: Graph,
    trajectories: Trajectories,
    error: ErrorMeasure,
    conditionals: bool,
    transitions: int,
    start: int,
    node_types: int,
    edge_types: int,
    row_offset: int,
    stride: int,
    held_weight: int,
    host_row_offset: int,
    kept: int,
    cotangent: int,
    output: int,
) -> int:
    """Scores where `cotangent` is 0, otherwise their weighted sum's gradient; without output the values to keep."""

def linear(
    place: Place,
    float64: bool,
    row_count: int,
    inputs: int,
    outputs: int,
    rows: int,
    weight: int,
    bias: int,
    output: int,
) -> None: ...
def linear_gradient(
    place: Place,
    float64: bool,
    row_count: int,
    inputs: int,
    outputs: int,
    rows: int,
    weight: int,
    output_gradient: int,
    input_gradient: int,
    weight_gradient: int,
    bias_gradient: int,
) -> None: ...
def metropolis_propose(
    place: Place,
    graph: Graph,
    seed: int,
    step: int,
    system_ids: int,
    reverse: int,
    edge_type_count: int,
    node_type_count: int,
    edge_types: int,
    node_types: int,
    proposed_edge_types: int,
    proposed_node_types: int,
) -> None: ...
def metropolis_decide(
    place: Place,
    float64: bool,
    graph: Graph,
    seed: int,
    step: int,
    system_ids: int,
    temperature: int,
    log_ratio: int,
    proposed_energy: int,
    proposed_edge_types: int,
    proposed_node_types: int,
    energy: int,
    edge_types: int,
    node_types: int,
    counts: int,
) -> None: ...
def propose_from_table(
    place: Place,
    graph: Graph,
    seed: int,
    step: int,
    system_ids: int,
    kind: int,
    edge_type_count: int,
    node_type_count: int,
    edge_probability: int,
    node_probability: int,
    may_change: int,
    reverse: int,
    edge_types: int,
    node_types: int,
    proposed_edge_types: int,
    proposed_node_types: int,
    log_ratio: int,
) -> None: ...
def metropolis_run(
    place: Place,
    float64: bool,
    layout: Layout,
    parameters: int,
    graph: Graph,
    trajectories: Trajectories,
    error: ErrorMeasure,
    rollout: int,
    seed: int,
    step: int,
    system_ids: int,
    sweeps: int,
    chains: int,
    stride: int,
    proposals: Sequence[ProposalSource],
    hastings: bool,
    exchange: bool,
    temperature: int,
    acceptance: int,
    epoch_is_sweep: bool,
    ceiling: float,
    unit: int,
    energy: int,
    edge_types: int,
    node_types: int,
    counts: int,
    exchanged: int,
    best_energy: int,
    best_edge_types: int,
    best_node_types: int,
) -> None: ...
def end_acceptance_epoch(place: Place, acceptance: int, ceiling: int) -> None: ...
def blur(
    place: Place,
    graph: Graph,
    seed: int,
    step: int,
    system_ids: int,
    share: float,
    whole_entity: bool,
    blurred: int,
) -> None: ...
def heat_bath_sample(
    place: Place,
    float64: bool,
    graph: Graph,
    seed: int,
    step: int,
    system_ids: int,
    edge_type_count: int,
    node_type_count: int,
    row_offset: int,
    stride: int,
    scores: int,
    temperature: int,
    edge_types: int,
    node_types: int,
) -> None: ...
def responsibilities(
    place: Place,
    float64: bool,
    receivers: int,
    row_offset: int,
    group: int,
    scores: int,
    temperature: int,
    weights: int,
) -> None: ...
def simulate(
    place: Place,
    kind: int,
    systems: int,
    entities: int,
    steps: int,
    seed: int,
    split: int,
    first_system: int,
    states: int,
    edges: int,
    node_types: int,
) -> None: ...
def built_variants() -> list[str]: ...
def bf16_available() -> bool: ...
def chosen_variant() -> str: ...
def hardware_threads() -> int: ...
def fma_operations(threads: int, blocks: int) -> int: ...
def cuda_build() -> Literal["none", "device", "emulated"]: ...
def cuda_architectures() -> list[str]: ...
def cuda_device_count() -> int: ...
def cuda_device_problem() -> str: ...
def cuda_refuse_allocations(largest: int) -> None: ...
def plan_chunks(needed: Sequence[int], replicas: int, budget: int) -> list[list[int]]: ...
def plan_units(rows: Sequence[int], replicas: int, group_rows: int, split_rows: int) -> list[list[int]]: ...
def group_ends(items: int, replicas: int, group_rows: int) -> list[int]: ...
@overload
def portable_exp(x: float) -> float: ...
@overload
def portable_exp(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
@overload
def portable_log(x: float) -> float: ...
@overload
def portable_log(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
@overload
def portable_sin(x: float) -> float: ...
@overload
def portable_sin(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
@overload
def portable_cos(x: float) -> float: ...
@overload
def portable_cos(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
def philox4x32_10(counter: Sequence[int], key: int) -> list[int]:
    """Four random 32-bit words for a counter of four words and a 64-bit key."""
