"""Metropolis on structures whose parts are tied: both directions of a pair, and one structure of many recordings."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from cases import assert_close, assert_same_bits, make_case
from test_metropolis_run import Held, make
from test_search import STEPS, D, measure_of, problem, recordings, teacher

import nri_fast as nf
from nri_fast import ops
from nri_fast.bounces import Structures, metropolis_bounce
from nri_fast.couplings import Coupling, mirrored
from nri_fast.energies import error_measure
from nri_fast.graph import MegaGraph
from nri_fast.ops import Draws
from nri_fast.proposals import InTurn, ProposalNetwork, RandomProposer, StructureProposer, Table, TableProposer
from nri_fast.proposals.chain_search import chain_search
from nri_fast.proposals.chains import Chains
from nri_fast.proposals.imitation import blurred_edges
from nri_fast.proposals.one_by_one import one_by_one
from nri_fast.search import Descent, metropolis_search
from nri_fast.shared_rollouts import SharedRollouts, tied_rollouts

MUTUAL, SHARED = Coupling(undirected=True), Coupling(shared=True)
COUPLINGS = {"undirected": MUTUAL, "shared": SHARED, "both": Coupling(undirected=True, shared=True)}


def some_pairs(device, sizes=(3, 1, 5, 2), seed=2):
    """A ragged graph with pairs, and with edges that have no reverse."""
    complete = MegaGraph.complete_ragged(sizes)
    keep = torch.from_numpy(np.random.default_rng(seed).random(complete.edges) < 0.75)
    return MegaGraph.from_edge_index(complete.edge_index[:, keep], sizes).to(device)


def ids(count, device, first=0):
    return torch.arange(first, first + count, device=device)


def symmetric(graph, count, seed=0):
    types = torch.from_numpy(np.random.default_rng(seed).integers(0, count, graph.edges, dtype=np.uint8))
    return mirrored(graph, types.to(graph.device))


def assert_frequencies(counts, probability):
    """Five standard deviations of a binomial for every state."""
    total = counts.sum()
    slack = 5 * np.sqrt(total * probability * (1 - probability))
    assert (np.abs(counts - total * probability) <= slack).all(), counts - total * probability


# ---- proposals that change a pair ----


@pytest.mark.parametrize("kind", [None, *ops.PROPOSALS])
def test_a_proposal_changes_both_directions_or_none(backend, kind):
    graph = some_pairs(backend)
    random = torch.Generator().manual_seed(0)
    table = Table.of_probabilities(
        torch.rand(graph.edges, 3, generator=random).to(backend),
        torch.rand(graph.nodes, 2, generator=random).to(backend),
    ).agreed(graph)
    proposer = (
        RandomProposer(graph, 3, 2, graph.reverse) if kind is None else TableProposer(graph, table, kind, graph.reverse)
    )
    nodes = torch.zeros(graph.nodes, dtype=torch.uint8, device=backend)
    changed = torch.zeros(graph.edges, dtype=torch.bool, device=backend)
    for step in range(400):
        edges = symmetric(graph, 3, step)
        new, _, _ = proposer.propose(Draws(1, step, ids(graph.systems, backend)), edges, nodes)
        assert_same_bits(new, mirrored(graph, new))
        changed |= new != edges
    assert bool(changed.all())


def test_random_proposals_take_every_pair_equally_often(backend):
    """Entity 0 acts on 1 and 2 and back, 1 acts on 2 alone: three places, two other types each, and three entities."""
    systems = 30_000
    one = torch.tensor([[0, 1, 0, 2, 1], [1, 0, 2, 0, 2]])
    index = (one[:, None] + 3 * torch.arange(systems)[None, :, None]).flatten(1)
    graph = MegaGraph.from_edge_index(index, [3] * systems).to(backend)
    edges = torch.zeros(graph.edges, dtype=torch.uint8, device=backend)
    nodes = torch.zeros(graph.nodes, dtype=torch.uint8, device=backend)
    new, other, _ = RandomProposer(graph, 3, 2, graph.reverse).propose(Draws(5, 9, ids(systems, backend)), edges, nodes)
    assert_same_bits(new, mirrored(graph, new))
    pairs = new.view(systems, -1)[:, [2, 3, 4]].cpu()  # edges by receiver and sender: 1->0, 2->0, 0->1, 0->2, 1->2
    counts = [int((pairs[:, p] == t).sum()) for p in range(3) for t in (1, 2)]
    counts += other.view(systems, 3).cpu().sum(0).tolist()
    assert sum(counts) == systems
    assert_frequencies(np.array(counts), np.array([1 / 12] * 6 + [1 / 6] * 3))


def test_the_ratio_of_a_pair_by_hand(backend):
    """One pair and one lonely edge, three types; the pair's row is that of the edge to the later entity."""
    systems = 20_000
    index = torch.tensor([[0, 1, 0], [1, 0, 2]])
    graph = MegaGraph.from_edge_index(
        (index[:, None] + 3 * torch.arange(systems)[None, :, None]).flatten(1), [3] * systems
    )
    graph = graph.to(backend)  # in order: 1->0, 0->1, 0->2
    p = torch.tensor([[9.0, 9.0, 9.0], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], dtype=torch.float64, device=backend)
    edges = torch.zeros(graph.edges, dtype=torch.uint8, device=backend)
    draws = Draws(1, 0, ids(systems, backend))
    new, _, ratio = ops.propose_from_table(
        graph, draws, "edge", p.repeat(systems, 1), None, edges, reverse=graph.reverse
    )
    assert_same_bits(new, mirrored(graph, new))
    states = (new.view(-1, 3)[:, 1:].long() * torch.tensor([3, 1], device=backend)).sum(1).cpu().numpy()
    total = 0.3 + 0.2 + 0.2 + 0.7
    expected = np.zeros(9)
    expected[[3, 6, 1, 2]] = np.array([0.3, 0.2, 0.2, 0.7]) / total
    assert_frequencies(np.bincount(states, minlength=9), expected)
    back = float(ratio[int((torch.from_numpy(states) == 3).nonzero()[0])])
    assert back == pytest.approx(math.log(0.5 / 1.6) - math.log(0.3 / total), rel=1e-12)
    whole, _, ratio = ops.propose_from_table(
        graph, draws, "system", p.repeat(systems, 1), None, edges, reverse=graph.reverse
    )
    pair, lonely = whole.view(-1, 3)[:, 1].long(), whole.view(-1, 3)[:, 2].long()
    by_hand = (p[1, 0] / p[1, pair]).log() + (p[2, 0] / p[2, lonely]).log()
    assert_close(ratio, by_hand, 1e-12)
    # A node's turn: entity 0 has the pair, entity 1 the same pair, entity 2 the lonely edge.
    node, _, _ = ops.propose_from_table(graph, draws, "flip", p.repeat(systems, 1), None, edges, reverse=graph.reverse)
    touched = (node.view(-1, 3) > 0).cpu().numpy()
    assert_frequencies(np.array([touched[:, 1].sum(), touched[:, 2].sum()]), np.array([2 / 3, 1 / 3]))


