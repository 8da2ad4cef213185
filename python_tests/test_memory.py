"""What happens when a device's memory runs out: smaller chunks with the same bits, and an error when nothing fits."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from cases import assert_same_bits, make_case

from nri_fast import _core, energies, ops

UNLIMITED = 2**64 - 1
NOTHING_FITS = 256
SIZES = [4, 3, 5, 4, 5, 3] * 4


@contextmanager
def refused_above(largest):
    """Larger workspace arrays are refused meanwhile, as if there were no more memory."""
    _core.cuda_refuse_allocations(largest)
    try:
        yield
    finally:
        _core.cuda_refuse_allocations(UNLIMITED)


@pytest.fixture
def case(backend):
    torch.manual_seed(1)
    made = make_case(torch.float32, SIZES, keep=1.0, steps=14, node_types=1, edge_hidden=(16,), node_hidden=(16, 16))
    return made.on(backend)


def operations(case):
    """Everything that works in chunks: name and call."""
    library, graph, parameters = case.library, case.graph, case.library.flat_parameters().detach()
    states = torch.cat([x.flatten() for x in case.trajectories])
    error, steps = energies.error_measure(library), 14
    several = torch.stack([case.edge_types, 1 - case.edge_types, case.edge_types * 0])
    start = energies.all_transitions(graph, steps)
    rows = ops.RowLayout.blocks(graph, library.edge_types)
    problem = ops.HeatBathProblem(library, graph, states, steps, start, rows, error)
    weights = torch.rand(rows.rows, generator=torch.Generator().manual_seed(2)).to(states)
    even = states.new_full((graph.systems,), 1 / graph.systems)

    def run():
        types = case.edge_types.clone()
        energy = ops.rollout_energy(library, parameters, graph, states, steps, types[None], None, 5, error)
        counts = torch.zeros(1, graph.systems, 4, dtype=torch.int64, device=graph.device)
        ids = torch.arange(graph.systems, device=graph.device)
        warm = energy.double().mean().expand(9, 1).contiguous()
        source = [ops.ProposalSource(None, library.edge_types, 1)]
        chain = ops.ChainArrays(energy, types[None], None, counts)
        arguments = library, parameters, graph, states, steps, 5, error, ops.Draws(1, 0, ids), source, chain, warm
        ops.metropolis_run(*arguments)
        return torch.cat([energy.flatten(), types.float()])

    return {
        "energy": lambda: ops.rollout_energy(library, parameters, graph, states, steps, several, None, 5, error),
        "gradient": lambda: ops.rollout_gradient(
            library, parameters, graph, states, steps, case.edge_types, None, 5, error, even
        )[1],
        "forecast": lambda: ops.forecast(
            library, parameters, graph, states[: 3 * graph.nodes], 6, case.edge_types, None
        ),
        "scores": lambda: problem.scores(parameters),
        "scores' gradient": lambda: problem.gradient(parameters, weights),
        "metropolis_run": run,
    }


NAMES = ["energy", "gradient", "forecast", "scores", "scores' gradient", "metropolis_run"]


@pytest.mark.parametrize("largest", [1 << 18, 1 << 17, 1 << 16])
@pytest.mark.parametrize("name", NAMES)
def test_the_bits_do_not_depend_on_the_memory_at_hand(case, name, largest):
    operation = operations(case)[name]
    expected = operation()
    with refused_above(largest):
        assert_same_bits(operation(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_where_nothing_fits_and_then_the_device_goes_on(case, name):
    operation = operations(case)[name]
    expected = operation()
    if ops.uses_cuda_kernels(expected):
        with refused_above(NOTHING_FITS), pytest.raises(RuntimeError, match="out of device memory: a workspace array"):
            operation()
    assert_same_bits(operation(), expected)
