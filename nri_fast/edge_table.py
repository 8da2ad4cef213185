"""Inferred edges as rows: who acts on whom, by the names that the data give them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import torch

from nri_fast.infer import Inference
from nri_fast.trajectory_data import TrajectoryData

COLUMNS = ("system", "recording", "first_step", "sender", "receiver", "type", "probability")


def edge_rows(
    found: Inference, data: TrajectoryData, systems: torch.Tensor | None = None
) -> Iterator[tuple[int, str, int, str, str, int, float]]:
    """One row for every ordered pair of entities, as :data:`COLUMNS` names them; with neighbour lists, for candidates.

    Parameters
    ----------
    found : Inference
    data : TrajectoryData
        What it was inferred from: gives names of recordings and entities, where it has an origin.
    systems : Tensor, int64, [systems], optional
        Numbers of the systems; by default 0, 1, ...

    Yields
    ------
    tuple
        `type` is the likeliest one and `probability` its probability.
    """
    sure = found.probability.max(-1).values.tolist()
    types = found.adjacency.tolist()
    near = None if found.candidates is None else found.candidates.tolist()
    sizes = [data.entities] * data.systems if data.sizes is None else data.sizes.tolist()
    numbers = range(data.systems) if systems is None else systems.tolist()
    for s, (number, n) in enumerate(zip(numbers, sizes, strict=True)):
        names, recording, first = [str(i) for i in range(n)], "", 0
        if data.origin is not None:
            names = data.origin.entity_names[s].tolist()
            recording = data.origin.recording_names[int(data.origin.recording[s])]
            first = int(data.origin.first_step[s])
        for i in range(n):
            for j in range(n):
                if i != j and (near is None or near[s][i][j]):
                    yield number, recording, first, names[i], names[j], types[s][i][j], sure[s][i][j]


def edge_table(found: Inference, data: TrajectoryData, systems: torch.Tensor | None = None) -> str:
    """The rows of :func:`edge_rows` as CSV text with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((*row[:-1], f"{row[-1]:.6g}") for row in edge_rows(found, data, systems))
    return text.getvalue()
