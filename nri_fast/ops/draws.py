"""Names of random draws."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Names random draws: the same names give the same numbers on every device and in every batch.

    Attributes
    ----------
    seed : int
        0 to 2^64 - 1.
    step : int
        Which bounce of the run, 0 to 2^32 - 1.
    system_ids : Tensor
        [systems] int64: the systems' places in the whole data set.
    """

    seed: int
    step: int
    system_ids: Tensor
