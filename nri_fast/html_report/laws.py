"""Section: the laws that were learned, read from the run's modules at recorded states."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nri_fast.html_report.drawing import inline
from nri_fast.html_report.material import Material
from nri_fast.html_report.page import Section, paragraph
from nri_fast.influence import Influence
from nri_fast.metrics import Array
from nri_fast.plot.style import TEXT, plain, type_colour

TITLE = "Learned laws"
SAYS = "What a sender does to a receiver through each edge type, over distance or over how their features differ."
BINS = 20
TELLING = 0.05  # share of the influence's variance that a feature must tell to be drawn


def laws(material: Material) -> Section:
    """Influence over distance and over the features that tell most about it."""
    measured = material.influence
    if measured is None:
        return Section("laws", TITLE, SAYS, left_out="no system has two entities, so nobody acts on anybody")
    body = paragraph(
        f"Measured at {len(measured.difference):,} recorded pairs. What counts is the receiver: how its predicted "
        "change in one step differs between the message of this sender and the mean message of the type. Lines are "
        "medians, bands run from the lower to the upper quartile."
    )
    target = ", ".join(measured.feature_names[d] for d in measured.targets)
    if measured.distance is not None and measured.pull is not None:
        body += _over_distance(material, measured, measured.distance, measured.pull, target)
    body += _over_differences(material, measured)
    return Section("laws", TITLE, SAYS, body)


def _over_distance(material: Material, measured: Influence, distance: Array, pull: Array, target: str) -> str:
    figure = Figure(figsize=(6.5, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, values, label in (
        (above, pull, f"pull towards the sender\n(change of {target} in one step)"),
        (below, measured.size, f"size of the influence\n(change of {target} in one step)"),
    ):
        for k in range(material.types):
            _line(axes, distance, values[k], material, k)
        axes.set_ylabel(label, **TEXT)
        plain(axes)
    above.axhline(0, color="#999999", lw=0.8)
    above.legend(frameon=False, fontsize=10)
    below.set_xlabel("distance between sender and receiver (recorded units)", **TEXT)
    far = distance >= np.quantile(distance, 0.75)
    told = ", ".join(f"{name} {np.median(pull[k][far]):.3g}" for k, name in enumerate(material.type_names))
    alt = f"Pull and size of the influence over distance, by edge type; median pull in the farthest quarter: {told}"
    return inline(figure, "over-distance", alt, "Above zero a sender attracts, below it repels.")


def _over_differences(material: Material, measured: Influence) -> str:
    """For the features that are moved most: over the difference that tells most about it."""
    told = _telling(measured)
    if not told:
        return paragraph("No single feature's difference tells much about the influence.", "note")
    figure = Figure(figsize=(6.5, 0.4 + 3.0 * len(told)), layout="constrained")
    panels = figure.subplots(len(told), 1, squeeze=False)[:, 0]
    names = measured.feature_names
    for axes, (feature, target, share) in zip(panels, told, strict=True):
        for k in range(material.types):
            _line(axes, measured.difference[:, feature], measured.change[k, :, target], material, k)
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set_xlabel(f"{names[feature]} of the sender minus that of the receiver", **TEXT)
        axes.set_ylabel(f"change of {names[target]}\nin one step", **TEXT)
        axes.set_title(f"tells {100 * share:.0f} % of this influence", **TEXT)
        plain(axes)
    panels[0].legend(frameon=False, fontsize=10)
    listed = ", ".join(
        f"{names[target]} over {names[feature]} ({100 * share:.0f} %)" for feature, target, share in told
    )
    return inline(
        figure, "over-differences", f"Influence over differences between sender and receiver: {listed}",
        "The differences that tell most about the influence.",
    )  # fmt: skip


def _telling(measured: Influence) -> list[tuple[int, int, float]]:
    """(feature that differs, feature that is moved, share told) for up to two of those that are moved."""
    strongest = int(measured.strength.argmax())
    change, judged = measured.change[strongest], np.array(measured.judged)
    size = np.sqrt((change**2).mean(0)) / np.where(measured.scale > 0, measured.scale, np.inf)
    best = []
    for target in judged[np.argsort(-size[judged])][:2].tolist():
        shares = [_told(measured.difference[:, f], change[:, target]) for f in range(measured.difference.shape[1])]
        feature = int(np.argmax(shares))
        if shares[feature] > TELLING:
            best.append((feature, target, shares[feature]))
    return best


def _told(across: Array, values: Array) -> float:
    """Share of the values' variance that the means of bins explain."""
    total = float(values.var())
    if total == 0:
        return 0.0
    place = _bins(across)
    counts = np.bincount(place)
    means = np.bincount(place, values) / np.maximum(counts, 1)
    return float((counts * (means - values.mean()) ** 2).sum() / len(values) / total)


def _bins(across: Array) -> Array:
    """Bin of every value, each with as many values as the others."""
    limits = np.unique(np.quantile(across, np.linspace(0, 1, BINS + 1)))[1:-1]
    return np.searchsorted(limits, across, side="right")


def _line(axes: Axes, across: Array, values: Array, material: Material, kind: int) -> None:
    place = _bins(across)
    inside = [place == b for b in range(place.max() + 1) if (place == b).any()]
    centre = [np.median(across[b]) for b in inside]
    low, middle, high = ([np.quantile(values[b], share) for b in inside] for share in (0.25, 0.5, 0.75))
    colour = type_colour(kind, material.silent)
    axes.fill_between(centre, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(centre, middle, color=colour, lw=2.4, label=material.type_names[kind], marker="o", ms=3)
