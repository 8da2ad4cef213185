"""Mega-graphs: the order of edges, the ways to build one, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nri_fast import MegaGraph

SIZES = st.lists(st.integers(1, 5), max_size=5)


def pairs_in_order(sizes):
    """(sender, receiver) of complete graphs side by side, by receiver, then by sender."""
    pairs, first = [], 0
    for n in sizes:
        pairs += [(first + i, first + j) for j in range(n) for i in range(n) if i != j]
        first += n
    return pairs


@settings(deadline=None, max_examples=30)
@given(sizes=SIZES)
def test_complete_graphs_of_any_sizes(sizes):
    graph = MegaGraph.complete_ragged(sizes)
    assert [tuple(pair) for pair in graph.edge_index.T.tolist()] == pairs_in_order(sizes)
    assert (graph.systems, graph.nodes, graph.edges) == (len(sizes), sum(sizes), len(pairs_in_order(sizes)))
    assert graph.sizes == sizes
    assert graph.in_offset.diff().tolist() == [n - 1 for n in sizes for _ in range(n)]
    assert graph.entities == (sizes[0] if sizes and len(set(sizes)) == 1 else None)
    owners = [b for b, n in enumerate(sizes) for _ in range(n * (n - 1))]
    assert [graph.system_of_edge(e) for e in range(graph.edges)] == owners


@pytest.mark.parametrize(("systems", "entities"), [(0, 3), (1, 1), (3, 1), (4, 2), (2, 5)])
def test_complete_is_complete_ragged_of_equal_sizes(systems, entities):
    one, other = MegaGraph.complete(systems, entities), MegaGraph.complete_ragged([entities] * systems)
    for name in ("node_offset", "in_offset", "sender", "receiver"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == torch.int64, name
    assert one.entities == entities


@settings(deadline=None, max_examples=30)
@given(sizes=SIZES.filter(bool), data=st.data(), dtype=st.sampled_from([torch.int64, torch.int32, torch.uint8]))
def test_edges_may_come_in_any_order_and_integer_type(sizes, data, dtype):
    everything = pairs_in_order(sizes)
    chosen = [pair for pair in everything if data.draw(st.booleans())]
    shuffled = data.draw(st.permutations(chosen))
    index = torch.tensor(shuffled, dtype=dtype).reshape(-1, 2).T
    graph = MegaGraph.from_edge_index(index, sizes)
    assert [tuple(pair) for pair in graph.edge_index.T.tolist()] == chosen
    received = [sum(j == v for _, j in chosen) for v in range(sum(sizes))]
    assert graph.in_offset.tolist() == [sum(received[:v]) for v in range(len(received) + 1)]


@settings(deadline=None, max_examples=30)
@given(sizes=SIZES.filter(bool), leading=st.sampled_from([(), (2,)]))
def test_adjacencies_and_flat_types_are_each_others_inverse(sizes, leading):
    graph = MegaGraph.complete_ragged(sizes)
    types = torch.randint(1, 256, (*leading, graph.edges), dtype=torch.uint8)
    adjacency = graph.adjacency(types)
    assert adjacency.shape == (*leading, len(sizes), max(sizes), max(sizes))
    assert torch.equal(graph.flatten_types(adjacency), types)
    assert int((adjacency != 0).sum()) == types.numel()  # nothing else is set


def test_adjacency_is_indexed_by_sender_then_receiver():
    graph = MegaGraph.from_edge_index(torch.tensor([[0, 2], [1, 4]]), [2, 3])
    adjacency = graph.adjacency(torch.tensor([7, 9]))
    assert adjacency[0, 0, 1] == 7
    assert adjacency[1, 0, 2] == 9
    assert int((adjacency != 0).sum()) == 2


def test_a_graph_follows_a_device():
    graph = MegaGraph.complete_ragged([2, 3])
    assert graph.to("cpu") is graph
    if torch.cuda.is_available():
        there = graph.to("cuda:0")
        assert there.device == torch.device("cuda:0")
        assert torch.equal(there.to("cpu").edge_index, graph.edge_index)


@pytest.mark.parametrize(("systems", "entities"), [(-1, 3), (2, 0), (2, -1)])
def test_complete_refuses(systems, entities):
    with pytest.raises(ValueError, match=f"systems, entities: .* got {systems} and {entities}"):
        MegaGraph.complete(systems, entities)


@pytest.mark.parametrize("sizes", [[2, 0], [3, -1]])
def test_ragged_graphs_refuse_empty_systems(sizes):
    with pytest.raises(ValueError, match=rf"entities\[1\]: expected at least 1, got {sizes[1]}"):
        MegaGraph.complete_ragged(sizes)
    with pytest.raises(ValueError, match=r"entities\[1\]: expected at least 1"):
        MegaGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), sizes)


@pytest.mark.parametrize(
    ("edges", "error", "message"),
    [
        ([(0, 1), (2, 5)], IndexError, r"edge_index\[:, 1\]: entities \[2, 5\], expected 0 to 4"),
        ([(0, 1), (-1, 0)], IndexError, r"edge_index\[:, 1\]: entities \[-1, 0\], expected 0 to 4"),
        ([(0, 1), (2, 3), (1, 2)], IndexError, r"edge_index\[:, 2\]: joins systems \[0, 1\], expected one system"),
        ([(0, 1), (3, 3)], ValueError, r"edge_index\[:, 1\]: an edge from an entity to itself"),
        ([(0, 1), (2, 3), (0, 1)], ValueError, r"edge_index\[:, 2\]: edge \[0, 1\] is given twice"),
    ],
)
def test_wrong_edges_are_named(edges, error, message):
    with pytest.raises(error, match=message):
        MegaGraph.from_edge_index(torch.tensor(edges).T, [2, 3])


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (torch.zeros(2, 3), ValueError),
        (torch.zeros(3, 2, dtype=torch.int64), ValueError),
        (torch.zeros(2, dtype=torch.int64), ValueError),
        (torch.zeros(2, 1, dtype=torch.bool), ValueError),
        (torch.zeros(2, 1, dtype=torch.complex64), ValueError),
        ([[0], [1]], TypeError),
    ],
)
def test_edges_of_a_wrong_kind_are_refused(index, error):
    with pytest.raises(error, match="edge_index: expected"):
        MegaGraph.from_edge_index(index, [2, 3])


def test_adjacencies_of_another_size_are_refused():
    graph = MegaGraph.complete_ragged([2, 3])
    for shape in [(2, 2, 2), (1, 3, 3), (3, 3), (2, 3, 2)]:
        with pytest.raises(ValueError, match="adjacency: expected"):
            graph.flatten_types(torch.zeros(shape))
