"""The random parts of a bounce: bit for bit against a slow oracle, and by frequency against hand-derived odds.

Frequencies come from fixed seeds; a count may stray five standard deviations from its expectation.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nri_fast import _core, ops
from nri_fast.graph import MegaGraph
from nri_fast.ops import Draws

PROPOSE, ACCEPT, HEAT_BATH = 1, 2, 3  # csrc/common/streams.h
NAN, INF = float("nan"), float("inf")
RAGGED = [3, 1, 5, 2, 1, 4]
FLOATS = [torch.float32, torch.float64]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that Random123 publishes for philox4x32-10
        ([0, 0, 0, 0], 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    assert list(_core.philox4x32_10(counter, key)) == expected


# ---- the oracle ----


def draw(seed, stream, system, step, index):
    counter = [index, step, system & 0xFFFFFFFF, (stream << 24) | ((system >> 32) & 0xFFFFFF)]
    return _core.philox4x32_10(counter, seed)


def uniform(high, low):
    return (((high << 32) | low) >> 11) * 2.0**-53


def uniform_index(high, low, count):
    return (((high << 32) | low) * count) >> 64


def oracle_proposal(graph, draws, edge_count, node_count, edge_types, node_types):
    edges, nodes = edge_types.tolist(), node_types.tolist()
    for b in range(graph.systems):
        first, last = graph.node_offset[b : b + 2].tolist()
        first_edge, last_edge = graph.in_offset[first].item(), graph.in_offset[last].item()
        edge_places = last_edge - first_edge if edge_count > 1 else 0
        places = edge_places + (last - first if node_count > 1 else 0)
        if places == 0:
            continue
        x, y, z, w = draw(draws.seed, PROPOSE, int(draws.system_ids[b]), draws.step, 0)
        place = uniform_index(x, y, places)
        if place < edge_places:
            types, where, count = edges, first_edge + place, edge_count
        else:
            types, where, count = nodes, first + place - edge_places, node_count
        others = [t for t in range(count) if t != types[where]]
        types[where] = others[uniform_index(z, w, count - 1)]
    return edges, nodes


def oracle_row(scores, temperature, u):
    finite = [a for a, s in enumerate(scores) if np.isfinite(s)]
    if not finite:
        return None
    lowest = min(finite, key=lambda a: (scores[a], a))
    if temperature == 0:
        return lowest
    weight = {a: float(_core.portable_exp((scores[lowest] - scores[a]) / temperature)) for a in finite}
    total = 0.0
    for a in finite:
        total += weight[a]
    cumulative, drawn = 0.0, lowest
    for a in finite:
        if weight[a] == 0:
            continue
        cumulative, drawn = cumulative + weight[a], a
        if cumulative > u * total:
            break
    return drawn


def oracle_heat_bath(graph, draws, count, free, scores, temperature, edge_types, node_count, node_types):
    """Scores run over the assignments of a receiver's free edges, for each of its own types, receiver by receiver."""
    types, nodes, scores = edge_types.tolist(), node_types.tolist(), scores.double().tolist()
    for b in range(graph.systems):
        first, last = graph.node_offset[b : b + 2].tolist()
        for v in range(first, last):
            begin, end = graph.in_offset[v : v + 2].tolist()
            edges = [e for e in range(begin, end) if free[e]]
            size = count ** len(edges)
            rows, scores = scores[: node_count * size], scores[node_count * size :]
            if len(rows) == 1:
                continue
            x, y, _, _ = draw(draws.seed, HEAT_BATH, int(draws.system_ids[b]), draws.step, v - first)
            row = oracle_row(rows, temperature, uniform(x, y))
            if row is None:
                continue
            nodes[v] = row // size if node_count > 1 else nodes[v]
            for place, e in enumerate(edges):
                types[e] = row // count ** (len(edges) - 1 - place) % count
    return types, nodes


# ---- helpers ----


def ids(systems, device, first=0):
    return torch.arange(first, first + systems, device=device)


