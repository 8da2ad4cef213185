"""Meta-test: the structures of new systems under a run's fixed modules, and how well they forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nri_fast import energies, metrics, ops
from nri_fast.calibration import expected_calibration_error
from nri_fast.couplings import Coupling
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.run import Run
from nri_fast.search import metropolis_search
from nri_fast.trajectory_data import TrajectoryData

HORIZONS = (1, 10, 20)


@dataclass(frozen=True)
class Inference:
    """What was inferred about some systems.

    Attributes
    ----------
    adjacency : Tensor
        [S, N, N] uint8: ``A[s, i, j]`` is the likeliest type of the edge from i to j; diagonal 0.
    probability : Tensor
        [S, N, N, K] float32: of each type; zero on the diagonal.
    energy : Tensor
        [S] float32: mean squared error of roll-outs of the run's length under `adjacency`, in normalised units squared.
    node_types : Tensor
        [S, N] uint8: the likeliest type of each entity.
    node_probability : Tensor
        [S, N, M] float32.
    """

    adjacency: Tensor
    probability: Tensor
    energy: Tensor
    node_types: Tensor
    node_probability: Tensor


def infer(run: Run, data: TrajectoryData, seed: int = 0, progress: bool = False) -> Inference:
    """Finds who acts on whom, and how, in systems never seen; the modules stay as they are.

    Parameters
    ----------
    run : Run
        From :func:`nri_fast.train` or :meth:`Run.load`.
    data : TrajectoryData
        Systems in recorded units, of any number and size; labels are not looked at.
    seed : int
        Names the random draws of chains (a Metropolis run, or systems with very many entities).
    progress : bool
        Show a progress bar on terminals.

    Returns
    -------
    Inference
        With the exact heat bath each system's part depends on that system only, to the bit. Chains draw random numbers
        that are named by `seed` and the system's place in `data`.
    """
    systems = run.systems(data)
    if run.settings.bounce == "metropolis":
        error = run.error_measure()
        if systems.steps <= run.settings.rollout:
            raise ValueError(f"data: expected at least {run.settings.rollout + 1} steps, got {systems.steps}")
        found = metropolis_search(run.library, systems, error, run.settings.rollout, seed, progress)
    else:
        if systems.steps < 2:
            raise ValueError(f"data: expected at least 2 steps, got {systems.steps}")
        coupling = Coupling(run.settings.undirected, run.settings.shared)
        found = heat_bath_search(run.library, systems, run.error_measure(), None, seed, progress, coupling)
    graph, count = systems.graph, data.systems
    probability = torch.stack([graph.adjacency(column) for column in found.edge_probabilities.unbind(-1)], -1)
    nodes = found.node_types if run.settings.node_types > 1 else None
    with torch.no_grad():
        energy = ops.rollout_energy(
            run.library,
            run.library.flat_parameters(),
            graph,
            systems.states,
            systems.steps,
            found.edge_types[None],
            nodes,
            min(run.settings.rollout, systems.steps - 1),
            energies.error_measure(run.library),
        )[0]
    return Inference(
        graph.adjacency(found.edge_types).cpu(),
        probability.cpu(),
        energy.cpu(),
        found.node_types.view(count, -1).cpu(),
        found.node_probabilities.view(count, data.entities, -1).cpu(),
    )


def forecast(
    run: Run, data: TrajectoryData, inference: Inference, horizon: int = 20, start: int = 0, normalised: bool = False
) -> Tensor:
    """Open-loop forecast from one recorded state on: predictions feed on predictions.

    Parameters
    ----------
    run : Run
        The modules.
    data : TrajectoryData
        Gives the states at step `start`.
    inference : Inference
        Gives the structures.
    horizon : int
        Steps to predict.
    start : int
        Recorded step to start from.
    normalised : bool
        Return the run's units instead of the recorded ones.

    Returns
    -------
    Tensor
        [systems, horizon, N, D]: index h - 1 holds the state h steps after `start`.
    """
    if not 0 <= start < data.steps:
        raise ValueError(f"start: expected 0 to {data.steps - 1}, got {start}")
    states = run.states(data)
    graph = run.systems(data).graph
    nodes = inference.node_types.to(run.device) if run.settings.node_types > 1 else None
    predicted = energies.forecast(
        run.library, graph, states[:, start], inference.adjacency.to(run.device), nodes, horizon
    ).cpu()
    return predicted if normalised else run.normalisation.undo(predicted)


def evaluate(
    run: Run, data: TrajectoryData, inference: Inference | None = None, progress: bool = False
) -> dict[str, Any]:
    """The field's figures on systems never seen.

    Parameters
    ----------
    run, data
        As for :func:`infer`.
    inference : Inference, optional
        Its result, if it is there already.
    progress : bool
        Show a progress bar on terminals.

    Returns
    -------
    dict
        ``systems``; ``edge_accuracy`` (under one best relabelling of the whole set), ``edge_auroc``, ``edge_ece``
        (expected calibration error, see :mod:`nri_fast.calibration`) and ``relabelling``, None without labels of edges;
        ``node_accuracy``, None without labels of entities; ``mse_1``, ``mse_10``, ``mse_20`` of the open-loop forecast,
        with ``..._nothing_moves`` and ``..._constant_velocity`` beside them, in normalised units squared, averaged over
        the starts 0, 20, 40, ... that leave room for the longest horizon that fits; None where the recording is too
        short.
    """
    found = infer(run, data, progress=progress) if inference is None else inference
    result: dict[str, Any] = {"systems": data.systems}
    result |= dict.fromkeys(("edge_accuracy", "edge_auroc", "edge_ece", "relabelling", "node_accuracy"))
    if data.edges is not None:
        types = max(run.settings.edge_types, int(data.edges.max()) + 1)
        accuracy, relabelling = metrics.edge_accuracy(found.adjacency, data.edges, types)
        probability = torch.nn.functional.pad(found.probability, (0, types - run.settings.edge_types))
        result["edge_accuracy"] = _number(accuracy)
        result["edge_auroc"] = _number(metrics.edge_auroc(probability, data.edges, relabelling))
        result["edge_ece"] = _number(expected_calibration_error(probability, data.edges, relabelling))
        result["relabelling"] = relabelling.tolist()
    if data.node_types is not None:
        types = max(run.settings.node_types, int(data.node_types.max()) + 1)
        result["node_accuracy"] = _number(metrics.node_accuracy(found.node_types, data.node_types, types)[0])
    states = run.states(data).cpu()
    longest = max([h for h in HORIZONS if h < data.steps], default=1)
    starts = range(0, data.steps - longest, 20)
    sums: dict[str, float] = {}
    for start in starts:
        recorded = states[:, start + 1 : start + 1 + longest]
        forecasts = {
            "": forecast(run, data, found, longest, start, normalised=True),
            "_nothing_moves": metrics.nothing_moves(states, start, longest),
            "_constant_velocity": metrics.constant_velocity(
                states, start, longest, data.feature_names, run.displacement_fit
            ),
        }
        for name, predicted in forecasts.items():
            for horizon, error in metrics.forecast_errors(predicted, recorded, HORIZONS).items():
                key = f"mse_{horizon}{name}"
                sums[key] = sums.get(key, 0.0) + error / len(starts)
    return result | {name: _number(value) for name, value in sums.items()}


def _number(value: float) -> float | None:
    """None for NaN: JSON has no word for it."""
    return None if math.isnan(value) else value
