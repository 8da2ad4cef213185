"""Neighbour lists: the pairs that are near, a complete graph's bits where all are, and what runs make of them."""

import dataclasses

import numpy as np
import pytest
import torch

import nri_fast
from nri_fast import MegaGraph, ModuleLibrary, SystemSet, TrajectoryData
from nri_fast.edge_table import edge_rows
from nri_fast.energies import all_transitions, error_measure, forecast
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.neighbours import candidates
from nri_fast.rollouts import Rollouts
from nri_fast.settings import Settings

SILENT = Settings(silent=True, steps=4, polish_steps=2, batch=3, message=8, edge_hidden=(8,), node_hidden=(8,))


def changed(**changes):
    return dataclasses.replace(SILENT, **changes)


@pytest.fixture(scope="module")
def ragged():
    """Systems of 2, 4 and 6 entities on a plane."""
    generator = torch.Generator().manual_seed(3)
    sizes = torch.tensor([2, 4, 6, 6])
    states = torch.randn(4, 9, 6, 4, generator=generator, dtype=torch.float64)
    there = torch.arange(6) < sizes[:, None]
    return TrajectoryData(states * there[:, None, :, None], None, ("x", "y", "vx", "vy"), sizes=sizes)


def near_by_hand(data, neighbours, radius):
    """Pair by pair, receiver by receiver."""
    result = np.zeros((data.systems, data.entities, data.entities), dtype=bool)
    sizes = [data.entities] * data.systems if data.sizes is None else data.sizes.tolist()
    for s, n in enumerate(sizes):
        paths = data.states[s, :, :, :2].numpy()
        for j in range(n):
            away = {i: np.linalg.norm(paths[:, i] - paths[:, j], axis=-1).mean() for i in range(n) if i != j}
            nearest = sorted(away, key=away.__getitem__)[:neighbours]
            for i in nearest:
                result[s, i, j] = radius is None or away[i] <= radius
    return torch.from_numpy(result)


@pytest.mark.parametrize(("neighbours", "radius"), [(1, None), (3, None), (None, 2.0), (2, 1.9), (4, None)])
def test_candidates_are_the_nearest(ragged, neighbours, radius):
    near = candidates(ragged, changed(neighbours=neighbours, radius=radius))
    expected = near_by_hand(ragged, neighbours, radius)
    assert torch.equal(near, expected)
    assert 0 < int(near.sum()) < int(ragged.pairs.sum())
    both = candidates(ragged, changed(neighbours=neighbours, radius=radius, undirected=True))
    assert torch.equal(both, expected | expected.mT)


def test_of_senders_equally_near_the_lower_number_counts():
    states = torch.zeros(1, 2, 4, 1, dtype=torch.float64)
    states[0, :, :, 0] = torch.tensor([0.0, 1.0, -1.0, 5.0])
    near = candidates(TrajectoryData(states, None, ("x",)), changed(neighbours=1))
    assert near[0].nonzero().tolist() == [[0, 1], [0, 2], [1, 0], [1, 3]]


def test_without_lists_or_with_long_ones_everyone_may_act_on_everyone(ragged):
    assert candidates(ragged, SILENT) is None
    assert candidates(ragged, changed(neighbours=5)) is None
    assert torch.equal(candidates(ragged, changed(radius=1e9)), ragged.pairs)


def test_only_steps_at_which_both_are_there_count():
    states = torch.zeros(1, 4, 3, 1, dtype=torch.float64)
    states[0, :, 1, 0] = torch.tensor([9.0, 1.0, 1.0, 9.0])
    states[0, :, 2, 0] = 3.0
    present = torch.ones(1, 4, 3, dtype=torch.bool)
    present[0, [0, 3], 1] = False
    near = candidates(TrajectoryData(states, None, ("x",), present=present), changed(neighbours=1))
    assert near[0, :, 0].tolist() == [False, True, False]  # 1 away while both were there, on average 5 if not
    apart = torch.zeros(1, 4, 3, dtype=torch.bool)
    apart[0, :, 2], apart[0, :2, 0], apart[0, 2:, 1] = True, True, True  # 0 and 1 never meet
    data = TrajectoryData(torch.ones(1, 4, 3, 1, dtype=torch.float64), None, ("x",), present=apart)
    near = candidates(data, changed(radius=10.0))
    assert not near[0, 0, 1]
    assert near[0, 2, 1]


def test_distances_do_not_depend_on_how_many_systems_are_taken_at_once(ragged, monkeypatch):
    together = candidates(ragged, changed(neighbours=2))
    monkeypatch.setattr("nri_fast.neighbours.PAIRS_AT_ONCE", 1)
    assert torch.equal(candidates(ragged, changed(neighbours=2)), together)


def test_a_graph_of_candidates_has_the_order_of_every_graph(backend, ragged):
    near = candidates(ragged, changed(neighbours=2)).to(backend)
    graph = MegaGraph.from_candidates(near, ragged.sizes.tolist())
    first = graph.node_offset[:-1]
    pairs = [(int(first[s]) + i, int(first[s]) + j) for s, i, j in near.nonzero().tolist()]
    other = MegaGraph.from_edge_index(torch.tensor(pairs, device=backend).T, ragged.sizes.tolist())
    for name in ("node_offset", "in_offset", "sender", "receiver"):
        assert torch.equal(getattr(graph, name), getattr(other, name)), name
    assert graph.edges == int(near.sum()) == 2 * 1 + 2 * (4 + 6 + 6)  # grows with the lists, not with the pairs
    assert torch.equal(graph.adjacency(torch.ones(graph.edges, device=backend)), near.float())


