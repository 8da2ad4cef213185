"""Proposal networks: what they see and learn, how they are kept from collapsing, and chains that draw from them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from cases import assert_close, assert_same_bits, make_case, random_edges

import nri_fast as nf
from nri_fast import energies, ops
from nri_fast.bounces import Structures, metropolis_bounce
from nri_fast.proposals import Imitation, InTurn, ProposalNetwork, StructureProposer, TableProposer, imitation, predict
from nri_fast.proposals.imitation import Encountered, fresh_weights
from nri_fast.proposals.layers import incoming_mean, sequences
from nri_fast.proposals.sources import heat_bath_table, step_change_scale
from nri_fast.rollouts import Rollouts

SIZES, STEPS, D = [3, 1, 5, 2], 16, 3


@pytest.fixture(autouse=True)
def _one_thread():
    with ops.one_torch_thread():
        yield


def network_of(kind, steps=STEPS, edge_types=3, node_types=2, hidden=8, seed=1, features=D):
    network = ProposalNetwork(kind, features, edge_types, node_types, steps, hidden)
    fresh_weights(network, seed)
    return network


def some_systems(sizes=SIZES, steps=STEPS, keep=0.8, seed=3):
    torch.manual_seed(seed)
    graph = nf.MegaGraph.from_edge_index(random_edges(sizes, keep), sizes)
    return nf.SystemSet(graph, torch.randn(graph.nodes * steps * D), steps, D)


# ---- parts ----


def test_sequences_and_incoming_means():
    systems = some_systems()
    graph = systems.graph
    recorded = sequences(systems.states, graph, STEPS, D)
    pieces = systems.states.split([STEPS * n * D for n in graph.sizes])
    expected = torch.cat([p.view(STEPS, n, D).transpose(0, 1) for p, n in zip(pieces, graph.sizes, strict=True)])
    assert torch.equal(recorded, expected)
    values = torch.randn(graph.edges, 4, dtype=torch.float64, requires_grad=True)
    means = incoming_mean(values, graph)
    for v in range(graph.nodes):
        own = values[graph.receiver == v]
        assert_close(means[v], own.mean(0) if len(own) else torch.zeros(4), 1e-14)
    assert torch.autograd.gradcheck(lambda x: incoming_mean(x, graph), values)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_entities_have_no_order(kind):
    torch.manual_seed(5)
    network = network_of(kind).double().eval()
    graph = nf.MegaGraph.complete(1, 4)
    states = torch.randn(STEPS, 4, D, dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    plain = network.states(states.flatten(), graph, STEPS)
    moved = network.states(states[:, order].flatten(), graph, STEPS)
    adjacency, expected = (graph.adjacency(x[0].T) for x in (moved, plain))
    assert_close(adjacency[:, 0], expected[:, 0][:, order][:, :, order], 1e-12)
    assert_close(moved[1], plain[1][order], 1e-12)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_predictions_do_not_depend_on_company_order_or_threads(kind, backend):
    systems = some_systems([3, 1, 5, 2] * 9)
    systems = nf.SystemSet(systems.graph.to(backend), systems.states.to(backend), STEPS, D)
    network = network_of(kind, hidden=24).to(backend)
    whole = predict(network, systems)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for ids in ([7], [30, 2, 11], [*range(35, -1, -1)]):
            batch = systems.batch(ids)
            part = predict(network, nf.SystemSet(batch.graph, batch.states, STEPS, D))
            assert_same_bits(part.edge, whole.edge[batch.edges])
            assert_same_bits(part.node, whole.node[batch.nodes])
    finally:
        torch.set_num_threads(before)
    assert_close(whole.edge.sum(-1), torch.ones(systems.graph.edges).double(), 1e-12)


def test_lengths_that_an_encoder_cannot_take():
    longer, short = some_systems(steps=STEPS + 5), some_systems(steps=13)
    with pytest.raises(ValueError, match="steps: the MLP encoder was made for recordings of 16 steps, got 21"):
        predict(network_of("mlp"), longer)
    assert predict(network_of("cnn"), longer).edge.shape == (longer.graph.edges, 3)
    with pytest.raises(ValueError, match="steps: expected at least 15 for the CNN encoder, got 13"):
        predict(network_of("cnn"), short)
    with pytest.raises(ValueError, match="network: expected one with a state encoder"):
        predict(network_of("structure"), longer)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "rnn"}, "kind: expected one of mlp, cnn"),
        ({"kind": "none"}, "kind: expected one of mlp, cnn"),
        ({"hidden": 0}, "hidden: expected at least 1, got 0"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"kind": "cnn", "steps": 14}, "steps: expected at least 15 for the CNN encoder, got 14"),
        ({"steps": 1}, "steps: expected at least 2, got 1"),
    ],
)
def test_networks_that_cannot_be(wrong, message):
    right = {"kind": "mlp", "features": 4, "edge_types": 2, "node_types": 1, "steps": 20}
    with pytest.raises(ValueError, match=message):
        ProposalNetwork(**(right | wrong))


def test_blurred_edges_are_not_seen():
    graph = nf.MegaGraph.complete(2, 4)
    network = network_of("structure").eval()
    types = torch.randint(3, (graph.edges,), dtype=torch.uint8)
    blurred = (torch.rand(graph.edges) < 0.4).byte()
    other = torch.where(blurred.bool(), (types + 1) % 3, types)
    table = network.structure_table(types, blurred, graph)
    assert_same_bits(network.structure_table(other, blurred, graph).edge, table.edge)
    seen = torch.where(blurred.bool(), types, (types + 1) % 3)
    assert not torch.equal(network.structure_table(seen, blurred, graph).edge, table.edge)


def test_step_change_scale():
    systems = some_systems()
    changes = sequences(systems.states, systems.graph, STEPS, D).diff(dim=1).double()
    assert_close(step_change_scale(systems), changes.square().mean((0, 1)).sqrt(), 1e-6)


# ---- learning ----


def lesson(systems=60, entities=4, seed=2):
    """Systems whose recordings give their types away: an edge is of type 1 where both entities are of the same sign."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(2, (systems, entities), generator=generator)
    states = torch.randn(systems, STEPS, entities, D, generator=generator) * 0.3
    states[..., 0] += 2.0 * sign[:, None] - 1.0
    all_systems = nf.SystemSet.complete(states)
    graph, flat = all_systems.graph, sign.flatten()
    return all_systems, (flat[graph.sender] == flat[graph.receiver]).byte(), flat.byte()


