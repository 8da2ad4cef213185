"""Metrics against hand-computed cases and slow definitions."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from nri_fast import metrics


def random_graphs(seed, systems, entities, types):
    graphs = np.random.default_rng(seed).integers(0, types, size=(systems, entities, entities), dtype=np.uint8)
    graphs[:, np.arange(entities), np.arange(entities)] = 0
    return graphs


def pairs(entities):
    return [(i, j) for i in range(entities) for j in range(entities) if i != j]


def test_confusion_by_hand():
    inferred = np.array([[[0, 1], [2, 0]], [[0, 1], [1, 0]]], np.uint8)
    true = np.array([[[0, 0], [2, 0]], [[0, 1], [0, 0]]], np.uint8)
    assert metrics.confusion(inferred, true).tolist() == [[0, 0, 0], [2, 1, 0], [0, 0, 1]]
    assert metrics.confusion(inferred, true, types=4).shape == (4, 4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), types=st.integers(1, 4), systems=st.integers(1, 4), entities=st.integers(2, 4))
def test_accuracy_is_the_best_over_all_permutations(seed, types, systems, entities):
    inferred = random_graphs(seed, systems, entities, types)
    true = random_graphs(seed + 1, systems, entities, types)
    shares = [
        np.mean([order[inferred[s, i, j]] == true[s, i, j] for s in range(systems) for i, j in pairs(entities)])
        for order in itertools.permutations(range(types))
    ]
    accuracy, relabelling = metrics.edge_accuracy(torch.from_numpy(inferred), torch.from_numpy(true), types)
    assert accuracy == pytest.approx(max(shares), abs=1e-12)
    assert sorted(relabelling.tolist()) == list(range(types))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(4)))
def test_a_renamed_truth_is_fully_right(seed, order):
    true = random_graphs(seed, 6, 5, 4)
    inferred = np.array(order, np.uint8)[true]
    accuracy, relabelling = metrics.edge_accuracy(inferred, true, types=4)
    assert accuracy == 1.0
    off_diagonal = ~np.eye(5, dtype=bool)
    assert np.array_equal(relabelling[inferred][:, off_diagonal], true[:, off_diagonal])


def test_one_relabelling_for_the_whole_set_not_one_a_system():
    true = np.array([[[0, 1], [0, 0]], [[0, 1], [0, 0]]], np.uint8)
    inferred = np.array([[[0, 1], [0, 0]], [[0, 0], [1, 0]]], np.uint8)  # the second has its types exchanged
    assert metrics.edge_accuracy(inferred, true)[0] == 0.5


def test_more_inferred_types_than_true_ones():
    true = np.array([[[0, 0, 0], [1, 0, 1], [1, 1, 0]]], np.uint8)
    inferred = np.array([[[0, 2, 2], [0, 0, 0], [0, 1, 0]]], np.uint8)  # type 1 splits off true type 1
    accuracy, relabelling = metrics.edge_accuracy(inferred, true, types=3)
    assert accuracy == pytest.approx(5 / 6)
    assert relabelling.tolist() == [1, 2, 0]


def test_the_diagonal_does_not_matter():
    true, inferred = random_graphs(1, 3, 4, 2), random_graphs(2, 3, 4, 2)
    before = metrics.edge_accuracy(inferred, true, 2)[0]
    inferred[:, np.arange(4), np.arange(4)] = 1
    assert metrics.edge_accuracy(inferred, true, 2)[0] == before


def test_no_edges_have_no_accuracy():
    one_entity = np.zeros((3, 1, 1), np.uint8)
    assert math.isnan(metrics.edge_accuracy(one_entity, one_entity, 2)[0])
    assert math.isnan(metrics.edge_auroc(np.zeros((3, 1, 1, 2)), one_entity))


def test_accuracy_refuses_what_does_not_fit():
    good = np.zeros((2, 3, 3), np.uint8)
    bad = good.copy()
    bad[1, 2, 0] = 2
    with pytest.raises(ValueError, match=r"inferred: .*got 2 in system 1, edge 2 -> 0"):
        metrics.edge_accuracy(bad, good, types=2)
    with pytest.raises(ValueError, match="expected the shape of true"):
        metrics.edge_accuracy(good[:1], good)
    with pytest.raises(ValueError, match=r"\[systems, entities, entities\]"):
        metrics.edge_accuracy(good[0], good[0])
    with pytest.raises(TypeError, match="integer types"):
        metrics.edge_accuracy(good.astype(float), good)


def slow_auroc(scores, positive):
    """Probability that a positive beats a negative, ties counting half: the definition."""
    wins = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(wins))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.integers(1, 20), types=st.integers(2, 4))
def test_auroc_is_the_probability_of_the_right_order(seed, levels, types):
    random = np.random.default_rng(seed)
    true = random_graphs(seed, 3, 4, types)
    probability = random.integers(0, levels, size=(3, 4, 4, types)) / levels  # few levels: many ties
    order = random.permutation(types)
    off_diagonal = ~np.eye(4, dtype=bool)
    labels = true[:, off_diagonal].ravel()
    renamed = probability[..., np.argsort(order)][:, off_diagonal].reshape(-1, types)
    wanted = [1] if types == 2 else np.unique(labels)
    if len(np.unique(labels)) < 2:
        assert math.isnan(metrics.edge_auroc(probability, true, order))
    else:
        expected = np.mean([slow_auroc(renamed[:, c], labels == c) for c in wanted])
        assert metrics.edge_auroc(probability, true, order) == pytest.approx(expected, abs=1e-12)


def test_auroc_by_hand():
    true = np.array([[[0, 1, 0], [1, 0, 0], [0, 1, 0]]], np.uint8)
    p = np.array([[[0, 0.9, 0.2], [0.8, 0, 0.8], [0.1, 0.7, 0]]])
    probability = np.stack([1 - p, p], axis=-1)
    # positives .9 .8 .7 against negatives .2 .8 .1: 9 pairs, 0.7 < 0.8 lost, 0.8 = 0.8 half
    assert metrics.edge_auroc(probability, true) == pytest.approx(7.5 / 9)
    assert metrics.edge_auroc(probability, true, [1, 0]) == pytest.approx(1.5 / 9)


def test_auroc_refuses_what_does_not_fit():
    true = np.array([[[0, 1], [0, 0]]], np.uint8)
    probability = np.full((1, 2, 2, 2), 0.5)
    with pytest.raises(ValueError, match="permutation"):
        metrics.edge_auroc(probability, true, [0, 0])
    with pytest.raises(ValueError, match="got shape"):
        metrics.edge_auroc(probability[..., 0], true)
    probability[0, 0, 1, 0] = np.nan
    with pytest.raises(ValueError, match="got NaN"):
        metrics.edge_auroc(probability, true)


def test_forecast_errors_by_hand():
    recorded = torch.zeros(2, 3, 1, 2)
    predicted = recorded.clone()
    predicted[0, 0, 0, 1] = 2.0  # one of four entries off by 2 at horizon 1
    predicted[:, 2] = 3.0
    errors = metrics.forecast_errors(predicted, recorded, horizons=(1, 2, 3, 4))
    assert errors[1] == 1.0
    assert errors[2] == 0.0
    assert errors[3] == 9.0
    assert math.isnan(errors[4])  # not recorded
    predicted[0, 1, 0, 0] = float("nan")
    assert math.isnan(metrics.forecast_errors(predicted, recorded, horizons=(2,))[2])
    with pytest.raises(ValueError, match="beside"):
        metrics.forecast_errors(predicted[:, :2], recorded)
    with pytest.raises(ValueError, match="horizons"):
        metrics.forecast_errors(predicted, recorded, horizons=(0,))


def test_nothing_moves():
    states = torch.arange(12.0).reshape(1, 6, 1, 2)
    assert metrics.nothing_moves(states, 2, 3).tolist() == [[[[4.0, 5.0]]] * 3]
    with pytest.raises(ValueError, match="start: expected 0 to 5, got 6"):
        metrics.nothing_moves(states, 6, 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), start=st.integers(0, 3))
def test_constant_velocity_is_exact_for_straight_lines(seed, start):
    """Whatever linear map the features went through, as a normalisation is one."""
    random = np.random.default_rng(seed)
    velocity = torch.from_numpy(random.normal(size=(4, 1, 3, 2)))
    begin = torch.from_numpy(random.normal(size=(4, 1, 3, 2)))
    time = torch.arange(8.0, dtype=torch.float64)[None, :, None, None]
    position = begin + 0.1 * time * velocity
    states = torch.cat([0.3 * position - 0.2, 0.7 * velocity.expand_as(position) + 0.4], dim=-1)
    forecast = metrics.constant_velocity(states, start, 4, ("x", "y", "vx", "vy"))
    torch.testing.assert_close(forecast, states[:, start + 1 : start + 5], rtol=0, atol=1e-10)


def test_constant_velocity_without_recorded_rates_repeats_the_last_displacement():
    states = torch.tensor([0.0, 1.0, 3.0, 100.0]).reshape(1, 4, 1, 1)
    assert metrics.constant_velocity(states, 2, 2, ("x",)).flatten().tolist() == [5.0, 7.0]
    assert metrics.constant_velocity(states, 0, 2, ("x",)).flatten().tolist() == [0.0, 0.0]  # no displacement yet


def test_constant_velocity_uses_the_fit_it_is_given():
    states = torch.tensor([[1.0, 2.0], [5.0, 4.0]]).reshape(1, 2, 1, 2)
    forecast = metrics.constant_velocity(states, 0, 2, ("phi", "dphi"), fit={"phi": (0.5, 0.25)})
    assert forecast.reshape(2, 2).tolist() == [[2.25, 2.0], [3.5, 2.0]]
    with pytest.raises(ValueError, match="expected 2 names, got 1"):
        metrics.constant_velocity(states, 0, 2, ("phi",))


def test_displacement_fit_of_a_single_step_is_still():
    assert metrics.displacement_fit(torch.ones(2, 1, 3, 2), ("x", "vx")) == {"x": (0.0, 0.0)}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), types=st.integers(1, 4), systems=st.integers(1, 4), entities=st.integers(1, 4))
def test_node_accuracy_is_the_best_over_all_permutations(seed, types, systems, entities):
    random = np.random.default_rng(seed)
    inferred, true = random.integers(types, size=(2, systems, entities))
    shares = [np.mean(np.array(order)[inferred] == true) for order in itertools.permutations(range(types))]
    accuracy, relabelling = metrics.node_accuracy(torch.from_numpy(inferred), true, types)
    assert accuracy == pytest.approx(max(shares), abs=1e-12)
    assert np.mean(relabelling[inferred] == true) == pytest.approx(accuracy)


def test_node_accuracy_refuses_what_does_not_fit():
    good = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="expected the shape of true"):
        metrics.node_accuracy(good[:1], good)
    with pytest.raises(TypeError, match="true: expected integer types"):
        metrics.node_accuracy(good, good.astype(float))
    with pytest.raises(ValueError, match="inferred: expected types from 0 to 1, got 0 to 2"):
        metrics.node_accuracy(good + np.array([0, 1, 2]), good, types=2)
    assert math.isnan(metrics.node_accuracy(good[:0], good[:0])[0])
