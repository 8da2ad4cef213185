"""The command ``nri-fast unseen``."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nri_fast.commands.arguments import Chosen

if TYPE_CHECKING:
    from nri_fast.run import Run
    from nri_fast.trajectory_data import TrajectoryData
    from nri_fast.unseen import Hidden
    from nri_fast.unseen import Unseen as Found

PLAN_FILE, ARRAYS_FILE, FIGURES_FILE, PICTURE_FILE = "plan.json", "found.npz", "figures.json", "unseen.png"
PARTS = "parts"
SHOWN = 4  # systems in the picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unseen(Chosen):
    """Find entities that were never observed: their paths, who acts on them, and on whom they act. The run's modules
    stay as they are. Either the recordings lack them (--hidden), or some are hidden to see whether they are found
    (--hide); then the paths found are compared with the true ones, which the search never sees.
    """

    out: Path
    """Folder for arrays, picture and figures: new or empty, unless --resume."""
    hidden: int = 1
    """How many entities of every system are missing from the recordings, which may differ in size and have holes."""
    hide: Annotated[tuple[int, ...], tyro.conf.arg(metavar="[ENTITY ...]")] = ()
    """Entities to hide, by number (0 is the first), in recordings that have them all; replaces --hidden."""
    systems: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(otherwise: all)")] = None
    """How many systems to take, from the first on."""
    undirected: bool = False
    """Both directions of a pair have one type: if you know that beforehand, far fewer structures have to be told
    apart."""
    seed: int = 0
    """Names every random draw."""
    resume: bool = False
    """Go on with a search that was stopped or killed; the result equals that of an undisturbed one to the bit."""

    def run(self) -> None:
        """Searches and writes."""
        import torch

        from nri_fast.checkpoint import write_atomically
        from nri_fast.report import json_text
        from nri_fast.unseen import find_unseen, hide, score_unseen, unseen_table

        run, data, _ = self.load()
        if self.systems is not None:
            if not 1 <= self.systems <= data.systems:
                raise ValueError(f"--systems: expected 1 to {data.systems}, got {self.systems}")
            data = data.select(torch.arange(self.systems))
        seen, truth = hide(data, self.hide) if self.hide else (data, None)
        hidden = len(self.hide) or self.hidden
        if hidden < 1:
            raise ValueError(f"--hidden: expected at least 1, got {hidden}")
        self._begin()
        parts = self.out / PARTS
        found = find_unseen(run, seen, hidden, self.undirected or None, self.seed, True, parts)
        write_atomically(self.out / ARRAYS_FILE, _arrays(run, found))
        figures = None if truth is None else score_unseen(run, found, truth)
        if figures is not None:
            write_atomically(self.out / FIGURES_FILE, (json_text(figures) + "\n").encode())
        write_atomically(self.out / PICTURE_FILE, _picture(run, seen, found, truth, figures))
        shutil.rmtree(parts)
        if figures is not None:
            print(unseen_table(figures))
        print(f"{self.out}: {', '.join(sorted(file.name for file in self.out.iterdir()))}")

    def _begin(self) -> None:
        from nri_fast.checkpoint import write_atomically

        plan = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plan = {name: str(value) for name, value in plan.items() if name not in ("out", "resume", "device")}
        file = self.out / PLAN_FILE
        if self.resume and file.exists():
            begun = json.loads(file.read_text())
            for name, value in plan.items():
                if begun.get(name) != value:
                    raise ValueError(f"{self.out}: was begun with {name} {begun.get(name)}, got {value}")
            return
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise FileExistsError(f"{self.out}: already there and not empty; pass another --out, or --resume to go on")
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, (json.dumps(plan, indent=1) + "\n").encode())


def _arrays(run: Run, found: Found) -> bytes:
    """The .npz file; paths in recorded units."""
    import numpy as np

    arrays: dict[str, Any] = {
        "adjacency": found.adjacency.numpy(),
        "probability": found.probability.numpy(),
        "path": run.normalisation.undo(found.path).numpy(),
        "energy": found.energy.numpy(),
        "deviation": found.deviation.numpy(),
    }
    for name, values in (("sizes", found.sizes), ("frames", found.frames)):
        if values is not None:
            arrays[name] = values.numpy()
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _picture(
    run: Run, seen: TrajectoryData, found: Found, truth: Hidden | None, figures: dict[str, Any] | None
) -> bytes:
    """The first systems, drawn."""
    import torch

    from nri_fast import plot

    some = slice(0, SHOWN)
    adjacency: plot.ArrayLike = found.adjacency[some]
    probability = found.probability[some].gather(-1, found.adjacency[some].long()[..., None])[..., 0]
    true, edges = None, None
    if truth is not None:
        true = run.normalisation.apply(truth.states[some], torch.float64)
        if truth.present is not None:
            true = torch.where(truth.present[some, ..., None], true, torch.nan)
        if truth.edges is not None and figures is not None:
            adjacency, edges = plot.relabel(adjacency, figures["relabelling"]), truth.edges[some]
    states = run.padded_states(seen)[some].cpu()
    states = torch.where(seen.there[some, ..., None], states, torch.nan)
    sizes = None if found.sizes is None else found.sizes[some]
    figure = plot.unseen(states, found.path[some], adjacency, true, edges, probability, seen.feature_names, sizes=sizes)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


EXAMPLES: dict[type, str] = {
    Unseen: """
Every system gets many guesses of the unseen entities' first states and of all edges. Each is rolled out, and the one
whose seen entities move most as recorded is taken. An entity that acts on nobody seen cannot be found: `deviation` says
how far off each path is expected to be, in the run's units (recordings are scaled to -1 .. 1).

found.npz, for S systems of T steps, N entities (the H unseen ones last), D features and K edge types:
  path         [S, T, H, D] float64  the unseen entities' states, in recorded units
  adjacency    [S, N, N] uint8       A[s, i, j] is the likeliest type of the edge from i to j; diagonal 0
  probability  [S, N, N, K] float32  of each type
  energy       [S] float32           mean squared error of the seen entities, normalised units squared
  deviation    [S, H] float32        expected root mean square error of a path, normalised units
  sizes        [S] int64             where systems differ in size: entities of each; unseen ones come right behind seen
  frames       [S, 2] int64          where states are absent: the first frame looked at, and the one after the last

examples:
  nri-fast unseen runs/springs data --hide 4 --systems 50 --out found
  nri-fast unseen runs/springs my_recordings.npz --hidden 2 --undirected --out found
  nri-fast unseen runs/springs data --hide 4 --systems 50 --out found --resume""",
}