def random_types(size, count, device, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, count, size, dtype=np.uint8)).to(device)


def random_scores(rows, dtype, device, seed=0, bad=0.0):
    random = np.random.default_rng(seed)
    scores = random.normal(size=rows)
    scores[random.random(rows) < bad] = NAN
    scores[random.random(rows) < bad] = INF
    return torch.from_numpy(scores).to(dtype).to(device)


def assert_frequency(count, trials, probability):
    """Five standard deviations of a binomial; certain outcomes must be exact."""
    assert abs(count - trials * probability) <= 5 * np.sqrt(trials * probability * (1 - probability))


@pytest.mark.parametrize(("probability", "wrong"), [(0.5, 600), (0.0, 1), (1.0, 999)])
def test_the_frequency_check_can_fail(probability, wrong):
    with pytest.raises(AssertionError):
        assert_frequency(wrong, 1000, probability)
    assert_frequency(round(1000 * probability), 1000, probability)


def decide(backend, current, proposed, temperature, dtype=torch.float64, step=0, first=0):
    """Metropolis decisions of two-entity systems, whose proposals change type 0 to type 1 everywhere."""
    graph = MegaGraph.complete(len(current), 2, device=backend)
    energy = torch.tensor(current, dtype=dtype, device=backend)
    edge_types = torch.zeros(graph.edges, dtype=torch.uint8, device=backend)
    node_types = torch.zeros(graph.nodes, dtype=torch.uint8, device=backend)
    counts = torch.zeros(graph.systems, 4, dtype=torch.int64, device=backend)
    ops.metropolis_decide(
        graph,
        Draws(5, step, ids(graph.systems, backend, first)),
        torch.tensor([temperature], dtype=dtype, device=backend),
        torch.tensor(proposed, dtype=dtype, device=backend),
        edge_types + 1,
        node_types + 1,
        energy,
        edge_types,
        node_types,
        counts,
    )
    return energy.cpu(), edge_types.cpu().reshape(-1, 2), node_types.cpu().reshape(-1, 2), counts.cpu()


# ---- proposals ----


@pytest.mark.parametrize(("edge_count", "node_count"), [(2, 1), (3, 1), (1, 3), (4, 2), (1, 1), (200, 1)])
def test_proposals_are_the_oracles(backend, edge_count, node_count):
    graph = MegaGraph.complete_ragged(RAGGED)
    there = graph.to(backend)
    edges = random_types(graph.edges, edge_count, backend)
    nodes = random_types(graph.nodes, node_count, backend)
    before = edges.clone(), nodes.clone()
    for seed, step, first in [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**40), (7, 3, 12)]:
        draws = Draws(seed, step, ids(graph.systems, backend, first))
        new_edges, new_nodes = ops.metropolis_propose(there, draws, edge_count, node_count, edges, nodes)
        expected = oracle_proposal(graph, draws, edge_count, node_count, edges, nodes)
        assert (new_edges.tolist(), new_nodes.tolist()) == expected
    assert torch.equal(edges, before[0])
    assert torch.equal(nodes, before[1])


def test_proposals_without_node_types(backend):
    graph = MegaGraph.complete_ragged(RAGGED).to(backend)
    edges = random_types(graph.edges, 2, backend)
    draws = Draws(1, 1, ids(graph.systems, backend))
    with_nodes, _ = ops.metropolis_propose(graph, draws, 2, 1, edges, random_types(graph.nodes, 1, backend))
    without, nothing = ops.metropolis_propose(graph, draws, 2, 1, edges)
    assert nothing is None
    assert torch.equal(with_nodes, without)


