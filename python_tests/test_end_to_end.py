"""From recordings to graphs in one go, small."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import nri_fast as nf
from nri_fast import metrics
from nri_fast.bouncegrad import BounceGrad
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.run import initial_library


def test_springs_are_told_apart_on_systems_never_seen():
    data = nf.simulate("springs", systems=100, entities=5, steps=49, seed=1)
    train, test = nf.hold_out(data, count=20)  # fewer than 50 to learn from: some seeds fail
    settings = nf.Settings(steps=600, batch=10, message=24, edge_hidden=(24,), node_hidden=(24, 24), learning_rate=6e-3)
    run = nf.train(train, settings=settings, progress=False)
    figures = nf.evaluate(run, test)
    assert figures["edge_accuracy"] > 0.95
    assert figures["edge_auroc"] > 0.95
    assert figures["mse_1"] < 0.5 * figures["mse_1_constant_velocity"]
    # Training knows its own systems as well as it knows new ones.
    own, _ = metrics.edge_accuracy(nf.infer(run, train).adjacency, train.edges, 2)
    assert own > 0.95


SMALL = nf.Settings(steps=6, batch=3, message=4, edge_hidden=(6,), node_hidden=(6,), rollout=3, polish_steps=2)


@pytest.mark.parametrize("bounce", ["soft", "metropolis"])
def test_several_types_of_edges_and_entities(bounce):
    data = nf.simulate("charged", systems=5, entities=4, steps=12, seed=2)
    settings = dataclasses.replace(SMALL, edge_types=3, node_types=2, bounce=bounce, robust=False)
    run = nf.train(data, settings=settings, progress=False)
    found = nf.infer(run, data)
    assert found.probability.shape == (5, 4, 4, 3)
    assert found.node_probability.shape == (5, 4, 2)
    assert int(found.adjacency.max()) < 3
    torch.testing.assert_close(found.node_probability.sum(-1), torch.ones(5, 4))
    figures = nf.evaluate(run, data, found)
    assert 0 <= figures["edge_accuracy"] <= 1
    assert nf.forecast(run, data, found, horizon=4).shape == (5, 4, 4, 4)


@pytest.mark.parametrize("bounce", ["soft", "sampled", "metropolis"])
def test_systems_of_different_sizes_train_together(bounce):
    sizes, steps = [3, 1, 5, 2, 4], 12
    pieces = [
        nf.simulate("springs", systems=1, entities=max(n, 2), steps=steps, seed=n).states[0, :, :n] for n in sizes
    ]
    states = torch.cat([x.float().flatten() for x in pieces])
    systems = nf.SystemSet(nf.MegaGraph.complete_ragged(sizes), states, steps, 4)
    settings = dataclasses.replace(SMALL, bounce=bounce, steps=40, robust=False)
    library = initial_library(4, [0, 1], settings, 0)
    trainer = BounceGrad(library, settings, 0)
    trainer.fit(systems, progress=False)
    assert trainer.skipped == 0
    assert trainer.structures.edge_types.shape == (6 + 20 + 2 + 12,)
    loss = trainer.history.loss
    assert sum(loss[30:40]) < sum(loss[:10])
    found = heat_bath_search(library, systems, trainer.error_measure())
    assert found.edge_probabilities.shape == (40, 2)


@pytest.mark.parametrize("bounce", ["soft", "sampled", "metropolis"])
def test_systems_of_many_entities(bounce):
    data = nf.simulate("springs", systems=2, entities=14, steps=8, seed=3)
    run = nf.train(data, settings=dataclasses.replace(SMALL, bounce=bounce, steps=3), progress=False)
    found = nf.infer(run, data)
    assert found.adjacency.shape == (2, 14, 14)
    assert len(set(found.adjacency.flatten().tolist())) == 2
    assert bool(torch.isfinite(found.probability).all())
    assert bool(torch.isfinite(found.energy).all())


def test_a_run_goes_through_its_folder(tmp_path):
    data = nf.simulate("springs", systems=6, entities=4, steps=12, seed=4)
    run = nf.train(data, settings=SMALL, out=tmp_path / "run", progress=False)
    figures = nf.evaluate(run, data)
    assert nf.evaluate(nf.Run.load(tmp_path / "run"), data) == figures
