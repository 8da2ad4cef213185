"""Figures of a search for unseen entities as text."""

from __future__ import annotations

from typing import Any

from nri_fast.report import MISSING, percent


def unseen_table(figures: dict[str, Any]) -> str:
    """Table of what :func:`nri_fast.score_unseen` returned.

    Parameters
    ----------
    figures : dict
        Its result.

    Returns
    -------
    str
        Several lines, without a line feed at the end.
    """
    rows: list[tuple[str, ...]] = [("hidden entities with", "number", "mean error", "median", "best constant guess")]
    if figures["linked"] is not None:
        rows += [_row(f"{each['edges']} edges", each) for each in figures["by_edges"]]
        rows.append(_row("at least 1 edge", figures["linked"]))
    rows.append(_row("any number", figures))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["mean squared error of the hidden paths, normalised units squared"]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.append("")
    if figures["edge_accuracy"] is not None:
        sides = {"seen": "among seen entities", "out": "from hidden ones", "into": "to hidden ones"}
        shares = (f"{name} {percent(figures['edge_accuracy'][side])}" for side, name in sides.items())
        lines.append(f"edges right: {', '.join(shares)}")
    correlation = figures["sure"]["rank_correlation"]
    lines.append(
        f"expected and actual deviations: rank correlation {MISSING if correlation is None else f'{correlation:.2f}'}, "
        f"{percent(figures['sure']['within_two'])} of paths within two expected ones"
    )
    return "\n".join(lines)


def _row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    errors = (figures[key] for key in ("error", "median_error", "guess"))
    return name, str(figures["entities"]), *(MISSING if e is None else f"{e:.1e}" for e in errors)
