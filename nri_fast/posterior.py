"""Bagged posteriors: how sure a recording makes us of a structure, seen through what another one might have said.

Under a structure every transition has a likelihood, and their product would be the evidence, were the modules right and
transitions independent. Neither holds: where the modules err, they err alike for several steps in a row, and the
product is far too sure. The bagged posterior is the mean of the posteriors of bootstrapped recordings,

    p(structure | recording) = 1 / R sum_r p(structure | recording_r),

which takes into account how much the evidence itself varies (Huggins and Miller, "Reproducible model selection using
bagged posteriors", Bayesian Analysis 2023; Bühlmann, "Discussion of Big Bayes Stories and BayesBag", Statistical
Science 2014). A recording is resampled in blocks of successive transitions (Künsch, "The jackknife and the bootstrap
for general stationary observations", Annals of Statistics 1989), about as long as errors are alike, and over all
resamples every block appears equally often (balanced bootstrap: Davison, Hinkley and Schechtman, Biometrika 1986).

No label takes part, and no other system: a system's probabilities depend on its own recording only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

BLOCKS = 12
RESAMPLES = 32


def blocks_of(transitions: int) -> list[Tensor]:
    """Successive transitions in 12 blocks, their lengths as equal as can be; fewer where there are fewer transitions.

    Returns
    -------
    list of Tensor
        int64: first steps of each block's transitions.
    """
    return list(torch.arange(transitions).tensor_split(min(BLOCKS, transitions)))


@functools.cache
def resamples(blocks: int) -> tuple[tuple[int, ...], ...]:
    """How often each block appears in each resample, [32][blocks]: every row and every column has equal sums.

    Always the same draws, so that neither a seed nor other systems show in a system's probabilities.
    """
    order = np.random.Generator(np.random.Philox(key=0)).permutation(np.repeat(np.arange(blocks), RESAMPLES))
    return tuple(tuple(np.bincount(drawn, minlength=blocks).tolist()) for drawn in order.reshape(RESAMPLES, blocks))


def bagged(scores: Sequence[Tensor], lengths: Sequence[int], weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over resamples of the weights that their scores give.

    Parameters
    ----------
    scores : sequence of Tensor
        [rows], one a block: means over the block's transitions.
    lengths : sequence of int
        Transitions in each block.
    weigh : callable
        Mean scores [rows] of a recording -> weights [rows].

    Returns
    -------
    Tensor
        [rows], of the scores' dtype.
    """
    total: Tensor | None = None
    for counts in resamples(len(scores)):
        transitions = sum(count * length for count, length in zip(counts, lengths, strict=True))
        resampled = torch.zeros_like(scores[0], dtype=torch.float64)
        for score, count, length in zip(scores, counts, lengths, strict=True):
            if count:  # an infinite score counts where its block does
                resampled += score.double() * (count * length / transitions)
        weights = weigh(resampled.to(scores[0].dtype)).double()
        total = weights if total is None else total + weights
    assert total is not None
    return (total / RESAMPLES).to(scores[0].dtype)
