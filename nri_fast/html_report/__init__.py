"""One self-contained HTML page about a run: what it found, how sure it is, what laws it learned, from what data.

The page needs no network and no other file; it forbids the browser to ask for anything.
"""

from __future__ import annotations

import datetime
from html import escape
from typing import Any

import torch
from tqdm import tqdm

from nri_fast.doubts import doubts
from nri_fast.html_report.answer import answer
from nri_fast.html_report.curves import curves
from nri_fast.html_report.forecasts import forecasts
from nri_fast.html_report.graphs import graphs
from nri_fast.html_report.laws import laws
from nri_fast.html_report.material import Material
from nri_fast.html_report.page import page
from nri_fast.html_report.sureness import sureness
from nri_fast.html_report.training_facts import training_facts
from nri_fast.infer import Inference, evaluate, infer
from nri_fast.record import version
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData

SECTIONS = (answer, graphs, sureness, forecasts, laws, curves, training_facts)

__all__ = ["html_report"]


def html_report(
    run: Run,
    data: TrajectoryData,
    found: Inference | None = None,
    figures: dict[str, Any] | None = None,
    signs: list[str] | None = None,
    systems: torch.Tensor | None = None,
    run_name: str = "",
    made: dict[str, Any] | None = None,
    progress: bool = False,
) -> str:
    """A page about a run and about what it finds in some systems.

    Parameters
    ----------
    run : Run
        From :func:`nri_fast.train` or :meth:`Run.load`.
    data : TrajectoryData
        Systems in recorded units, of any number and size. Labels are only compared with.
    found : Inference, optional
        What :func:`nri_fast.infer` found in them, if it is there already.
    figures : dict, optional
        What :func:`nri_fast.evaluate` says about that, likewise.
    signs : list of str, optional
        What :func:`nri_fast.doubts` says about it, likewise.
    systems : Tensor, int64, [systems], optional
        Numbers of the systems; by default 0, 1, ...
    run_name : str
        What to call the run.
    made : dict, optional
        When and by what it was trained (:func:`nri_fast.record.read_made`).
    progress : bool
        Show a progress bar on terminals.

    Returns
    -------
    str
        HTML, to be written as UTF-8.

    Raises
    ------
    ValueError
        The data have other features than the run.
    """
    found = infer(run, data, progress=progress) if found is None else found
    with tqdm(total=len(SECTIONS) + 1, desc="reporting", unit="section", disable=None if progress else True) as bar:
        figures = evaluate(run, data, found) if figures is None else figures
        signs = doubts(run, data, found, figures) if signs is None else signs
        numbers = torch.arange(data.systems) if systems is None else systems
        material = Material(run, run_name, made or {}, data, numbers, found, figures, signs)
        bar.update()
        sections = []
        for section in SECTIONS:
            sections.append(section(material))
            bar.update()
    return page(_title(material), _summary(material), sections, _footer())


def _title(material: Material) -> str:
    name = material.run_name or "A run"
    of = material.data.name or f"the {material.data.split} split"
    return f"{name}: who acts on whom in {of}"


def _summary(material: Material) -> str:
    if not material.doubts:
        return '<p class="says">No sign that training ended at chance. That is no proof that the graphs are right.</p>'
    signs = "".join(f"<li>{escape(sign)}</li>" for sign in material.doubts)
    return f'<div class="doubts" role="note"><strong>Read this first.</strong><ul>{signs}</ul></div>'


def _footer() -> str:
    today = datetime.date.today().isoformat()
    return (
        f"<p>Written by {escape(version())} on {today}. An edge from i to j means that i acts on j. "
        "Probabilities are bagged posteriors: how sure the recording makes the run, if its modules are right.</p>"
    )
