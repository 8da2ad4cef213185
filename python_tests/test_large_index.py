"""More than 2^31 elements: whatever is multiplied or offset in 32 bits somewhere goes wrong here.

Large arrays are zeros that nobody touches, so that the operating system never has to find memory for them.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import nri_fast as nf
from nri_fast import _core, energies, ops

LIMIT = 1 << 31


def untouched_zeros(count: int, dtype=np.float32) -> torch.Tensor:
    return torch.from_numpy(np.zeros(count, dtype=dtype))  # calloc: pages appear when they are written


def repeated_systems(systems: int, entities: int, steps: int, features: int, last: torch.Tensor):
    """Flat states of many resting systems; the last is `last`."""
    size = steps * entities * features
    assert systems * size > LIMIT + 4 * size
    states = untouched_zeros(systems * size)
    states[-size:] = last.flatten()
    return states


@pytest.fixture
def library() -> nf.ModuleLibrary:
    return nf.ModuleLibrary(4, 2, 1, 2, (), ())


SYSTEMS, N, STEPS, D = 1 << 15, 2, (1 << 13) + 3, 4  # 2^31 and a little


@pytest.fixture(scope="module")
def last() -> torch.Tensor:
    return torch.randn(STEPS, N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def states(last) -> torch.Tensor:
    return repeated_systems(SYSTEMS, N, STEPS, D, last)


def test_heat_bath_of_many_states(library, states, last):
    def scores(graph, states, start):
        rows = ops.RowLayout.blocks(graph, 2)
        measure = energies.error_measure(library)
        return ops.HeatBathProblem(library, graph, states, STEPS, start, rows, measure)

    parameters = library.flat_parameters().detach()
    many, few = nf.MegaGraph.complete(SYSTEMS, N), nf.MegaGraph.complete(1, N)
    start = torch.full((SYSTEMS, 1), STEPS - 2)
    problem = scores(many, states, start)
    alone = scores(few, last.flatten(), start[:1])
    got, expected = problem.scores(parameters), alone.scores(parameters)
    assert torch.equal(got[-4:], expected)
    assert not torch.equal(got[:4], expected)
    cotangent = torch.zeros_like(got)
    cotangent[-4:] = torch.tensor([1.0, -2.0, 0.5, 3.0])
    gradient = problem.gradient(parameters, cotangent)
    torch.testing.assert_close(gradient, alone.gradient(parameters, cotangent[-4:]), rtol=1e-5, atol=1e-6)
    assert bool(gradient.any())


def test_rollouts_of_many_states(library, states, last):
    # Systems whose cotangent is zero are not evaluated.
    parameters, measure = library.flat_parameters().detach(), energies.error_measure(library)
    many, few = nf.MegaGraph.complete(SYSTEMS, N), nf.MegaGraph.complete(1, N)
    cotangent = torch.zeros(SYSTEMS)
    cotangent[-1] = 1.0

    def gradient(graph, states, cotangent):
        types = torch.ones(graph.edges, dtype=torch.uint8)
        return ops.rollout_gradient(library, parameters, graph, states, STEPS, types, None, 3, measure, cotangent)

    energy, got, _ = gradient(many, states, cotangent)
    expected_energy, expected, _ = gradient(few, last.flatten(), cotangent[-1:])
    assert torch.equal(energy[-1:], expected_energy)
    assert float(expected_energy) > 0
    assert not bool(energy[:-1].any())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_minibatches_of_many_states(states, last):
    graph = nf.MegaGraph.complete_ragged([N] * (SYSTEMS - 1) + [1, 1])  # ragged: gathered by flat index
    assert graph.entities is None
    systems = object.__new__(nf.SystemSet)  # its constructor would read all of the states
    systems.graph, systems.states, systems.steps, systems.features = graph, states, STEPS, D
    systems.present = systems.step_scale = None
    batch = systems.batch([SYSTEMS])
    assert torch.equal(batch.states, last.flatten()[-STEPS * D :])
    assert batch.nodes.tolist() == [SYSTEMS * N - 1]


def native_graph(node_offset, in_offset):
    """A graph of which only the offsets are looked at: its edges would take 16 bytes each."""
    host = [node_offset.clone(), in_offset[node_offset].contiguous()]
    native = _core.Graph(
        len(node_offset) - 1,
        int(node_offset[-1]),
        int(in_offset[-1]),
        node_offset.data_ptr(),
        in_offset.data_ptr(),
        0,
        0,
        *(x.data_ptr() for x in host),
    )
    return SimpleNamespace(native=native, systems=len(node_offset) - 1, kept=(node_offset, in_offset, host))


@pytest.mark.slow
def test_proposals_on_many_edges():
    edges = LIMIT + 1000
    node_offset = torch.tensor([0, 1, 2, 3])
    in_offset = torch.tensor([0, 10, edges - 10, edges])  # the second system holds nearly all
    graph = native_graph(node_offset, in_offset)
    types = untouched_zeros(edges, np.uint8)
    draws = ops.Draws(3, 0, torch.tensor([0, 1, 2]))
    proposed, _ = ops.metropolis_propose(graph, draws, 2, 1, types)
    assert proposed.numel() == edges
    assert int(proposed[:10].sum()) == 1
    assert int(proposed[-10:].sum()) == 1
    assert int(torch.count_nonzero(proposed)) == 3

    counts = torch.zeros(3, 4, dtype=torch.int64)
    energy = torch.ones(3)
    ops.metropolis_decide(graph, draws, torch.tensor([0.0]), energy - 1, proposed, None, energy, types, None, counts)
    assert counts[:, 1].tolist() == [1, 1, 1]
    assert torch.equal(types[-10:], proposed[-10:])
    assert int(torch.count_nonzero(types)) == 3


@pytest.mark.slow
def test_energies_of_many_structures():
    # structures x edges passes 2^31; nearly all edges are of the silent type, which costs next to nothing
    library = nf.ModuleLibrary(1, 2, 1, 1, (), (), silent=True)
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.fill_(3.0)  # messages that are sure to be felt
    graph = nf.MegaGraph.complete(1, 1200)
    structures = LIMIT // graph.edges + 2
    types = torch.zeros(structures, graph.edges, dtype=torch.uint8)
    types[-1, -5:] = 1
    types[0, :3] = 1
    states, measure = torch.rand(2 * 1200), energies.error_measure(library)
    parameters = library.flat_parameters().detach()

    def energy(types):
        return ops.rollout_energy(library, parameters, graph, states, 2, types, None, 1, measure)[:, 0]

    together = energy(types)
    assert torch.equal(together[[0, 1, -2, -1]], energy(types[[0, 1, -2, -1]]))
    assert torch.equal(together[1], together[-2])
    assert len({float(e) for e in together[[0, 1, -1]]}) == 3
