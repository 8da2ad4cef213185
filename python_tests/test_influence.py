"""What senders do to receivers is what modules of known laws say, whatever else they contain."""

import dataclasses
import sys

import numpy as np
import pytest
import torch

import nri_fast
from nri_fast.history import History
from nri_fast.influence import influence

NAMES = ("x", "y", "vx", "vy")


def rather_linear(features=NAMES, edge_types=2, node_types=1, pulls=(0.0, 0.3), offsets=(0.7, -0.2), factors=(1.0,)):
    """A run whose type k moves velocities by pulls[k] times the difference of positions, and sends a constant besides.

    ReLU layers pass positive and negative parts side by side, so that all is linear.
    """
    settings = nri_fast.Settings(
        edge_types=edge_types, node_types=node_types, message=4, edge_hidden=(4,), node_hidden=(8,), relative=()
    )
    library = nri_fast.ModuleLibrary(len(features), edge_types, node_types, 4, (4,), (8,))
    signs = torch.tensor([1.0, -1.0])
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.zero_()
        for k, edge in enumerate(library.edge):
            first, second = edge[0], edge[2]
            for axis in range(2):  # sender's minus receiver's position, once as it is and once negated
                first.weight[2 * axis : 2 * axis + 2, axis] = signs
                first.weight[2 * axis : 2 * axis + 2, len(features) + axis] = -signs
            second.weight.copy_(torch.eye(4) * abs(pulls[k]))
            second.bias.fill_(abs(offsets[k]))
        for factor, node in zip(factors, library.node, strict=True):
            node[0].weight[:4, :4] = torch.eye(4)
            for axis in range(2):
                node[2].weight[2 + axis, 2 * axis : 2 * axis + 2] = factor * signs
    normalisation = nri_fast.Normalisation(tuple(features), (-2.0, -2.0, -0.5, -0.5), (2.0, 2.0, 0.5, 0.5))
    trained_on = {"name": "", "split": "train", "systems": 1, "steps": 2, "entities": 2}
    return nri_fast.Run(library, library, normalisation, settings, 0, trained_on, 1e-3, history=History())


def data_of(systems=6, steps=9, entities=4, sizes=None, seed=0):
    random = torch.Generator().manual_seed(seed)
    states = torch.rand(systems, steps, entities, 4, generator=random, dtype=torch.float64) * 2 - 1
    if sizes is not None:
        states *= (torch.arange(entities) < sizes[:, None])[:, None, :, None]
    return nri_fast.TrajectoryData(states, None, NAMES, sizes=sizes)


def found_in(data, seed=1, node_types=None):
    random = torch.Generator().manual_seed(seed)
    shape = (data.systems, data.entities, data.entities)
    adjacency = torch.randint(2, shape, generator=random).to(torch.uint8)
    adjacency[:, range(data.entities), range(data.entities)] = 0
    nodes = torch.zeros(shape[:2], dtype=torch.uint8) if node_types is None else node_types
    ones = torch.ones(*shape, 2) / 2
    return nri_fast.Inference(adjacency, ones, torch.zeros(data.systems), nodes, torch.ones(*shape[:2], 1))


@pytest.mark.parametrize("sizes", [None, torch.tensor([4, 2, 1, 3, 4, 2])])
def test_a_linear_law_is_found_exactly(sizes):
    run, data = rather_linear(), data_of(sizes=sizes)
    measured = influence(run, data, found_in(data))
    pairs = sum(n * (n - 1) for n in (sizes.tolist() if sizes is not None else [4] * 6))
    assert measured.difference.shape == (pairs * 9, 4)
    # Positions have a half width of 2 and velocities of 0.5: a slope of 0.3 for the modules is 0.3 / 2 * 0.5 recorded.
    expected = 0.3 / 2 * 0.5 * (measured.difference[:, :2] - measured.difference[:, :2].mean(0))
    np.testing.assert_allclose(measured.change[1][:, 2:], expected, atol=1e-6)
    np.testing.assert_allclose(measured.change[1][:, :2], 0, atol=1e-6)
    np.testing.assert_allclose(measured.change[0], 0, atol=1e-6)
    assert measured.targets == [2, 3]
    np.testing.assert_allclose(measured.distance, np.hypot(*measured.difference[:, :2].T))
    np.testing.assert_allclose(
        measured.pull[1], (expected * measured.difference[:, :2]).sum(1) / measured.distance, atol=1e-6
    )
    np.testing.assert_allclose(measured.size[1], np.hypot(*expected.T), atol=1e-6)


def test_a_constant_that_every_sender_sends_is_no_influence():
    data = data_of()
    found = found_in(data)
    plain, shifted = (influence(rather_linear(offsets=o), data, found) for o in ((0, 0), (5.0, 3.0)))
    np.testing.assert_allclose(shifted.change, plain.change, atol=1e-6)


def test_types_of_one_law_have_no_contrast():
    data = data_of()
    alike = influence(rather_linear(pulls=(0.3, 0.3), offsets=(0.0, 2.0)), data, found_in(data))
    np.testing.assert_allclose(alike.contrast, 0, atol=1e-6)
    apart = influence(rather_linear(pulls=(0.1, 0.3)), data, found_in(data))
    np.testing.assert_allclose(apart.strength[1] / apart.strength[0], 3, rtol=1e-5)
    np.testing.assert_allclose(apart.contrast[0, 1], apart.strength[1] * 2 / 3, rtol=1e-5)
    assert apart.contrast[0, 1] == apart.contrast[1, 0]


def test_receivers_answer_by_their_own_type():
    run = rather_linear(node_types=2, factors=(1.0, 4.0))
    data = data_of(systems=1, entities=2)
    nodes = torch.tensor([[0, 1]], dtype=torch.uint8)
    measured = influence(run, data, found_in(data, node_types=nodes))
    to_first, to_second = (np.abs(measured.change[1][k::2, 2:]).mean() for k in (1, 0))  # pairs (0, 1), (1, 0), ...
    assert to_second > 3 * to_first


def test_only_judged_features_count():
    data = data_of()
    run = rather_linear()
    run = dataclasses.replace(run, settings=dataclasses.replace(run.settings, judged=("x", "y")))
    np.testing.assert_allclose(influence(run, data, found_in(data)).strength, 0, atol=1e-6)


def test_many_pairs_are_drawn_from_and_memory_is_bounded(monkeypatch):
    where = sys.modules["nri_fast.influence"]  # the package gives the function this name
    data = data_of()
    found = found_in(data)
    whole = influence(rather_linear(), data, found)
    monkeypatch.setattr(where, "NUMBERS", 1)
    np.testing.assert_allclose(influence(rather_linear(), data, found).change, whole.change, atol=1e-6)
    monkeypatch.setattr(where, "PAIRS", 50)
    some = influence(rather_linear(), data, found)
    assert some.difference.shape == (50, 4)
    known = {tuple(row) for row in whole.difference.round(9)}
    assert all(tuple(row) in known for row in some.difference.round(9))


def test_nobody_acts_on_an_entity_alone():
    data = data_of(entities=1)
    with pytest.raises(ValueError, match="two entities or more"):
        influence(rather_linear(), data, found_in(data))


def test_systems_of_one_entity_are_passed_over(monkeypatch):
    monkeypatch.setattr(sys.modules["nri_fast.influence"], "SYSTEMS", 2)
    data = data_of(sizes=torch.tensor([1, 2, 1, 1, 4, 1]))
    assert influence(rather_linear(), data, found_in(data)).difference.shape == ((2 + 12) * 9, 4)