def test_what_is_blurred_is_blurred_both_ways():
    graph = some_pairs("cpu", [6] * 400)
    for whole_entity in (False, True):
        for step in range(3):
            draws = Draws(3, step, ids(graph.systems, "cpu"))
            blurred = blurred_edges(graph, draws, whole_entity, graph.reverse)
            assert_same_bits(blurred, mirrored(graph, blurred))
            plain = blurred_edges(graph, draws, whole_entity, None)
            if whole_entity:
                assert bool((blurred >= plain).all())
            else:
                leads = graph.reverse < torch.arange(graph.edges)
                assert_same_bits(blurred[leads], plain[leads])
                share = blurred[leads].double().mean().item()
                assert abs(share - 0.2) < 5 * math.sqrt(0.16 / int(leads.sum()))


@pytest.mark.parametrize("kind", ["random", "edge", "node", "flip", "system"])
@pytest.mark.parametrize("node_types", [1, 2])
def test_a_native_run_is_its_steps_one_by_one(backend, kind, node_types):
    rollouts, table = make(backend, node_types=node_types)
    rollouts = dataclasses.replace(rollouts, coupling=MUTUAL)
    graph, reverse = rollouts.graph, rollouts.reverse
    table = table.tied(graph, MUTUAL)
    random = RandomProposer(graph, 3, node_types, reverse)
    proposer = random if kind == "random" else InTurn((TableProposer(graph, table, kind, reverse), random))
    held, expected = Held.start(rollouts, None), Held.start(rollouts, None)
    warm = torch.full((20, 1), 0.05, dtype=torch.float64, device=backend)
    draws = Draws(7, 3, rollouts.names)
    rollouts.run(draws, proposer.sources(), held.arrays(node_types), warm)
    with torch.no_grad():
        one_by_one(
            *(rollouts, proposer, draws, [*warm], True),
            *(expected.energy, expected.edge_types, expected.node_types, expected.counts),
        )
    held.assert_same(expected)
    assert int(held.counts[:, 1].sum()) > 0
    assert_same_bits(held.edge_types, mirrored(graph, held.edge_types))


