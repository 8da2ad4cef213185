"""Meta-test: the structures of new systems under a run's fixed modules, and how well they forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from nri_fast import energies, metrics, ops
from nri_fast.calibration import expected_calibration_error
from nri_fast.couplings import Coupling
from nri_fast.found import Found
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.modules import ModuleLibrary
from nri_fast.neighbours import candidates
from nri_fast.proposals.chain_search import chain_search
from nri_fast.proposals.network import Table, predict
from nri_fast.run import Run, systems_of
from nri_fast.search import metropolis_search
from nri_fast.settings import Search
from nri_fast.substeps import spaced
from nri_fast.system_set import SystemSet
from nri_fast.trajectory_data import TrajectoryData

HORIZONS = (1, 10, 20)


@dataclass(frozen=True)
class Inference:
    """What was inferred about some systems.

    Attributes
    ----------
    adjacency : Tensor
        [S, N, N] uint8: ``A[s, i, j]`` is the likeliest type of the edge from i to j; diagonal 0. In systems of
        different sizes N is the size of the largest; what lies behind a smaller system's entities is zero, here and
        below.
    probability : Tensor
        [S, N, N, K] float32: of each type; zero on the diagonal.
    energy : Tensor
        [S] float32: mean squared error of roll-outs of the run's length under `adjacency`, in normalised units squared.
    node_types : Tensor
        [S, N] uint8: the likeliest type of each entity.
    node_probability : Tensor
        [S, N, M] float32.
    candidates : Tensor or None
        [S, N, N] bool: where an edge was looked for, if the run has neighbour lists; None: everywhere. Elsewhere edges
        are of the silent type 0, with probability 1.
    """

    adjacency: Tensor
    probability: Tensor
    energy: Tensor
    node_types: Tensor
    node_probability: Tensor
    candidates: Tensor | None = None

    def select(self, systems: Tensor, entities: int) -> Inference:
        """Keep some of the systems (int64 [kept]), as :meth:`TrajectoryData.select` does, with `entities` at most."""
        n = slice(entities)
        return Inference(
            self.adjacency[systems][:, n, n],
            self.probability[systems][:, n, n],
            self.energy[systems],
            self.node_types[systems][:, n],
            self.node_probability[systems][:, n],
        )


def infer(
    run: Run,
    data: TrajectoryData,
    seed: int = 0,
    progress: bool = False,
    search: Search | None = None,
    chains: int = 1,
) -> Inference:
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
    search : {"heat_bath", "annealing", "network", "learned", "combined"}, optional
        How; by default as the run was trained. "heat_bath": one-step energies, exactly. "annealing": the paper's chain
        of random changes on roll-out energies. "network": one forward pass of the run's proposal network, no search.
        "learned": a chain that starts from the network's structure and draws from its probabilities. "combined": the
        same with the heat bath's probabilities, and the network's, if the run has one, in equal parts.
    chains : int
        "learned" and "combined": chains per system, at different temperatures, that exchange structures; the best is
        kept.

    Returns
    -------
    Inference
        With the exact heat bath each system's part depends on that system only, to the bit. Chains draw random numbers
        that are named by `seed` and the system's place in `data`.
    """
    near = candidates(data, run.settings)
    systems = systems_of(data, run.padded_states(data), run.step_scale(data), near)
    found = find(run, systems, search, chains, seed, progress)
    graph = systems.graph
    probability = torch.stack([graph.adjacency(column) for column in found.edge_probabilities.unbind(-1)], -1)
    if near is not None:
        probability[..., 0] += (data.pairs & ~near).to(probability)
    nodes = found.node_types if run.settings.node_types > 1 else None
    substeps = run.settings.forecast_substeps
    states, present, steps = spaced(graph, systems.states, systems.present, systems.steps, substeps)
    with torch.no_grad():
        energy = ops.rollout_energy(
            run.forecaster,
            run.forecaster.flat_parameters(),
            graph,
            states,
            steps,
            found.edge_types[None],
            nodes,
            substeps * min(run.settings.rollout, systems.steps - 1),
            energies.error_measure(run.forecaster),
            present=present,
            step_scale=systems.step_scale,
        )[0]
    return Inference(
        graph.adjacency(found.edge_types).cpu(),
        probability.cpu(),
        energy.cpu(),
        _by_system(found.node_types, data),
        _by_system(found.node_probabilities, data),
        None if near is None else near.cpu(),
    )


