"""The operations as the kernels offer them: flat tensors in, flat tensors out, no gradients.

Nothing but this package takes addresses. Every function allocates its results, hands pointers to the native core and
keeps the tensors alive meanwhile. Shapes are those of the headers in ``csrc/ops``: trajectories flat (each system's
[steps, entities, features] behind the other), types flat per edge and per entity. Arguments are trusted to have passed
:mod:`nri_fast.checks`; the public functions of :mod:`nri_fast.energies` do that.
"""

from nri_fast.ops.anneal import (
    COUNTS,
    PROPOSALS,
    blur,
    heat_bath_sample,
    metropolis_decide,
    metropolis_propose,
    propose_from_table,
    responsibilities,
)
from nri_fast.ops.chains import MOST_SOURCES, ChainArrays, ProposalSource, end_acceptance_epoch, metropolis_run
from nri_fast.ops.dense import linear, linear_gradient
from nri_fast.ops.draws import Draws
from nri_fast.ops.heat_bath import HeatBathProblem, Room, RowLayout
from nri_fast.ops.place import (
    emulated_cuda,
    get_threads,
    layer_by_layer,
    one_torch_thread,
    scoring_precision,
    set_threads,
    uses_cuda_kernels,
)
from nri_fast.ops.rollouts import (
    ErrorMeasure,
    forecast,
    has_rollout_choice,
    rollout_choice,
    rollout_energy,
    rollout_gradient,
)
from nri_fast.ops.simulation import SIMULATORS, SPLITS, simulate

__all__ = [
    "COUNTS",
    "MOST_SOURCES",
    "PROPOSALS",
    "SIMULATORS",
    "SPLITS",
    "ChainArrays",
    "Draws",
    "ErrorMeasure",
    "HeatBathProblem",
    "ProposalSource",
    "Room",
    "RowLayout",
    "blur",
    "emulated_cuda",
    "end_acceptance_epoch",
    "forecast",
    "get_threads",
    "has_rollout_choice",
    "heat_bath_sample",
    "layer_by_layer",
    "linear",
    "linear_gradient",
    "metropolis_decide",
    "metropolis_propose",
    "metropolis_run",
    "one_torch_thread",
    "propose_from_table",
    "responsibilities",
    "rollout_choice",
    "rollout_energy",
    "rollout_gradient",
    "scoring_precision",
    "set_threads",
    "simulate",
    "uses_cuda_kernels",
]
