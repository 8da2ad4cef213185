"""Undirected and shared structures, and heat baths that free some of the edges: against enumerated structures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from cases import assert_close
from test_search import STEPS, D, measure_of, problem, recordings, teacher

import nri_fast as nf
from nri_fast.couplings import Coupling, mirrored
from nri_fast.energies import all_transitions
from nri_fast.heat_bath_rows import HeatBathRows, random_free_edges
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.undirected import agree

PATH = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
TRIANGLE_AND_MORE = nf.MegaGraph.complete(1, 4).edge_index


def rows_over(edge_index, edge_types=2, noise=0.4):
    """Heat-bath rows of one system of four, recorded with noise so that no structure is certain."""
    library = teacher(edge_types=edge_types)
    graph = nf.MegaGraph.from_edge_index(edge_index, [4])
    types = mirrored(graph, torch.randint(edge_types, (graph.edges,), dtype=torch.uint8))
    states = recordings(library, graph, types)
    states += noise * states.std() * torch.randn_like(states)
    systems = nf.SystemSet(graph, states, STEPS, D)
    rows = HeatBathRows(
        library, systems.batch([0]), STEPS, all_transitions(graph, STEPS), measure_of(library, robust=True)
    )
    return rows, rows.scores(library.flat_parameters().detach())


def enumerated(rows, scores, temperature):
    """[E, K] marginals over all undirected structures, each weighed by the sum of its receivers' scores."""
    graph, count = rows.graph, rows.edge_types
    pairs = sorted({tuple(sorted(pair)) for pair in graph.edge_index.T.tolist()})
    number = [pairs.index(tuple(sorted(pair))) for pair in graph.edge_index.T.tolist()]
    offset, stride = rows.row_offset.tolist(), rows.layout.stride.tolist()
    marginals = torch.zeros(graph.edges, count, dtype=torch.float64)
    for types in itertools.product(range(count), repeat=len(pairs)):
        row = list(offset[:-1])
        for e, v in enumerate(graph.receiver.tolist()):
            row[v] += types[number[e]] * stride[e]
        weight = torch.exp(-scores[row].sum() / temperature)
        for e in range(graph.edges):
            marginals[e, types[number[e]]] += weight
    return marginals / marginals.sum(-1, keepdim=True)


@pytest.mark.parametrize("edge_types", [2, 3])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_undirected_marginals_are_exact_on_a_path(temperature, edge_types):
    rows, scores = rows_over(PATH, edge_types)
    weights = Coupling(undirected=True).weights(rows, scores, temperature)
    expected = enumerated(rows, scores, temperature)
    assert float((expected - 1 / edge_types).abs().max()) > 0.02  # there is something to find
    assert_close(rows.edge_probabilities(weights), expected, 1e-3)  # what is left of the first guess: 2^-12


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_undirected_marginals_are_close_on_a_complete_graph(temperature):
    rows, scores = rows_over(TRIANGLE_AND_MORE)
    weights = Coupling(undirected=True).weights(rows, scores, temperature)
    got = agree(rows.graph, rows.edge_probabilities(weights))
    assert torch.equal(got, got[rows.graph.reverse])
    assert float((got - enumerated(rows, scores, temperature)).abs().max()) < 0.05


def test_assignments_without_a_finite_score_have_no_weight():
    rows, scores = rows_over(PATH)
    scores[[0, 3]] = torch.tensor([torch.nan, torch.inf], dtype=scores.dtype)
    weights = Coupling(undirected=True).weights(rows, scores, 0.5)
    assert weights[[0, 3]].tolist() == [0, 0]
    sums = torch.zeros(4, dtype=weights.dtype).index_add(
        0, torch.arange(4).repeat_interleave(rows.row_offset.diff()), weights
    )
    assert_close(sums, torch.ones_like(sums), 1e-6)


@pytest.mark.parametrize("largest_block", [4096, 2])
def test_undirected_search_finds_undirected_structures(largest_block, monkeypatch):
    monkeypatch.setattr("nri_fast.heat_bath_search.LARGEST_BLOCK", largest_block)
    library = teacher()
    graph = nf.MegaGraph.complete_ragged([4, 3, 5])
    types = mirrored(graph, torch.randint(2, (graph.edges,), dtype=torch.uint8))
    systems = nf.SystemSet(graph, recordings(library, graph, types), STEPS, D)
    found = heat_bath_search(library, systems, measure_of(library, True), coupling=Coupling(undirected=True))
    assert torch.equal(found.edge_types, types)
    assert torch.equal(found.edge_types, mirrored(graph, found.edge_types))


@pytest.mark.parametrize("largest_block", [4096, 2])
def test_recordings_of_one_structure_are_judged_together(largest_block, monkeypatch):
    monkeypatch.setattr("nri_fast.heat_bath_search.LARGEST_BLOCK", largest_block)
    library, systems, _, _ = problem([4] * 24, node_types=2)
    graph = systems.graph
    one, node = torch.randint(2, (12,), dtype=torch.uint8), torch.randint(2, (4,), dtype=torch.uint8)
    states = recordings(library, graph, one.repeat(24), node.repeat(24))
    states += 0.005 * states.std() * torch.randn_like(states)
    systems = nf.SystemSet(graph, states, STEPS, D)
    apart = heat_bath_search(library, systems, measure_of(library, True))
    together = heat_bath_search(library, systems, measure_of(library, True), coupling=Coupling(shared=True))
    assert torch.equal(together.edge_types, one.repeat(24))
    assert torch.equal(together.node_types, node.repeat(24))
    assert not torch.equal(apart.edge_types, one.repeat(24))  # no recording says it alone


def test_sharing_needs_systems_of_one_shape():
    library, systems, *_ = problem([3, 4])
    with pytest.raises(ValueError, match="shared: expected complete graphs of one size"):
        heat_bath_search(library, systems, measure_of(library), coupling=Coupling(shared=True))


def test_free_edges_are_as_many_as_asked_for_and_the_same_in_every_system():
    graph = nf.MegaGraph.complete(3, 6)
    free = random_free_edges(graph, 2, np.random.default_rng(1), undirected=False)
    per_receiver = torch.zeros(18, dtype=torch.int64).index_add(0, graph.receiver, free.long())
    assert per_receiver.tolist() == [2] * 18
    assert torch.equal(free.view(3, -1)[0], free.view(3, -1)[2])
    drawn = torch.stack([random_free_edges(graph, 2, np.random.default_rng(i), False) for i in range(60)]).double()
    assert float(drawn.mean(0).min()) > 0.15  # every edge gets its turn: two of five on average
    pairs = random_free_edges(graph, 2, np.random.default_rng(1), undirected=True)
    assert torch.equal(pairs, pairs[graph.reverse])
    assert 0 < int(pairs.sum()) <= 36