def test_proposals_are_uniform(backend):
    systems = 30_000
    graph = MegaGraph.complete(systems, 3, device=backend)
    edges = random_types(graph.edges, 3, backend)
    nodes = random_types(graph.nodes, 2, backend)
    new_edges, new_nodes = ops.metropolis_propose(graph, Draws(3, 0, ids(systems, backend)), 3, 2, edges, nodes)
    changed = torch.cat([(new_edges != edges).reshape(-1, 6), (new_nodes != nodes).reshape(-1, 3)], dim=1).cpu()
    assert (changed.sum(1) == 1).all()
    for place in range(9):
        assert_frequency(int(changed[:, place].sum()), systems, 1 / 9)
    up = (new_edges.int() - edges.int()).cpu() % 3
    assert_frequency(int((up == 1).sum()), int((up != 0).sum()), 1 / 2)


# ---- decisions ----


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("worse", [0.01, 0.5, 3.0])
def test_acceptance_of_worsening_moves(backend, worse, dtype):
    systems, temperature = 40_000, 0.7
    energy, _, _, counts = decide(backend, [1.0] * systems, [1.0 + worse] * systems, temperature, dtype)
    accepted = int(counts[:, 2].sum())
    assert_frequency(accepted, systems, np.exp(-worse / temperature))
    assert counts.sum(0).tolist() == [systems, accepted, accepted, 0]
    assert int((energy > 1).sum()) == accepted


def test_acceptance_depends_on_the_step_and_system_alone(backend):
    worse = [1.5] * 500
    first = decide(backend, [1.0] * 500, worse, 0.5)[0]
    assert not torch.equal(first, decide(backend, [1.0] * 500, worse, 0.5, step=1)[0])
    later = decide(backend, [1.0] * 100, worse[:100], 0.5, first=300)[0]
    assert torch.equal(later, first[300:400])


def test_decisions_are_the_oracles(backend):
    systems = 400
    random = np.random.default_rng(1)
    current, proposed = random.normal(size=systems).tolist(), random.normal(size=systems).tolist()
    energy, _, _, _ = decide(backend, current, proposed, 0.8, step=9, first=77)
    for s in range(systems):
        x, y, _, _ = draw(5, ACCEPT, 77 + s, 9, 0)
        odds = 1.0 if proposed[s] <= current[s] else float(_core.portable_exp((current[s] - proposed[s]) / 0.8))
        assert energy[s] == (proposed[s] if uniform(x, y) < odds else current[s])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1e-30, 0.7, 1e30])
def test_decisions_without_chance(backend, dtype, temperature):
    """Columns: current, proposed, accepted?, proposal not finite?"""
    table = [
        (1.0, 0.5, 1, 0),  # better
        (1.0, 1.0, 1, 0),  # no worse
        (1.0, NAN, 0, 1),
        (1.0, INF, 0, 1),
        (1.0, -INF, 0, 1),
        (NAN, 2.0, 1, 0),  # a finite energy replaces one that is not
        (INF, 2.0, 1, 0),
        (NAN, NAN, 0, 1),
        (INF, INF, 0, 1),
        (INF, NAN, 0, 1),
        (0.0, -0.0, 1, 0),
    ]
    current, proposed, accepted, bad = (list(column) for column in zip(*table, strict=True))
    energy, edges, nodes, counts = decide(backend, current, proposed, temperature, dtype)
    expected = torch.tensor([p if a else c for c, p, a, _ in table], dtype=dtype)
    torch.testing.assert_close(energy, expected, rtol=0, atol=0, equal_nan=True)
    assert counts.tolist() == [[1, a, 0, b] for a, b in zip(accepted, bad, strict=True)]
    assert edges.tolist() == [[a, a] for a in accepted]
    assert nodes.tolist() == [[a, a] for a in accepted]


@pytest.mark.parametrize("temperature", [0.0, -1.0, NAN])
def test_no_worsening_move_without_a_temperature(backend, temperature):
    _, edges, _, counts = decide(backend, [1.0] * 1000, [1.0 + 1e-9] * 1000, temperature)
    assert counts.sum(0).tolist() == [1000, 0, 0, 0]
    assert not edges.any()