# ---- chains, against enumerated structures ----


def enumerated(coupling, copies, steps=(7,), edge_types=2):
    """Roll-outs of triangles, copies or recordings, and the energies of all structures that the coupling allows."""
    torch.manual_seed(7)
    case = make_case(sizes=[3], keep=1.0, edge_types=edge_types, node_types=1, steps=max(steps))
    states = torch.stack([torch.randn(max(steps), 3, 3, dtype=torch.float64) for _ in steps])
    present = torch.arange(max(steps))[None, :, None] < torch.tensor(steps)[:, None, None]
    repeats = 1 if coupling.shared else copies
    systems = nf.SystemSet.complete(
        states.repeat(repeats, 1, 1, 1), present.expand(-1, -1, 3).repeat(repeats, 1, 1) if len(steps) > 1 else None
    )
    error, parameters = error_measure(case.library), case.library.flat_parameters().detach()
    rollouts = tied_rollouts(
        case.library, parameters, systems.batch(range(len(systems))), max(steps), 3, error, coupling
    )
    graph = MegaGraph.complete(1, 3)
    every = torch.tensor([*itertools.product(range(edge_types), repeat=6)], dtype=torch.uint8)
    if coupling.undirected:
        every = every[(every == every[:, graph.reverse]).all(1)]
    # Recording by recording, cut to its length: the mean over all predictions is what the structures are judged by.
    energy, counts = torch.zeros(len(every), dtype=torch.float64), 0
    for own, length in zip(states, steps, strict=True):
        one = ops.rollout_energy(
            case.library, parameters, graph, own[:length].flatten(), length, every, None, 3, error
        )[:, 0]
        energy, counts = energy + one * (length - 1), counts + length - 1
    return rollouts, every, (energy / counts).numpy()


def states_of(types, every):
    """The number of each structure [n, E] among those enumerated."""
    return (types[:, None] == every).all(-1).long().argmax(1).numpy()


def departures(types, every, energy, temperature):
    """Standard deviations by which structures' frequencies miss the Boltzmann distribution, the largest."""
    p = np.exp(-(energy - energy.min()) / temperature)
    p /= p.sum()
    counts = np.bincount(states_of(types, every), minlength=len(p))
    assert counts.sum() == len(types)
    return float(np.max(np.abs(counts - len(types) * p) / np.sqrt(len(types) * p * (1 - p))))


def uneven_table(graph, types):
    p = torch.from_numpy(np.random.default_rng(5).dirichlet([0.6] * types, size=6))
    return Table.of_probabilities(p.repeat(graph.systems, 1), torch.ones(graph.nodes, 1))


@pytest.mark.parametrize("kind", ["random", "edge", "node", "system"])
def test_undirected_chains_sample_undirected_structures(kind):
    rollouts, every, energy = enumerated(MUTUAL, 2000, edge_types=3)
    graph, reverse = rollouts.graph, rollouts.reverse
    proposer = RandomProposer(graph, 3, 1, reverse)
    if kind != "random":
        proposer = TableProposer(graph, uneven_table(graph, 3).tied(graph, MUTUAL), kind, reverse)
    temperature = float(np.std(energy))

    def reached(hastings):
        structures = Structures.zeros(graph, 3)
        warm = torch.full((1,), temperature, dtype=torch.float64)
        metropolis_bounce(rollouts, structures, Draws(3, 0, rollouts.names), 60, warm, None, proposer, hastings)
        return departures(structures.edge_types.view(graph.systems, -1), every, energy, temperature)

    assert reached(True) < 5
    if kind != "random":
        assert reached(False) > 10


