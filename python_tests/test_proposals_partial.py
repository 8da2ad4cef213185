"""Proposal networks on recordings with holes: what is absent is not read, not learned from, and not in the way."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cases import assert_close, assert_same_bits
from torch.nn import functional

import nri_fast as nf
from nri_fast.proposals import Imitation, ProposalNetwork, predict
from nri_fast.proposals.encoders import CnnStateEncoder
from nri_fast.proposals.imitation import fresh_weights
from nri_fast.proposals.seen_part import seen_part

STEPS, D, N = 26, 3, 4
KINDS = ("mlp", "cnn")


def network_of(kind: str, masked: bool = True, dropout: float = 0.0) -> ProposalNetwork:
    network = ProposalNetwork(kind, D, 3, 2, STEPS, 12, dropout, torch.full((D,), 0.7), masked)  # type: ignore[arg-type]
    fresh_weights(network, 5)
    network.edge_prior.copy_(torch.tensor([0.3, -0.2, 0.1]))
    return network.eval()


def recordings(systems: int = 4, entities: int = N) -> torch.Tensor:
    return torch.randn(systems, STEPS, entities, D, generator=torch.Generator().manual_seed(1))


def everything(systems: int = 4) -> torch.Tensor:
    return torch.ones(systems, STEPS, N, dtype=torch.bool)


def edges_of(entities: list[int]) -> torch.Tensor:
    """Places, in a complete graph of N, of the edges between some entities, in order."""
    graph = nf.MegaGraph.complete(1, N)
    inside = torch.isin(graph.sender, torch.tensor(entities)) & torch.isin(graph.receiver, torch.tensor(entities))
    return inside.nonzero().flatten()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_without_holes_changes_nothing(kind: str) -> None:
    states, network = recordings(), network_of(kind)
    plain = predict(network, nf.SystemSet.complete(states))
    masked = predict(network, nf.SystemSet.complete(states, everything()))
    assert_same_bits(plain.edge, masked.edge)
    assert plain.node is not None
    assert masked.node is not None
    assert_same_bits(plain.node, masked.node)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_what_is_cut_out(kind: str) -> None:
    """System 1 lacks an entity, 2 begins late (or ends early) and 3 does both; every system beside its cut-out."""
    states, present, network = recordings(), everything(), network_of(kind)
    cuts = {0: ([0, 1, 2, 3], slice(0, STEPS)), 1: ([0, 1, 3], slice(0, STEPS))}
    cuts |= {2: ([0, 1, 2, 3], slice(0, 19)), 3: ([0, 2], slice(0, 20))}
    if kind == "cnn":  # convolutions know no time of day
        cuts |= {2: ([0, 1, 2, 3], slice(5, 24)), 3: ([0, 2], slice(3, 20))}
    for system, (entities, frames) in cuts.items():
        present[system] = False
        present[system, frames, entities] = True
    table = predict(network, nf.SystemSet.complete(states, present))
    assert table.node is not None
    for system, (entities, frames) in cuts.items():
        cut = states[system : system + 1, frames][:, :, entities]
        alone = predict(network, nf.SystemSet.complete(cut.contiguous()))
        assert alone.node is not None
        assert_same_bits(table.edge.view(4, -1, 3)[system, edges_of(entities)], alone.edge)
        assert_same_bits(table.node.view(4, N, 2)[system, entities], alone.node)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
def test_what_stands_where_nothing_is_is_not_read(kind: str, masked: bool) -> None:
    present = torch.rand(4, STEPS, N, generator=torch.Generator().manual_seed(3)) > 0.15
    present[2, :, 1] = False
    network = network_of(kind, masked)
    batch = nf.SystemSet.complete(recordings(), present).batch([0, 1, 2, 3])
    lies = torch.where(present.flatten()[:, None], batch.states.view(-1, D), torch.nan).flatten()
    edge, node = network.state_logits(batch, STEPS)
    other_edge, other_node = network.state_logits(dataclasses.replace(batch, states=lies), STEPS)
    assert_same_bits(edge, other_edge)
    assert_same_bits(node, other_node)
    assert len(edge.unique(dim=0)) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_masked_network_tells_a_hole_from_rest_at_the_centre(kind: str) -> None:
    states, present = recordings(), everything()
    states[0, 10:13, 1] = 0.0
    present[0, 10:13, 1] = False
    systems, still = nf.SystemSet.complete(states, present), nf.SystemSet.complete(states)
    edges = slice(0, N * (N - 1))
    network = network_of(kind)
    assert not torch.equal(predict(network, systems).edge[edges], predict(network, still).edge[edges])
    # An edge between others hears of it through the second round only; another system does not.
    assert_same_bits(predict(network, systems).edge[edges.stop :], predict(network, still).edge[edges.stop :])


def test_an_edge_whose_ends_never_meet_has_the_types_frequencies() -> None:
    present, network = everything(1), network_of("cnn")
    present[0, : STEPS - 14, 1] = False  # 14 steps are one too few
    table = predict(network, nf.SystemSet.complete(recordings(1), present))
    prior = network.edge_prior.double().softmax(-1)
    graph = nf.MegaGraph.complete(1, N)
    untold = (graph.sender == 1) | (graph.receiver == 1)
    assert_close(table.edge[untold], (0.999 * prior + 0.001 / 3).expand(6, -1), 1e-3)  # logits lie on a grid
    assert bool((table.edge[~untold] - prior).abs().max() > 1e-3)
    present[0, : STEPS - 14, 1] = True
    present[0, : STEPS - 15, 1] = False
    table = predict(network, nf.SystemSet.complete(recordings(1), present))
    assert bool((table.edge - prior).abs().amax(1).min() > 1e-6)


def test_nobody_met_anybody() -> None:
    present = torch.zeros(1, STEPS, 2, dtype=torch.bool)
    present[0, :12, 0] = present[0, 12:, 1] = True
    network = network_of("cnn")
    table = predict(network, nf.SystemSet.complete(recordings(1, 2), present))
    assert bool(torch.isfinite(table.edge).all())
    batch = nf.SystemSet.complete(recordings(1, 2), present).batch([0])
    Imitation(network, 1e-2).step(batch, STEPS, torch.zeros(2).byte(), torch.zeros(2).byte(), 0)
    assert all(bool(torch.isfinite(value).all()) for value in network.parameters())


@pytest.mark.parametrize("kind", [*KINDS, "structure", "mlp+structure"])
def test_absent_entities_are_not_learned_from(kind: str) -> None:
    """A training step on systems that lack entities is the step on the systems that are left."""
    states, present = recordings(), everything()
    present[1, :, 2] = present[3, :, 0] = False
    sizes, left = [4, 3, 4, 3], [[0, 1, 2, 3], [0, 1, 3], [0, 1, 2, 3], [1, 2, 3]]
    flat = torch.cat([states[s][:, e].flatten() for s, e in enumerate(left)])
    whole = nf.SystemSet.complete(states, present)
    cut = nf.SystemSet(nf.MegaGraph.complete_ragged(sizes), flat, STEPS, D)
    random = torch.Generator().manual_seed(2)
    edges = torch.randint(3, (4 * N * (N - 1),), dtype=torch.uint8, generator=random)
    nodes = torch.randint(2, (4 * N,), dtype=torch.uint8, generator=random)
    kept = seen_part(whole.batch(range(4)), STEPS)
    assert_same_bits(kept.batch.states, cut.states)
    assert_same_bits(kept.batch.graph.edge_index, cut.graph.edge_index)
    networks = []
    for systems, types in ((whole, (edges, nodes)), (cut, (edges[kept.edges], nodes[kept.nodes]))):
        network = network_of(kind)
        teacher = Imitation(network, 1e-2, seed=4)
        for number in range(3):
            teacher.step(systems.batch(range(4)), STEPS, *types, number)
        networks.append(network.state_dict())
    before = network_of(kind).state_dict()
    for name, value in networks[0].items():
        assert_close(value.double(), networks[1][name].double(), 1e-5)
    assert any(not torch.equal(before[name], value) for name, value in networks[0].items())


def test_batch_normalisation_counts_what_was_recorded() -> None:
    """Of recordings of 26, 20 and 17 steps, convolved over 21, 15 and 12 windows: the mean over these, by hand."""
    lengths = (26, 20, 17)
    states, present = recordings(3), torch.arange(STEPS)[None, :, None] < torch.tensor(lengths)[:, None, None]
    network = network_of("cnn", masked=False)
    encoder = network.states
    assert isinstance(encoder, CnnStateEncoder)
    rows = []
    for own, length in zip(states, lengths, strict=True):
        graph = nf.MegaGraph.complete(1, N)
        seen = encoder.inputs(own[:length].flatten(), graph, length, None)
        windows = seen.unfold(1, 5, 1).flatten(2)
        first = encoder.sender(windows)[graph.sender] + encoder.receiver(windows)[graph.receiver]
        rows.append(functional.elu(first).flatten(0, 1))
    assert [len(r) for r in rows] == [12 * (length - 5) for length in lengths]
    expected = torch.cat(rows)
    network.train()
    batch = nf.SystemSet.complete(states, present.expand(-1, -1, N)).batch(range(3))
    encoder(batch.states, batch.graph, STEPS, batch.present)
    norm = encoder.first_normalise
    assert_close(norm.running_mean, 0.1 * expected.mean(0), 1e-5)
    assert_close(norm.running_var, 0.9 + 0.1 * expected.var(0), 1e-5)


def test_a_masked_mlp_takes_shorter_recordings_as_such_that_end_in_a_hole() -> None:
    network = network_of("mlp")
    states = recordings(2)
    present = everything(2)
    present[:, 11:] = False
    short = predict(network, nf.SystemSet.complete(states[:, :11].contiguous()))
    assert_same_bits(short.edge, predict(network, nf.SystemSet.complete(states, present)).edge)
    with pytest.raises(ValueError, match="steps: the MLP encoder was made for recordings of 26 steps, got 11"):
        predict(network_of("mlp", masked=False), nf.SystemSet.complete(states[:, :11].contiguous()))
    with pytest.raises(ValueError, match="made for recordings of 26 steps, got 30"):
        predict(network, nf.SystemSet.complete(torch.randn(1, 30, N, D)))


@pytest.mark.parametrize("kind", ["mlp", "cnn+structure"])
def test_runs_are_taught_by_ragged_recordings_with_holes(kind: str, tmp_path) -> None:
    whole = nf.simulate("springs", systems=24, steps=STEPS, entities=4, seed=2)
    small = dataclasses.replace(nf.PRESETS["springs"], steps=20, polish_steps=0, message=8, batch=8)
    run = nf.train(whole, settings=small, seed=1, progress=False)
    sizes = torch.tensor([4, 3] * 12)
    members = torch.arange(4) < sizes[:, None]
    present = torch.rand(24, STEPS, 4, generator=torch.Generator().manual_seed(1)) > 0.05
    present[5, 20:] = present[6, :, 1] = False
    present &= members[:, None]
    lies = torch.where(present[..., None], whole.states, torch.nan)
    lies = torch.where(members[:, None, :, None], lies, 0.0)
    ragged = nf.TrajectoryData(lies, None, whole.feature_names, sizes=sizes, present=present)
    options = {"hidden": 16, "steps": 30, "batch": 8, "seed": 3, "progress": False}
    taught = nf.teach(run, ragged, kind, **options, out=tmp_path / "taught")
    assert taught.network is not None
    assert taught.network.settings()["masked"] is True
    loaded = nf.Run.load(tmp_path / "taught")
    one, two = (nf.infer(r, ragged, search="network") for r in (taught, loaded))
    assert_same_bits(one.probability, two.probability)
    again = nf.teach(run, dataclasses.replace(ragged, states=ragged.states + 0), kind, **options)
    assert again.network is not None
    for name, value in taught.network.state_dict().items():
        assert_same_bits(value, again.network.state_dict()[name])
    # A system's answer is that of the system alone, and shorter recordings' is that of what was recorded.
    alone = nf.infer(taught, ragged.select(torch.tensor([1])), search="network")
    assert_same_bits(alone.probability[0], one.probability[1, :3, :3])
    for search in ("learned", "combined"):
        found = nf.infer(taught, ragged, search=search)
        assert bool(torch.isfinite(found.probability).all())
