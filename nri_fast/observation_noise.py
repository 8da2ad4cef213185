"""How noisy each feature is recorded, read off the recordings themselves, and how much weight it has therefore."""

from __future__ import annotations

import torch
from torch import Tensor

SYSTEMS = 1000  # to look at
LEAST_SHARE = 1e-3  # of a step's change; less noise makes no difference between features
MEDIAN_OF_NORMAL = 0.6745  # of its absolute value, in standard deviations
THIRD_DIFFERENCE = 20.0  # variance of the third difference of white noise of variance one: 1 + 9 + 9 + 1


def noise_share(states: Tensor, present: Tensor | None = None) -> Tensor:
    """[D] float64: what share of the variance of one step's change is noise of the recording.

    Motion is smooth from step to step, and noise is not: third differences of positions that follow each other hold
    little but noise. Their median says how much, whatever a few collisions do. A change has the noise of both its ends.

    Parameters
    ----------
    states : Tensor
        [S, T, N, D].
    present : Tensor, optional
        [S, T, N] bool: what of them was recorded; everything by default.

    Returns
    -------
    Tensor
        Between 0 and 1. Zeros where recordings are too short to tell, with fewer than four steps, or never change.
    """
    chosen = torch.linspace(0, len(states) - 1, min(SYSTEMS, len(states))).long()
    values = states[chosen].double()
    there = torch.ones(values.shape[:3], dtype=torch.bool) if present is None else present[chosen]
    there = there.to(values.device)
    third, enough = values.diff(n=3, dim=1), there.unfold(1, 4, 1).all(-1) if values.shape[1] > 3 else there[:, :0]
    change, both = values.diff(dim=1), there[:, 1:] & there[:, :-1]
    shares = torch.zeros(values.shape[-1], dtype=torch.float64)
    if not bool(enough.any()):
        return shares
    deviation = third[enough].abs().median(0).values / MEDIAN_OF_NORMAL
    noise, variance = 2 * deviation**2 / THIRD_DIFFERENCE, change[both].var(0, correction=0)
    return torch.where(variance > 0, noise / variance, 0.0).clamp(max=1.0).cpu()


def feature_weights(shares: Tensor) -> tuple[float, ...]:
    """Weights of features in the error that judges structures, with mean one.

    A feature that is recorded with more noise says less about who acts on whom, and would drown the others in the sum
    of their errors: its weight falls with the square of its share of noise. Where noise hardly matters, all weigh
    alike.

    Parameters
    ----------
    shares : Tensor
        [F] of :func:`noise_share`.
    """
    weights = (shares + LEAST_SHARE) ** -2
    return tuple((weights / weights.mean()).tolist())
