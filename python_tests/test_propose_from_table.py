"""Proposals from a table of probabilities: bit for bit against a slow oracle, and by frequency against enumeration.

Frequencies come from fixed seeds; a count may stray five standard deviations from its expectation.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nri_fast import _core, ops
from nri_fast.graph import MegaGraph
from nri_fast.ops import Draws

FROM_TABLE, BLUR = 4, 5  # csrc/common/streams.h
RAGGED = [3, 1, 5, 2, 1, 4]
NAN, INF = float("nan"), float("inf")


# ---- the oracle ----


def uniforms(seed, stream, system, step, index):
    """The uniform of a draw, and the integer that its first 64 bits give below a count."""
    counter = [index, step, system & 0xFFFFFFFF, (stream << 24) | ((system >> 32) & 0xFFFFFF)]
    x, y, _, _ = _core.philox4x32_10(counter, seed)
    bits = (x << 32) | y
    return (bits >> 11) * 2.0**-53, lambda count: (bits * count) >> 64


def weight(p):
    return p if 1e-300 <= p < INF else 0.0


def log(x):
    return float(_core.portable_log(x))


def one_change(places, u):
    """Draws (place, type) in proportion to its weight; places are [row, current type]."""
    changes = [(i, t, weight(row[t])) for i, (row, now) in enumerate(places) for t in range(len(row)) if t != now]
    total = sum(w for _, _, w in changes)
    if not 0 < total < INF:
        return None
    cumulative, drawn = 0.0, None
    for i, t, w in changes:
        if w > 0:
            cumulative, drawn = cumulative + w, (i, t)
            if cumulative > u * total:
                break
    i, t = drawn
    row, now = places[i]
    after = [(r, t if j == i else n) for j, (r, n) in enumerate(places)]
    total_back = sum(weight(r[k]) for r, n in after for k in range(len(r)) if k != n)
    back = weight(row[now])
    return i, t, (log(back) - log(total_back) - log(weight(row[t])) + log(total) if back > 0 else -INF)


def redrawn(row, now, change, u):
    """A new type from a row, and its part of the log ratio."""
    weights = [0.0 if change and t == now else weight(p) for t, p in enumerate(row)]
    total = sum(weights)
    if not 0 < total < INF:
        return now, 0.0
    cumulative, drawn = 0.0, now
    for t, w in enumerate(weights):
        if w > 0:
            cumulative, drawn = cumulative + w, t
            if cumulative > u * total:
                break
    if drawn == now:
        return now, 0.0
    total_back = sum(weight(p) for t, p in enumerate(row) if not (change and t == drawn))
    back = weight(row[now])
    return drawn, (log(back) - log(total_back) - log(weight(row[drawn])) + log(total) if back > 0 else -INF)


def oracle(graph, draws, kind, edge_p, node_p, edge_types, node_types, may_change):
    edges, nodes, ratios = edge_types.tolist(), node_types.tolist(), []
    with_nodes = node_p is not None
    for b in range(graph.systems):
        first, last = graph.node_offset[b : b + 2].tolist()
        e0, e1 = graph.in_offset[first].item(), graph.in_offset[last].item()
        name = (draws.seed, FROM_TABLE, int(draws.system_ids[b]), draws.step)
        free = [e for e in range(e0, e1) if may_change is None or may_change[e]]
        if kind == "edge":
            places = [(edge_p[e].tolist(), edges[e]) for e in free]
            places += [(node_p[v].tolist(), nodes[v]) for v in range(first, last)] if with_nodes else []
            change = one_change(places, uniforms(*name, 0)[0])
            if change is not None:
                i, t, _ = change
                if i < len(free):
                    edges[free[i]] = t
                else:
                    nodes[first + i - len(free)] = t
            ratios.append(0.0 if change is None else change[2])
            continue
        begin, end = first, last
        if kind != "system":
            begin = first + uniforms(*name, 0)[1](last - first)
            end = begin + 1
        ratio = 0.0
        for e in range(graph.in_offset[begin].item(), graph.in_offset[end].item()):
            if e in free:
                edges[e], part = redrawn(edge_p[e].tolist(), edges[e], kind == "flip", uniforms(*name, 1 + e - e0)[0])
                ratio += part
        for v in range(begin, end) if with_nodes else ():
            u = uniforms(*name, 1 + e1 - e0 + v - first)[0]
            nodes[v], part = redrawn(node_p[v].tolist(), nodes[v], kind == "flip", u)
            ratio += part
        ratios.append(ratio)
    return edges, nodes, ratios


# ---- helpers ----


def ids(systems, device, first=0):
    return torch.arange(first, first + systems, device=device)


def types_of(size, count, device, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, count, size, dtype=np.uint8)).to(device)


def probabilities(rows, count, device, seed=0, bad=0.0):
    random = np.random.default_rng(seed)
    p = random.dirichlet([0.5] * count, size=rows)
    for value in (0.0, NAN, INF, 1e-310):
        p[random.random(p.shape) < bad] = value
    return torch.from_numpy(p).to(device)


def assert_frequencies(states, probability):
    """Five standard deviations of a binomial for every state."""
    counts = np.bincount(states, minlength=len(probability))
    assert len(counts) == len(probability)
    slack = 5 * np.sqrt(len(states) * probability * (1 - probability))
    assert (np.abs(counts - len(states) * probability) <= slack).all(), counts - len(states) * probability


# ---- proposals ----


@pytest.mark.parametrize("bad", [0.0, 0.15])
@pytest.mark.parametrize("kind", ops.PROPOSALS)
@pytest.mark.parametrize(("edge_count", "node_count"), [(2, 1), (3, 2), (1, 4)])
def test_proposals_are_the_oracles(backend, edge_count, node_count, kind, bad):
    complete = MegaGraph.complete_ragged(RAGGED)
    keep = torch.from_numpy(np.random.default_rng(2).random(complete.edges) < 0.8)
    graph = MegaGraph.from_edge_index(complete.edge_index[:, keep], RAGGED)
    there = graph.to(backend)
    edge_p = probabilities(graph.edges, edge_count, backend, 1, bad)
    node_p = probabilities(graph.nodes, node_count, backend, 2, bad) if node_count > 1 else None
    masks = [None, types_of(graph.edges, 2, backend, seed=8), torch.zeros(graph.edges, dtype=torch.uint8).to(backend)]
    for (seed, step, first), mask in zip([(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**40), (7, 3, 12)], masks, strict=True):
        edges = types_of(graph.edges, edge_count, backend, seed=step % 97)
        nodes = types_of(graph.nodes, node_count, backend, seed=step % 89)
        before = edges.clone(), nodes.clone()
        draws = Draws(seed, step, ids(graph.systems, backend, first))
        got = ops.propose_from_table(there, draws, kind, edge_p, node_p, edges, nodes, mask)
        expected = oracle(graph, draws, kind, edge_p, node_p, edges, nodes, mask)
        assert got[0].tolist() == expected[0]
        assert got[1].tolist() == expected[1]
        assert got[2].tolist() == expected[2]
        assert torch.equal(edges, before[0])
        assert torch.equal(nodes, before[1])


@pytest.mark.parametrize("kind", ops.PROPOSALS)
def test_proposals_do_not_depend_on_company_or_threads(backend, kind):
    graph = MegaGraph.complete(40, 4, device=backend)
    edge_p, edges = probabilities(graph.edges, 3, backend), types_of(graph.edges, 3, backend)
    whole = ops.propose_from_table(graph, Draws(3, 5, ids(40, backend)), kind, edge_p, None, edges)
    part = MegaGraph.complete(7, 4, device=backend)
    some = slice(20 * 12, 27 * 12)
    threads = ops.get_threads()
    try:
        ops.set_threads(1)
        alone = ops.propose_from_table(part, Draws(3, 5, ids(7, backend, 20)), kind, edge_p[some], None, edges[some])
    finally:
        ops.set_threads(threads)
    assert torch.equal(alone[0], whole[0][some])
    assert torch.equal(alone[2], whole[2][20:27])


def test_proposals_have_the_probabilities_of_the_table(backend):
    """One edge of a two-entity system, three types: hand-computed odds."""
    systems = 40_000
    graph = MegaGraph.complete(systems, 2, device=backend)
    table = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], dtype=torch.float64, device=backend)
    edges = torch.zeros(graph.edges, dtype=torch.uint8, device=backend)
    draws = Draws(1, 0, ids(systems, backend))
    new, _, ratio = ops.propose_from_table(graph, draws, "edge", table.repeat(systems, 1), None, edges)
    states = (new.view(-1, 2).long() * torch.tensor([3, 1], device=backend)).sum(1).cpu().numpy()
    total = 0.3 + 0.2 + 0.2 + 0.7
    expected = np.zeros(9)
    expected[[3, 6, 1, 2]] = np.array([0.3, 0.2, 0.2, 0.7]) / total
    assert_frequencies(states, expected)
    # Back from state (1, 0): weights 0.5 and 0.2 of the first edge, 0.2 and 0.7 of the second.
    back = float(ratio[int((torch.from_numpy(states) == 3).nonzero()[0])])
    assert back == pytest.approx(math.log(0.5 / 1.6) - math.log(0.3 / total), rel=1e-12)


# ---- chains, against enumeration ----

EDGE_P = [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]]
ENERGIES = np.array([0.0, 0.4, 1.1, 0.7, 0.2, 0.9, 0.5, 1.5, 0.3])
TEMPERATURE = 0.6


def chain_states(backend, kind, hastings, steps=40, systems=1500):
    """Where chains of two-entity systems with three edge types stand after many steps."""
    graph = MegaGraph.complete(systems, 2, device=backend)
    table = torch.tensor(EDGE_P, dtype=torch.float64, device=backend).repeat(systems, 1)
    energies = torch.from_numpy(ENERGIES).to(backend)

    def energy_of(types):
        return energies[types.view(-1, 2).long() @ torch.tensor([3, 1], device=backend)]

    edges = torch.zeros(graph.edges, dtype=torch.uint8, device=backend)
    energy, counts = energy_of(edges), torch.zeros(systems, 4, dtype=torch.int64, device=backend)
    temperature = torch.full((1,), TEMPERATURE, dtype=torch.float64, device=backend)
    for step in range(steps):
        draws = Draws(9, step, ids(systems, backend))
        new, _, ratio = ops.propose_from_table(graph, draws, kind, table, None, edges)
        ratio = ratio if hastings else None
        ops.metropolis_decide(graph, draws, temperature, energy_of(new), new, None, energy, edges, None, counts, ratio)
    return (edges.view(-1, 2).long() @ torch.tensor([3, 1], device=backend)).cpu().numpy()


def boltzmann():
    p = np.exp(-ENERGIES / TEMPERATURE)
    return p / p.sum()


@pytest.mark.parametrize("kind", ["edge", "node", "system"])
def test_hastings_chains_sample_the_boltzmann_distribution(backend, kind):
    assert_frequencies(chain_states(backend, kind, hastings=True), boltzmann())


@pytest.mark.parametrize("kind", ["edge", "node", "system"])
def test_the_plain_rule_does_not_sample(backend, kind):
    with pytest.raises(AssertionError):
        assert_frequencies(chain_states(backend, kind, hastings=False), boltzmann())


def test_flips_alone_keep_the_boltzmann_distribution(backend):
    """Flips of three types reach every state, because an entity's new type is any other one."""
    assert_frequencies(chain_states(backend, "flip", hastings=True, steps=80), boltzmann())


