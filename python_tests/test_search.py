"""Structures under fixed modules: right where the answer can be computed, and blind to batch, order and threads."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from cases import assert_close, assert_same_bits

import nri_fast as nf
from nri_fast import energies, ops, search
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.rollouts import Rollouts
from nri_fast.search import metropolis_search

D, STEPS = 2, 9


def teacher(dtype=torch.float64, edge_types=2, node_types=1):
    """Modules whose types differ so much that recordings made by them give their structures away."""
    generator = torch.Generator().manual_seed(11)
    library = nf.ModuleLibrary(D, edge_types, node_types, 4, (6,), (6,)).to(dtype)
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.8)
    return library


def recordings(library, graph, edge_types, node_types=None, steps=STEPS):
    """Flat states that the library itself produced from random first ones."""
    initial = torch.randn(graph.nodes, D, dtype=library.change_scale.dtype)
    later = energies.forecast(library, graph, initial, edge_types, node_types, steps - 1)
    sizes, pieces = graph.sizes, []
    flat = later.flatten().split([(steps - 1) * n * D for n in sizes])
    for first, rest, n in zip(initial.split(sizes), flat, sizes, strict=True):
        pieces.append(torch.cat([first[None], rest.view(steps - 1, n, D)]).flatten())
    return torch.cat(pieces)


def problem(sizes, edge_types=2, node_types=1, dtype=torch.float64, noise=0.0):
    library = teacher(dtype, edge_types, node_types)
    graph = nf.MegaGraph.complete_ragged(sizes)
    edges = torch.randint(edge_types, (graph.edges,), dtype=torch.uint8)
    nodes = torch.randint(node_types, (graph.nodes,), dtype=torch.uint8)
    states = recordings(library, graph, edges, nodes)
    states += noise * states.std() * torch.randn_like(states)
    return library, nf.SystemSet(graph, states, STEPS, D), edges, nodes


def measure_of(library, robust=False):
    return energies.error_measure(library, *(("robust", 1e-3) if robust else ()))


@pytest.mark.parametrize("robust", [False, True])
def test_heat_bath_finds_the_structure_that_made_the_recordings(robust):
    library, systems, edges, _ = problem([4, 2, 4, 1, 3])
    found = heat_bath_search(library, systems, measure_of(library, robust))
    assert torch.equal(found.edge_types, edges)
    assert_close(found.edge_probabilities.sum(-1), torch.ones(len(edges)).double(), 1e-6)
    sure = found.edge_probabilities.gather(1, edges.long()[:, None])
    assert float(sure.min()) > 0.9


def test_heat_bath_finds_entity_types_too():
    library, systems, edges, nodes = problem([4] * 6, edge_types=3, node_types=2)
    found = heat_bath_search(library, systems, measure_of(library))
    assert torch.equal(found.node_types, nodes)
    assert torch.equal(found.edge_types, edges)
    assert found.node_probabilities.shape == (24, 2)


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("node_types", [1, 2])
def test_metropolis_lowers_energies_of_every_system(robust, node_types):
    library, systems, *_ = problem([4] * 8, node_types=node_types)
    measure = measure_of(library, robust)
    found = metropolis_search(library, systems, measure, 2)
    zero_nodes = torch.zeros_like(found.node_types)

    def energy(edges, nodes):
        states = (library, library.flat_parameters().detach(), systems.graph, systems.states, STEPS)
        return ops.rollout_energy(*states, edges[None], nodes if node_types > 1 else None, 2, measure)[0]

    before = energy(torch.zeros_like(found.edge_types), zero_nodes)
    after = energy(found.edge_types, found.node_types)
    assert bool((after < before).all())
    spread = torch.stack([energy(torch.randint_like(found.edge_types, 2), zero_nodes) for _ in range(20)])
    assert bool((after < spread.median(0).values).all())
    assert int((after <= spread.amin(0)).sum()) >= 4


@pytest.mark.parametrize("robust", [False, True])
def test_metropolis_probabilities_are_those_of_one_edge_given_the_rest(robust):
    library, systems, *_ = problem([3, 3], edge_types=3, noise=0.3)
    with torch.no_grad():
        parameters, batch = library.flat_parameters(), systems.batch([0, 1])
        chain = search.Descent(Rollouts(library, parameters, batch, STEPS, 2, measure_of(library, robust)), seed=0)
        chain.anneal()
        chain.descend()
        probabilities, _ = chain.conditionals()
    states = systems.states.view(2, STEPS, 3, D)
    arguments = {"error": "robust", "scale_squared": 1e-3} if robust else {}
    own = nf.rollout_energy(library, systems.graph, states, chain.edge_types, rollout=2, **arguments).detach()
    assert torch.equal(probabilities.argmax(-1), chain.edge_types.long())  # the chain ends where no single change helps
    for e in range(systems.graph.edges):
        tried = chain.edge_types.repeat(3, 1)
        tried[:, e] = torch.arange(3)
        energy = nf.rollout_energy(library, systems.graph, states, tried, rollout=2, **arguments).detach()
        b = e // 6
        log_odds = -0.5 * (STEPS - 1) * 3 * D * energy[:, b] / (1.0 if robust else own[b])
        assert_close(probabilities[e], torch.softmax(log_odds, 0), 1e-9)


@pytest.mark.parametrize("robust", [False, True])
def test_many_entities_are_searched_edge_by_edge_to_a_minimum(robust):
    library, systems, *_ = problem([14])
    found = heat_bath_search(library, systems, measure_of(library, robust))
    assert found.edge_probabilities.shape == (14 * 13, 2)
    arguments = {"error": "robust", "scale_squared": 1e-3} if robust else {}
    states = systems.states.view(1, STEPS, 14, D)
    scores = nf.heat_bath_scores(library, systems.graph, states, found.edge_types, **arguments).view(-1, 2)
    assert torch.equal(scores.argmin(-1), found.edge_types.long())  # no single edge would rather be of another type

    def energy(types):
        return nf.rollout_energy(library, systems.graph, states, types, rollout=1, **arguments).detach()

    others = energy(torch.randint(2, (50, 14 * 13)))
    assert bool((energy(found.edge_types) < others).all())


# ---- what no result may know ----


def searches(dtype=torch.float32, robust=True):
    library, systems, *_ = problem([4] * 9, dtype=dtype)
    measure = measure_of(library, robust)
    return {
        "heat bath": lambda s=systems: heat_bath_search(library, s, measure, seed=3),
        "Metropolis": lambda s=systems: metropolis_search(library, s, measure, 2, seed=3),
        "edge by edge": lambda s=systems: heat_bath_search(library, s, measure, seed=3),
    }, systems


def assert_same_found(one, other):
    for name, value in vars(one).items():
        assert_same_bits(value, getattr(other, name))


METHODS = ["heat bath", "Metropolis", "edge by edge"]


@pytest.fixture
def edge_by_edge(request, monkeypatch):
    """Lets small systems be searched as large ones are."""
    if request.node.callspec.params["method"] == "edge by edge":
        monkeypatch.setattr("nri_fast.heat_bath_search.LARGEST_BLOCK", 4)


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("edge_by_edge")
def test_how_a_search_is_cut_into_batches_does_not_matter(method, robust, monkeypatch):
    find, _ = searches(robust=robust)
    together = find[method]()
    assert len(set(together.edge_types.tolist())) == 2
    for size in (1, 2, 4):
        monkeypatch.setattr(search, "SYSTEMS_AT_ONCE", size)
        assert_same_found(find[method](), together)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("edge_by_edge")
def test_search_does_not_know_the_threads(method):
    find, _ = searches()
    before, torch_before, results = nf.get_threads(), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            nf.set_threads(threads)
            torch.set_num_threads(min(threads, 2))
            results.append(find[method]())
    finally:
        nf.set_threads(before)
        torch.set_num_threads(torch_before)
    assert_same_found(results[1], results[0])
    assert_same_found(results[2], results[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("edge_by_edge")
def test_the_first_systems_alone_give_the_same(method):
    # A chain's draws are named by a system's place in the set, so this much holds for every method.
    find, systems = searches()
    together, states = find[method](), systems.states.view(9, STEPS, 4, D)
    part = find[method](nf.SystemSet.complete(states[:5]))
    for name, value in vars(part).items():
        whole = getattr(together, name)
        assert_same_bits(value, whole[: len(whole) // 9 * 5])


def test_heat_bath_does_not_know_the_order():
    find, systems = searches()
    order = torch.tensor([4, 0, 8, 3])
    part = find["heat bath"](nf.SystemSet.complete(systems.states.view(9, STEPS, 4, D)[order]))
    for name, value in vars(part).items():
        whole = getattr(find["heat bath"](), name)
        assert_same_bits(value.view(4, -1), whole.view(9, -1)[order])


def test_heat_bath_of_ragged_systems_does_not_know_the_batch(monkeypatch):
    sizes = [4, 1, 3, 2, 4]
    library, systems, *_ = problem(sizes, dtype=torch.float32)
    measure = measure_of(library, True)
    together = heat_bath_search(library, systems, measure)
    monkeypatch.setattr(search, "SYSTEMS_AT_ONCE", 2)
    assert_same_found(heat_bath_search(library, systems, measure), together)
    firsts = list(itertools.accumulate([0, *(STEPS * n * D for n in sizes)]))
    edges = list(itertools.accumulate([0, *(n * (n - 1) for n in sizes)]))
    for b, n in enumerate(sizes):
        alone = nf.SystemSet(nf.MegaGraph.complete(1, n), systems.states[firsts[b] : firsts[b + 1]], STEPS, D)
        found = heat_bath_search(library, alone, measure)
        assert_same_bits(found.edge_probabilities, together.edge_probabilities[edges[b] : edges[b + 1]])


@pytest.mark.parametrize("bounce", ["soft", "metropolis"])
def test_inference_of_a_part_is_that_part_of_the_inference(bounce):
    data = nf.simulate("springs", systems=6, entities=4, steps=12, seed=5)
    settings = nf.Settings(
        steps=5, batch=3, message=4, edge_hidden=(4,), node_hidden=(4,), bounce=bounce, rollout=3, robust=False
    )
    run = nf.train(data, settings=settings, progress=False)
    everything = nf.infer(run, data, seed=1)
    kept = torch.tensor([0, 1, 2]) if bounce == "metropolis" else torch.tensor([5, 1, 3])
    part = nf.infer(run, dataclasses.replace(data, states=data.states[kept], edges=None), seed=1)
    for name, value in vars(part).items():
        if name != "candidates":  # there are none
            assert_same_bits(value, getattr(everything, name)[kept])


def test_labels_are_not_looked_at():
    data = nf.simulate("springs", systems=4, entities=4, steps=12, seed=5)
    settings = nf.Settings(steps=5, batch=3, message=4, edge_hidden=(4,), node_hidden=(4,))
    liar = dataclasses.replace(data, edges=torch.zeros_like(data.edges))
    run, other = (nf.train(d, settings=settings, progress=False) for d in (data, liar))
    assert_same_bits(run.library.flat_parameters(), other.library.flat_parameters())
    told = nf.infer(other, liar)
    for name, value in vars(nf.infer(run, data)).items():
        if name != "candidates":  # there are none
            assert_same_bits(getattr(told, name), value)


def test_inference_is_laid_out_by_sender_and_receiver():
    data = nf.simulate("springs", systems=2, entities=3, steps=8, seed=5)
    settings = nf.Settings(edge_types=3, steps=5, batch=2, message=4, edge_hidden=(4,), node_hidden=(4,))
    found = nf.infer(nf.train(data, settings=settings, progress=False), data)
    assert found.probability.shape == (2, 3, 3, 3)
    off = ~torch.eye(3, dtype=torch.bool)
    assert_close(found.probability.sum(-1)[:, off], torch.ones(2, 6), 1e-6)
    assert not bool(found.probability[:, ~off].any())
    assert torch.equal(found.adjacency[:, off].long(), found.probability[:, off].argmax(-1))
    assert not bool(found.adjacency[:, ~off].any())


def test_the_inferred_energy_is_that_of_the_adjacency():
    data = nf.simulate("springs", systems=3, entities=3, steps=12, seed=5)
    settings = nf.Settings(steps=5, batch=2, message=4, edge_hidden=(4,), node_hidden=(4,), rollout=4)
    run = nf.train(data, settings=settings, progress=False)
    found, graph = nf.infer(run, data), nf.MegaGraph.complete(3, 3)
    expected = nf.rollout_energy(run.library, graph, run.states(data), found.adjacency, rollout=4)
    assert_same_bits(found.energy, expected.detach())
