"""Pictures inside the page: what matplotlib draws, in the page's own colours, light and dark."""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

from nri_fast.plot.style import COLOURS, INK, SILENT_COLOUR

GRID, WHITE, BLACK = "#e6e6e6", "#ffffff", "#000000"
#: Colours that the page's style decides about.
VARIABLES = {
    **{colour.lower(): f"var(--c{k})" for k, colour in enumerate(COLOURS)},
    SILENT_COLOUR.lower(): "var(--silent)",
    INK.lower(): "var(--ink)",
    GRID: "var(--grid)",
    WHITE: "var(--paper)",
    BLACK: "var(--ink)",
    "#888888": "var(--faint)",
    "#999999": "var(--faint)",
    "#666666": "var(--faint)",
}


def inline(figure: Figure, name: str, alt: str, caption: str = "", broad: bool = False) -> str:
    """A figure as SVG inside the page; its text stays text.

    Parameters
    ----------
    figure : Figure
    name : str
        Distinguishes its ids from those of other figures of the page.
    alt : str
        What it shows, for those who do not see it.
    caption : str
        Plain text below it.
    broad : bool
        On narrow screens it scrolls sideways instead of shrinking.

    Returns
    -------
    str
        HTML.
    """
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = content.getvalue()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found.group(), found.group()), svg)
    # Coordinates to a hundredth of a point are finer than any screen.
    svg = re.sub(r'\bd="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found.group()), svg)
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    assert width is not None
    opening = f'<svg role="img" aria-label="{escape(alt)}" style="max-width:{float(width[1]) * 4 / 3:.0f}px" '
    svg = opening + re.sub(r'\b(width|height)="[\d.]+pt" ', "", svg[len("<svg ") :], count=2)
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="broad"' if broad else ""
    return f"<figure{kind}><div>{svg.strip()}</div>{below}</figure>"