def learn(network, steps, rate=5e-3, optimiser="adam", targets=None):
    systems, edges, nodes = lesson()
    edges = edges if targets is None else targets(edges)
    teacher = Imitation(network, rate, optimiser, seed=4)
    for number in range(steps):
        ids = torch.randperm(len(systems), generator=torch.Generator().manual_seed(number))[:8]
        batch = systems.batch(ids)
        teacher.step(batch, STEPS, edges[batch.edges], nodes[batch.nodes], number)
    return teacher


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_imitation_learns_what_recordings_show(kind):
    network = network_of(kind, edge_types=2)
    teacher = learn(network, 120)
    systems, edges, nodes = lesson(seed=9)  # other systems
    found = predict(network, systems).likeliest()
    assert float((found[0] == edges).double().mean()) > 0.95
    assert float((found[1] == nodes).double().mean()) > 0.95
    assert teacher.information > 0.6
    assert teacher.restarts == 0


def test_imitation_learns_what_graphs_have_in_common():
    """Signs of pairs: an edge is told by the other edges of its two entities, and above all by its reverse."""
    network = network_of("structure", edge_types=2, hidden=16)
    teacher = learn(network, 150)
    assert teacher.information > 0.5
    systems, edges, _ = lesson(seed=9)
    blurred = ops.blur(systems.graph, ops.Draws(0, 0, torch.arange(len(systems))), 0.2)
    guess = network.structure_table(edges, blurred, systems.graph).edge.argmax(-1).byte()
    asked = blurred.bool()
    assert float((guess == edges)[asked].double().mean()) > 0.95


def kill(network):
    """All edges are predicted alike, and no gradient leads out but the last bias's."""
    with torch.no_grad():
        network.states.rounds.edge_logits.weight.zero_()
        network.states.rounds.node_logits.weight.zero_()
        for name, parameter in network.states.named_parameters():
            if "normalise" in name:
                parameter.zero_()
    return network


