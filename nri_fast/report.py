"""Figures of an evaluation as text: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
from typing import Any

HORIZONS = (1, 10, 20)
FORECASTS = {"": "forecast", "_nothing_moves": "nothing moves", "_constant_velocity": "constant velocity"}
MISSING = "-"


def evaluation_table(figures: dict[str, Any]) -> str:
    """Table of an evaluation.

    Parameters
    ----------
    figures : dict
        What :func:`nri_fast.evaluate` returned.

    Returns
    -------
    str
        Several lines, without a line feed at the end.
    """
    rows = [("steps ahead", *FORECASTS.values())]
    for horizon in HORIZONS:
        rows.append((str(horizon), *(_error(figures.get(f"mse_{horizon}{name}")) for name in FORECASTS)))
    nodes = [] if figures["node_accuracy"] is None else [f"node accuracy  {percent(figures['node_accuracy'])}"]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    aligned = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(
        [
            f"systems        {figures['systems']}",
            f"edge accuracy  {percent(figures['edge_accuracy'])}",
            f"edge AUROC     {_number(figures['edge_auroc'])}",
            f"edge ECE       {_number(figures['edge_ece'])}",
            *nodes,
            "",
            "mean squared error of the open-loop forecast, normalised units squared",
            *aligned,
        ]
    )


def percent(share: float | None) -> str:
    """A share between 0 and 1 as text; a dash with the reason where there is none."""
    return f"{MISSING} (no labels)" if share is None else f"{100 * share:.2f} %"


def json_text(values: dict[str, Any]) -> str:
    """Indented JSON; NaN and infinity, for which JSON has no words, become null."""
    return json.dumps(_finite(values), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> str:
    return f"{MISSING} (no labels)" if value is None else f"{value:.4f}"


def _error(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2e}"
