"""The commands ``nri-fast demo`` and ``nri-fast doctor``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

from nri_fast.commands.arguments import optional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """See it work in a few minutes: simulate, train, infer on systems never seen, print tables and draw pictures."""

    out: Annotated[Path | None, optional("DIR", "nri-fast-demo, or nri-fast-demo-2, ... if that is there")] = None
    """Folder for pictures, figures and runs: new or empty."""

    def run(self) -> None:
        """Runs the demonstration."""
        from nri_fast.demo import demo

        demo(self.out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what was built, what this machine offers, and which path a computation will take."""

    json: bool = False
    """Print JSON and nothing else on stdout."""

    def run(self) -> None:
        """Examines and prints."""
        from nri_fast.doctor import collect, render

        facts = collect()
        print(json.dumps(facts, indent=2) if self.json else render(facts))


EXAMPLES: dict[type, str] = {
    Demo: """
examples:
  nri-fast demo
  nri-fast demo --out first_look""",
    Doctor: """
examples:
  nri-fast doctor
  nri-fast doctor --json""",
}
