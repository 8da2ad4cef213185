"""Who acts on whom by time series alone, without a model of the law: what inferred graphs are compared with.

Series are [steps, entities], one number an entity and step; scores are [entities, entities], larger where entity i
seems to act on entity j (row i, column j); their diagonals are zero and mean nothing.
"""

from __future__ import annotations

import numpy as np

from nri_fast.metrics import Array

ROUNDING = 1e-24  # of a sum of squares, relative


def lagged_correlation(series: Array, lags: int) -> Array:
    """The largest correlation of one entity's past with another's present, over 1 to `lags` steps.

    Parameters
    ----------
    series : ndarray, [steps, entities]
    lags : int
        Longest delay in steps, at least 1; shortened where the series is shorter than that by less than three steps.

    Returns
    -------
    ndarray, float64, [entities, entities]
        Of a series that does not change the correlation is 0.

    Raises
    ------
    ValueError
        Fewer than four steps, numbers that are not finite, or no lag.
    """
    values = _checked(series)
    if lags < 1:
        raise ValueError(f"lags: expected at least 1, got {lags}")
    entities = values.shape[1]
    best = np.full((entities, entities), -1.0)
    for lag in range(1, min(lags, len(values) - 3) + 1):
        past, present = _standardised(values[:-lag]), _standardised(values[lag:])
        best = np.maximum(best, past.T @ present / len(past))
    np.fill_diagonal(best, 0.0)
    return best


def granger_causality(series: Array, order: int, conditional: bool = False) -> Array:
    """Granger causality: how much entity i's past improves the linear prediction of entity j.

    The logarithm of the residual variance of j's autoregression over that of the same with i's past added, by least
    squares with a constant (C. W. J. Granger, Econometrica 37, 1969; the measure is that of J. Geweke, 1982).

    Parameters
    ----------
    series : ndarray, [steps, entities]
    order : int
        Past steps that predict, at least 1.
    conditional : bool
        Both predictions know the past of all other entities, too.

    Returns
    -------
    ndarray, float64, [entities, entities]
        Zero where the series is too short for the regression, or perfectly predicted without i.

    Raises
    ------
    ValueError
        Fewer than four steps, numbers that are not finite, or no order.
    """
    values = _checked(series)
    if order < 1:
        raise ValueError(f"order: expected at least 1, got {order}")
    steps, entities = values.shape
    scores = np.zeros((entities, entities))
    if steps <= order:
        return scores
    past = np.stack([values[order - lag : steps - lag] for lag in range(1, order + 1)], axis=-1)  # [rows, N, order]
    everyone = set(range(entities))
    for j in range(entities):
        for i in everyone - {j}:
            known = sorted(everyone - {i}) if conditional else [j]
            without = _residual(past[:, known], values[order:, j])
            added = _residual(past[:, [*known, i]], values[order:, j])
            if without > 0 and added > 0:
                scores[i, j] = np.log(without / added)
    return scores


def _residual(past: Array, present: Array) -> float:
    """Sum of squared errors; zero where there are no more rows than coefficients, and where only rounding is left."""
    design = np.concatenate([past.reshape(len(past), -1), np.ones((len(past), 1))], axis=1)
    if len(design) <= design.shape[1]:
        return 0.0
    coefficients = np.linalg.lstsq(design, present, rcond=None)[0]
    error = float(np.sum((present - design @ coefficients) ** 2))
    return error if error > ROUNDING * float(np.sum(present**2)) else 0.0


def _standardised(values: Array) -> Array:
    centred = values - values.mean(0)
    spread = centred.std(0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def _checked(series: Array) -> Array:
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 2 or len(values) < 4:
        raise ValueError(f"series: expected [steps, entities] with at least 4 steps, got shape {list(values.shape)}")
    if not np.isfinite(values).all():
        step, entity = (int(k) for k in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"series: expected finite numbers, got {values[step, entity]} at step {step}, entity {entity}")
    return values
