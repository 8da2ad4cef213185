"""Section: forecasts against what was recorded, and how their error grows."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure

from nri_fast import plot
from nri_fast.html_report.drawing import inline
from nri_fast.html_report.material import Material
from nri_fast.html_report.page import Section, paragraph, table
from nri_fast.infer import forecast
from nri_fast.metrics import RATES
from nri_fast.plot.style import COLOURS, INK, TEXT, plain
from nri_fast.report import FORECASTS

TITLE = "Forecasts"
SAYS = "Open-loop forecasts (predictions feed on predictions) beside the recordings, and their error over the steps."
DRAWN = 4  # systems
STYLES = {"": (COLOURS[0], "-", 2.6), "_nothing_moves": (INK, ":", 1.6), "_constant_velocity": (COLOURS[5], "--", 1.6)}


def forecasts(material: Material) -> Section:
    """Error growth beside baselines, and some forecasts."""
    if not material.growth:
        return Section("forecasts", TITLE, SAYS, left_out="one recorded step leaves nothing to forecast")
    # A constant velocity is a baseline where velocities are recorded.
    names = material.data.feature_names
    with_rates = any(RATES.get(name) in names for name in names)
    growth = {name: errors for name, errors in material.growth.items() if with_rates or name != "_constant_velocity"}
    horizon = len(growth[""])
    columns = [h for h in (1, 2, 5, 10, 20, 50) if h <= horizon]
    errors = table(
        ["steps ahead", *map(str, columns)],
        [[FORECASTS[name], *(_error(values[h - 1]) for h in columns)] for name, values in growth.items()],
        "Mean squared error, normalised units squared (features run from -1 to 1)",
    )
    reason = "" if with_rates else paragraph("No feature has its velocity recorded: no baseline of constant velocity.")
    return Section("forecasts", TITLE, SAYS, _curves(growth) + errors + reason + _paths(material, min(horizon, 20)))


def _error(value: float) -> str:
    return f"{value:.2e}" if math.isfinite(value) else "not finite"


def _curves(growth: dict[str, list[float]]) -> str:
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in growth.items():
        colour, dash, width = STYLES[name]
        shown = [v if math.isfinite(v) and v > 0 else math.nan for v in values]
        axes.plot(range(1, len(values) + 1), shown, color=colour, ls=dash, lw=width, label=FORECASTS[name],
                  marker="o" if len(values) == 1 else "")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("steps ahead", **TEXT)
    axes.set_ylabel("mean squared error\n(normalised units squared)", **TEXT)
    axes.legend(frameon=False, fontsize=10)
    plain(axes)
    last = ", ".join(f"{FORECASTS[name]} {_error(values[-1])}" for name, values in growth.items())
    return inline(figure, "growth", f"Error of forecasts over steps ahead; after {len(growth[''])} steps: {last}")


def _paths(material: Material, horizon: int) -> str:
    count = min(DRAWN, material.data.systems)
    first = torch.arange(count)
    some = material.data.select(first)
    found = material.found.select(first, some.entities)
    start = max(0, some.steps - 1 - horizon)
    predicted = forecast(material.run, some, found, horizon, start)
    nothing = torch.tensor(torch.nan, dtype=torch.float64)
    shown = torch.isfinite(predicted) & some.there[:, start, None, :, None]
    recorded = torch.where(some.there[..., None], some.states, nothing)
    titles = [material.system_name(s) for s in range(count)]
    figure = plot.trajectories(
        recorded, torch.where(shown, predicted, nothing), start, some.feature_names, titles=titles, sizes=some.sizes
    )
    alt = f"Recorded paths of {count} systems, and over them the forecast of {horizon} steps from step {start} on"
    caption = f"The forecast starts from the state at step {start}, and sees nothing after it."
    return inline(figure, "paths", alt, caption, broad=True)
