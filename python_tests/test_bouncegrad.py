"""The parts of BounceGrad: what a bounce weighs, keeps and differentiates; divergence; and what no result may know."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from cases import assert_close, assert_same_bits

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.bouncegrad import BounceGrad
from nri_fast.bounces import Structures, heat_bath_bounce, metropolis_bounce
from nri_fast.couplings import Coupling
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.learner import MOST_SKIPPED, DivergedError
from nri_fast.rollouts import Rollouts
from nri_fast.run import initial_library
from nri_fast.training_draws import TrainingDraws

SYSTEMS, STEPS, N, D = 3, 6, 3, 2
SMALL = nf.Settings(
    steps=12, batch=4, message=4, edge_hidden=(5,), node_hidden=(6,), relative=(), transitions=4, rollout=2, proposals=2
)


@pytest.fixture
def library():
    library = nf.ModuleLibrary(D, 2, 1, 4, (5,), (6,)).double()
    library.change_scale.copy_(torch.tensor([0.7, 1.3]))
    return library


@pytest.fixture
def systems():
    return nf.SystemSet.complete(torch.randn(SYSTEMS, STEPS, N, D, dtype=torch.float64))


def measure_of(library, scale_squared=0.1):
    return ops.ErrorMeasure((1.0 / library.change_scale**2).contiguous(), scale_squared)


def rows_of(library, batch, start, scale_squared=0.1):
    return HeatBathRows(library, batch, STEPS, start, measure_of(library, scale_squared))


def oracle_scores(library, systems, ids, start, scale_squared=0.1):
    """[B, N, K^(N-1)] scores of the systems named, in plain torch."""
    trajectories = list(systems.states.view(len(systems), STEPS, N, D)[ids])
    graph = nf.MegaGraph.complete(len(ids), N)
    weight = 1.0 / library.change_scale**2
    flat = reference.heat_bath_scores(library, graph, trajectories, start, None, None, scale_squared, weight)
    return flat.view(len(ids), N, -1)


def pull_back(library, flat_gradient):
    return torch.autograd.grad(library.flat_parameters(), list(library.parameters()), flat_gradient)


# ---- heat bath ----


@pytest.mark.parametrize("scale_squared", [None, 0.1])
def test_soft_gradient_is_that_of_the_weighted_scores(library, systems, scale_squared):
    ids, start = [2, 0], torch.randint(STEPS - 1, (2, 3))
    batch = systems.batch(ids)
    rows = rows_of(library, batch, start, scale_squared=scale_squared)
    structures = Structures.zeros(systems.graph, library.edge_types)
    draws = ops.Draws(0, 0, batch.systems)
    parameters = library.flat_parameters().detach()
    got = heat_bath_bounce(parameters, batch, structures, rows, Coupling(), draws, 0.3, sample=False)

    scores = oracle_scores(library, systems, ids, start, scale_squared)
    temperature = 0.3 * float(scores.detach().std(-1).mean()) + 1e-9
    assert float(got.temperature) == pytest.approx(temperature, rel=1e-9)
    responsibility = torch.softmax(-scores.detach() / temperature, -1)
    objective = (responsibility * scores).sum(-1).mean()
    assert_close(got.loss, objective, 1e-7)
    expected = torch.autograd.grad(objective, list(library.parameters()))
    for g, e in zip(pull_back(library, got.gradient), expected, strict=True):
        assert_close(g, e, 1e-6)  # responsibilities below 2^-24 of the largest count as zero


def test_sampled_gradient_is_that_of_the_assignment_drawn(library, systems):
    ids, start = [1, 2], torch.randint(STEPS - 1, (2, 3))
    batch = systems.batch(ids)
    structures = Structures.zeros(systems.graph, library.edge_types)
    untouched = structures.edge_types.view(SYSTEMS, -1)[0].clone()
    parameters = library.flat_parameters().detach()
    rows = rows_of(library, batch, start)
    draws = ops.Draws(7, 3, batch.systems)
    got = heat_bath_bounce(parameters, batch, structures, rows, Coupling(), draws, 2.0, sample=True)
    assert torch.equal(structures.edge_types.view(SYSTEMS, -1)[0], untouched)
    drawn = structures.edge_types[batch.edges].view(2, N, N - 1).long()
    assert 0 < int(drawn.sum()) < drawn.numel()
    number = (drawn * torch.tensor([2, 1])).sum(-1, keepdim=True)
    objective = oracle_scores(library, systems, ids, start).gather(-1, number).mean()
    assert_close(got.loss, objective, 1e-10)
    expected = torch.autograd.grad(objective, list(library.parameters()))
    for g, e in zip(pull_back(library, got.gradient), expected, strict=True):
        assert_close(g, e, 1e-10)


@pytest.mark.parametrize("edge_types", [2, 3])
def test_indicator_marks_the_row_of_each_assignment(edge_types):
    library = nf.ModuleLibrary(D, edge_types, 1, 4, (5,), (6,)).double()
    systems = nf.SystemSet(nf.MegaGraph.complete_ragged([3, 1, 2]), torch.randn(6 * STEPS * D).double(), STEPS, D)
    batch = systems.batch([0, 1, 2])
    rows = rows_of(library, batch, torch.zeros(3, 1, dtype=torch.int64))
    offset = rows.row_offset.tolist()
    for types in itertools.islice(itertools.product(range(edge_types), repeat=batch.graph.edges), 0, None, 41):
        weights = rows.indicator(torch.tensor(types, dtype=torch.uint8), torch.zeros(6, dtype=torch.uint8))
        expected = torch.zeros_like(weights)
        for v in range(batch.graph.nodes):
            first, last = batch.graph.in_offset[v : v + 2].tolist()
            row = 0
            for t in types[first:last]:
                row = row * edge_types + t
            expected[offset[v] + row] = 1
        assert torch.equal(weights, expected)
        marginals = rows.edge_probabilities(weights)  # and back again
        assert torch.equal(marginals.argmax(-1), torch.tensor(types))
        assert torch.equal(marginals.sum(-1), torch.ones(batch.graph.edges).double())


def test_marginals_are_sums_over_assignments(library, systems):
    batch = systems.batch([0, 1, 2])
    rows = rows_of(library, batch, torch.zeros(3, 1, dtype=torch.int64))
    weights = torch.rand(SYSTEMS, N, 4, dtype=torch.float64)
    weights /= weights.sum(-1, keepdim=True)
    expected = torch.stack([weights[..., 2:].sum(-1), weights[..., 1::2].sum(-1)], -1).flatten()
    assert_close(rows.edge_probabilities(weights.flatten())[:, 1], expected, 1e-12)


def test_several_node_types_are_weighed_jointly(systems):
    library = nf.ModuleLibrary(D, 2, 3, 4, (5,), (6,)).double()
    batch, start = systems.batch([0, 1, 2]), torch.zeros(3, 2, dtype=torch.int64)
    rows = rows_of(library, batch, start)
    parameters = library.flat_parameters().detach()
    joint = rows.scores(parameters).view(SYSTEMS, N, 3, 4)
    trajectories = list(systems.states.view(SYSTEMS, STEPS, N, D))
    weight = 1.0 / library.change_scale**2
    for m in range(3):
        nodes = torch.full((systems.graph.nodes,), m)
        expected = reference.heat_bath_scores(library, systems.graph, trajectories, start, None, nodes, 0.1, weight)
        assert_close(joint[:, :, m].flatten(), expected, 1e-11)
    weights = rows.responsibilities(joint.flatten(), 0.5)
    assert_close(weights.view(SYSTEMS, N, 12), torch.softmax(-joint.flatten(2) / 0.5, -1), 1e-6)
    assert_close(rows.node_probabilities(weights), weights.view(SYSTEMS * N, 3, 4).sum(-1), 1e-12)
    edges = weights.view(SYSTEMS, N, 3, 4).sum(2)
    assert_close(rows.edge_probabilities(weights)[0::2, 1], edges[..., 2:].sum(-1).flatten(), 1e-12)


# ---- Metropolis ----


def bounce_metropolis(library, systems, structures, temperature, draws=40, step=0):
    batch = systems.batch(range(len(systems)))
    named = ops.Draws(5, step, batch.systems)
    warm = torch.tensor([temperature], dtype=torch.float64)
    parameters = library.flat_parameters().detach()
    rollouts = Rollouts(library, parameters, batch, systems.steps, 2, measure_of(library, None))
    return metropolis_bounce(rollouts, structures, named, draws, warm)


def energies_of(library, systems, structures):
    states = systems.states.view(len(systems), systems.steps, N, D)
    weight = 1.0 / library.change_scale**2
    nodes = structures.node_types if library.node_types > 1 else None
    return nf.rollout_energy(library, systems.graph, states, structures.edge_types, nodes, 2, weight=weight)


@pytest.mark.parametrize("node_types", [1, 2])
def test_cold_chains_never_go_up(systems, node_types):
    library = nf.ModuleLibrary(D, 3, node_types, 4, (5,), (6,)).double()
    structures = Structures.zeros(systems.graph, library.edge_types)
    before = energies_of(library, systems, structures)
    fell = False
    for step in range(20):
        result = bounce_metropolis(library, systems, structures, 0.0, draws=3, step=3 * step)
        after = energies_of(library, systems, structures)
        assert bool((after <= before).all())
        assert_close(result.loss, after.mean(), 1e-12)
        assert int(result.counts[:, 2].sum()) == 0  # no worsening move was accepted
        assert int(result.counts[:, 0].sum()) == 3 * SYSTEMS
        fell |= bool((after < before).any())
        before = after
    assert fell
    assert int(structures.edge_types.max()) > 0


def test_hot_chains_go_up_too(library, systems):
    structures = Structures.zeros(systems.graph, library.edge_types)
    result = bounce_metropolis(library, systems, structures, 1e9)
    assert int(result.counts[:, 2].sum()) > 20
    assert torch.equal(result.counts[:, 0], result.counts[:, 1])  # at this temperature everything is accepted


def test_metropolis_gradient_is_that_of_the_structures_kept(library, systems):
    structures = Structures.zeros(systems.graph, library.edge_types)
    result = bounce_metropolis(library, systems, structures, 0.01)
    trajectories = list(systems.states.view(SYSTEMS, STEPS, N, D))
    weight = 1.0 / library.change_scale**2
    energy = reference.rollout_energy(
        library, systems.graph, trajectories, structures.edge_types, None, 2, None, weight
    ).mean()
    assert_close(result.loss, energy, 1e-11)
    expected = torch.autograd.grad(energy, list(library.parameters()))
    for g, e in zip(pull_back(library, result.gradient), expected, strict=True):
        assert_close(g, e, 1e-10)


# ---- training ----


def set_of(systems=7, entities=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return nf.SystemSet.complete(torch.randn(systems, STEPS, entities, D, generator=generator))


def fitted(settings=SMALL, systems=None, threads=None, torch_threads=None, seed=2):
    before, torch_before = ops.get_threads(), torch.get_num_threads()
    try:
        ops.set_threads(threads or before)
        torch.set_num_threads(torch_threads or torch_before)
        trainer = BounceGrad(initial_library(D, [], settings, seed), settings, seed)
        return trainer.fit(set_of() if systems is None else systems, progress=False)
    finally:
        ops.set_threads(before)
        torch.set_num_threads(torch_before)


def assert_same_training(one, other):
    assert_same_bits(one.library.flat_parameters(), other.library.flat_parameters())
    assert_same_bits(one.library.change_scale, other.library.change_scale)
    assert_same_bits(one.structures.edge_types, other.structures.edge_types)
    assert_same_bits(one.structures.node_types, other.structures.node_types)
    assert one.history == other.history


KINDS = {
    "soft": SMALL,
    "soft, polished": dataclasses.replace(SMALL, polish_steps=4),
    "sampled": dataclasses.replace(SMALL, bounce="sampled"),
    "metropolis": dataclasses.replace(SMALL, bounce="metropolis", robust=False),
    "two node types": dataclasses.replace(SMALL, edge_types=3, node_types=2),
    "two node types, sampled": dataclasses.replace(SMALL, node_types=2, bounce="sampled"),
    "undirected": dataclasses.replace(SMALL, undirected=True),
    "small blocks": dataclasses.replace(SMALL, block=4, undirected=True),
    "shared": dataclasses.replace(SMALL, shared=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_does_not_know_the_threads(kind):
    alone = fitted(KINDS[kind], threads=1, torch_threads=1)
    for threads, torch_threads in [(2, 1), (3, 2), (1, 2)]:
        assert_same_training(fitted(KINDS[kind], threads=threads, torch_threads=torch_threads), alone)


def test_training_on_long_recordings_does_not_know_the_threads():
    long = torch.randn(2, 40_000, 2, D)
    settings = dataclasses.replace(SMALL, steps=2, bounce="metropolis", robust=False)
    trained = [
        fitted(settings, nf.SystemSet.complete(long), threads=t, torch_threads=t).library.flat_parameters()
        for t in (1, 2)
    ]
    assert_same_bits(*trained)


@pytest.mark.parametrize("kind", KINDS)
def test_training_does_not_know_torchs_generator(kind):
    one = fitted(KINDS[kind])
    torch.manual_seed(12345)
    assert_same_training(fitted(KINDS[kind]), one)
    assert not torch.equal(fitted(KINDS[kind], seed=3).library.flat_parameters(), one.library.flat_parameters())


def test_every_system_takes_part_once_an_epoch():
    draws = TrainingDraws(0, SMALL)
    systems, seen = set_of(7), []
    for step in range(6):  # seven systems, four at most in a batch: two batches an epoch
        batch, last = draws.batch(systems, step)
        assert last == (step % 2 == 1)
        assert len(batch.systems) in (3, 4)
        seen.append(batch.systems.tolist())
    epochs = [seen[0] + seen[1], seen[2] + seen[3], seen[4] + seen[5]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_one_steps_change_has_the_change_scale_as_its_deviation():
    states = torch.randn(5, STEPS, 4, D) * torch.tensor([3.0, 0.01]) + 100.0
    trained = fitted(dataclasses.replace(SMALL, steps=1), nf.SystemSet.complete(states))
    change = states.double().diff(dim=1).flatten(0, 2)
    assert_close(trained.library.change_scale.double(), change.std(0, correction=0), 1e-6)


def test_the_change_scale_of_ragged_systems():
    sizes = [3, 1, 4]
    states = [torch.randn(STEPS, n, D) for n in sizes]
    systems = nf.SystemSet(nf.MegaGraph.complete_ragged(sizes), torch.cat([x.flatten() for x in states]), STEPS, D)
    trained = fitted(dataclasses.replace(SMALL, steps=1), systems)
    change = torch.cat([x.double().diff(dim=0).flatten(0, 1) for x in states])
    assert_close(trained.library.change_scale.double(), change.std(0, correction=0), 1e-6)


def test_curves_follow_their_schedules():
    settings = dataclasses.replace(SMALL, steps=300, polish_steps=5, last_scale=0.003)
    still = nf.SystemSet.complete(torch.randn(7, 1, 4, D).expand(-1, STEPS, -1, -1).contiguous())
    history = fitted(dataclasses.replace(settings, learning_rate=0.03), still).history  # easily predicted
    assert history.step == list(range(305))
    assert history.scale_squared[0] == pytest.approx(0.3)
    assert history.scale_squared[180:] == pytest.approx([0.003] * 125)
    assert max(history.learning_rate[:300]) == pytest.approx(0.03)
    assert max(history.learning_rate[300:]) == pytest.approx(2e-3)


def test_the_scale_stays_above_what_cannot_be_predicted():
    history = fitted(dataclasses.replace(SMALL, steps=30, bounce="metropolis", rollout=2)).history  # pure noise
    assert history.scale_squared[0] == pytest.approx(0.3)
    assert min(history.scale_squared) > 0.03


# ---- divergence ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_divergence_is_counted_and_stops_training(kind, value):
    settings = dataclasses.replace(KINDS[kind], steps=MOST_SKIPPED + 5)
    library = initial_library(D, [], settings, 0)
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.fill_(value)
    trainer = BounceGrad(library, settings, 0)
    with pytest.raises(DivergedError, match=rf"the last {MOST_SKIPPED + 1} gradients, up to step {MOST_SKIPPED}"):
        trainer.fit(set_of(), progress=False)
    assert trainer.skipped == MOST_SKIPPED + 1
    for parameter in library.parameters():  # no step was taken
        assert torch.equal(parameter.nan_to_num(7.0), torch.full_like(parameter, value).nan_to_num(7.0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_bad_steps_are_skipped_and_training_goes_on(kind, monkeypatch):
    settings = dataclasses.replace(KINDS[kind], steps=30)
    bounce, spoiled = BounceGrad._bounce, range(3, 9)

    def sometimes_bad(self, systems, batch, parameters):
        result = bounce(self, systems, batch, parameters)
        if self._step in spoiled:
            before.append(self.library.flat_parameters().detach().clone())
            result.gradient[1] = float("nan")
        return result

    before = []
    monkeypatch.setattr(BounceGrad, "_bounce", sometimes_bad)
    trained = fitted(settings)
    assert trained.skipped == len(spoiled)
    for weights in before:
        assert_same_bits(weights, before[0])
    assert bool(torch.isfinite(trained.library.flat_parameters()).all())
    assert not torch.equal(trained.library.flat_parameters(), before[0])


def test_skipped_steps_count_in_a_row_only(monkeypatch):
    settings = dataclasses.replace(SMALL, steps=3 * MOST_SKIPPED)
    bounce = BounceGrad._bounce

    def every_other_bad(self, systems, batch, parameters):
        result = bounce(self, systems, batch, parameters)
        if self._step % 2:
            result.gradient.fill_(float("inf"))
        return result

    monkeypatch.setattr(BounceGrad, "_bounce", every_other_bad)
    assert fitted(settings).skipped == 3 * MOST_SKIPPED // 2


def test_systems_that_overflow_do_not_stop_the_others_in_a_chain(systems):
    library = nf.ModuleLibrary(D, 2, 1, 4, (5,), (6,)).double()
    states = systems.states.clone().view(SYSTEMS, STEPS, N, D)
    states[1] = 1e200
    spoiled = nf.SystemSet.complete(states)
    structures = Structures.zeros(spoiled.graph, library.edge_types)
    result = bounce_metropolis(library, spoiled, structures, 0.0)
    assert bool(torch.isfinite(result.gradient).all())
    assert bool(torch.isfinite(result.loss))
    assert result.counts[1].tolist() == [40, 0, 0, 40]  # nothing that is not finite is ever accepted
    assert int(structures.edge_types.view(SYSTEMS, -1)[1].sum()) == 0
