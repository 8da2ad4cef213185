"""Which graphs have the same shape: a number that is equal for isomorphic graphs, and for no others."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from nri_fast.metrics import Array

MOST_ENTITIES = 7  # 5,040 orders of the entities


def graph_shapes(adjacency: torch.Tensor) -> Array:
    """Canonical form of each graph: the smallest number that its adjacency reads as, over all orders of its entities.

    Parameters
    ----------
    adjacency : integer Tensor, [systems, N, N]
        Types of edges, diagonal 0.

    Returns
    -------
    ndarray of int (Python's, of any length), [systems]
        Equal where one graph becomes the other by renumbering its entities.

    Raises
    ------
    ValueError
        More than 7 entities: all orders are tried.
    """
    entities = adjacency.shape[1]
    if entities > MOST_ENTITIES:
        raise ValueError(f"adjacency: expected up to {MOST_ENTITIES} entities, got {entities}")
    graphs, inverse = np.unique(adjacency.cpu().numpy().reshape(len(adjacency), -1), axis=0, return_inverse=True)
    types = int(graphs.max(initial=0)) + 1
    orders = np.array(list(itertools.permutations(range(entities))))
    places = (orders[:, :, None] * entities + orders[:, None, :]).reshape(len(orders), -1)
    value = np.array([types**k for k in range(entities * entities)], dtype=object)
    shapes = [min(renumbered @ value for renumbered in np.unique(graph[places], axis=0)) for graph in graphs]
    return np.array(shapes, dtype=object)[inverse.ravel()]