def test_counts_add_up_and_node_types_are_optional(backend):
    graph = MegaGraph.complete(3, 2, device=backend)
    energy = torch.ones(3, device=backend)
    edge_types = torch.zeros(6, dtype=torch.uint8, device=backend)
    counts = torch.full((3, 4), 10, dtype=torch.int64, device=backend)
    proposed = torch.tensor([0.5, 2.0, NAN], device=backend)
    cold = torch.zeros(1, device=backend)
    draws = Draws(0, 0, ids(3, backend))
    ops.metropolis_decide(graph, draws, cold, proposed, edge_types + 1, None, energy, edge_types, None, counts)
    assert counts.tolist() == [[11, 11, 10, 10], [11, 10, 10, 10], [11, 10, 10, 11]]
    assert energy.tolist() == [0.5, 1.0, 1.0]
    assert edge_types.tolist() == [1, 1, 0, 0, 0, 0]


# ---- heat bath ----


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(("count", "node_count"), [(2, 1), (3, 1), (2, 3)])
@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.9, 1e6])
def test_heat_bath_is_the_oracles(backend, temperature, count, node_count, held, dtype):
    complete = MegaGraph.complete_ragged(RAGGED)
    keep = torch.from_numpy(np.random.default_rng(2).random(complete.edges) < 0.7)
    graph = MegaGraph.from_edge_index(complete.edge_index[:, keep], RAGGED)  # in-degrees from 0 to 4
    there = graph.to(backend)
    free = torch.from_numpy(np.random.default_rng(3).random(graph.edges) < (0.6 if held else 2.0))
    rows = ops.RowLayout.blocks(there, count, free.to(backend) if held else None)
    for step in (0, 1, 6, 2**32 - 1):
        scores = random_scores(node_count * int(rows.offset[-1]), dtype, backend, seed=step, bad=0.1)
        scores[: node_count * int(rows.offset[2])] = NAN
        edges = random_types(graph.edges, count, backend, seed=step)
        nodes = random_types(graph.nodes, node_count, backend, seed=step)
        draws = Draws(11, step, ids(graph.systems, backend, first=5))
        expected = oracle_heat_bath(graph, draws, count, free, scores.cpu(), temperature, edges, node_count, nodes)
        ops.heat_bath_sample(there, draws, count, rows, scores, temperature, edges, node_count, nodes)
        assert (edges.tolist(), nodes.tolist()) == expected


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_heat_bath_frequencies_of_blocks(backend, temperature):
    systems, scores = 20_000, np.array([0.1, 0.9, NAN, 0.4, 0.0, INF, 0.2, 0.2, 1.5])  # K = 3, two edges a receiver
    graph = MegaGraph.complete(systems, 3, device=backend)
    layout = ops.RowLayout.blocks(graph, 3)
    everywhere = torch.from_numpy(np.tile(scores, graph.nodes)).to(backend)
    edges = torch.zeros(graph.edges, dtype=torch.uint8, device=backend)
    ops.heat_bath_sample(graph, Draws(4, 2, ids(systems, backend)), 3, layout, everywhere, temperature, edges)
    drawn = edges.cpu().reshape(systems, 3, 2).long()
    rows = 3 * drawn[..., 0] + drawn[..., 1]
    weight = np.where(np.isfinite(scores), np.exp(-scores / temperature), 0)
    probability = weight / weight.sum()
    for row in range(9):
        assert_frequency(int((rows == row).sum()), rows.numel(), probability[row])
    # Receivers are drawn independently of each other.
    for row in (0, 4):
        together = int(((rows[:, 0] == row) & (rows[:, 1] == row)).sum())
        assert_frequency(together, systems, probability[row] ** 2)


