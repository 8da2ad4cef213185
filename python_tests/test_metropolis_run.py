"""A run of Metropolis sweeps in one call: bit for bit what a loop over proposals, energies and decisions holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import assert_close, assert_same_bits, make_case

from nri_fast import ops
from nri_fast.energies import error_measure
from nri_fast.graph import MegaGraph
from nri_fast.proposals import RandomProposer, Table, TableProposer
from nri_fast.proposals.chains import Chains
from nri_fast.proposals.proposers import InTurn
from nri_fast.reference import accepted_epoch
from nri_fast.rollouts import Rollouts
from nri_fast.schedule import AcceptanceTemperature
from nri_fast.system_set import Batch

FLOATS = [torch.float32, torch.float64]
SWEEPS = 12


def make(backend, dtype=torch.float64, node_types=2, sizes=(3, 1, 5, 2), **kwargs):
    """Rollouts of a ragged batch, and random probabilities of its edges' and entities' types."""
    case = make_case(dtype, list(sizes), node_types=node_types, edge_types=3, **kwargs).on(backend)
    states = torch.cat([x.flatten() for x in case.trajectories]) if sizes else torch.zeros(0, dtype=dtype)
    graph = case.graph
    ids = torch.arange(100, 100 + graph.systems, device=backend)
    every = torch.arange(graph.edges, device=backend), torch.arange(graph.nodes, device=backend)
    steps = case.trajectories[0].shape[0] if sizes else 8
    parameters = case.library.flat_parameters().detach()
    rollouts = Rollouts(
        case.library, parameters, Batch(ids, graph, states, *every), steps, 3, error_measure(case.library)
    )
    random = np.random.default_rng(3)
    edge, node = (
        torch.from_numpy(random.random((n, k)) + 0.05) for n, k in ((graph.edges, 3), (graph.nodes, node_types))
    )
    table = Table.of_probabilities(edge.to(backend), node.to(backend))
    return rollouts, table


def proposer_of(rollouts, table, kind):
    random = RandomProposer(rollouts.batch.graph, rollouts.library.edge_types, rollouts.library.node_types)
    if kind == "random":
        return random
    if kind == "in turn":
        return InTurn((TableProposer(rollouts.batch.graph, table, "node"), random))
    return TableProposer(rollouts.batch.graph, table, kind)


@dataclasses.dataclass
class Held:
    """What a run changes."""

    energy: torch.Tensor
    edge_types: torch.Tensor
    node_types: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def start(cls, rollouts, unit):
        graph = rollouts.batch.graph
        device = graph.device
        edges, nodes = (torch.zeros(n, dtype=torch.uint8, device=device) for n in (graph.edges, graph.nodes))
        energy = rollouts.energies(edges, nodes)
        counts = torch.zeros(graph.systems, 4, dtype=torch.int64, device=device)
        return cls(energy if unit is None else energy / unit, edges, nodes, counts)

    def arrays(self, node_types):
        nodes = self.node_types[None] if node_types > 1 else None
        return ops.ChainArrays(self.energy[None], self.edge_types[None], nodes, self.counts[None])

    def assert_same(self, other):
        for name in ("energy", "edge_types", "node_types", "counts"):
            assert_same_bits(getattr(self, name), getattr(other, name))


def one_by_one(rollouts, proposer, held, first, temperatures, unit, hastings):
    """The same sweeps by a call for every proposal, every energy and every decision."""
    for step, temperature in enumerate(temperatures, first):
        draws = ops.Draws(9, step, rollouts.batch.systems)
        edges, nodes, ratio = proposer.propose(draws, held.edge_types, held.node_types)
        proposed = rollouts.energies(edges, nodes)
        ops.metropolis_decide(
            rollouts.batch.graph,
            draws,
            held.energy.new_full((1,), temperature),
            proposed if unit is None else proposed / unit,
            edges,
            nodes,
            held.energy,
            held.edge_types,
            held.node_types,
            held.counts,
            ratio if hastings else None,
        )


def in_one_call(rollouts, proposer, held, first, temperatures, unit, hastings):
    table = torch.tensor(temperatures, dtype=torch.float64, device=held.energy.device)[:, None]
    draws = ops.Draws(9, first, rollouts.batch.systems)
    arrays = held.arrays(rollouts.library.node_types)
    rollouts.run(draws, proposer.sources(), arrays, table, hastings=hastings, unit=unit)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("node_types", [1, 2])
@pytest.mark.parametrize("kind", ["random", "edge", "node", "flip", "system", "in turn"])
def test_a_run_is_its_sweeps_one_by_one(backend, kind, node_types, dtype):
    rollouts, table = make(backend, dtype, node_types)
    proposer = proposer_of(rollouts, table, kind)
    hastings, unit = kind != "flip", None
    if kind != "edge":
        unit = torch.linspace(0.5, 2.0, rollouts.batch.graph.systems, dtype=dtype, device=backend)
    expected, got = (Held.start(rollouts, unit) for _ in range(2))
    scale = float(expected.energy.mean())
    temperatures = [scale * 0.5 * 0.7**i for i in range(SWEEPS)]
    one_by_one(rollouts, proposer, expected, 40, temperatures, unit, hastings)
    in_one_call(rollouts, proposer, got, 40, temperatures, unit, hastings)
    got.assert_same(expected)
    assert int(got.counts[:, 0].sum()) == SWEEPS * rollouts.batch.graph.systems
    assert 0 < int(got.counts[:, 1].sum()) < int(got.counts[:, 0].sum())


@pytest.mark.parametrize("cut", [1, 3, 5, 11])
def test_a_run_goes_on_where_another_ended(backend, cut):
    rollouts, table = make(backend)
    proposer = proposer_of(rollouts, table, "in turn")
    whole, parts = (Held.start(rollouts, None) for _ in range(2))
    temperatures = [float(whole.energy.mean()) * 0.7**i for i in range(SWEEPS)]
    in_one_call(rollouts, proposer, whole, 7, temperatures, None, True)
    in_one_call(rollouts, proposer, parts, 7, temperatures[:cut], None, True)
    in_one_call(rollouts, proposer, parts, 7 + cut, temperatures[cut:], None, True)
    parts.assert_same(whole)


def test_a_systems_chain_is_its_own(backend):
    """Alone or in company, with other systems' energies not finite."""
    rollouts, table = make(backend, sizes=(4, 3, 4))
    proposer = proposer_of(rollouts, table, "random")
    held = Held.start(rollouts, None)
    temperatures = [float(held.energy.mean()) * 0.8**i for i in range(SWEEPS)]
    in_one_call(rollouts, proposer, held, 0, temperatures, None, True)
    spoiled = rollouts.batch.states.clone()
    graph, steps = rollouts.batch.graph, rollouts.steps
    spoiled[: steps * 4 * rollouts.library.features] = torch.nan
    others = dataclasses.replace(rollouts, batch=dataclasses.replace(rollouts.batch, states=spoiled))
    beside = Held.start(others, None)
    in_one_call(others, proposer, beside, 0, temperatures, None, True)
    edges = int(graph.host_edge_offset[1])
    assert_same_bits(beside.edge_types[edges:], held.edge_types[edges:])
    assert_same_bits(beside.energy[1:], held.energy[1:])
    assert not beside.edge_types[:edges].any()
    assert beside.counts[0].tolist() == [SWEEPS, 0, 0, SWEEPS]


