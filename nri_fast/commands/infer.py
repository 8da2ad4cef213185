"""The commands ``nri-fast infer`` and ``nri-fast evaluate``."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nri_fast.commands.arguments import Searched, refuse_existing, write_new

if TYPE_CHECKING:
    import torch

    from nri_fast.infer import Inference
    from nri_fast.run import Run
    from nri_fast.trajectory_data import TrajectoryData


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infer(Searched):
    """Find who acts on whom, and how, in systems never seen. The run's modules stay as they are."""

    out: Path
    """New file: .npz for the arrays below, or .csv for a table with a row an edge."""

    def run(self) -> None:
        """Infers and writes."""
        from nri_fast.doubts import doubts
        from nri_fast.infer import infer

        refuse_graphs(self.out)
        run, data, systems = self.load()
        found = infer(run, data, progress=True, search=self.search, chains=self.chains)
        print(write_graphs(self.out, run, data, found, systems, self.held_out))
        warn(doubts(run, data, found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Searched):
    """Compare inferred graphs with the true ones, if there are any, and open-loop forecasts with the recordings."""

    json: bool = False
    """Print JSON and nothing else on stdout."""

    def run(self) -> None:
        """Evaluates and prints."""
        from nri_fast.infer import evaluate, infer
        from nri_fast.report import evaluation_table, json_text

        run, data, _ = self.load()
        figures = evaluate(run, data, infer(run, data, progress=True, search=self.search, chains=self.chains))
        print(json_text(figures) if self.json else evaluation_table(figures))


EXAMPLES: dict[type, str] = {
    Infer: """
The arrays, for S systems of N entities and K edge types:
  adjacency    [S, N, N] uint8       A[s, i, j] is the likeliest type of the edge from i to j; diagonal 0
  probability  [S, N, N, K] float32  of each type
  energy       [S] float32           mean squared error of roll-outs, normalised units squared
  node_types   [S, N] uint8          with node_probability [S, N, M], if the run tells entities apart
  systems      [S] int64             with --held-out: each system's place in the data
  sizes        [S] int64             numbers of entities, if they differ; what lies behind them is zero
and, of converted data, entity_names [S, N], recording_names, recording [S], first_step [S], time_step [S].

The table has the columns system, recording, first_step, sender, receiver, type, probability (of that type).

examples:
  nri-fast infer runs/springs data --out graphs.npz
  nri-fast infer runs/springs my_recordings.npz --out graphs.npz
  nri-fast infer runs/ants data --out who_acts_on_whom.csv""",
    Evaluate: """
Edge accuracy is the share of edges whose type is right under the best renaming of the types over the whole set.
Errors stand beside two baselines: "nothing moves" and "constant velocity".

examples:
  nri-fast evaluate runs/springs data
  nri-fast evaluate runs/charged data --held-out --json""",
}


def refuse_graphs(file: Path) -> None:
    """Refuses a file that is there, or one whose name ends in neither .npz nor .csv: said before minutes of work."""
    if file.suffix not in (".npz", ".csv"):
        raise ValueError(f"{file}: expected a name that ends in .npz or .csv")
    refuse_existing(file)


def write_graphs(
    file: Path, run: Run, data: TrajectoryData, found: Inference, systems: torch.Tensor, numbered: bool
) -> str:
    """Writes inferred graphs as arrays or as a table, and says what is in the file.

    With `numbered`, the arrays tell each system's place in the data.
    """
    import numpy as np

    if file.suffix == ".csv":
        from nri_fast.edge_table import edge_table

        write_new(file, edge_table(found, data, systems).encode())
        return f"{file}: one row an edge, {data.systems} systems"
    arrays = {"adjacency": found.adjacency, "probability": found.probability, "energy": found.energy}
    if run.settings.node_types > 1:
        arrays |= {"node_types": found.node_types, "node_probability": found.node_probability}
    if found.candidates is not None:
        arrays["candidates"] = found.candidates
    if numbered:
        arrays["systems"] = systems
    if data.sizes is not None:
        arrays["sizes"] = data.sizes
    if data.present is not None:
        arrays["present"] = data.present
    plain = {name: array.numpy() for name, array in arrays.items()}
    if data.origin is not None:
        plain |= {key: array for key, array in data.origin.arrays().items() if key != "notes"}
    content = io.BytesIO()
    np.savez(content, **plain)  # type: ignore[arg-type]
    write_new(file, content.getvalue())
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    return f"{file}: {shapes}"


def warn(signs: list[str]) -> None:
    """Says on stderr what speaks against the graphs."""
    for sign in signs:
        print(f"warning: {sign}", file=sys.stderr)