@pytest.mark.parametrize("varies", [0, 1])
def test_heat_bath_frequencies_where_an_edge_is_held(backend, varies):
    systems, temperature = 30_000, 0.5
    graph = MegaGraph.complete(systems, 3, device=backend)
    free = (torch.arange(graph.edges, device=backend) % 2) == varies
    everywhere = torch.tensor([0.0, 1.0], dtype=torch.float64, device=backend).repeat(graph.nodes)
    edges = torch.full((graph.edges,), 7, dtype=torch.uint8, device=backend)
    layout = ops.RowLayout.blocks(graph, 2, free)
    ops.heat_bath_sample(graph, Draws(4, 0, ids(systems, backend)), 2, layout, everywhere, temperature, edges)
    drawn = edges.cpu().reshape(-1, 2)
    assert (drawn[:, 1 - varies] == 7).all()
    assert_frequency(int((drawn[:, varies] == 1).sum()), len(drawn), 1 / (1 + np.exp(2.0)))


def test_heat_bath_at_temperature_zero_takes_the_first_of_equals(backend):
    graph = MegaGraph.complete(1, 3, device=backend)
    layout = ops.RowLayout.blocks(graph, 2)
    scores = torch.tensor([[1.0, 0.5, 0.5, 2.0], [NAN, INF, 3.0, 3.0], [NAN, NAN, INF, NAN]], device=backend)
    edges = torch.full((6,), 9, dtype=torch.uint8, device=backend)
    draws = Draws(0, 0, ids(1, backend))
    ops.heat_bath_sample(graph, draws, 2, layout, scores.flatten(), 0.0, edges)
    assert edges.tolist() == [0, 1, 1, 0, 9, 9]  # no finite score: types stay


# ---- responsibilities ----


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-7), (torch.float64, 1e-14)], ids=str)
@pytest.mark.parametrize("temperature", [1e-2, 0.5, 1e3])
@pytest.mark.parametrize("group", [0, 3])
def test_responsibilities_are_a_truncated_softmax(backend, group, temperature, dtype, tolerance):
    sizes = [3, 0, 9, 27, 3, 0]
    row_offset = torch.tensor([0, *np.cumsum(sizes)], device=backend)
    scores = random_scores(sum(sizes), dtype, backend, bad=0.08)
    weights = ops.responsibilities(row_offset, scores, temperature, group).cpu().double().numpy()
    values, begin = scores.cpu().double().numpy(), 0
    while begin < len(values):
        end = begin + group if group else int(next(o for o in row_offset.tolist() if o > begin))
        rows = values[begin:end]
        expected = np.zeros(len(rows))
        finite = np.isfinite(rows)
        if finite.any():
            expected[finite] = np.exp((rows[finite].min() - rows[finite]) / temperature)
            expected[expected < 2.0**-24] = 0
            expected /= expected.sum()
        np.testing.assert_allclose(weights[begin:end], expected, rtol=tolerance, atol=0)
        begin = end


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_responsibilities_by_hand(backend, dtype):
    row_offset = torch.tensor([0, 4, 8, 12], device=backend)
    rows = [[2.0, 1.0, 1.0, NAN], [NAN, INF, NAN, NAN], [INF, 0.0, 16.0, 17.0]]
    scores = torch.tensor(rows, dtype=dtype, device=backend).flatten()
    assert ops.responsibilities(row_offset, scores, 0.0).tolist() == [0, 1, 0, 0] + [0] * 4 + [0, 1, 0, 0]
    weights = ops.responsibilities(row_offset, scores, 1.0).cpu().reshape(3, 4)
    assert weights[0, 1] == weights[0, 2] == pytest.approx(1 / (2 + np.exp(-1.0)), rel=1e-6)
    assert weights[0, 3] == 0
    assert not weights[1].any()
    assert weights[2, 2] > 0  # e^-16 is above 2^-24 and e^-17 is not
    assert weights[2, 3] == 0


# ---- whatever the batch and the threads ----


