"""What a search for unseen entities looks at: frames and entities of recordings with holes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast.trajectory_data import TrajectoryData

LEAST_FRAMES = 3


@dataclass(frozen=True)
class View:
    """Systems that are looked at in the same frames, and of which as many entities are there.

    Attributes
    ----------
    systems : Tensor
        [S] int64: their places.
    entities : Tensor
        [S, n] int64: of each, the entities that are there in any of the frames.
    first, end : int
        Frames: the first one, and the first after the last.
    """

    systems: Tensor
    entities: Tensor
    first: int
    end: int

    def of(self, systems: Tensor) -> View:
        """Of some of the systems."""
        return dataclasses.replace(self, systems=systems, entities=self.entities[torch.isin(self.systems, systems)])

    def cut(self, values: Tensor) -> Tensor:
        """[S, frames, n, ...] of values [systems, steps, N, ...]."""
        steps = torch.arange(self.first, self.end, device=values.device)[:, None]
        systems, entities = (places.to(values.device) for places in (self.systems, self.entities))
        return values[systems[:, None, None], steps, entities[:, None]]

    def cut_present(self, present: Tensor | None) -> Tensor | None:
        """The same of a mask; None where nothing is absent."""
        flags = None if present is None else self.cut(present)
        return None if flags is None or bool(flags.all()) else flags


def views(seen: TrajectoryData) -> Iterator[View]:
    """All systems, those that are looked at alike together.

    An open loop knows an entity only if it is there where the loop starts. It starts where it is compared with most
    recorded states (the first such frame, at least 3 before the end), and ends with the recording.

    Raises
    ------
    ValueError
        For a system without 3 frames, or with nobody to compare.
    """
    alike: dict[tuple[int, int, int], list[tuple[int, Tensor]]] = {}
    for system, there in enumerate(seen.there):
        end = int(there.any(1).nonzero()[-1]) + 1 if bool(there.any()) else 0
        first = _start(there[:end]) if end >= LEAST_FRAMES else None
        if first is None:
            raise ValueError(
                f"seen: system {system}: expected an entity that is there at a frame and after it, of at least "
                f"{LEAST_FRAMES} up to the end, got none"
            )
        entities = there[first:end].any(0).nonzero().flatten()
        alike.setdefault((len(entities), first, end), []).append((system, entities))
    for (_, first, end), members in alike.items():
        systems = torch.tensor([system for system, _ in members])
        yield View(systems, torch.stack([entities for _, entities in members]), first, end)


def _start(there: Tensor) -> int | None:
    """The frame from which most states [frames, N] are compared; None if none is."""
    later = there.flip(0).cumsum(0).flip(0) - there.long()
    compared = (there * later).sum(1)[: len(there) - LEAST_FRAMES + 1]
    first = int(compared.argmax())
    return first if int(compared[first]) > 0 else None