def test_a_collapsed_encoder_stays_collapsed_unless_it_is_started_anew(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(imitation.Progress, "__init__", _never_look(imitation.Progress.__init__))
        stuck = learn(kill(network_of("mlp", edge_types=2)), 150)
    assert stuck.information < 0.01
    assert stuck.restarts == 0
    monkeypatch.setattr(imitation.Progress, "__init__", _never_look(imitation.Progress.__init__, window=20))
    saved = learn(kill(network_of("mlp", edge_types=2)), 150)
    assert saved.restarts == 1
    assert saved.information > 0.6


def _never_look(original, window=1 << 30):
    def init(self, *arguments, **named):
        original(self, *arguments, **named)
        self.window = window

    return init


def test_structures_all_alike_are_no_collapse(monkeypatch):
    monkeypatch.setattr(imitation.Progress, "__init__", _never_look(imitation.Progress.__init__, window=5))
    network = network_of("mlp", edge_types=2, node_types=1)
    assert learn(network, 40, targets=torch.zeros_like).restarts == 0
    assert learn(network, 40, targets=lambda edges: torch.randint_like(edges, 2)).restarts > 0


def test_weights_that_are_not_finite_are_replaced(monkeypatch):
    monkeypatch.setattr(imitation.Progress, "__init__", _never_look(imitation.Progress.__init__, window=20))
    network = network_of("mlp", edge_types=2)
    with torch.no_grad():
        network.states.entity.first.weight[0, 0] = float("nan")
    teacher = learn(network, 150)
    assert teacher.restarts == 1
    assert teacher.information > 0.6
    assert all(bool(torch.isfinite(p).all()) for p in network.state_dict().values())


def test_mutual_information_by_hand():
    seen = Encountered.nothing(2)
    assert seen.information() == 0.0
    held = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    seen.add(held, held)
    assert seen.information() == pytest.approx(1.0)
    seen = Encountered.nothing(2)
    seen.add(held, torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]))
    p = np.array([3, 1, 1, 3]) / 8
    assert seen.information() == pytest.approx(2 + (p * np.log2(p)).sum())
    seen = Encountered.nothing(2)
    seen.add(held, torch.zeros_like(held))
    assert seen.information() == 0.0
    assert seen.diverse()


def test_imitation_continues_to_the_bit():
    systems, edges, nodes = lesson()
    for optimiser in ("adam", "sgd"):
        network = ProposalNetwork("mlp+structure", D, 2, 2, STEPS, 8, dropout=0.3)
        fresh_weights(network, 1)
        teacher = Imitation(network, 1e-2, optimiser, seed=4)
        batch = systems.batch([3, 5, 8])
        targets = edges[batch.edges], nodes[batch.nodes]
        for number in range(3):
            teacher.step(batch, STEPS, *targets, number)
        tensors, facts = teacher.state()
        tensors = {name: value.clone() for name, value in tensors.items()}
        other = ProposalNetwork(**network.settings())
        resumed = Imitation(other, 1e-2, optimiser, seed=4)
        resumed.restore(tensors, facts)
        for one in (teacher, resumed):
            for number in range(3, 6):
                one.step(batch, STEPS, *targets, number)
        for name, value in network.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
        assert teacher.state()[1] == resumed.state()[1]


# ---- chains on roll-out energies ----


def boltzmann_case(backend, copies, sizes=(3,), edge_types=2):
    """Many copies of one system, and the energies of all its structures."""
    torch.manual_seed(7)
    case = make_case(sizes=list(sizes), keep=1.0, edge_types=edge_types, node_types=1, steps=STEPS).on(backend)
    states = case.trajectories[0]
    systems = nf.SystemSet.complete(states.repeat(copies, 1, 1, 1))
    error = energies.error_measure(case.library)
    rollouts = Rollouts(
        case.library, case.library.flat_parameters().detach(), systems.batch(range(copies)), STEPS, 3, error
    )
    edges = case.graph.edges
    every = torch.tensor([*itertools.product(range(edge_types), repeat=edges)], dtype=torch.uint8)
    energy = torch.cat(
        [
            ops.rollout_energy(
                case.library,
                rollouts.parameters,
                case.graph.to(backend),
                states.flatten(),
                STEPS,
                every.to(backend),
                None,
                3,
                error,
            )[:, 0]
        ]
    )
    return rollouts, energy.cpu().numpy()


def chain_against_enumeration(rollouts, energy, proposer, steps, hastings=True):
    """Largest departure of the chains' last states from the Boltzmann distribution, in standard deviations."""
    graph = rollouts.batch.graph
    temperature = float(np.std(energy))
    structures = Structures.zeros(graph, rollouts.library.edge_types)
    draws = ops.Draws(3, 0, rollouts.batch.systems)
    warm = torch.full((1,), temperature, dtype=torch.float64, device=rollouts.parameters.device)
    metropolis_bounce(rollouts, structures, draws, steps, warm, proposer=proposer, hastings=hastings)
    types = structures.edge_types.view(graph.systems, -1).long().cpu()
    states = (types @ 2 ** torch.arange(types.shape[1] - 1, -1, -1)).numpy()
    p = np.exp(-(energy - energy.min()) / temperature)
    p /= p.sum()
    counts = np.bincount(states, minlength=len(p))
    return float(np.max(np.abs(counts - graph.systems * p) / np.sqrt(graph.systems * p * (1 - p))))