def _by_system(values: Tensor, data: TrajectoryData) -> Tensor:
    """[S, N, ...] from values per entity [nodes, ...], on the CPU, with zeros behind a system's last entity."""
    result = values.new_zeros(data.systems, data.entities, *values.shape[1:], device="cpu")
    result[data.members.cpu()] = values.cpu()
    return result


def _checked_search(run: Run, systems: SystemSet, search: Search | None, chains: int) -> Search:
    if search is None:
        search = "annealing" if run.settings.bounce == "metropolis" else "heat_bath"
    if search not in get_args(Search):
        raise ValueError(f"search: expected one of {', '.join(get_args(Search))}, got {search!r}")
    if chains < 1 or (chains > 1 and search not in ("learned", "combined")):
        raise ValueError(
            f"chains: expected 1, or more with search 'learned' or 'combined', got {chains} with {search!r}"
        )
    if search in ("network", "learned") and (run.network is None or run.network.states is None):
        raise ValueError(f"search: {search!r} needs a run with a proposal network (network='mlp' or 'cnn' in training)")
    least = run.settings.rollout + 1 if search in ("annealing", "learned", "combined") else 2
    if systems.steps < least:
        raise ValueError(f"data: expected at least {least} steps, got {systems.steps}")
    return search


def find(
    run: Run,
    systems: SystemSet,
    search: Search | None = None,
    chains: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """What :func:`infer` finds, flat over the systems, which are in the run's units; arguments as there."""
    search = _checked_search(run, systems, search, chains)
    library, error, rollout = run.library, run.error_measure(), run.settings.rollout
    coupling = Coupling(run.settings.undirected, run.settings.shared)
    if search == "annealing":
        return metropolis_search(library, systems, error, rollout, seed, progress, coupling)
    tables = []
    if search != "heat_bath" and run.network is not None and run.network.states is not None:
        tables.append(predict(run.network, systems).tied(systems.graph, coupling))
    if search == "network":
        return tables[0].found(systems)
    if search != "learned":
        found = heat_bath_search(library, systems, error, None, seed, progress, coupling)
        if search == "heat_bath":
            return found
        tables.append(Table.of_probabilities(found.edge_probabilities, found.node_probabilities))
    table = tables[0] if len(tables) == 1 else tables[0].mixed(tables[1])
    return chain_search(library, systems, error, rollout, table, chains, seed, progress, coupling)


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
        [systems, horizon, N, D]: index h - 1 holds the state h steps after `start`, in the system's own time steps.
        What lies behind a smaller system's last entity means nothing; NaN for an entity that is absent at `start`.
    """
    if not 0 <= start < data.steps:
        raise ValueError(f"start: expected 0 to {data.steps - 1}, got {start}")
    initial = run.padded_states(data)[:, start]
    nodes = inference.node_types.to(run.device) if run.settings.node_types > 1 else None
    part = None if data.present is None else data.present[:, start].to(run.device)
    predicted = _rolled_out(run, data, initial, inference, nodes, horizon, part).cpu()
    return predicted if normalised else run.normalisation.undo(predicted)


def _rolled_out(
    run: Run,
    data: TrajectoryData,
    initial: Tensor,
    inference: Inference,
    nodes: Tensor | None,
    horizon: int,
    part: Tensor | None,
) -> Tensor:
    """[systems, horizon, N, D]: the first step by modules of its own, where the run has some."""
    adjacency, members = inference.adjacency.to(run.device), None if data.sizes is None else data.members.to(run.device)
    systems = systems_of(data, run.padded_states(data), run.step_scale(data), inference.candidates)
    graph, scale, substeps = systems.graph, systems.step_scale, run.settings.forecast_substeps

    def predicted(library: ModuleLibrary, state: Tensor, steps: int) -> Tensor:
        steps, recorded = steps * substeps, slice(substeps - 1, None, substeps)
        if members is None:
            return energies.forecast(library, graph, state, adjacency, nodes, steps, part, scale)[:, recorded]
        types, there = (None if values is None else values[members] for values in (nodes, part))
        flat = energies.forecast(library, graph, state[members], adjacency, types, steps, there, scale)
        padded = flat.new_zeros(data.systems, steps, data.entities, data.features)
        padded[members[:, None].expand(-1, steps, -1)] = flat.view(-1, data.features)
        return padded[:, recorded]

    if run.first_step is None:
        return predicted(run.forecaster, initial, horizon)
    first = predicted(run.first_step, initial, min(horizon, 1))
    if horizon == 1:
        return first
    usable = first if part is None else torch.where(part[:, None, :, None], first, 0.0)
    finite = torch.isfinite(usable).flatten(1).all(1)[:, None, None, None]
    rest = predicted(run.forecaster, torch.where(finite, first, 0.0)[:, 0], horizon - 1)
    return torch.cat([first, torch.where(finite, rest, torch.nan)], 1)


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
        accuracy, relabelling = metrics.edge_accuracy(found.adjacency, data.edges, types, data.sizes)
        probability = torch.nn.functional.pad(found.probability, (0, types - run.settings.edge_types))
        result["edge_accuracy"] = _number(accuracy)
        result["edge_auroc"] = _number(metrics.edge_auroc(probability, data.edges, relabelling, data.sizes))
        result["edge_ece"] = _number(expected_calibration_error(probability, data.edges, relabelling, sizes=data.sizes))
        result["relabelling"] = relabelling.tolist()
    if data.node_types is not None:
        types = max(run.settings.node_types, int(data.node_types.max()) + 1)
        observed = (found.node_types[data.members][None], data.node_types[data.members][None])
        result["node_accuracy"] = _number(metrics.node_accuracy(*observed, types)[0])
    horizons = [h for h in HORIZONS if h < data.steps] or [1]
    for name, errors in error_growth(run, data, found, max(horizons)).items():
        for horizon in HORIZONS:
            error = errors[horizon - 1] if horizon <= len(errors) else math.nan
            result[f"mse_{horizon}{name}"] = _number(error)
    return result


def error_growth(run: Run, data: TrajectoryData, found: Inference, horizon: int) -> dict[str, list[float]]:
    """Mean squared error of open-loop forecasts at 1, 2, ..., `horizon` steps, beside those of baselines.

    Parameters
    ----------
    run, data : Run, TrajectoryData
    found : Inference
        Of the data.
    horizon : int
        Fewer than the recorded steps.

    Returns
    -------
    dict
        [horizon] errors in normalised units squared, over systems, entities and features, and over the starts 0, 20,
        40, ... that leave room: of the forecast (``""``) and of the baselines ``"_nothing_moves"`` and
        ``"_constant_velocity"``. NaN where a forecast is not finite, and where nothing is compared.
    """
    states = run.padded_states(data).cpu()
    scale = run.step_scale(data)
    present = None if data.present is None else data.present.cpu()
    ahead = range(1, horizon + 1)
    sums = {name: [0.0] * horizon for name in ("", "_nothing_moves", "_constant_velocity")}
    counts = [0] * horizon
    for start in range(0, data.steps - horizon, 20):
        recorded = _entities(states[:, start + 1 : start + 1 + horizon], data)
        compared = _entities(_compared(data, start, horizon)[..., None], data)[..., 0]
        found_there = [int(compared[:, h - 1].sum()) for h in ahead]
        counts = [before + now for before, now in zip(counts, found_there, strict=True)]
        forecasts = {
            "": forecast(run, data, found, horizon, start, normalised=True),
            "_nothing_moves": metrics.nothing_moves(states, start, horizon),
            "_constant_velocity": metrics.constant_velocity(
                states, start, horizon, data.feature_names, run.displacement_fit, present, scale
            ),
        }
        for name, predicted in forecasts.items():
            errors = metrics.forecast_errors(_entities(predicted, data), recorded, ahead, compared)
            for h, count in zip(ahead, found_there, strict=True):
                if count:
                    sums[name][h - 1] += errors[h] * count
    return {
        name: [total / count if count else math.nan for total, count in zip(totals, counts, strict=True)]
        for name, totals in sums.items()
    }


def _compared(data: TrajectoryData, start: int, horizon: int) -> Tensor:
    """[systems, horizon, N] bool: whether an entity is there at `start` and at each of the steps behind it."""
    there = data.there.cpu()
    return there[:, start, None] & there[:, start + 1 : start + 1 + horizon]


def _entities(values: Tensor, data: TrajectoryData) -> Tensor:
    """[systems, steps, N, D], or [entities that are there, steps, 1, D] where systems differ in size."""
    return values if data.sizes is None else values.transpose(1, 2)[data.members.cpu()][:, :, None]


def _number(value: float) -> float | None:
    """None for NaN: JSON has no word for it."""
    return None if math.isnan(value) else value