def all_draws(graph, chosen, device, seed=21, step=4):
    """Every random operation on some systems of a larger set, per system."""
    sub = MegaGraph.complete_ragged([RAGGED[s] for s in chosen]).to(device)
    system_ids = torch.tensor(chosen, device=device)
    draws = Draws(seed, step, system_ids)
    of_edge = torch.cat([torch.arange(graph.edges)[edges_of(graph, s)] for s in chosen])
    edges = random_types(graph.edges, 3, "cpu")[of_edge].to(device)
    proposed, _ = ops.metropolis_propose(sub, draws, 3, 1, edges)
    energy = torch.ones(sub.systems, device=device)
    counts = torch.zeros(sub.systems, 4, dtype=torch.int64, device=device)
    warm = torch.tensor([0.5], device=device)
    kept = edges.clone()
    ops.metropolis_decide(sub, draws, warm, energy + 0.3, proposed, None, energy, kept, None, counts)
    all_offsets = ops.RowLayout.blocks(graph, 3).offset
    all_scores = random_scores(int(all_offsets[-1]), torch.float64, "cpu")
    of_node = torch.cat([torch.arange(graph.nodes)[nodes_of(graph, s)] for s in chosen]).tolist()
    scores = torch.cat([all_scores[all_offsets[v] : all_offsets[v + 1]] for v in of_node]).to(device)
    layout = ops.RowLayout.blocks(sub, 3)
    row_offset = layout.offset
    drawn = edges.clone()
    ops.heat_bath_sample(sub, draws, 3, layout, scores, 0.4, drawn)
    weights = ops.responsibilities(row_offset, scores, 0.4)
    own = sub.to("cpu")
    return {
        s: (
            proposed[edges_of(own, b)].tolist(),
            kept[edges_of(own, b)].tolist(),
            counts[b].tolist(),
            drawn[edges_of(own, b)].tolist(),
            [weights[row_offset[v] : row_offset[v + 1]].tolist() for v in range(own.nodes)[nodes_of(own, b)]],
        )
        for b, s in enumerate(chosen)
    }


def nodes_of(graph, system):
    return slice(*graph.node_offset[system : system + 2].tolist())


def edges_of(graph, system):
    nodes = nodes_of(graph, system)
    return slice(int(graph.in_offset[nodes.start]), int(graph.in_offset[nodes.stop]))


def test_draws_do_not_depend_on_batch_mates_or_order(backend):
    graph = MegaGraph.complete_ragged(RAGGED)
    whole = all_draws(graph, list(range(len(RAGGED))), backend)
    for chosen in ([2], [5, 0], [3, 2, 1, 0]):
        part = all_draws(graph, chosen, backend)
        assert part == {s: whole[s] for s in chosen}


def test_draws_do_not_depend_on_threads():
    sizes = RAGGED * 60
    graph = MegaGraph.complete_ragged(sizes)
    layout = ops.RowLayout.blocks(graph, 2)
    scores = random_scores(int(layout.offset[-1]), torch.float32, "cpu")
    edges = random_types(graph.edges, 2, "cpu")
    draws = Draws(1, 1, ids(graph.systems, "cpu"))
    before = ops.get_threads()
    results = []
    try:
        for threads in (1, 2, 7):
            ops.set_threads(threads)
            drawn = edges.clone()
            ops.heat_bath_sample(graph, draws, 2, layout, scores, 0.5, drawn)
            proposed, _ = ops.metropolis_propose(graph, draws, 2, 1, edges)
            results.append((drawn, proposed, ops.responsibilities(layout.offset, scores, 0.5)))
    finally:
        ops.set_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_no_systems(backend):
    graph = MegaGraph.complete(0, 3, device=backend)
    nothing = torch.zeros(0, dtype=torch.uint8, device=backend)
    draws = Draws(0, 0, ids(0, backend))
    assert ops.metropolis_propose(graph, draws, 2, 1, nothing)[0].numel() == 0
    layout = ops.RowLayout.blocks(graph, 2)
    ops.heat_bath_sample(graph, draws, 2, layout, torch.zeros(0, device=backend), 1.0, nothing)
    assert ops.responsibilities(layout.offset, torch.zeros(0, device=backend), 1.0).numel() == 0
