"""Section: the answer in short, and with labels how right it is."""

from __future__ import annotations

import numpy as np
import torch

from nri_fast import metrics, plot
from nri_fast.calibration import reliability
from nri_fast.html_report.drawing import inline
from nri_fast.html_report.material import Material
from nri_fast.html_report.page import Section, framed, paragraph, table
from nri_fast.metrics import Array
from nri_fast.report import percent

TITLE, SAYS = (
    "The answer",
    "How many edges of each type there are, how sure the run is, and how right where that is known.",
)


def answer(material: Material) -> Section:
    """Edges by type, sureness, and figures against labels."""
    if not len(material.edge_types):
        return Section("answer", TITLE, SAYS, left_out="no system has two entities, so there are no edges")
    counts = np.bincount(material.edge_types, minlength=material.types)
    rows = []
    strength = None if material.influence is None else material.influence.strength
    for k, name in enumerate(material.type_names):
        own = material.sureness[material.edge_types == k]
        sure = f"{100 * own.mean():.1f} %" if len(own) else "-"
        moved = "-" if strength is None else f"{strength[k]:.3f}"
        rows.append([name, f"{counts[k]:,}", percent(counts[k] / counts.sum()), sure, moved])
    body = _tiles(material) + table(
        ["edge type", "edges", "share", "mean probability", "influence"],
        rows,
        "Influence: root mean square of what a sender adds to its receiver's change in one step, where 1 is that "
        "change's standard deviation",
    )
    body += _nodes(material)
    if material.data.edges is not None:
        body += _against_labels(material, material.data.edges)
    else:
        body += paragraph("No labels of edges: how right the graphs are is not known.", "note")
    return Section("answer", TITLE, SAYS, body)


def _tiles(material: Material) -> str:
    sure = material.sureness
    tiles = [
        (f"{material.data.systems:,}", "systems"),
        (f"{len(sure):,}", "edges (ordered pairs)"),
        (f"{100 * sure.mean():.1f} %", "mean probability of the likeliest type"),
        (f"{100 * (sure > 0.9).mean():.0f} %", "of edges surer than 90 %"),
    ]
    figures = material.figures
    for key, name in (("edge_accuracy", "edges right, up to relabelling"), ("node_accuracy", "entities right")):
        if figures.get(key) is not None:
            tiles.append((percent(figures[key]), name))
    inside = "".join(f"<li><strong>{value}</strong> {name}</li>" for value, name in tiles)
    return f'<ul class="tiles">{inside}</ul>'


def _nodes(material: Material) -> str:
    if material.run.settings.node_types < 2:
        return ""
    there = material.data.members
    kinds = material.found.node_types[there].numpy()
    sure = material.found.node_probability.max(-1).values[there].numpy()
    rows = [
        [
            f"type {m}",
            f"{(kinds == m).sum():,}",
            f"{100 * sure[kinds == m].mean():.1f} %" if (kinds == m).any() else "-",
        ]
        for m in range(material.run.settings.node_types)
    ]
    return table(["entity type", "entities", "mean probability"], rows)


def _against_labels(material: Material, true: torch.Tensor) -> str:
    figures, sizes = material.figures, material.data.sizes
    relabelling = figures["relabelling"]
    kinds = len(relabelling)
    named = plot.relabel(material.found.adjacency, relabelling)
    counts = metrics.confusion(named, true.numpy(), kinds, sizes).T
    rows = [
        ("edges right, up to relabelling", percent(figures["edge_accuracy"])),
        ("area under the ROC curve (AUROC)", _number(figures["edge_auroc"])),
        ("expected calibration error (ECE)", _number(figures["edge_ece"])),
    ]
    meaning = "; ".join(f"type {k} is true type {relabelling[k]}" for k in range(material.types))
    probability = torch.nn.functional.pad(material.found.probability, (0, kinds - material.types))
    told = reliability(probability, true, relabelling, sizes=sizes)
    figure = inline(
        plot.reliability({"edges": told}),
        "reliability",
        f"Share of edges that are right over the probability of the likeliest type; calibration error {told.error:.4f}",
        "On the dashed line probabilities mean what they say; below it they are too sure.",
    )
    return (
        "<h3>Against the labels</h3>"
        + table(["figure", "value"], rows)
        + paragraph(f"Types have no names of their own. The best renaming over the whole set: {meaning}.")
        + _confusion(counts)
        + figure
    )


def _confusion(counts: Array) -> str:
    """True types in rows; the darker a cell, the larger its share of the row."""
    kinds = len(counts)
    head = "".join(f'<th scope="col">inferred {k}</th>' for k in range(kinds))
    lines = []
    for k, row in enumerate(counts):
        total = max(int(row.sum()), 1)
        cells = "".join(
            f'<td style="--share:{count / total:.3f}">{count:,}<br><small>{100 * count / total:.1f} %</small></td>'
            for count in row
        )
        lines.append(f'<tr><th scope="row">true {k}</th>{cells}</tr>')
    return framed(
        f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>',
        "Confusion: edges by true and by inferred type, under the renaming",
    )


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