@pytest.mark.parametrize("node_types", [1, 2])
@pytest.mark.parametrize("chains", [1, 2, 3, 4])
def test_exchanging_chains_and_the_best_are_those_of_single_steps(backend, chains, node_types):
    rollouts, table = make(backend, node_types=node_types)
    graph = rollouts.batch.graph
    proposer = proposer_of(rollouts, table, "in turn")
    random = np.random.default_rng(5)
    starts = [
        torch.from_numpy(random.integers(0, k, (chains, n), dtype=np.uint8)).to(backend)
        for n, k in ((graph.edges, 3), (graph.nodes, node_types))
    ]
    unit = torch.linspace(0.5, 2.0, graph.systems, dtype=torch.float64, device=backend)
    expected, got = (Chains(rollouts, proposer, *starts, seed=4, unit=unit) for _ in range(2))
    scale = float(expected.energy.mean())
    ladder = [[scale * 0.3 * 0.9**step * 3.0**c for c in range(chains)] for step in range(SWEEPS)]
    for step, temperatures in enumerate(ladder):
        expected.step(5 + step, temperatures)
        expected.exchange(5 + step, temperatures)
    got.run(5, ladder[:7])
    got.run(12, ladder[7:])
    for name in ("energy", "edge_types", "node_types", "counts", "exchanged"):
        assert_same_bits(getattr(got, name), getattr(expected, name))
    for name in ("best_energy", "best_edge_types", "best_node_types"):
        assert_same_bits(getattr(got, name), getattr(expected, name))
    assert chains == 1 or int(got.exchanged.sum()) > 0
    assert (got.best_energy <= got.energy.min(0).values).all()


