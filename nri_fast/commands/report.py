"""The command ``nri-fast report``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from nri_fast.commands.arguments import Searched, optional, refuse_existing, write_new
from nri_fast.commands.infer import refuse_graphs, warn, write_graphs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(Searched):
    """Write one HTML page about a run and what it finds: graphs over the trajectories, how sure they are, forecasts,
    learned laws, curves of training. It needs no network and no other file.
    """

    out: Path = Path("report.html")
    """New file for the page."""
    graphs: Annotated[Path | None, optional("FILE", "in the page only")] = None
    """New file for the graphs, too, as `infer --out` writes them: .npz or .csv."""

    def run(self) -> None:
        """Infers, and writes the page."""
        from nri_fast.doubts import doubts
        from nri_fast.html_report import html_report
        from nri_fast.infer import evaluate, infer
        from nri_fast.record import read_made

        if self.out.suffix not in (".html", ".htm"):
            raise ValueError(f"--out: expected a name that ends in .html, got {self.out}")
        refuse_existing(self.out)
        if self.graphs is not None:
            refuse_graphs(self.graphs)
        run, data, systems = self.load()
        found = infer(run, data, progress=True, search=self.search, chains=self.chains)
        if self.graphs is not None:
            print(write_graphs(self.graphs, run, data, found, systems, self.held_out))
        figures = evaluate(run, data, found)
        signs = doubts(run, data, found, figures)
        name, made = self.run_folder.resolve().name, read_made(self.run_folder)
        page = html_report(run, data, found, figures, signs, systems, name, made, progress=True).encode()
        write_new(self.out, page)
        warn(signs)
        print(f"{self.out}: {len(page) / 1e6:.1f} MB; open it in a browser")


EXAMPLES: dict[type, str] = {
    Report: """
The page works without labels, with systems of different sizes, in two and three dimensions and without positions; what
it cannot show it leaves out, and says why.

examples:
  nri-fast report runs/springs data
  nri-fast report runs/ants data --out ants.html --graphs who_acts_on_whom.csv""",
}
