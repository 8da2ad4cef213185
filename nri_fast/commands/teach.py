"""The command ``nri-fast teach``."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Literal

from nri_fast.commands.arguments import Chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teach(Chosen):
    """Give a finished run a network that predicts graphs at once: it learns what the run's own search finds in the
    systems of DATA. Labels are never looked at.
    """

    out: Path
    """Folder for the new run, which has the same modules: new or empty, unless --resume."""
    split: str = "train"
    """Which split of the data."""
    network: Literal["mlp", "cnn", "mlp+structure", "cnn+structure"] = "mlp"
    """mlp: fast, for recordings of one length. cnn: for any length. +structure: one that refines graphs, too."""
    hidden: int = 192
    """Width of the network."""
    steps: int = 2000
    """Gradient steps."""
    batch: int = 50
    """Systems per gradient step."""
    seed: int = 0
    """Names every random draw."""
    resume: bool = False
    """Go on after a crash or a kill, to the bits of an undisturbed teaching."""

    def run(self) -> None:
        """Teaches and leaves the new run in its folder."""
        from nri_fast.teaching import teach

        run, data, _ = self.load()
        started = time.monotonic()
        teach(run, data, self.network, self.hidden, self.steps, self.batch, self.seed, out=self.out, resume=self.resume)
        print(f"taught by {data.systems} systems in {time.monotonic() - started:.1f} s: {self.out}")
        print(f"next: nri-fast evaluate {shlex.join([str(self.out), str(self.data)])} --search network")


EXAMPLES: dict[type, str] = {
    Teach: """
More systems teach more: a few thousand are good, and they need no labels. `infer --search network` then answers by one
forward pass; `--search learned` starts a chain from that answer.

examples:
  nri-fast teach run data --out fast
  nri-fast evaluate fast data --search network
  nri-fast teach run data --out fast --resume""",
}
