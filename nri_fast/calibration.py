"""Are edges that get a probability of 90 % right nine times out of ten? Reliability and expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nri_fast.metrics import Array, ArrayLike, check_probability, off_diagonal

BINS = 20


@dataclass(frozen=True)
class Reliability:
    """Edges by how sure their likeliest type is.

    Attributes
    ----------
    edge : ndarray, float64, [bins + 1]
        Limits of the bins: equally wide from 0 to 1, the upper limit belongs to the bin above it.
    count : ndarray, int64, [bins]
        Edges in each bin.
    confidence : ndarray, float64, [bins]
        Mean probability of the likeliest type; NaN in empty bins.
    right : ndarray, float64, [bins]
        Share whose likeliest type is the true one; NaN in empty bins.
    """

    edge: Array
    count: Array
    confidence: Array
    right: Array

    @property
    def error(self) -> float:
        """Expected calibration error: mean over edges of their bin's abs(confidence - right); NaN without edges.

        Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), equation 3.
        """
        total = int(self.count.sum())
        if total == 0:
            return float("nan")
        gap = np.abs(self.confidence - self.right)
        return float((np.where(self.count > 0, gap, 0.0) * self.count).sum() / total)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; None in empty bins."""
        values = {"confidence": self.confidence, "right": self.right}
        plain = {n: [None if np.isnan(v) else float(v) for v in values[n]] for n in values}
        return {"edge": self.edge.tolist(), "count": self.count.tolist(), **plain}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Reliability:
        """The inverse of :meth:`to_dict`."""
        numbers = {n: np.array(values[n], dtype=np.float64) for n in ("edge", "confidence", "right")}
        return cls(count=np.array(values["count"], dtype=np.int64), **numbers)


def reliability(
    probability: ArrayLike,
    true: ArrayLike,
    relabelling: ArrayLike | Sequence[int] | None = None,
    bins: int = BINS,
    sizes: ArrayLike | None = None,
) -> Reliability:
    """Sorts edges by the probability of their likeliest type, and counts how many are right.

    Parameters
    ----------
    probability : float array or tensor, [systems, entities, entities, K]
        Probability of each inferred type.
    true : integer array or tensor, [systems, entities, entities]
    relabelling : int array, [K], optional
        Inferred type k means true type ``relabelling[k]`` (see :func:`nri_fast.metrics.edge_accuracy`); identity by
        default.
    bins : int, >= 1
    sizes : int array or tensor, [systems], optional
        Numbers of entities, where systems differ in size; what lies behind is not counted.

    Returns
    -------
    Reliability

    Raises
    ------
    TypeError, ValueError
        Shapes that do not fit, a true type out of range, a relabelling that is no permutation, NaN probabilities or
        such that are no probabilities.
    """
    probability, true, order = check_probability(probability, true, relabelling)
    if bins < 1:
        raise ValueError(f"bins: expected 1 or more, got {bins}")
    scores, labels = off_diagonal(probability, sizes).astype(np.float64), off_diagonal(true, sizes)
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1 + 1e-6):
        raise ValueError(f"probability: expected numbers from 0 to 1, got {scores.min()} to {scores.max()}")
    sure = scores.max(1, initial=0.0)
    right = order[scores.argmax(1)] == labels
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, sure, bins) / count
        share = np.bincount(place, right, bins) / count
    return Reliability(np.linspace(0, 1, bins + 1), count, confidence, share)


def expected_calibration_error(
    probability: ArrayLike,
    true: ArrayLike,
    relabelling: ArrayLike | Sequence[int] | None = None,
    bins: int = BINS,
    sizes: ArrayLike | None = None,
) -> float:
    """Mean over edges of the gap between how sure they are and how often edges as sure as they are right.

    Parameters and errors are those of :func:`reliability`; NaN if there is no edge.
    """
    return reliability(probability, true, relabelling, bins, sizes).error
