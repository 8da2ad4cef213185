"""Reliability and expected calibration error against hand-computed cases and a slow definition."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import nri_fast as nf
from nri_fast.calibration import Reliability, expected_calibration_error, reliability


def graph(*off_diagonal):
    """One system of two entities: its two edges."""
    return np.array([[[0, off_diagonal[0]], [off_diagonal[1], 0]]])


def probabilities(first, second):
    """Of type 1 on the two edges; the diagonal must not matter."""
    table = np.full((1, 2, 2, 2), np.nan)
    table[0, 0, 1], table[0, 1, 0] = (1 - first, first), (1 - second, second)
    table[0, [0, 1], [0, 1]] = 0
    return table


def test_by_hand():
    table = reliability(probabilities(0.92, 0.7), graph(1, 1), bins=10)
    assert table.count.tolist() == [0] * 7 + [1, 0, 1]
    assert table.right[[7, 9]].tolist() == [1, 1]
    assert table.error == pytest.approx((0.08 + 0.3) / 2)
    table = reliability(probabilities(0.92, 0.08), graph(1, 1), bins=10)  # equally sure, one wrong
    assert table.right[9] == 0.5
    assert table.error == pytest.approx(0.42)


def test_types_have_the_names_of_the_truth():
    wrong = expected_calibration_error(probabilities(0.9, 0.9), graph(0, 0))
    right = expected_calibration_error(probabilities(0.9, 0.9), graph(0, 0), [1, 0])
    assert (wrong, right) == (pytest.approx(0.9), pytest.approx(0.1))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), types=st.integers(2, 4), bins=st.integers(1, 12))
def test_slow_definition(seed, types, bins):
    random = np.random.default_rng(seed)
    true = random.integers(types, size=(3, 4, 4))
    probability = random.dirichlet([0.3] * types, size=(3, 4, 4))
    order = random.permutation(types)
    cells: dict[int, list[tuple[float, bool]]] = {}
    for s, i, j in np.ndindex(3, 4, 4):
        if i != j:
            sure = probability[s, i, j].max()
            is_right = order[probability[s, i, j].argmax()] == true[s, i, j]
            cells.setdefault(min(int(sure * bins), bins - 1), []).append((sure, is_right))
    gaps = [len(cell) * abs(np.mean([a for a, _ in cell]) - np.mean([b for _, b in cell])) for cell in cells.values()]
    found = reliability(torch.from_numpy(probability), torch.from_numpy(true), order, bins)
    assert found.error == pytest.approx(sum(gaps) / 36, abs=1e-12)
    assert found.count.sum() == 36


def test_probabilities_that_mean_what_they_say_have_no_error():
    random = np.random.default_rng(2)
    one = random.uniform(size=(2000, 3, 3))
    probability = np.stack([1 - one, one], -1)
    true = (random.uniform(size=one.shape) < one).astype(int)
    # A bin's gap has a standard deviation of at most 0.5 / sqrt(edges in it), and a mean of 0.8 of that.
    assert expected_calibration_error(probability, true) < 2 * 0.5 * math.sqrt(10 / (2000 * 6))
    overconfident = probability**3 / (probability**3).sum(-1, keepdims=True)
    assert expected_calibration_error(overconfident, true) > 0.08


def test_no_edges():
    table = reliability(np.zeros((2, 1, 1, 2)), np.zeros((2, 1, 1), int))
    assert math.isnan(table.error)
    assert Reliability.from_dict(table.to_dict()).to_dict() == table.to_dict()


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="probability: expected numbers from 0 to 1"):
        reliability(probabilities(1.5, 0.1), graph(0, 0))
    with pytest.raises(ValueError, match="got NaN on an edge"):
        reliability(probabilities(float("nan"), 0.1), graph(0, 0))
    with pytest.raises(ValueError, match="bins: expected 1 or more, got 0"):
        reliability(probabilities(0.5, 0.1), graph(0, 0), bins=0)


def test_evaluation_reports_both_kinds_of_types():
    data = nf.simulate("springs_mass", 6, entities=3, steps=12)
    tiny = nf.Settings(node_types=2, steps=2, message=4, edge_hidden=(5,), node_hidden=(6,))
    run = nf.train(data, settings=tiny, progress=False)
    found = nf.infer(run, data)
    figures = nf.evaluate(run, data, found)
    expected = expected_calibration_error(found.probability, data.edges, figures["relabelling"])
    assert figures["edge_ece"] == pytest.approx(expected, abs=1e-12)
    right = float((found.node_types == data.node_types).double().mean())
    assert figures["node_accuracy"] == pytest.approx(max(right, 1 - right))
    nothing = nf.evaluate(run, nf.TrajectoryData(data.states, None, data.feature_names), found)
    assert nothing["edge_ece"] is None
    assert nothing["node_accuracy"] is None