@pytest.mark.parametrize("coupling", [SHARED, COUPLINGS["both"]])
def test_chains_of_a_shared_structure_sample_by_all_recordings(coupling):
    """Recordings of different lengths: 9 + 3 + 6 predictions of each entity, one energy. Many chains side by side."""
    rollouts, every, energy = enumerated(coupling, 1, steps=(10, 4, 7))
    assert isinstance(rollouts, SharedRollouts)
    graph, chains = rollouts.graph, 600
    proposer = TableProposer(graph, uneven_table(graph, 2).tied(graph, coupling), "node", rollouts.reverse)
    nothing = torch.zeros(chains, 6, dtype=torch.uint8), torch.zeros(chains, 3, dtype=torch.uint8)
    temperature = float(np.std(energy))
    for hastings, right in ((True, True), (False, False)):
        side_by_side = Chains(rollouts, proposer, *nothing, seed=2, hastings=hastings)
        for step in range(40):
            side_by_side.step(step, [temperature] * chains)
        assert_close(
            side_by_side.energy[:, 0], torch.from_numpy(energy)[states_of(side_by_side.edge_types, every)], 1e-9
        )
        assert (departures(side_by_side.edge_types, every, energy, temperature) < 5) == right


def test_a_shared_proposal_is_accepted_by_the_energy_of_all(backend):
    """Two recordings, one three times as long: odds exp(-(3 d1 + d2) / (4 T)), by hand."""
    torch.manual_seed(3)
    case = make_case(sizes=[2], keep=1.0, edge_types=2, node_types=1, steps=7).on(backend)
    states = torch.randn(2, 7, 2, 3, dtype=torch.float64, device=backend)
    present = torch.ones(2, 7, 2, dtype=torch.bool)
    present[1, 3:] = False
    systems = nf.SystemSet.complete(states, present)
    parameters = case.library.flat_parameters().detach()
    measure = error_measure(case.library)
    rollouts = tied_rollouts(case.library, parameters, systems.batch([0, 1]), 7, 2, measure, SHARED)
    graph = MegaGraph.complete(1, 2, backend)
    types = torch.tensor([[0, 0], [0, 1], [1, 0]], dtype=torch.uint8, device=backend)
    each = [
        ops.rollout_energy(case.library, parameters, graph, s[:n].flatten(), n, types, None, 2, measure)[:, 0].cpu()
        for s, n in ((states[0], 7), (states[1], 3))
    ]
    energy = (6 * each[0] + 2 * each[1]) / 8
    now = torch.zeros(2, dtype=torch.uint8, device=backend), torch.zeros(2, dtype=torch.uint8, device=backend)
    assert_close(rollouts.energies(*now), energy[:1], 1e-12)
    rise = (energy[1:] - energy[0]).numpy()
    assert rise.max() > 0
    temperature, trials = 1.5 * float(np.abs(rise).max()), 3000
    outcome = np.zeros(4)
    proposer = RandomProposer(rollouts.graph, 2, 1)
    first = rollouts.energies(*now)
    for step in range(trials):
        edges, nodes = now[0].clone(), now[1].clone()
        counts = torch.zeros(1, 4, dtype=torch.int64, device=backend)
        warm = [torch.full((1,), temperature, dtype=torch.float64, device=backend)]
        one_by_one(rollouts, proposer, Draws(4, step, rollouts.names), warm, True, first.clone(), edges, nodes, counts)
        outcome[int(edges.long() @ torch.tensor([2, 1], device=backend))] += 1
    accepted = 0.5 * np.minimum(1, np.exp(-rise / temperature))
    assert_frequencies(outcome, np.array([1 - accepted.sum(), accepted[0], accepted[1], 0.0]))


# ---- bounces and searches ----


