"""What all pictures share: colours, type sizes, plain axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]
ArrayLike = Array | torch.Tensor

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SILENT_COLOUR = "#B8B8B8"
WRONG_COLOUR = "#D00000"
INK = "#333333"
PANEL = 2.5  # inches

TEXT: dict[str, Any] = {"fontsize": 11, "color": INK}


def as_array(values: ArrayLike) -> Array:
    """An array, wherever the values are."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def sizes_of(entities: int, systems: int, sizes: ArrayLike | None) -> list[int]:
    """Numbers of entities to draw of each system: all of them, where no sizes are given.

    Raises
    ------
    ValueError
        They are not one a system, or not from 0 to `entities`.
    """
    if sizes is None:
        return [entities] * systems
    there = [int(n) for n in as_array(sizes)]
    if len(there) != systems or not all(0 <= n <= entities for n in there):
        raise ValueError(f"sizes: expected {systems} numbers from 0 to {entities}, got {there}")
    return there


def type_colour(kind: int, silent: int | None) -> str:
    """Of an edge type; one that means "no interaction" is grey."""
    return SILENT_COLOUR if kind == silent else COLOURS[kind % len(COLOURS)]


def plain(axes: Axes) -> None:
    """Two spines, a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    axes.grid(True, color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
