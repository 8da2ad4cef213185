"""The page as a whole: sections, style and script in one HTML text that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

# The browser itself sees to it that the page asks nobody for anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    anchor : str
        Its id, which links point at.
    title : str
    says : str
        In one line, what it shows.
    body : str
        HTML; empty where it leaves itself out.
    left_out : str
        Why, in one line.
    """

    anchor: str
    title: str
    says: str
    body: str = ""
    left_out: str = ""


def page(title: str, summary: str, sections: Sequence[Section], footer: str) -> str:
    """The HTML text.

    Parameters
    ----------
    title : str
        Plain text.
    summary : str
        HTML above the sections.
    sections : sequence of Section
    footer : str
        HTML.

    Returns
    -------
    str
    """
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    parts = "\n".join(_section(s) for s in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{_file("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{summary}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{parts}
</main>
<footer>
{footer}
</footer>
<script>
{_file("page.js")}</script>
</body>
</html>
"""


def _section(section: Section) -> str:
    body = section.body or f'<p class="left-out">Left out: {escape(section.left_out)}</p>'
    return (
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">\n'
        f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>\n'
        f'<p class="says">{escape(section.says)}</p>\n{body}\n</section>'
    )


def _file(name: str) -> str:
    return (resources.files("nri_fast.html_report") / name).read_text(encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """An HTML table that scrolls sideways where it is too wide; cells are plain text."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return framed(f"<table><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table>", caption)


def framed(table: str, caption: str = "") -> str:
    """A table's HTML in a frame that scrolls sideways, below its caption, which does not."""
    above = paragraph(caption, "caption") if caption else ""
    return f'{above}<div class="wide">{table}</div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names and what they are; plain text."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(what)}</dd>" for name, what in rows) + "</dl>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def folded(title: str, body: str) -> str:
    """HTML that is shown on demand, under a title of plain text."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def embedded(name: str, values: Any) -> str:
    """JSON for the page's script, in an element that no text in it can end."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def colour_name(kind: int, silent: bool) -> str:
    """The style's variable for the colour of an edge type; of the silent one it is grey."""
    return "--silent" if silent and kind == 0 else f"--c{kind % 8}"