def test_all_pairs_as_candidates_are_the_complete_graph_to_the_bit(backend, ragged):
    library = ModuleLibrary(4, 2, 1, 8, (8,), (8,), relative=(0, 1), silent=True).to(backend)
    states = ragged.states.float().to(backend)
    complete = SystemSet.padded(states, ragged.sizes)
    sparse = SystemSet.padded(states, ragged.sizes, candidates=ragged.pairs.to(backend))
    types = (torch.rand(complete.graph.edges) < 0.5).byte().to(backend)
    nodes = torch.zeros(complete.graph.nodes, dtype=torch.uint8, device=backend)
    results = []
    for systems in (complete, sparse):
        batch = systems.batch([3, 0, 1])
        edges, entities = types[batch.edges], nodes[batch.nodes]
        error = error_measure(library)
        rollouts = Rollouts(library, library.flat_parameters().detach(), batch, systems.steps, 3, error)
        start = all_transitions(batch.graph, systems.steps)
        scores = HeatBathRows(library, batch, systems.steps, start, error).scores(library.flat_parameters().detach())
        ahead = forecast(library, batch.graph, batch.states.view(-1, 4)[: batch.graph.nodes], edges)
        results.append([*rollouts.mean_gradient(edges, entities), rollouts.energies(edges, entities), scores, ahead])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_what_is_no_candidate_is_as_good_as_silent(backend, ragged):
    library = ModuleLibrary(4, 2, 1, 8, (8,), (8,), silent=True).to(backend)
    states = ragged.states.float().to(backend)
    near = candidates(ragged, changed(neighbours=2)).to(backend)
    sparse, complete = SystemSet.padded(states, ragged.sizes, candidates=near), SystemSet.padded(states, ragged.sizes)
    energies = []
    for systems in (sparse, complete):
        types = systems.graph.flatten_types(near.byte())
        nodes = torch.zeros(systems.graph.nodes, dtype=torch.uint8, device=backend)
        batch = systems.batch(range(4))
        rollouts = Rollouts(library, library.flat_parameters().detach(), batch, 9, 4, error_measure(library))
        energies.append(rollouts.energies(types, nodes))
    assert torch.equal(*energies)


@pytest.mark.parametrize("changes", [{}, {"undirected": True}, {"bounce": "metropolis", "rollout": 2}, {"block": 4}])
def test_a_run_remembers_its_lists(ragged, tmp_path, changes):
    settings = changed(neighbours=2, **changes)
    run = nri_fast.train(ragged, settings=settings, seed=1, progress=False, out=tmp_path / "run")
    again = nri_fast.Run.load(tmp_path / "run")
    found, other = nri_fast.infer(run, ragged), nri_fast.infer(again, ragged)
    near = candidates(ragged, settings)
    assert torch.equal(found.candidates, near)
    assert torch.equal(found.probability, other.probability)
    apart = ragged.pairs & ~near
    assert not found.adjacency[apart].any()
    assert torch.equal(found.probability[apart], torch.tensor([1.0, 0.0]).expand(int(apart.sum()), 2))
    torch.testing.assert_close(found.probability[near].sum(-1), torch.ones(int(near.sum())))
    assert not found.probability[~ragged.pairs].any()
    ahead = nri_fast.forecast(run, ragged, found, 3, start=2)
    begun = TrajectoryData(ragged.states[:, :3], None, ragged.feature_names, sizes=ragged.sizes)
    assert torch.equal(nri_fast.forecast(run, begun, found, 3, start=2), ahead)  # the lists are the inference's
    rows = list(edge_rows(found, ragged))
    assert len(rows) == int(near.sum())
    assert nri_fast.evaluate(run, ragged, found)["mse_1"] > 0


def test_a_run_with_lists_of_everyone_is_the_run_without(ragged):
    runs = [nri_fast.train(ragged, settings=s, seed=1, progress=False) for s in (SILENT, changed(neighbours=5))]
    found = [nri_fast.infer(run, ragged) for run in runs]
    assert torch.equal(found[0].probability, found[1].probability)
    assert torch.equal(found[0].energy, found[1].energy)


def test_entities_without_neighbours(ragged):
    run = nri_fast.train(ragged, settings=changed(radius=1.6), seed=1, progress=False)
    found = nri_fast.infer(run, ragged)
    lonely = (ragged.members & ~found.candidates.any(1)).sum()
    assert 0 < int(lonely) < int(ragged.members.sum())
    assert torch.isfinite(found.energy).all()


def test_refusals(ragged):
    with pytest.raises(ValueError, match="neighbours: expected a whole number, at least 1, or None, got 0"):
        changed(neighbours=0)
    with pytest.raises(ValueError, match=r"radius: expected a positive number, or None, got -1"):
        changed(radius=-1.0)
    with pytest.raises(ValueError, match="neighbours, radius: need silent"):
        changed(neighbours=2, silent=False)
    with pytest.raises(ValueError, match="neighbours, radius: expected None with shared"):
        changed(neighbours=2, shared=True)
    speeds = TrajectoryData(ragged.states[..., 2:], None, ("vx", "vy"), sizes=ragged.sizes)
    with pytest.raises(ValueError, match=r"expected positions among the features \(x, y, z\), got vx, vy"):
        candidates(speeds, changed(neighbours=1))
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 2, 1] = True
    with pytest.raises(ValueError, match="edges between two of 2 entities in system 0, got 2 -> 1"):
        MegaGraph.from_candidates(mask, [2])
    with pytest.raises(ValueError, match="entities: expected 1 numbers from 1 to 3"):
        MegaGraph.from_candidates(mask, [4])
    with pytest.raises(TypeError, match=r"candidates: expected a bool tensor, got torch\.uint8"):
        MegaGraph.from_candidates(mask.byte())
    with pytest.raises(ValueError, match=r"candidates: expected \[systems, N, N\]"):
        MegaGraph.from_candidates(mask[0])