def test_acceptance_by_hand(backend):
    """Columns: current, proposed, temperature, log ratio, odds."""
    table = [
        (1.0, 1.0, 0.5, -0.7, math.exp(-0.7)),
        (1.0, 0.5, 0.5, -1.5, math.exp(-0.5)),
        (1.0, 1.5, 0.5, 0.4, math.exp(-0.6)),
        (1.0, 1.5, 0.5, 1.0, 1.0),
        (1.0, 0.5, 0.5, -INF, 0.0),
        (1.0, 0.5, 0.5, NAN, 0.0),
        (1.0, 0.5, 0.0, -9.0, 1.0),  # temperature 0: every improvement, and no worsening
        (1.0, 1.5, 0.0, 9.0, 0.0),
        (1.0, 1.0, 0.0, -0.7, math.exp(-0.7)),
        (1.0, NAN, 0.5, INF, 0.0),
        (1.0, INF, 0.5, 9.0, 0.0),
        (NAN, 2.0, 0.5, -9.0, 1.0),  # a finite energy replaces one that is not
        (-INF, 2.0, 0.5, -9.0, 1.0),
    ]
    systems = 2000
    graph = MegaGraph.complete(systems, 2, device=backend)
    for current, proposed, temperature, log_ratio, odds in table:
        full = lambda value: torch.full((systems,), value, dtype=torch.float64, device=backend)  # noqa: E731
        energy, edges = full(current), torch.zeros(graph.edges, dtype=torch.uint8, device=backend)
        counts = torch.zeros(systems, 4, dtype=torch.int64, device=backend)
        ops.metropolis_decide(
            graph,
            Draws(5, 0, ids(systems, backend)),
            torch.tensor([temperature], dtype=torch.float64, device=backend),
            full(proposed),
            edges + 1,
            None,
            energy,
            edges,
            None,
            counts,
            full(log_ratio),
        )
        assert_frequencies(edges.view(-1, 2)[:, 0].cpu().numpy(), np.array([1 - odds, odds]))
        assert int(counts[:, 1].sum()) == int(edges[::2].sum())
        worse = int(counts[:, 1].sum()) if math.isfinite(current) and proposed > current else 0
        assert int(counts[:, 2].sum()) == worse


