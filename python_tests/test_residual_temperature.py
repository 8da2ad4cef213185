"""The temperature of the posterior, from the loss and the residuals' autocorrelation."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from cases import make_case

import nri_fast as nf
from nri_fast import energies, ops
from nri_fast.residual_temperature import ResidualTemperature, residual_autocorrelation
from nri_fast.rollouts import Rollouts

STEPS = 12


def update(rule, loss, autocorrelation):
    rule.update(*(torch.tensor(value, dtype=torch.float64) for value in (loss, autocorrelation)))


@pytest.mark.parametrize("rollout", [1, 3, 5])
def test_autocorrelation_against_plain_loops(rollout):
    case = make_case(sizes=[3, 1, 2], steps=STEPS, features=3)
    systems = nf.SystemSet(case.graph, torch.cat([x.flatten() for x in case.trajectories]), STEPS, 3)
    weight = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    parameters = case.library.flat_parameters().detach()
    batch = systems.batch([2, 0, 1])
    error = ops.ErrorMeasure(weight, None)
    edges, nodes = case.edge_types[batch.edges], case.node_types[batch.nodes]
    got = residual_autocorrelation(Rollouts(case.library, parameters, batch, STEPS, rollout, error), edges, nodes)
    together = apart = 0.0
    for start in range(0, STEPS - 1, rollout):
        horizon = min(rollout, STEPS - 1 - start)
        initial = torch.cat([case.trajectories[b][start] for b in (2, 0, 1)])
        flat = energies.forecast(case.library, batch.graph, initial, edges, nodes, horizon).detach().flatten()
        first = 0
        for b in (2, 0, 1):
            n = case.graph.sizes[b]
            predicted = flat[first : first + horizon * n * 3].view(horizon, n, 3)
            first += horizon * n * 3
            r = (predicted - case.trajectories[b][start + 1 : start + 1 + horizon]).numpy() * np.sqrt(weight.numpy())
            together += (r[:-1] * r[1:]).sum()
            apart += 0.5 * ((r[:-1] ** 2).sum() + (r[1:] ** 2).sum())
    assert got == pytest.approx(together / apart if rollout > 1 else 0.0, rel=1e-9)


def test_white_residuals_give_the_posterior_of_gaussian_errors():
    """Odds of two structures at this temperature are those of their likelihoods."""
    rule, variance, steps, entities, features = ResidualTemperature(), 0.3, 48, 5, 4
    update(rule, variance, 0.0)
    temperature = float(rule.value(steps * entities, features, robust=False))
    n = steps * entities * features
    better, worse = 0.31, 0.33  # mean squared errors
    log_odds = -0.5 * n * better / variance + 0.5 * n * worse / variance
    assert (worse - better) / temperature == pytest.approx(log_odds)
    robust = float(rule.value(steps * entities, features, robust=True))
    e, s2 = np.array([0.2, 0.7]), 0.01
    energy = np.log(s2 + e)
    assert (energy[1] - energy[0]) / robust == pytest.approx(
        0.5 * features * steps * entities * (energy[1] - energy[0])
    )


def test_residuals_that_follow_each_other_count_for_less():
    white, alike = ResidualTemperature(), ResidualTemperature()
    update(white, 1.0, 0.0)
    update(alike, 1.0, 0.5)
    assert float(alike.value(10, 4, False)) == pytest.approx(3.0 * float(white.value(10, 4, False)))


def test_running_means():
    rule = ResidualTemperature()
    assert math.isnan(rule.value(10, 4, False))
    assert rule.loss is None
    update(rule, math.nan, 0.1)
    update(rule, 1.0, math.inf)
    assert math.isnan(rule.value(10, 4, False))
    assert rule.loss is None
    update(rule, 2.0, 7.0)
    assert (rule.loss, rule.autocorrelation) == (2.0, 0.99)
    update(rule, 4.0, -3.0)
    assert rule.loss == pytest.approx(2.1)
    assert rule.autocorrelation == pytest.approx(0.99 * 0.95)


SMALL = nf.Settings(
    steps=12,
    batch=3,
    message=4,
    edge_hidden=(5,),
    node_hidden=(6,),
    bounce="metropolis",
    rollout=4,
)


@pytest.mark.parametrize(("robust", "scaled"), [*itertools.product([False, True], repeat=2)])
def test_rules_of_temperature_in_training(robust, scaled):
    data = nf.simulate("springs", 6, steps=STEPS, seed=1)
    small = dataclasses.replace(SMALL, robust=robust, scaled=scaled)
    curves = {}
    for rule in ("acceptance", "residuals", "geometric"):
        run = nf.train(data, settings=dataclasses.replace(small, temperature_rule=rule), progress=False)
        curves[rule] = np.array(run.history.temperature)
        assert (curves[rule] > 0).all()
        assert torch.equal(run.library.change_scale, torch.ones(4)) != scaled
    changes = nf.Normalisation.learn(data).apply(data.states).double().diff(dim=1)
    unit = 1.0 if robust or scaled else float(changes.flatten(0, 2).var(0, correction=0).mean())
    assert curves["geometric"] == pytest.approx(unit * 0.1 * 1e-4 ** (np.arange(12) / 12), rel=1e-6)
    assert curves["residuals"][0] == curves["acceptance"][0]  # nothing is known yet
    assert len(set(curves["residuals"])) == 12
    limit = 2.0 / (4 * (STEPS - 1) * 5)  # of white residuals
    if robust:
        assert (curves["residuals"][1:] >= limit * (1 - 1e-6)).all()


def test_the_authors_settings():
    settings = nf.PRESETS["fmml"]
    library = nf.run.initial_library(4, [], settings, 0)
    assert sum(p.numel() for p in library.edge[0].parameters()) == 133_888
    assert sum(p.numel() for p in library.node[0].parameters()) == 199_428
    assert (len(library.edge), len(library.node)) == (2, 1)
    assert (settings.rollout, settings.batch, settings.proposals, settings.rule) == (10, 128, 1, "plain")
    tiny = dataclasses.replace(
        settings, steps=4, message=6, edge_hidden=(6,), node_hidden=(6,), network_hidden=8, batch=4
    )
    data = nf.simulate("springs", 8, seed=1)
    run = nf.train(data, settings=tiny, progress=False)
    assert run.history.learning_rate == [0.01] * 4
    # After two epochs of two batches each the temperature has been raised once, by a tenth.
    first = math.exp(-9.8)
    assert run.history.temperature[0] == pytest.approx(first)
    assert run.history.temperature[2] in (pytest.approx(1.1 * first), pytest.approx(first / 1.1))
    assert torch.equal(run.error_measure().weight, torch.ones(4))  # squared error in the units of the states
