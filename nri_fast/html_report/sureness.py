"""Section: how sure the run is, edge by edge."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from nri_fast.edge_table import edge_rows, edge_table
from nri_fast.html_report.drawing import inline
from nri_fast.html_report.material import Material
from nri_fast.html_report.page import Section, table
from nri_fast.plot.style import TEXT, plain, type_colour

TITLE = "How sure"
SAYS = "The probability of every edge's likeliest type, and the edges that the run is least sure of."
LEAST = 12  # edges in the table
ROWS = 10_000  # most edges that the page carries as a table of their own


def sureness(material: Material) -> Section:
    """Histogram, the least sure edges, and all of them as a file."""
    if not len(material.edge_types):
        return Section("sureness", TITLE, SAYS, left_out="no system has two entities, so there are no edges")
    rows = sorted(edge_rows(material.found, material.data, material.systems), key=lambda row: row[-1])[:LEAST]
    least = table(
        ["system", "recording", "from step", "sender", "receiver", "likeliest type", "probability"],
        [[*(str(cell) for cell in row[:-1]), f"{100 * row[-1]:.1f} %"] for row in rows],
        f"The {len(rows)} edges that the run is least sure of",
    )
    return Section("sureness", TITLE, SAYS, _histogram(material) + least + _download(material))


def _histogram(material: Material) -> str:
    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(1 / material.types, 1, 26).tolist()
    by_type = [material.sureness[material.edge_types == k] for k in range(material.types)]
    axes.hist(
        by_type, edges, stacked=True, label=material.type_names,
        color=[type_colour(k, material.silent) for k in range(material.types)],
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("probability of the likeliest type", **TEXT)
    axes.set_ylabel("edges", **TEXT)
    axes.legend(frameon=False, fontsize=10)
    plain(axes)
    low, middle = (float(np.quantile(material.sureness, share)) for share in (0.1, 0.5))
    alt = f"Histogram of the probabilities of the likeliest types: median {middle:.3f}, a tenth is below {low:.3f}"
    return inline(figure, "histogram", alt, "All edges, by type; the upward axis is logarithmic.")


def _download(material: Material) -> str:
    if len(material.edge_types) > ROWS:
        return f"<p>All {len(material.edge_types):,} edges: <code>nri-fast infer RUN DATA --out graphs.csv</code></p>"
    text = quote(edge_table(material.found, material.data, material.systems))
    return (
        f'<p><a download="graphs.csv" href="data:text/csv;charset=utf-8,{text}">All '
        f"{len(material.edge_types):,} edges as a table (CSV)</a></p>"
    )
