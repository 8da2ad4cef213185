"""Canonical forms of graphs, and sets of systems that share none."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import nri_fast as nf
from nri_fast.experiments.graph_shapes import graph_shapes
from nri_fast.experiments.split import disjoint


def all_graphs(entities, undirected):
    """Every graph with one type of edge beside none."""
    pairs = [(i, j) for i in range(entities) for j in range(entities) if (i < j if undirected else i != j)]
    graphs = torch.zeros(2 ** len(pairs), entities, entities, dtype=torch.uint8)
    for number, bits in enumerate(itertools.product((0, 1), repeat=len(pairs))):
        for (i, j), bit in zip(pairs, bits, strict=True):
            graphs[number, i, j] = bit
            if undirected:
                graphs[number, j, i] = bit
    return graphs


@pytest.mark.parametrize(
    ("entities", "undirected", "shapes"),
    # numbers of graphs and digraphs up to isomorphism (OEIS A000088, A000273)
    [(1, True, 1), (2, True, 2), (3, True, 4), (4, True, 11), (5, True, 34),
     (2, False, 3), (3, False, 16), (4, False, 218)],
)  # fmt: skip
def test_number_of_shapes(entities, undirected, shapes):
    assert len(set(graph_shapes(all_graphs(entities, undirected)))) == shapes


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), entities=st.integers(1, 6), types=st.integers(1, 4))
def test_renumbering_changes_no_shape(seed, entities, types):
    random = np.random.default_rng(seed)
    graph = random.integers(types, size=(entities, entities)).astype(np.uint8)
    np.fill_diagonal(graph, 0)
    order = random.permutation(entities)
    one, other = graph_shapes(torch.from_numpy(np.stack([graph, graph[np.ix_(order, order)]])))
    assert one == other


def test_large_graphs_are_refused():
    with pytest.raises(ValueError, match="expected up to 7 entities, got 8"):
        graph_shapes(torch.zeros(1, 8, 8, dtype=torch.uint8))


def test_disjoint_sets_share_no_shape():
    one = nf.simulate("springs", 200, steps=2, seed=4)
    other = nf.simulate("springs", 300, steps=2, seed=4, split="test")
    mine, its = disjoint(one, other, seed=4)
    assert not set(graph_shapes(mine.edges)) & set(graph_shapes(its.edges))
    assert 60 < mine.systems < 140
    assert its.systems > 80
    again, _ = disjoint(one, other, seed=4)
    assert torch.equal(again.states, mine.states)
