"""Neural relational inference by fast modular meta-learning: who acts on whom, and how, from trajectories alone."""

from nri_fast.energies import forecast as forecast_states
from nri_fast.energies import heat_bath_scores, rollout_energy
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary

__version__ = "0.1.0"
__all__ = ["MegaGraph", "ModuleLibrary", "forecast_states", "heat_bath_scores", "rollout_energy"]
