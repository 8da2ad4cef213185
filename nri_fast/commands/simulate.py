"""The command ``nri-fast simulate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from nri_fast.commands.arguments import refuse_existing

if TYPE_CHECKING:
    import torch

    from nri_fast.trajectory_data import TrajectoryData

PIECE = 500  # systems simulated between two updates of the progress bar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate:
    """Simulate systems with random graphs and write them, true graphs included, as NRI's .npy files."""

    kind: tyro.conf.Positional[
        Literal["springs", "charged", "kuramoto", "springs3", "springs_mass", "kuramoto_directed"]
    ]
    """Springs between some pairs, charges that attract or repel, or coupled phase oscillators; springs3: no, weak or
    strong springs; springs_mass: light and heavy bodies; kuramoto_directed: who acts is not always acted upon."""
    systems: int
    """How many systems to simulate."""
    out: Path
    """Folder for the files (or one FILE.npz). Files that are there already are never overwritten."""
    entities: int = 5
    """Entities (bodies, oscillators) of each system."""
    steps: int = 49
    """Recorded steps; one step is 0.1 time units."""
    seed: int = 0
    """Names the random numbers: the same seed gives the same systems, bit for bit."""
    split: Literal["train", "valid", "test"] = "train"
    """Which split to write. No seed repeats a system of another split."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise added to every recorded number, in the feature's units."""
    noise_share: float = 0.0
    """The same as a share of the spread of positions, of velocities, and of any other feature: 0.01 for 1 %."""

    def run(self) -> None:
        """Simulates and writes."""
        from tqdm import tqdm

        from nri_fast.formats import save_trajectories
        from nri_fast.simulate import data_name, simulate

        # Said now, and not after minutes of work.
        name = data_name(self.kind, self.entities)
        there = [self.out] if self.out.suffix == ".npz" else self.out.glob(f"*_{self.split}_{name}.*")
        for file in there:
            refuse_existing(file)
        pieces = []
        with tqdm(total=self.systems, desc="simulating", unit="system", disable=None) as bar:
            # Where no systems are asked for there is one call, which says what is wrong.
            for first in range(0, self.systems, PIECE) or [0]:
                count = min(PIECE, self.systems - first)
                pieces.append(
                    simulate(
                        self.kind,
                        count,
                        self.entities,
                        self.steps,
                        self.seed,
                        self.split,
                        first_system=first,
                        noise=self.noise,
                        noise_share=self.noise_share,
                    )
                )
                bar.update(count)
        data = _joined(pieces)
        for file in save_trajectories(data, self.out):
            print(file)
        features = ", ".join(data.feature_names)
        print(f"{data.systems} systems of {data.entities} entities, {data.steps} steps, features {features}")


EXAMPLES: dict[type, str] = {
    Simulate: """
examples:
  nri-fast simulate springs --systems 100 --out data
  nri-fast simulate springs --systems 200 --split test --out data""",
}


def _joined(pieces: list[TrajectoryData]) -> TrajectoryData:
    import torch

    def together(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
        there = [part for part in parts if part is not None]
        return torch.cat(there) if there else None

    return dataclasses.replace(
        pieces[0],
        states=torch.cat([piece.states for piece in pieces]),
        edges=together([piece.edges for piece in pieces]),
        node_types=together([piece.node_types for piece in pieces]),
    )
