"""The command ``nri-fast forecast``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from nri_fast.commands.arguments import Searched, optional, refuse_existing, write_new


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast(Searched):
    """Say how recordings go on: find the graphs in them, and let the run's modules move everybody on."""

    out: Path
    """New file: .npz, which every command reads as data, or .csv for a table with a row an entity and step."""
    horizon: int = 20
    """Steps to predict."""
    start: Annotated[int | None, optional("STEP", "each recording's last")] = None
    """Recorded step to start from, counted from 0. Nothing behind it is looked at, for the graphs neither."""

    def run(self) -> None:
        """Forecasts and writes."""
        from nri_fast.formats import save_trajectories
        from nri_fast.onwards import forecast_onwards, states_table

        if self.out.suffix not in (".npz", ".csv"):
            raise ValueError(f"{self.out}: expected a name that ends in .npz or .csv")
        refuse_existing(self.out)
        run, data, systems = self.load()
        ahead = forecast_onwards(run, data, self.horizon, self.start, self.search, self.chains, progress=True)
        if self.out.suffix == ".npz":
            save_trajectories(ahead, self.out)
        else:
            first = data.lengths if self.start is None else data.lengths.new_full((data.systems,), self.start + 1)
            first = first if ahead.origin is None else ahead.origin.first_step
            write_new(self.out, states_table(ahead, first, systems).encode())
        print(f"{self.out}: {data.systems} systems, {self.horizon} steps on, features {', '.join(data.feature_names)}")


EXAMPLES: dict[type, str] = {
    Forecast: """
The arrays: states [systems, horizon, entities, features] in the units of the data, feature_names; where they apply,
sizes, present (who was there at the start), and where systems come from. Who is absent at the start has no rows.

examples:
  nri-fast forecast runs/springs data --horizon 50 --out ahead.npz
  nri-fast forecast runs/ants data --start 19 --horizon 10 --out ahead.csv""",
}
