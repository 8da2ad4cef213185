"""Neural relational inference by fast modular meta-learning: who acts on whom, and how, from trajectories alone."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = [
    "PRESETS",
    "BounceGrad",
    "CheckpointError",
    "DivergedError",
    "Inference",
    "Influence",
    "MegaGraph",
    "ModuleLibrary",
    "Normalisation",
    "Origin",
    "Run",
    "Settings",
    "SystemSet",
    "TrajectoryData",
    "Unseen",
    "doubts",
    "evaluate",
    "find_unseen",
    "forecast",
    "from_pyg",
    "get_threads",
    "heat_bath_scores",
    "hide",
    "hold_out",
    "html_report",
    "infer",
    "influence",
    "load_trajectories",
    "rollout_energy",
    "save_trajectories",
    "score_unseen",
    "set_threads",
    "simulate",
    "teach",
    "to_networkx",
    "to_pyg",
    "train",
    "train_starts",
]

try:
    import_module("nri_fast._core")
except ImportError as error:
    # `nri-fast doctor` must still be able to say what is wrong.
    _problem = error

    def __getattr__(name: str) -> object:
        if name in __all__:
            raise ImportError(
                f"nri_fast.{name} needs the native module, which cannot be loaded: {_problem}. "
                "`nri-fast doctor` tells more"
            ) from _problem
        raise AttributeError(f"module 'nri_fast' has no attribute {name!r}")
else:
    from nri_fast.bouncegrad import BounceGrad
    from nri_fast.checkpoint import CheckpointError
    from nri_fast.doubts import doubts
    from nri_fast.energies import heat_bath_scores, rollout_energy
    from nri_fast.formats import load_trajectories, save_trajectories
    from nri_fast.graph import MegaGraph
    from nri_fast.graph_libraries import from_pyg, to_networkx, to_pyg
    from nri_fast.html_report import html_report
    from nri_fast.infer import Inference, evaluate, forecast, infer
    from nri_fast.influence import Influence, influence
    from nri_fast.learner import DivergedError
    from nri_fast.modules import ModuleLibrary
    from nri_fast.normalisation import Normalisation
    from nri_fast.ops import get_threads, set_threads
    from nri_fast.origin import Origin
    from nri_fast.run import Run, train
    from nri_fast.settings import PRESETS, Settings
    from nri_fast.simulate import simulate
    from nri_fast.starts import train_starts
    from nri_fast.system_set import SystemSet
    from nri_fast.teaching import teach
    from nri_fast.trajectory_data import TrajectoryData, hold_out
    from nri_fast.unseen import Unseen, find_unseen, hide, score_unseen
