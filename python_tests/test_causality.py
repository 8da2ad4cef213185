"""Lagged correlation and Granger causality on series whose graph is known."""

import numpy as np
import pytest

from nri_fast.causality import granger_causality, lagged_correlation


def autoregression(steps=600, entities=4, seed=1):
    """Entity 0 wanders; each other one follows the entity before it, one step late."""
    random = np.random.default_rng(seed)
    values = np.zeros((steps, entities))
    for t in range(1, steps):
        values[t] = 0.5 * values[t - 1] + random.normal(size=entities)
        values[t, 1:] += 0.8 * values[t - 1, :-1]
    return values


CHAIN = np.eye(4, k=1, dtype=bool)


@pytest.mark.parametrize("conditional", [False, True])
def test_granger_finds_the_chain(conditional):
    scores = granger_causality(autoregression(), 1, conditional)
    off = ~np.eye(4, dtype=bool)
    assert scores[CHAIN].min() > (3 if conditional else 1) * scores[off & ~CHAIN].max()
    assert not scores.diagonal().any()


def test_only_conditioning_tells_a_cause_from_a_cause_of_it():
    series = autoregression()
    assert granger_causality(series, 2)[0, 2] > 0.05
    assert granger_causality(series, 2, conditional=True)[0, 2] < 0.02


def test_granger_is_the_ratio_of_residual_variances():
    series = autoregression(50, 2)
    past, now = series[:-1], series[1:, 1]
    residuals = []
    for columns in ([1], [0, 1]):
        design = np.column_stack([past[:, columns], np.ones(49)])
        residuals.append(np.linalg.lstsq(design, now, rcond=None)[1][0])
    assert granger_causality(series, 1)[0, 1] == pytest.approx(np.log(residuals[0] / residuals[1]))


def test_correlation_finds_delay_and_direction():
    random = np.random.default_rng(0)
    leader = random.normal(size=200)
    series = np.stack([leader, np.roll(leader, 3)], axis=1)[5:]
    scores = lagged_correlation(series, 4)
    assert scores[0, 1] == pytest.approx(1.0)
    assert abs(scores[1, 0]) < 0.25
    assert lagged_correlation(series, 2)[0, 1] < 0.25  # the delay is longer


def test_series_that_do_not_change_or_are_short():
    still = np.stack([np.ones(20), np.arange(20.0)], axis=1)
    assert lagged_correlation(still, 3)[0, 1] == 0
    assert granger_causality(still, 1)[0, 1] == 0
    assert not granger_causality(np.random.default_rng(0).normal(size=(5, 3)), 4).any()


def test_refusals():
    series = autoregression(10)
    with pytest.raises(ValueError, match="lags: expected at least 1, got 0"):
        lagged_correlation(series, 0)
    with pytest.raises(ValueError, match="order: expected at least 1, got 0"):
        granger_causality(series, 0)
    with pytest.raises(ValueError, match="at least 4 steps, got shape"):
        granger_causality(series[:3], 1)
    series[4, 2] = np.nan
    with pytest.raises(ValueError, match="got nan at step 4, entity 2"):
        lagged_correlation(series, 1)