# ---- blurred edges ----


@pytest.mark.parametrize("whole_entity", [False, True])
def test_blurred_edges_are_the_oracles(backend, whole_entity):
    graph = MegaGraph.complete_ragged(RAGGED)
    for seed, step, first_id in [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**40)]:
        draws = Draws(seed, step, ids(graph.systems, backend, first_id))
        got = ops.blur(graph.to(backend), draws, 0.3, whole_entity).tolist()
        for b in range(graph.systems):
            first, last = graph.node_offset[b : b + 2].tolist()
            name = (seed, BLUR, int(draws.system_ids[b]), step)
            entity = first + uniforms(*name, 0)[1](last - first)
            begin = int(graph.in_offset[first])
            for e in range(begin, int(graph.in_offset[last])):
                hit = uniforms(*name, 1 + e - begin)[0] < 0.3
                assert got[e] == (int(graph.receiver[e]) == entity if whole_entity else hit)


def test_every_pattern_of_blurred_edges_has_its_odds(backend):
    systems = 30_000
    graph = MegaGraph.complete(systems, 2, device=backend)
    blurred = ops.blur(graph, Draws(2, 1, ids(systems, backend)), 0.2).view(-1, 2).long().cpu().numpy()
    odds = [(0.8 if not a else 0.2) * (0.8 if not b else 0.2) for a, b in itertools.product((0, 1), repeat=2)]
    assert_frequencies(blurred @ np.array([2, 1]), np.array(odds))