def test_a_bounce_with_a_shared_structure_changes_it_everywhere():
    library, systems, *_ = problem([4] * 9, node_types=2)
    structures = Structures.zeros(systems.graph, 2)
    parameters = library.flat_parameters().detach()
    warm = torch.full((1,), 1e30, dtype=torch.float64)
    seen = []
    for step, batch in enumerate(([0, 4], [8, 3, 5], [1])):
        rollouts = tied_rollouts(library, parameters, systems.batch(batch), STEPS, 2, measure_of(library), SHARED)
        result = metropolis_bounce(rollouts, structures, Draws(0, step, rollouts.names), 1, warm)
        assert result.counts.shape == (1, 4)
        assert bool((structures.edge_types.view(9, -1) == structures.edge_types[:12]).all())
        assert bool((structures.node_types.view(9, -1) == structures.node_types[:4]).all())
        seen.append(torch.cat([structures.edge_types[:12], structures.node_types[:4]]))
        each = dataclasses.replace(systems.batch(batch))
        by_hand = nf.rollout_energy(
            library,
            each.graph,
            each.states.view(len(batch), STEPS, 4, D),
            structures.edge_types[: 12 * len(batch)],
            structures.node_types[: 4 * len(batch)],
            rollout=2,
        ).mean()
        (gradient,) = torch.autograd.grad(by_hand, [library.edge[0][0].weight], retain_graph=True)
        assert_close(result.loss, by_hand, 1e-9)
        assert float(gradient.abs().max()) > 0
        whole = torch.autograd.grad(by_hand, [*library.parameters()])
        assert_close(result.gradient.norm(), torch.cat([g.flatten() for g in whole]).norm(), 1e-9)
    assert all(int((a != b).sum()) == 1 for a, b in itertools.pairwise(seen))  # hot: every proposal is accepted


@pytest.mark.parametrize("name", COUPLINGS)
def test_conditionals_are_those_of_what_is_tied(name):
    coupling = COUPLINGS[name]
    rollouts, every, energy = enumerated(coupling, 2, steps=(9, 5) if coupling.shared else (9,))
    end = Descent(rollouts, seed=0)
    with torch.no_grad():
        end.anneal()
        end.descend()
        probabilities, _ = end.conditionals()
    place = states_of(end.edge_types.view(rollouts.graph.systems, -1), every)[0]
    entries = 0.5 * 3 * (3 * (8 + 4) if coupling.shared else 3 * 8)
    for e in range(6):
        tied = [e, int(rollouts.graph.reverse[e])] if coupling.undirected else [e]
        odds = torch.zeros(2, dtype=torch.float64)
        for kind in range(2):
            other = every[place].clone()
            other[tied] = kind
            odds[kind] = float(energy[states_of(other[None], every)[0]])
        expected = torch.softmax(-entries * odds / float(energy[place]), 0)
        assert_close(probabilities[e], expected, 1e-6)
        assert float(odds.min()) >= energy[place] - 1e-12  # no single change helps


@pytest.mark.parametrize("name", COUPLINGS)
def test_searches_find_tied_structures(name):
    coupling = COUPLINGS[name]
    library = teacher()
    graph = MegaGraph.complete(12, 4)
    types = torch.randint(2, (graph.edges,), dtype=torch.uint8)
    types = coupling.applied(graph, types)
    states = recordings(library, graph, types)
    states += (0.004 if coupling.shared else 0.0) * states.std() * torch.randn_like(states)
    systems = nf.SystemSet(graph, states, STEPS, D)
    measure = measure_of(library)
    found = metropolis_search(library, systems, measure, 2, coupling=coupling)
    assert_same_bits(found.edge_types, coupling.applied(graph, found.edge_types))
    assert float((found.edge_types == types).double().mean()) > 0.9
    hint = 0.4 + 0.2 * torch.nn.functional.one_hot(types.long(), 2)
    table = Table.of_probabilities(hint, torch.ones(graph.nodes, 1))
    learned = chain_search(library, systems, measure, 2, table.tied(graph, coupling), chains=2, coupling=coupling)
    assert_same_bits(learned.edge_types, coupling.applied(graph, learned.edge_types))
    assert float((learned.edge_types == types).double().mean()) > 0.9
    probabilities = learned.edge_probabilities
    assert_close(probabilities.sum(-1), torch.ones(graph.edges).double(), 1e-6)
    if coupling.undirected:
        assert_same_bits(probabilities, probabilities[graph.reverse])
    if coupling.shared:
        assert bool((probabilities.view(12, -1) == probabilities.view(12, -1)[0]).all())


