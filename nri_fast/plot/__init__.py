"""Pictures: graphs, trajectories, training, learned laws, confusion, calibration, measurements.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to nobody: ``figure.savefig("x.png")`` writes
it, a notebook shows it, and no global state of matplotlib is touched. Colours are those of Okabe and Ito, which
colour-blind readers can tell apart; a wrong edge is marked by a cross as well as by its colour.
"""

from nri_fast.plot.accuracy import confusion, reliability
from nri_fast.plot.history import training
from nri_fast.plot.measurements import curves, dots
from nri_fast.plot.paths import trajectories
from nri_fast.plot.pull import law_curves, laws
from nri_fast.plot.structures import graphs, relabel
from nri_fast.plot.style import COLOURS, TEXT, Array, ArrayLike, plain
from nri_fast.plot.unseen import unseen

__all__ = [
    "COLOURS",
    "TEXT",
    "Array",
    "ArrayLike",
    "confusion",
    "curves",
    "dots",
    "graphs",
    "law_curves",
    "laws",
    "plain",
    "relabel",
    "reliability",
    "training",
    "trajectories",
    "unseen",
]