def test_roll_out_energies_with_heat_bath_proposals_are_sampled():
    rollouts, energy = boltzmann_case(torch.device("cpu"), 1500)
    graph = rollouts.batch.graph
    types = Structures.zeros(graph, rollouts.library.edge_types)
    table = heat_bath_table(rollouts, types.edge_types, types.node_types)
    table.edge = table.edge**10 / (table.edge**10).sum(-1, keepdim=True)  # surer than modules without training are
    proposer = TableProposer(graph, table, "node")
    assert chain_against_enumeration(rollouts, energy, proposer, 80) < 5
    assert chain_against_enumeration(rollouts, energy, proposer, 80, hastings=False) > 10


def test_a_structure_encoder_in_turn_with_a_state_encoder_is_sampled():
    rollouts, energy = boltzmann_case(torch.device("cpu"), 1500)
    batch = rollouts.batch
    network = network_of("mlp+structure", edge_types=2, node_types=1).double()
    with torch.no_grad():  # far from even-handed
        network.structures.rounds.edge_logits.bias.copy_(torch.tensor([1.5, -0.5]))
        network.states.rounds.edge_logits.bias.copy_(torch.tensor([-0.5, 1.5]))
    table = network.state_table(batch, STEPS)
    for kind in ("edge", "node"):
        proposer = InTurn((TableProposer(batch.graph, table, kind), StructureProposer(batch.graph, network, kind)))
        assert chain_against_enumeration(rollouts, energy, proposer, 80) < 5
        assert chain_against_enumeration(rollouts, energy, proposer, 80, hastings=False) > 10


# ---- a whole run ----


def test_every_bounce_trains_a_network():
    data = nf.simulate("springs", 12, steps=20, seed=1)
    small = nf.Settings(steps=6, batch=4, message=4, edge_hidden=(4,), node_hidden=(4,), network="mlp+structure")
    small = dataclasses.replace(small, network_hidden=8, rollout=4)
    for changes in (
        {"bounce": "soft"},
        {"bounce": "sampled"},
        {"bounce": "metropolis", "proposal": "edge", "rule": "plain"},
        {"bounce": "metropolis", "proposal": "node", "proposal_source": "both", "network": "cnn+structure"},
        {"bounce": "metropolis", "proposal": "flip", "network": "structure"},
    ):
        run = nf.train(data, settings=dataclasses.replace(small, **changes), progress=False)
        history = run.history
        assert len(history.network_loss) == len(history.step) == 6
        assert np.isfinite(history.network_loss).all()
        assert history.network_restarts == [0] * 6
    without = nf.train(data, settings=dataclasses.replace(small, network="none"), progress=False)
    assert without.history.network_loss == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposal": "pair"}, "proposal: expected one of random, edge, node, flip, system, got 'pair'"),
        ({"proposal": "edge"}, "proposal: 'edge' needs bounce 'metropolis', got 'soft'"),
        ({"bounce": "metropolis", "proposal": "edge"}, "proposal_source: 'network' needs a network"),
        ({"network": "rnn"}, "network: expected one of none, mlp"),
        ({"network_hidden": 0}, "network_hidden: expected a whole number, at least 1, got 0"),
        ({"network_rate": 0.0}, "network_rate: expected a positive number, got 0.0"),
        ({"network_dropout": 1.0}, "network_dropout: expected a share"),
        ({"rule": "none"}, "rule: expected one of hastings, plain, got 'none'"),
    ],
)
def test_settings_of_proposals_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        nf.Settings(**changes)


def test_settings_of_version_0_1_are_read():
    values = nf.Settings().to_dict()
    for name in ("network", "proposal", "rule", "network_hidden"):
        del values[name]
    assert nf.Settings.from_dict(values) == nf.Settings()


def test_a_run_remembers_its_network(tmp_path):
    data = nf.simulate("springs", 8, steps=20, seed=1)
    small = nf.Settings(
        steps=4, batch=4, message=4, edge_hidden=(4,), node_hidden=(4,), network="mlp", network_hidden=8
    )
    run = nf.train(data, settings=small, out=tmp_path / "run", progress=False)
    loaded = nf.Run.load(tmp_path / "run")
    assert_same_bits(predict(loaded.network, loaded.systems(data)).edge, predict(run.network, run.systems(data)).edge)
    (tmp_path / "run" / "network.safetensors").unlink()
    with pytest.raises(nf.CheckpointError, match=r"network\.safetensors: no such file"):
        nf.Run.load(tmp_path / "run")
    without = nf.train(
        data, settings=dataclasses.replace(small, network="none"), out=tmp_path / "other", progress=False
    )
    assert without.network is None
    assert nf.Run.load(tmp_path / "other").network is None