def test_undirected_searches_do_not_know_their_company():
    library = teacher()
    graph = MegaGraph.complete_ragged([4, 3, 4, 5])
    types = symmetric(graph, 2)
    systems = nf.SystemSet(graph, recordings(library, graph, types), STEPS, D)
    together = metropolis_search(library, systems, measure_of(library), 2, coupling=MUTUAL)
    threads = ops.get_threads()
    try:
        ops.set_threads(threads + 2)
        threaded = metropolis_search(library, systems, measure_of(library), 2, coupling=MUTUAL)
    finally:
        ops.set_threads(threads)
    assert_same_bits(threaded.edge_probabilities, together.edge_probabilities)
    first = systems.batch([0])
    alone = nf.SystemSet(MegaGraph.complete_ragged([4]), first.states, STEPS, D)
    one = metropolis_search(library, alone, measure_of(library), 2, coupling=MUTUAL)
    assert_same_bits(one.edge_probabilities, together.edge_probabilities[:12])
    assert_same_bits(one.edge_types, together.edge_types[:12])


def test_tables_of_recordings_of_one_structure():
    graph = MegaGraph.complete(2, 2)
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6], [0.8, 0.2]], dtype=torch.float64)
    tied = Table(p, None).tied(graph, SHARED).edge
    by_hand = (p[:2] * p[2:]).sqrt()
    assert_close(tied, (by_hand / by_hand.sum(-1, keepdim=True)).repeat(2, 1), 1e-12)
    assert_close(Table(p, None).tied(graph, MUTUAL).edge[0], torch.tensor([0.7, 0.3], dtype=torch.float64), 1e-12)


def test_a_structure_encoder_keeps_pairs_together():
    graph = some_pairs("cpu")
    network = ProposalNetwork("structure", D, 3, 1, STEPS, 8)
    proposer = StructureProposer(graph, network, "node", graph.reverse)
    moved = torch.zeros(graph.edges, dtype=torch.bool)
    for step in range(40):
        edges = symmetric(graph, 3, step)
        new, _, _ = proposer.propose(Draws(0, step, ids(graph.systems, "cpu")), edges, torch.zeros(graph.nodes).byte())
        assert_same_bits(new, mirrored(graph, new))
        moved |= new != edges
    assert bool(moved.any())


def test_sharing_needs_systems_of_one_shape_here_too():
    library, systems, *_ = problem([3, 4])
    with pytest.raises(ValueError, match="shared: expected complete graphs of one size"):
        metropolis_search(library, systems, measure_of(library), 2, coupling=SHARED)


# ---- whole runs ----

SMALL = nf.Settings(
    message=6,
    edge_hidden=(8,),
    node_hidden=(8,),
    bounce="metropolis",
    robust=False,
    batch=4,
    steps=12,
    rollout=3,
    proposals=2,
    polish_steps=2,
    network_hidden=8,
)
RUNS = {
    "undirected": dataclasses.replace(SMALL, undirected=True),
    "undirected, one proposal of twenty systems": dataclasses.replace(SMALL, undirected=True, proposals=1, batch=20),
    "undirected, learned": dataclasses.replace(
        SMALL, undirected=True, network="mlp+structure", proposal="node", proposal_source="both"
    ),
    "shared": dataclasses.replace(SMALL, shared=True, temperature_rule="residuals"),
    "shared, learned": dataclasses.replace(
        SMALL,
        shared=True,
        undirected=True,
        robust=True,
        network="cnn+structure",
        proposal="edge",
        proposal_source="both",
    ),
}


@pytest.fixture(scope="module")
def springs():
    return nf.simulate("springs", systems=20, steps=21, entities=4, seed=1)


@pytest.mark.parametrize("name", RUNS)
def test_runs_hold_and_infer_what_is_tied(name, springs):
    settings = RUNS[name]
    coupling = Coupling(settings.undirected, settings.shared)
    graph, held = MegaGraph.complete(springs.systems, springs.entities), []

    def look(trainer):
        held.append(trainer.structures.edge_types.clone())
        assert_same_bits(held[-1], coupling.applied(graph, held[-1]))

    whole = nf.train(springs, settings=settings, seed=3, progress=False, on_step=look)
    assert any(not torch.equal(held[0], other) for other in held)
    searches = ["annealing", "heat_bath", "combined"] + (["network", "learned"] if settings.network != "none" else [])
    for search in searches:
        found = nf.infer(whole, springs, search=search)
        if settings.undirected:
            assert_same_bits(found.adjacency, found.adjacency.mT)
        if settings.shared:
            assert bool((found.adjacency == found.adjacency[0]).all())
            assert bool((found.probability == found.probability[0]).all())
