"""Modules that begin with the linear least-squares prediction."""

import dataclasses

import pytest
import torch

import nri_fast
from nri_fast import ModuleLibrary, SystemSet, TrajectoryData
from nri_fast.linear_start import linear_change, start_linearly
from nri_fast.settings import Settings

SETTINGS = Settings(steps=2, batch=4, message=4, edge_hidden=(5,), node_hidden=(9, 10), linear_start=True)


def drifting(systems=6, steps=9, entities=3):
    """Positions that move by half their velocity, which decays: every change is linear in the entity's own state."""
    generator = torch.Generator().manual_seed(1)
    states = torch.empty(systems, steps, entities, 4, dtype=torch.float64)
    states[:, 0] = torch.randn(systems, entities, 4, generator=generator, dtype=torch.float64)
    for t in range(1, steps):
        x, v = states[:, t - 1].split(2, -1)
        states[:, t] = torch.cat([x + 0.5 * v, 0.8 * v + 0.1], -1)
    return TrajectoryData(states, None, ("x", "y", "vx", "vy"))


@pytest.mark.parametrize(("relative", "node_types"), [((0, 1), 1), ((), 2)])
def test_what_is_linear_is_predicted_at_once(relative, node_types):
    states = drifting().states.float()
    systems = SystemSet.complete(states)
    library = ModuleLibrary(4, 2, node_types, 4, (5,), (9, 10), relative)
    library.change_scale.copy_(systems.change_deviation())
    start_linearly(library, systems)
    messages = torch.randn(*states[:, :-1].shape[:-1], 4)
    for node_type in range(node_types):
        change = library.node_module(node_type)(torch.cat([messages, states[:, :-1]], -1))
        torch.testing.assert_close(states[:, :-1] + change, states[:, 1:], rtol=0, atol=1e-5)


def test_time_steps_of_their_own_and_absent_states():
    """Every second system was recorded at half the rate, so that it changes twice as much, and entity 1 comes late."""
    states = drifting().states.float()
    scale, present = torch.tensor([1.0, 2.0] * 3), torch.ones(6, 9, 3, dtype=torch.bool)
    for t in range(1, 9):
        x, v = states[1::2, t - 1].split(2, -1)
        states[1::2, t] = torch.cat([x + 2 * 0.5 * v, v + 2 * (0.1 - 0.2 * v)], -1)
    present[:, :4, 1] = False
    states[:, :4, 1] = 7.0
    systems = SystemSet.complete(states, present, scale)
    slopes = linear_change(systems, [0, 1, 2, 3], torch.ones(4))
    expected = torch.tensor([[0, 0, 0.5, 0, 0], [0, 0, 0, 0.5, 0], [0, 0, -0.2, 0, 0.1], [0, 0, 0, -0.2, 0.1]])
    torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-4)


def test_training_starts_there_and_resumes(tmp_path):
    data = drifting()
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-9)
    linear = nri_fast.train(data, settings=settings, seed=1, progress=False, out=tmp_path / "run")
    random = nri_fast.train(data, settings=dataclasses.replace(settings, linear_start=False), seed=1, progress=False)
    errors = [nri_fast.evaluate(run, data)["mse_1"] for run in (linear, random)]
    assert errors[0] < 1e-6 < errors[1]
    again = nri_fast.train(data, settings=settings, seed=1, progress=False, out=tmp_path / "run", resume=True)
    assert torch.equal(again.library.flat_parameters(), linear.library.flat_parameters())


def test_training_moves_on_from_there():
    data = nri_fast.simulate("springs", 8, steps=12, seed=1)
    run = nri_fast.train(data, settings=dataclasses.replace(SETTINGS, steps=40), seed=1, progress=False)
    assert run.history.loss[-1] < run.history.loss[0]
    weight = run.library.node[0][-1].weight
    assert (weight[:, 8:] != 0).any()  # units that counted nothing at first


def test_modules_too_narrow_are_refused():
    settings = dataclasses.replace(SETTINGS, node_hidden=(9, 3))
    with pytest.raises(ValueError, match=r"each of 4 units or more for a linear start with 2 features, got \(9, 3\)"):
        nri_fast.train(drifting(), settings=settings, progress=False)
