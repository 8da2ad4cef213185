"""Systems of different sizes side by side: what is found out about one is, to the bit, what it is alone."""

import dataclasses

import numpy as np
import pytest
import torch

import nri_fast
from nri_fast import MegaGraph, SystemSet, TrajectoryData
from nri_fast.settings import PRESETS

SIZES = [3] * 5 + [5] * 5


@pytest.fixture(scope="module")
def parts():
    return [nri_fast.simulate("springs", 5, entities=n, steps=22, seed=1) for n in (3, 5)]


@pytest.fixture(scope="module")
def ragged(parts):
    return together(parts)


def together(parts):
    """Data sets of different sizes as one."""
    largest = max(part.entities for part in parts)
    states, edges = [], []
    for part in parts:
        gap = largest - part.entities
        states.append(torch.nn.functional.pad(part.states, (0, 0, 0, gap)))
        edges.append(torch.nn.functional.pad(part.edges, (0, gap, 0, gap)))
    sizes = torch.tensor([n for part in parts for n in [part.entities] * part.systems])
    return TrajectoryData(torch.cat(states), torch.cat(edges), parts[0].feature_names, sizes=sizes)


@pytest.fixture(scope="module")
def run(ragged):
    settings = dataclasses.replace(PRESETS["springs"], steps=6, polish_steps=2, batch=4)
    return nri_fast.train(ragged, settings=settings, seed=1, progress=False)


def test_complete_graphs_of_different_sizes():
    sizes = [3, 1, 5, 2, 1]
    graph = MegaGraph.complete_ragged(sizes)
    first = 0
    senders, receivers = [], []
    for n in sizes:
        one = MegaGraph.complete(1, n)
        senders.append(one.sender + first)
        receivers.append(one.receiver + first)
        first += n
    assert torch.equal(graph.sender, torch.cat(senders))
    assert torch.equal(graph.receiver, torch.cat(receivers))
    assert (graph.sizes, graph.entities) == (sizes, None)
    assert MegaGraph.complete_ragged([4, 4]).entities == 4
    assert MegaGraph.complete_ragged([]).systems == 0
    with pytest.raises(ValueError, match=r"entities\[1\]: expected at least 1, got 0"):
        MegaGraph.complete_ragged([3, 0])


def test_flat_states_leave_the_padding_out(ragged, parts):
    systems = SystemSet.padded(ragged.states, ragged.sizes)
    assert torch.equal(systems.states, torch.cat([part.states.flatten() for part in parts]))
    assert systems.graph.sizes == SIZES


def test_inference_is_that_of_the_systems_alone(run, ragged, parts):
    found = nri_fast.infer(run, ragged)
    alone = [nri_fast.infer(run, part) for part in parts]
    ahead = nri_fast.forecast(run, ragged, found, 4, start=3)
    for rows, n, one, part in zip((slice(0, 5), slice(5, 10)), (3, 5), alone, parts, strict=True):
        assert torch.equal(found.adjacency[rows, :n, :n], one.adjacency)
        assert torch.equal(found.probability[rows, :n, :n], one.probability)
        assert torch.equal(found.energy[rows], one.energy)
        assert torch.equal(found.node_types[rows, :n], one.node_types)
        assert torch.equal(ahead[rows, :, :n], nri_fast.forecast(run, part, one, 4, start=3))
    assert not found.probability[:5, 3:].any()
    assert not found.adjacency[:5, :, 3:].any()


def test_figures_count_what_is_there(run, ragged, parts):
    figures = nri_fast.evaluate(run, ragged)
    alone = [nri_fast.evaluate(run, part) for part in parts]
    weights = {"mse": np.array([15, 25]), "edge": np.array([30, 100])}
    for key in ("mse_1", "mse_10", "mse_20", "mse_10_nothing_moves", "mse_10_constant_velocity"):
        assert figures[key] == pytest.approx(np.average([one[key] for one in alone], weights=weights["mse"]), rel=1e-6)
    found = nri_fast.infer(run, ragged)
    order = figures["relabelling"]
    right = [
        float((torch.tensor(order)[nri_fast.infer(run, p).adjacency.long()] == p.edges).flatten(1).float().mean())
        for p in parts
    ]
    # The diagonals, which are always right up to the relabelling, are no edges.
    counted = [r * n * n - n * (order[0] == 0) for r, n in zip(right, (3, 5), strict=True)]
    assert figures["edge_accuracy"] == pytest.approx(sum(counted) * 5 / 130, rel=1e-5)
    assert found.adjacency.shape == (10, 5, 5)


def test_sizes_that_do_not_fit(ragged):
    def with_sizes(sizes, **changes):
        return dataclasses.replace(ragged, sizes=sizes, **changes)

    assert ragged.select(torch.tensor([1, 2])).sizes is None  # all of one size again
    assert ragged.select(torch.tensor([1, 2])).entities == 3
    assert ragged.select(torch.tensor([1, 7])).sizes.tolist() == [3, 5]
    with pytest.raises(TypeError, match="sizes: expected an int64 tensor"):
        with_sizes(ragged.sizes.int())
    with pytest.raises(ValueError, match=r"sizes: expected \[systems\] = \[10\], got \[9\]"):
        with_sizes(ragged.sizes[1:])
    with pytest.raises(ValueError, match="got 3 to 6"):
        with_sizes(ragged.sizes + ragged.sizes // 5)
    for name, place in (("states", (0, 0, 4, 1)), ("edges", (0, 4, 1)), ("edges", (0, 1, 4))):
        values = getattr(ragged, name).clone()
        values[place] = 1
        with pytest.raises(ValueError, match=f"{name}: expected zeros behind a system's last entity"):
            dataclasses.replace(ragged, **{name: values})


def test_normalisation_is_learned_from_what_is_there(parts):
    shifted = [dataclasses.replace(part, states=part.states + 100) for part in parts]
    learned = nri_fast.Normalisation.learn(together(shifted))
    assert min(learned.low) > 50


def test_files_keep_the_sizes(tmp_path, ragged):
    nri_fast.save_trajectories(ragged, tmp_path)
    read = nri_fast.load_trajectories(tmp_path)
    assert torch.equal(read.sizes, ragged.sizes)
    assert torch.equal(read.edges, ragged.edges)
    np.savez(tmp_path / "bad.npz", states=np.zeros((2, 3, 2, 1)), sizes=np.array([1, 3]))
    with pytest.raises(ValueError, match=r"bad\.npz: sizes: expected 1 to 2 entities"):
        nri_fast.load_trajectories(tmp_path / "bad.npz")
    np.savez(tmp_path / "part.npz", states=np.zeros((2, 3, 2, 1)), recording=np.array([0, 0]))
    with pytest.raises(ValueError, match=r"part\.npz: origin: expected the arrays .*'recording_names' is missing"):
        nri_fast.load_trajectories(tmp_path / "part.npz")


def test_other_searches_take_systems_of_different_sizes(ragged):
    chain = dataclasses.replace(PRESETS["metropolis"], steps=3, polish_steps=0, batch=4, rollout=2)
    run = nri_fast.train(ragged, settings=chain, seed=1, progress=False)
    assert nri_fast.infer(run, ragged).adjacency.shape == (10, 5, 5)
    undirected = dataclasses.replace(PRESETS["springs"], steps=3, polish_steps=0, batch=4, undirected=True)
    run = nri_fast.train(ragged, settings=undirected, seed=1, progress=False)
    found = nri_fast.infer(run, ragged)
    assert torch.equal(found.adjacency, found.adjacency.transpose(1, 2))
