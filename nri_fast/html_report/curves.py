"""Section: energy, temperature, scale and learning rate over training."""

from __future__ import annotations

from nri_fast import plot
from nri_fast.html_report.drawing import inline
from nri_fast.html_report.material import Material
from nri_fast.html_report.page import Section

TITLE, SAYS = "Training", "Energy, temperature, the robust error's scale and the learning rate over the gradient steps."


def curves(material: Material) -> Section:
    """The run's curves."""
    history, settings = material.run.history, material.run.settings
    if not history.step:
        return Section("curves", TITLE, SAYS, left_out="the run has no history")
    figure = plot.training(history, polish_from=settings.steps if settings.polish_steps else None)
    alt = (
        f"Curves of training over {history.step[-1] + 1} gradient steps; the energy goes from {history.loss[0]:.3g} "
        f"to {history.loss[-1]:.3g}"
    )
    caption = "The shaded part trains forecasts, on roll-outs of several steps." if settings.polish_steps else ""
    return Section("curves", TITLE, SAYS, inline(figure, "training", alt, caption))