def test_temperature_driven_by_acceptance(backend):
    """A sweep is an epoch: the state follows the oracle's, and so do the chains at its temperature."""
    rollouts, table = make(backend)
    proposer = proposer_of(rollouts, table, "random")
    expected, got = (Held.start(rollouts, None) for _ in range(2))
    first = float(expected.energy.mean()) * 0.05
    ceiling, state = 1.35 * first, [first, 0.0, 0, 0.0, 0.0]
    acceptance = AcceptanceTemperature(first, device=backend)
    temperatures = []
    for step in range(SWEEPS):
        temperatures.append(state[0])
        before = expected.counts.sum(0)
        one_by_one(rollouts, proposer, expected, step, [state[0]], None, True)
        new = (expected.counts.sum(0) - before).tolist()
        state = accepted_epoch([*state[:3], new[0], new[2]], ceiling)
    for sweeps, at in ((5, 0), (SWEEPS - 5, 5)):
        ops.metropolis_run(
            rollouts.library,
            rollouts.parameters,
            rollouts.batch.graph,
            rollouts.batch.states,
            rollouts.steps,
            rollouts.rollout,
            rollouts.error,
            ops.Draws(9, at, rollouts.batch.systems),
            proposer.sources(),
            got.arrays(2),
            sweeps=sweeps,
            acceptance=acceptance.state,
            epoch_is_sweep=True,
            ceiling=ceiling,
        )
    got.assert_same(expected)
    assert acceptance.state.tolist() == pytest.approx(state, rel=1e-14)
    assert max(temperatures) <= ceiling < 1.1 * max(temperatures)


def test_an_epoch_of_several_runs(backend):
    """Counts gather in the state; nothing moves until the epoch ends."""
    rollouts, table = make(backend)
    proposer = proposer_of(rollouts, table, "edge")
    held = Held.start(rollouts, None)
    acceptance = AcceptanceTemperature(float(held.energy.mean()), device=backend)
    for at in (0, 6):
        draws = ops.Draws(9, at, rollouts.batch.systems)
        rollouts.run(draws, proposer.sources(), held.arrays(2), acceptance=acceptance.state, sweeps=6)
    counts = held.counts.sum(0).tolist()
    before = acceptance.state.tolist()
    assert before[1:] == [0.0, 0.0, counts[0], counts[2]]
    assert counts[2] > 0
    acceptance.update(torch.tensor([torch.inf], dtype=torch.float64, device=backend))
    assert acceptance.state.tolist() == pytest.approx(accepted_epoch(before, float("inf")), rel=1e-14)


@pytest.mark.parametrize("sizes", [(), (1, 1), (2,)])
def test_runs_with_little_to_do(backend, sizes):
    rollouts, table = make(backend, sizes=sizes, node_types=1)
    held = Held.start(rollouts, None)
    in_one_call(rollouts, proposer_of(rollouts, table, "random"), held, 0, [1.0] * 5, None, True)
    assert held.counts[:, 0].tolist() == [5] * len(sizes)
    again = Held.start(rollouts, None)
    in_one_call(rollouts, proposer_of(rollouts, table, "random"), again, 0, [], None, True)
    assert not again.counts.any()


def test_runs_are_the_same_in_several_threads_and_chunks(backend):
    """Several hundred systems: on the emulated device their energies take several chunks of memory."""
    rollouts, table = make(backend, torch.float32, node_types=1, sizes=(5,) * 60, edge_hidden=(24,), node_hidden=(24,))
    proposer = proposer_of(rollouts, table, "in turn")
    results = []
    threads = ops.get_threads()
    for count in (1, 3):
        ops.set_threads(count)
        try:
            held = Held.start(rollouts, None)
            in_one_call(rollouts, proposer, held, 0, [float(held.energy.mean()) * 0.1] * SWEEPS, None, True)
        finally:
            ops.set_threads(threads)
        results.append(held)
    expected = Held.start(rollouts, None)
    one_by_one(rollouts, proposer, expected, 0, [float(expected.energy.mean()) * 0.1] * SWEEPS, None, True)
    for held in results:
        held.assert_same(expected)


def test_the_oracle_of_the_temperature_by_hand():
    # Epoch 1: the rate becomes 3 / 10, below exp(-1.00625) = 0.3656: warmer. Epoch 2: 0.6 is above: colder.
    state = accepted_epoch([2.0, 0.0, 0, 10.0, 3.0], float("inf"))
    assert state == pytest.approx([2.2, 0.3, 1, 0, 0])
    assert accepted_epoch([*state[:3], 10.0, 9.0], float("inf")) == pytest.approx([2.0, 0.6, 2, 0, 0])
    assert accepted_epoch([2.0, 0.0, 0, 10.0, 3.0], 2.1)[0] == 2.0


def test_graphs_of_a_run_need_little_device(backend):
    """A complete graph as training has it, one sweep a call: below the number that is worth a CUDA graph."""
    rollouts, table = make(backend, keep=1.0)
    assert isinstance(rollouts.batch.graph, MegaGraph)
    proposer = proposer_of(rollouts, table, "system")
    whole, parts = (Held.start(rollouts, None) for _ in range(2))
    temperature = float(whole.energy.mean())
    in_one_call(rollouts, proposer, whole, 0, [temperature] * 3, None, True)
    for step in range(3):
        in_one_call(rollouts, proposer, parts, step, [temperature], None, True)
    parts.assert_same(whole)
    assert_close(whole.energy, rollouts.energies(whole.edge_types, whole.node_types), 1e-12)
